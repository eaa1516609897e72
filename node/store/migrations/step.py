"""What leads from one version of the tables to the next, and how its words differ between the two databases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A table of SQLite whose definition changes in ways that ALTER TABLE does not know.

    *edits* are pairs of text in its CREATE TABLE, *fill* the SQL values of its new columns.
    """

    table: str
    edits: tuple[tuple[str, str], ...]
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """From one version to the next: on SQLite tables are rebuilt, then statements run; on PostgreSQL those only."""

    rebuilt: tuple[Rebuilt, ...]
    sqlite: tuple[str, ...]
    postgresql: tuple[str, ...]


_SQLITE = {"id": "INTEGER", "reference": "INTEGER", "moment": "DATETIME", "bytes": "BLOB"}
_POSTGRESQL = {
    "id": "BIGSERIAL", "reference": "BIGINT", "moment": "TIMESTAMP WITHOUT TIME ZONE", "bytes": "BYTEA",
}  # fmt: skip


def on_sqlite(*statements: str) -> tuple[str, ...]:
    """These statements with the types as SQLite spells them."""
    return tuple(statement.format(**_SQLITE) for statement in statements)


def on_postgresql(*statements: str) -> tuple[str, ...]:
    """These statements with the types as PostgreSQL spells them."""
    return tuple(statement.format(**_POSTGRESQL) for statement in statements)


def together(*steps: Step) -> Step:
    """One step of several that do not know of each other, in this order."""
    return Step(
        tuple(rebuilt for step in steps for rebuilt in step.rebuilt),
        tuple(statement for step in steps for statement in step.sqlite),
        tuple(statement for step in steps for statement in step.postgresql),
    )
