"""Rules that do the same: both send the received objects of one series to one destination, or both make one result.

Neither is a mistake. An object goes to a destination once, however many rules ask for it; but whoever changes the
one rule should know of the other. Two rules that mean the same make the same objects, with the same UIDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from node.model import RECEIVED
from node.route.impossible import Together, apart, lines_together
from node.route.rule import Rule

_NAMED = 3
"""Other rules that one sentence names."""


def overlaps(rules: Sequence[Rule]) -> Iterator[str]:
    """A sentence, with its place, for each rule that does what an earlier one does to the same series."""
    # Two rules over a study may mean the same of different series: what they take is not compared here.
    live = [rule for rule in rules if not (rule.shadow or rule.discard or rule.study is not None)]
    asked = [lines_together(rule) for rule in live]
    sends = [_received_to(rule) for rule in live]
    for later, rule in enumerate(live):
        yield from _same_result(rule, live[:later], asked[later], asked)
        others: dict[str, list[str]] = {}
        for earlier, other in enumerate(live[:later]):
            shared = sends[later] & sends[earlier]
            if not shared or _by_turns(rule, other) or apart(asked[later], asked[earlier]):
                continue
            for to in shared:
                others.setdefault(to, []).append(other.name)
        for to, names in sorted(others.items()):
            rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield (
                f"{rule.place}: rule {rule.name} sends received objects to {to}, and so does "
                f"{', '.join(names[:_NAMED])}{rest} of a series that both match; each object goes there once"
            )


def _same_result(
    rule: Rule, before: Sequence[Rule], mine: Together, asked: Sequence[Together]
) -> Iterator[str]:
    for place, other in enumerate(before if rule.steps else ()):
        if rule.meaning == other.meaning and not _by_turns(rule, other) and not apart(mine, asked[place]):
            yield (
                f"{rule.place}: rule {rule.name} makes what {other.name} makes: the same use, do and texts give the "
                "same objects with the same UIDs; make it one rule with several destinations"
            )
            return


def _received_to(rule: Rule) -> frozenset[str]:
    return frozenset(to for send in rule.sends if send.what == RECEIVED for to in send.to)


def _by_turns(rule: Rule, other: Rule) -> bool:
    """Their group sees to it that only one of them applies."""
    if not rule.group or rule.group != other.group:
        return False
    return rule.fallback != other.fallback or other.name in rule.unless or rule.name in other.unless
