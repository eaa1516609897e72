"""Rows of what peers asked us to commit to (PS3.4 J), we being the SCP for an archive that commits to us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from node.model import InstanceState
from node.store.database import add, move, one_of, rows
from node.store.schema import delivery, instance, pledge

_MOST = 500
"""UIDs of one statement."""


class PledgeState(StrEnum):
    """waiting → reporting → reported | given_up."""

    WAITING = "waiting"
    REPORTING = "reporting"
    REPORTED = "reported"
    GIVEN_UP = "given_up"


_OPEN = (PledgeState.WAITING, PledgeState.REPORTING)


def add_pledge(tx: Connection, **values: Any) -> int:
    """A request that waits to be decided."""
    return add(tx, pledge, state=PledgeState.WAITING, **values)


def was_used(tx: Connection, peer: str, transaction_uid: str) -> bool:
    """Whether this peer used this transaction UID before."""
    where = (pledge.c.peer == peer) & (pledge.c.transaction_uid == transaction_uid)
    return tx.scalar(select(pledge.c.id).where(where).limit(1)) is not None


def open_of(tx: Connection, peer: str) -> int:
    """How many requests of a peer are not answered yet."""
    where = one_of(pledge.c.state, *_OPEN) & (pledge.c.peer == peer)
    return tx.scalar(select(func.count()).select_from(pledge).where(where)) or 0


def due(tx: Connection, now: datetime, limit: int) -> list[Mapping[str, Any]]:
    """Requests to look at, or to report on, at *now*, without what they name."""
    columns = [c for c in pledge.c if c.name not in ("asked", "report")]
    where = one_of(pledge.c.state, *_OPEN) & (pledge.c.next_at <= now)
    return rows(tx, select(*columns).where(where).order_by(pledge.c.next_at, pledge.c.id).limit(limit))


def text_of(tx: Connection, key: int, column: str) -> str:
    """What a request names (`asked`), or what is answered (`report`): JSON, up to megabytes."""
    return str(tx.scalar(select(pledge.c[column]).where(pledge.c.id == key)) or "")


def look_again(tx: Connection, key: int, at: datetime, **values: Any) -> None:
    """Look at a request, or report on it, again at *at*."""
    tx.execute(update(pledge).where(pledge.c.id == key).values(next_at=at, **values))


def decided(tx: Connection, key: int, report: str, now: datetime, reason: str) -> bool:
    """Waiting → reporting: what is answered stands fast from here on."""
    values: dict[str, Any] = {"report": report, "asked": "", "next_at": now, "reason": reason}
    return move(tx, pledge, key, PledgeState.REPORTING, expected=(PledgeState.WAITING,), **values)


def finish(tx: Connection, key: int, to: PledgeState, now: datetime, reason: str) -> bool:
    """Waiting | reporting → reported | given up; what it named is not kept."""
    values: dict[str, Any] = {"report": "", "asked": "", "finished_at": now, "reason": reason}
    return move(tx, pledge, key, to, expected=_OPEN, **values)


def hurry(tx: Connection, peers: Sequence[str], now: datetime) -> None:
    """An archive has committed: look at once at what these peers asked."""
    waiting = one_of(pledge.c.state, *_OPEN) & (pledge.c.state == PledgeState.WAITING)
    here = pledge.c.peer.in_(peers) & (pledge.c.next_at > now)
    tx.execute(update(pledge).where(waiting & here).values(next_at=now))


def forget(tx: Connection, before: datetime) -> None:
    """Requests that were over before this moment are not kept for ever."""
    tx.execute(delete(pledge).where(pledge.c.finished_at < before))


def cap(tx: Connection, peer: str, next_by: datetime, due_by: datetime) -> int:
    """Bring moments that a set-back clock moved too far away to these; how many."""
    here = one_of(pledge.c.state, *_OPEN) & (pledge.c.peer == peer)
    found = 0
    for column, by in ((pledge.c.next_at, next_by), (pledge.c.due_at, due_by)):
        found += tx.execute(update(pledge).where(here & (column > by)).values({column.name: by})).rowcount
    return found


def objects_of(tx: Connection, uids: Sequence[str], to: str) -> Iterator[Mapping[str, Any]]:
    """Every object received under these UIDs, with its class, its state, and that of its delivery to *to*."""
    columns = (
        instance.c.sop_uid, instance.c.sop_class, instance.c.state, instance.c.peer,
        delivery.c.state.label("delivery"), delivery.c.sent_syntax, delivery.c.sent_uid,
    )  # fmt: skip
    there = and_(delivery.c.instance_id == instance.c.id, delivery.c.destination == to)
    for start in range(0, len(uids), _MOST):
        named = instance.c.sop_uid.in_(uids[start : start + _MOST])
        where = and_(named, instance.c.state != InstanceState.DUPLICATE)
        yield from rows(tx, select(*columns).outerjoin(delivery, there).where(where))
