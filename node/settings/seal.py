"""`seal:` of the site file and of a peer."""

from __future__ import annotations

from collections.abc import Mapping

from node.settings.terms import fields, get
from node.settings.values import SOURCE, Peer, SealLine, SealPolicy
from node.shape import Node, Shaper, nearest

POLICY_KEYS = (
    "quiet_for", "on_release", "settle", "attention_after", "count_from", "count_patience", "mpps",
)  # fmt: skip
_NOBODY = ("no", "false", "off")


def policy(shaper: Shaper, node: Node, given: Mapping[str, Node]) -> SealPolicy:
    """What one line says; what it does not say has its default."""
    found = SealPolicy(
        quiet_for=get(given, "quiet_for", shaper.duration, SealPolicy.quiet_for),
        on_release=get(given, "on_release", shaper.yes_no, SealPolicy.on_release),
        settle=get(given, "settle", shaper.duration, SealPolicy.settle),
        attention_after=get(given, "attention_after", shaper.duration, SealPolicy.attention_after),
        count_from=get(given, "count_from", lambda item, _: _counter(shaper, item), ""),
        count_patience=get(given, "count_patience", shaper.duration, SealPolicy.count_patience),
        mpps=get(given, "mpps", shaper.yes_no, SealPolicy.mpps),
    )
    if not found.quiet_for:
        shaper.wrong(given.get("quiet_for", node), "quiet_for must be longer than 0 s")
    return found


def _counter(shaper: Shaper, node: Node) -> str:
    name = shaper.text(node).strip()
    return "" if name.lower() in _NOBODY and not node.quoted else name


def check_counters(
    shaper: Shaper, seal: Node | None, peers_node: Node | None, peers: Mapping[str, Peer]
) -> None:
    """`count_from` names who can be asked: a peer with an address, or `source`, each sender that has one."""
    for entry in seal.items if seal is not None else ():
        _check_counter(shaper, entry.fields.get("count_from"), peers, None)
    for name, peer in peers.items():
        own = peers_node.fields[name].fields.get("seal") if peers_node is not None else None
        if own is not None:
            _check_counter(shaper, own.fields.get("count_from"), peers, peer)


def _check_counter(shaper: Shaper, node: Node | None, peers: Mapping[str, Peer], own: Peer | None) -> None:
    if node is None or not node.is_text or not (name := _counter(Shaper(), node)):
        return
    if name == SOURCE:
        if own is not None and not own.receives:
            shaper.wrong(node, f"{own.name} needs ae_title and address to be asked for its counts (C-FIND)")
    elif name not in peers:
        shaper.wrong(
            node,
            f"count_from is source, no, or a peer; there is no peer {name}{nearest(name, (SOURCE, *peers))}",
        )
    elif not peers[name].receives:
        shaper.wrong(node, f"peer {name} needs ae_title and address to be asked for counts (C-FIND)")


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
