"""Queues cost what waits in them, not what was ever done: their queries take the partial indexes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from node.model import SeriesState
from node.store import deliveries, intake, work
from node.store.database import open_database

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (lambda tx: work.due_runs(tx, NOW, 1), "run_queue"),
        (lambda tx: deliveries.waiting_destinations(tx, NOW), "delivery_queue"),
        (lambda tx: deliveries.due_deliveries(tx, "PACS", NOW, 200), "delivery_order"),
        (lambda tx: intake.in_state(tx, SeriesState.SEALED), "series_open"),
        (lambda tx: intake.kept(tx, "1.2.3"), "instance_kept"),
    ],
)
def test_polls_of_the_conductor_use_the_partial_index(
    tmp_path: Path, query: Callable[[Connection], Any], index: str
) -> None:
    """What the conductor asks several times a second never walks a table that grows for years."""
    database = open_database("sqlite", tmp_path)
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        plans.extend(
            row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        )

    with database.read() as tx:
        event.listen(tx, "before_cursor_execute", explain)
        query(tx)
    assert any(f"USING INDEX {index}" in plan for plan in plans), plans
    database.close()
