"""What people ask the tables: each function answers one question with plain rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select, true

from node.model import DeliveryState, RunState, SeriesState
from node.store.database import one_of, rows
from node.store.intake import count_by_state
from node.store.pledges import PledgeState
from node.store.schema import (
    delivery,
    destination,
    event,
    instance,
    measurement,
    pledge,
    product,
    run,
    run_input,
    series,
)
from node.words import counted

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
    study: str = ""
    accession: str = ""
    rule: str = ""
    sop_class: str = ""
    """SOP Class UID."""
    since: datetime | None = None
    """Made at this time or later: a delivery or run; of a series the last object."""
    before: datetime | None = None
    shadow: bool = False
    """Only runs that send nothing."""


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
        "uncommitted": _uncommitted(tx),
        "pledges": _pledges(tx),
    }


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


def list_series(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Series revisions, newest first."""
    statement = select(*_SERIES).order_by(series.c.id.desc()).limit(wanted.limit)
    return rows(tx, statement.where(series_like(wanted)))


def series_like(wanted: Wanted) -> ColumnElement[bool]:
    """The revisions of series that *wanted* names."""
    where = _equal(
        (series.c.state, wanted.state),
        (series.c.study_uid, wanted.study),
        (series.c.accession, wanted.accession),
    )
    if wanted.series:
        where &= _is_series(wanted.series)
    return where & _within(series.c.last_at, wanted)


def _is_series(ref: str) -> ColumnElement[bool]:
    return series.c.id == int(ref) if ref.isdigit() and len(ref) < 19 else series.c.series_uid == ref


def _equal(*asked: tuple[Any, Any]) -> ColumnElement[bool]:
    """Every column has the value asked for; an empty one asks for nothing."""
    return and_(true(), *(column == value for column, value in asked if value))


def _within(column: Any, wanted: Wanted) -> ColumnElement[bool]:
    where: ColumnElement[bool] = true()
    if wanted.since:
        where &= column >= wanted.since
    if wanted.before:
        where &= column <= wanted.before
    return where


def series_by_ref(tx: Connection, ref: str) -> Mapping[str, Any] | None:
    """The newest revision that an id or a Series Instance UID names, without its facts."""
    columns = [c for c in series.c if c.name != "facts"]
    found = rows(tx, select(*columns).where(_is_series(ref)).order_by(series.c.id.desc()).limit(1))
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


def run_like(wanted: Wanted) -> ColumnElement[bool]:
    """The runs that *wanted* names."""
    where = _equal((run.c.state, wanted.state), (run.c.id, wanted.run), (run.c.rule, wanted.rule))
    if (of_series := _named_series(wanted)) is not None:
        beside = select(run_input.c.run_id).where(run_input.c.series_id.in_(of_series))
        where &= run.c.series_id.in_(of_series) | run.c.id.in_(beside)
    if wanted.shadow:
        where &= run.c.shadow
    return where & _within(run.c.created_at, wanted)


def _named_series(wanted: Wanted) -> Select[Any] | None:
    """The ids of the series that a series, study or accession number names; None where none is given."""
    if not (wanted.series or wanted.study or wanted.accession):
        return None
    named = Wanted(series=wanted.series, study=wanted.study, accession=wanted.accession)
    return select(series.c.id).where(series_like(named))


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


DELIVERIES = (
    delivery.outerjoin(instance, instance.c.id == delivery.c.instance_id)
    .outerjoin(product, product.c.id == delivery.c.product_id)
    .outerjoin(run, run.c.id == product.c.run_id)
)
"""Each delivery with the object it sends and, of a result, the run that made it."""


def delivery_like(wanted: Wanted) -> ColumnElement[bool]:
    """The deliveries that *wanted* names, among `DELIVERIES`."""
    where = _equal(
        (delivery.c.state, wanted.state), (delivery.c.destination, wanted.destination),
        (delivery.c.rule, wanted.rule), (product.c.run_id, wanted.run),
        (func.coalesce(instance.c.sop_class, product.c.sop_class), wanted.sop_class),
    )  # fmt: skip
    if (of_series := _named_series(wanted)) is not None:
        where &= or_(run.c.series_id.in_(of_series), instance.c.series_id.in_(of_series))
    if wanted.status is not None:
        where &= delivery.c.status == wanted.status
    return where & _within(delivery.c.created_at, wanted)


def deliveries_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series of each delivery that *wanted* names, for an act on a group."""
    of_series = func.coalesce(instance.c.series_id, run.c.series_id).label("series_id")
    statement = select(delivery.c.id, delivery.c.state, of_series).select_from(DELIVERIES)
    return statement.where(delivery_like(wanted)).order_by(delivery.c.id)


def runs_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series of each run that *wanted* names."""
    return select(run.c.id, run.c.state, run.c.series_id).where(run_like(wanted)).order_by(run.c.id)


def series_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series (itself) of each revision that *wanted* names."""
    columns = (series.c.id, series.c.state, series.c.id.label("series_id"))
    return select(*columns).where(series_like(wanted)).order_by(series.c.id)


def list_events(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Events, newest first; of one series with all its runs, or of one run."""
    statement = select(event).order_by(event.c.id.desc()).limit(wanted.limit)
    if wanted.run:
        statement = statement.where(event.c.run_id == wanted.run)
    if wanted.series:
        ids = select(series.c.id).where(_is_series(wanted.series))
        runs = select(run.c.id).where(run.c.series_id.in_(ids))
        statement = statement.where(or_(event.c.series_id.in_(ids), event.c.run_id.in_(runs)))
    if wanted.destination:
        statement = statement.where(event.c.destination == wanted.destination)
    return rows(tx, statement.where(_within(event.c.at, wanted)))


def list_instances(tx: Connection, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Received objects, newest first: the ones in one state that were set aside, for example."""
    where = _equal((instance.c.state, wanted.state), (instance.c.sop_class, wanted.sop_class))
    if (of_series := _named_series(wanted)) is not None:
        where &= instance.c.series_id.in_(of_series)
    where &= _within(instance.c.received_at, wanted)
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
        statement = statement.where(_is_series(search.series))
    if search.run:
        statement = statement.where(series.c.id.in_(select(run.c.series_id).where(run.c.id == search.run)))
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
