"""Limits on what peers can make us spend: associations over all receivers, and room on the disk."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
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
    associate_size: int = 1 << 20
    """Bytes of an A-ASSOCIATE-RQ; 128 contexts with 20 transfer syntaxes each need about 80 kB."""


class Census:
    """How many associations are open in each receiver: one page that all of them share.

    Each receiver writes its own slot only; the supervisor zeroes the slot of one that died. Two receivers
    may admit at the same instant, so the limit can be passed by one per further receiver.
    """

    def __init__(self, page: mmap.mmap, slot: int) -> None:
        self._page = page
        self._slot = slot
        self._lock = threading.Lock()

    @staticmethod
    def create(receivers: int) -> int:
        """Make the page; return the descriptor that receivers inherit."""
        fd = os.memfd_create("pacsnode-census")
        os.truncate(fd, _SLOT.size * receivers)
        return fd

    @staticmethod
    def reset(fd: int, slot: int) -> None:
        """Forget the associations of a receiver that died."""
        os.pwrite(fd, _SLOT.pack(0), slot * _SLOT.size)

    @classmethod
    def join(cls, fd: int, slot: int) -> Census:
        """Take part as the receiver of *slot*."""
        return cls(mmap.mmap(fd, 0), slot)

    def total(self) -> int:
        """Return the associations open now, over all receivers."""
        return sum(value for (value,) in _SLOT.iter_unpack(self._page[:]))

    def add(self, change: int) -> None:
        """Count associations of this receiver up or down."""
        start = self._slot * _SLOT.size
        with self._lock:
            (value,) = _SLOT.unpack_from(self._page, start)
            _SLOT.pack_into(self._page, start, max(0, value + change))


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
