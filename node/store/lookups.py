"""Rows of tables that treatments look values up in: each under its digest, as long as a delivery may need it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from node.store.schema import delivery, lookup, run


def remember(tx: Connection, tables: Mapping[str, str], now: datetime) -> None:
    """Keep these tables, by digest; what is known is not written again."""
    for digest, content in tables.items():
        if is_known(tx, digest):
            tx.execute(update(lookup).where(lookup.c.digest == digest).values(used_at=now))
        else:
            tx.execute(insert(lookup).values(digest=digest, content=content, used_at=now))


def is_known(tx: Connection, digest: str) -> bool:
    """Whether a table is kept under this digest."""
    return tx.scalar(select(lookup.c.digest).where(lookup.c.digest == digest)) is not None


def content_of(tx: Connection, digest: str) -> str:
    """The table as JSON; empty where it is not kept any more."""
    return str(tx.scalar(select(lookup.c.content).where(lookup.c.digest == digest)) or "{}")


def forget(tx: Connection, before: datetime) -> int:
    """Drop tables that were not used since *before* and that no delivery or run names; how many.

    A rule that still names one brings it back when it is needed. Reads the tables of deliveries and runs.
    """
    old = select(lookup.c.digest).where(lookup.c.used_at < before)
    gone = [digest for digest in tx.scalars(old) if not _named(tx, digest)]
    if gone:
        tx.execute(delete(lookup).where(lookup.c.digest.in_(gone)))
    return len(gone)


def _named(tx: Connection, digest: str) -> bool:
    by_delivery = select(delivery.c.id).where(delivery.c.treatment.contains(digest, autoescape=True)).limit(1)
    by_run = select(run.c.id).where(run.c.sends.contains(digest, autoescape=True)).limit(1)
    return tx.scalar(by_delivery) is not None or tx.scalar(by_run) is not None
