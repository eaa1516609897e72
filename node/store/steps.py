"""Rows of performed procedure steps (MPPS, PS3.4 F.7): what modalities say of their work."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from node.performed import PerformedSeries, StepState
from node.store.database import add, rows
from node.store.schema import instance, series, step, step_series

_MOST = 500
"""Ids of one statement."""


def find(tx: Connection, peer: str, sop_uid: str) -> Mapping[str, Any] | None:
    """The step that this peer told of under this SOP Instance UID."""
    found = rows(tx, select(step).where((step.c.peer == peer) & (step.c.sop_uid == sop_uid)))
    return found[0] if found else None


def add_step(tx: Connection, **values: Any) -> int:
    """A step that somebody told of for the first time."""
    return add(tx, step, **values)


def change(tx: Connection, key: int, state: StepState, now: datetime, **values: Any) -> None:
    """A step goes on, or is over."""
    tx.execute(update(step).where(step.c.id == key).values(state=state, changed_at=now, **values))


def name_series(tx: Connection, key: int, named: Iterable[PerformedSeries]) -> None:
    """What the step made, instead of what was said of that before (PS3.4 F.7.2.2.2)."""
    tx.execute(delete(step_series).where(step_series.c.step_id == key))
    for one in named:
        blob = zlib.compress(json.dumps(one.objects).encode())
        count = len(one.objects)
        add(tx, step_series, step_id=key, series_uid=one.series_uid, objects=count, named=blob)


def of_series(tx: Connection, series_uid: str) -> list[Mapping[str, Any]]:
    """What steps say of one series: `step` (id), `peer`, `state`, `objects`, and `named`, their SOP Instance UIDs."""
    columns = (step.c.id.label("step"), step.c.peer, step.c.state, step_series.c.objects, step_series.c.named)
    found = select(*columns).join(step_series, step_series.c.step_id == step.c.id)
    there = rows(tx, found.where(step_series.c.series_uid == series_uid).order_by(step.c.id))
    return [{**row, "named": frozenset(json.loads(zlib.decompress(row["named"])))} for row in there]


def series_of(tx: Connection, key: int) -> list[Mapping[str, Any]]:
    """The newest revision of each series that a step names: `id`, `state`, `instances`, and `objects` named."""
    later = series.alias()
    newer = (later.c.series_uid == series.c.series_uid) & (later.c.study_uid == series.c.study_uid)
    last = ~select(later.c.id).where(newer & (later.c.revision > series.c.revision)).exists()
    columns = (
        series.c.id,
        series.c.state,
        series.c.instances,
        step_series.c.objects,
        step_series.c.series_uid,
    )
    found = select(*columns).join(step_series, step_series.c.series_uid == series.c.series_uid)
    return rows(tx, found.where((step_series.c.step_id == key) & last).order_by(series.c.id))


def uids_of(tx: Connection, ids: Iterable[int]) -> set[str]:
    """The SOP Instance UIDs of instances."""
    wanted, found = list(ids), set[str]()
    for start in range(0, len(wanted), _MOST):
        part = wanted[start : start + _MOST]
        found.update(
            uid for uid in tx.scalars(select(instance.c.sop_uid).where(instance.c.id.in_(part))) if uid
        )
    return found


def forget(tx: Connection, before: datetime) -> None:
    """Steps that nobody spoke of since are not kept for ever."""
    old = select(step.c.id).where(step.c.changed_at < before)
    tx.execute(delete(step_series).where(step_series.c.step_id.in_(old)))
    tx.execute(delete(step).where(step.c.changed_at < before))
