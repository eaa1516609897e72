"""`prefer`: which of several series is the input, and whether one that is still arriving could be it instead. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key
from typing import Generic, Protocol, TypeVar

from node.facts import Facts
from node.model import Value
from node.route.aggregates import Context, geometry, narrowed, needs_geometry, with_aggregates
from node.route.conditions import Outcome
from node.route.inputs import Input, Preference
from node.route.keywords import Attribute
from node.route.values import Comparable, order, stored
from node.route.weighing import Weighed, weigh
from node.route.when import Line, When

T = TypeVar("T")


class _Series(Protocol):
    """What decides where `prefer` does not."""

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        ...

    @property
    def number(self) -> int | None:
        """Series Number."""
        ...

    @property
    def given(self) -> Mapping[str, Value] | None:
        """Facts about it as a whole, of a `try:` case."""
        ...


@dataclass(frozen=True)
class Ranked(Generic[T]):
    """A series that fits, with the images that are used of it, and why it stands where it does."""

    facts: Facts
    candidate: _Series
    of: T
    why: str = ""


def ranked(prefer: Sequence[Preference], series: Sequence[Ranked[T]], context: Context) -> list[Ranked[T]]:
    """Best first; the first one says why it is."""
    if len(series) < 2:
        return [replace(one, why="the only one that fits") for one in series]

    def compare(one: Ranked[T], other: Ranked[T]) -> int:
        return _compared(prefer, one, other, context)[0]

    found = sorted(series, key=cmp_to_key(compare))
    _, why = _compared(prefer, found[0], found[1], context)
    return [replace(found[0], why=f"of {len(found)} that fit: {why}"), *found[1:]]


def could_beat(prefer: Sequence[Preference], best: Ranked[T], rival: Ranked[T], context: Context) -> bool:
    """Whether a series of which only some images are there may come before *best*; unknown is maybe."""
    if not rival.facts.size:
        return True
    for one in prefer:
        attribute = one.order
        if attribute is not None:
            if attribute.whole_series or value_of(one, rival, context) is None:
                return True
        elif _needs_all(one.when):
            return True
        sign = _by(one, rival, best, context)
        if sign:
            return sign < 0
    return _by_number(rival, best) < 0


def could_fit(one: Input, found: Weighed) -> tuple[bool, str]:
    """Whether a series may be an input once it is whole, by what is there of it; and what speaks against it.

    A condition must hold for every image, so one that fails for some of them fails for good; what can only
    be said of the whole series is left open.
    """
    if not found.used:
        return True, "more of its images may come"
    alone = When(tuple(line for line in one.when.lines if not (isinstance(line, Line) and _of_all(line))))
    for line, clause in zip(one.when.lines, found.clauses[-len(one.when.lines) :], strict=False):
        if line in alone.lines and isinstance(line, Line) and clause.outcome is not Outcome.YES:
            return False, f"{clause.name}: {clause.reason}"
        if line in alone.lines and clause.outcome is Outcome.NO and not _needs_all(When((line,))):
            return False, f"{clause.name}: {clause.reason}"
    return True, "it may fit when it is complete"


def _of_all(line: Line) -> bool:
    return line.attribute.whole_series or line.condition.some is not None


def _needs_all(when: When) -> bool:
    return any(_of_all(line) for line in when.conditions())


def _compared(
    prefer: Sequence[Preference], one: Ranked[T], other: Ranked[T], context: Context
) -> tuple[int, str]:
    """Negative where *one* comes first, and why the first of the two does."""
    for wish in prefer:
        sign = _by(wish, one, other, context)
        if sign:
            return sign, f"{wish.text} decides{_values(wish, (one, other), context)}"
    sign = _by_number(one, other)
    numbers = {one.candidate.number, other.candidate.number}
    why = "the lower Series Number decides" if len(numbers) > 1 else "the Series Instance UID decides"
    return sign, f"{'prefer says the same of them; ' if prefer else ''}{why}"


def _values(wish: Preference, pair: tuple[Ranked[T], Ranked[T]], context: Context) -> str:
    if wish.order is None or wish.order.private:
        return ""
    shown = ["absent" if v is None else str(v) for v in (value_of(wish, one, context) for one in pair)]
    return f" ({' against '.join(shown)})"


def _by(wish: Preference, one: Ranked[T], other: Ranked[T], context: Context) -> int:
    if wish.order is None:
        fits = [_fulfils(wish.when, each, context) for each in (one, other)]
        return int(fits[1]) - int(fits[0])
    first, second = value_of(wish, one, context), value_of(wish, other, context)
    if first is None or second is None:
        return (first is None) - (second is None)
    sign = order(first, second) or 0
    return -sign if wish.largest else sign


def _fulfils(when: When, one: Ranked[T], context: Context) -> bool:
    found = weigh((When(), when), one.facts, context, {}, one.candidate.given)
    return found.outcome is Outcome.YES


def value_of(wish: Preference, one: Ranked[T], context: Context) -> Comparable | None:
    """The value that an order compares: of all its images the smallest, or the largest; None where it has none."""
    attribute = wish.order
    assert attribute is not None  # noqa: S101 - asked of orders only
    best: Comparable | None = None
    for value in _stated(attribute, one, context):
        if best is None or (order(value, best) or 0) * (-1 if wish.largest else 1) < 0:
            best = value
    return best


def _stated(attribute: Attribute, one: Ranked[T], context: Context) -> Iterator[Comparable]:
    names = frozenset((attribute.name,))
    needed = narrowed(one.facts, names)
    places = geometry(needed) if needs_geometry(names) else {}
    whole = with_aggregates(needed, context, places, one.candidate.given)
    for seen in whole.seen(attribute.name):
        for text in seen.value or ():
            found = stored(attribute.kind, text)
            if found is not None and order(found, found) is not None:
                yield found


def _by_number(one: Ranked[T], other: Ranked[T]) -> int:
    """The lower Series Number first, then the Series Instance UID: always the same one."""
    keys = [(c.number is None, c.number or 0, c.series_uid) for c in (one.candidate, other.candidate)]
    return -1 if keys[0] < keys[1] else int(keys[0] > keys[1])
