"""Queues cost what waits in them, not what was ever done: their queries take the partial indexes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from node.model import SeriesState
from node.store import commitments, copies, fetches, intake, pledges, queues, steps, studies, work
from node.store.database import Database, open_database
from node.store.schema import delivery, instance

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (lambda tx: work.due_runs(tx, NOW, 1), "run_queue"),
        (lambda tx: queues.waiting_destinations(tx, NOW), "delivery_queue"),
        (lambda tx: queues.due_deliveries(tx, "PACS", NOW, 200), "delivery_order"),
        (lambda tx: copies.to_transcode(tx, 50, 200), "delivery_copy"),
        (lambda tx: commitments.waits(tx, "PACS", NOW, 200), "delivery_commit"),
        (lambda tx: commitments.gathers(tx, "PACS", NOW, NOW), "delivery_commit"),
        (lambda tx: commitments.pending(tx, {"id": 1, "destination": "PACS"}), "delivery_commit"),
        (lambda tx: commitments.overdue(tx, NOW), "commitment_open"),
        (lambda tx: pledges.due(tx, NOW, 20), "pledge_open"),
        (lambda tx: pledges.was_used(tx, "MR01", "1.2"), "pledge_transaction"),
        (lambda tx: intake.in_state(tx, SeriesState.SEALED), "series_open"),
        (lambda tx: intake.kept(tx, "1.2.3"), "instance_kept"),
        (lambda tx: studies.due_studies(tx, NOW), "study_rule_due"),
        (studies.waiting_rules, "study_rule_due"),
        (lambda tx: studies.series_of(tx, "1.2"), "sqlite_autoindex_series"),
        (lambda tx: studies.not_valid(tx, "1.2"), "instance_series"),
        (lambda tx: studies.runs_of(tx, "1.2", "r"), "sqlite_autoindex_run"),
        (lambda tx: studies.made_by(tx, "1.2"), "sqlite_autoindex_product"),
        (lambda tx: fetches.due(tx, NOW, ["PACS"]), "wanted_prior_open"),
        (lambda tx: fetches.by_message(tx, "PACS", "move", 7), "prior_fetch_message"),
        (lambda tx: fetches.held(tx, "1.2", "1.2.3"), "sqlite_autoindex_series"),
        (fetches.broken_off, "series_open"),
        (lambda tx: steps.of_series(tx, "1.2.3"), "step_series_uid"),
        (lambda tx: steps.find(tx, "CT01", "1.2"), "sqlite_autoindex_step"),
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
    assert any(f" INDEX {index}" in plan for plan in plans), plans
    database.close()


def crowd(folder: Path, number: int) -> Database:
    """A database with so many objects stored at the PACS, and as many waiting for an archive that is down."""
    folder.mkdir()
    database = open_database("sqlite", folder)
    about = {
        "receiver_run": 1, "state": "kept", "sop_class": "1.2", "transfer_syntax": "1.2", "digest": "",
        "pixel_digest": "", "size": 1, "peer": "CT", "association": "1-1", "received_at": NOW,
    }  # fmt: skip
    queued = {"rule": "r", "due_at": NOW, "created_at": NOW}
    with database.write() as tx:
        objects = range(1, number + 1)
        tx.execute(insert(instance), [{**about, "sequence": n, "sop_uid": f"1.2.{n}"} for n in objects])
        for to, state in (("PACS", "stored"), ("ARCHIVE", "waiting")):
            rows = [
                {**queued, "destination": to, "state": state, "instance_id": n, "rank": n} for n in objects
            ]
            tx.execute(insert(delivery), rows)
        for n in range(1, 21):  # and some new ones for the PACS
            tx.execute(
                insert(instance).values(**about, sequence=number + n, sop_uid=f"1.3.{n}", id=number + n)
            )
            new = {**queued, "destination": "PACS", "state": "waiting", "rank": number + n}
            tx.execute(insert(delivery).values(**new, instance_id=number + n))
    return database


@pytest.mark.parametrize(
    "query",
    [
        lambda tx: queues.waiting_destinations(tx, NOW),
        lambda tx: queues.due_deliveries(tx, "PACS", NOW, 200),
        lambda tx: queues.due_deliveries(tx, "ARCHIVE", NOW, 200),
    ],
)
def test_a_claim_costs_neither_history_nor_backlog(
    tmp_path: Path, query: Callable[[Connection], Any]
) -> None:
    """Steps of SQLite's machine with 400 and with 4 000 objects behind and waiting: about as many."""
    counts = []
    for number in (400, 4000):
        database = crowd(tmp_path / str(number), number)
        steps = [0]

        def step(counted: list[int] = steps) -> int:
            counted[0] += 1
            return 0

        with database.read() as tx:
            tx.connection.driver_connection.set_progress_handler(step, 10)  # type: ignore[union-attr]
            assert query(tx)
            tx.connection.driver_connection.set_progress_handler(None, 0)  # type: ignore[union-attr]
        counts.append(steps[0])
        database.close()
    assert counts[1] <= 1.5 * counts[0] + 10, counts


def test_a_destination_that_is_down_is_no_business_of_each_turn(tmp_path: Path) -> None:
    """Until it is to be asked again it is not among those for which something is due."""
    database = crowd(tmp_path / "data", 3)
    with database.write() as tx:
        queues.set_destination(tx, "ARCHIVE", down=True, next_at=NOW + timedelta(minutes=1))
        assert queues.waiting_destinations(tx, NOW) == ["PACS"]
        later = NOW + timedelta(minutes=1)
        assert queues.waiting_destinations(tx, later) == ["ARCHIVE", "PACS"]
        queues.set_destination(tx, "ARCHIVE", trial=True, next_at=None)
        assert queues.waiting_destinations(tx, NOW) == ["ARCHIVE", "PACS"]
        assert queues.waiting_destinations(tx, NOW - timedelta(minutes=1)) == []
    database.close()
