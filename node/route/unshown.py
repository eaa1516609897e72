"""Results that nobody would see: a destination whose users are shown none of a rule's forms of a result."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from node.model import KIND_OF, RECEIVED, OperatorSpec
from node.route.rule import Rule

Shows = Mapping[str, Collection[str]]
"""Destination → the kinds of objects (`KIND_OF`) that it shows; one that shows everything is not named."""


def unshown(rules: Sequence[Rule], specs: Mapping[str, OperatorSpec], shows: Shows) -> Iterator[str]:
    """A sentence for each result that goes where it is not shown."""
    for rule in rules:
        made = {step.name: KIND_OF.get(specs[step.operator].returns, "") for step in rule.steps}
        for send in rule.sends:
            kinds = send.forms or (made.get(send.what, ""),)
            for to in send.to if send.what != RECEIVED else ():
                if to in shows and not set(kinds) & set(shows[to]):
                    yield (
                        f"{rule.place.file}:{send.at}: {to} shows no {' or '.join(kinds)} (`shows` in the site "
                        f"file), so nobody sees {send.what} there; add as: picture, or send it elsewhere"
                    )
