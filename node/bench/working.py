"""`python -m node.bench.working FOLDER`: one run as a worker does it, with what each part of it took.

Prints a line of JSON. Nothing in the worker is changed for it: an audit hook (PEP 578) hears which files are opened,
the progress file among them, whose every writing begins a step.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node import worker
from node.bench.peers import memory_of
from node.derive import standard
from node.model import RunState
from node.process.job import JOB_FILE, PROGRESS_FILE, job_from_json


class _Heard:
    """When steps began, and how often each source file was opened."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.began: list[tuple[float, float]] = []
        self.ended: list[tuple[float, float]] = []
        """Of what was before; the first is of nothing."""
        self.peaks: list[int] = []
        """Bytes at most since the mark before."""
        self.opened: Counter[str] = Counter()
        self._sources = frozenset(sources)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open":
            return
        path = str(arguments[0])
        if path in self._sources:
            self.opened[path] += 1
        elif path.endswith(PROGRESS_FILE):
            self.mark()

    def mark(self) -> None:
        """Another part begins here; what is looked up for it is of neither part."""
        self.ended.append(_now())
        self.peaks.append(memory_of("self"))
        _forget()
        self.began.append(_now())


def _now() -> tuple[float, float]:
    """Wall and processor seconds."""
    return time.perf_counter(), time.process_time()


def _forget() -> None:
    """Let the peak of this process begin anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(folder: Path) -> dict[str, Any]:
    """Do the job in *folder*; what it took."""
    worker.specs_as_json()  # what a spare worker has done before its run comes
    standard.prepare()
    job = job_from_json(json.loads((folder / JOB_FILE).read_text(encoding="utf-8")))
    heard = _Heard(job.files)
    sys.addaudithook(heard)
    _forget()
    idle = memory_of("self")
    ended = worker.work(folder)
    heard.mark()
    if ended.state is not RunState.DONE:
        raise SystemExit(f"{ended.state.value}: {ended.reason}")
    names = ["reading", *(step.operator for step in job.plan.steps), "writing"]
    took = [
        (end[0] - begin[0], end[1] - begin[1])
        for begin, end in zip(heard.began, heard.ended[1:], strict=False)
    ]
    return {
        "seconds": {name: wall for name, (wall, _) in zip(names, took, strict=False)},
        "cpu": {name: cpu for name, (_, cpu) in zip(names, took, strict=False)},
        "peaks": dict(zip(names, heard.peaks[1:], strict=False)),
        "idle": idle,
        "peak": max(heard.peaks),
        "opened": max(heard.opened.values(), default=0),
        "files": len(heard.opened),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
