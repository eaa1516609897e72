"""What nobody needs any more: files of rows that say `removed`, read records, attempts that were given up.

Nothing here decides about data: that was done, and recorded, before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from node.flow.transcoding import FOLDER, nobodys
from node.model import InstanceState, RunState
from node.ops.removing import ended_with, unlink
from node.ops.subjects import GROUP, Subject
from node.store.database import Database
from node.store.intake import cursor_of
from node.store.records import (
    BUCKET,
    NOTES,
    OBJECT,
    clean_dead_runs,
    count_dead_parts,
    is_alive,
    receiver_runs,
    run_folder,
)
from node.store.schema import instance, product, run, series

_WITHOUT_FILE = (InstanceState.REMOVED, InstanceState.DUPLICATE)


@dataclass(slots=True)
class Leftovers:
    """How many files and folders there are of each kind."""

    parts: int = 0
    """Unfinished files of receivers that are gone."""
    copies: int = 0
    """Copies for sending that nobody waits for, and tables of values that nobody uses."""
    records: int = 0
    """Files of objects that are removed or known twice, and notes of receivers that were read."""
    attempts: int = 0
    """Folders of attempts that were given up, and of runs that nobody knows."""

    @property
    def count(self) -> int:
        """All together."""
        return self.parts + self.copies + self.records + self.attempts

    def __str__(self) -> str:
        """The count, and of what kinds they are."""
        words = (
            (self.parts, "unfinished files of receivers that are gone"),
            (self.copies, "copies and tables that nobody waits for"),
            (self.records, "files of removed objects and notes that were read"),
            (self.attempts, "folders of attempts and runs that are over"),
        )
        kinds = ", ".join(f"{count} {what}" for count, what in words if count)
        return f"{self.count} leftover{'' if self.count == 1 else 's'}{f' ({kinds})' if kinds else ''}"


@dataclass(slots=True)
class Going:
    """What retention takes before the leftovers are looked for; nothing where it has been."""

    series: set[int] = field(default_factory=set)
    """Revisions, with the folders of their runs."""
    deliveries: set[int] = field(default_factory=set)
    """They are cancelled with what they would send."""


def sweep(database: Database, data: Path) -> Leftovers:
    """Remove all leftovers in *data*, and say what there was. Raises OSError."""
    found = Leftovers(parts=clean_dead_runs(data), copies=sweep_copies(database, data))
    for path in _records(database, data):
        unlink(path)
        found.records += 1
    for path in _attempts(database, data, Going()):
        unlink(path)
        found.attempts += 1
    _drop_empty(data)
    return found


def would_sweep(database: Database, data: Path, gone: Sequence[Subject]) -> Leftovers:
    """What `sweep` will remove once retention has removed what is *gone*. Raises OSError."""
    going = _going(database, gone)
    with database.read() as tx:
        copies = sum(1 for _ in nobodys(tx, data / FOLDER, going.deliveries))
    return Leftovers(
        parts=count_dead_parts(data),
        copies=copies,
        records=sum(1 for _ in _records(database, data)),
        attempts=sum(1 for _ in _attempts(database, data, going)),
    )


def _going(database: Database, subjects: Sequence[Subject]) -> Going:
    going = Going({subject.id for subject in subjects if subject.of_series})
    for of_series in (True, False):
        ids = [subject.id for subject in subjects if subject.of_series is of_series]
        for start in range(0, len(ids), GROUP):
            with database.read() as tx:
                going.deliveries |= ended_with(tx, ids[start : start + GROUP], of_series=of_series)
    return going


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


def _attempts(database: Database, data: Path, going: Going) -> Iterator[Path]:
    """Folders of attempts that a later one replaced, and of runs that are unknown or whose series is removed."""
    folder = data / "runs"
    for path in sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else ():
        attempts = [p for p in path.iterdir() if p.name.isdigit()]
        with database.read() as tx:  # after the listing: an attempt that begins now is not in it
            known = _known(tx, int(path.name))
        if known is None:
            yield path
        elif known.series not in going.series:
            yield from (
                p
                for p in attempts
                if int(p.name) < known.attempt and f"runs/{path.name}/{p.name}" not in known.products
            )


@dataclass(frozen=True, slots=True)
class _Run:
    series: int
    attempt: int
    """The last."""
    products: set[str]
    """The folders of its products."""


def _known(tx: Connection, number: int) -> _Run | None:
    """What is known of a run; None where its folder is nobody's."""
    row = tx.execute(
        select(run.c.series_id, run.c.attempt, run.c.state, series.c.removed_at)
        .join(series, series.c.id == run.c.series_id)
        .where(run.c.id == number)
    ).one_or_none()
    if row is None or (row.removed_at and row.state not in (RunState.WAITING, RunState.RUNNING)):
        return None
    paths = tx.scalars(select(product.c.path).where(product.c.run_id == number))
    return _Run(row.series_id, row.attempt, {"/".join(path.split("/")[:3]) for path in paths})
