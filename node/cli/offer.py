"""What is on offer: `operators`, `schema`, `conformance`, `rule new`."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

import click

from node import app, desk, show
from node.cli.frame import DONE, FAILED, as_json, main, site_if_any_of, verb
from node.desk.conformance import as_json as conformance_as_json
from node.desk.statement import lines as statement_lines
from node.route import schema as schemas


@main.command()
@click.argument("name", required=False)
@as_json
@verb
def operators(name: str | None, as_json: bool) -> int:
    """The operators rules may use; with NAME one in full: inputs, options, units, defaults."""
    specs, mistakes = app.operators()
    for mistake in mistakes:
        click.echo(mistake, err=True)
    if name and name not in specs:
        raise desk.unknown_operator(name, specs)
    chosen = [specs[name]] if name else list(specs.values())
    if as_json:
        show.as_json(desk.operators_json(chosen))
    elif name:
        click.echo("\n".join(desk.operator_lines(specs[name])))
    else:
        show.table(*desk.operators_table(chosen), "No operators.")
    return FAILED if mistakes else DONE


@main.command()
@click.pass_context
@verb
def schema(context: click.Context) -> int:
    """The JSON schema of rule files, for editors; with a site file it knows the peers."""
    settings = site_if_any_of(context)
    peers = app.destinations(settings) if settings else None
    show.as_json(schemas.schema(app.operator_specs(settings), peers))
    return DONE


@main.command()
@as_json
@click.pass_context
@verb
def conformance(context: click.Context, as_json: bool) -> int:
    """The DICOM conformance statement, as Markdown; with a site file that of the site."""
    settings = site_if_any_of(context)
    if as_json:
        show.as_json(conformance_as_json(settings))
    else:
        click.echo("\n".join(statement_lines(settings)))
    return DONE


@main.group()
def rule() -> None:
    """Rules of your own."""


@rule.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The rule file to write.")
@click.option("--operator", default="", help="What to do with it; else what fits best.")
@click.option(
    "--series", type=click.IntRange(min=1), default=None, help="Which series, where there are several."
)
@click.option("--to", default="", help="The peer that gets the results; else the first that receives.")
@click.option("--owner", default="", help="Who is asked about this rule; else you.")
@as_json
@click.pass_context
@verb
def rule_new(
    context: click.Context, folder: Path, out: Path, series: int | None, as_json: bool, **given: str
) -> int:
    """Write a first rule from an example series; it sends nothing until `mode: shadow` is removed."""
    owner = given.pop("owner") or f"{getpass.getuser()}@{socket.gethostname()}"
    example = desk.Example((folder,), out, series or 0, owner=owner, **given)
    text = desk.new_rule(site_if_any_of(context), example)
    if as_json:
        show.as_json({"file": out, "text": text})
    else:
        click.echo(text, nl=False)
        click.echo(f"written to {out}", err=True)
    return DONE
