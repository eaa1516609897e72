"""Rows of what is to be sent: deliveries of received objects and of results, from queued to stored.

Every claim adds 1 to `attempt`; every later update names the state and the attempt it expects, so that a
sender that was given up on can never overwrite its successor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite

from node.model import PLAIN, REJECTION, DeliveryState, Manner, Product, RunState
from node.store.database import add, move, one_of
from node.store.ranks import rank_of
from node.store.schema import delivery, instance, product, run

_HELD = (DeliveryState.STORED, DeliveryState.COMMITTED)
OVER = (*_HELD, DeliveryState.CANCELLED)
WITHDRAWAL = 3
"""The stage of rejection notes: they wait until what takes the place of the rejected is stored, and committed."""
STAGE = {
    "image": 0, "picture": 0, "tiles": 0, "recording": 0, "segmentation": 1, "parametric_map": 1,
    "report": 2, "document": 2, "key_images": 2, "presentation": 2, REJECTION: WITHDRAWAL,
}  # fmt: skip
"""Order within a run and destination: images, then SEG and maps, then what refers to them. Every kind is here."""

QUEUED = one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING)
"""What the partial index `delivery_queue` holds: queries that say so cost nothing for what is over."""

EMPTY: ColumnElement[str] = literal_column("''")
AWAITS_COPY = (delivery.c.sent_path == EMPTY) & or_(
    delivery.c.treatment != EMPTY, delivery.c.sent_syntax != EMPTY
)
"""It goes as a copy, which is still to be made: its rule changes it, or it is refused as it is."""
NO_COPY = {"sent_path": "", "sent_syntax": "", "sent_uid": ""}
"""The columns of a delivery that is to be decided about anew: a treated one waits for another copy."""

DELIVERIES = (
    delivery.outerjoin(instance, instance.c.id == delivery.c.instance_id)
    .outerjoin(product, product.c.id == delivery.c.product_id)
    .outerjoin(run, run.c.id == product.c.run_id)
)
"""Each delivery with the object it sends and, of a result, the run that made it."""

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
    values = {"destination": to, "instance_id": instance_id, "rule": rule, **_queued(now, how)}
    return tx.execute(_QUEUE_INSTANCE[tx.dialect.name], values).rowcount == 1


def _queued(now: datetime, how: Manner) -> dict[str, Any]:
    """The columns of a new delivery that say how and when it goes."""
    return {
        "state": DeliveryState.HELD if how.hold else DeliveryState.WAITING, "reason": how.why,
        "due_at": how.due_at or now, "created_at": now, "rank": rank_of(how.priority, now),
        "lossy": how.lossy, "treatment": how.treatment, "window": how.window,
    }  # fmt: skip


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
        tx, delivery, destination=to, product_id=product_id, rule=rule, stage=STAGE[made.kind],
        **_queued(now, how),
    )  # fmt: skip
    return True


def treat_anew(
    tx: Connection, to: str, how: Manner, now: datetime, *, instance_id: int = 0, made: Product | None = None
) -> bool:
    """What waits, is held or parked, and goes changed in another way now, waits for a copy of that kind."""
    if made is None:
        what: ColumnElement[bool] = delivery.c.instance_id == instance_id
    else:
        same = (product.c.sop_uid == made.sop_uid) & (product.c.digest == made.digest)
        what = delivery.c.product_id.in_(select(product.c.id).where(same & product.c.removed_at.is_(None)))
    states = (DeliveryState.WAITING, DeliveryState.HELD, DeliveryState.PARKED)
    where = (delivery.c.destination == to) & what & delivery.c.state.in_(states)
    values = {**_queued(now, how), **NO_COPY, "failures": 0, "failing_since": None}
    changed = where & (delivery.c.treatment != how.treatment)
    return tx.execute(update(delivery).where(changed).values(**values)).rowcount > 0


def hand_over(tx: Connection, old: int, new: int) -> None:
    """What waits, or is held, to be sent of a replaced instance sends the newer one."""
    states = (DeliveryState.WAITING, DeliveryState.HELD)
    waiting = (delivery.c.instance_id == old) & delivery.c.state.in_(states)
    tx.execute(update(delivery).where(waiting).values(instance_id=new, **NO_COPY))  # one of the replaced


def went_to(tx: Connection, instance_id: int) -> list[tuple[str, str, Manner]]:
    """Destination, rule and manner of each delivery of an object that was sent, is being sent, or was refused."""
    states = (*_HELD, DeliveryState.SENDING, DeliveryState.PARKED)
    where = (delivery.c.instance_id == instance_id) & delivery.c.state.in_(states)
    columns = [delivery.c[name] for name in ("destination", "rule", "lossy", "treatment", "window")]
    found = tx.execute(select(*columns).where(where).order_by(delivery.c.id))
    return [
        (to, rule, Manner(lossy=lossy, treatment=treatment, window=window))
        for to, rule, lossy, treatment, window in found
    ]


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
        fresh = {"failures": 0, "failing_since": None, "commit_due": None, "commit_failures": 0}
        again += tx.execute(update(delivery).where(where).values(**fresh, **values)).rowcount
    return again


def with_objects() -> Select[Any]:
    """Deliveries with the object they send: its UIDs, transfer syntax and where its file is."""
    return select(
        delivery,
        func.coalesce(instance.c.sop_uid, product.c.sop_uid).label("sop_uid"),
        func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class"),
        func.coalesce(instance.c.transfer_syntax, product.c.transfer_syntax).label("transfer_syntax"),
        func.coalesce(instance.c.digest, product.c.digest).label("digest"),
        instance.c.receiver_run,
        instance.c.sequence,
        instance.c.state.label("instance_state"),
        instance.c.series_id.label("of_series"),
        product.c.path,
        product.c.run_id,
        run.c.state.label("run_state"),
        run.c.reason.label("run_reason"),
    ).select_from(DELIVERIES)


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


_FAILURES = select(delivery.c.failures, delivery.c.failing_since).where(delivery.c.id == bindparam("key"))


def failures_of(tx: Connection, delivery_id: int) -> tuple[int, datetime | None]:
    """How often an object failed at its destination, and since when."""
    failures, since = tx.execute(_FAILURES, {"key": delivery_id}).one()
    return int(failures), since


def made_anew(tx: Connection, sop_uid: str) -> bool:
    """A run that is valid made this result, too: a replay of the one that first sent it, for example."""
    where = (product.c.sop_uid == sop_uid) & (run.c.state == RunState.DONE)
    statement = select(product.c.id).join(run, run.c.id == product.c.run_id).where(where).limit(1)
    return tx.scalar(statement) is not None


def object_of(tx: Connection, delivery_id: int) -> dict[str, int | None]:
    """The references an event about a delivery carries: its instance, or its run."""
    statement = (
        select(delivery.c.instance_id, product.c.run_id, run.c.series_id, instance.c.series_id)
        .select_from(DELIVERIES)
        .where(delivery.c.id == delivery_id)
    )
    instance_id, run_id, of_run, of_instance = tx.execute(statement).one()
    return {"instance_id": instance_id, "run_id": run_id, "series_id": of_run or of_instance}
