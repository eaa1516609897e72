"""What the processes of a node use while it works, and how quickly it tells its status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from crash.crash_house import House

from node import desk, settings

QUICK = 0.5
"""Seconds within which `status` shall answer, beside the start of Python."""


# --- what is used


@dataclass(frozen=True)
class Used:
    """What one process uses."""

    memory: int
    """Resident, in kB."""
    threads: int
    descriptors: int


def used(pid: int) -> Used:
    """Look at a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    memory, threads = (int(re.search(rf"{name}:\s+(\d+)", text)[1]) for name in ("VmRSS", "Threads"))  # type: ignore[index]
    return Used(memory, threads, len(list(Path(f"/proc/{pid}/fd").iterdir())))


ROLES = ("receiver", "reader", "conductor")


def look(site: House) -> dict[str, Used]:
    """`role pid` → what it uses."""
    return {f"{role} {pid}": used(pid) for role in ROLES for pid in site.pids(role)}


@dataclass(frozen=True)
class Sample:
    """What all processes use at some point of the way."""

    acknowledged: int
    """Percent of the objects."""
    indexed: int
    """Percent of the objects."""
    used: Mapping[str, Used]


@dataclass
class Watch:
    """What the processes use, at each tenth of the way."""

    site: House
    planned: int
    """How many objects there will be in the index."""
    samples: list[Sample] = field(default_factory=list)

    def indexed(self) -> int:
        """How many objects are kept and indexed."""
        return int(self.site.overview()["instances"].get("kept", 0))

    def take(self, acknowledged: int) -> Sample:
        """Note what they use now."""
        self.samples.append(Sample(acknowledged, 100 * self.indexed() // self.planned, look(self.site)))
        return self.samples[-1]

    def growth(self, since: int) -> dict[str, int]:
        """Process → kB by which it grew from *since* percent of its work to the end of it."""
        found = {}
        for name in self.samples[-1].used:
            receives = name.startswith("receiver")
            way = [
                s
                for s in self.samples
                if (s.acknowledged if receives else s.indexed) >= since and name in s.used
            ]
            found[name] = way[-1].used[name].memory - way[0].used[name].memory
        return found

    def lines(self) -> list[str]:
        """The table: MB, threads and descriptors of each process."""
        names = sorted({name for sample in self.samples for name in sample.used})
        labels = [f"{sample.acknowledged}/{sample.indexed} %" for sample in self.samples]
        found = [" " * 16 + "".join(f"{label:>11}" for label in labels)]
        for name in names:
            cells = [sample.used.get(name) for sample in self.samples]
            text = [f"{c.memory / 1024:.0f}/{c.threads}/{c.descriptors}" if c else "-" for c in cells]
            found.append(f"{name:16}" + "".join(f"{cell:>11}" for cell in text))
        return [*found, "acknowledged/indexed; MB resident/threads/descriptors"]


# --- status


_TIMED = """
import sys, time
import node.cli
began = time.monotonic()
try:
    node.cli.main()
finally:
    print(time.monotonic() - began, file=sys.stderr)
"""
"""`pacsnode`, telling last how long it took beside the start of Python."""


class Asking(threading.Thread):
    """Asks for the status about once a second: the command as a person calls it, and within a warm process."""

    def __init__(self, site: House, every: float = 1.0) -> None:
        super().__init__(daemon=True)
        self._file, self._every = site.folder / "node.yaml", every
        self._environ = {**os.environ, **site.environ}
        self._over = threading.Event()
        self.warm: list[float] = []
        """Seconds for the same answer in a process that runs already."""
        self.whole: list[float] = []
        """Seconds of `pacsnode status --json`, wall clock."""
        self.beyond: list[float] = []
        """Of these, what came after Python had started and imported the command."""
        self.faults: list[str] = []

    def run(self) -> None:
        """Ask until told to end."""
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._ask()
            except Exception as error:  # noqa: BLE001 - the test fails with it
                self.faults.append(f"{type(error).__name__}: {error}")
            self._over.wait(max(0.0, self._every - (time.monotonic() - began)))

    def _ask(self) -> None:
        began = time.monotonic()
        json.dumps(desk.status(settings.load(self._file, self._environ)), default=str)
        self.warm.append(time.monotonic() - began)
        command = [sys.executable, "-c", _TIMED, "--config", str(self._file), "status", "--json"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=self._environ)
        self.whole.append(time.monotonic() - began)
        self.beyond.append(float(done.stderr.splitlines()[-1]))
        assert json.loads(done.stdout)["running"]

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self.join()
        assert not self.faults, self.faults

    def lines(self) -> list[str]:
        """The table."""
        rows = {
            "pacsnode status --json": self.whole,
            "  beside Python's start": self.beyond,
            "in a warm process": self.warm,
        }
        return [f"{name:24}{spread(times)}" for name, times in rows.items()]


def spread(times: Sequence[float]) -> str:
    """Median, 95th percentile and maximum in words."""
    top = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else max(times)
    return f"{len(times):6} times: median {median(times):.3f} s, p95 {top:.3f} s, most {max(times):.3f} s"
