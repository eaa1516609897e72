"""Limits on what peers can make us spend, and the page where the receivers count what they do."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SLOT = struct.Struct("=q")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a peer may take, in seconds, and how much it may announce."""

    negotiate: float = 30.0
    """From the connection to the association request: ARTIM (PS3.8 9.1.5)."""
    idle: float = 600.0
    """Between two PDUs of an association; scanners keep one open between images."""
    pdu: float = 30.0
    """From the first byte of a PDU to its last, and for one write to the peer."""
    linger: float = 1.0
    """For the peer to close the connection, when the association is over."""
    message_size: int = 16 << 20
    """Bytes of a dataset that is kept in memory: of any request but C-STORE."""
    associate_size: int = 1 << 20
    """Bytes of an A-ASSOCIATE-RQ; 128 contexts with 20 transfer syntaxes each need about 80 kB."""


_OPEN, _READY, _ACCEPTED, _REJECTED, _REFUSED, _FIXED = range(6)
_PER_PEER = 3  # objects, bytes, refused objects


@dataclass(frozen=True, slots=True)
class PeerTally:
    """What one peer sent since the node started."""

    objects: int = 0
    """Answered with success."""
    bytes: int = 0
    """Of their datasets."""
    refused: int = 0
    """Answered with another status."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The page of all receivers, added up; all but the first two only ever grow."""

    open: int
    """Associations open now."""
    ready: int
    """Receivers that accept connections now."""
    accepted: int = 0
    """Associations admitted."""
    rejected: int = 0
    """Associations answered with A-ASSOCIATE-RJ."""
    refused: int = 0
    """Connections closed at once: too many were open."""
    peers: Mapping[str, PeerTally] = field(default_factory=dict)
    """By peer of the site file; whoever else was let in is in `""`."""


class Census:
    """What the receivers count, in one page that all of them share; it is never on the disk.

    Each receiver writes its own row only; the supervisor resets what the row of a dead one says of now. Two
    receivers may admit at the same instant, so the limit can be passed by one per further receiver.
    """

    def __init__(self, page: mmap.mmap, slot: int, peers: Sequence[str] = ()) -> None:
        self._page = page
        self._start = slot * _width(peers)
        self._width = _width(peers)
        self._column = {name: _FIXED + _PER_PEER * i for i, name in enumerate(peers)}
        self._other = _FIXED + _PER_PEER * len(peers)
        self._lock = threading.Lock()

    @staticmethod
    def create(receivers: int, peers: Sequence[str] = ()) -> int:
        """Make the page; return the descriptor that receivers inherit. All name the same *peers*."""
        fd = os.memfd_create("pacsnode-census")
        os.truncate(fd, _width(peers) * receivers)
        return fd

    @staticmethod
    def reset(fd: int, slot: int, peers: Sequence[str] = ()) -> None:
        """Forget the associations of a receiver that died; what it counted up stays."""
        os.pwrite(fd, bytes(_SLOT.size * (_READY + 1)), slot * _width(peers))

    @staticmethod
    def tally(fd: int, peers: Sequence[str] = ()) -> Tally:
        """Add up the rows of all receivers."""
        width = _width(peers)
        rows = [_numbers(os.pread(fd, width, at)) for at in range(0, os.fstat(fd).st_size, width)]
        summed = [sum(column) for column in zip(*rows, strict=True)]
        by_peer = [PeerTally(*summed[at : at + _PER_PEER]) for at in range(_FIXED, len(summed), _PER_PEER)]
        return Tally(
            open=summed[_OPEN],
            ready=summed[_READY],
            accepted=summed[_ACCEPTED],
            rejected=summed[_REJECTED],
            refused=summed[_REFUSED],
            peers=dict(zip((*peers, ""), by_peer, strict=True)),
        )

    @classmethod
    def join(cls, fd: int, slot: int, peers: Sequence[str] = ()) -> Census:
        """Take part as the receiver of *slot*."""
        return cls(mmap.mmap(fd, 0), slot, peers)

    def total(self) -> int:
        """Return the associations open now, over all receivers."""
        return sum(_SLOT.unpack_from(self._page, at)[0] for at in range(0, len(self._page), self._width))

    def add(self, change: int) -> None:
        """Count associations of this receiver up or down; up is an admission, too."""
        with self._lock:
            self._change(_OPEN, change)
            if change > 0:
                self._change(_ACCEPTED, change)

    def reject(self) -> None:
        """Count an association that was rejected."""
        with self._lock:
            self._change(_REJECTED, 1)

    def refuse(self) -> None:
        """Count a connection that was closed at once."""
        with self._lock:
            self._change(_REFUSED, 1)

    def stored(self, peer: str, size: int, kept: bool) -> None:
        """Count one C-STORE of *peer* with a dataset of *size* bytes."""
        column = self._column.get(peer, self._other)
        with self._lock:
            if kept:
                self._change(column, 1)
                self._change(column + 1, size)
            else:
                self._change(column + 2, 1)

    def accepting(self) -> None:
        """This receiver accepts connections from now on."""
        with self._lock:
            self._change(_READY, 1)

    def _change(self, column: int, change: int) -> None:
        at = self._start + column * _SLOT.size
        (value,) = _SLOT.unpack_from(self._page, at)
        _SLOT.pack_into(self._page, at, max(0, value + change))


def _width(peers: Sequence[str]) -> int:
    """Bytes of one receiver's row."""
    return _SLOT.size * (_FIXED + _PER_PEER * (len(peers) + 1))


def _numbers(row: bytes) -> list[int]:
    return [value for (value,) in _SLOT.iter_unpack(row)]


class Watermark:
    """Whether the disk is too full to take more; looked up at most once a second."""

    def __init__(self, folder: Path, refuse: float, clock: Callable[[], float]) -> None:
        """Watch the file system of *folder*: full at share *refuse* (0 to 1); *clock* is monotonic, in s."""
        self._folder = folder
        self._refuse = refuse
        self._clock = clock
        self._full = False
        self._next = float("-inf")

    def is_full(self) -> bool:
        """Whether to answer 0xA700. Raises OSError where the file system cannot be asked."""
        now = self._clock()
        if now >= self._next:
            self._full = _used(self._folder) >= self._refuse
            self._next = now + 1.0
        return self._full


def _used(folder: Path) -> float:
    """Return the share of blocks or inodes in use, whichever is more, as an unprivileged user sees it."""
    found = os.statvfs(folder)
    blocks = found.f_blocks - found.f_bfree
    shares = [blocks / (blocks + found.f_bavail)] if blocks + found.f_bavail else [0.0]
    if found.f_files:  # some file systems have no inodes to run out of
        shares.append((found.f_files - found.f_favail) / found.f_files)
    return max(shares)
