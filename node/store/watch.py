"""What those who watch the node ask the tables: alerts, readiness, metrics. Each function is one short read.

What is asked often uses an index; what must count a whole table says so, and its callers ask it rarely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.store.database import one_of, rows
from node.store.schema import (
    alert,
    delivery,
    destination,
    event,
    instance,
    meta,
    product,
    run,
    series,
    study_rule,
)
from node.store.studies import WAITING

RULES_PROBLEM = "rules_problem"
"""Key in `meta`: what is wrong with the rule files, while older ones or none are in use."""


_SWEPT = "swept_at"
"""Key in `meta`: when files that nobody needs were looked for last."""


def swept(tx: Connection, now: datetime) -> None:
    """Write down that files go now. What the index says of them is durable with it: their reading was not."""
    tx.execute(delete(meta).where(meta.c.key == _SWEPT))
    tx.execute(insert(meta).values(key=_SWEPT, value=now.isoformat()))


def rules_problem(tx: Connection) -> str:
    """What is wrong with the rule files; empty when the ones in the folder are in use."""
    return tx.scalar(select(meta.c.value).where(meta.c.key == RULES_PROBLEM)) or ""


def destinations_down(tx: Connection) -> list[tuple[str, datetime | None, str]]:
    """Destinations that cannot be reached: name, since when, and why."""
    statement = select(destination.c.name, destination.c.since, destination.c.reason)
    found = tx.execute(statement.where(destination.c.down).order_by(destination.c.name))
    return [(name, since, reason) for name, since, reason in found]


def strangers(tx: Connection) -> frozenset[str]:
    """Destinations that do not know our AE title or not their own: that lasts until a person corrects it."""
    return frozenset(
        tx.scalars(
            select(destination.c.name).where(destination.c.down & (destination.c.kind == "unknown_ae"))
        )
    )


def waiting_bytes(tx: Connection) -> dict[str, int]:
    """Destination → bytes of what waits for it, as they were counted last."""
    statement = select(destination.c.name, destination.c.waiting_bytes).where(destination.c.waiting_bytes > 0)
    return {name: int(size) for name, size in tx.execute(statement)}


def count_waiting_bytes(tx: Connection) -> dict[str, int]:
    """Destination → bytes of the files of all that waits for it, is being sent, is parked or held.

    What waits comes by its partial index; for the rest the whole table of deliveries is read.
    """
    queued = one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING)
    aside = delivery.c.state.in_((DeliveryState.PARKED, DeliveryState.HELD))
    found: dict[str, int] = {}
    for where in (queued, aside):
        for file, key in ((instance, delivery.c.instance_id), (product, delivery.c.product_id)):
            statement = select(delivery.c.destination, func.sum(file.c.size)).join(file, file.c.id == key)
            for name, size in tx.execute(statement.where(where).group_by(delivery.c.destination)):
                found[name] = found.get(name, 0) + int(size or 0)
    return found


def remember_waiting_bytes(tx: Connection, counted: Mapping[str, int]) -> None:
    """These are what waits for each destination now; for all others nothing."""
    known = {
        name: int(size) for name, size in tx.execute(select(destination.c.name, destination.c.waiting_bytes))
    }
    for name, size in {**dict.fromkeys(known, 0), **counted}.items():
        if known.get(name) is None and size:
            tx.execute(insert(destination).values(name=name, waiting_bytes=size))
        elif known.get(name) != size:
            tx.execute(update(destination).where(destination.c.name == name).values(waiting_bytes=size))


def parked(tx: Connection) -> dict[str, int]:
    """Destination → objects it refused for good. Reads the whole table of deliveries."""
    where = delivery.c.state == DeliveryState.PARKED
    statement = select(delivery.c.destination, func.count()).where(where).group_by(delivery.c.destination)
    return {name: int(n) for name, n in tx.execute(statement)}


def quarantined(tx: Connection) -> dict[str, int]:
    """Rule → runs that failed and wait for a person. Reads the whole table of runs."""
    where = run.c.state == RunState.QUARANTINED
    return {
        rule: int(n)
        for rule, n in tx.execute(select(run.c.rule, func.count()).where(where).group_by(run.c.rule))
    }


def set_aside(tx: Connection) -> int:
    """Objects that cannot be read or contradict an earlier one. Reads the whole table of instances."""
    where = instance.c.state.in_((InstanceState.CONFLICT, InstanceState.UNREADABLE))
    return int(tx.scalar(select(func.count()).select_from(instance).where(where)) or 0)


def oldest_open(tx: Connection) -> datetime | None:
    """When the series was opened that is open longest."""
    where = (series.c.state == SeriesState.RECEIVING) & one_of(
        series.c.state, SeriesState.RECEIVING, SeriesState.SEALED
    )
    return tx.scalar(select(func.min(series.c.opened_at)).where(where))


def last_received(tx: Connection) -> datetime | None:
    """When the last object came that is indexed."""
    return tx.scalar(select(instance.c.received_at).order_by(instance.c.id.desc()).limit(1))


# --- alerts


def alerts(tx: Connection) -> list[Mapping[str, Any]]:
    """What is wrong now, or has ended and not everyone knows."""
    return rows(tx, select(alert).order_by(alert.c.since, alert.c.what, alert.c.key))


def replace_alerts(tx: Connection, now_wrong: Iterable[Mapping[str, Any]]) -> None:
    """These are all the alerts there are."""
    tx.execute(delete(alert))
    for values in now_wrong:
        tx.execute(insert(alert).values(**values))


# --- metrics


@dataclass(frozen=True, slots=True)
class Queues:
    """What waits, by index."""

    series: Mapping[str, int]
    """State → open revisions: receiving, sealed."""
    runs: Mapping[tuple[str, str], int]
    """(rule, state) → runs that wait or run."""
    deliveries: Mapping[tuple[str, str], tuple[int, datetime]]
    """(destination, state) → how many wait or are being sent, and when the oldest was queued."""
    studies: Mapping[str, int] = field(default_factory=dict)
    """Rule over studies → studies of which it waits for an input."""


def queues(tx: Connection) -> Queues:
    """What waits: the partial indexes `series_open`, `run_queue`, `delivery_queue`, `study_rule_due` hold no more."""
    by_series = select(series.c.state, func.count()).where(
        one_of(series.c.state, SeriesState.RECEIVING, SeriesState.SEALED)
    )
    by_run = select(run.c.rule, run.c.state, func.count()).where(
        one_of(run.c.state, RunState.WAITING, RunState.RUNNING)
    )
    by_delivery = select(
        delivery.c.destination, delivery.c.state, func.count(), func.min(delivery.c.created_at)
    ).where(one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING))
    by_study = select(study_rule.c.rule, func.count()).where(
        study_rule.c.due_at.is_not(None) & (study_rule.c.state == WAITING)
    )
    return Queues(
        {state: int(n) for state, n in tx.execute(by_series.group_by(series.c.state))},
        {(rule, state): int(n) for rule, state, n in tx.execute(by_run.group_by(run.c.rule, run.c.state))},
        {
            (to, state): (int(n), since)
            for to, state, n, since in tx.execute(
                by_delivery.group_by(delivery.c.destination, delivery.c.state)
            )
        },
        {rule: int(n) for rule, n in tx.execute(by_study.group_by(study_rule.c.rule))},
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows of whole tables."""

    instances: Mapping[tuple[str, str], tuple[int, int]]
    """(peer, state) → received objects, and their bytes."""
    series: Mapping[str, int]
    """State → revisions."""
    runs: Mapping[tuple[str, str], int]
    """(rule, state) → runs."""
    deliveries: Mapping[tuple[str, str, int | None], int]
    """(destination, state, last C-STORE status) → objects."""
    events: Mapping[str, int]
    """Name → events."""


def totals(tx: Connection) -> Totals:
    """Count whole tables: some tenths of a second per million rows."""
    by_peer = select(instance.c.peer, instance.c.state, func.count(), func.sum(instance.c.size))
    by_delivery = select(delivery.c.destination, delivery.c.state, delivery.c.status, func.count())
    return Totals(
        {
            (peer, state): (int(n), int(size or 0))
            for peer, state, n, size in tx.execute(by_peer.group_by(instance.c.peer, instance.c.state))
        },
        {s: int(n) for s, n in tx.execute(select(series.c.state, func.count()).group_by(series.c.state))},
        {
            (rule, state): int(n)
            for rule, state, n in tx.execute(
                select(run.c.rule, run.c.state, func.count()).group_by(run.c.rule, run.c.state)
            )
        },
        {
            (to, state, status): int(n)
            for to, state, status, n in tx.execute(
                by_delivery.group_by(delivery.c.destination, delivery.c.state, delivery.c.status)
            )
        },
        {name: int(n) for name, n in tx.execute(select(event.c.name, func.count()).group_by(event.c.name))},
    )
