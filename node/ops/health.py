"""Whether the node lives and is ready: signs of life in files, and what they mean, as pure decisions.

`data/run/node.json` is the supervisor's: which roles run. `data/run/conductor.beat` is the conductor's: its time
is set once a second. Both are rewritten in place, so that a full disk does not look like a death.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from node.words import counted

BEAT_EVERY = 1.0
"""Seconds between two signs of life."""
STALE = 15.0
"""Seconds after which a role without a sign of life counts as not working."""
_BLOCK = 4096
_PLACE = re.compile(r"[^\s:]+:\d+(?::\d+)?(?=: )")


def board_path(data: Path) -> Path:
    """Where the supervisor says what runs."""
    return data / "run" / "node.json"


def beat_path(data: Path) -> Path:
    """Where the conductor shows that its loop turns."""
    return data / "run" / "conductor.beat"


def beat(path: Path, now: float) -> None:
    """Set the file's time to *now* (seconds since 1970) if its last is a second ago. Never raises."""
    with contextlib.suppress(OSError):
        try:
            last = path.stat().st_mtime
        except FileNotFoundError:
            path.parent.mkdir(mode=0o750, exist_ok=True)
            path.touch(0o640)
            last = float("-inf")
        if not 0 <= now - last < BEAT_EVERY:  # a clock that was set back is followed at once
            os.utime(path, (now, now))


def beaten_at(path: Path) -> float | None:
    """Seconds since 1970 of the last sign of life; None where there was none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


@dataclass
class Pulse:
    """How long ago a sign of life came, by the monotonic clock: a step of the wall clock is no death."""

    path: Path
    seen: float | None = None
    changed: float | None = None

    def restart(self) -> None:
        """The process behind it starts anew: what its predecessor left is no sign of life."""
        self.seen, self.changed = beaten_at(self.path), None

    def age(self, now: float) -> float | None:
        """Seconds since the last sign, as seen by whoever looks about every second; None before the first."""
        found = beaten_at(self.path)
        if found != self.seen:
            self.seen, self.changed = found, now
        return None if self.changed is None else now - self.changed


@dataclass(frozen=True)
class Role:
    """One process of the node as the supervisor sees it."""

    name: str
    pid: int | None
    """None while it waits to be started again."""
    deaths: int = 0
    """In a row."""


@dataclass(frozen=True)
class Board:
    """What the supervisor says of the node."""

    at: float
    """Seconds since 1970."""
    pid: int
    receiving: int
    """Receivers that accept connections."""
    roles: tuple[Role, ...]
    refusals: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What receivers refused since the node started: event → why → how often."""


def write_board(path: Path, board: Board) -> None:
    """Say it, in one write of whole blocks over the old ones. Never raises."""
    text = json.dumps(asdict(board)).encode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o750, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = -(-len(text) // _BLOCK) * _BLOCK
            os.pwrite(fd, text.ljust(size), 0)
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def read_board(path: Path) -> Board | None:
    """What the supervisor said last; None where nothing is to be read."""
    for _ in range(2):  # once more, where a writer was in the middle of it
        try:
            said = json.loads(path.read_bytes())
            roles = tuple(Role(**role) for role in said.pop("roles"))
            return Board(roles=roles, **said)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return None


@dataclass(frozen=True)
class Signs:
    """All that health is judged by, at one moment."""

    now: float
    """Seconds since 1970."""
    board: Board | None
    beaten: float | None
    """When the conductor's loop turned last, seconds since 1970."""
    locked: bool = True
    """A conductor holds the data folder."""
    disk: float = 0.0
    """Share of the disk that is used, 0 to 1."""
    shares: tuple[float, float] = (0.88, 0.95)
    """`disk.stop_processing` and `disk.refuse`."""
    database: str = ""
    """Why the database does not answer; empty when it does."""
    rules: str = ""
    """What is wrong with the rule files, so that older ones or none are in use."""
    down: Sequence[str] = ()
    """Destinations that cannot be reached."""


def where(problem: str) -> str:
    """Where the rules have mistakes, not what stands there: a rule may name a patient, and this leaves the house."""
    lines = problem.splitlines()
    places = list(dict.fromkeys(match[0] for line in lines if (match := _PLACE.match(line))))
    shown = ", ".join(places[:3]) + (" …" if len(places) > 3 else "")
    return f"{counted(len(lines), 'mistake')}{f' at {shown}' if shown else ''}; `pacsnode check` says what"


@dataclass(frozen=True)
class Verdict:
    """An answer that explains itself."""

    reasons: tuple[str, ...] = ()
    """Why not; empty is yes."""
    degraded: tuple[str, ...] = field(default=())
    """What is wrong although the answer is yes."""

    @property
    def holds(self) -> bool:
        """Yes."""
        return not self.reasons


def alive(signs: Signs) -> Verdict:
    """Whether the node lives: its supervisor gives signs of life and a receiver runs; other roles are *degraded*.

    Whoever restarts a node that is not alive ends its receivers, too. A conductor that takes long to start, or one
    role that dies again and again, is the supervisor's to mend, and must not cost reception (`ready` says no then).
    """
    if signs.board is None or not _fresh(signs.board.at, signs.now):
        return Verdict(("the supervisor gives no sign of life",))
    dead = tuple(
        f"{role.name} is not running: it ended {role.deaths} times in a row and is started again"
        for role in signs.board.roles
        if role.pid is None
    )
    if not any(role.pid is not None for role in signs.board.roles if role.name.startswith("receiver")):
        return Verdict(("no receiver is running", *dead))
    conductor = any(role.name == "conductor" and role.pid is not None for role in signs.board.roles)
    if conductor and not _fresh(signs.beaten, signs.now):
        dead = (*dead, "the conductor's loop does not turn: it is starting, or it hangs")
    return Verdict(degraded=dead)


def ready(signs: Signs) -> Verdict:
    """Whether the node can receive and work.

    Refused rule files, full processing and a destination that is down leave it ready, but *degraded*: the node
    still receives and keeps what it is sent, and whoever takes it out of service for that would lose reception
    over a typing mistake. What makes it not ready is what makes sending to it pointless or unsafe for long.
    """
    return Verdict(tuple(_unready(signs)), tuple(_degraded(signs)))


def _unready(signs: Signs) -> Iterator[str]:
    if signs.board is None or not _fresh(signs.board.at, signs.now):
        yield "the supervisor gives no sign of life"
    elif not signs.board.receiving:
        yield "no receiver accepts connections"
    if not signs.locked:
        yield "no conductor holds the data folder: received objects wait"
    elif not _fresh(signs.beaten, signs.now):
        yield "the conductor's loop does not turn: received objects wait"
    if signs.disk >= signs.shares[1]:
        yield f"the disk is {signs.disk:.0%} full: senders are answered A700 (out of resources)"
    if signs.database:
        yield f"the database does not answer: {signs.database}"


def _degraded(signs: Signs) -> Iterator[str]:
    if signs.rules:
        yield f"rules_refused: {where(signs.rules)}"
    if signs.shares[0] <= signs.disk < signs.shares[1]:
        yield f"disk: {signs.disk:.0%} full, processing waits"
    for name in signs.down:
        yield f"destination_down: {name}"


def _fresh(at: float | None, now: float) -> bool:
    """Not long ago, nor in the future by more than a clock's correction."""
    return at is not None and abs(now - at) <= STALE
