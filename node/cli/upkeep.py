"""Upkeep of what the node keeps: `clean`, `verify`, `backup`, `restore`, `reindex`, `import`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from node import app, holding, show
from node.cli.frame import DONE, FAILED, ago, as_json, main, paths, site_of, verb
from node.errors import Misconfigured
from node.importing import import_files
from node.ops import backup as backups
from node.ops import restore as restores
from node.ops.copying import Copied
from node.ops.forecast import Share, forecast
from node.ops.leftovers import sweep, would_sweep
from node.ops.removing import remove, survey
from node.ops.verification import Verified
from node.ops.verification import verify as verified
from node.settings import Settings
from node.store.database import Database, belongs, open_database

_SHOWN = 50
"""Problems that `verify` shows one by one."""
_SHARES = {
    "series": "series", "objects": "objects", "results": "results", "size": "size", "oldest": "last change",
    "until": "first goes",
}  # fmt: skip


def _own(settings: Settings) -> Database:
    """The database of the data folder. Raises Misconfigured where it is another one."""
    database = open_database(settings.state, settings.node.data, create=False)
    if not belongs(database, settings.node.data):
        raise Misconfigured(
            f"the database is not the one that {settings.node.data} was written with; restore the backup, or stop "
            "the node and run `pacsnode reindex`"
        )
    return database


@main.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go, and why the rest stays.")
@as_json
@click.pass_context
@verb
def clean(context: click.Context, dry_run: bool, as_json: bool) -> int:
    """Remove now what is past its time in `keep`, as the node does every night."""
    settings, now = site_of(context), datetime.now(UTC)
    with closing(_own(settings)) as database:
        if dry_run:
            _foretell(database, settings, now, as_json)
            return DONE
        removed = remove(database, settings, now)
        left = sweep(database, settings.node.data)
    counts = {"series": removed.series, "objects": removed.objects, "results": removed.results,
              "bytes": removed.bytes, "leftovers": left.count}  # fmt: skip
    if as_json:
        show.as_json(counts)
    else:
        click.echo(
            f"{removed.series} series removed: {removed.objects} objects ({_size(removed.bytes)}) and "
            f"{removed.results} results; {left}"
        )
    return DONE


def _foretell(database: Database, settings: Settings, now: datetime, as_json: bool) -> None:
    """What `clean` would do, and why the rest stays."""
    found = forecast(survey(database, settings, now))
    left = would_sweep(database, settings.node.data, found.going)
    if as_json:
        halves = {"removed": found.removed, "kept": found.kept}
        shares = {name: list(map(asdict, half.values())) for name, half in halves.items()}
        show.as_json({**shares, "leftovers": left.count, "leftover_kinds": asdict(left)})
        return
    _print_shares("would go, by its line of `keep`", "Nothing would go.", found.removed.values(), settings)
    _print_shares("stays, because", "Nothing stays.", found.kept.values(), settings)
    if left.count:
        click.echo(f"Would go as well: {left}.")


def _print_shares(title: str, empty: str, shares: Iterable[Share], settings: Settings) -> None:
    rows: list[dict[str, Any]] = [{**asdict(s), "size": _size(s.bytes)} for s in shares]
    show.table(rows, {**_SHARES, "reason": title}, empty, ZoneInfo(settings.node.timezone))


def _size(count: int) -> str:
    """Bytes in the unit a person would say."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


@main.command()
@click.option("--since", default="", help="Only what came or was made so long ago at most, such as 2 d.")
@as_json
@click.pass_context
@verb
def verify(context: click.Context, since: str, as_json: bool) -> int:
    """Check that every file is there and unchanged, and that the database is sound."""
    settings = site_of(context)
    with closing(_own(settings)) as database:
        found = verified(database, settings, ago("--since", since), _tell)
    if as_json:
        show.as_json(asdict(found))
    else:
        _print_verified(found)
    return FAILED if found.problems else DONE


def _print_verified(found: Verified) -> None:
    for problem in found.problems[:_SHOWN]:
        click.echo(f"{problem.where}: {problem.what}; {problem.do}")
    if len(found.problems) > _SHOWN:
        click.echo(f"… and {len(found.problems) - _SHOWN} more: --json shows all")
    notes = (
        (found.waiting, "files wait to be taken in"),
        (found.left_over, "files of removed objects: the next `clean` takes them"),
    )
    for count, words in notes:
        if count:
            click.echo(f"{count} {words}")
    click.echo(
        f"{found.objects} objects and {found.products} results ({_size(found.bytes)}) checked, "
        f"{len(found.problems) or 'no'} problem{'' if len(found.problems) == 1 else 's'}"
    )


def _tell(count: int) -> None:
    click.echo(f"{count} files …", err=True)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@as_json
@click.pass_context
@verb
def backup(context: click.Context, folder: Path, as_json: bool) -> int:
    """Bring the backup in FOLDER up to date while the node runs; only new files are copied."""
    settings = site_of(context)
    with closing(_own(settings)) as database:
        copied = backups.backup(settings, database, folder, datetime.now(UTC), _tell)
    if as_json:
        show.as_json(asdict(copied))
    else:
        _print_backup(copied, folder)
    return FAILED if copied.missing else DONE


def _print_backup(copied: Copied, folder: Path) -> None:
    done = "linked" if copied.linked else "copied"
    click.echo(
        f"{copied.files} files {done} ({_size(copied.bytes)}), {copied.there} were there, {copied.dropped} dropped"
    )
    if copied.removed_meanwhile:
        click.echo(f"{copied.removed_meanwhile} series were removed by retention meanwhile")
    if copied.linked:
        click.echo(f"{folder} is on the node's own disk: this does not protect from a broken disk", err=True)
    if copied.database == "postgresql":
        click.echo("the database is not in it: run pg_dump before this, every time", err=True)
    for name in copied.missing[:_SHOWN]:
        click.echo(f"{name}: missing in node.data; run `pacsnode verify`", err=True)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@as_json
@click.pass_context
@verb
def restore(context: click.Context, folder: Path, as_json: bool) -> int:
    """Fill the empty data folder from the backup in FOLDER; then start the node."""
    settings = site_of(context)
    label, copied = restores.restore(settings, folder, datetime.now(UTC), _tell)
    if as_json:
        show.as_json({"taken_at": label.taken_at, **asdict(copied)})
        return DONE
    click.echo(f"{copied.files} files ({_size(copied.bytes)}) restored from the backup of {label.taken_at}")
    click.echo(f"the site file and the rules of that day are in {folder / 'site'}")
    click.echo(
        "now `pacsnode verify`, then `pacsnode run`; what was delivered after the backup may be sent once more, "
        "with the same UIDs and bytes"
    )
    return DONE


@main.command()
@click.pass_context
@verb
def reindex(context: click.Context) -> int:
    """Add rows for received files that the database lacks; series found so are held until released."""
    added, held = app.reindexed(site_of(context), lambda count: click.echo(f"{count} objects …", err=True))
    click.echo(f"{added} objects added; {held} series held as restored")
    if held:
        click.echo(
            "what was done with them is not known: `pacsnode release --series N` or `--all` lets them go on"
        )
    return DONE


@main.command("import")
@paths
@click.option("--from", "peer", required=True, help="The peer of the site file that would have sent them.")
@click.option("--called", default="", help="The AE title of ours that it would have called; else the first.")
@as_json
@click.pass_context
@verb
def import_(context: click.Context, paths: tuple[Path, ...], peer: str, called: str, as_json: bool) -> int:
    """Take in files and folders as if a peer had sent them: rules run and deliver as for anything that comes."""
    settings = site_of(context)
    called = called or settings.node.ae_titles[0]
    done = import_files(
        settings, peer, called, paths, lambda count: click.echo(f"{count} objects …", err=True)
    )
    if as_json:
        show.as_json(asdict(done))
    else:
        for problem in done.problems:
            click.echo(problem, err=True)
        passed = (
            f"; {done.passed_over} files passed over that are no DICOM objects" if done.passed_over else ""
        )
        click.echo(f"{done.kept} objects taken in, as from {peer}{passed}")
        if done.kept and not holding.is_running(settings.node.data):
            click.echo("the node does not run; it looks at them when it starts")
    return FAILED if done.problems or not done.kept else DONE
