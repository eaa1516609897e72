"""One run in one child process, with limits: it may crash, hang or eat memory without harm.

The child (`python -m node.worker`) is started ahead, imports what it needs and waits for the name of a
run's folder on its standard input. How it ended is told by `products.json`, and where that is missing
by the signal, the limits and the step named in `progress.txt`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node import faults
from node.model import Exit, RunState
from node.process.job import EXIT_FILE, LOG_FILE, PROGRESS_FILE, exit_from_json

WORKER = (sys.executable, "-m", "node.worker")
NICE = 10
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals no operator raises by a fault of its own: trying again may help."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    seconds: float = 1800
    memory: int = 4 << 30
    """Bytes of data segment and anonymous memory (RLIMIT_DATA)."""
    threads: int = 1
    """For ITK, OpenMP and BLAS: cores ÷ workers."""


class Spares:
    """Children that wait, warm, for a run; safe to use from several threads.

    All are started from one thread that lives as long as this object, because a child asks the kernel
    to die with the *thread* that started it (PR_SET_PDEATHSIG, prctl(2)).
    """

    def __init__(self, limits: Limits, size: int = 1, command: Sequence[str] = WORKER) -> None:
        self.limits = limits
        self._command = tuple(command)
        self._size = size
        self._ready: deque[subprocess.Popen[bytes]] = deque()
        self._busy: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="spares")
        self._starter.submit(self._fill)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def keep(self, size: int) -> None:
        """Have so many wait from now on; what waits beyond that is for the next runs."""
        self._size = size
        with suppress(RuntimeError):  # closed
            self._starter.submit(self._fill)

    def take(self, run_dir: Path) -> subprocess.Popen[bytes]:
        """A living child told to work on *run_dir*; another one starts warming up. Raises OSError."""
        child = self._next()
        with self._lock:
            if self._closed:
                end(child)
                raise OSError("the node is stopping")
            self._busy[run_dir] = child
        with suppress(BrokenPipeError):  # it died in the meantime: `supervise` sees that
            assert child.stdin is not None  # noqa: S101 (started with a pipe)
            child.stdin.write(f"{run_dir}\n".encode())
            child.stdin.close()
        with suppress(RuntimeError):  # closed in the meantime
            self._starter.submit(self._fill)
        return child

    def give_up(self, run_dir: Path) -> None:
        """Kill the child that works on *run_dir*, if there is one: its run was cancelled."""
        with self._lock:
            child = self._busy.get(run_dir)
            if child is not None:
                _kill(child)

    def finish(self, run_dir: Path) -> None:
        """Kill what the child of *run_dir* left behind, and reap it."""
        with self._lock:
            end(self._busy.pop(run_dir))

    def close(self) -> None:
        """Kill all children, waiting and working; a run that is killed so ends as `waiting`."""
        self._closed = True
        self._starter.shutdown(wait=True)
        with self._lock:
            for child in self._ready:
                end(child)
            self._ready.clear()
            for child in self._busy.values():
                _kill(child)

    def _next(self) -> subprocess.Popen[bytes]:
        with self._lock:
            while self._ready:
                child = self._ready.popleft()
                if child.poll() is None:
                    return child
        if self._closed:
            raise OSError("the node is stopping")
        try:
            return self._starter.submit(self._start).result()
        except RuntimeError:
            raise OSError("the node is stopping") from None

    def _fill(self) -> None:
        with suppress(OSError):  # tried again when a run needs one, and said then
            while len(self._ready) < self._size and not self._closed:
                self._ready.append(self._start())

    def _start(self) -> subprocess.Popen[bytes]:
        limits = [f"--memory={self.limits.memory}", f"--nice={NICE}", f"--parent={os.getpid()}"]
        return subprocess.Popen(
            [*self._command, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(os.environ, self.limits.threads),
        )


def _environment(ours: Mapping[str, str], threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    itk = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    return {**ours, **dict.fromkeys((*names, itk), str(threads))}


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill *child* and all it started; its group's number is its own until it is reaped."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill *child* and all it started, and reap it."""
    _kill(child)
    child.wait()
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()


def supervise(run_dir: Path, spares: Spares) -> Exit:
    """Run `job.json` in *run_dir* in a child and say how it ended. Never raises for what the child does."""
    try:
        child = spares.take(run_dir)
    except OSError as error:
        return Exit(RunState.WAITING, f"no worker could be started: {error}")
    try:
        _wait(child, spares.limits.seconds)
        status = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # None: it still runs
    finally:
        spares.finish(run_dir)
    faults.reach("after-worker-end")
    ended = _read(run_dir)
    if ended is not None:
        return ended
    if status is None:
        words = f"{_step(run_dir)} did not end within {_words(spares.limits.seconds)}"
        return Exit(RunState.QUARANTINED, words)
    return _judge(_step(run_dir), status, closed=spares.closed)


def _wait(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Return when *child* ended, or after *seconds*; leaves it unreaped."""
    descriptor = os.pidfd_open(child.pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll(seconds * 1000)
    finally:
        os.close(descriptor)


def _judge(step: str, status: os.waitid_result, *, closed: bool) -> Exit:
    """How a child ended that could not say it itself."""
    code = status.si_status
    if status.si_code == os.CLD_EXITED:
        if code == os.EX_TEMPFAIL:
            return Exit(RunState.WAITING, f"{step}: the result could not be written; is the disk full?")
        words = f"{step} ended the worker (exit code {code}); see {LOG_FILE} of this run"
        return Exit(RunState.QUARANTINED, words)
    if closed:
        return Exit(RunState.WAITING, "the node was stopped during the run")
    name = signal.Signals(code).name if code in set(signal.Signals) else f"signal {code}"
    if code in _FROM_OUTSIDE:
        words = f"{step} was killed from outside ({name}); was the machine out of memory?"
        return Exit(RunState.WAITING, words)
    return Exit(RunState.QUARANTINED, f"{step} crashed ({name}); see {LOG_FILE} of this run")


def _read(run_dir: Path) -> Exit | None:
    """What the worker said at its end, None where it did not come to that."""
    try:
        return exit_from_json(json.loads((run_dir / EXIT_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Exit(
            RunState.WAITING, f"{EXIT_FILE} of the run cannot be read: {type(error).__name__}: {error}"
        )


def _step(run_dir: Path) -> str:
    """What the worker was doing last, in words."""
    with suppress(OSError, UnicodeDecodeError):
        words = (run_dir / PROGRESS_FILE).read_text(encoding="utf-8").strip()
        if words:
            return words
    return "the worker's start"


def _words(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
