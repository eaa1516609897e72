"""Keeping received objects: written, synced, renamed, directory synced, and only then acknowledged.

`Disk` is the only way to the disk; the power-loss test replaces it by one that records every step.
`ObjectFolder` is the `Keeper` of one receiver process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from errno import EIO
from itertools import count
from pathlib import Path
from typing import Literal

from node import faults
from node.model import Arrival, AssociationEnd, CommitMessage, Kept, StepMessage
from node.model import Part as AnyPart
from node.store.arrival import (
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    PRIVATE_CREATOR_UID,
    encode_head,
    read_arrival,
)
from node.store.records import (
    ALIVE,
    BUCKET,
    COMMIT,
    END,
    MPPS,
    OBJECT,
    PART,
    Record,
    bucket_folder,
    clean_dead_runs,
    encode_commit,
    encode_end,
    encode_step,
    is_alive,
    objects_folder,
    read_end,
    receiver_runs,
    records_after,
    run_folder,
)

__all__ = [
    "IMPLEMENTATION_UID", "IMPLEMENTATION_VERSION", "PRIVATE_CREATOR_UID", "Disk", "Folder", "ObjectFolder",
    "Part", "Record", "clean_dead_runs", "is_alive", "read_arrival", "read_end", "receiver_runs",
    "records_after",
]  # fmt: skip

Durability = Literal["power", "process"]


class Folder:
    """An open directory, closed when the last thread that syncs it lets go of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Disk:
    """Every step that makes something durable. All of them raise OSError.

    With durability *process* nothing is synced: a killed process loses nothing, a power cut may.
    """

    def __init__(self, durability: Durability = "power") -> None:
        self.syncs = durability == "power"

    def create(self, path: str | Path) -> int:
        """Create a file that must not exist; return its descriptor, open for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write all of *data*, in one go where the kernel takes it."""
        if len(data) == 1:
            self._write(fd, memoryview(data[0]))
            return
        written = os.writev(fd, data)
        for piece in data:
            if written < len(piece):
                self._write(fd, memoryview(piece)[written:])
            written = max(0, written - len(piece))

    def _write(self, fd: int, view: memoryview) -> None:
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """Make the content of an open file durable. After an OSError never sync this descriptor again."""
        if self.syncs:
            os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def rename(self, source: str | Path, target: str | Path) -> None:
        """Give *source* its name *target*, on the same file system."""
        os.rename(source, target)  # noqa: PTH104 - a name for each object: a Path costs more than the call

    def sync_folder(self, folder: Folder) -> None:
        """Make the names in *folder* durable."""
        if self.syncs:
            os.fsync(folder.fd)

    def mkdir(self, path: Path) -> None:
        """Make one folder; FileExistsError where it exists."""
        path.mkdir(mode=0o750)

    def unlink(self, path: str | Path) -> None:
        """Remove a file; nothing where it is absent."""
        Path(path).unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        """Make *path* and what is missing above it, each name durable in its parent."""
        if not path.parent.is_dir():
            self.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            self.mkdir(path)
        self.sync_folder(Folder(path.parent))

    def replace_file(self, path: Path, data: bytes, mode: int = 0) -> None:
        """Write a small file so that at any moment either the old or the new content is there, whole.

        One writer per *path* at a time. *mode*: who may read it, where that is not as of all files.
        """
        part = path.with_name(f"{path.name}{PART}")
        self.unlink(part)
        fd = self.create(part)
        try:
            try:
                if mode:
                    os.fchmod(fd, mode)
                self.write(fd, data)
                self.sync(fd)
            finally:
                self.close(fd)
            self.rename(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                self.unlink(part)
            raise
        self.sync_folder(Folder(path.parent))


class Part:
    """An object on its way to the disk: an open `.part` file beside its target."""

    def __init__(self, disk: Disk, path: str, *, durable: bool, head: bytes = b"") -> None:
        """Create it. *head* is written together with what comes first; *durable*: a power cut shall not lose it."""
        self.path = path
        self.durable = durable
        self._disk = disk
        self._head = head
        self._fd: int | None = disk.create(path)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append *data*. Raises OSError; then `discard` it."""
        if self._head:
            head, self._head = self._head, b""
            self._disk.write(self._open(), head, data)
        else:
            self._disk.write(self._open(), data)

    def finish(self) -> None:
        """Make the content durable, where that is promised, and close it. Raises OSError; then `discard` it."""
        fd = self._open()
        self._fd = None  # never synced twice: after EIO the kernel has dropped the dirty pages
        try:
            if self._head:  # nothing came behind it
                self._disk.write(fd, self._head)
            if self.durable:
                self._disk.sync(fd)
        finally:
            self._disk.close(fd)

    def discard(self) -> None:
        """Remove it; harmless when that was done before."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                self._disk.close(fd)
        with contextlib.suppress(OSError):
            self._disk.unlink(self.path)

    def _open(self) -> int:
        if self._fd is None:
            raise ValueError(f"{Path(self.path).name} was finished or discarded before")
        return self._fd


class ObjectFolder:
    """The `Keeper` of one receiver process: claims a receiver run and fills its buckets."""

    def __init__(
        self,
        data: Path,
        disk: Disk,
        wake: Callable[[], None],
        durable: Callable[[str], bool] = lambda _peer: True,
    ) -> None:
        """Claim the next receiver run in *data*; *wake* is called after each record. Raises OSError.

        *durable* says of a peer whether a power cut may lose nothing of what it was told is stored.
        """
        self._data = data
        self._disk = disk
        self._wake = wake
        self._durable = durable
        self._lock = threading.Lock()
        self._sequence = 0
        self._parts = count(1)
        self.failed: OSError | None = None
        """Set when a directory could not be synced: this run keeps nothing more, its process should end."""
        disk.make_folder(objects_folder(data))
        self.run = self._claim()
        self._alive = disk.create(run_folder(data, self.run) / ALIVE)
        fcntl.flock(self._alive, fcntl.LOCK_EX)  # for the life of this process
        self._bucket = self._make_bucket(1)

    def begin(self, arrival: Arrival) -> Part:
        """Start an object. Raises OSError; then nothing is left."""
        return self._new_part(self._durable(arrival.peer), encode_head(arrival))

    def keep(self, part: AnyPart) -> Kept:
        """Make *part* durable and visible under its own name, before success is answered.

        Raises OSError; then it was not kept, and what is left of it is either nothing or, where only the
        directory could not be synced, a whole object that was never acknowledged.
        """
        if not isinstance(part, Part):
            raise TypeError(f"expected a part that begin() gave, found {type(part).__name__}")
        return self._keep(part, OBJECT)

    def end(self, end: AssociationEnd) -> None:
        """Record the end of an association, behind all that it brought. Raises OSError.

        Nobody is told that it is kept, so nothing waits for the disk: whoever starts after a power cut sees a
        receiver run that is over, and with it its associations.
        """
        self._record(END, False, encode_end(end))

    def commit(self, message: CommitMessage, dataset: memoryview) -> None:
        """Record a message about storage commitment, behind what came before it. Raises OSError."""
        self._record(COMMIT, True, encode_commit(message), dataset)

    def step(self, message: StepMessage, dataset: memoryview) -> None:
        """Record a message about a performed procedure step, behind what came before it. Raises OSError."""
        self._record(MPPS, True, encode_step(message), dataset)

    def close(self) -> None:
        """Give up the run: it counts as over from now on."""
        os.close(self._alive)

    def _record(self, suffix: str, durable: bool, *content: bytes | memoryview) -> None:
        part = self._new_part(durable)
        try:
            for piece in content:
                part.write(piece)
        except OSError:
            part.discard()
            raise
        self._keep(part, suffix)

    def _keep(self, part: Part, suffix: str) -> Kept:
        faults.reach("before-sync")
        try:
            part.finish()
            faults.reach("after-sync")
            kept, bucket = self._name(part, suffix)
        except OSError:
            part.discard()
            raise
        faults.reach("after-rename")
        try:
            if part.durable:
                self._disk.sync_folder(bucket)
        except OSError as error:
            # The name stays: sequences are dense, and the reader may have met it. But the kernel reports a
            # lost directory write once only, so no later sync of this run can be believed.
            self.failed = error
            raise
        finally:
            self._wake()
        faults.reach("after-keep")
        return kept

    def _name(self, part: Part, suffix: str) -> tuple[Kept, Folder]:
        """Give *part* the next sequence number: numbers appear in order and without a gap."""
        with self._lock:
            self._check()
            sequence = self._sequence + 1
            if sequence % BUCKET == 0:
                self._bucket = self._make_bucket(sequence)
            target = f"{self._bucket.path}/{sequence:08d}{suffix}"
            self._disk.rename(part.path, target)
            self._sequence = sequence
            return Kept(self.run, sequence, target), self._bucket

    def _new_part(self, durable: bool, head: bytes = b"") -> Part:
        self._check()
        path = f"{self._bucket.path}/{next(self._parts):08d}{PART}"
        return Part(self._disk, path, durable=durable, head=head)

    def _check(self) -> None:
        if self.failed is not None:
            raise OSError(EIO, "an earlier directory sync failed; this receiver run is closed")

    def _make_bucket(self, sequence: int) -> Folder:
        """Make the bucket of *sequence* durable before anything is renamed into it."""
        path = bucket_folder(self._data, self.run, sequence)
        self._disk.make_folder(path)
        return Folder(path)

    def _claim(self) -> int:
        """Claim the next run number: mkdir is atomic, so two receivers never get the same."""
        run = max(receiver_runs(self._data), default=0)
        while True:
            run += 1
            with contextlib.suppress(FileExistsError):
                self._disk.mkdir(run_folder(self._data, run))
                self._disk.sync_folder(Folder(objects_folder(self._data)))
                return run
