"""The queue to each destination: what goes next, what it waits for, and whether the destination is down."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)  # fmt: skip

from node.model import DeliveryState, InstanceState, RunState, Trouble
from node.store.database import rows
from node.store.deliveries import AWAITS_COPY, OVER, QUEUED, WITHDRAWAL, with_objects
from node.store.schema import delivery, destination, instance, product, run, series


def waiting_destinations(tx: Connection, now: datetime) -> list[str]:
    """Destinations for which something is due, but for those that are down and not to be asked yet.

    One that is paused for refusing everything is tried whether something is due or not.

    Costs what there are destinations: reading every row that waits for one that is down for days would cost
    each turn of the conductor what has piled up there.
    """
    return list(tx.scalars(_waiting(), {"now": now}))


@cache
def _waiting() -> Select[Any]:
    """The statement of `waiting_destinations`, which steps from name to name through the index."""
    first = (
        select(delivery.c.destination.label("name")).where(QUEUED).order_by(delivery.c.destination).limit(1)
    )
    names = select(first.subquery().c.name).cte("names", recursive=True)
    following = (
        select(delivery.c.destination)
        .where(QUEUED & (delivery.c.destination > names.c.name))
        .order_by(delivery.c.destination)
        .limit(1)
        .correlate(names)
    )
    names = names.union_all(select(following.scalar_subquery()).where(names.c.name.is_not(None)))
    due = select(delivery.c.id).where(
        (delivery.c.destination == names.c.name)
        & QUEUED
        & (delivery.c.state == DeliveryState.WAITING)
        & (delivery.c.due_at <= bindparam("now"))
    )
    down = (destination.c.name == names.c.name) & destination.c.down
    later = select(destination.c.name).where(down & (destination.c.next_at > bindparam("now")))
    paused = select(destination.c.name).where(down & (destination.c.kind == Trouble.PAUSED))
    return select(names.c.name).where(or_(due.exists(), paused.exists()) & ~later.exists())


def due_deliveries(tx: Connection, to: str, now: datetime, limit: int) -> list[Mapping[str, Any]]:
    """The next objects for a destination: by priority, then age.

    A report waits until everything of an earlier stage of its run is stored there; a rejection note until
    all that takes the place of what it names is stored, and committed where that is asked for.
    """
    return rows(tx, _due(), {"to": to, "now": now, "most": limit})


@cache
def _due() -> Select[Any]:
    """The statement of `due_deliveries`: building it anew costs more than running it.

    It walks `delivery_order` and ends after its rows. As a bare column the date would have SQLite collect and sort
    the whole backlog by `delivery_queue`, for each batch again.
    """
    due = func.coalesce(delivery.c.due_at, delivery.c.due_at) <= bindparam(
        "now", type_=delivery.c.due_at.type
    )
    return (
        with_objects()
        .where(_sendable() & due)
        .order_by(delivery.c.rank, delivery.c.stage, delivery.c.id)
        .limit(bindparam("most", type_=Integer))
    )


def soonest_delivery(tx: Connection, to: str) -> list[Mapping[str, Any]]:
    """What waits for a destination and comes first of all that are not due yet; none where nothing waits."""
    statement = with_objects().where(_sendable()).order_by(delivery.c.due_at, delivery.c.id).limit(1)
    return rows(tx, statement, {"to": to})


def _sendable() -> ColumnElement[bool]:
    """It waits for a destination, and for nothing else than its time."""
    return (
        (delivery.c.destination == bindparam("to"))
        & QUEUED
        & (delivery.c.state == DeliveryState.WAITING)
        & ~AWAITS_COPY
        & or_(delivery.c.stage == 0, ~_blocked())
        & or_(delivery.c.stage < WITHDRAWAL, ~_replacement_under_way())
    )


def _blocked() -> ColumnElement[bool]:
    """Something of an earlier stage of the same run is not there yet; looked up by the run's few products."""
    earlier, of_run = delivery.alias(), product.alias()
    its = select(of_run.c.id).where(of_run.c.run_id == product.c.run_id).correlate(product)
    where = (
        (earlier.c.destination == delivery.c.destination)
        & earlier.c.product_id.in_(its)
        & (earlier.c.stage < delivery.c.stage)
        & earlier.c.state.not_in(OVER)
    )
    return select(earlier.c.id).where(where).correlate(delivery, product).exists()


def _replacement_under_way() -> ColumnElement[bool]:
    """What the same rule made of the same series, and is valid, is not all at the destination of a note."""
    withdrawing, valid = run.alias(), run.alias()
    its_series, same_series = series.alias(), series.alias()
    newer, made = delivery.alias(), product.alias()
    same = (same_series.c.study_uid == its_series.c.study_uid) & (
        same_series.c.series_uid == its_series.c.series_uid
    )
    made_anew = (
        select(made.c.id)
        .join(valid, valid.c.id == made.c.run_id)
        .join(same_series, same_series.c.id == valid.c.series_id)
        .join(its_series, same)
        .join(withdrawing, withdrawing.c.series_id == its_series.c.id)
        .where((withdrawing.c.id == product.c.run_id) & (valid.c.rule == withdrawing.c.rule))
        .where(valid.c.state == RunState.DONE)
        .correlate(product)
    )
    where = (
        (newer.c.destination == delivery.c.destination)
        & newer.c.product_id.in_(made_anew)
        & (newer.c.stage < WITHDRAWAL)
        & or_(newer.c.state.not_in(OVER), newer.c.commit_due.is_not(None))
    )
    return select(newer.c.id).where(where).correlate(delivery, product).exists()


_OLDER = (
    select(instance.c.sop_uid)
    .join(delivery, delivery.c.instance_id == instance.c.id)
    .where((delivery.c.destination == bindparam("to")) & QUEUED & (delivery.c.state == DeliveryState.SENDING))
    .where(instance.c.state == InstanceState.REPLACED)
)


def older_under_way(tx: Connection, to: str) -> set[str]:
    """The SOP Instance UIDs of objects with an older header that are just being sent to a destination."""
    return set(tx.scalars(_OLDER, {"to": to}))


def postpone(tx: Connection, to: str, window: str, now: datetime, until: datetime, reason: str) -> None:
    """All that is due for a destination and may only go in *window* waits until then, and says why."""
    waiting = QUEUED & (delivery.c.state == DeliveryState.WAITING) & (delivery.c.due_at <= now)
    where = (delivery.c.destination == to) & waiting & (delivery.c.window == window)
    tx.execute(update(delivery).where(where).values(due_at=until, reason=reason))


def hasten(tx: Connection, to: str, now: datetime) -> None:
    """What failed at a destination that was ill is due now: its pauses were for the destination's sake."""
    waiting = QUEUED & (delivery.c.state == DeliveryState.WAITING)
    late = (delivery.c.destination == to) & waiting & (delivery.c.due_at > now) & (delivery.c.failures > 0)
    tx.execute(update(delivery).where(late).values(due_at=now))


_DESTINATIONS = select(destination)


def destinations(tx: Connection) -> dict[str, Mapping[str, Any]]:
    """What is known of each destination that was ever tried."""
    return {row["name"]: row for row in rows(tx, _DESTINATIONS)}


def set_destination(tx: Connection, name: str, **values: Any) -> None:
    """Record that a destination is down or up again."""
    if tx.execute(update(destination).where(destination.c.name == name).values(**values)).rowcount == 0:
        tx.execute(insert(destination).values(name=name, **values))
