"""The roles that the supervisor keeps running: how each is started, and what becomes of one that dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

FIRST_DELAY, LONGEST_DELAY, STEADY = 0.1, 30.0, 60.0
"""Seconds: before the first restart, at most, and of life after which the count begins again."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Commands:
    """How the roles are started; their options follow."""

    receiver: Sequence[str] = (sys.executable, "-m", "node.receiver")
    conductor: Sequence[str] = (sys.executable, "-m", "node.conductor")
    upkeep: Sequence[str] = (sys.executable, "-m", "node.upkeep")
    web: Sequence[str] = (sys.executable, "-m", "node.web")


def delay(deaths: int) -> float:
    """Return the seconds to wait before a role that died *deaths* times in a row is started again."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(deaths - 1, 16))


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
        log.warning(
            "role_died",
            process=self.name,
            exit_code=self.process.returncode,
            count=self.deaths,
            due_in=self.due - now,
        )
        self.process = None
        return True

    def kill(self) -> None:
        """End it at once; the next look finds it dead."""
        if self.process is not None:
            self.process.kill()

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
            log.error("role_killed", process=self.name)  # noqa: TRY400 - no traceback: we did it
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Roles:
    """Makes children out of descriptors."""

    text: bytes
    """Of the site file, which every role gets on its standard input."""
    file: str
    commands: Commands

    def receiver(
        self, slot: int, listen_fd: int, wake_fd: int, census_fd: int, tls_fd: int | None = None
    ) -> Child:
        """One receiver; *slot* is its row in the census, *tls_fd* listens for those who come by TLS."""
        descriptors = {"--listen-fd": listen_fd, "--wake-fd": wake_fd, "--census-fd": census_fd}
        if tls_fd is not None:
            descriptors["--tls-fd"] = tls_fd
        named = {**descriptors, "--slot": slot}
        return self._child(f"receiver_{slot}", self.commands.receiver, named, tuple(descriptors.values()))

    def conductor(self, wake_fd: int, census_fd: int) -> Child:
        """The conductor; in the census it finds what receivers refused."""
        named = {"--wake-fd": wake_fd, "--census-fd": census_fd}
        return self._child("conductor", self.commands.conductor, named, (wake_fd, census_fd))

    def upkeep(self) -> Child:
        """The clock of retention and alerts."""
        return self._child("upkeep", self.commands.upkeep, {}, ())

    def web(self, census_fd: int) -> Child:
        """Health and metrics."""
        return self._child("web", self.commands.web, {"--census-fd": census_fd}, (census_fd,))

    def _child(
        self, name: str, command: Sequence[str], named: Mapping[str, int], descriptors: tuple[int, ...]
    ) -> Child:
        numbers = {**named, "--parent": os.getpid()}
        options = [text for key, value in numbers.items() for text in (key, str(value))]
        return Child(name, [*command, *options, "--file", self.file], descriptors, self.text)
