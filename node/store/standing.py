"""How things stand: counts by state, what is open longest, and whether anything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, or_, select

from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.store.database import one_of, rows
from node.store.intake import count_by_state
from node.store.pledges import PledgeState
from node.store.schema import delivery, destination, instance, pledge, product, run, series


def overview(tx: Connection) -> dict[str, Any]:
    """Counts by state, what is open longest, and the destinations that are down."""
    open_since = select(func.min(delivery.c.created_at)).where(delivery.c.state == DeliveryState.WAITING)
    return {
        "instances": count_by_state(tx, instance),
        "ungrouped": _ungrouped(tx),
        "series": count_by_state(tx, series),
        "runs": count_by_state(tx, run),
        "deliveries": count_by_state(tx, delivery),
        "oldest_waiting_delivery": tx.scalar(open_since),
        "destinations": rows(tx, select(destination).order_by(destination.c.name)),
        "uncommitted": _uncommitted(tx),
        "pledges": _pledges(tx),
    }


def _ungrouped(tx: Connection) -> int:
    """Objects that are kept and routed, and belong to no series: their header lacks a UID."""
    lone = instance.c.series_id.is_(None) & (instance.c.state == InstanceState.KEPT)
    return tx.scalar(select(func.count()).select_from(instance).where(lone)) or 0


def _uncommitted(tx: Connection) -> list[Mapping[str, Any]]:
    """What each destination stored and has still to commit to (PS3.4 J), and since when the oldest waits."""
    statement = (
        select(
            delivery.c.destination,
            func.count().label("objects"),
            func.min(delivery.c.finished_at).label("since"),
        )
        .where(delivery.c.commit_due.is_not(None) & (delivery.c.state == DeliveryState.STORED))
        .group_by(delivery.c.destination)
        .order_by(delivery.c.destination)
    )
    return rows(tx, statement)


def _pledges(tx: Connection) -> list[Mapping[str, Any]]:
    """Requests to commit that each peer waits for an answer to, by state, and since when the oldest waits."""
    columns = (pledge.c.peer, pledge.c.state, func.count().label("requests"))
    statement = select(*columns, func.min(pledge.c.received_at).label("since")).where(
        one_of(pledge.c.state, PledgeState.WAITING, PledgeState.REPORTING)
    )
    return rows(tx, statement.group_by(pledge.c.peer, pledge.c.state).order_by(pledge.c.peer, pledge.c.state))


def progress(tx: Connection, series_id: int) -> dict[str, dict[str, int]]:
    """How far one series is: deliveries by destination and state, of its objects and of its results."""
    of_run = select(product.c.id).join(run, run.c.id == product.c.run_id).where(run.c.series_id == series_id)
    of_series = select(instance.c.id).where(instance.c.series_id == series_id)
    where = or_(delivery.c.instance_id.in_(of_series), delivery.c.product_id.in_(of_run))
    statement = (
        select(delivery.c.destination, delivery.c.state, func.count())
        .where(where)
        .group_by(delivery.c.destination, delivery.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for name, state, count in tx.execute(statement):
        found.setdefault(name, {})[state] = count
    return found


def is_idle(tx: Connection) -> bool:
    """Nothing is open, waiting or under way."""
    busy = (
        (series, (SeriesState.RECEIVING, SeriesState.SEALED)),
        (run, (RunState.WAITING, RunState.RUNNING)),
        (delivery, (DeliveryState.WAITING, DeliveryState.SENDING)),
    )
    return all(
        tx.scalar(select(func.count()).select_from(table).where(table.c.state.in_(states))) == 0
        for table, states in busy
    )
