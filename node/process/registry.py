"""Which operators are installed: entry points of the group `node.operators`, each judged alone.

Loading an operator runs its author's code. So the conductor never does it: it reads the answer of
`python -m node.worker --specs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from node.errors import Misconfigured
from node.model import OperatorSpec
from node.process.installed import GROUP, OURS
from node.process.signature import spec_of
from node.shape import nearest

Operator = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Found:
    """The operators that can be used, and a sentence for each one that cannot."""

    specs: Mapping[str, OperatorSpec]
    mistakes: tuple[str, ...]


def discover(points: Iterable[EntryPoint] | None = None) -> Found:
    """Load and judge every operator of *points* (default: the installed); a broken one hides no other."""
    return _installed() if points is None else _discovered(_by_name(points))


@cache
def _installed() -> Found:
    """What is installed, judged once per process: metadata of every package is read and parsed for it."""
    return _discovered(_installed_points())


@cache
def _installed_points() -> dict[str, list[EntryPoint]]:
    return _by_name(entry_points(group=GROUP))


def _discovered(by_name: Mapping[str, list[EntryPoint]]) -> Found:
    specs: dict[str, OperatorSpec] = {}
    mistakes: list[str] = []
    for name, same in sorted(by_name.items()):
        try:
            specs[name] = _judge(name, same)
        except Misconfigured as error:
            mistakes.extend(error.mistakes)
    return Found(specs, tuple(mistakes))


def specs() -> dict[str, OperatorSpec]:
    """The usable operators by name."""
    return dict(discover().specs)


def load(name: str, points: Iterable[EntryPoint] | None = None) -> Operator:
    """The function behind *name*. Raises Misconfigured where there is none or it cannot be used."""
    known = _installed_points() if points is None else _by_name(points)
    if name not in known:
        raise Misconfigured(f"no operator {name} is installed{nearest(name, known)}")
    _judge(name, known[name])
    return _import(name, known[name][0])


def _by_name(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Entry points by name; the same one met twice (two metadata folders of one package) counts once."""
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in points:
        if (point.value, _owner(point)) not in [(p.value, _owner(p)) for p in found[point.name]]:
            found[point.name].append(point)
    return dict(found)


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _judge(name: str, same: list[EntryPoint]) -> OperatorSpec:
    owners = [_owner(point) or "an unknown package" for point in same]
    if len(same) > 1:
        raise Misconfigured(
            f"operator {name} is registered {len(same)} times, by {', '.join(owners)}: none is used"
        )
    if owners[0] != OURS and "." not in name:
        raise Misconfigured(
            f"operator {name} of {owners[0]}: names without a dot are the node's own; "
            f"register it as {owners[0].replace('-', '_')}.{name}"
        )
    point = same[0]
    version = point.dist.version if point.dist else ""
    return spec_of(name, _import(name, point), _owner(point), version)


def _import(name: str, point: EntryPoint) -> Operator:
    try:
        function: Operator = point.load()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # an author's module may do anything at import, SystemExit included
        raise Misconfigured(f"operator {name} ({point.value}) cannot be imported: {_said(error)}") from error
    return function


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
