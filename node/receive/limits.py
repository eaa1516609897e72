"""Limits on what peers can make us spend."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a peer may take, in seconds, and how much it may announce."""

    negotiate: float = 30.0
    """From the connection to the association request: ARTIM (PS3.8 9.1.5)."""
    idle: float = 600.0
    """Between two messages of an association; scanners keep one open between images."""
    pdu: float = 30.0
    """From the first byte of a PDU to its last, between two PDUs of a message, and for one write to the peer."""
    slow_after: float = 60.0
    """For a message, until the bytes per second of it count: no pause is too long then, but dripping is."""
    slowest: float = 1000.0
    """Bytes per second of such a message; ISDN, the slowest line that images still come by, brings 8000."""
    linger: float = 1.0
    """For the peer to close the connection, when the association is over."""
    message_size: int = 8 << 20
    """Bytes of a dataset that is kept in memory: of a request that is served, but no C-STORE."""
    associate_size: int = 256 << 10
    """Bytes of an A-ASSOCIATE-RQ: 128 contexts with 20 transfer syntaxes each need 80 kB, with the longest
    UIDs there are 184 kB; reading more than this of somebody who is let in would take a second."""
    object_size: int = 32 * 10**9
    """Bytes of the dataset of a C-STORE."""


class Progress:
    """How much of one message came since when.

    Every PDU may take its time, so a peer that lets a message drip in small ones could hold an association, and
    a half-written object, for ever.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._since: float | None = None
        self._bytes = 0

    def restart(self) -> None:
        """A message is over; the time of the next begins with its second PDU."""
        self._since = None

    def is_slow(self, size: int, now: float) -> bool:
        """Count a PDU of *size* bytes of a message in hand; whether the message comes too slowly by now."""
        if self._since is None:
            self._since, self._bytes = now, 0
        self._bytes += size
        spent = now - self._since
        return spent > self._pace.slow_after and self._bytes < spent * self._pace.slowest


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
