"""Deliveries that go as a copy, in another transfer syntax or changed: which are to be made, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, func, literal_column, or_, select, update

from node.model import DeliveryState
from node.store.database import rows
from node.store.deliveries import AWAITS_COPY, EMPTY, with_objects
from node.store.schema import delivery, destination, instance, product, series


def copies_of(tx: Connection, found: Iterable[int]) -> dict[int, Mapping[str, Any]]:
    """Delivery → as what it is sent, and whether a lossy copy may be."""
    names = ("id", "lossy", "treatment", "sent_path", "sent_syntax")
    own = func.coalesce(instance.c.transfer_syntax, product.c.transfer_syntax).label("transfer_syntax")
    statement = (
        select(*(delivery.c[name] for name in names), own)
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
    )
    return {row["id"]: row for row in rows(tx, statement.where(delivery.c.id.in_(list(found))))}


def to_transcode(tx: Connection, limit: int, ahead: int) -> list[Mapping[str, Any]]:
    """The next objects of which a copy is to be made, for destinations that are up or tried again.

    No more than about *ahead* copies lie there per destination: they take room on the disk.
    """
    to_be_sent = (delivery.c.sent_path != EMPTY) & delivery.c.state.in_(
        (DeliveryState.WAITING, DeliveryState.SENDING)
    )
    made = select(delivery.c.destination).where(to_be_sent)  # `delivery_copied`, not all that waits
    enough = made.group_by(delivery.c.destination).having(func.count() >= ahead)
    down = select(destination.c.name).where(destination.c.down & ~destination.c.trial)
    where = (delivery.c.state == literal_column("'waiting'")) & AWAITS_COPY  # as `delivery_copy` spells it
    where &= delivery.c.destination.not_in(enough) & delivery.c.destination.not_in(down)
    statement = with_objects().outerjoin(series, series.c.id == instance.c.series_id)
    statement = statement.add_columns(
        func.coalesce(product.c.series_uid, series.c.series_uid).label("series_uid"),
        instance.c.received_at, instance.c.peer,
    )  # fmt: skip
    return rows(
        tx, statement.where(where).order_by(delivery.c.rank, delivery.c.stage, delivery.c.id).limit(limit)
    )


def end_transcoding(
    tx: Connection, expected: Mapping[str, Any], attempt: int, to: DeliveryState, **values: Any
) -> bool:
    """A copy was made or cannot be; False where nobody waits for it any more.

    *expected* are columns that tell of what, and how, the copy was wanted.
    """
    where = (delivery.c.attempt == attempt) & (delivery.c.state == DeliveryState.WAITING)
    where &= and_(
        *(delivery.c[name] == value for name, value in expected.items()), delivery.c.sent_path == ""
    )
    return tx.execute(update(delivery).where(where).values(state=to, **values)).rowcount == 1


def copies_wanted(tx: Connection, found: Iterable[int]) -> dict[int, tuple[int, str]]:
    """Of these deliveries those that are still to be sent as a copy: their attempt, and the copy if it is made."""
    open_still = delivery.c.state.in_((DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.HELD))
    copied = or_(delivery.c.sent_syntax != "", delivery.c.treatment != "")
    where = delivery.c.id.in_(list(found)) & open_still & copied
    columns = select(delivery.c.id, delivery.c.attempt, delivery.c.sent_path)
    return {int(key): (int(attempt), path) for key, attempt, path in tx.execute(columns.where(where))}
