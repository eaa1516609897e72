"""deliver: what waits for a destination → a batch, and what its answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import DeliveryState, InstanceState
from node.send import retry
from node.send.protocol import Destination, Item, Kind, Result
from node.store import deliveries
from node.store.database import note
from node.store.intake import object_path

BATCH = 200
"""Objects claimed for one association."""


def deliver(
    tx: Connection, parts: Parts, to: str, open_batches: int
) -> tuple[Destination, tuple[Item, ...]] | None:
    """Waiting → sending: the next objects for a destination, one alone while it is down; None if nothing is due."""
    peer = parts.settings.peers.get(to)
    known = deliveries.destinations(tx).get(to)
    down = bool(known and known["down"])
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        if not down:
            _mark_down(
                tx, parts, to, f"{to} is no peer with an address any more; see `peers` in the site file"
            )
        return None
    if known and down and (open_batches or (known["next_at"] and known["next_at"] > parts.now())):
        return None
    if open_batches >= peer.associations:
        return None
    due = _without_replaced(tx, parts, deliveries.due_deliveries(tx, to, parts.now(), 1 if down else BATCH))
    found = deliveries.claim_deliveries(tx, due)
    if not found:
        return None
    where = Destination(
        name=to, host=peer.host, port=peer.port, ae_title=peer.ae_title,
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], max_associations=peer.associations,
    )  # fmt: skip
    return where, tuple(_item(parts, row) for row in found)


def _without_replaced(
    tx: Connection, parts: Parts, due: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """An older header must never arrive after the newer one that took its place."""
    stale = [row["id"] for row in due if row["instance_state"] == InstanceState.REPLACED]
    if stale:
        deliveries.cancel_deliveries(
            tx, stale, "a newer header of the same object is sent instead", parts.now()
        )
    return [row for row in due if row["instance_state"] != InstanceState.REPLACED]


def _item(parts: Parts, row: Mapping[str, Any]) -> Item:
    path = (
        parts.data / row["path"]
        if row["path"]
        else object_path(parts.data, row["receiver_run"], row["sequence"])
    )
    return Item(
        delivery=row["id"], attempt=row["attempt"], path=str(path), sop_class=row["sop_class"],
        sop_uid=row["sop_uid"] or "", transfer_syntax=row["transfer_syntax"],
    )  # fmt: skip


def delivered(tx: Connection, parts: Parts, to: str, results: Sequence[Result]) -> bool:
    """Sending → stored | waiting | parked, by what the destination answered for each object.

    Whether one of them is itself the reason that its association ended: the destination was up again since it
    was ended by the same object before. That is the object's trouble, and must not hold up the others.
    """
    now = parts.now()
    known = deliveries.destinations(tx).get(to)
    up = not (known and known["down"])
    blamed = False
    for result in results:
        if result.kind is Kind.NOT_TRIED:
            deliveries.finish_delivery(tx, result.delivery, result.attempt, DeliveryState.WAITING)
            continue
        failures = deliveries.failures_of(tx, result.delivery)
        itself = up and failures > 0 and result.kind is Kind.FAILED and result.status is None
        blamed = blamed or itself
        decided = retry.decide(
            result.kind, result.status, failures + 1, now, retry.Policy(),
            seed=result.delivery, claims=result.attempt, blamed=itself,
        )  # fmt: skip
        why = decided.why if isinstance(decided, retry.Stored) else f"{result.what}; {decided.why}"
        if isinstance(decided, retry.Stored):
            deliveries.finish_delivery(
                tx, result.delivery, result.attempt, DeliveryState.STORED,
                status=result.status, reason=why, finished_at=now,
            )  # fmt: skip
            continue
        again = isinstance(decided, retry.Again)
        ours = deliveries.finish_delivery(
            tx, result.delivery, result.attempt, DeliveryState.WAITING if again else DeliveryState.PARKED,
            status=result.status, reason=why, failures=failures + 1,
            due_at=decided.at if isinstance(decided, retry.Again) else now, finished_at=now,
        )  # fmt: skip
        if ours:
            name = "delivery_failed" if again else "delivery_parked"
            note(tx, now, name, why, **deliveries.object_of(tx, result.delivery), destination=to)
    return blamed


def batch_over(tx: Connection, parts: Parts, to: str, error: str | None, claimed: Iterable[int]) -> None:
    """A batch is over: the destination is down with its reason, or up. Objects wait; nothing is parked."""
    known = deliveries.destinations(tx).get(to)
    deliveries.unclaim_deliveries(tx, claimed)
    if error is None:
        if known and known["down"]:
            deliveries.set_destination(tx, to, down=False, reason="", since=None, failures=0, next_at=None)
            note(tx, parts.now(), "destination_up", destination=to)
        return
    _mark_down(tx, parts, to, error)


def _mark_down(tx: Connection, parts: Parts, to: str, error: str) -> None:
    """The destination is down: why, since when, and when it is tried next; an event when that is news."""
    known = deliveries.destinations(tx).get(to)
    failures = (known["failures"] if known else 0) + 1
    since = known["since"] if known and known["down"] else parts.now()
    if not (known and known["down"] and known["reason"] == error):
        note(tx, parts.now(), "destination_down", error, destination=to)
    due = retry.next_probe(failures, parts.now())
    deliveries.set_destination(tx, to, down=True, reason=error, since=since, failures=failures, next_at=due)
