"""Rows of what is to be sent: deliveries of received objects and of results, and the destinations.

Every claim adds 1 to `attempt`; every later update names the state and the attempt it expects, so that a
sender that was given up on can never overwrite its successor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from node.model import PLAIN, REJECTION, DeliveryState, InstanceState, Manner, Priority, Product, RunState
from node.store.database import add, move, one_of, rows
from node.store.schema import delivery, destination, instance, product, run, series

_HELD = (DeliveryState.STORED, DeliveryState.COMMITTED)
_OVER = (*_HELD, DeliveryState.CANCELLED)
WITHDRAWAL = 3
"""The stage of rejection notes: they wait until what takes the place of the rejected is stored, and committed."""
STAGE = {
    "image": 0, "picture": 0, "tiles": 0, "recording": 0, "segmentation": 1, "parametric_map": 1,
    "report": 2, "document": 2, "key_images": 2, "presentation": 2, REJECTION: WITHDRAWAL,
}  # fmt: skip
"""Order within a run and destination: images, then SEG and maps, then what refers to them. Every kind is here."""


_QUEUED = one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING)
"""What the partial index `delivery_queue` holds: queries that say so cost nothing for what is over."""


_HEAD_START = {
    Priority.URGENT: -timedelta(days=30),
    Priority.NORMAL: timedelta(0),
    Priority.LOW: timedelta(hours=1),
}


def rank_of(priority: Priority, now: datetime) -> int:
    """The place in a queue, lowest first: priority, then age in seconds.

    Urgent overtakes all that has waited for less than 30 days; low lets pass what comes within an hour after
    it, and no more, so that it never starves.
    """
    return int((now + _HEAD_START[priority]).timestamp())


_QUEUE_INSTANCE: dict[str, Insert] = {
    dialect.__name__.rpartition(".")[2]: dialect.insert(delivery)
    .on_conflict_do_nothing(index_elements=["destination", "instance_id"])
    .execution_options(preserve_rowcount=True)
    for dialect in (sqlite, postgresql)
}


def deliver_instance(
    tx: Connection, instance_id: int, to: str, rule: str, now: datetime, how: Manner = PLAIN
) -> bool:
    """Queue a received object for a destination, unless it is or was queued there already."""
    values = {
        "destination": to, "state": DeliveryState.WAITING, "instance_id": instance_id, "rule": rule,
        "due_at": now, "created_at": now, "rank": rank_of(how.priority, now), "lossy": how.lossy,
    }  # fmt: skip
    return tx.execute(_QUEUE_INSTANCE[tx.dialect.name], values).rowcount == 1


def sent_by_rule(tx: Connection, instances: Sequence[int]) -> dict[str, int]:
    """Rule → how many of these received objects it queued."""
    found: dict[str, int] = {}
    for start in range(0, len(instances), 500):
        where = delivery.c.instance_id.in_(instances[start : start + 500])
        counted = func.count(delivery.c.instance_id.distinct())
        for rule, count in tx.execute(
            select(delivery.c.rule, counted).where(where).group_by(delivery.c.rule)
        ):
            found[rule] = found.get(rule, 0) + count
    return found


def deliver_product(
    tx: Connection, product_id: int, made: Product, to: str, rule: str, now: datetime, how: Manner = PLAIN
) -> bool:
    """Queue a product, unless the same object with the same bytes is or was queued there already.

    One that retention removed meanwhile does not count: its series was sent again, as a whole and as new.
    """
    same = (product.c.sop_uid == made.sop_uid) & (product.c.digest == made.digest)
    same &= product.c.removed_at.is_(None)
    where = (delivery.c.destination == to) & (delivery.c.state != DeliveryState.CANCELLED) & same
    join = delivery.join(product, product.c.id == delivery.c.product_id)
    if tx.scalar(select(delivery.c.id).select_from(join).where(where).limit(1)) is not None:
        return False
    add(
        tx, delivery, destination=to, state=DeliveryState.WAITING, product_id=product_id, rule=rule,
        stage=STAGE[made.kind], due_at=now, created_at=now, rank=rank_of(how.priority, now), lossy=how.lossy,
    )  # fmt: skip
    return True


def hand_over(tx: Connection, old: int, new: int) -> None:
    """What waits, or is held, to be sent of a replaced instance sends the newer one."""
    states = (DeliveryState.WAITING, DeliveryState.HELD)
    waiting = (delivery.c.instance_id == old) & delivery.c.state.in_(states)
    tx.execute(update(delivery).where(waiting).values(instance_id=new))


def went_to(tx: Connection, instance_id: int) -> list[tuple[str, str, bool]]:
    """Destination, rule and `lossy` of each delivery of an object that was sent, is being sent, or was refused."""
    states = (*_HELD, DeliveryState.SENDING, DeliveryState.PARKED)
    where = (delivery.c.instance_id == instance_id) & delivery.c.state.in_(states)
    columns = (delivery.c.destination, delivery.c.rule, delivery.c.lossy)
    found = tx.execute(select(*columns).where(where).order_by(delivery.c.id))
    return [(str(to), str(rule), bool(lossy)) for to, rule, lossy in found]


_OLDER = (
    select(instance.c.sop_uid)
    .join(delivery, delivery.c.instance_id == instance.c.id)
    .where(
        (delivery.c.destination == bindparam("to")) & _QUEUED & (delivery.c.state == DeliveryState.SENDING)
    )
    .where(instance.c.state == InstanceState.REPLACED)
)


def older_under_way(tx: Connection, to: str) -> set[str]:
    """The SOP Instance UIDs of objects with an older header that are just being sent to a destination."""
    return set(tx.scalars(_OLDER, {"to": to}))


def cancel_of(tx: Connection, instance_id: int, reason: str, now: datetime) -> None:
    """What waits, is parked or held of one received object is not sent."""
    cancel_deliveries(
        tx, tx.scalars(select(delivery.c.id).where(delivery.c.instance_id == instance_id)), reason, now
    )


def redeliver(tx: Connection, instance_id: int, to: Mapping[str, datetime], now: datetime) -> int:
    """Send again what reached a destination before the moment given for it: the sender asked (design §6)."""
    valid = run.c.state.not_in((RunState.SUPERSEDED, RunState.CANCELLED)) & (run.c.withdraws == 0)
    of_results = (
        select(product.c.id)
        .join(run, run.c.id == product.c.run_id)
        .join(instance, instance.c.series_id == run.c.series_id)
        .where((instance.c.id == instance_id) & valid)
    )
    what = or_(delivery.c.instance_id == instance_id, delivery.c.product_id.in_(of_results))
    again = 0
    for name, before in to.items():
        where = and_(
            what, delivery.c.destination == name, delivery.c.finished_at < before,
            delivery.c.state.in_((DeliveryState.STORED, DeliveryState.COMMITTED)),
        )  # fmt: skip
        values = {
            "state": DeliveryState.WAITING,
            "reason": "sent again: the object was received again",
            "due_at": now,
        }
        fresh = {"failures": 0, "failing_since": None, "commit_due": None}
        again += tx.execute(update(delivery).where(where).values(**fresh, **values)).rowcount
    return again


_WAITING_DESTINATIONS = (
    select(delivery.c.destination)
    .where(_QUEUED & (delivery.c.state == DeliveryState.WAITING) & (delivery.c.due_at <= bindparam("now")))
    .distinct()
)


def waiting_destinations(tx: Connection, now: datetime) -> list[str]:
    """Destinations for which something is due."""
    return list(tx.scalars(_WAITING_DESTINATIONS, {"now": now}))


def due_deliveries(tx: Connection, to: str, now: datetime, limit: int) -> list[Mapping[str, Any]]:
    """The next objects for a destination: by priority, then age.

    A report waits until everything of an earlier stage of its run is stored there; a rejection note until
    all that takes the place of what it names is stored, and committed where that is asked for.
    """
    return rows(tx, _due(), {"to": to, "now": now, "most": limit})


@cache
def _due() -> Select[Any]:
    """The statement of `due_deliveries`: building it anew costs more than running it."""
    earlier = delivery.alias()
    of_earlier, of_this = product.alias(), product.alias()
    blocked = (
        select(earlier.c.id)
        .select_from(earlier.join(of_earlier, of_earlier.c.id == earlier.c.product_id))
        .where(
            (of_earlier.c.run_id == of_this.c.run_id)
            & (earlier.c.destination == delivery.c.destination)
            & (earlier.c.stage < delivery.c.stage)
            & earlier.c.state.not_in(_OVER)
        )
        .exists()
    )
    where = (
        (delivery.c.destination == bindparam("to"))
        & _QUEUED
        & (delivery.c.state == DeliveryState.WAITING)
        & (delivery.c.due_at <= bindparam("now"))
        & ~blocked
        & or_(delivery.c.stage < WITHDRAWAL, ~_replacement_under_way(of_this))
    )
    return (
        _with_objects()
        .outerjoin(of_this, of_this.c.id == delivery.c.product_id)
        .where(where)
        .order_by(delivery.c.rank, delivery.c.stage, delivery.c.id)
        .limit(bindparam("most", type_=Integer))
    )


def _replacement_under_way(note: Any) -> ColumnElement[bool]:
    """What the same rule made of the same series, and is valid, is not all at the destination of a *note*."""
    withdrawing, valid = run.alias(), run.alias()
    its_series, same_series = series.alias(), series.alias()
    newer, made = delivery.alias(), product.alias()
    return (
        select(newer.c.id)
        .select_from(
            withdrawing.join(its_series, its_series.c.id == withdrawing.c.series_id)
            .join(
                same_series,
                (same_series.c.study_uid == its_series.c.study_uid)
                & (same_series.c.series_uid == its_series.c.series_uid),
            )
            .join(valid, (valid.c.series_id == same_series.c.id) & (valid.c.rule == withdrawing.c.rule))
            .join(made, made.c.run_id == valid.c.id)
            .join(newer, newer.c.product_id == made.c.id)
        )
        .where(
            (withdrawing.c.id == note.c.run_id)
            & (valid.c.state == RunState.DONE)
            & (newer.c.destination == delivery.c.destination)
            & (newer.c.stage < WITHDRAWAL)
            & or_(newer.c.state.not_in(_OVER), newer.c.commit_due.is_not(None))
        )
        .exists()
    )


def _with_objects() -> Select[Any]:
    """Deliveries with the object they send: its UIDs, transfer syntax and where its file is."""
    return (
        select(
            delivery,
            func.coalesce(instance.c.sop_uid, product.c.sop_uid).label("sop_uid"),
            func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class"),
            func.coalesce(instance.c.transfer_syntax, product.c.transfer_syntax).label("transfer_syntax"),
            instance.c.receiver_run,
            instance.c.sequence,
            instance.c.state.label("instance_state"),
            instance.c.series_id.label("of_series"),
            product.c.path,
            product.c.run_id,
            run.c.state.label("run_state"),
            run.c.reason.label("run_reason"),
        )
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .outerjoin(run, run.c.id == product.c.run_id)
    )


def made_anew(tx: Connection, sop_uid: str) -> bool:
    """A run that is valid made this result, too: a replay of the one that first sent it, for example."""
    where = (product.c.sop_uid == sop_uid) & (run.c.state == RunState.DONE)
    statement = select(product.c.id).join(run, run.c.id == product.c.run_id).where(where).limit(1)
    return tx.scalar(statement) is not None


def claim_deliveries(tx: Connection, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Waiting → sending; those that are ours now, with their new attempt number."""
    expected = {int(row["id"]): int(row["attempt"]) for row in found}
    where = delivery.c.id.in_(expected) & (delivery.c.state == DeliveryState.WAITING)
    values = {"state": DeliveryState.SENDING, "attempt": delivery.c.attempt + 1}
    claimed = update(delivery).where(where).values(**values).returning(delivery.c.id, delivery.c.attempt)
    ours = {int(key): int(attempt) for key, attempt in tx.execute(claimed)} if expected else {}
    return [{**row, "attempt": ours[row["id"]]} for row in found if row["id"] in ours]


def finish_delivery(tx: Connection, key: int, attempt: int, to: DeliveryState, **values: Any) -> bool:
    """Sending → stored | waiting | parked; False when it is not this attempt's any more."""
    return move(tx, delivery, key, to, expected=(DeliveryState.SENDING,), attempt=attempt, **values)


def cancel_deliveries(tx: Connection, chosen: Iterable[int], reason: str, now: datetime) -> None:
    """Waiting | parked | held → cancelled."""
    states = (DeliveryState.WAITING, DeliveryState.PARKED, DeliveryState.HELD)
    values = {"state": DeliveryState.CANCELLED, "reason": reason, "finished_at": now}
    ids = list(chosen)
    for start in range(0, len(ids), 500):
        where = delivery.c.id.in_(ids[start : start + 500]) & delivery.c.state.in_(states)
        tx.execute(update(delivery).where(where).values(**values))


def unclaim_deliveries(tx: Connection, claimed: Iterable[int]) -> None:
    """Sending → waiting: those of a batch that is over which were not reported."""
    where = delivery.c.id.in_(list(claimed)) & (delivery.c.state == DeliveryState.SENDING)
    tx.execute(update(delivery).where(where).values(state=DeliveryState.WAITING))


_DESTINATIONS = select(destination)


def destinations(tx: Connection) -> dict[str, Mapping[str, Any]]:
    """What is known of each destination that was ever tried."""
    return {row["name"]: row for row in rows(tx, _DESTINATIONS)}


def set_destination(tx: Connection, name: str, **values: Any) -> None:
    """Record that a destination is down or up again."""
    if tx.execute(update(destination).where(destination.c.name == name).values(**values)).rowcount == 0:
        tx.execute(insert(destination).values(name=name, **values))


_FAILURES = select(delivery.c.failures, delivery.c.failing_since).where(delivery.c.id == bindparam("key"))


def failures_of(tx: Connection, delivery_id: int) -> tuple[int, datetime | None]:
    """How often an object failed at its destination, and since when."""
    failures, since = tx.execute(_FAILURES, {"key": delivery_id}).one()
    return int(failures), since


def object_of(tx: Connection, delivery_id: int) -> dict[str, int | None]:
    """The references an event about a delivery carries: its instance, or its run."""
    statement = (
        select(delivery.c.instance_id, product.c.run_id, run.c.series_id, instance.c.series_id)
        .select_from(delivery)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .outerjoin(run, run.c.id == product.c.run_id)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .where(delivery.c.id == delivery_id)
    )
    instance_id, run_id, of_run, of_instance = tx.execute(statement).one()
    return {"instance_id": instance_id, "run_id": run_id, "series_id": of_run or of_instance}
