"""Rows about objects that a rejection note names, whether they came before the note or after it (design §6)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from node.model import EXPIRED, REJECTIONS, InstanceState, RunState, SeriesState
from node.store import deliveries, intake
from node.store.database import move, rows
from node.store.schema import delivery, instance, measurement, product, rejection, run, run_input, series

_HERE = (InstanceState.KEPT, InstanceState.FETCHED, InstanceState.CONFLICT, InstanceState.UNREADABLE)
_CHUNK = 500


def words(code: str, note_id: int) -> str:
    """Why an object is rejected, for its reason and for events."""
    return f"{REJECTIONS[code]} ({code}, DCM), says rejection note {note_id}"


def remember(tx: Connection, uids: Collection[str], code: str, note_id: int, now: datetime) -> None:
    """From now on these UIDs stand for rejected objects; one whose objects merely expired may get worse."""
    known: dict[str, str] = {}
    for part in _chunks(uids):
        where = rejection.c.sop_uid.in_(part)
        columns = (rejection.c.sop_uid, rejection.c.code)
        known.update({row.sop_uid: row.code for row in tx.execute(select(*columns).where(where))})
    values = {"code": code, "instance_id": note_id, "at": now}
    fresh = [{"sop_uid": uid, **values} for uid in uids if uid not in known]
    if fresh:
        tx.execute(insert(rejection), fresh)
    if code != EXPIRED:
        for part in _chunks([uid for uid, other in known.items() if other == EXPIRED]):
            tx.execute(update(rejection).where(rejection.c.sop_uid.in_(part)).values(**values))


_REJECTED = select(rejection.c.code, rejection.c.instance_id).where(
    (rejection.c.sop_uid == bindparam("uid")) & (rejection.c.code != EXPIRED)
)


def why_rejected(tx: Connection, sop_uid: str) -> str:
    """Why an object that comes under this UID is rejected; empty where it is not. Asked for every object."""
    found = tx.execute(_REJECTED, {"uid": sop_uid}).first() if sop_uid else None
    return words(*found) if found else ""


def named(tx: Connection, uids: Collection[str]) -> list[Mapping[str, Any]]:
    """The objects here under these UIDs, with the UIDs of their series."""
    found: list[Mapping[str, Any]] = []
    for part in _chunks(uids):
        where = instance.c.sop_uid.in_(part) & instance.c.state.in_(_HERE)
        found += rows(
            tx,
            select(instance, series.c.study_uid, series.c.series_uid)
            .outerjoin(series, series.c.id == instance.c.series_id)
            .where(where)
            .order_by(instance.c.id),
        )
    return found


def reject(tx: Connection, ids: Sequence[int], why: str, now: datetime) -> None:
    """These objects are rejected, and what waits to be sent of them is not sent."""
    for part in _chunks(ids):
        where = instance.c.id.in_(part) & instance.c.state.in_(_HERE)
        tx.execute(
            update(instance).where(where).values(state=InstanceState.REJECTED, reason=f"rejected: {why}")
        )
        waiting = select(delivery.c.id).where(delivery.c.instance_id.in_(part))
        deliveries.cancel_deliveries(tx, tx.scalars(waiting), f"rejected: {why}", now)


def revisions_of(tx: Connection, study_uid: str, series_uid: str) -> list[Mapping[str, Any]]:
    """All revisions of a series, oldest first, without their facts."""
    columns = [c for c in series.c if c.name != "facts"]
    where = (series.c.study_uid == study_uid) & (series.c.series_uid == series_uid)
    return rows(tx, select(*columns).where(where).order_by(series.c.revision))


def runs_using(tx: Connection, series_ids: Sequence[int], ids: Collection[int]) -> list[Mapping[str, Any]]:
    """The runs over these revisions, alone or beside others, that take one of these objects; none that withdraws."""
    beside = select(run_input.c.run_id).where(run_input.c.series_id.in_(series_ids))
    where = (run.c.series_id.in_(series_ids) | run.c.id.in_(beside)) & (run.c.withdraws == 0)
    wanted = set(ids)
    found = rows(tx, select(run).where(where).order_by(run.c.id))
    return [row for row in found if wanted.intersection(json.loads(row["files"]))]


def busy_runs_using(tx: Connection, series_id: int, instance_id: int) -> list[Mapping[str, Any]]:
    """The runs that wait or work over any revision of a series and take this object."""
    columns = select(series.c.study_uid, series.c.series_uid)
    row = tx.execute(columns.where(series.c.id == series_id)).one()
    found = runs_using(tx, [of["id"] for of in revisions_of(tx, *row)], [instance_id])
    return [of for of in found if of["state"] in (RunState.WAITING, RunState.RUNNING)]


def end_run(tx: Connection, run_id: int, why: str, now: datetime) -> bool:
    """Waiting | running | done → cancelled, and what waits of its results is not sent; False when it had ended."""
    busy = (RunState.WAITING, RunState.RUNNING, RunState.DONE)
    if not move(tx, run, run_id, RunState.CANCELLED, expected=busy, reason=why, finished_at=now):
        return False
    made = select(product.c.id).where(product.c.run_id == run_id)
    waiting = select(delivery.c.id).where(delivery.c.product_id.in_(made))
    deliveries.cancel_deliveries(tx, tx.scalars(waiting), why, now)
    return True


def forget_measurements(tx: Connection, run_ids: Sequence[int]) -> int:
    """Numbers that rest on rejected objects are numbers no more; how many there were."""
    return tx.execute(delete(measurement).where(measurement.c.run_id.in_(run_ids))).rowcount


def products_named(tx: Connection, uids: Collection[str]) -> list[Mapping[str, Any]]:
    """Results of ours under these UIDs, with the series they were made from."""
    found: list[Mapping[str, Any]] = []
    for part in _chunks(uids):
        columns = (product.c.id, product.c.run_id, run.c.series_id)
        statement = select(*columns).join(run, run.c.id == product.c.run_id)
        found += rows(tx, statement.where(product.c.sop_uid.in_(part)).order_by(product.c.id))
    return found


def cancel_products(tx: Connection, ids: Sequence[int], why: str, now: datetime) -> None:
    """What waits to be sent of these results is not sent."""
    for part in _chunks(ids):
        waiting = select(delivery.c.id).where(delivery.c.product_id.in_(part))
        deliveries.cancel_deliveries(tx, tx.scalars(waiting), why, now)


def left(tx: Connection, members: Iterable[int]) -> tuple[int, int]:
    """How many of these objects are still kept, and how many were rejected."""
    states = [row["state"] for row in intake.instances_of(tx, members)]
    return states.count(InstanceState.KEPT) + states.count(InstanceState.FETCHED), states.count(
        InstanceState.REJECTED
    )


def reject_series(tx: Connection, series_id: int, why: str) -> bool:
    """All objects of a revision are rejected; False when it was said before."""
    states = [state for state in SeriesState if state is not SeriesState.REJECTED]
    return move(tx, series, series_id, SeriesState.REJECTED, expected=tuple(states), reason=why)


def _chunks(found: Iterable[Any]) -> Iterator[list[Any]]:
    whole = list(found)
    for start in range(0, len(whole), _CHUNK):
        yield whole[start : start + _CHUNK]
