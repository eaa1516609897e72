"""deliver: what waits for a destination → a batch or a probe, and what its answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import DeliveryState, InstanceState
from node.send import retry
from node.send.protocol import Destination, Item, Kind, Result, Trouble
from node.settings import Peer, is_open
from node.store import deliveries
from node.store.database import note
from node.store.intake import object_path

BATCH = 200
"""Objects claimed for one association."""
TRIAL = 3
"""Objects, of as many series, that go first to a destination that takes objects again."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the sender is to do next for a destination: send *items*, or without any ask whether it is there."""

    where: Destination
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a group of outcomes says beyond its own objects."""

    blamed: bool = False
    """An object is itself the reason that its association ended, and must not hold up the others."""
    taken: bool = False
    """The destination took, or judged by itself, at least one object."""


def deliver(tx: Connection, parts: Parts, to: str, under_way: int) -> Claimed | None:
    """Waiting → sending: the next objects for a destination, or a question; None if nothing is to be done now.

    A destination that is down is asked by C-ECHO, and then tried with a few objects, before the rest goes.
    """
    peer = parts.settings.peers.get(to)
    known = deliveries.destinations(tx).get(to)
    down = bool(known and known["down"])
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        if not down:
            gone = f"{to} is no peer with an address any more; see `peers` in the site file"
            _mark_down(tx, parts, to, gone, Trouble.UNREACHABLE)
        return None
    if under_way >= (1 if down else peer.associations) or not _in_window(parts, peer):
        return None
    if known and down and known["next_at"] and known["next_at"] > parts.now():
        return None
    where = _destination(parts, to, peer)
    if known and down and not known["trial"]:
        return Claimed(where)
    due = deliveries.due_deliveries(tx, to, parts.now(), BATCH)
    if not due and known and down and known["kind"] == Trouble.PAUSED:
        due = deliveries.soonest_delivery(tx, to)
    due = _without_replaced(tx, parts, due)
    found = deliveries.claim_deliveries(tx, _one_of_each(due) if down else due)
    return Claimed(where, tuple(_item(parts, row) for row in found)) if found else None


def _in_window(parts: Parts, peer: Peer) -> bool:
    return is_open(peer.window, parts.now().astimezone(ZoneInfo(parts.settings.node.timezone)))


def _destination(parts: Parts, to: str, peer: Peer) -> Destination:
    return Destination(
        name=to, host=peer.host or "", port=peer.port or 0, ae_title=peer.ae_title or "",
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], max_associations=peer.associations,
    )  # fmt: skip


def _one_of_each(due: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first of each of some series or runs: one that is refused as a whole must not stand for the others."""
    first: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for row in due:
        first.setdefault((row["of_series"], row["run_id"]), row)
    return list(first.values())[:TRIAL]


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


def delivered(tx: Connection, parts: Parts, to: str, results: Sequence[Result]) -> Heard:
    """Sending → stored | waiting | parked, by what the destination answered for each object.

    One that ends its association for the second time while the destination was up is blamed itself.
    """
    known = deliveries.destinations(tx).get(to)
    up = not (known and known["down"])
    blamed = taken = False
    for result in results:
        if result.kind is Kind.NOT_TRIED:
            deliveries.finish_delivery(tx, result.delivery, result.attempt, DeliveryState.WAITING)
            continue
        taken = taken or result.kind in (Kind.STORED, Kind.WARNING, Kind.REFUSED_CONTEXT)
        blamed = _finish(tx, parts, to, result, up=up) or blamed
    return Heard(blamed, taken)


def _finish(tx: Connection, parts: Parts, to: str, result: Result, *, up: bool) -> bool:
    """Record one answer; whether the object is blamed for the end of its association."""
    now = parts.now()
    fine = result.kind in (Kind.STORED, Kind.WARNING)  # then its past does not matter
    failures, since = (0, None) if fine else deliveries.failures_of(tx, result.delivery)
    itself = up and failures > 0 and result.kind is Kind.FAILED and result.status is None
    decided = retry.decide(
        result.kind, result.status, failures + 1, now, retry.Policy(),
        seed=result.delivery, claims=result.attempt, blamed=itself, since=since,
    )  # fmt: skip
    why = decided.why if isinstance(decided, retry.Stored) else f"{result.what}; {decided.why}"
    if isinstance(decided, retry.Stored):
        deliveries.finish_delivery(
            tx, result.delivery, result.attempt, DeliveryState.STORED,
            status=result.status, reason=why, finished_at=now,
        )  # fmt: skip
        return itself
    again = isinstance(decided, retry.Again)
    ours = deliveries.finish_delivery(
        tx, result.delivery, result.attempt, DeliveryState.WAITING if again else DeliveryState.PARKED,
        status=result.status, reason=why, failures=failures + 1, failing_since=since or now,
        due_at=decided.at if isinstance(decided, retry.Again) else now, finished_at=now,
    )  # fmt: skip
    if ours:
        name = "delivery_failed" if again else "delivery_parked"
        note(tx, now, name, why, **deliveries.object_of(tx, result.delivery), destination=to)
    return itself


def probed(tx: Connection, parts: Parts, to: str, error: str | None, trouble: Trouble) -> None:
    """A destination that was down answered C-ECHO, or did not; one that takes no C-ECHO is tried with objects."""
    if error is None or trouble is Trouble.REJECTED:
        deliveries.set_destination(tx, to, trial=True, next_at=None)
    else:
        _mark_down(tx, parts, to, error, trouble)


def batch_over(
    tx: Connection, parts: Parts, to: str, error: str | None, claimed: Iterable[int],
    trouble: Trouble = Trouble.UNREACHABLE, *, taken: bool = True,
) -> None:  # fmt: skip
    """A batch is over: the destination is down with its reason, or up. Objects wait; nothing is parked.

    One that refused everything stays paused while it refuses what it is tried with (*taken* is False). What
    waits for one that is up again has waited long enough.
    """
    known = deliveries.destinations(tx).get(to)
    deliveries.unclaim_deliveries(tx, claimed)
    if error is not None:
        _mark_down(tx, parts, to, error, trouble)
    elif known and known["down"] and known["kind"] == Trouble.PAUSED and not taken:
        _mark_down(tx, parts, to, known["reason"], Trouble.PAUSED)
    elif known and known["down"]:
        up = {"down": False, "reason": "", "since": None, "failures": 0, "next_at": None}
        deliveries.set_destination(tx, to, **up, kind="", trial=False)
        deliveries.hasten(tx, to, parts.now())
        note(tx, parts.now(), "destination_up", destination=to)


def _mark_down(tx: Connection, parts: Parts, to: str, error: str, trouble: Trouble) -> None:
    """The destination is down: why, since when, and when it is tried next; an event when that is news."""
    known = deliveries.destinations(tx).get(to)
    failures = (known["failures"] if known else 0) + 1
    since = known["since"] if known and known["down"] else parts.now()
    if not (known and known["down"] and known["reason"] == error):
        note(tx, parts.now(), "destination_down", error, destination=to)
    due = retry.next_probe(failures, parts.now(), trouble)
    deliveries.set_destination(
        tx, to, down=True, reason=error, since=since, failures=failures, next_at=due,
        kind=trouble, trial=trouble is Trouble.PAUSED,
    )  # fmt: skip
