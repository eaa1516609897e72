"""seal: when a series counts as complete, and what is written down then."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from node.assemble.claims import Count
from node.assemble.completeness import Policy, gaps
from node.facts import gather
from node.flow.parts import Parts
from node.route.weighing import holds
from node.settings import SOURCE, SealPolicy
from node.store import intake
from node.store.database import note
from node.words import counted


def seal_policy(parts: Parts, series_id: int) -> Policy:
    """The first line of `seal` that fits the series' first object, with what the peer's own `seal` gives."""
    found = parts.assembly.series[series_id]
    if found.policy is not None:
        return found.policy
    peer = parts.settings.peers.get(found.peer)
    facts, context = gather(list(found.members.values())[:1]), parts.context()
    fits = (policy for when, policy in parts.seal_lines if when is None or holds(when, facts, context))
    chosen = next(fits, SealPolicy())
    if peer and peer.seal:
        chosen = replace(chosen, **{key: getattr(peer.seal, key) for key in peer.seal_given})
    counter = _counter(parts, chosen, found.peer)
    found.claims.count = Count(counter) if counter else None
    found.policy = Policy(
        chosen.quiet_for, chosen.on_release, chosen.settle, chosen.attention_after, chosen.count_patience,
        counter, chosen.mpps,
    )  # fmt: skip
    return found.policy


def _counter(parts: Parts, chosen: SealPolicy, peer: str) -> str:
    """The peer that is asked for a count: one that has an address, so that it can be."""
    name = peer if chosen.count_from == SOURCE else chosen.count_from
    asked = parts.settings.peers.get(name)
    return name if asked is not None and asked.receives else ""


def attention_at(parts: Parts, series_id: int) -> float:
    """Monotonic seconds from which an open series is shown."""
    opened = parts.assembly.series[series_id].opened
    return opened + seal_policy(parts, series_id).attention_after.total_seconds()


def seal(tx: Connection, parts: Parts, series_id: int, reason: str, missing: str = "") -> None:
    """Receiving → sealed: from here on this revision never changes. *missing*: what others say should be here."""
    found = parts.assembly.close(series_id)
    facts = found.facts()
    incomplete = "; ".join(why for why in (missing, gaps(facts) or _removed(tx, series_id)) if why)
    members = tuple(found.members)
    if intake.seal_series(tx, series_id, reason, incomplete, members=members, facts=facts, now=parts.now()):
        more = incomplete.removeprefix(missing).removeprefix("; ")  # the reason has the other words already
        detail = f"{counted(len(members), 'object')}: {reason}" + (f"; {more}" if more else "")
        note(tx, parts.now(), "series_sealed", detail, series_id=series_id)


def _removed(tx: Connection, series_id: int) -> str:
    """Why a late revision is not whole: retention has removed what it should begin with.

    Results over the rest must not take the place of those over all (promise 5); sent again as a whole it is.
    """
    count = intake.removed_before(tx, series_id)
    return f"{counted(count, 'object')} of earlier revisions are not kept any more" if count else ""
