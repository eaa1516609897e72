"""A condition on one attribute, and its three-valued verdict over all the values a series holds.

Holds for every value: yes. For none: no. For some: undecided, which never runs a rule (design §5).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from enum import StrEnum

from node.facts import Seen
from node.model import Value
from node.route.keywords import Attribute
from node.route.values import Comparable, Kind, equal, fits, order, squeeze, stored, uid_name


class Outcome(StrEnum):
    """The verdict over a clause or a rule."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


def all_of(outcomes: Sequence[Outcome]) -> Outcome:
    """No if one is no, yes if all are yes, else undecided."""
    if Outcome.NO in outcomes:
        return Outcome.NO
    return Outcome.UNDECIDED if Outcome.UNDECIDED in outcomes else Outcome.YES


def any_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Yes if one is yes, no if all are no, else undecided."""
    if Outcome.YES in outcomes:
        return Outcome.YES
    return Outcome.UNDECIDED if Outcome.UNDECIDED in outcomes else Outcome.NO


def opposite(outcome: Outcome) -> Outcome:
    """Yes and no swapped; undecided stays."""
    return {Outcome.YES: Outcome.NO, Outcome.NO: Outcome.YES}.get(outcome, outcome)


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison: `at_least`, `one_of`, … with its typed operands."""

    op: str
    operands: tuple[tuple[Comparable, ...], ...] = ()
    """Each a whole value; of several parts only where the user wrote a list for a multi-valued attribute."""

    def canonical(self) -> str:
        """The same text for the same meaning, however it was written."""
        parts = [json.dumps([_plain(part) for part in operand]) for operand in self.operands]
        return f"{self.op}({';'.join(parts if self.op == 'between' else sorted(parts))})"


def _plain(part: Comparable) -> str:
    return f"{float(part):.12g}" if isinstance(part, Decimal) else str(part)


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything asked of one value; all parts must hold."""

    tests: tuple[Test, ...] = ()
    groups: tuple[tuple[str, tuple[Condition, ...]], ...] = ()
    """`not`, `any_of` or `none_of`, each with the conditions below it."""
    some: Condition | None = None
    """Asked of at least one of the values."""

    def canonical(self) -> str:
        """The same text for the same meaning."""
        parts = [test.canonical() for test in self.tests]
        parts += [f"{op}[{'|'.join(sorted(c.canonical() for c in inner))}]" for op, inner in self.groups]
        parts += [f"some[{self.some.canonical()}]"] if self.some else []
        return "&".join(sorted(parts))


def judge(condition: Condition, attribute: Attribute, seen: Sequence[Seen], size: int) -> tuple[Outcome, str]:
    """The verdict over all values *seen* in *size* instances, and the reason in words. Never raises."""
    held = [satisfied(condition, attribute, s.value) for s in seen]
    outcomes = []
    if condition.tests or condition.groups or condition.some is None:
        outcomes.append(_over_all(held))
    if condition.some is not None:
        some = [satisfied(condition.some, attribute, s.value) for s in seen]
        outcomes.append(Outcome.YES if any(some) else Outcome.NO)
    outcome = all_of(outcomes)
    if outcome is Outcome.UNDECIDED:
        return outcome, _split(attribute, seen, held, size)
    return outcome, told(attribute, seen, size)


def _over_all(held: Sequence[bool]) -> Outcome:
    if held and all(held):
        return Outcome.YES
    return Outcome.UNDECIDED if any(held) else Outcome.NO


def satisfied(condition: Condition, attribute: Attribute, value: Value | None) -> bool:
    """Every test holds for one value; None and an empty value are absence."""
    given = value if value is not None and any(part.strip(" \0") for part in value) else None
    return all(_holds(test, attribute, given) for test in condition.tests) and all(
        _group_holds(op, inner, attribute, given) for op, inner in condition.groups
    )


def _group_holds(op: str, inner: Sequence[Condition], attribute: Attribute, value: Value | None) -> bool:
    found = any(satisfied(condition, attribute, value) for condition in inner)
    if op == "any_of":
        return found
    if op == "none_of":
        return not found
    return value is not None and not found  # `not` is a value condition: no on an absent tag


def _holds(test: Test, attribute: Attribute, value: Value | None) -> bool:
    if test.op in ("present", "absent"):
        return (value is None) == (test.op == "absent")
    return value is not None and _TESTS[test.op](attribute.kind, value, test.operands)


Operands = tuple[tuple[Comparable, ...], ...]


def _is(kind: Kind, value: Value, operand: tuple[Comparable, ...]) -> bool:
    return len(value) == len(operand) and all(
        _part_is(kind, part, wanted) for part, wanted in zip(value, operand, strict=True)
    )


def _part_is(kind: Kind, part: str, wanted: Comparable) -> bool:
    found = stored(kind, part)
    return found is not None and equal(kind, found, wanted)


def _one_of(kind: Kind, value: Value, operands: Operands) -> bool:
    return any(_is(kind, value, operand) for operand in operands)


def _among(kind: Kind, value: Value, operand: tuple[Comparable, ...]) -> bool:
    return any(_part_is(kind, part, operand[0]) for part in value)


def _compared(kind: Kind, value: Value, bound: Comparable) -> list[int | None]:
    found = (stored(kind, part) for part in value)
    return [None if part is None else order(part, bound) for part in found]


def _at_least(kind: Kind, value: Value, operands: Operands) -> bool:
    return all(sign is not None and sign >= 0 for sign in _compared(kind, value, operands[0][0]))


def _at_most(kind: Kind, value: Value, operands: Operands) -> bool:
    return all(sign is not None and sign <= 0 for sign in _compared(kind, value, operands[0][0]))


def _between(kind: Kind, value: Value, operands: Operands) -> bool:
    low, high = operands[:1], operands[1:]
    start, end = low[0][0], high[0][0]
    if isinstance(start, time) and isinstance(end, time) and start > end:  # over midnight: 22:00 to 06:00
        return _at_least(kind, value, low) or _at_most(kind, value, high)
    return _at_least(kind, value, low) and _at_most(kind, value, high)


def _matches(kind: Kind, value: Value, operands: Operands) -> bool:
    texts = [squeeze("\\".join(value))]
    if kind is Kind.UID:
        texts += [squeeze(uid_name(part)) for part in value]
    return any(fits(str(pattern), text) for (pattern,) in operands for text in texts)


_TESTS: dict[str, Callable[[Kind, Value, Operands], bool]] = {
    "equals": _one_of,
    "one_of": _one_of,
    "matches": _matches,
    "at_least": _at_least,
    "at_most": _at_most,
    "between": _between,
    "has_all": lambda kind, value, operands: all(_among(kind, value, operand) for operand in operands),
    "has_any": lambda kind, value, operands: any(_among(kind, value, operand) for operand in operands),
    "excludes": lambda kind, value, operands: not any(_among(kind, value, operand) for operand in operands),
}


def shown(attribute: Attribute, value: Value | None) -> str:
    """A value for people: printable, cut to 60 characters; what identifies a person is not shown."""
    if value is None:
        return "absent"
    if not any(part.strip(" \0") for part in value):
        return "empty"
    if attribute.private:
        return "(not shown: identifies the patient)"
    parts = [uid_name(part) for part in value] if attribute.kind is Kind.UID else list(value)
    text = "\\".join(part.strip(" \0") for part in parts)
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= 60 else text[:59] + "…"


def told(attribute: Attribute, seen: Sequence[Seen], size: int) -> str:
    """What all of them say, in words."""
    if not seen:
        return "no image to look at"
    if len(seen) == 1:
        return f"is {shown(attribute, seen[0].value)}"
    return _counted(attribute, seen, size)


def _split(attribute: Attribute, seen: Sequence[Seen], held: Sequence[bool], size: int) -> str:
    """The side with fewer images is the one to look at: `3 of 323 say LOCALIZER`."""
    fit = [s for s, ok in zip(seen, held, strict=True) if ok]
    rest = [s for s, ok in zip(seen, held, strict=True) if not ok]
    if sum(s.count for s in fit) < sum(s.count for s in rest):
        return f"only {_counted(attribute, fit, size)}"
    return _counted(attribute, rest, size)


def _counted(attribute: Attribute, seen: Sequence[Seen], size: int) -> str:
    """Counts first: `3 of 5 say A, 1 of 5 lack it`; at most three values, the rest as a number."""
    most = sorted(seen, key=lambda s: -s.count)
    parts = []
    for s in most[:3]:
        says = "lack it" if s.value is None else f"say {shown(attribute, s.value)}"
        parts.append(f"{s.count} of {size} {says}")
    if len(most) > 3:
        parts.append(f"{sum(s.count for s in most[3:])} say one of {len(most) - 3} other values")
    return ", ".join(parts)
