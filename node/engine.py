"""The local engine: so many runs at a time, each supervised by a thread over one child process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from node.flow import Started
from node.model import Exit, RunState
from node.process.job import JOB_FILE, job_to_json
from node.process.supervise import Limits, Spares, supervise
from node.settings import Limits as SiteLimits


class Engine:
    """Takes started runs and gives back how they ended; *wake_fd* becomes readable when one has."""

    def __init__(self, limits: SiteLimits) -> None:
        workers = limits.workers
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._workers = workers
        self._running: dict[tuple[int, int], Path] = {}  # run and attempt → folder
        self._spares = Spares(Limits(limits.run_time.total_seconds(), limits.run_memory, threads), size=0)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="run")
        self._ended: SimpleQueue[tuple[Started, Exit]] = SimpleQueue()
        self.wake_fd, self._wake_write = os.pipe()
        for end in (self.wake_fd, self._wake_write):
            os.set_blocking(end, False)

    @property
    def room(self) -> int:
        """How many more runs may start now."""
        return self._workers - len(self._running)

    @property
    def running(self) -> list[tuple[int, int]]:
        """Run and attempt of each that is under way."""
        return list(self._running)

    def expect(self, runs: bool) -> None:
        """Have a warm worker wait where rules make runs; where they only route it would be memory for nothing."""
        self._spares.keep(int(runs))

    def give_up(self, run: int, attempt: int) -> None:
        """End the worker of a run that was cancelled; it comes back in `finished` as every other."""
        self._spares.give_up(self._running[run, attempt])

    def start(self, started: Started) -> None:
        """Write the job and hand it to a worker."""
        self._running[started.run, started.attempt] = started.folder
        self._pool.submit(self._work, started)

    def finished(self) -> Iterator[tuple[Started, Exit]]:
        """The runs that ended since the last call."""
        while True:
            try:
                ended = self._ended.get_nowait()
            except Empty:
                return
            self._running.pop((ended[0].run, ended[0].attempt), None)
            yield ended

    def stop(self) -> None:
        """End all workers; their runs wait for the next start."""
        self._spares.close()
        self._pool.shutdown(wait=True)

    def _work(self, started: Started) -> None:
        try:
            write_job(started)
            ended = supervise(started.folder, self._spares)
        except OSError as error:
            ended = Exit(
                RunState.WAITING, f"the job could not be written ({error.strerror}); is the disk full?"
            )
        except Exception as error:  # noqa: BLE001 - a thread that died silently would hold its place for ever
            ended = Exit(RunState.QUARANTINED, f"the run could not be supervised ({type(error).__name__})")
        self._ended.put((started, ended))
        try:
            os.write(self._wake_write, b"e")
        except BlockingIOError:  # it is awake already
            return


def write_job(started: Started) -> None:
    """Put `job.json` into the attempt's own folder."""
    shutil.rmtree(started.folder, ignore_errors=True)  # a lost database gave the same numbers before
    started.folder.mkdir(parents=True, exist_ok=True)
    Path(started.folder / JOB_FILE).write_text(json.dumps(job_to_json(started.job)), encoding="utf-8")
