"""What happened to a study's series: receptions, events and deliveries, as `find` puts them in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, or_, select

from node.store.database import rows
from node.store.deliveries import DELIVERIES
from node.store.schema import delivery, event, instance, product, run


def received(tx: Connection, series_ids: Sequence[int]) -> list[Mapping[str, Any]]:
    """How many objects came with each revision from each peer, the time of the first and of the last."""
    statement = (
        select(
            instance.c.series_id,
            instance.c.peer,
            func.count().label("objects"),
            func.min(instance.c.received_at).label("first"),
            func.max(instance.c.received_at).label("last"),
        )
        .where(instance.c.series_id.in_(series_ids))
        .group_by(instance.c.series_id, instance.c.peer)
    )
    return rows(tx, statement)


def events(tx: Connection, series_ids: Sequence[int], most: int = 2000) -> list[Mapping[str, Any]]:
    """The newest events of these series, their runs and their objects, in order.

    An object that was set aside belongs to no series: it counts to the one that holds its SOP Instance UID.
    """
    of_runs = select(run.c.id).where(run.c.series_id.in_(series_ids))
    uids = select(instance.c.sop_uid).where(instance.c.series_id.in_(series_ids))
    set_aside = select(instance.c.id).where(instance.c.series_id.is_(None) & instance.c.sop_uid.in_(uids))
    where = or_(
        event.c.series_id.in_(series_ids), event.c.run_id.in_(of_runs), event.c.instance_id.in_(set_aside)
    )
    newest = rows(tx, select(event).where(where).order_by(event.c.id.desc()).limit(most))
    return list(reversed(newest))


def last_word(tx: Connection, series_id: int, *names: str) -> str:
    """What the newest event of one of these names says of a series; empty where there is none."""
    where = (event.c.series_id == series_id) & event.c.name.in_(names)
    return tx.scalar(select(event.c.detail).where(where).order_by(event.c.id.desc()).limit(1)) or ""


def deliveries(tx: Connection, series_ids: Sequence[int]) -> list[Mapping[str, Any]]:
    """Deliveries of these series' objects and results, in groups of one destination, rule, run, state and reason."""
    of_series = func.coalesce(instance.c.series_id, run.c.series_id)
    group = (
        delivery.c.destination, delivery.c.state, delivery.c.rule, delivery.c.reason, product.c.run_id,
        of_series.label("series_id"),
    )  # fmt: skip
    statement = (
        select(
            *group,
            func.count().label("objects"),
            func.min(delivery.c.created_at).label("made"),
            func.max(delivery.c.finished_at).label("finished"),
        )
        .select_from(DELIVERIES)
        .where(of_series.in_(series_ids))
        .group_by(
            delivery.c.destination,
            delivery.c.state,
            delivery.c.rule,
            delivery.c.reason,
            product.c.run_id,
            of_series,
        )
    )
    return rows(tx, statement)
