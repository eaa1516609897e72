"""to_count: which open series another system is asked about (C-FIND), and counted_there: what it answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from node.assemble.assembly import OpenSeries
from node.assemble.claims import Count
from node.flow.parts import Parts
from node.flow.securing import tls_of
from node.send.protocol import Destination
from node.send.queries import TIMEOUTS


def to_count(parts: Parts, now: float, busy: Collection[str]) -> Iterator[tuple[int, str]]:
    """The open series to ask about at the monotonic *now*, and whom; each peer that is not *busy* once."""
    taken = set(busy)
    for series_id, found in parts.assembly.series.items():
        count = found.claims.count
        if count is None or count.peer in taken or found.policy is None:
            continue
        if count.due(found.last, now, found.policy.settle):
            taken.add(count.peer)
            yield series_id, count.peer


def counted_there(parts: Parts, series_id: int, now: float, objects: int | None, error: str) -> bool:
    """An answer, or why there is none; whether that was not known before."""
    count = _count_of(parts.assembly.series.get(series_id))
    if count is None:
        return False
    news = error != count.failed
    count.answer(objects, error, now)
    return news


def _count_of(found: OpenSeries | None) -> Count | None:
    return found.claims.count if found is not None else None


def callable_peer(parts: Parts, name: str) -> Destination | None:
    """How a peer is asked; None where it has no address any more."""
    peer = parts.settings.peers.get(name)
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        return None
    return Destination(
        name=name, host=peer.host, port=peer.port, ae_title=peer.ae_title,
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], timeouts=replace(TIMEOUTS),
        tls=tls_of(parts.settings, peer),
    )  # fmt: skip
