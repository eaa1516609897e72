"""Talk to a peer: `send`, `echo`."""

from __future__ import annotations

from pathlib import Path

import click

from node import talk
from node.cli.frame import (
    DONE,
    FAILED,
    main,
    paths,
    site_of,
    verb,
)


@main.command()
@paths
@click.option("--to", "destination", required=True, help="A peer of the site file.")
@click.pass_context
@verb
def send(context: click.Context, paths: tuple[Path, ...], destination: str) -> int:
    """Send files to a peer with C-STORE, as they are."""
    stored, problems = talk.send_files(site_of(context), destination, paths)
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{stored} stored at {destination}")
    return FAILED if problems or not stored else DONE


@main.command()
@click.argument("name")
@click.pass_context
@verb
def echo(context: click.Context, name: str) -> int:
    """C-ECHO a peer."""
    error = talk.echo(site_of(context), name)
    click.echo(error or f"{name} answers", err=error is not None)
    return FAILED if error else DONE
