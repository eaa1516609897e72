"""How an entry under `send` names where it goes: peers, or one of several that share the work."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from node.shape import Node, Shaper, nearest

BY = {
    "patient": "all of a patient goes to the same peer",
    "study": "all of a study goes to the same peer",
}
"""What stays together where peers share the work, with a sentence for editors."""


@dataclass(frozen=True, slots=True)
class Share:
    """Peers of which each gets a part of what is sent."""

    peers: tuple[str, ...]
    by: str
    """`patient` or `study`: what stays together."""

    def ranked(self, key: str) -> tuple[str, ...]:
        """The peers in the order in which they are to get what *key* stands for.

        Rendezvous hashing (Thaler and Ravishankar 1998): each key has its own order of the peers, so that one that
        is added or away moves only what it gets or got, and nothing between the others.
        """

        def weight(peer: str) -> bytes:
            return hashlib.sha256(f"{peer}\0{key}".encode()).digest()

        return tuple(sorted(self.peers, key=weight, reverse=True))

    def said(self) -> str:
        """In words, for reasons."""
        return f"{', '.join(self.peers)} share by {self.by}"


def parse_to(node: Node, peers: Mapping[str, bool], shaper: Shaper) -> tuple[tuple[str, ...], Share | None]:
    """`to:`: the peers that are named, and how they share where they do; mistakes are noted in *shaper*."""
    if not node.is_mapping:
        return parse_peers(node, peers, shaper), None
    fields = shaper.fields(node, ("share", "by"), ("share",))
    names = parse_peers(fields["share"], peers, shaper) if "share" in fields else ()
    by = shaper.choice(fields["by"], tuple(BY), "patient") if "by" in fields else "patient"
    if "share" in fields and len(names) == 1:
        shaper.wrong(fields["share"], f"{names[0]} alone shares with nobody; say to: {names[0]}")
    return names, Share(names, by) if names else None


def parse_peers(node: Node, peers: Mapping[str, bool], shaper: Shaper) -> tuple[str, ...]:
    """One peer or a list of them, each of which can receive."""
    found: list[str] = []
    for item in node.items:
        name = shaper.text(item)
        if wrong := _no_peer(name, found, peers):
            shaper.wrong(item, wrong)
        found.append(name)
    if not found:
        shaper.wrong(node, "to: names no peer")
    return tuple(name for name in found if name)


def _no_peer(name: str, before: Collection[str], peers: Mapping[str, bool]) -> str:
    if name in before:
        return f"{name} is named twice"
    if name and name not in peers:
        known = ", ".join(sorted(peer for peer, receives in peers.items() if receives)) or "none"
        return f"there is no peer {name} in the site file{nearest(name, peers)} (can receive: {known})"
    if name and not peers[name]:
        return f"{name} cannot receive: the site file gives it no address"
    return ""
