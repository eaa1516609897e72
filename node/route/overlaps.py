"""Rules that would treat the same received object differently for one destination: only one of them is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from node.model import RECEIVED
from node.route.rule import Rule
from node.route.values import squeeze
from node.route.when import Line


def disagreements(rules: Sequence[Rule]) -> Iterator[str]:
    """A sentence for each two rules that do, unless their conditions show that no object suits both."""
    sending = [(rule, send) for rule in rules for send in rule.sends if send.what == RECEIVED]
    for (one, first), (two, second) in combinations(sending, 2):
        both = sorted(set(first.to) & set(second.to))
        if both and one is not two and first.treatment != second.treatment and not apart(one, two):
            yield (
                f"{two.place.file}:{second.line}: {', '.join(both)} gets an object once: where rules {one.name} and "
                f"{two.name} both fit it goes as the first of them says, and they change it differently"
            )


def apart(one: Rule, two: Rule) -> bool:
    """Whether a line of each asks for values that no object can have both."""
    wanted = _fixed(one)
    return any(name in wanted and not wanted[name] & texts for name, texts in _fixed(two).items())


def _fixed(rule: Rule) -> dict[str, frozenset[str]]:
    """Name → the only values that the rule takes, of those lines that say as much."""
    found: dict[str, frozenset[str]] = {}
    for line in rule.when.lines:
        if not isinstance(line, Line) or line.attribute.several or line.condition.some:
            continue
        for test in line.condition.tests:
            if test.op in ("equals", "one_of"):
                found[line.name] = frozenset(squeeze(str(o[0])) for o in test.operands if o)
    return found
