"""`pacsnode verify`: every file that a row promises is there and holds the bytes it held when it was indexed.

Of a received file only the file meta is read, as bytes; nothing of a peer's dataset is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from node.digest import digest_again
from node.errors import Broken
from node.model import InstanceState
from node.ops.leftovers import buckets
from node.ops.subjects import WITH_FILE
from node.settings import Settings
from node.store import schema
from node.store.arrival import read_arrival
from node.store.database import Database, rows
from node.store.intake import cursor_of, object_path
from node.store.records import BUCKET, OBJECT, receiver_runs
from node.store.schema import instance, product, run

_GROUP = 500
_TELL = 1000
_REINDEX = "stop the node and run `pacsnode reindex`"
_BACKUP = "restore it from a backup, or have the source send it again"
_MADE_AGAIN = "restore it from a backup, or let its series be processed again"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where and what to do."""

    what: str
    where: str
    """A path relative to the data folder, or the database."""
    do: str


@dataclass(slots=True)
class Verified:
    """What was looked at and what is wrong."""

    objects: int = 0
    products: int = 0
    bytes: int = 0
    waiting: int = 0
    """Received files that the conductor has still to take in."""
    left_over: int = 0
    """Files of removed rows, which the next retention takes."""
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def verify(
    database: Database,
    settings: Settings,
    since: datetime | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Check the database, received objects and products, those only that came or were made after *since*.

    *tell* gets the number of files after each thousand. The node may run meanwhile.
    """
    found = Verified()
    _database(database, found)
    data = settings.node.data
    for row in _objects(database, since):
        found.objects += 1
        _object(database, data, row, found)
        _told(found, tell)
    for row in _products(database, since):
        found.products += 1
        _product(database, data, row, found)
        _told(found, tell)
    if since is None:
        _files(database, data, found)
    return found


def _told(found: Verified, tell: Callable[[int], None]) -> None:
    count = found.objects + found.products
    if count % _TELL == 0:
        tell(count)


def _database(database: Database, found: Verified) -> None:
    """What the database says of itself, and how many rows each table has."""
    with database.read() as tx:
        if tx.dialect.name == "sqlite":
            for (line,) in tx.exec_driver_sql("PRAGMA integrity_check"):
                if line != "ok":
                    found.problems.append(Problem(str(line), "pacsnode.db", "restore a backup"))
            for table, *_ in tx.exec_driver_sql("PRAGMA foreign_key_check"):
                what = f"a row of table {table} refers to nothing"
                found.problems.append(Problem(what, "pacsnode.db", "restore a backup"))
        for name, table in schema.metadata.tables.items():
            found.rows[name] = tx.scalar(select(func.count()).select_from(table)) or 0


def _objects(database: Database, since: datetime | None) -> Iterator[Mapping[str, Any]]:
    """Rows whose received file must be there."""
    columns = [instance.c[n] for n in ("id", "receiver_run", "sequence", "state", "digest", "pixels_at")]
    statement = select(*columns).where(instance.c.state.in_(WITH_FILE))
    if since is not None:
        statement = statement.where(instance.c.received_at >= since)
    return _all(database, statement, instance.c.id)


def _products(database: Database, since: datetime | None) -> Iterator[Mapping[str, Any]]:
    """Rows whose derived file must be there."""
    statement = select(product.c.id, product.c.path, product.c.digest).where(product.c.removed_at.is_(None))
    if since is not None:
        statement = statement.join(run, run.c.id == product.c.run_id).where(run.c.finished_at >= since)
    return _all(database, statement, product.c.id)


def _all(database: Database, statement: Any, key: Any) -> Iterator[Mapping[str, Any]]:
    """All rows in short reads, so that the write-ahead log can be emptied in between."""
    last = 0
    while True:
        with database.read() as tx:
            found = rows(tx, statement.where(key > last).order_by(key).limit(_GROUP))
        if not found:
            return
        yield from found
        last = found[-1]["id"]


def _object(database: Database, data: Path, row: Mapping[str, Any], found: Verified) -> None:
    path = object_path(data, row["receiver_run"], row["sequence"])
    try:
        digest = _digest_of(path, row["pixels_at"])
        found.bytes += path.stat().st_size
    except FileNotFoundError:
        what = "a received object is gone"
    except (OSError, Broken) as error:
        what = f"a received object cannot be read ({type(error).__name__})"
    else:
        if not row["digest"] or digest == row["digest"]:  # none was taken of what could not be read at all
            return
        what = "the bytes of a received object are not those that came"
    with database.read() as tx:  # retention, or a newer header, may have been quicker
        state = tx.scalar(select(instance.c.state).where(instance.c.id == row["id"]))
    if state != InstanceState.REMOVED:
        found.problems.append(Problem(what, str(path.relative_to(data)), _BACKUP))


def _digest_of(path: Path, pixels_at: int) -> str:
    """As the reader took it."""
    arrival, offset = read_arrival(path)
    with path.open("rb") as file:
        return digest_again(file, offset, arrival.transfer_syntax, pixels_at)


def _product(database: Database, data: Path, row: Mapping[str, Any], found: Verified) -> None:
    path = data / row["path"]
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.bytes += file.tell()
    except FileNotFoundError:
        what = "a result is gone"
    except OSError as error:
        what = f"a result cannot be read ({type(error).__name__})"
    else:
        if digest == row["digest"]:
            return
        what = "the bytes of a result are not those that were made"
    with database.read() as tx:
        removed = tx.scalar(select(product.c.removed_at).where(product.c.id == row["id"]))
    if removed is None:
        found.problems.append(Problem(what, str(row["path"]), _MADE_AGAIN))


def _files(database: Database, data: Path, found: Verified) -> None:
    """Received files that no row names: still to be taken in, left over, or lost to the database."""
    for receiver_run in receiver_runs(data):
        for bucket in buckets(data, receiver_run):
            files = {int(p.stem): p for p in bucket.glob(f"*{OBJECT}") if p.stem.isdigit()}
            with database.read() as tx:
                states = _states(tx, receiver_run, int(bucket.name))
                read = cursor_of(tx, receiver_run)
            for number, path in sorted(files.items()):
                state = states.get(number)
                if state is None and number > read:
                    found.waiting += 1
                elif state is None:
                    what = "a received object has no row"
                    found.problems.append(Problem(what, str(path.relative_to(data)), _REINDEX))
                elif state not in WITH_FILE:
                    found.left_over += path.exists()


def _states(tx: Connection, receiver_run: int, bucket: int) -> dict[int, str]:
    here = instance.c.sequence.between(bucket * BUCKET, (bucket + 1) * BUCKET - 1)
    where = (instance.c.receiver_run == receiver_run) & here
    return {int(n): str(s) for n, s in tx.execute(select(instance.c.sequence, instance.c.state).where(where))}
