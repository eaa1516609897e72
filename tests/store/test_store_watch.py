"""What those who watch ask the tables: the answers, and that the frequent questions use an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from node.store import watch
from node.store.database import Database, open_database
from node.store.schema import delivery, destination, instance, run, series

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def filled(database: Database) -> Database:
    """Two series, three runs, five deliveries, two objects."""
    with database.write() as tx:
        for key, state in ((1, "receiving"), (2, "routed")):
            tx.execute(insert(series).values(
                id=key, study_uid="1", series_uid=str(key), revision=1, state=state,
                opened_at=NOW + timedelta(minutes=key), last_at=NOW))  # fmt: skip
        for key, rule, state in ((1, "a", "waiting"), (2, "b", "quarantined"), (3, "c", "quarantined")):
            tx.execute(insert(run).values(
                id=key, series_id=2, rule=rule, state=state, plan="", sends="", files="", due_at=NOW,
                created_at=NOW))  # fmt: skip
        for key, (to, state, status) in enumerate([
            ("A", "waiting", None), ("A", "waiting", 0xA700), ("A", "stored", 0), ("B", "parked", 0xC000),
            ("B", "sending", None),
        ]):  # fmt: skip
            tx.execute(insert(delivery).values(
                destination=to, state=state, status=status, rule="a", due_at=NOW,
                created_at=NOW + timedelta(minutes=key)))  # fmt: skip
        for key, state in ((1, "kept"), (2, "conflict")):
            tx.execute(insert(instance).values(
                receiver_run=1, sequence=key, state=state, sop_class="", transfer_syntax="", digest="",
                pixel_digest="", size=100 * key, peer="CT", association="1-1",
                received_at=NOW + timedelta(minutes=key)))  # fmt: skip
        tx.execute(insert(destination).values(name="B", down=True, reason="no way", since=NOW, failures=1))
        tx.execute(insert(destination).values(name="A", down=False, failures=0))
    return database


def answers(database: Database) -> None:
    """Every question has the answer that `filled` put there."""
    with database.read() as tx:
        assert watch.destinations_down(tx) == [("B", NOW, "no way")]
        assert watch.parked(tx) == {"B": 1}
        assert watch.quarantined(tx) == {"b": 1, "c": 1}
        assert watch.set_aside(tx) == 1
        assert watch.oldest_open(tx) == NOW + timedelta(minutes=1)
        assert watch.last_received(tx) == NOW + timedelta(minutes=2)
        assert watch.rules_problem(tx) == ""
        assert watch.queues(tx) == watch.Queues(
            {"receiving": 1}, {("a", "waiting"): 1},
            {("A", "waiting"): (2, NOW), ("B", "sending"): (1, NOW + timedelta(minutes=4))},
        )  # fmt: skip
        found = watch.totals(tx)
        assert found.instances == {("CT", "kept"): (1, 100), ("CT", "conflict"): (1, 200)}
        assert found.series == {"receiving": 1, "routed": 1}
        assert found.runs == {("a", "waiting"): 1, ("b", "quarantined"): 1, ("c", "quarantined"): 1}
        assert found.deliveries["A", "waiting", 0xA700] == 1
        assert found.events == {}


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Database]:
    """A filled SQLite database."""
    database = filled(open_database("sqlite", tmp_path))
    yield database
    database.close()


def test_questions_are_answered_on_sqlite(tables: Database) -> None:
    """Counts, ages and reasons are those of the rows."""
    answers(tables)


def test_questions_are_answered_on_postgresql(tmp_path: Path, postgres: str) -> None:
    """The same on a real PostgreSQL."""
    database = filled(open_database(postgres, tmp_path))
    answers(database)
    database.close()


def test_what_is_asked_often_uses_an_index(tables: Database) -> None:
    """SQLite's own plan of each frequent statement searches an index that holds only what is open."""
    asked: list[str] = []

    def heard(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append(statement)
        with tables.engine.connect() as other:
            raw = other.connection.cursor()
            plans.append(str(raw.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall()))

    plans: list[str] = []
    with tables.read() as tx:
        tx.execute(text("SELECT 1"))
        event.listen(tables.engine, "before_cursor_execute", heard)
        watch.queues(tx)
        watch.oldest_open(tx)
        event.remove(tables.engine, "before_cursor_execute", heard)
    assert len(asked) == 5
    queued = ("delivery_queue", "delivery_order")  # both hold what is open, by destination: either will do
    wanted = (("series_open",), ("run_queue",), queued, ("study_rule_due",), ("series_open",))
    for plan, indexes in zip(plans, wanted, strict=True):
        assert any(index in plan for index in indexes)
