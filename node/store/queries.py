"""What people ask the tables: each function answers one question with plain rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from node.model import DeliveryState, RunState, SeriesState
from node.store.database import rows
from node.store.intake import count_by_state
from node.store.schema import delivery, destination, event, instance, measurement, product, run, series

_SERIES = [c for c in series.c if c.name not in ("facts", "patient_id", "issuer", "accession")]
_RUN = [c for c in run.c if c.name not in ("plan", "sends", "files")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows to list; an empty text and 0 ask for all."""

    state: str = ""
    series: str = ""
    """Id or Series Instance UID."""
    run: int = 0
    destination: str = ""
    status: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Search:
    """What `find` looks for."""

    accession: str = ""
    patient: str = ""
    study: str = ""
    since: datetime | None = None
    limit: int = 200


def overview(tx: Connection) -> dict[str, Any]:
    """Counts by state, what is open longest, and the destinations that are down."""
    open_since = select(func.min(delivery.c.created_at)).where(delivery.c.state == DeliveryState.WAITING)
    return {
        "instances": count_by_state(tx, instance),
        "series": count_by_state(tx, series),
        "runs": count_by_state(tx, run),
        "deliveries": count_by_state(tx, delivery),
        "oldest_waiting_delivery": tx.scalar(open_since),
        "destinations": rows(tx, select(destination).order_by(destination.c.name)),
    }


def list_series(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Series revisions, newest first."""
    statement = select(*_SERIES).order_by(series.c.id.desc()).limit(wanted.limit)
    if wanted.state:
        statement = statement.where(series.c.state == wanted.state)
    return rows(tx, _of_series(statement, wanted.series))


def _of_series(statement: Select[Any], ref: str) -> Select[Any]:
    if not ref:
        return statement
    return statement.where(series.c.id == int(ref) if ref.isdigit() else series.c.series_uid == ref)


def series_by_ref(tx: Connection, ref: str) -> Mapping[str, Any] | None:
    """The newest revision that an id or a Series Instance UID names, without its facts."""
    columns = [c for c in series.c if c.name != "facts"]
    found = rows(tx, _of_series(select(*columns).order_by(series.c.id.desc()).limit(1), ref))
    return found[0] if found else None


def list_runs(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Runs with the number of objects they made, newest first."""
    made = select(func.count()).where(product.c.run_id == run.c.id).scalar_subquery().label("products")
    statement = select(*_RUN, made).join(series, series.c.id == run.c.series_id)
    statement = statement.order_by(run.c.id.desc()).limit(wanted.limit)
    if wanted.state:
        statement = statement.where(run.c.state == wanted.state)
    if wanted.run:
        statement = statement.where(run.c.id == wanted.run)
    return rows(tx, _of_series(statement, wanted.series))


def list_deliveries(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Deliveries in groups that share destination, state, rule, SOP class, status and reason."""
    sop_class = func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class")
    group = (
        delivery.c.destination, delivery.c.state, delivery.c.rule, sop_class, delivery.c.status, delivery.c.reason,
    )  # fmt: skip
    statement = (
        select(
            *group,
            func.count().label("objects"),
            func.min(delivery.c.created_at).label("oldest"),
            func.min(delivery.c.due_at).label("due_at"),
        )
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .group_by(*group)
        .order_by(delivery.c.destination, delivery.c.state)
        .limit(wanted.limit)
    )
    return rows(tx, _of_delivery(statement, wanted))


def _of_delivery(statement: Select[Any], wanted: Wanted) -> Select[Any]:
    if wanted.series or wanted.run:
        runs = select(run.c.id)
        if wanted.run:
            runs = runs.where(run.c.id == wanted.run)
        if wanted.series:
            runs = runs.where(run.c.series_id.in_(_of_series(select(series.c.id), wanted.series)))
        what: ColumnElement[bool] = delivery.c.product_id.in_(
            select(product.c.id).where(product.c.run_id.in_(runs))
        )
        if not wanted.run:
            ids = _of_series(select(series.c.id), wanted.series)
            received = select(instance.c.id).where(instance.c.series_id.in_(ids))
            what = or_(what, delivery.c.instance_id.in_(received))
        statement = statement.where(what)
    if wanted.state:
        statement = statement.where(delivery.c.state == wanted.state)
    if wanted.destination:
        statement = statement.where(delivery.c.destination == wanted.destination)
    if wanted.status is not None:
        statement = statement.where(delivery.c.status == wanted.status)
    return statement


def delivery_ids(tx: Connection, wanted: Wanted) -> list[int]:
    """The deliveries that *wanted* names, for a group action."""
    return [int(i) for i in tx.scalars(_of_delivery(select(delivery.c.id), wanted))]


def list_events(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Events, newest first; of one series with all its runs, or of one run."""
    statement = select(event).order_by(event.c.id.desc()).limit(wanted.limit)
    if wanted.run:
        statement = statement.where(event.c.run_id == wanted.run)
    if wanted.series:
        ids = _of_series(select(series.c.id), wanted.series)
        runs = select(run.c.id).where(run.c.series_id.in_(ids))
        statement = statement.where(or_(event.c.series_id.in_(ids), event.c.run_id.in_(runs)))
    if wanted.destination:
        statement = statement.where(event.c.destination == wanted.destination)
    return rows(tx, statement)


def list_instances(tx: Connection, state: str, limit: int = 50) -> list[Mapping[str, Any]]:
    """Received objects in one state: the ones kept aside, for example."""
    return rows(
        tx, select(instance).where(instance.c.state == state).order_by(instance.c.id.desc()).limit(limit)
    )


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
    if search.since:
        statement = statement.where(series.c.last_at >= search.since)
    return rows(tx, statement)


def measurements_of(tx: Connection, run_id: int) -> list[Mapping[str, Any]]:
    """The numbers of one run."""
    return rows(tx, select(measurement).where(measurement.c.run_id == run_id).order_by(measurement.c.id))


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
