"""Received objects that were set aside, and what a person decides about them: `release --object` (design §6)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from node.model import InstanceState
from node.store import deliveries
from node.store.acts import BY_HAND
from node.store.database import note
from node.store.schema import instance, meta

_ASKED = "release-"
"""Keys in `meta` of what a person asks the conductor to do with an object; only it knows the open series."""


def ask_release(tx: Connection, instance_id: int, at: datetime) -> bool:
    """Ask the conductor to take an object in conflict for the valid one; False when it is in no conflict."""
    where = (instance.c.id == instance_id) & (instance.c.state == InstanceState.CONFLICT)
    if tx.scalar(select(instance.c.id).where(where).with_for_update()) is None:
        return False
    key = f"{_ASKED}{instance_id}"
    if tx.scalar(select(meta.c.key).where(meta.c.key == key)) is None:
        tx.execute(insert(meta).values(key=key, value=""))
        note(tx, at, "instance_released", f"released {BY_HAND}", instance_id=instance_id)
    return True


def asked_releases(tx: Connection) -> list[int]:
    """The objects in conflict that a person wants released."""
    keys = tx.scalars(select(meta.c.key).where(meta.c.key.startswith(_ASKED, autoescape=True)))
    return sorted(int(key.removeprefix(_ASKED)) for key in keys)


def release_over(tx: Connection, instance_id: int) -> None:
    """The conductor did what was asked, or cannot."""
    tx.execute(delete(meta).where(meta.c.key == f"{_ASKED}{instance_id}"))


def route_by_hand(tx: Connection, instance_id: int, to: str, at: datetime) -> bool:
    """Queue a received object for a destination, whatever its state; False when it is or was queued there."""
    queued = deliveries.deliver_instance(tx, instance_id, to, BY_HAND, at)
    if queued:
        note(tx, at, "instance_released", f"sent {BY_HAND}", instance_id=instance_id, destination=to)
    return queued
