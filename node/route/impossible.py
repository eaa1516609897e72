"""Rules that can never match: conditions that contradict each other, found without an image.

Only what is certain is said. What stands under `use` and under `when` holds for the same images, so both count
together; within `any_of` one block that can hold is enough, and a block of `none_of` that always holds is too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal

from node.model import Value
from node.route.conditions import Condition, Test, satisfied
from node.route.keywords import Attribute
from node.route.rule import Rule
from node.route.values import WEEKDAYS, Comparable, Kind, equal, order, stored
from node.route.when import Group, Line, When

_NEEDS_VALUE = frozenset(
    {"equals", "one_of", "matches", "at_least", "at_most", "between", "has_all", "has_any", "excludes"}
)

Together = dict[str, list[Line]]
"""Name → the lines about it that must hold of the same value."""


def contradictions(rule: Rule) -> Iterator[tuple[Line | Group, str]]:
    """The line at which a contradiction shows, and a sentence."""
    yield from _clashes((rule.use, rule.when), f"rule {rule.name} never matches")
    for one in rule.study.inputs if rule.study is not None else ():
        yield from _clashes(
            (one.use, one.when), f"no series is ever the input {one.name} of rule {rule.name}"
        )


def _clashes(blocks: Sequence[When], so: str) -> Iterator[tuple[Line | Group, str]]:
    together = _together(blocks)
    for name, lines in together.items():
        if impossible(lines[0].attribute, conjunction(lines)):
            yield lines[-1], f"{_asked(lines)} cannot hold at once, so {so} ({name})"
    for group in (line for block in blocks for line in block.lines if isinstance(line, Group)):
        if (
            group.name == "any_of"
            and group.blocks
            and all(_excluded(block.lines, together) for block in group.blocks)
        ):
            yield group, f"nothing under any_of can hold beside the other lines, so {so}"
        if group.name == "none_of" and any(_implied(block.lines, together) for block in group.blocks):
            yield group, f"none_of rules out what the other lines ask for, so {so}"


def lines_together(rule: Rule) -> Together:
    """Every line that holds for each image the rule works on."""
    return _together((rule.use, rule.when))


def _together(blocks: Sequence[When]) -> Together:
    found: Together = {}
    for block in blocks:
        for line in block.lines:
            if isinstance(line, Line):
                found.setdefault(line.name, []).append(line)
    return found


def conjunction(lines: Sequence[Line]) -> Condition:
    """All of them as one condition on one value; what only some image must be goes with what all must be."""
    conditions = [line.condition for line in lines]
    some = [c.some for c in conditions if c.some is not None]
    tests = tuple(test for c in (*conditions, *some[:1]) for test in c.tests)
    groups = tuple(group for c in (*conditions, *some[:1]) for group in c.groups)
    return Condition(tests, groups)


def impossible(attribute: Attribute, condition: Condition) -> bool:
    """No value, and no absence either, can satisfy the condition."""
    ops = {test.op for test in condition.tests}
    if "absent" in ops and ops & (_NEEDS_VALUE | {"present"}):
        return True
    candidates = _candidates(attribute, condition.tests)
    if candidates is not None:
        return not any(satisfied(condition, attribute, value) for value in candidates)
    return _parts_clash(condition.tests) or _bounds_clash(condition.tests)


def _candidates(attribute: Attribute, tests: Sequence[Test]) -> list[Value | None] | None:
    """All values that are worth trying; None where there are too many to list."""
    exact = next((test for test in tests if test.op in ("equals", "one_of")), None)
    if exact is not None:
        found = [tuple(_as_header(attribute.kind, part) for part in operand) for operand in exact.operands]
        return None if any("" in value for value in found) else [value for value in found if value]
    few = {Kind.YES_NO: ("yes", "no"), Kind.WEEKDAY: WEEKDAYS}.get(attribute.kind, attribute.choices)
    return [None, *((word,) for word in few)] if few else None


def _as_header(kind: Kind, part: Comparable) -> str:
    """A value as a header would hold it; empty where that would not be read as the same."""
    text = (
        format(part, "f") if isinstance(part, Decimal)
        else part.isoformat() if isinstance(part, (datetime, time, date))
        else str(part)
    )  # fmt: skip
    found = stored(kind, text)
    return text if found is not None and equal(kind, found, part) else ""


def _parts_clash(tests: Sequence[Test]) -> bool:
    """A multi-valued attribute is to have what it is not to have."""
    out = {operand for test in tests if test.op == "excludes" for operand in test.operands}
    wanted = any(out & set(test.operands) for test in tests if test.op == "has_all")
    left = any(set(test.operands) <= out for test in tests if test.op == "has_any" and test.operands)
    return wanted or left


def _bounds_clash(tests: Sequence[Test]) -> bool:
    """The largest lower bound is above the smallest upper one."""
    low = [t.operands[0][0] for t in tests if t.op in ("at_least", "between") and t.operands]
    high = [t.operands[-1][0] for t in tests if t.op in ("at_most", "between") and t.operands]
    if any(isinstance(bound, time) for bound in (*low, *high)):  # over midnight everything is possible
        return False
    return any(order(a, b) == 1 for a in low for b in high)


def _excluded(lines: Sequence[Line | Group], together: Mapping[str, Sequence[Line]]) -> bool:
    """A block that cannot hold beside what must hold anyway."""
    return any(
        isinstance(line, Line)
        and line.condition.some is None
        and impossible(line.attribute, conjunction([*together.get(line.name, ()), line]))
        for line in lines
    )


def _implied(lines: Sequence[Line | Group], together: Mapping[str, Sequence[Line]]) -> bool:
    """A block that holds for every value that the other lines leave."""
    return bool(lines) and all(
        isinstance(line, Line) and line.condition.some is None and _always(line, together.get(line.name, ()))
        for line in lines
    )


def _always(line: Line, beside: Sequence[Line]) -> bool:
    asked = conjunction(beside)
    candidates = _candidates(line.attribute, asked.tests) if beside else None
    if candidates is None:
        return False
    left = [value for value in candidates if satisfied(asked, line.attribute, value)]
    return bool(left) and all(satisfied(line.condition, line.attribute, value) for value in left)


def _asked(lines: Sequence[Line]) -> str:
    return " and ".join(dict.fromkeys(line.text for line in lines))


def apart(first: Together, second: Together) -> bool:
    """No series can satisfy both: some attribute is asked to be two different things."""
    small, large = sorted((first, second), key=len)
    return any(
        name in large and impossible(lines[0].attribute, conjunction([*lines, *large[name]]))
        for name, lines in small.items()
    )
