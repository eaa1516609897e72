"""What people ask the tables: each function answers one question with plain rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, or_, select

from node.model import DeliveryState
from node.store.choosing import (
    Wanted,
    delivery_like,
    equal,
    is_series,
    named_series,
    run_like,
    series_like,
    within,
)
from node.store.database import rows
from node.store.deliveries import DELIVERIES
from node.store.schema import delivery, destination, event, instance, measurement, product, run, series
from node.words import counted

_SERIES = [c for c in series.c if c.name not in ("facts", "patient_id", "issuer", "accession")]
_RUN = [c for c in run.c if c.name not in ("plan", "sends", "files")]


@dataclass(frozen=True, slots=True)
class Search:
    """What `find` looks for."""

    accession: str = ""
    patient: str = ""
    study: str = ""
    since: datetime | None = None
    limit: int = 200
    series: str = ""
    """Id or Series Instance UID."""
    run: int = 0


def list_series(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Series revisions, newest first."""
    statement = select(*_SERIES).order_by(series.c.id.desc()).limit(wanted.limit)
    return rows(tx, statement.where(series_like(wanted)))


def series_by_ref(tx: Connection, ref: str) -> Mapping[str, Any] | None:
    """The newest revision that an id or a Series Instance UID names, without its facts."""
    columns = [c for c in series.c if c.name != "facts"]
    found = rows(tx, select(*columns).where(is_series(ref)).order_by(series.c.id.desc()).limit(1))
    return found[0] if found else None


def list_runs(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Runs with the number of objects they made, newest first."""
    made = select(func.count()).where(product.c.run_id == run.c.id).scalar_subquery().label("products")
    statement = select(*_RUN, made).join(series, series.c.id == run.c.series_id)
    statement = statement.order_by(run.c.id.desc()).limit(wanted.limit)
    return [_with_inputs(row) for row in rows(tx, statement.where(run_like(wanted)))]


def _with_inputs(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a run over a study, the series it takes instead of their JSON."""
    taken = json.loads(row["inputs"]) if row["inputs"] else []
    inputs = {name: {"series_id": key, "objects": count} for name, key, count in taken}
    said = ", ".join(f"{name} {key}" for name, key, _ in taken)
    return {**row, "inputs": inputs, "takes": said}


def list_deliveries(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Deliveries in groups that share destination, state, rule, SOP class, status and, but for parked ones, reason.

    What only waits because its destination is down has no reason of its own: it tells the destination's. Parked
    ones with one status differ in their reasons only in what names the single object: one of them is told.
    """
    apart = case((delivery.c.state == DeliveryState.PARKED, ""), else_=delivery.c.reason)
    sop_class = func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class")
    group = (
        delivery.c.destination, delivery.c.state, delivery.c.rule, sop_class, delivery.c.status,
    )  # fmt: skip
    statement = (
        select(
            *group,
            func.min(delivery.c.reason).label("reason"),
            func.count(delivery.c.reason.distinct()).label("reasons"),
            func.count().label("objects"),
            func.min(delivery.c.created_at).label("oldest"),
            func.min(delivery.c.due_at).label("due_at"),
        )
        .select_from(DELIVERIES)
        .where(delivery_like(wanted))
        .group_by(*group, apart)
        .order_by(delivery.c.destination, delivery.c.state, func.min(delivery.c.id))
        .limit(wanted.limit)
    )
    down = {
        row["name"]: f"{row['name']} is down: {row['reason']}"
        for row in rows(tx, select(destination).where(destination.c.down))
    }
    return [_told(row, down) for row in rows(tx, statement)]


def _told(row: Mapping[str, Any], down: Mapping[str, str]) -> Mapping[str, Any]:
    """A group with its reason in words, which may be its destination's."""
    reason, others = row["reason"], row["reasons"] - 1
    if not reason and row["state"] == DeliveryState.WAITING:
        reason = down.get(row["destination"], "")
    if others:
        reason += f" (and {counted(others, 'other reason')})"
    return {**{key: value for key, value in row.items() if key != "reasons"}, "reason": reason}


def list_events(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Events, newest first; of one series with all its runs, or of one run."""
    statement = select(event).order_by(event.c.id.desc()).limit(wanted.limit)
    if wanted.run:
        statement = statement.where(event.c.run_id == wanted.run)
    if wanted.series:
        ids = select(series.c.id).where(is_series(wanted.series))
        runs = select(run.c.id).where(run.c.series_id.in_(ids))
        statement = statement.where(or_(event.c.series_id.in_(ids), event.c.run_id.in_(runs)))
    if wanted.destination:
        statement = statement.where(event.c.destination == wanted.destination)
    return rows(tx, statement.where(within(event.c.at, wanted)))


def list_instances(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Received objects, newest first: the ones in one state that were set aside, for example."""
    where = equal((instance.c.state, wanted.state), (instance.c.sop_class, wanted.sop_class))
    if (of_series := named_series(wanted)) is not None:
        where &= instance.c.series_id.in_(of_series)
    where &= within(instance.c.received_at, wanted)
    return rows(tx, select(instance).where(where).order_by(instance.c.id.desc()).limit(wanted.limit))


def find_series(tx: Connection, search: Search) -> list[Mapping[str, Any]]:
    """Series by accession number, patient ID, Study Instance UID or time, oldest first."""
    columns = [c for c in series.c if c.name != "facts"]
    statement = select(*columns).order_by(series.c.id).limit(search.limit)
    for column, value in (
        (series.c.accession, search.accession),
        (series.c.patient_id, search.patient),
        (series.c.study_uid, search.study),
    ):
        if value:
            statement = statement.where(column == value)
    if search.series:
        statement = statement.where(is_series(search.series))
    if search.run:
        statement = statement.where(series.c.id.in_(select(run.c.series_id).where(run.c.id == search.run)))
    if search.since:
        statement = statement.where(series.c.last_at >= search.since)
    return rows(tx, statement)


def measurements_of(tx: Connection, run_id: int) -> list[Mapping[str, Any]]:
    """The numbers of one run."""
    return rows(tx, select(measurement).where(measurement.c.run_id == run_id).order_by(measurement.c.id))
