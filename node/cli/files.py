"""Rules over files, without a node: `check`, `explain`, `process`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from node import app, desk, dryrun, probing, show, talk
from node.cli.frame import (
    DONE,
    FAILED,
    REFUSED,
    WRONG,
    ago,
    as_json,
    main,
    paths,
    rules_folder,
    rules_of,
    site_if_any_of,
    site_of,
    verb,
)
from node.errors import Misconfigured
from node.flow import securing
from node.model import NOTICE, OperatorSpec
from node.route import check as checking
from node.route.rules import Rule, read_rules, scan_folder
from node.settings import Settings
from node.store.queries import Search
from node.words import counted

_MOST_SERIES = 100_000


@main.command()
@rules_folder
@click.option(
    "--connect",
    is_flag=True,
    help="Also ask every peer with an address whether it is there, and what it would take.",
)
@as_json
@click.pass_context
@verb
def check(context: click.Context, rules: Path | None, connect: bool, as_json: bool) -> int:
    """Check the site file, the rules and their `try:` cases; all mistakes at once."""
    settings = site_if_any_of(context) if rules else site_of(context)
    if settings:
        app.seal_lines(settings)
        app.never_lines(settings)
    folder = rules or (settings.node.rules if settings else Path("rules"))
    specs, mistakes = app.operators(settings.node.data if settings else None)
    files, unreadable = scan_folder(folder)
    empty = [] if files or unreadable else [f"{folder}: there is no rule file, so nothing is routed"]
    peers = app.destinations(settings)
    report = checking.check(files, specs, peers, app.shown_kinds(settings))
    secure, cautions = _secured(settings)
    report = replace(
        report, errors=(*secure, *unreadable, *report.errors), warnings=(*cautions, *empty, *report.warnings)
    )
    reached, taken = (
        _asked(settings, read_rules(files, specs, peers)[0], specs) if connect and settings else ({}, [])
    )
    if as_json:
        told = {
            "ok": report.ok,
            "operators": mistakes,
            "peers": reached,
            "contexts": [asdict(row) for row in taken],
        }
        show.as_json({**asdict(report), **told})
    else:
        _print_report(report, mistakes, reached)
        if taken:
            show.table([probing.shown(row) for row in taken], _CONTEXTS, "")
    if not report.ok:
        return WRONG
    return FAILED if any(reached.values()) or any(map(probing.is_failure, taken)) else DONE


_CONTEXTS = {"peer": "peer", "sop_class": "would be sent", "rules": "by", "accepts": "is taken as"}


def _asked(
    settings: Settings, rules: Sequence[Rule], specs: Mapping[str, OperatorSpec]
) -> tuple[dict[str, str | None], list[probing.Row]]:
    """Every peer with an address: whether it answers, and what it would take of what the rules send."""
    return talk.echo_all(settings), probing.probe(settings, rules, specs)


def _secured(settings: Settings | None) -> tuple[list[str], list[str]]:
    """What is wrong with the TLS files, and what soon will be."""
    if settings is None:
        return [], []
    now = datetime.now(UTC)
    wrong = [*securing.unusable_files(settings), *securing.untimely_files(settings, now)]
    return wrong, securing.ending_files(settings, now)


def _print_report(
    report: checking.Report, mistakes: Sequence[str], reached: Mapping[str, str | None]
) -> None:
    for line in (*report.errors, *mistakes):
        click.echo(line)
    for line in report.warnings:
        click.echo(f"warning: {line}")
    failed = [case for case in report.cases if not case.passed]
    for case in failed:
        click.echo(checking.told(case))
    for name, error in reached.items():
        click.echo(error or f"{name} answers")
    passed = len(report.cases) - len(failed)
    click.echo(
        f"{counted(len(report.rules), 'rule')}, {counted(len(report.errors), 'mistake')}, "
        f"{passed} of {len(report.cases)} try cases as expected"
    )


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@rules_folder
@click.option("--series", default="", help="A series the node holds: its number or Series Instance UID.")
@click.option("--accession", default="", help="Series the node holds, by Accession Number.")
@click.option("--patient", default="", help="Series the node holds, by Patient ID.")
@click.option("--study", default="", help="Series the node holds, by Study Instance UID.")
@click.option(
    "--since", default="", help="Series that came in this time, such as 30 d: which of them each rule takes."
)
@click.option("--from", "peer", default="", help="The peer these files would come from.")
@as_json
@click.pass_context
@verb
def explain(
    context: click.Context,
    paths: tuple[Path, ...],
    rules: Path | None,
    peer: str,
    as_json: bool,
    **asked: str,
) -> int:
    """Dry run: each series, each rule, each clause with the value seen.

    PATHS are files, folders, DICOMDIRs or zip files; else the options name what the node holds.
    """
    since = ago("--since", asked.pop("since"))
    search = Search(
        asked["accession"], asked["patient"], asked["study"], since, _MOST_SERIES, asked["series"]
    )
    kept = bool(since or any(asked.values()))
    if bool(paths) == kept:
        raise Misconfigured(
            "explain takes files or folders, or what the node holds: --series, --accession, --patient, --study, --since"
        )
    settings = site_of(context) if kept else site_if_any_of(context)
    ruleset = rules_of(settings, rules)
    explained = desk.explain_kept(settings, ruleset, search) if kept and settings else []
    passed_over: Mapping[str, str] = {}
    if paths:
        explained, passed_over = desk.explain_files(settings, ruleset, paths, peer)
    if as_json:
        show.as_json(desk.explanation_json(explained, passed_over))
    else:
        many = since and not any(asked.values())
        lines = desk.matched_lines(explained) if many else desk.explanation_lines(explained, passed_over)
        click.echo("\n".join(map(show.printable, lines)))
    return DONE


@main.command()
@click.argument("rule_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@paths
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--from", "peer", default="", help="The peer these files would come from.")
@as_json
@click.pass_context
@verb
def process(
    context: click.Context, rule_file: Path, paths: tuple[Path, ...], out: Path, peer: str, as_json: bool
) -> int:
    """Run a rule's pipeline on files; results to a folder, no network."""
    settings = site_if_any_of(context)
    place = dryrun.Place(out, app.limits_of(settings), settings.node.timezone if settings else "UTC",
                         settings.node.notice if settings else NOTICE)  # fmt: skip
    made = desk.process_files(settings, rule_file, paths, place, peer)
    if as_json:
        show.as_json([desk.processed_json(one) for one in made])
    else:
        for one in made:
            click.echo("\n".join(map(show.printable, desk.processed_lines(one))))
    if any(dryrun.is_failure(one.ended) for one in made):
        return FAILED
    return DONE if any(one.ended and one.ended.products for one in made) else REFUSED
