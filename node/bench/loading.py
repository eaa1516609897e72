"""The load generator's processes: started and warm before the clock starts, and released together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from node.bench import peers
from node.bench.load import Job
from node.errors import Broken


@dataclass(frozen=True)
class Burst:
    """What all processes together did."""

    began: float
    """Monotonic seconds: the first write of the first of them."""
    ended: float
    """The last acknowledgement."""
    acknowledged: int
    cpu: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Load:
    """Processes that do something a number of times when they are told to, and say what it took."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._collect()

    def burst(self, count: int) -> Burst:
        """Do it *count* times in all, at once in every process. Raises Broken where one of them failed."""
        share, rest = divmod(count, len(self._processes))
        for number, process in enumerate(self._processes):
            assert process.stdin is not None  # noqa: S101 - PIPE was asked for
            process.stdin.write(f"{share + (number < rest)}\n")
            process.stdin.flush()
        return self._collect()

    def end(self) -> None:
        """Have them release their associations, and wait until they have. Raises Broken."""
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101 - PIPE was asked for
            process.stdin.close()
        if any(process.wait(60) for process in self._processes):
            raise Broken("an association of the load generator did not end as it should")

    def _collect(self) -> Burst:
        told = [_told(process) for process in self._processes]
        if wrong := "; ".join(one["wrong"] for one in told if one["wrong"]):
            done = sum(one.get("acknowledged", 0) for one in told)
            raise Broken(f"after {done} acknowledged objects: {wrong}")
        return Burst(
            min(one.get("began", 0.0) for one in told),
            max(one.get("ended", 0.0) for one in told),
            sum(one.get("acknowledged", 0) for one in told),
            sum(one.get("cpu", 0.0) for one in told),
        )


def _told(process: subprocess.Popen[str]) -> Mapping[str, Any]:
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    line = process.stdout.readline()
    if not line:
        raise Broken(f"{process.args!r} ended with {process.wait(10)}; what it said stands above")
    found: Mapping[str, Any] = json.loads(line)
    return found


@contextmanager
def loading(jobs: Sequence[Job]) -> Iterator[Load]:
    """A process for each association. Raises Broken where one of them cannot begin."""
    with _running([["node.bench.load", json.dumps(asdict(job))] for job in jobs]) as load:
        yield load


@contextmanager
def keeping(folder: str, file: str, threads: int) -> Iterator[Load]:
    """The bare recipe of durable objects, as a load of the same kind."""
    with _running([["node.bench.disk", folder, file, str(threads)]]) as load:
        yield load


@contextmanager
def _running(modules: Sequence[Sequence[str]]) -> Iterator[Load]:
    with ExitStack() as stack:
        processes = []
        for words in modules:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=peers.clean(os.environ), start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)
            processes.append(process)
        yield Load(processes)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
