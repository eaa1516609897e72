"""`pacsnode restore`: an empty data folder becomes what it was when the backup was taken.

The database comes last, so that a restore that broke off is no node's data. What was delivered after the
backup may be sent once more, with the same UIDs and the same bytes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from node.errors import Broken, Misconfigured, Refused
from node.ops.backup import DATABASE, LABEL, SMALL, Label, mode_of
from node.ops.copying import Copied, Copier, files_below
from node.settings import Settings
from node.store.database import belongs, note, open_database
from node.store.files import Disk
from node.store.records import run_folder
from node.store.schema import VERSION, cursor, instance
from node.store.snapshot import copy_sqlite


def restore(
    settings: Settings, source: Path, now: datetime, tell: Callable[[int], None] = lambda _: None
) -> tuple[Label, Copied]:
    """Fill the empty data folder from the backup in *source*; what the backup says of itself, and what was copied.

    Raises Refused where the data folder is not empty, Misconfigured where *source* is no whole backup or none
    for this site, Broken where the disk fails.
    """
    data = settings.node.data
    label = read_label(source)
    _fits(settings, label, source)
    try:
        data.mkdir(mode=0o750, parents=True, exist_ok=True)
        if found := sorted(p.name for p in data.iterdir() if p.name != "lost+found"):
            raise Refused(
                f"node.data: {data} is not empty ({', '.join(found[:3])} …); move away what is there, "
                "or name an empty folder"
            )
        copied = Copied(database=label.database)
        for name in SMALL:
            if (source / name).exists():
                Disk().replace_file(data / name, (source / name).read_bytes(), mode_of(name))
        copier = Copier(source, data, False, tell, copied)
        for folder in ("objects", "runs"):
            for path in files_below(source / folder):
                copier.copy(path.relative_to(source))
        copier.finish()
        if label.database == "sqlite":
            copy_sqlite(source / DATABASE, data / DATABASE)
        with closing(open_database(settings.state, data)) as database, database.write() as tx:
            _claim_numbers(tx, data)
            note(tx, now, "restored", f"from a backup of {label.taken_at}: {copied.files} files")
    except (OSError, sqlite3.Error) as error:
        raise Broken(f"{data} is not restored: {error}; empty it and restore again") from error
    return label, copied


def read_label(source: Path) -> Label:
    """What a backup says of itself. Raises Misconfigured where *source* is no whole backup."""
    try:
        return Label(**json.loads((source / LABEL).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise Misconfigured(f"{source} is no whole backup of a node: {LABEL} is missing or damaged") from None


def _fits(settings: Settings, label: Label, source: Path) -> None:
    """Raise Misconfigured where this site cannot take this backup."""
    here = "sqlite" if settings.state == "sqlite" else "postgresql"
    if label.database != here:
        raise Misconfigured(
            f"{source} is a backup with `state: {label.database}`; the site file says {here}, change that first"
        )
    if label.schema > VERSION:
        raise Misconfigured(f"{source} was made by {label.software}; install that version or a later one")
    if here == "postgresql":
        with closing(open_database(settings.state, settings.node.data, create=False)) as database:
            if (source / "database.name").exists() and not belongs(database, source):
                raise Misconfigured(
                    "the PostgreSQL database is not the one of this backup; bring its pg_dump back with "
                    "pg_restore first"
                )


def _claim_numbers(tx: Connection, data: Path) -> None:
    """Make the folder of the highest receiver run that rows know: its number must never be given again."""
    known = [
        tx.scalar(select(func.max(column))) for column in (cursor.c.receiver_run, instance.c.receiver_run)
    ]
    if highest := max(number or 0 for number in known):
        Disk().make_folder(run_folder(data, highest))
