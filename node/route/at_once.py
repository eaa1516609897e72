"""Which rules send an object as it arrives, asked once for all objects that say the same under what rules ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.facts import gather
from node.model import Cell
from node.route.aggregates import CLOCK, Context, columns_of
from node.route.match import judge_immediate
from node.route.rule import Rule

_MOST = 4096
"""Different objects that are remembered; beyond, all are forgotten and asked again."""

Key = tuple[Cell | bool | None, ...]


class AtOnce:
    """The immediate rules of a rule set, with what they said of objects like the next one.

    A slice of a series rarely differs from the one before in what the rules ask for, and a site has dozens of
    rules: judging them anew for each of a thousand slices would cost more than all else that is done with one.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = _deciding(rules)
        names = frozenset[str]().union(*(rule.attributes for rule in self._rules))
        self._names = sorted(columns_of(names))
        self._sequences = [f"{name}[" for name in self._names if name.endswith("Sequence")]
        self._timeless = CLOCK.isdisjoint(names)
        self._known: dict[Key, tuple[Rule, ...]] = {}

    def rules_for(self, attributes: Mapping[str, Cell], context: Context) -> tuple[Rule, ...]:
        """The rules that send an object with these attributes now."""
        if not self._rules:
            return ()
        if not self._timeless:
            return self._judged(attributes, context)
        key = (
            *(attributes.get(name) for name in self._names),
            *(any(path.startswith(inside) for path in attributes) for inside in self._sequences),
        )
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[key] = self._judged(attributes, context)
        return known

    def _judged(self, attributes: Mapping[str, Cell], context: Context) -> tuple[Rule, ...]:
        judged = judge_immediate(self._rules, gather([attributes]), context)
        return tuple(one.rule for one in judged if one.routes)


def _deciding(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that send at once, and those of their groups: `unless` and `fallback` ask these."""
    at_once = [rule for rule in rules if any(send.immediate for send in rule.sends)]
    groups = {rule.group for rule in at_once if rule.group}
    return tuple(rule for rule in rules if rule in at_once or rule.group in groups)
