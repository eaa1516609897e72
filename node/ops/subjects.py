"""What retention looks at: each kept revision of a series, and each object that belongs to none, with its facts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.ops.retention import Facts
from node.settings import Settings
from node.store.database import rows
from node.store.intake import RELEASED
from node.store.schema import (
    delivery,
    event,
    instance,
    product,
    run,
    run_input,
    series,
    study_rule,
    wanted_prior,
)
from node.store.studies import WAITING

GROUP = 200
"""Revisions or objects per look at the tables."""
WITH_FILE = (
    InstanceState.KEPT, InstanceState.REPLACED, InstanceState.CONFLICT, InstanceState.UNREADABLE,
    InstanceState.REJECTED, InstanceState.FETCHED,
)  # fmt: skip
"""States of received objects whose file is there."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One revision of a series, or one object that belongs to none."""

    id: int
    of_series: bool
    facts: Facts
    newer: tuple[int, ...] = ()
    """Later revisions that are still kept."""
    objects: int = 0
    results: int = 0
    bytes: int = 0
    """Of the received objects."""


def series_before(tx: Connection, before: int | None) -> list[int]:
    """The next revisions whose files are kept, newest first, with ids below *before*."""
    statement = select(series.c.id).where(series.c.removed_at.is_(None))
    return _next(tx, statement, series.c.id, before)


def loose_before(tx: Connection, before: int | None) -> list[int]:
    """The next objects that belong to no series, in the same way."""
    where = instance.c.series_id.is_(None) & instance.c.state.in_(WITH_FILE)
    return _next(tx, select(instance.c.id).where(where), instance.c.id, before)


def _next(tx: Connection, statement: Select[Any], column: Any, before: int | None) -> list[int]:
    if before is not None:
        statement = statement.where(column < before)
    return list(tx.scalars(statement.order_by(column.desc()).limit(GROUP)))


def subjects_of(tx: Connection, ids: Sequence[int], settings: Settings, *, of_series: bool) -> list[Subject]:
    """The facts of these series revisions or loose objects, in the order of *ids*, from few queries for all."""
    if not ids:
        return []
    return _revisions(tx, ids, settings) if of_series else _loose(tx, ids, settings)


def _revisions(tx: Connection, ids: Sequence[int], settings: Settings) -> list[Subject]:
    columns = [
        series.c[name] for name in ("id", "state", "held", "last_at", "sealed_at", "study_uid", "prior")
    ]
    found = {row["id"]: row for row in rows(tx, select(*columns).where(series.c.id.in_(ids)))}
    objects = {
        key: (count, size)
        for key, count, size in tx.execute(
            select(instance.c.series_id, func.count(), func.sum(instance.c.size))
            .where(instance.c.series_id.in_(ids) & instance.c.state.in_(WITH_FILE))
            .group_by(instance.c.series_id)
        )
    }
    results = _counted(
        tx, select(run.c.series_id, func.count()).join(product, product.c.run_id == run.c.id)
        .where(run.c.series_id.in_(ids)).group_by(run.c.series_id),
    )  # fmt: skip
    events = select(event.c.series_id, func.max(event.c.at)).where(event.c.series_id.in_(ids))
    changed: dict[int, list[datetime]] = defaultdict(list)
    for key, at in tx.execute(events.group_by(event.c.series_id)):
        changed[key].append(at)
    runs, newer = _runs(tx, ids, changed), _newer(tx, ids)
    sent = _deliveries(tx, _of_series(ids), settings)
    return [
        Subject(
            key, True,
            _facts(
                Facts(
                    changed_at=max(at for at in (*changed[key], row["last_at"], row["sealed_at"]) if at),
                    state=SeriesState(row["state"]),
                    held="" if row["held"] == RELEASED else row["held"],
                    runs=frozenset(runs[key]),
                    prior=bool(row["prior"]),
                ),
                sent[key],
            ),
            tuple(newer[key]), *_sizes(objects.get(key), results.get(key, 0)),
        )
        for key in ids if (row := found.get(key)) is not None
    ]  # fmt: skip


def _sizes(objects: tuple[int, int] | None, results: int) -> tuple[int, int, int]:
    count, size = objects or (0, 0)
    return count, results, int(size or 0)


def _loose(tx: Connection, ids: Sequence[int], settings: Settings) -> list[Subject]:
    where = instance.c.id.in_(ids) & instance.c.series_id.is_(None) & instance.c.state.in_(WITH_FILE)
    columns = [instance.c[name] for name in ("id", "state", "size", "received_at")]
    found = {row["id"]: row for row in rows(tx, select(*columns).where(where))}
    own = select(delivery.c.instance_id.label("key"), *_DELIVERY).where(delivery.c.instance_id.in_(ids))
    sent = _deliveries(tx, [own], settings)
    aside = (InstanceState.CONFLICT, InstanceState.UNREADABLE)
    return [
        Subject(
            key, False,
            _facts(Facts(changed_at=row["received_at"], aside=row["state"] in aside,
                         prior=row["state"] == InstanceState.FETCHED), sent[key]),
            objects=1, bytes=row["size"],
        )
        for key in ids if (row := found.get(key)) is not None
    ]  # fmt: skip


@dataclass(slots=True)
class _Sent:
    """Deliveries of one subject, summed up."""

    states: set[DeliveryState] = field(default_factory=set)
    uncommitted: bool = False
    waiting: list[datetime] = field(default_factory=list)
    finished: list[datetime] = field(default_factory=list)


_DELIVERY = (
    delivery.c.state, delivery.c.destination, func.min(delivery.c.created_at).label("created"),
    func.max(delivery.c.finished_at).label("finished"),
)  # fmt: skip


def _of_series(ids: Sequence[int]) -> list[Select[Any]]:
    """Deliveries of the objects, then of the results, of these revisions."""
    received = select(instance.c.series_id.label("key"), *_DELIVERY).join_from(
        delivery, instance, instance.c.id == delivery.c.instance_id
    )
    made = (
        select(run.c.series_id.label("key"), *_DELIVERY)
        .join_from(delivery, product, product.c.id == delivery.c.product_id)
        .join(run, run.c.id == product.c.run_id)
    )
    return [received.where(instance.c.series_id.in_(ids)), made.where(run.c.series_id.in_(ids))]


def _deliveries(tx: Connection, asked: Iterable[Select[Any]], settings: Settings) -> Mapping[int, _Sent]:
    found: dict[int, _Sent] = defaultdict(_Sent)
    for statement in asked:
        grouped = statement.group_by("key", delivery.c.state, delivery.c.destination)
        for key, state, to, created, finished in tx.execute(grouped):
            sent = found[key]
            sent.states.add(DeliveryState(state))
            over = state in (DeliveryState.STORED, DeliveryState.COMMITTED, DeliveryState.CANCELLED)
            if state == DeliveryState.STORED and commits(settings, to):
                sent.uncommitted, over = True, False
            if not over:
                sent.waiting.append(created)
            elif finished is not None:
                sent.finished.append(finished)
    return found


def commits(settings: Settings, destination: str) -> bool:
    """Whether what is stored there is only safe when the destination has committed to it."""
    peer = settings.peers.get(destination)
    return bool(peer is not None and peer.commit)


def _facts(facts: Facts, sent: _Sent) -> Facts:
    return replace(
        facts,
        changed_at=max((facts.changed_at, *sent.finished)),
        deliveries=frozenset(sent.states),
        uncommitted=sent.uncommitted,
        waiting_since=min(sent.waiting, default=None),
    )


def _runs(
    tx: Connection, ids: Sequence[int], changed: dict[int, list[datetime]]
) -> Mapping[int, set[RunState]]:
    """States of the runs over these revisions, and of runs over others of their studies that use their objects."""
    found: dict[int, set[RunState]] = defaultdict(set)
    own = select(run.c.series_id, run.c.state, func.max(run.c.finished_at), func.max(run.c.created_at))
    for key, state, finished, created in tx.execute(
        own.where(run.c.series_id.in_(ids)).group_by(run.c.series_id, run.c.state)
    ):
        found[key].add(RunState(state))
        changed[key] += [at for at in (finished, created) if at is not None]
    lasting = (RunState.WAITING, RunState.RUNNING, RunState.REFUSED, RunState.QUARANTINED)
    beside = series.alias()
    shared = (
        select(run.c.id, run.c.state, run.c.files)
        .join(series, series.c.id == run.c.series_id)
        .join(beside, (beside.c.study_uid == series.c.study_uid) & (beside.c.id != series.c.id))
        .where(beside.c.id.in_(ids) & run.c.state.in_(lasting))
        .distinct()
    )
    for _, state, files in tx.execute(shared):
        used = json.loads(files)
        for start in range(0, len(used), 500):
            owners = (
                select(instance.c.series_id).where(instance.c.id.in_(used[start : start + 500])).distinct()
            )
            for key in tx.scalars(owners):
                found[key].add(RunState(state))
    for key, state in tx.execute(
        _taken(ids, lasting)
    ):  # by a rule over a study, as a prior also of another one
        found[key].add(RunState(state))
    for key in tx.scalars(_waited_for(ids)):
        found[key].add(RunState.WAITING)
    return found


def _taken(ids: Sequence[int], lasting: Sequence[RunState]) -> Select[Any]:
    states = run.c.state.in_(lasting) & run_input.c.series_id.in_(ids)
    return select(run_input.c.series_id, run.c.state).join(run, run.c.id == run_input.c.run_id).where(states)


def _waited_for(ids: Sequence[int]) -> Select[Any]:
    """The series of studies of which a rule waits for an input: it needs what is there as well."""
    waits = select(study_rule.c.study_uid).where(
        study_rule.c.due_at.is_not(None) & (study_rule.c.state == WAITING)
    )
    fetched = select(wanted_prior.c.series_id).where(
        wanted_prior.c.study_uid.in_(waits) & wanted_prior.c.series_id.is_not(None)
    )
    needed = series.c.study_uid.in_(waits) | series.c.id.in_(fetched)
    return select(series.c.id).where(series.c.id.in_(ids) & needed)


def _newer(tx: Connection, ids: Sequence[int]) -> Mapping[int, list[int]]:
    later = series.alias()
    statement = select(series.c.id, later.c.id).join(
        later,
        (later.c.study_uid == series.c.study_uid)
        & (later.c.series_uid == series.c.series_uid)
        & (later.c.revision > series.c.revision)
        & later.c.removed_at.is_(None),
    )
    found: dict[int, list[int]] = defaultdict(list)
    for key, other in tx.execute(statement.where(series.c.id.in_(ids))):
        found[key].append(other)
    return found


def _counted(tx: Connection, statement: Select[Any]) -> dict[int, int]:
    return {int(key): int(count) for key, count in tx.execute(statement)}
