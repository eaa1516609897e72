"""Rules that would treat the same received object differently for one destination: only one of them is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from node.model import RECEIVED
from node.route.impossible import apart, lines_together
from node.route.rule import Rule


def disagreements(rules: Sequence[Rule]) -> Iterator[str]:
    """A sentence for each two rules that do, unless their conditions show that no object suits both."""
    sending = [(rule, send) for rule in rules for send in rule.sends if send.what == RECEIVED]
    treated = {send.treatment for _, send in sending}
    if len(treated) < 2:
        return
    asked = {rule.name: lines_together(rule) for rule, _ in sending}
    for (one, first), (two, second) in combinations(sending, 2):
        if first.treatment == second.treatment or one is two:
            continue
        both = sorted(set(first.to) & set(second.to))
        if both and not apart(asked[one.name], asked[two.name]):
            yield (
                f"{two.place.file}:{second.at}: {', '.join(both)} gets an object once: where rules {one.name} and "
                f"{two.name} both fit it goes as the first of them says, and they change it differently"
            )
