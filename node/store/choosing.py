"""Which rows a person means: series, runs and deliveries by state, destination, rule, study or time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true

from node.store.deliveries import DELIVERIES
from node.store.schema import delivery, instance, product, run, run_input, series


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


def series_like(wanted: Wanted) -> ColumnElement[bool]:
    """The revisions of series that *wanted* names."""
    where = equal(
        (series.c.state, wanted.state),
        (series.c.study_uid, wanted.study),
        (series.c.accession, wanted.accession),
    )
    if wanted.series:
        where &= is_series(wanted.series)
    return where & within(series.c.last_at, wanted)


def run_like(wanted: Wanted) -> ColumnElement[bool]:
    """The runs that *wanted* names."""
    where = equal((run.c.state, wanted.state), (run.c.id, wanted.run), (run.c.rule, wanted.rule))
    if (of_series := named_series(wanted)) is not None:
        beside = select(run_input.c.run_id).where(run_input.c.series_id.in_(of_series))
        where &= run.c.series_id.in_(of_series) | run.c.id.in_(beside)
    if wanted.shadow:
        where &= run.c.shadow
    return where & within(run.c.created_at, wanted)


def named_series(wanted: Wanted) -> Select[Any] | None:
    """The ids of the series that a series, study or accession number names; None where none is given."""
    if not (wanted.series or wanted.study or wanted.accession):
        return None
    named = Wanted(series=wanted.series, study=wanted.study, accession=wanted.accession)
    return select(series.c.id).where(series_like(named))


def delivery_like(wanted: Wanted) -> ColumnElement[bool]:
    """The deliveries that *wanted* names, among `DELIVERIES`."""
    where = equal(
        (delivery.c.state, wanted.state), (delivery.c.destination, wanted.destination),
        (delivery.c.rule, wanted.rule), (product.c.run_id, wanted.run),
        (func.coalesce(instance.c.sop_class, product.c.sop_class), wanted.sop_class),
    )  # fmt: skip
    if (of_series := named_series(wanted)) is not None:
        where &= or_(run.c.series_id.in_(of_series), instance.c.series_id.in_(of_series))
    if wanted.status is not None:
        where &= delivery.c.status == wanted.status
    return where & within(delivery.c.created_at, wanted)


def series_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series (itself) of each revision that *wanted* names."""
    columns = (series.c.id, series.c.state, series.c.id.label("series_id"))
    return select(*columns).where(series_like(wanted)).order_by(series.c.id)


def runs_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series of each run that *wanted* names."""
    return select(run.c.id, run.c.state, run.c.series_id).where(run_like(wanted)).order_by(run.c.id)


def deliveries_chosen(wanted: Wanted) -> Select[Any]:
    """Id, state and series of each delivery that *wanted* names, for an act on a group."""
    of_series = func.coalesce(instance.c.series_id, run.c.series_id).label("series_id")
    statement = select(delivery.c.id, delivery.c.state, of_series).select_from(DELIVERIES)
    return statement.where(delivery_like(wanted)).order_by(delivery.c.id)


def is_series(ref: str) -> ColumnElement[bool]:
    """The revisions that an id or a Series Instance UID names."""
    return series.c.id == int(ref) if ref.isdigit() and len(ref) < 19 else series.c.series_uid == ref


def equal(*asked: tuple[Any, Any]) -> ColumnElement[bool]:
    """Every column has the value asked for; an empty one asks for nothing."""
    return and_(true(), *(column == value for column, value in asked if value))


def within(column: Any, wanted: Wanted) -> ColumnElement[bool]:
    """The column lies in the time asked for."""
    where: ColumnElement[bool] = true()
    if wanted.since:
        where &= column >= wanted.since
    if wanted.before:
        where &= column <= wanted.before
    return where
