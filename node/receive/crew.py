"""Threads for connections, kept for the next one: many scanners open an association for each image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

Job = Callable[[], None]
"""Serves one connection; never raises."""


class Crew:
    """As many threads as there are connections; of those that are done a few wait a while for the next."""

    def __init__(self, spare: int = 4, patience: float = 0.5) -> None:
        """Keep at most *spare* idle threads, each for *patience* seconds."""
        self._spare = spare
        self._patience = patience
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._idle = 0  # threads that wait, less those that are promised a job
        self._lock = threading.Lock()

    def hand(self, job: Job) -> None:
        """Have *job* done at once, in a thread of its own. Raises RuntimeError where none can be had."""
        with self._lock:
            waits = self._idle > 0
            self._idle -= waits
        if waits:
            self._jobs.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name="connection", daemon=True).start()

    def _work(self, job: Job) -> None:
        while True:
            job()
            del job  # and with it what it holds, while this thread waits
            with self._lock:
                if self._idle >= self._spare:
                    return
                self._idle += 1
            try:
                job = self._jobs.get(timeout=self._patience)
            except Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        return
                job = self._jobs.get()  # it was promised to us
