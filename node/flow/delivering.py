"""deliver: what waits for a destination → a batch or a probe, and what its answers mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.uid import UID
from sqlalchemy import Connection

from node.flow import transcoding
from node.flow.committing import commit_due
from node.flow.parts import Parts
from node.flow.queueing import waits_for
from node.flow.securing import tls_of
from node.model import DeliveryState, InstanceState, RunState, Trouble
from node.send import retry
from node.send.protocol import Destination, Item, Kind, Result
from node.settings import Peer, is_open
from node.store import copies, deliveries, queues
from node.store.database import note
from node.store.intake import object_path
from node.words import counted

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
    copies: tuple[Path, ...] = ()
    """Copies that nobody needs any more; they go after the commit."""
    transcode: bool = False
    """Copies are wanted of objects that it refuses as they are."""


def deliver(tx: Connection, parts: Parts, to: str, under_way: int) -> Claimed | None:
    """Waiting → sending: the next objects for a destination, or a question; None if nothing is to be done now.

    A destination that is down is asked by C-ECHO, and then tried with a few objects, before the rest goes.
    """
    peer = parts.settings.peers.get(to)
    known = queues.destinations(tx).get(to)
    down = known if known and known["down"] else None
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        if not down:
            gone = f"{to} is no peer with an address any more; see `peers` in the site file"
            _mark_down(tx, parts, to, gone, Trouble.UNREACHABLE)
        return None
    if under_way >= (1 if down else peer.associations) or not _in_window(parts, peer):
        return None
    if down and down["next_at"] and down["next_at"] > parts.now():
        return None
    where = _destination(parts, to, peer)
    if down and not down["trial"]:
        return Claimed(where)
    due = _due_now(tx, parts, to)
    if not due and down and down["kind"] == Trouble.PAUSED:
        due = [row for row in queues.soonest_delivery(tx, to) if waits_for(parts, to, row["window"]) is None]
    due = _without_replaced(tx, parts, due)
    found = deliveries.claim_deliveries(tx, _one_of_each(due) if down else due)
    return Claimed(where, tuple(_item(parts, row) for row in found)) if found else None


def _due_now(tx: Connection, parts: Parts, to: str) -> list[Mapping[str, Any]]:
    """What is due and may go now; what its rule lets go at other times only waits for them, and says so."""
    while True:
        due = queues.due_deliveries(tx, to, parts.now(), BATCH)
        waits = {window: waits_for(parts, to, window) for window in {row["window"] for row in due}}
        for window, wait in waits.items():
            if wait is not None:
                queues.postpone(tx, to, window, parts.now(), *wait)
        if not due or None in waits.values():
            return [row for row in due if waits[row["window"]] is None]


def _in_window(parts: Parts, peer: Peer) -> bool:
    return is_open(peer.window, parts.now().astimezone(ZoneInfo(parts.settings.node.timezone)))


def _destination(parts: Parts, to: str, peer: Peer) -> Destination:
    return Destination(
        name=to, host=peer.host or "", port=peer.port or 0, ae_title=peer.ae_title or "",
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], max_associations=peer.associations,
        alternatives=transcoding.alternatives(peer), tls=tls_of(parts.settings, peer),
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
    """What came back from a broken batch, and must not arrive any more.

    An older header never arrives after the newer one that took its place (which waits while the older is being
    sent), a rejected object not at all, and results not after those that supersede them. Nor does what was queued
    before its destination was marked `only: deidentified` (design, promise 9).
    """
    stale = {row["id"]: why for row in due if (why := _stale(tx, row) or _identified(parts, row))}
    for key, why in stale.items():
        deliveries.cancel_deliveries(tx, [key], why, parts.now())
    left = [row for row in due if row["id"] not in stale]
    older = queues.older_under_way(tx, left[0]["destination"]) if left else set()
    return [row for row in left if row["run_id"] or row["sop_uid"] not in older]


def _identified(parts: Parts, row: Mapping[str, Any]) -> str:
    return parts.refuses_identified(row["destination"], row["treatment"])


def _stale(tx: Connection, row: Mapping[str, Any]) -> str:
    """Why an object is not to be sent any more; empty when it is."""
    if row["instance_state"] == InstanceState.REPLACED:
        return "a newer header of the same object is sent instead"
    if row["instance_state"] == InstanceState.REJECTED:
        return "a rejection note names the object"
    over = row["run_state"] in (RunState.SUPERSEDED, RunState.CANCELLED)
    return str(row["run_reason"]) if over and not deliveries.made_anew(tx, row["sop_uid"]) else ""


def _item(parts: Parts, row: Mapping[str, Any]) -> Item:
    path = (
        parts.data / row["path"]
        if row["path"]
        else object_path(parts.data, row["receiver_run"], row["sequence"])
    )
    sent, sop_uid, syntax = transcoding.sent_as(row, str(path))
    return Item(
        delivery=row["id"], attempt=row["attempt"], path=str(parts.data / sent), sop_class=row["sop_class"],
        sop_uid=sop_uid, transfer_syntax=syntax,
    )  # fmt: skip


def delivered(tx: Connection, parts: Parts, to: str, results: Sequence[Result]) -> Heard:
    """Sending → stored | waiting | parked, by what the destination answered for each object.

    One that ends its association for the second time while the destination was up is blamed itself; one that is
    refused in its transfer syntax, and taken in another, waits for a copy.
    """
    known = queues.destinations(tx).get(to)
    up = not (known and known["down"])
    blamed = taken = False
    sent: list[int] = []
    refused: Counter[str] = Counter()
    known_as = copies.copies_of(tx, (result.delivery for result in results))
    for result in results:
        if result.kind is Kind.NOT_TRIED:
            deliveries.finish_delivery(tx, result.delivery, result.attempt, DeliveryState.WAITING)
            continue
        taken = taken or result.kind in (Kind.STORED, Kind.WARNING, Kind.REFUSED_CONTEXT)
        row = known_as[result.delivery]
        if (words := _wants_copy(tx, parts, result, row)) is not None:
            refused[words] += 1
            sent += [result.delivery] if row["sent_path"] else []
            continue
        blamed = _finish(tx, parts, to, (result, row), up=up) or blamed
        if row["sent_path"]:
            sent.append(result.delivery)
    left = copies.copies_of(tx, sent) if sent else {}
    needless = tuple(
        parts.data / known_as[key]["sent_path"] for key, row in left.items() if not row["sent_path"]
    )
    for words, count in refused.items():
        note(tx, parts.now(), "transcoding", f"{counted(count, 'object')}: {words}", destination=to)
    return Heard(blamed, taken, needless, bool(refused))


def _wants_copy(tx: Connection, parts: Parts, result: Result, row: Mapping[str, Any]) -> str | None:
    """Sending → waiting for a copy, and why; None where the object is not refused for its syntax alone."""
    syntaxes = transcoding.candidates(result, row) if result.kind is Kind.REFUSED_CONTEXT else ()
    if not syntaxes:
        return None
    words = f"{result.what}; a copy in {UID(syntaxes[0]).name} is made"
    deliveries.finish_delivery(
        tx, result.delivery, result.attempt, DeliveryState.WAITING,
        reason=words, due_at=parts.now(), **transcoding.wanted(syntaxes),
    )  # fmt: skip
    return words


def _finish(
    tx: Connection, parts: Parts, to: str, tried: tuple[Result, Mapping[str, Any]], *, up: bool
) -> bool:
    """Record one answer; whether the object is blamed for the end of its association."""
    (result, row), now = tried, parts.now()
    fine = result.kind in (Kind.STORED, Kind.WARNING)  # then its past does not matter
    failures, since = (0, None) if fine else deliveries.failures_of(tx, result.delivery)
    itself = up and failures > 0 and result.kind is Kind.FAILED and result.status is None
    decided = retry.decide(
        result.kind, result.status, failures + 1, now, retry.Policy(),
        seed=result.delivery, claims=result.attempt, blamed=itself, since=since,
    )  # fmt: skip
    if isinstance(decided, retry.Stored):
        deliveries.finish_delivery(
            tx, result.delivery, result.attempt, DeliveryState.STORED,
            status=result.status, reason=decided.why + transcoding.told_of(row), finished_at=now, sent_path="",
            commit_due=commit_due(parts, to, now), commitment_id=None,
        )  # fmt: skip
        return itself
    why = f"{result.what}; {decided.why}"
    if result.kind is Kind.REFUSED_CONTEXT:
        why += f"; {transcoding.advice(to, result)}"
    again = isinstance(decided, retry.Again)
    kept = (
        row["sent_path"] if again and result.kind is not Kind.UNREADABLE_FILE else ""
    )  # a lost copy is made anew
    ours = deliveries.finish_delivery(
        tx, result.delivery, result.attempt, DeliveryState.WAITING if again else DeliveryState.PARKED,
        status=result.status, reason=why, failures=failures + 1, failing_since=since or now,
        due_at=decided.at if isinstance(decided, retry.Again) else now, finished_at=now, sent_path=kept,
    )  # fmt: skip
    if ours:
        name = "delivery_failed" if again else "delivery_parked"
        note(tx, now, name, why, **deliveries.object_of(tx, result.delivery), destination=to)
    return itself


def probed(tx: Connection, parts: Parts, to: str, error: str | None, trouble: Trouble) -> None:
    """A destination that was down answered C-ECHO, or did not; one that takes no C-ECHO is tried with objects."""
    if error is None or trouble is Trouble.REJECTED:
        queues.set_destination(tx, to, trial=True, next_at=None)
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
    known = queues.destinations(tx).get(to)
    deliveries.unclaim_deliveries(tx, claimed)
    if error is not None:
        _mark_down(tx, parts, to, error, trouble)
    elif known and known["down"] and known["kind"] == Trouble.PAUSED and not taken:
        _mark_down(tx, parts, to, known["reason"], Trouble.PAUSED)
    elif known and known["down"]:
        up = {"down": False, "reason": "", "since": None, "failures": 0, "next_at": None}
        queues.set_destination(tx, to, **up, kind="", trial=False)
        queues.hasten(tx, to, parts.now())
        note(tx, parts.now(), "destination_up", destination=to)


def _mark_down(tx: Connection, parts: Parts, to: str, error: str, trouble: Trouble) -> None:
    """The destination is down: why, since when, and when it is tried next; an event when that is news.

    Other words for the same kind of trouble are none: a dying peer closes or resets, as chance has it, each minute.
    """
    known = queues.destinations(tx).get(to)
    failures = (known["failures"] if known else 0) + 1
    since = known["since"] if known and known["down"] else parts.now()
    if not (known and known["down"] and known["kind"] == trouble):
        note(tx, parts.now(), "destination_down", error, destination=to)
    due = retry.next_probe(failures, parts.now(), trouble)
    queues.set_destination(
        tx, to, down=True, reason=error, since=since, failures=failures, next_at=due,
        kind=trouble, trial=trouble is Trouble.PAUSED,
    )  # fmt: skip
