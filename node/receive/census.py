"""The page where the receivers count what they do, and by which they keep one limit between them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from node.receive.reasons import Reason

_REASONS = tuple(Reason)
_PLACE = {reason: place for place, reason in enumerate(_REASONS)}
_SLOT = struct.Struct("=q")
_WORDS = struct.Struct("=d36p36p68p160p")
_SUM = struct.Struct("=I")
_RECORD = _WORDS.size + _SUM.size
_KEY = 16
_NOTED = _KEY  # behind the key: how much of each reason somebody has told
_HEAD = _KEY + _SLOT.size * len(_REASONS)
BUCKETS = 1024
"""Counters of connections by address in each row."""
_OPEN, _READY, _CONNECTIONS, _BUCKET = range(4)
_NOW = _BUCKET + BUCKETS  # columns that say what is now come first, those that only grow behind them
_ACCEPTED, _REASON = _NOW, _NOW + 1
_PEER = _REASON + len(_REASONS)
_PER_PEER = 3  # objects, bytes, refused objects


@dataclass(frozen=True, slots=True)
class LastWords:
    """Who was refused last, and when."""

    at: float
    """Seconds since 1970."""
    host: str
    calling: str = ""
    """As sent; empty where it came to no association request."""
    called: str = ""
    why: str = ""
    """What just this one did, where the reason does not say it all; cut where it is long."""


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
    """The page of all receivers, added up; all but the first three only ever grow."""

    open: int
    """Associations open now."""
    ready: int
    """Receivers that accept connections now."""
    connections: int = 0
    """Open now."""
    accepted: int = 0
    """Associations admitted."""
    reasons: Mapping[Reason, int] = field(default_factory=dict)
    """Why something was refused or ended → how often."""
    peers: Mapping[str, PeerTally] = field(default_factory=dict)
    """By peer of the site file; whoever else was let in is in `""`."""


class Census:
    """What the receivers count, in one page that all of them share; it is never on the disk.

    Each receiver writes its own row only; the supervisor resets what the row of a dead one says of now. Where
    a limit is kept, reading all rows and adding to one's own is one step over all receivers: under a POSIX
    record lock, which the kernel frees at death. (flock would not do: it belongs to the open file, and all
    receivers inherit the same.)
    """

    def __init__(self, fd: int, slot: int, peers: Sequence[str] = ()) -> None:
        """Take part as the receiver of *slot*; *fd* may be closed afterwards."""
        self._fd = os.dup(fd)  # closing it would free the lock, so it is ours alone
        weakref.finalize(self, os.close, self._fd)
        self._page = mmap.mmap(self._fd, 0)
        self._width = _width(peers)
        self._rows = range(_HEAD, len(self._page), self._width)
        self._start = self._rows[slot]
        self._words_at = self._start + _counters(peers)
        self._column = {name: _PEER + _PER_PEER * i for i, name in enumerate(peers)}
        self._other = _PEER + _PER_PEER * len(peers)
        self._key = self._page[:_KEY]
        self._lock = threading.Lock()

    @staticmethod
    def create(receivers: int, peers: Sequence[str] = ()) -> int:
        """Make the page; return the descriptor that receivers inherit. All name the same *peers*."""
        fd = os.memfd_create("pacsnode-census")
        os.truncate(fd, _HEAD + _width(peers) * receivers)
        os.pwrite(fd, os.urandom(_KEY), 0)
        return fd

    @staticmethod
    def reset(fd: int, slot: int, peers: Sequence[str] = ()) -> None:
        """Forget what a receiver that died had open; what it counted up stays."""
        os.pwrite(fd, bytes(_SLOT.size * _NOW), _HEAD + slot * _width(peers))

    @staticmethod
    def tally(fd: int, peers: Sequence[str] = ()) -> Tally:
        """Add up the rows of all receivers."""
        size = _counters(peers)
        rows = [_numbers(os.pread(fd, size, at)) for at in _starts(fd, peers)]
        summed = [sum(column) for column in zip(*rows, strict=True)]
        by_peer = [PeerTally(*summed[at : at + _PER_PEER]) for at in range(_PEER, len(summed), _PER_PEER)]
        return Tally(
            open=summed[_OPEN],
            ready=summed[_READY],
            connections=summed[_CONNECTIONS],
            accepted=summed[_ACCEPTED],
            reasons=dict(zip(_REASONS, summed[_REASON:_PEER], strict=True)),
            peers=dict(zip((*peers, ""), by_peer, strict=True)),
        )

    @staticmethod
    def last_words(fd: int, reason: Reason, peers: Sequence[str] = ()) -> tuple[LastWords, ...]:
        """The last of each receiver for *reason*, the newest first; what is being written now is left out."""
        offset = _counters(peers) + _PLACE[reason] * _RECORD
        found = [_read_words(os.pread(fd, _RECORD, start + offset)) for start in _starts(fd, peers)]
        return tuple(sorted(filter(None, found), key=lambda words: words.at, reverse=True))

    @staticmethod
    def noted(fd: int) -> Mapping[Reason, int]:
        """How often of each reason has been told; it outlives whoever tells."""
        return dict(zip(_REASONS, _numbers(os.pread(fd, _HEAD - _NOTED, _NOTED)), strict=True))

    @staticmethod
    def note(fd: int, reason: Reason, count: int) -> None:
        """Remember that *count* of a reason have been told by now."""
        os.pwrite(fd, _SLOT.pack(count), _NOTED + _SLOT.size * _PLACE[reason])

    def total(self) -> int:
        """Return the associations open now, over all receivers."""
        return self._sum(_OPEN)

    def enter(self, limit: int) -> int | None:
        """Count an association unless *limit* are open: then say how many are, and count nothing."""
        with self._alone():
            found = self._sum(_OPEN)
            if found >= limit:
                return found
            self._change(_OPEN, 1)
            self._change(_ACCEPTED, 1)
        return None

    def leave(self) -> None:
        """Free the place of an association that is over."""
        with self._lock:
            self._change(_OPEN, -1)

    def connect(self, host: str, limit: int, limit_of_host: int) -> Reason | None:
        """Count a connection from *host* unless too many are open: then say of what.

        Addresses share counters by a keyed hash, so that nobody can choose an address that shares one. Where
        two do by chance, the one is refused while the other holds most of what one address may hold.
        """
        bucket = self._bucket(host)
        with self._alone():
            if self._sum(_CONNECTIONS) >= limit:
                return Reason.CONNECTIONS
            if self._sum(bucket) >= limit_of_host:
                return Reason.CONNECTIONS_PER_ADDRESS
            self._change(_CONNECTIONS, 1)
            self._change(bucket, 1)
        return None

    def disconnect(self, host: str) -> None:
        """A connection from *host* is over."""
        bucket = self._bucket(host)
        with self._lock:
            self._change(_CONNECTIONS, -1)
            self._change(bucket, -1)

    def count(self, reason: Reason, words: LastWords) -> None:
        """Count what was refused or ended, and who it was."""
        at = self._words_at + _PLACE[reason] * _RECORD
        record = _written(words)
        with self._lock:
            self._change(_REASON + _PLACE[reason], 1)
            self._page[at : at + _RECORD] = record

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

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else counts up, in this process or another, while the block runs: some microseconds."""
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1)

    def _bucket(self, host: str) -> int:
        digest = hashlib.blake2b(host.encode(errors="replace"), key=self._key, digest_size=4).digest()
        return _BUCKET + int.from_bytes(digest) % BUCKETS

    def _sum(self, column: int) -> int:
        at = column * _SLOT.size
        return sum(_SLOT.unpack_from(self._page, start + at)[0] for start in self._rows)

    def _change(self, column: int, change: int) -> None:
        at = self._start + column * _SLOT.size
        (value,) = _SLOT.unpack_from(self._page, at)
        _SLOT.pack_into(self._page, at, max(0, value + change))


def _counters(peers: Sequence[str]) -> int:
    """Bytes of the counters of one row."""
    return _SLOT.size * (_PEER + _PER_PEER * (len(peers) + 1))


def _width(peers: Sequence[str]) -> int:
    """Bytes of one receiver's row; counters must not lie across two cache lines."""
    return -(-(_counters(peers) + _RECORD * len(_REASONS)) // _SLOT.size) * _SLOT.size


def _starts(fd: int, peers: Sequence[str]) -> range:
    return range(_HEAD, os.fstat(fd).st_size, _width(peers))


def _numbers(row: bytes) -> list[int]:
    return [value for (value,) in _SLOT.iter_unpack(row)]


def _written(words: LastWords) -> bytes:
    said = (words.calling, words.called, words.host, words.why)
    packed = _WORDS.pack(words.at, *(text.encode(errors="backslashreplace") for text in said))
    return packed + _SUM.pack(zlib.crc32(packed))


def _read_words(record: bytes) -> LastWords | None:
    """None where there are none yet, or they are half-written."""
    packed, (checksum,) = record[: _WORDS.size], _SUM.unpack(record[_WORDS.size :])
    if zlib.crc32(packed) != checksum:
        return None
    at, *texts = _WORDS.unpack(packed)
    calling, called, host, why = (text.decode(errors="replace") for text in texts)
    return LastWords(at, host, calling, called, why)
