"""`pacsnode backup`: the database first, then the files, while the node runs.

The order matters. Files are the truth about what was received and never change; a database older than its
files catches up by its cursors, while files missing from a newer database would be errors.

    backup.json  pacsnode.db  rules.json  database.name  objects/  runs/  site/node.yaml  site/rules/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, select

from node import __version__
from node.errors import Broken, Misconfigured
from node.model import InstanceState
from node.ops.copying import Copied, Copier, files_below
from node.ops.leftovers import buckets, without_file
from node.ops.removing import mark
from node.ops.subjects import WITH_FILE
from node.settings import Settings
from node.store.database import Database, open_database
from node.store.files import Disk, Folder
from node.store.intake import object_path
from node.store.pseudonyms import KEY
from node.store.records import NOTES, receiver_runs
from node.store.schema import VERSION, cursor, instance, product, series
from node.store.snapshot import copy_sqlite

DATABASE = "pacsnode.db"
LABEL = "backup.json"
SMALL = ("rules.json", "database.name", KEY)
"""Files of the data folder beside the database that say which rules passed last, whose data it is, and the key
that pseudonyms are made with."""
_NEW = "new"
"""Folder for the database while its files are copied: until then the backup before is still whole."""
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Label:
    """What a backup says of itself."""

    taken_at: str
    software: str
    schema: int
    database: str
    """sqlite: it is in the backup; postgresql: pg_dump has it."""


def backup(
    settings: Settings,
    database: Database,
    target: Path,
    now: datetime,
    tell: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Bring the backup in *target* up to date; only new files are copied. The node may run meanwhile.

    Where it breaks off, the backup before is as good as it was. Raises Broken where *target* cannot be written
    or another backup is at work in it, Misconfigured where it lies inside the data folder.
    """
    data = settings.node.data
    if target.resolve().is_relative_to(data.resolve()):
        raise Misconfigured(
            f"{target} lies in node.data, which it shall protect; name a folder on another disk"
        )
    try:
        with _alone(target):
            return _backup(settings, database, target, now, tell)
    except (OSError, sqlite3.Error) as error:
        raise Broken(f"the backup in {target} failed: {error}; see to that disk and run it again") from error


def _backup(
    settings: Settings, database: Database, target: Path, now: datetime, tell: Callable[[int], None]
) -> Copied:
    data = settings.node.data
    own = settings.state == "sqlite"
    copied = Copied(database="sqlite" if own else "postgresql")
    copied.linked = data.stat().st_dev == target.stat().st_dev
    copier = Copier(data, target, copied.linked, tell, copied)
    with _snapshot(settings, database, target) as taken:
        _copy_files(taken, copier)
        if own:
            _settle(taken, database, now, copied)
        copied.missing = _missing(taken, target)
        outdated = _outdated(taken, target)
    copier.finish()
    if own:
        _put_in_place(target)
    _copy_small(settings, target)
    label = Label(now.isoformat(), f"PACSNode {__version__}", VERSION, copied.database)
    Disk().replace_file(target / LABEL, json.dumps(asdict(label), indent=2).encode())
    for path in outdated:  # last of all: the backup before may need them until here
        path.unlink()
    copied.dropped = len(outdated)
    return copied


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Be the only one that writes to *target*, which is made where it is missing, for its owner alone."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(target / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken(f"another backup is at work in {target}; wait for its end") from None
        yield
    finally:
        os.close(lock)


@contextmanager
def _snapshot(settings: Settings, database: Database, target: Path) -> Iterator[Database]:
    """The database as it was before the first file is copied; with PostgreSQL, as it is."""
    if settings.state != "sqlite":
        yield database
        return
    shutil.rmtree(target / _NEW, ignore_errors=True)
    Disk().make_folder(target / _NEW)
    copy_sqlite(settings.node.data / DATABASE, target / _NEW / DATABASE)
    with closing(open_database("sqlite", target / _NEW, create=False)) as taken:
        yield taken


def _put_in_place(target: Path) -> None:
    """The new database takes the place of the one before, as one file."""
    new = target / _NEW / DATABASE
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    descriptor = os.open(new, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for beside in ("-wal", "-shm"):  # of the database before: they would be taken for the new one's
        (target / f"{DATABASE}{beside}").unlink(missing_ok=True)
    new.replace(target / DATABASE)
    Disk().sync_folder(Folder(target))
    shutil.rmtree(target / _NEW, ignore_errors=True)


def _copy_small(settings: Settings, target: Path) -> None:
    """The small files of the data folder; and the site file with its rules, for a person to read after a loss."""
    disk = Disk()
    for name in SMALL:
        with contextlib.suppress(FileNotFoundError):
            disk.replace_file(target / name, (settings.node.data / name).read_bytes(), mode_of(name))
    disk.make_folder(target / "site" / "rules")
    disk.replace_file(target / "site" / "node.yaml", settings.source.encode())
    rules = settings.node.rules
    for path in sorted(rules.glob("*.y*ml")) if rules.is_dir() else ():
        disk.replace_file(target / "site" / "rules" / path.name, path.read_bytes())


def mode_of(name: str) -> int:
    """Nobody but the node reads the key; 0: as all files."""
    return 0o600 if name == KEY else 0


def _copy_files(taken: Database, copier: Copier) -> None:
    """Every received file there is, the ends of associations that are still to be read, and every product."""
    with taken.read() as tx:
        read = _cursors(tx)
        products = list(tx.scalars(select(product.c.path).where(product.c.removed_at.is_(None))))
    for path in files_below(copier.source / "objects"):
        if not _was_read(path, read):
            copier.copy(path.relative_to(copier.source))
    for name in products:
        copier.copy(name)


def _cursors(tx: Connection) -> dict[int, int]:
    found = tx.execute(select(cursor.c.receiver_run, cursor.c.sequence))
    return {int(receiver_run): int(sequence) for receiver_run, sequence in found}


def _was_read(path: Path, read: dict[int, int]) -> bool:
    """The end of an association, or a message, that the conductor has taken in: nobody reads it again."""
    receiver_run, sequence = _record(path)
    return path.suffix in NOTES and sequence <= read.get(receiver_run, 0)


def _settle(taken: Database, live: Database, now: datetime, copied: Copied) -> None:
    """What retention removed since the database was copied is removed in the copy, too."""
    with taken.read() as tx:
        kept = set(tx.scalars(select(series.c.id).where(series.c.removed_at.is_(None))))
        objects = set(tx.scalars(select(instance.c.id).where(instance.c.state.in_(WITH_FILE))))
    with live.read() as tx:
        gone = set(tx.scalars(select(series.c.id).where(series.c.removed_at.is_not(None)))) & kept
        loose = instance.c.series_id.is_(None) & (instance.c.state == InstanceState.REMOVED)
        alone = set(tx.scalars(select(instance.c.id).where(loose))) & objects
    with taken.write() as tx:
        for of_series, ids in ((True, gone), (False, alone)):
            for key in sorted(ids):
                mark(tx, key, "while the backup was made", now, of_series=of_series)
    copied.removed_meanwhile = len(gone)


def _missing(taken: Database, target: Path) -> list[str]:
    """The files that rows promise and the backup lacks."""
    with taken.read() as tx:
        where = instance.c.state.in_(WITH_FILE)
        objects = tx.execute(select(instance.c.receiver_run, instance.c.sequence).where(where)).all()
        products = tx.scalars(select(product.c.path).where(product.c.removed_at.is_(None))).all()
    promised = [*(object_path(target, *record) for record in objects), *(target / name for name in products)]
    return [str(path.relative_to(target)) for path in promised if not path.exists()]


def _outdated(taken: Database, target: Path) -> list[Path]:
    """The files of the backup that retention has removed from the node, and ends of associations that were read."""
    with taken.read() as tx:
        read = _cursors(tx)
        products = set(tx.scalars(select(product.c.path).where(product.c.removed_at.is_(None))))
    found = [path for path in files_below(target / "runs") if str(path.relative_to(target)) not in products]
    for receiver_run in receiver_runs(target):
        for bucket in buckets(target, receiver_run):
            with taken.read() as tx:
                gone = without_file(tx, receiver_run, int(bucket.name))
            found += [p for p in files_below(bucket) if _was_read(p, read) or _record(p)[1] in gone]
    return found


def _record(path: Path) -> tuple[int, int]:
    """Receiver run and sequence of a received file."""
    return int(path.parts[-3]), int(path.stem)
