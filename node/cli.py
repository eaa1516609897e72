"""The command line: verbs, no logic.

Exit codes: 0 done · 1 failed · 2 wrong config, rule or usage · 3 refused: the data does not suit the rule.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from node import __version__, app, desk, dryrun, show, talk
from node import settings as site
from node.errors import Broken, Misconfigured, Refused, Retryable
from node.route import check as checking
from node.route import schema as schemas
from node.route.rules import RuleSet, parse_rules, read_folder, scan_folder
from node.settings import Settings
from node.shape import duration
from node.store import queries
from node.store.database import Database, open_database
from node.store.queries import Search, Wanted

DONE, FAILED, WRONG, REFUSED = 0, 1, 2, 3

as_json = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")
paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
rules_folder = click.option(
    "--rules", type=click.Path(path_type=Path), help="Another rule folder than the site's."
)


def verb(function: Callable[..., int]) -> Callable[..., None]:
    """Turn what a verb returns, and every failure a user can meet, into an exit code."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs)
        except Misconfigured as error:
            click.echo("\n".join(error.mistakes), err=True)
            code = WRONG
        except Refused as error:
            click.echo(str(error), err=True)
            code = REFUSED
        except (Broken, Retryable) as error:
            click.echo(str(error), err=True)
            code = FAILED
        except BrokenPipeError:  # `pacsnode series | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = DONE
        sys.exit(code)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pacsnode")
@click.option(
    "--config", help="The site file; else $PACSNODE_CONFIG, ./config/node.yaml, /etc/pacsnode/node.yaml."
)
@click.pass_context
def main(context: click.Context, config: str | None) -> None:
    """A DICOM network node that keeps, routes and processes what scanners send."""
    warnings.simplefilter("ignore")  # pydicom's warnings quote values of headers
    context.obj = config


def _site(context: click.Context) -> Settings:
    return site.load(site.find(context.obj, os.environ), os.environ)


def _site_if_any(context: click.Context) -> Settings | None:
    """The site file, or None where none was named and none is there."""
    try:
        file = site.find(context.obj, os.environ)
    except Misconfigured:
        if context.obj or "PACSNODE_CONFIG" in os.environ:
            raise
        return None
    return site.load(file, os.environ)


def _database(context: click.Context) -> Database:
    settings = _site(context)
    return open_database(settings.state, settings.node.data, create=False)


def _rules(settings: Settings | None, folder: Path | None) -> RuleSet:
    if folder is None and settings is None:
        raise Misconfigured("no rules: name a folder with --rules, or a site file with --config")
    files = read_folder(folder or settings.node.rules) if settings else read_folder(folder or Path("rules"))
    return parse_rules(files, app.operator_specs(), app.destinations(settings))


# --- the node


@main.command()
@click.option("--keep", type=click.Path(path_type=Path), help="Keep everything in this folder.")
@as_json
@verb
def demo(keep: Path | None, as_json: bool) -> int:
    """Do the main job on real images, with a node and a PACS on loopback."""
    from node.demo import run_demo  # noqa: PLC0415 - imports a phantom maker and a PACS that no other verb needs

    return run_demo(keep, as_json)


@main.command()
@click.pass_context
@verb
def run(context: click.Context) -> int:
    """Run the node until SIGTERM."""
    settings = _site(context)
    app.seal_lines(settings)
    app.data_ready(settings.node.data)
    app.own_database(settings).close()
    return app.run_node(settings)


@main.command()
@rules_folder
@click.option("--connect", is_flag=True, help="Also C-ECHO every peer that has an address.")
@as_json
@click.pass_context
@verb
def check(context: click.Context, rules: Path | None, connect: bool, as_json: bool) -> int:
    """Check the site file, the rules and their `try:` cases; all mistakes at once."""
    settings = _site_if_any(context) if rules else _site(context)
    if settings:
        app.seal_lines(settings)
    folder = rules or (settings.node.rules if settings else Path("rules"))
    specs, mistakes = app.operators()
    files, unreadable = scan_folder(folder)
    report = checking.check(files, specs, app.destinations(settings))
    report = replace(report, errors=(*unreadable, *report.errors))
    reached = talk.echo_all(settings) if connect and settings else {}
    if as_json:
        show.as_json({**asdict(report), "ok": report.ok, "operators": mistakes, "peers": reached})
    else:
        _print_report(report, mistakes, reached)
    if not report.ok:
        return WRONG
    return FAILED if any(reached.values()) else DONE


def _print_report(
    report: checking.Report, mistakes: Sequence[str], reached: Mapping[str, str | None]
) -> None:
    for line in (*report.errors, *mistakes):
        click.echo(line)
    for line in report.warnings:
        click.echo(f"warning: {line}")
    failed = [case for case in report.cases if not case.passed]
    for case in failed:
        click.echo(f"{case.place}: {case.rule}: try: {case.message}")
    for name, error in reached.items():
        click.echo(error or f"{name} answers")
    passed = len(report.cases) - len(failed)
    click.echo(
        f"{len(report.rules)} rules, {len(report.errors)} mistakes, "
        f"{passed} of {len(report.cases)} try cases as expected"
    )


# --- rules over files


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@rules_folder
@click.option("--series", "series", help="A series the node holds: its number or Series Instance UID.")
@click.option("--from", "peer", default="", help="The peer these files would come from.")
@as_json
@click.pass_context
@verb
def explain(
    context: click.Context,
    paths: tuple[Path, ...],
    rules: Path | None,
    series: str | None,
    peer: str,
    as_json: bool,
) -> int:
    """Dry run: each series, each rule, each clause with the value seen."""
    if bool(paths) == bool(series):
        raise Misconfigured("explain takes files or folders, or --series with one series of the node")
    settings = _site(context) if series else _site_if_any(context)
    ruleset = _rules(settings, rules)
    found = desk.explain_kept(settings, ruleset, series) if series and settings else None
    explained, passed_over = (found, {}) if found else desk.explain_files(settings, ruleset, paths, peer)
    if as_json:
        show.as_json(desk.explanation_json(explained, passed_over))
    else:
        click.echo("\n".join(map(show.printable, desk.explanation_lines(explained, passed_over))))
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
    settings = _site_if_any(context)
    place = dryrun.Place(out, app.limits_of(settings), settings.node.timezone if settings else "UTC")
    made = desk.process_files(settings, rule_file, paths, place, peer)
    if as_json:
        show.as_json([desk.processed_json(one) for one in made])
    else:
        for one in made:
            click.echo("\n".join(map(show.printable, desk.processed_lines(one))))
    if any(dryrun.is_failure(one) for one in made):
        return FAILED
    return DONE if any(one.ended and one.ended.products for one in made) else REFUSED


# --- what is where, and why


@main.command()
@as_json
@click.pass_context
@verb
def status(context: click.Context, as_json: bool) -> int:
    """What the node holds and does, and what is wrong."""
    settings = _site(context)
    found = desk.status(settings)
    if as_json:
        show.as_json(found)
    else:
        for line in desk.status_lines(found):
            show.console().print(line)
    return DONE


_LISTS: dict[str, tuple[Callable[..., Any], dict[str, str], tuple[str, ...]]] = {
    "series": (queries.list_series, {
        "id": "series", "revision": "rev", "state": "state", "modality": "modality", "series_number": "number",
        "instances": "objects", "last_at": "last object", "held": "held", "reason": "why",
    }, ("state", "series")),
    "runs": (queries.list_runs, {
        "id": "run", "series_id": "series", "rule": "rule", "state": "state", "attempt": "attempt",
        "products": "made", "finished_at": "finished", "reason": "why",
    }, ("state", "series", "run")),
    "deliveries": (queries.list_deliveries, {
        "destination": "destination", "state": "state", "objects": "objects", "rule": "rule", "status": "status",
        "oldest": "oldest", "reason": "why",
    }, ("state", "series", "run", "to")),
    "events": (queries.list_events, {
        "at": "at", "name": "event", "series_id": "series", "run_id": "run", "instance_id": "object",
        "destination": "destination", "detail": "detail",
    }, ("series", "run", "to")),
}  # fmt: skip

_WANTED = {
    "state": click.option("--state", default="", help="Only this state."),
    "series": click.option(
        "--series", default="", help="Only this series: its number or Series Instance UID."
    ),
    "run": click.option("--run", type=int, default=0, help="Only this run."),
    "to": click.option("--to", "destination", default="", help="Only this destination."),
}
_LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many rows."
)


def _listing(name: str) -> None:
    query, columns, options = _LISTS[name]

    @verb
    def listed(context: click.Context, as_json: bool, **given: Any) -> int:
        database = _database(context)
        with database.read() as tx:
            found = query(tx, Wanted(**given))
        if as_json:
            show.as_json(found)
        else:
            show.table(found, columns, f"No {name}{' like that' if any(narrowed(given)) else ' yet'}.")
        return DONE

    def narrowed(given: Mapping[str, Any]) -> Iterator[bool]:
        return (bool(value) for key, value in given.items() if key != "limit")

    function = click.pass_context(listed)
    for option in (*(_WANTED[key] for key in reversed(options)), _LIMIT, as_json):
        function = option(function)
    main.command(name, help=f"List {name}, newest first.")(function)


for _name in _LISTS:
    _listing(_name)


@main.command()
@click.option("--accession", default="", help="Accession Number.")
@click.option("--patient", default="", help="Patient ID.")
@click.option("--study", default="", help="Study Instance UID.")
@click.option("--since", default="", help="A time ago, such as 2 h or 3 d.")
@as_json
@click.pass_context
@verb
def find(context: click.Context, accession: str, patient: str, study: str, since: str, as_json: bool) -> int:
    """Find series and tell what happened to them, one timeline per study."""
    if not (accession or patient or study or since):
        raise Misconfigured("find needs --accession, --patient, --study or --since")
    ago = duration(since) if since else None
    if since and ago is None:
        raise Misconfigured(f"--since {since}: expected a time such as 30 min, 2 h or 3 d")
    search = Search(accession, patient, study, datetime.now(UTC) - ago if ago else None)
    found = desk.timelines(_database(context), search)
    if as_json:
        show.as_json(found)
    else:
        for line in desk.timeline_lines(found):
            show.console().print(line)
    return DONE if found else FAILED


# --- act


@main.command()
@click.option("--to", "destination", default="", help="Deliveries to this destination.")
@click.option(
    "--status", "status_code", default="", help="Deliveries with this C-STORE status, such as C000."
)
@click.option("--run", type=int, default=0, help="This run.")
@as_json
@click.pass_context
@verb
def retry(context: click.Context, destination: str, status_code: str, run: int, as_json: bool) -> int:
    """Take up what is parked, or a run that failed."""
    if not (destination or status_code or run):
        raise Misconfigured("retry needs --run N, or --to NAME and perhaps --status C000")
    try:
        status = int(status_code, 16) if status_code else None
    except ValueError:
        raise Misconfigured(
            f"--status {status_code}: expected four hexadecimal digits, such as C000"
        ) from None
    count, what = desk.retry(_database(context), run, Wanted(destination=destination, status=status))
    if as_json:
        show.as_json({"retried": count, "what": what})
    else:
        click.echo(f"{count} {what} will be tried again" if count else f"nothing to retry among the {what}")
    return DONE if count else FAILED


@main.command()
@click.option("--series", "ref", default="", help="One series: its number or Series Instance UID.")
@click.option("--all", "everything", is_flag=True, help="Every series that is held.")
@click.pass_context
@verb
def release(context: click.Context, ref: str, everything: bool) -> int:
    """Let held series go: they are routed and processed as if they had just come."""
    if bool(ref) == everything:
        raise Misconfigured("release needs --series N, or --all")
    count = desk.release(_database(context), ref)
    click.echo(f"{count} series released" if count else "nothing to release: not held")
    return DONE if count else FAILED


@main.command()
@paths
@click.option("--to", "destination", required=True, help="A peer of the site file.")
@click.pass_context
@verb
def send(context: click.Context, paths: tuple[Path, ...], destination: str) -> int:
    """Send files to a peer with C-STORE, as they are."""
    stored, problems = talk.send_files(_site(context), destination, paths)
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
    error = talk.echo(_site(context), name)
    click.echo(error or f"{name} answers", err=error is not None)
    return FAILED if error else DONE


# --- what is on offer, upkeep


@main.command()
@click.argument("name", required=False)
@as_json
@verb
def operators(name: str | None, as_json: bool) -> int:
    """The operators rules may use: inputs, options, units, defaults."""
    specs, mistakes = app.operators()
    for mistake in mistakes:
        click.echo(mistake, err=True)
    if name and name not in specs:
        raise desk.unknown_operator(name, specs)
    chosen = [specs[name]] if name else list(specs.values())
    if as_json:
        show.as_json(desk.operators_json(chosen))
    else:
        for spec in chosen:
            click.echo("\n".join(desk.operator_lines(spec)))
    return FAILED if mistakes else DONE


@main.command()
@verb
def schema() -> int:
    """The JSON schema of rule files, for editors."""
    show.as_json(schemas.schema(app.operator_specs()))
    return DONE


@main.command()
@click.pass_context
@verb
def reindex(context: click.Context) -> int:
    """Add rows for received files that the database lacks; series found so are held until released."""
    added, held = app.reindexed(_site(context), lambda count: click.echo(f"{count} objects …", err=True))
    click.echo(f"{added} objects added; {held} series held as restored")
    if held:
        click.echo(
            "what was done with them is not known: `pacsnode release --series N` or `--all` lets them go on"
        )
    return DONE


if __name__ == "__main__":
    main()
