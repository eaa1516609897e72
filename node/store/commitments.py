"""Rows of what destinations are asked to commit to (PS3.4 J), we being the SCU.

A delivery that is stored and to be committed has `commit_due`: when to ask next. The request that asked last
stands in `commitment_id`; its answer moves only deliveries that still name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, update

from node.model import DeliveryState, InstanceState
from node.store.database import add, move, one_of, rows
from node.store.schema import commitment, delivery, instance, product

_MOST = 500
"""Rows of one statement: it takes 32 766 parameters on SQLite."""


_AS_SENT = (
    delivery.c.sent_syntax,
    delivery.c.sent_uid,
    func.coalesce(instance.c.digest, product.c.digest).label("digest"),
)
"""What tells whether a copy was stored, and under which UID."""


class CommitmentState(StrEnum):
    """asking → asked → answered | expired | refused."""

    ASKING = "asking"
    ASKED = "asked"
    ANSWERED = "answered"
    EXPIRED = "expired"
    REFUSED = "refused"


OPEN = (CommitmentState.ASKING, CommitmentState.ASKED)


def waits(tx: Connection, to: str, now: datetime, enough: int) -> tuple[int, datetime | None]:
    """How many objects are to be asked about at *now*, counted up to *enough*, and since when the first."""
    found = list(tx.scalars(select(delivery.c.commit_due).where(_due(to, now)).limit(enough)))
    return len(found), min(found, default=None)


def gathers(tx: Connection, to: str, now: datetime, until: datetime) -> bool:
    """Whether an object was stored just now that is not to be asked about before *now*, but is before *until*."""
    soon = (delivery.c.destination == to) & (delivery.c.commit_due > now) & (delivery.c.commit_due <= until)
    where = soon & (delivery.c.state == DeliveryState.STORED) & delivery.c.commitment_id.is_(None)
    return tx.scalar(select(delivery.c.id).where(where).limit(1)) is not None


def gather(tx: Connection, to: str, now: datetime, most: int) -> list[Mapping[str, Any]]:
    """The objects to ask about at *now*, those that wait longest first."""
    statement = (
        select(
            delivery.c.id,
            delivery.c.commitment_id,
            func.coalesce(instance.c.sop_uid, product.c.sop_uid).label("sop_uid"),
            func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class"),
            *_AS_SENT,
        )
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .where(_due(to, now))
        .order_by(delivery.c.commit_due, delivery.c.id)
        .limit(most)
    )
    return rows(tx, statement)


def _due(to: str, now: datetime) -> ColumnElement[bool]:
    return (
        (delivery.c.destination == to)
        & (delivery.c.commit_due <= now)
        & (delivery.c.state == DeliveryState.STORED)
    )


def open_commitment(
    tx: Connection, to: str, transaction_uid: str, asked: Sequence[int], now: datetime, due: datetime
) -> int:
    """A request that is on its way, over these deliveries; without an answer they are due again at *due*."""
    key = add(
        tx, commitment, transaction_uid=transaction_uid, destination=to, state=CommitmentState.ASKING,
        objects=len(asked), asked_at=now, due_at=due,
    )  # fmt: skip
    for part in _parts(asked):
        where = delivery.c.id.in_(part) & (delivery.c.state == DeliveryState.STORED)
        tx.execute(update(delivery).where(where).values(commitment_id=key, commit_due=due))
    return key


def by_transaction(tx: Connection, transaction_uid: str) -> Mapping[str, Any] | None:
    """The request under a transaction UID of ours."""
    found = rows(tx, select(commitment).where(commitment.c.transaction_uid == transaction_uid))
    return found[0] if found else None


def settle(tx: Connection, key: int, to: CommitmentState, now: datetime, reason: str = "") -> bool:
    """Move an open request on; False when it is over already."""
    over: dict[str, Any] = {} if to in OPEN else {"finished_at": now}
    return move(tx, commitment, key, to, expected=OPEN, reason=reason, **over)


def overdue(tx: Connection, now: datetime) -> list[Mapping[str, Any]]:
    """Requests that were taken and not answered in time."""
    where = one_of(commitment.c.state, *OPEN) & (commitment.c.state == CommitmentState.ASKED)
    return rows(tx, select(commitment).where(where & (commitment.c.due_at <= now)))


def being_asked(tx: Connection) -> list[Mapping[str, Any]]:
    """Requests of which nobody knows whether they were taken."""
    where = one_of(commitment.c.state, *OPEN) & (commitment.c.state == CommitmentState.ASKING)
    return rows(tx, select(commitment).where(where))


def refusals(tx: Connection, to: str, most: int) -> tuple[int, datetime | None]:
    """How many requests in a row a destination did not take, and when it did not take the last."""
    columns = select(commitment.c.state, commitment.c.finished_at).where(commitment.c.destination == to)
    last = rows(tx, columns.order_by(commitment.c.id.desc()).limit(most))
    count = next((n for n, row in enumerate(last) if row["state"] != CommitmentState.REFUSED), len(last))
    return count, last[0]["finished_at"] if count else None


def pending(tx: Connection, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Deliveries whose last request this is and that still wait for its answer."""
    columns = (
        delivery.c.id, delivery.c.commit_failures,
        func.coalesce(instance.c.sop_uid, product.c.sop_uid).label("sop_uid"), *_AS_SENT,
    )  # fmt: skip
    return rows(
        tx,
        select(*columns)
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .where(_of(row)),
    )


def ask_again(tx: Connection, row: Mapping[str, Any], at: datetime, reason: str) -> int:
    """What still waits for this request's answer is due at *at*; how much that is."""
    return tx.execute(
        update(delivery).where(_of(row)).values(commit_due=at, reason=f"stored, not committed: {reason}")
    ).rowcount


def _of(row: Mapping[str, Any]) -> ColumnElement[bool]:
    """Open deliveries of a request; says what the partial index `delivery_commit` holds."""
    return (
        (delivery.c.destination == row["destination"])
        & delivery.c.commit_due.is_not(None)
        & (delivery.c.commitment_id == row["id"])
        & (delivery.c.state == DeliveryState.STORED)
    )


def committed(tx: Connection, key: int, ids: Sequence[int], now: datetime) -> int:
    """Stored → committed; how many."""
    values = {"state": DeliveryState.COMMITTED, "commit_due": None, "reason": "committed", "finished_at": now}
    count = 0
    for part in _parts(ids):
        where = delivery.c.id.in_(part) & (delivery.c.state == DeliveryState.STORED)
        where &= delivery.c.commitment_id == key
        count += tx.execute(update(delivery).where(where).values(**values)).rowcount
    return count


def not_committed(tx: Connection, delivery_id: int, to: DeliveryState, **values: Any) -> bool:
    """Stored → waiting | parked: it is sent again, or waits for a person."""
    return move(tx, delivery, delivery_id, to, expected=(DeliveryState.STORED,), commit_due=None, **values)


def follow_settings(tx: Connection, committing: Collection[str], now: datetime) -> None:
    """What was stored before the site file said that a destination commits is asked about; or no more."""
    tx.execute(
        update(delivery)
        .where(delivery.c.commit_due.is_not(None) & delivery.c.destination.not_in(committing))
        .values(commit_due=None)
    )
    here = or_(
        delivery.c.instance_id.in_(select(instance.c.id).where(instance.c.state != InstanceState.REMOVED)),
        delivery.c.product_id.in_(select(product.c.id).where(product.c.removed_at.is_(None))),
    )
    stored = (delivery.c.state == DeliveryState.STORED) & delivery.c.commit_due.is_(None)
    tx.execute(
        update(delivery).where(delivery.c.destination.in_(committing) & stored & here).values(commit_due=now)
    )


def forget(tx: Connection, before: datetime) -> None:
    """Requests that were over before this moment are not kept for ever."""
    tx.execute(delete(commitment).where(commitment.c.finished_at < before))


def cap(tx: Connection, to: str, by: datetime) -> int:
    """Bring moments that a set-back clock moved too far away to *by*; how many."""
    waiting = (delivery.c.destination == to) & (delivery.c.commit_due > by)
    found = tx.execute(update(delivery).where(waiting).values(commit_due=by)).rowcount
    open_ones = one_of(commitment.c.state, *OPEN) & (commitment.c.destination == to)
    late = open_ones & (commitment.c.due_at > by)
    return found + tx.execute(update(commitment).where(late).values(due_at=by)).rowcount


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _MOST):
        yield ids[start : start + _MOST]
