"""`seal:` of the site file and of a peer."""

from __future__ import annotations

from collections.abc import Mapping

from node.settings.terms import fields, get
from node.settings.values import SealLine, SealPolicy
from node.shape import Node, Shaper

POLICY_KEYS = ("quiet_for", "on_release", "settle", "attention_after")


def policy(shaper: Shaper, node: Node, given: Mapping[str, Node]) -> SealPolicy:
    """What one line says; what it does not say has its default."""
    found = SealPolicy(
        quiet_for=get(given, "quiet_for", shaper.duration, SealPolicy.quiet_for),
        on_release=get(given, "on_release", shaper.yes_no, SealPolicy.on_release),
        settle=get(given, "settle", shaper.duration, SealPolicy.settle),
        attention_after=get(given, "attention_after", shaper.duration, SealPolicy.attention_after),
    )
    if not found.quiet_for:
        shaper.wrong(given.get("quiet_for", node), "quiet_for must be longer than 0 s")
    return found


def read_seal(shaper: Shaper, node: Node) -> tuple[SealLine, ...]:
    """The lines of `seal:`; the last one must fit every series."""
    lines: list[SealLine] = []
    for entry in node.items:
        if lines and lines[-1].when is None:
            shaper.wrong(entry, "this line is never reached: the one before it has no when")
        given = fields(shaper, entry, ("when", *POLICY_KEYS))
        when = given.get("when")
        if when is not None and not when.is_mapping:
            shaper.wrong(when, "expected a mapping of conditions such as {Modality: US}")
        lines.append(SealLine(when, policy(shaper, entry, given)))
    if not lines or lines[-1].when is not None:
        shaper.wrong(node, "the last line under seal must have no when, such as {quiet_for: 60 s}")
    return tuple(lines)
