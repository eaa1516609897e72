"""What only shows over all rules: names that count once, groups, and rules that send at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.route.rule import Rule
from node.route.when import Line
from node.shape import Node, Shaper, nearest


def needs_the_series(rule: Rule) -> tuple[Line, ...]:
    """The lines of `when` that one object alone cannot answer."""
    return tuple(
        line for line in rule.when.conditions() if line.attribute.whole_series or line.condition.some
    )


def check_together(rules: Sequence[Rule], shaper: Shaper) -> None:
    """Names once, `unless` inside the group, no circles; mistakes are noted in *shaper*."""
    by_name: dict[str, Rule] = {}
    for rule in rules:
        at = Node(rule.place, "")
        first = by_name.setdefault(rule.name, rule)
        if first is not rule and rule.name:
            shaper.wrong(at, f"there is already a rule {rule.name} at {first.place}; every name counts once")
    for rule in rules:
        _references(rule, by_name, shaper)
        _group_of_immediate(rule, rules, shaper)


def _references(rule: Rule, by_name: Mapping[str, Rule], shaper: Shaper) -> None:
    at = Node(rule.place, "")
    for name in rule.unless if rule.group else ():
        other = by_name.get(name)
        in_group = [r.name for r in by_name.values() if r.group == rule.group and r is not rule]
        if other is None or other.group != rule.group:
            shaper.wrong(
                at,
                f"rule {rule.name}: unless: {name} is no rule of group {rule.group}{nearest(name, in_group)}",
            )
        elif other.fallback:
            shaper.wrong(
                at, f"rule {rule.name}: unless: {name} is a fallback, which already waits for the others"
            )
        elif _leads_to(other, rule.name, by_name):
            shaper.wrong(at, f"rule {rule.name}: unless: {name} goes round in a circle")


def _leads_to(rule: Rule, wanted: str, by_name: Mapping[str, Rule]) -> bool:
    waiting, met = [rule.name], set()
    while waiting:
        name = waiting.pop()
        if name == wanted:
            return True
        if name not in met and name in by_name:
            met.add(name)
            waiting.extend(by_name[name].unless)
    return False


def _group_of_immediate(rule: Rule, rules: Sequence[Rule], shaper: Shaper) -> None:
    """A rule that sends at once must know at once whether another rule applies."""
    if not any(send.immediate for send in rule.sends):
        return
    others = [r for r in rules if r.name in rule.unless or (rule.fallback and r.group == rule.group)]
    for other in others:
        late = needs_the_series(other)
        if late and other is not rule and rule.group:
            key = "fallback" if rule.fallback else "unless"
            shaper.wrong(
                Node(rule.place, ""),
                f"rule {rule.name} sends objects as they arrive, but {key} waits for {other.name}, which "
                f"asks for {late[0].name} of the whole series; add mode: sealed to its send",
            )
