"""Types of columns that mean the same on SQLite and PostgreSQL, and indexes over some of a table's rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Index,
    Integer,
    Text,
    TypeDecorator,
    text,
)  # fmt: skip
from sqlalchemy.engine import Dialect


class Moment(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database, on SQLite as on PostgreSQL."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Aware → naive UTC."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Naive UTC → aware."""
        return value.replace(tzinfo=UTC) if value else None


class Words(TypeDecorator[str]):
    """Text that may be a peer's: without NUL, which PostgreSQL takes nowhere, and cut where it is indexed.

    A B-tree page of PostgreSQL holds at most 2 704 bytes of one value.
    """

    impl = Text
    cache_ok = True

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """What is stored, and what is compared with it."""
        return value.replace("\0", "")[: self.most] if value else value


Id = BigInteger().with_variant(Integer, "sqlite")
"""A key; SQLite numbers rows by itself only where it is an INTEGER."""


def index_of_some(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of the rows that *where* picks: queries that say the same use it, and it holds nothing of the others."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))
