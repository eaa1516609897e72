"""`pacsnode run`: binds the listening sockets, starts the roles, restarts them, stops them in order.

Receivers, the conductor, upkeep and web are its children; readers, sender and workers are the conductor's. No
threads, no database, no DICOM in it. A role is a program of its own in its own session, given the site file's
text on standard input and its descriptors by number.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from node.errors import Broken
from node.ops.health import BEAT_EVERY, Board, Pulse, Role, beat_path, board_path, write_board
from node.ops.notify import Manager, State
from node.receive.census import Census, Tally
from node.receive.reasons import by_label
from node.roles import Child, Commands, Roles
from node.settings import Settings

HELPERS_STOP, RECEIVERS_STOP, CONDUCTOR_STOP = 5.0, 12.0, 30.0
"""Seconds between SIGTERM and SIGKILL."""
HUNG = 180.0
"""Seconds without a turn of its loop after which the conductor is killed, so that the next goes on: far more than
a series of 100 000 objects on a slow disk takes, since whoever is killed at that begins it again."""
_OVERDUE = 5.0
"""Seconds after its time that a role may still not have been started while all counts as well."""
_BIND_PATIENCE = 3.0  # a killed supervisor's receivers let go of the port as soon as they notice
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


def follow(parent: int) -> None:
    """Make this process end (SIGTERM) when its parent *parent* does, even when that was killed."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def bind(host: str, port: int, patience: float = _BIND_PATIENCE, key: str = "node.listen") -> socket.socket:
    """Return a listening socket for what *key* of the site file says. Raises Broken: where, and what to do."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    deadline = time.monotonic() + patience
    while True:
        try:
            return _listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise Broken(_unbindable(where, error, key)) from error
        time.sleep(0.1)


def _listening(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `[::]` listens to both
        listening.bind(address)
        listening.listen(512)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _unbindable(where: str, error: OSError, key: str) -> str:
    reasons = {
        errno.EADDRINUSE: "the port is in use; stop the other program (`ss -ltnp` names it), "
        f"or change {key}",
        errno.EACCES: "ports below 1024 need the right to bind them; give CAP_NET_BIND_SERVICE or a higher port",
        errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0",
    }
    why = reasons.get(error.errno or 0, f"{error.strerror or error}; check {key}")
    return f"cannot listen on {where}: {why}"


def lock_data(data: Path) -> int:
    """Make *data* and hold it for this node; the lock goes with the process. Raises Broken."""
    try:
        data.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(data / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise Broken(f"data folder {data}: {error.strerror}; check node.data and who owns it") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Broken(
            f"data folder {data} is in use by another node; stop that one, or give this one its own node.data"
        ) from error
    return fd


@dataclass
class Supervisor:
    """The children and what is needed to keep them."""

    receivers: list[Child]
    conductor: Child
    helpers: list[Child]
    """Those that nothing received or done depends on: upkeep, and web where it is asked for."""
    wake_fd: int
    census: Callable[[], Tally]
    forget: Callable[[int], None]
    """Resets the census row of a receiver that died."""
    data: Path
    signals: _Signals
    manager: Manager

    def __post_init__(self) -> None:
        self.pulse = Pulse(beat_path(self.data))
        self._said_at = float("-inf")

    @property
    def children(self) -> list[Child]:
        """Everything that shall run, the conductor first: it has the most to catch up with."""
        return [self.conductor, *self.receivers, *self.helpers]

    def run(self) -> None:
        """Keep the roles running until SIGTERM or SIGINT, then stop them in order."""
        for child in self.children:
            self._start(child, time.monotonic())
        while not self.signals.stop:
            now = time.monotonic()
            for child in self.children:
                if child.reap(now):
                    self._mourn(child)
                if child.process is None and now >= child.due:
                    self._start(child, now)
            self._look(now)
            self.signals.wait(self._pause(time.monotonic()))
        self._stop()

    def _start(self, child: Child, now: float) -> None:
        if child is self.conductor:
            self.pulse.restart()
        child.start(now)

    def _pause(self, now: float) -> float:
        due = [child.due - now for child in self.children if child.process is None]
        period = [] if self.manager.period is None else [self.manager.period]
        return max(0.0, min([1.0, *due, *period]))

    def _mourn(self, child: Child) -> None:
        """Free the places of a dead receiver's associations, which are over, and let the conductor look."""
        if child in self.receivers:
            self.forget(self.receivers.index(child))
            with contextlib.suppress(BlockingIOError):
                os.write(self.wake_fd, b"\0")

    def _look(self, now: float) -> None:
        """Free a conductor that hangs, show who runs, and tell systemd."""
        age, tally = self.pulse.age(now), self.census()
        receiving = tally.ready
        if age is not None and age > HUNG and self.conductor.process is not None:
            log.error("conductor_hung", seconds=round(age))
            self.conductor.kill()
        if now - self._said_at >= BEAT_EVERY:
            self._said_at = now
            roles = tuple(Role(c.name, c.process.pid if c.process else None, c.deaths) for c in self.children)
            board = Board(time.time(), os.getpid(), receiving, roles, by_label(tally.reasons))
            write_board(board_path(self.data), board)
        ready = receiving == len(self.receivers) and age is not None
        self.manager.tell(State(ready, self._well(now, age), self._words(receiving, age)), now)

    def _well(self, now: float, age: float | None) -> bool:
        """Whether whatever dies is started again in time; what only waits for its turn is well."""
        needed = [self.conductor, *self.receivers]
        return (age is None or age < HUNG + _OVERDUE) and all(
            child.process is not None or now < child.due + _OVERDUE for child in needed
        )

    def _words(self, receiving: int, age: float | None) -> str:
        dead = [f"{c.name} ended {c.deaths} times in a row" for c in self.children if c.process is None]
        if age is None and not dead:
            dead = ["the conductor takes in what came before"]
        return "; ".join([f"{receiving} of {len(self.receivers)} receivers accept", *dead])

    def _stop(self) -> None:
        self.manager.stopping()
        log.info("node_stopping")
        for group, patience in (
            (self.helpers, HELPERS_STOP),
            (self.receivers, RECEIVERS_STOP),
            ([self.conductor], CONDUCTOR_STOP),
        ):
            deadline = time.monotonic() + patience
            for child in group:
                child.terminate()
            for child in group:
                child.wait(deadline)
        log.info("node_stopped")


class _Signals:
    """SIGTERM, SIGINT and SIGCHLD as bytes on a socket, so that no signal is missed between two looks."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.stop = False
        self._before: dict[int, Callable[..., object] | int | None] = {}

    def __enter__(self) -> _Signals:
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float) -> None:
        """Wait for a signal, at most *seconds*."""
        if not select.select([self._read], [], [], seconds)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            if {signal.SIGTERM, signal.SIGINT} & set(self._read.recv(4096)):
                self.stop = True


def supervise_node(
    settings_text: str, settings_file: str, settings: Settings, commands: Commands | None = None
) -> int:
    """Run the node until SIGTERM or SIGINT; return 0. Main thread only.

    *settings_text* goes to every role as it is; each of them parses it with its own environment. Raises
    Broken where the data folder or the address cannot be had.
    """
    node, peers = settings.node, tuple(settings.peers)
    with contextlib.ExitStack() as open_until_end:
        open_until_end.callback(os.close, lock_data(node.data))
        listening = open_until_end.enter_context(contextlib.closing(bind(*node.listen)))
        tls_fd = None
        if settings.tls and settings.tls.listen:
            secured = bind(*settings.tls.listen, key="tls.listen")
            tls_fd = open_until_end.enter_context(contextlib.closing(secured)).fileno()
        wake_read, wake_write = open_until_end.enter_context(_pipe())
        census = Census.create(node.receivers, peers)
        open_until_end.callback(os.close, census)
        signals = open_until_end.enter_context(_Signals())
        roles = Roles(settings_text.encode(), settings_file, commands or Commands())
        supervisor = Supervisor(
            receivers=[
                roles.receiver(slot, listening.fileno(), wake_write, census, tls_fd)
                for slot in range(node.receivers)
            ],
            conductor=roles.conductor(wake_read, census),
            helpers=[roles.upkeep(), *([roles.web(census)] if settings.web else [])],
            wake_fd=wake_write,
            census=lambda: Census.tally(census, peers),
            forget=lambda slot: Census.reset(census, slot, peers),
            data=node.data,
            signals=signals,
            manager=Manager(os.environ),
        )
        log.info("node_listening", port=node.listen[1], receivers=node.receivers)
        supervisor.run()
    return 0


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Make the wake pipe; both ends stay open here, so that nobody ever meets a broken one."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)
