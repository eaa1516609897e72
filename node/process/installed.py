"""What is installed that can change what operators say of themselves; found out without loading any of it.

Operators are asked in a process of their own, which takes most of a second. Their answer is kept in the data
folder and holds while the fingerprint does: versions, and size and time of every file that operators come from.
Nothing is kept where that would not be all: of plugins that are being written (installed editable), and of an
answer with mistakes, which a person is about to mend, perhaps in a way that is not seen here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

from node import __version__

GROUP = "node.operators"
OURS = "pacsnode"
FILE = "operators.json"
"""In the data folder; who removes it loses a second."""
_LIBRARIES = ("site-packages", "dist-packages")


class _Unknowable(Exception):
    """A change could go unseen."""


def fingerprint() -> str:
    """Another value whenever the answer may be another one; empty where that cannot be said."""
    points = list(entry_points(group=GROUP))  # reads what every package says of itself: once
    tops = sorted({point.module.partition(".")[0] for point in points})
    try:
        seen = {
            "node": __version__,
            "python": [sys.version, sys.executable],
            "operators": sorted(map(_said, points)),
            "files": {top: list(_files(top)) for top in tops},
            "libraries": list(_libraries(points)),
        }
    except (_Unknowable, OSError, ImportError, ValueError):
        return ""
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def _said(point: EntryPoint) -> list[str]:
    dist = point.dist
    if dist is None or (dist.name != OURS and _is_editable(dist)):
        raise _Unknowable  # ours is in one package, all of whose files are looked at
    return [point.name, point.value, dist.name, dist.version]


def _is_editable(dist: Distribution) -> bool:
    """Installed where its author works on it (PEP 610): any file there may matter, and it may be unfinished."""
    text = dist.read_text("direct_url.json")
    found = json.loads(text) if text else {}
    return bool(found.get("dir_info", {}).get("editable"))


def _files(top: str) -> Iterator[tuple[str, int, int]]:
    """Each file of a package or module, with size and time. Finding what is at the top level loads nothing."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise _Unknowable
    roots = list(spec.submodule_search_locations or ())
    if not roots and spec.origin is None:
        raise _Unknowable
    _only_one(top, Path((roots or [str(spec.origin)])[0]))
    for root in sorted(roots):
        for folder, inner, names in os.walk(root):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            for name in sorted(names):
                yield _stamp(Path(folder) / name)
    if not roots:
        yield _stamp(Path(str(spec.origin)))


def _only_one(top: str, found: Path) -> None:
    """The worker looks in its working directory first, this process perhaps not: nothing else may lie there."""
    for here in (Path.cwd() / top, Path.cwd() / f"{top}.py"):
        if here.exists() and not here.samefile(found):
            raise _Unknowable


def _libraries(points: Iterable[EntryPoint]) -> Iterator[tuple[str, int]]:
    """Folders with installed packages: their time is another one after each package that came, went or changed.

    What an operator imports may be in any of them.
    """
    roots = {Path(str(point.dist.locate_file(""))) for point in points if point.dist}
    roots |= {path for path in map(Path, sys.path) if path.name in _LIBRARIES}
    for root in sorted(roots):
        if root.is_dir():
            yield str(root), root.stat().st_mtime_ns


def _stamp(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns


def recall(data: Path, wanted: str) -> dict[str, Any] | None:
    """The answer that was kept under this fingerprint; None where there is none, or its file is damaged."""
    try:
        kept = json.loads((data / FILE).read_bytes())
        whole = kept["fingerprint"] == wanted != "" and kept["digest"] == _digest(kept["answer"])
        return dict(kept["answer"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keep(data: Path, asked_under: str, answer: Mapping[str, Any]) -> None:
    """Keep an answer for the next one who asks, unless something was installed meanwhile.

    Several may write at once: each writes a file of its own and renames it. It need not outlive a power cut. Where
    it cannot be written, the next one asks again.
    """
    if not asked_under or answer["mistakes"] or fingerprint() != asked_under:
        return
    kept = {"fingerprint": asked_under, "digest": _digest(answer), "answer": answer}
    with contextlib.suppress(OSError):
        fd, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=data)
        part = Path(name)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            part.replace(data / FILE)
        except OSError:
            part.unlink()
            raise


def _digest(answer: Any) -> str:
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()
