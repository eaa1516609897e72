"""A child process that is spoken to in lines: the conductor's readers and its sender.

Who speaks to a child over a pipe must know its generation: a new process never answers for what its
predecessor was asked. That is why the conductor, and not the supervisor, starts these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_READ = 1 << 16


class LineChild:
    """One `python -m` module at a time, restarted with growing pauses; never raises for a dead child."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.command = [sys.executable, "-m", module, *arguments]
        self.process: subprocess.Popen[bytes] | None = None
        self.generation = 0
        self._buffer = b""
        self._pause = _FIRST_PAUSE
        self._next_start = 0.0
        self._started = 0.0

    @property
    def fileno(self) -> int | None:
        """Where its lines come from; None while none runs."""
        return self.process.stdout.fileno() if self.process and self.process.stdout else None

    def ensure(self) -> bool:
        """Start it if it does not run and its pause is over; True when it runs."""
        if self.process is not None:
            return True
        if time.monotonic() < self._next_start:
            return False
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None  # noqa: S101 - PIPE was asked for
        os.set_blocking(self.process.stdout.fileno(), False)
        self._started = time.monotonic()
        self.generation += 1
        self._buffer = b""
        return True

    def say(self, line: str) -> bool:
        """Send one line; False when the child is gone."""
        if self.process is None or self.process.stdin is None:
            return False
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return False
        return True

    def lines(self) -> tuple[list[bytes], bool]:
        """Complete lines that came, and whether the child still runs; a dead one is reaped."""
        if self.process is None or self.process.stdout is None:
            return [], False
        alive = True
        while True:
            try:
                data = os.read(self.process.stdout.fileno(), _READ)
            except BlockingIOError:
                break
            if not data:
                alive = False
                break
            self._buffer += data
        *whole, self._buffer = self._buffer.split(b"\n")
        if not alive:
            self.kill()
        return whole, alive

    def kill(self) -> None:
        """End it now; the next `ensure` waits a little longer each time it did not live for a minute."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:  # what was still buffered for a dead child
                    continue
        lived = time.monotonic() - self._started
        self._pause = _FIRST_PAUSE if lived > 60 else min(self._pause * 2, _LONGEST_PAUSE)
        self._next_start = time.monotonic() + self._pause

    def ask_to_stop(self) -> None:
        """SIGTERM: it finishes what it has in hand."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
