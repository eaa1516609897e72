"""commit: what a destination stored it is asked to commit to (PS3.4 J), and what its answers mean.

Nothing of it marks a destination down: storing goes on whatever becomes of commitment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from node.commitment import DUPLICATE_TRANSACTION, Dialogue, Reference, new_transaction, reason_in_words
from node.flow.parts import Parts
from node.flow.securing import tls_of
from node.flow.transcoding import stored_as
from node.model import DeliveryState
from node.send.protocol import Destination
from node.send.retry import Policy, pause
from node.store import commitments, deliveries, pledges
from node.store.commitments import CommitmentState
from node.store.database import note
from node.words import counted

GATHER = timedelta(seconds=2)
"""So long after it was stored an object waits for others to be asked about together."""
LONGEST_GATHER = timedelta(seconds=30)
"""So long at most while more is being sent."""
ENOUGH, MOST = 200, 1000
"""Objects that are worth a request while more is being sent; objects of one request."""
ROUNDS = 5
"""How often an object is sent again because the destination does not commit to it; then it is parked."""
_REFUSED = Policy(first=timedelta(seconds=10), longest=timedelta(minutes=30))
_AGAIN = Policy(first=timedelta(seconds=30), longest=timedelta(minutes=30))
_REMEMBERED = 12
"""Refusals in a row that count: the pause is the longest long before."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What the sender is to ask."""

    where: Destination
    said: Dialogue


@dataclass(frozen=True, slots=True)
class Sorted:
    """What an answer means for the deliveries it is about."""

    committed: tuple[int, ...] = ()
    failed: tuple[tuple[int, int, int], ...] = ()
    """Delivery, Failure Reason, how often it failed before."""
    again: bool = False
    """Our transaction UID was refused as used before: all the others are asked about again."""
    left: int = 0
    """Not mentioned: they stay asked."""


def sort_answer(pending: Sequence[Any], references: Sequence[Reference]) -> Sorted:
    """Say what became of each pending delivery; what the answer names beyond them is not ours."""
    said = {one.sop_uid: 0 for one in references if not one.failure}
    said |= {one.sop_uid: one.failure for one in references if one.failure}
    mine = [(row, said[row["sop_uid"]]) for row in pending if row["sop_uid"] in said]
    done = tuple(int(row["id"]) for row, failure in mine if not failure)
    failed = tuple(
        (int(row["id"]), failure, int(row["commit_failures"]))
        for row, failure in mine
        if failure not in (0, DUPLICATE_TRANSACTION)
    )
    again = any(failure == DUPLICATE_TRANSACTION for _, failure in mine)
    return Sorted(done, failed, again, len(pending) - len(done) - len(failed))


def commit_due(parts: Parts, to: str, now: datetime) -> datetime | None:
    """When to ask about an object that is stored now; None where the destination does not commit."""
    peer = parts.settings.peers.get(to)
    return now + GATHER if peer is not None and peer.commit is not None else None


def ask_to_commit(tx: Connection, parts: Parts, to: str, under_way: int) -> Asking | None:
    """One request over many objects, under a fresh transaction UID; None while it is better to wait."""
    peer, now = parts.settings.peers.get(to), parts.now()
    if peer is None or peer.commit is None:
        return None
    count, since = commitments.waits(tx, to, now, ENOUGH)
    more = under_way or commitments.gathers(tx, to, now, now + GATHER)
    gathering = more and count < ENOUGH and since is not None and now - since < LONGEST_GATHER
    refused, last = commitments.refusals(tx, to, _REMEMBERED)
    resting = last is not None and last <= now < last + pause(refused, _REFUSED)
    if not count or gathering or resting:
        return None
    found = commitments.gather(tx, to, now, MOST)
    transaction_uid = new_transaction()
    commitments.open_commitment(
        tx, to, transaction_uid, [row["id"] for row in found], now, now + peer.commit.within
    )
    references = tuple(Reference(row["sop_class"] or "", stored_as(row)) for row in found)
    where = Destination(
        name=to, host=peer.commit.host, port=peer.commit.port, ae_title=peer.commit.ae_title,
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], tls=tls_of(parts.settings, peer),
    )  # fmt: skip
    return Asking(where, Dialogue(transaction_uid, references))


def asked(tx: Connection, parts: Parts, transaction_uid: str, error: str | None) -> None:
    """The destination took the request, or did not: then it is asked again after a pause, and an event says so."""
    row = commitments.by_transaction(tx, transaction_uid)
    if row is None or row["state"] != CommitmentState.ASKING:
        return
    to, now = row["destination"], parts.now()
    if error is None:
        commitments.settle(tx, row["id"], CommitmentState.ASKED, now)
        return
    commitments.settle(tx, row["id"], CommitmentState.REFUSED, now, error)
    refused, _ = commitments.refusals(tx, to, _REMEMBERED)
    commitments.ask_again(tx, row, now + pause(refused, _REFUSED), error)
    note(tx, now, "commitment_refused", f"{counted(row['objects'], 'object')}: {error}", destination=to)


def nobody_knows(tx: Connection, parts: Parts) -> int:
    """Requests that were on their way when the sender or the node ended are asked again, under new UIDs."""
    found = commitments.being_asked(tx)
    for row in found:
        why = "the request was interrupted"
        commitments.settle(tx, row["id"], CommitmentState.EXPIRED, parts.now(), why)
        commitments.ask_again(tx, row, parts.now(), why)
    return len(found)


def answered(tx: Connection, parts: Parts, said: Dialogue) -> bool:
    """A destination reported: committed, or exactly the failed are sent again. False: nobody asked for that.

    A late answer to a request that was given up counts for what was not asked about again since.
    """
    row = commitments.by_transaction(tx, said.transaction_uid)
    if row is None:
        return False
    to, now = row["destination"], parts.now()
    pending = [{**one, "sop_uid": stored_as(one)} for one in commitments.pending(tx, row)]
    result = sort_answer(pending, said.references)
    done = commitments.committed(tx, row["id"], result.committed, now)
    for delivery_id, failure, before in result.failed:
        _send_again(tx, parts, to, delivery_id, failure, before)
    if result.again:
        commitments.ask_again(tx, row, now, reason_in_words(DUPLICATE_TRANSACTION))
    if result.again or not result.left:
        commitments.settle(tx, row["id"], CommitmentState.ANSWERED, now)
    if done:
        note(tx, now, "deliveries_committed", counted(done, "object"), destination=to)
        asking = [p.name for p in parts.settings.peers.values() if p.commit_after == to]
        pledges.hurry(tx, asking, now)
    return True


def _send_again(tx: Connection, parts: Parts, to: str, delivery_id: int, failure: int, before: int) -> None:
    """Stored → waiting, some times; then parked: a person must look why it is not committed to."""
    now, rounds = parts.now(), before + 1
    why = f"{to} does not commit to it: {reason_in_words(failure)}"
    parked = rounds > ROUNDS
    why += f"; given up after it was sent again {ROUNDS} times" if parked else "; it is sent again"
    state = DeliveryState.PARKED if parked else DeliveryState.WAITING
    moved = commitments.not_committed(
        tx, delivery_id, state, reason=why, commit_failures=rounds, due_at=now + pause(rounds, _AGAIN),
    )  # fmt: skip
    if moved:
        name = "delivery_parked" if parked else "commitment_failed"
        note(tx, now, name, why, **deliveries.object_of(tx, delivery_id), destination=to)


def cap_commitments(tx: Connection, parts: Parts) -> int:
    """The clock was set back: no request, and no answer to one, waits longer than its policy says; how many did."""
    now, peers, found = parts.now(), parts.settings.peers, 0
    for peer in peers.values():
        if peer.commit is not None:
            found += commitments.cap(tx, peer.name, now + max(peer.commit.within, _REFUSED.longest))
        archive = peers.get(peer.commit_after)
        if archive is not None and archive.commit is not None:
            found += pledges.cap(tx, peer.name, now + _REFUSED.longest, now + archive.commit.within)
    return found


def unanswered(tx: Connection, parts: Parts) -> None:
    """Requests without an answer within their time are asked again, each time with an event."""
    now = parts.now()
    for row in commitments.overdue(tx, now):
        left = commitments.ask_again(tx, row, now, "it did not answer in time")
        commitments.settle(tx, row["id"], CommitmentState.EXPIRED, now, f"no answer for {left} objects")
        if left:
            why = f"no answer for {counted(left, 'object')}; asked again"
            note(tx, now, "commitment_unanswered", why, destination=row["destination"])
