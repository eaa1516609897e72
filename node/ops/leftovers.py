"""What nobody needs any more: files of rows that say `removed`, read records, attempts that were given up.

Nothing here decides about data: that was done, and recorded, before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, select

from node.flow.transcoding import FOLDER, nobodys
from node.model import InstanceState, RunState
from node.ops.removing import unlink
from node.store.database import Database
from node.store.intake import cursor_of
from node.store.records import (
    BUCKET,
    NOTES,
    OBJECT,
    clean_dead_runs,
    is_alive,
    receiver_runs,
    run_folder,
)
from node.store.schema import instance, product, run, series

_WITHOUT_FILE = (InstanceState.REMOVED, InstanceState.DUPLICATE)


def sweep(database: Database, data: Path) -> int:
    """Remove all leftovers in *data*; how many files and folders there were. Raises OSError."""
    removed = clean_dead_runs(data) + sweep_copies(database, data)
    for path in (*_records(database, data), *_attempts(database, data)):
        unlink(path)
        removed += 1
    _drop_empty(data)
    return removed


def sweep_copies(database: Database, data: Path) -> int:
    """Remove the transcoded copies that nobody waits to send: of what was cancelled, or made again."""
    with database.read() as tx:
        gone = list(nobodys(tx, data / FOLDER))
    for path in gone:
        unlink(path)
    return len(gone)


def _records(database: Database, data: Path) -> Iterator[Path]:
    """Objects whose rows say that their file is gone, and ends of associations and messages that were taken in."""
    for receiver_run in receiver_runs(data):
        for bucket in buckets(data, receiver_run):
            files = [path for path in bucket.iterdir() if path.stem.isdigit()]
            with database.read() as tx:
                gone = without_file(tx, receiver_run, int(bucket.name))
                read = cursor_of(tx, receiver_run)
            for path in files:
                number = int(path.stem)
                if number in gone if path.suffix == OBJECT else path.suffix in NOTES and number <= read:
                    yield path


def without_file(tx: Connection, receiver_run: int, bucket: int) -> set[int]:
    """The sequences of one bucket whose rows say that there is no file."""
    where = (
        (instance.c.receiver_run == receiver_run)
        & instance.c.sequence.between(bucket * BUCKET, (bucket + 1) * BUCKET - 1)
        & instance.c.state.in_(_WITHOUT_FILE)
    )
    return set(tx.scalars(select(instance.c.sequence).where(where)))


def buckets(data: Path, receiver_run: int) -> list[Path]:
    """The folders of a receiver run that hold records, in order."""
    return sorted(path for path in run_folder(data, receiver_run).iterdir() if path.name.isdigit())


def _drop_empty(data: Path) -> None:
    """Remove empty buckets, but the last of a run; and empty runs, but the last, whose number is not to come again.

    A living receiver writes to the last bucket of its run. rmdir never removes what is not empty.
    """
    runs = receiver_runs(data)
    for receiver_run in runs:
        found = buckets(data, receiver_run)
        if not found:  # it is being born: its lock comes before its first bucket
            continue
        over = receiver_run != runs[-1] and not is_alive(data, receiver_run)
        for bucket in found if over else found[:-1]:
            with contextlib.suppress(OSError):
                bucket.rmdir()
        if over:
            with contextlib.suppress(OSError):
                run_folder(data, receiver_run).rmdir()


def _attempts(database: Database, data: Path) -> Iterator[Path]:
    """Folders of attempts that a later one replaced, and of runs that are unknown or whose series is removed."""
    folder = data / "runs"
    for path in sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else ():
        attempts = [p for p in path.iterdir() if p.name.isdigit()]
        with database.read() as tx:  # after the listing: an attempt that begins now is not in it
            last, products = _known(tx, int(path.name))
        if last is None:
            yield path
        else:
            yield from (
                p for p in attempts if int(p.name) < last and f"runs/{path.name}/{p.name}" not in products
            )


def _known(tx: Connection, number: int) -> tuple[int | None, set[str]]:
    """The last attempt of a run, None where its folder is nobody's; and the folders of its products."""
    row = tx.execute(
        select(run.c.attempt, run.c.state, series.c.removed_at)
        .join(series, series.c.id == run.c.series_id)
        .where(run.c.id == number)
    ).one_or_none()
    if row is None or (row.removed_at and row.state not in (RunState.WAITING, RunState.RUNNING)):
        return None, set()
    paths = tx.scalars(select(product.c.path).where(product.c.run_id == number))
    return int(row.attempt), {"/".join(path.split("/")[:3]) for path in paths}
