"""`pacsnode run`: binds the listening socket, starts the roles, restarts them, stops them in order.

Receivers and the conductor are its children; readers, sender and workers are the conductor's. No threads, no
database, no DICOM in it. A role is a program of its own in its own session, given the site file's text on
standard input and its descriptors by number.
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
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from node.errors import Broken
from node.receive.limits import Census

FIRST_DELAY, LONGEST_DELAY, STEADY = 0.1, 30.0, 60.0
"""Seconds: before the first restart, at most, and of life after which the count begins again."""
RECEIVERS_STOP, CONDUCTOR_STOP = 12.0, 30.0
"""Seconds between SIGTERM and SIGKILL."""
_BIND_PATIENCE = 3.0  # a killed supervisor's receivers let go of the port as soon as they notice
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


class NodeSection(Protocol):
    """What the supervisor reads of `node:` in the site file."""

    @property
    def listen(self) -> tuple[str, int]: ...  # noqa: D102
    @property
    def data(self) -> Path: ...  # noqa: D102
    @property
    def receivers(self) -> int: ...  # noqa: D102


class SupervisorSettings(Protocol):
    """The part of Settings the supervisor needs."""

    @property
    def node(self) -> NodeSection: ...  # noqa: D102


@dataclass(frozen=True)
class Commands:
    """How the roles are started; their options follow."""

    receiver: Sequence[str] = (sys.executable, "-m", "node.receiver")
    conductor: Sequence[str] = (sys.executable, "-m", "node.conductor")


def follow(parent: int) -> None:
    """Make this process end (SIGTERM) when its parent *parent* does, even when that was killed."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def delay(deaths: int) -> float:
    """Return the seconds to wait before a role that died *deaths* times in a row is started again."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(deaths - 1, 16))


def bind(host: str, port: int, patience: float = _BIND_PATIENCE) -> socket.socket:
    """Return a listening socket. Raises Broken, naming the address and what to do."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    deadline = time.monotonic() + patience
    while True:
        try:
            return _listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise Broken(_unbindable(where, error)) from error
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


def _unbindable(where: str, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "the port is in use; stop the other program (`ss -ltnp` names it), "
        "or change node.listen",
        errno.EACCES: "ports below 1024 need the right to bind them; give CAP_NET_BIND_SERVICE or use 11112",
        errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0",
    }
    why = reasons.get(error.errno or 0, f"{error.strerror or error}; check node.listen")
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


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Tell systemd, where it asked: sd_notify(3)."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), target)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Return the seconds between two signs of life for systemd: half its patience; None without one."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() and int(text) else None


@dataclass
class Child:
    """One role that shall always run."""

    name: str
    command: list[str]
    descriptors: tuple[int, ...]
    stdin: bytes
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0

    def start(self, now: float) -> None:
        """Start it; *now* is monotonic. Its standard input is a file, so that nobody waits for a reader."""
        memory = os.memfd_create(f"pacsnode-{self.name}")
        try:
            os.write(memory, self.stdin)
            os.lseek(memory, 0, os.SEEK_SET)
            self.process = subprocess.Popen(
                self.command, stdin=memory, pass_fds=self.descriptors, start_new_session=True
            )
        finally:
            os.close(memory)
        self.started = now

    def reap(self, now: float) -> bool:
        """Whether it has died since the last look; then its restart is due after a pause."""
        if self.process is None or self.process.poll() is None:
            return False
        self.deaths = 1 if now - self.started >= STEADY else self.deaths + 1
        self.due = now + delay(self.deaths)
        died = f"{self.name}_died"
        log.warning(died, exit_code=self.process.returncode, count=self.deaths, due_in=self.due - now)
        self.process = None
        return True

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process is not None:
            self.process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end until the monotonic *deadline*, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error(f"{self.name}_killed")  # noqa: TRY400 - no traceback: we did it
            self.process.kill()
            self.process.wait()


@dataclass
class Supervisor:
    """The children and what is needed to keep them."""

    receivers: list[Child]
    conductor: Child
    wake_fd: int
    census_fd: int
    signals: _Signals
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def children(self) -> list[Child]:
        """Everything that shall run, the conductor first: it has the most to catch up with."""
        return [self.conductor, *self.receivers]

    def run(self) -> None:
        """Keep the roles running until SIGTERM or SIGINT, then stop them in order."""
        period = watchdog_period(self.environ)
        for child in self.children:
            child.start(time.monotonic())
        notify("READY=1", self.environ)
        while not self.signals.stop:
            now = time.monotonic()
            for child in self.children:
                if child.reap(now):
                    self._mourn(child)
                if child.process is None and now >= child.due:
                    child.start(now)
            if period is not None:
                notify("WATCHDOG=1", self.environ)
            self.signals.wait(self._pause(time.monotonic(), period))
        self._stop()

    def _pause(self, now: float, period: float | None) -> float:
        due = [child.due - now for child in self.children if child.process is None]
        return max(0.0, min([1.0, *due, *([period] if period is not None else [])]))

    def _mourn(self, child: Child) -> None:
        """Free the places of a dead receiver's associations, which are over, and let the conductor look."""
        if child in self.receivers:
            Census.reset(self.census_fd, self.receivers.index(child))
            with contextlib.suppress(BlockingIOError):
                os.write(self.wake_fd, b"\0")

    def _stop(self) -> None:
        notify("STOPPING=1", self.environ)
        log.info("node_stopping")
        for group, patience in ((self.receivers, RECEIVERS_STOP), ([self.conductor], CONDUCTOR_STOP)):
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
    settings_text: str, settings_file: str, settings: SupervisorSettings, commands: Commands | None = None
) -> int:
    """Run the node until SIGTERM or SIGINT; return 0. Main thread only.

    *settings_text* goes to every role as it is; each of them parses it with its own environment. Raises
    Broken where the data folder or the address cannot be had.
    """
    with contextlib.ExitStack() as open_until_end:
        open_until_end.callback(os.close, lock_data(settings.node.data))
        listening = open_until_end.enter_context(contextlib.closing(bind(*settings.node.listen)))
        wake_read, wake_write = open_until_end.enter_context(_pipe())
        census = Census.create(settings.node.receivers)
        open_until_end.callback(os.close, census)
        signals = open_until_end.enter_context(_Signals())
        roles = _Roles(settings_text.encode(), settings_file, commands or Commands())
        supervisor = Supervisor(
            receivers=[
                roles.receiver(slot, listening.fileno(), wake_write, census)
                for slot in range(settings.node.receivers)
            ],
            conductor=roles.conductor(wake_read),
            wake_fd=wake_write,
            census_fd=census,
            signals=signals,
        )
        log.info("node_listening", port=settings.node.listen[1], receivers=settings.node.receivers)
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


@dataclass(frozen=True)
class _Roles:
    """Makes children out of descriptors."""

    text: bytes
    file: str
    commands: Commands

    def receiver(self, slot: int, listen_fd: int, wake_fd: int, census_fd: int) -> Child:
        named = {"--listen-fd": listen_fd, "--wake-fd": wake_fd, "--census-fd": census_fd, "--slot": slot}
        command = [*self.commands.receiver, *self._options({**named, "--parent": os.getpid()})]
        return Child(f"receiver_{slot}", command, (listen_fd, wake_fd, census_fd), self.text)

    def conductor(self, wake_fd: int) -> Child:
        command = [*self.commands.conductor, *self._options({"--wake-fd": wake_fd, "--parent": os.getpid()})]
        return Child("conductor", command, (wake_fd,), self.text)

    def _options(self, named: Mapping[str, int]) -> list[str]:
        numbers = [text for name, value in named.items() for text in (name, str(value))]
        return [*numbers, "--file", self.file]
