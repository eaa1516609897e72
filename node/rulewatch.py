"""Rule files that change while the node runs: looked at, proved beside the loop, handed over when they pass.

Names, sizes, inodes and times are looked at every second, and the texts themselves where one of these changed and
every half minute: that works on any file system, on one with coarse times, and where Kubernetes swaps the symlink
behind a ConfigMap. A set is judged when two looks in a row found the same texts, so that a file still being
written is not taken. All of it happens in a thread of its own, because a folder on a network may hang; what passes
waits in a queue until the conductor takes it between two transactions, all rules at once.

What is under way keeps the rule it began with: a run holds its plan, a delivery its destination.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from node import rulebook
from node.errors import Misconfigured
from node.route.rules import RuleSet, digest_of, read_folder

LOOK = 1.0
"""Seconds between two looks."""
_READ_ANYWAY = 30.0
"""Seconds after which the texts are read although nothing seems to have changed."""

Prove = Callable[[Mapping[str, str]], RuleSet]


@dataclass(frozen=True)
class Outcome:
    """What became of a set of files that was found: its rules, or why they are not used."""

    files: Mapping[str, str]
    rules: RuleSet | None
    problem: str = ""


@dataclass(frozen=True)
class _Texts:
    """What one look read."""

    files: Mapping[str, str]
    problem: str = ""


class Looks:
    """The looks and what follows from them, one call each: no clock and no thread of its own."""

    def __init__(self, folder: Path, in_use: RuleSet, problem: str, prove: Prove) -> None:
        self.folder, self.prove = folder, prove
        self.digest = in_use.digest
        self.in_use = bool(in_use.rules)
        self.problem = problem
        self._signs: object = None
        self._read_at = float("-inf")
        self._last: _Texts | None = None
        self._judged: _Texts | None = None

    def look(self, now: float) -> Outcome | None:
        """Look once; what was decided, where something was."""
        signs = _signs_of(self.folder)
        if signs == self._signs and self._last == self._judged and now - self._read_at < _READ_ANYWAY:
            return None
        self._signs, self._read_at = signs, now
        found, before = self._read(), self._last
        self._last = found
        if found != before or found == self._judged:  # still being written, or judged already
            return None
        self._judged = found
        return self._judge(found)

    def _read(self) -> _Texts:
        try:
            files = read_folder(self.folder)
            rulebook.refuse_none(files, self.in_use, self.folder)
        except Misconfigured as error:
            return _Texts({}, str(error))
        return _Texts(files)

    def _judge(self, found: _Texts) -> Outcome | None:
        if found.problem:
            return self._refused(found.files, found.problem)
        same = digest_of(found.files) == self.digest
        if same and not self.problem:
            return None
        try:
            rules = self.prove(found.files)
        except Misconfigured as error:
            return self._refused(found.files, str(error))
        self.digest, self.in_use, self.problem = rules.digest, bool(rules.rules), ""
        return Outcome(found.files, rules)

    def _refused(self, files: Mapping[str, str], problem: str) -> Outcome | None:
        if problem == self.problem:  # the start has told it
            return None
        self.problem = problem
        return Outcome(files, None, problem)


def _signs_of(folder: Path) -> object:
    """What tells at a glance that something may have changed."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return error.errno
    signs = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            signs.append((path.name, error.errno or 0, 0, 0))
        else:
            signs.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(signs)


class RuleWatch:
    """`Looks` in a thread, and what it found in a queue."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._found: SimpleQueue[Outcome] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rulewatch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look under way is not waited for."""
        self._stop.set()

    def outcomes(self) -> list[Outcome]:
        """What was decided since this was asked last."""
        found = []
        while True:
            try:
                found.append(self._found.get_nowait())
            except Empty:
                return found

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            outcome = self._looks.look(time.monotonic())
            if outcome is not None:
                self._found.put(outcome)
