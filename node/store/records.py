"""Reading the directory that is the queue: `data/objects/<receiver run>/<seq // 4096>/<seq>.dcm`.

Beside objects there are ends of associations (`.end`) and messages (`.commit`, `.mpps`), in the same sequence.
A receiver run that is alive holds a lock on its `.alive` file; whatever nobody holds is over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from node.errors import Broken
from node.model import AssociationEnd, CommitMessage, StepMessage

BUCKET = 4096
"""Records per folder."""
OBJECT = ".dcm"
END = ".end"
COMMIT = ".commit"
MPPS = ".mpps"
NOTES = (END, COMMIT, MPPS)
"""Records that are no objects: once they were taken in, nobody reads them again."""
PART = ".part"
ALIVE = ".alive"


@dataclass(frozen=True, slots=True)
class Record:
    """One durable thing a receiver wrote: an object, the end of an association, or a message of a peer."""

    run: int
    sequence: int
    path: Path

    @property
    def is_object(self) -> bool:
        """Whether it is a received object."""
        return self.path.suffix == OBJECT

    @property
    def is_end(self) -> bool:
        """Whether `read_end` reads it."""
        return self.path.suffix == END

    @property
    def is_step(self) -> bool:
        """Whether `read_step` reads it; what is none of these is read by `read_commit`."""
        return self.path.suffix == MPPS


def objects_folder(data: Path) -> Path:
    """Return where receiver runs keep what they got."""
    return data / "objects"


def run_folder(data: Path, run: int) -> Path:
    """Return the folder of one receiver run."""
    return objects_folder(data) / f"{run:08d}"


def bucket_folder(data: Path, run: int, sequence: int) -> Path:
    """Return the folder that holds record *sequence* of *run*."""
    return run_folder(data, run) / f"{sequence // BUCKET:04d}"


def receiver_runs(data: Path) -> tuple[int, ...]:
    """Return the numbers of all receiver runs, ascending.

    A number is claimed once: whoever removes old run folders leaves the highest one, so that it is never
    given again.
    """
    return tuple(number for number, _ in _numbered(objects_folder(data)))


def records_after(data: Path, run: int, cursor: int, catch_up: bool = False) -> Iterator[Record]:
    """Iterate over the records of *run* with a sequence beyond *cursor*, in order, until there is none.

    Sequences start at 1 and are dense, so that two looks per record suffice. With *catch_up*, at start, the
    buckets at or past the cursor are listed instead: a power cut or retention may have left gaps.
    """
    if catch_up:
        yield from _listed(data, run, cursor)
        return
    while True:
        cursor += 1
        stem = bucket_folder(data, run, cursor) / f"{cursor:08d}"
        found = next((p for p in map(stem.with_suffix, (OBJECT, *NOTES)) if p.exists()), None)
        if found is None:
            return
        yield Record(run, cursor, found)


def _listed(data: Path, run: int, cursor: int) -> Iterator[Record]:
    for number, bucket in _numbered(run_folder(data, run)):
        if number < cursor // BUCKET:
            continue
        with os.scandir(bucket) as entries:
            paths = [Path(entry.path) for entry in entries]
        found = sorted((int(p.stem), p) for p in paths if p.suffix in (OBJECT, *NOTES) and p.stem.isdigit())
        yield from (Record(run, sequence, path) for sequence, path in found if sequence > cursor)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return sorted((int(entry.name), entry) for entry in folder.iterdir() if entry.name.isdigit())


def encode_end(end: AssociationEnd) -> bytes:
    """Return the content of an `.end` record: JSON."""
    fields = {
        "association": end.association,
        "peer": end.peer,
        "objects": end.objects,
        "aborted": end.aborted,
        "at": end.at.isoformat(),
    }
    return json.dumps(fields).encode()


def read_end(path: Path) -> AssociationEnd:
    """Read an `.end` record. Raises Broken where it is not one, OSError where it cannot be read."""
    content = path.read_bytes()
    try:
        found = json.loads(content)
        return AssociationEnd(
            association=found["association"],
            peer=found["peer"],
            objects=found["objects"],
            aborted=found["aborted"],
            at=datetime.fromisoformat(found["at"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"{path}: not an association end as this node writes it") from error


def encode_commit(message: CommitMessage) -> bytes:
    """Return how a `.commit` record begins: one line of JSON; the message's dataset follows as it came."""
    return _encode(message)


def read_commit(path: Path) -> tuple[CommitMessage, bytes]:
    """Read a `.commit` record: how it came, and its dataset. Raises Broken or OSError as `read_end` does."""
    return _read(path, CommitMessage, "commitment")


def encode_step(message: StepMessage) -> bytes:
    """Return how a `.mpps` record begins, as `encode_commit` does."""
    return _encode(message)


def read_step(path: Path) -> tuple[StepMessage, bytes]:
    """Read a `.mpps` record: how it came, and its dataset. Raises Broken or OSError as `read_end` does."""
    return _read(path, StepMessage, "a performed step")


_Message = TypeVar("_Message", CommitMessage, StepMessage)


def _encode(message: CommitMessage | StepMessage) -> bytes:
    return json.dumps({**asdict(message), "received_at": message.received_at.isoformat()}).encode() + b"\n"


def _read(path: Path, kind: type[_Message], about: str) -> tuple[_Message, bytes]:
    head, _, dataset = path.read_bytes().partition(b"\n")
    try:
        found = json.loads(head)
        return kind(**{**found, "received_at": datetime.fromisoformat(found["received_at"])}), dataset
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"{path}: not a message about {about} as this node writes it") from error


def is_alive(data: Path, run: int) -> bool:
    """Whether the receiver of *run* still lives: some process holds its lock."""
    held = _try_lock(run_folder(data, run) / ALIVE)
    if held is None:
        return (run_folder(data, run) / ALIVE).exists()
    os.close(held)
    return False


def clean_dead_runs(data: Path) -> int:
    """Remove the unfinished `.part` files of runs that nobody holds; return how many there were."""
    removed = 0
    for run, parts in _dead_runs(data):
        for part in parts:
            part.unlink(missing_ok=True)
            removed += 1
        (run / ALIVE).unlink(missing_ok=True)  # cleaned once and for all
    return removed


def count_dead_parts(data: Path) -> int:
    """How many files `clean_dead_runs` would remove."""
    return sum(len(parts) for _, parts in _dead_runs(data))


def _dead_runs(data: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each run that nobody holds and its unfinished files; it is locked until the next one is asked for.

    A run whose first bucket does not exist yet is being born, and left alone.
    """
    for _, run in _numbered(objects_folder(data)):
        buckets = _numbered(run)
        held = _try_lock(run / ALIVE) if buckets else None
        if held is None:
            continue
        try:
            yield run, [part for _, bucket in buckets for part in bucket.glob(f"*{PART}")]
        finally:
            os.close(held)


def _try_lock(path: Path) -> int | None:
    """Lock the file *path*; None where it is absent or another holds it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
