"""Files from a disk, taken in as if a peer had sent them: an old archive, a CD, what another system left in a folder.

They are kept as receivers keep what comes, in a receiver run of their own, so that they take the same way from
there on, whether the node runs meanwhile or not.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from node.dryrun import files_in
from node.errors import Broken, Misconfigured
from node.model import Arrival, AssociationEnd
from node.receive.limits import Watermark
from node.settings import Settings
from node.shape import nearest
from node.store.arrival import read_arrival
from node.store.files import Disk, ObjectFolder

_AT_ONCE = 1 << 20
_DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: DICOMDIR lists what is on a medium, and is no object (PS3.10 8.6)."""


@dataclass
class Imported:
    """What became of the files."""

    kept: int = 0
    passed_over: int = 0
    """Files below a folder that are no DICOM objects."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each that should have been taken in and was not."""


def import_files(
    settings: Settings, peer: str, called: str, paths: Sequence[Path], tell: Callable[[int], None]
) -> Imported:
    """Take in files as if *peer* had sent them to *called* over one association; *tell* hears of every 200.

    What is in already counts as sent again. Raises Misconfigured where *peer* does not send or *called* is not
    ours, and Broken where the disk takes no more: what was taken in until then stays.
    """
    calling = _calling(settings, peer)
    if called not in settings.node.ae_titles:
        raise Misconfigured(
            f"--called {called} is none of node.ae_titles{nearest(called, settings.node.ae_titles)}"
        )
    data = settings.node.data
    _refuse_another_user(data)
    files = list(files_in(paths))
    disk = Watermark(data, settings.disk.refuse, time.monotonic)
    durable = settings.durability_of(peer) == "power"
    done = Imported()
    try:
        with closing(ObjectFolder(data, Disk(), lambda: None, lambda _peer: durable)) as folder:
            one = _Import(folder, disk, calling, called, peer, done)
            one.take(files, frozenset(paths), tell)
    except OSError as error:
        raise Broken(
            f"{data}: {error.strerror or error}; {done.kept} objects were taken in. Free space, and import the same "
            "again: what is in counts as sent again"
        ) from None
    return done


def _calling(settings: Settings, name: str) -> str:
    """The AE title that *name* calls with. Raises Misconfigured where it may not send to us."""
    peer = settings.peers.get(name)
    if peer is None and settings.unknown_senders == "accept":
        return name
    if peer is None:
        raise Misconfigured(f"{name} is not among the peers{nearest(name, settings.peers)}")
    if not peer.sends_as:
        raise Misconfigured(f"{name} does not send to us; give the peer `sends_as` in the site file")
    return peer.sends_as[0]


def _refuse_another_user(data: Path) -> None:
    """Raises Misconfigured where the node could not read what we write."""
    try:
        owner = data.stat().st_uid
    except OSError as error:
        raise Misconfigured(f"node.data: {data} cannot be used ({error.strerror})") from None
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"user {owner}"
        raise Misconfigured(f"{data} belongs to {name}; run this as the user that the node runs as")


@dataclass(frozen=True)
class _Import:
    """One import on its way."""

    folder: ObjectFolder
    disk: Watermark
    calling: str
    called: str
    peer: str
    done: Imported

    def take(self, files: Sequence[Path], named: frozenset[Path], tell: Callable[[int], None]) -> None:
        """Keep each; the association ends with the last, broken off where we are. Raises OSError of our disk."""
        finished = False
        try:
            for path in files:
                before = self.done.kept
                self._take(path, path in named)
                if self.done.kept > before and self.done.kept % 200 == 0:
                    tell(self.done.kept)
            finished = True
        finally:
            end = AssociationEnd(
                self._association, self.peer, self.done.kept, not finished, datetime.now(UTC)
            )
            self.folder.end(end)

    @property
    def _association(self) -> str:
        return f"{self.folder.run}-1"

    def _take(self, path: Path, named: bool) -> None:
        try:
            arrival, offset = read_arrival(path)
        except Broken as error:
            if named:
                self.done.problems.append(str(error))
            else:
                self.done.passed_over += 1
            return
        except OSError as error:
            self.done.problems.append(f"{path}: {error.strerror}")
            return
        if arrival.sop_class == _DIRECTORY:
            self.done.passed_over += 1
        elif not arrival.transfer_syntax:
            self.done.problems.append(f"{path}: its File Meta Information names no Transfer Syntax UID")
        else:
            self._keep(path, arrival, offset)

    def _keep(self, path: Path, found: Arrival, offset: int) -> None:
        if self.disk.is_full():
            raise OSError(0, "the disk is above disk.refuse")
        arrival = replace(
            found, calling=self.calling, called=self.called, peer=self.peer, address="localhost:0",
            local_address="localhost:0", association=self._association, received_at=datetime.now(UTC), origin="",
        )  # fmt: skip
        part = self.folder.begin(arrival)
        try:
            for piece in _pieces(path, offset):
                part.write(piece)
        except Broken as error:
            part.discard()
            self.done.problems.append(str(error))
            return
        except BaseException:
            part.discard()
            raise
        self.folder.keep(part)
        self.done.kept += 1


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    """The dataset. Raises Broken where the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(_AT_ONCE):
                yield piece
    except OSError as error:
        raise Broken(f"{path}: {error.strerror}") from None
