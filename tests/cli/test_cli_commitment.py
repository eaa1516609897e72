"""What the verbs tell of storage commitment: who has still to commit, why not, and whom we owe an answer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cli_material import Place, place
from flow_material import NOON, header

from node.model import DeliveryState, InstanceState
from node.store import commitments, deliveries, intake, pledges, queues
from node.store.database import open_database

WHY = "PACS at 10.1.2.9:4242 refused the connection"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three objects stored at the PACS: one committed, two asked about in vain; and a modality that waits."""
    made = place(tmp_path_factory.mktemp("asked") / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        series = intake.open_series(tx, header(), 1, {"accession": "A1"}, NOON)
        for number in (1, 2, 3):
            one = header(number)
            key = intake.add_instance(tx, one, (1, number), InstanceState.KEPT, reason="", series_id=series)
            deliveries.deliver_instance(tx, key, "PACS", "route", NOON)
        claimed = deliveries.claim_deliveries(tx, queues.due_deliveries(tx, "PACS", NOON, 9))
        ids = [int(row["id"]) for row in claimed]
        for row in claimed:
            deliveries.finish_delivery(
                tx, row["id"], row["attempt"], DeliveryState.STORED, reason="stored", finished_at=NOON, commit_due=NOON
            )  # fmt: skip
        key = commitments.open_commitment(tx, "PACS", "2.25.7", ids, NOON, NOON + timedelta(days=1))
        commitments.committed(tx, key, ids[:1], NOON)
        row = commitments.by_transaction(tx, "2.25.7")
        assert row is not None
        commitments.ask_again(tx, row, NOON, WHY)
        for transaction in ("1.2.7", "1.2.8"):
            pledges.add_pledge(
                tx, transaction_uid=transaction, peer="CT01", called="PACSNODE", asked="[]", received_at=NOON,
                due_at=NOON, next_at=NOON,
            )  # fmt: skip
        pledges.decided(tx, 2, "[]", NOON, "0 objects committed")
    database.close()
    return made


def test_status_tells_who_has_still_to_commit(asked: Place) -> None:
    """How many objects since when, and which requests of peers are open."""
    text = " ".join(asked.run("status").stdout.split())
    assert "PACS has still to commit to 2 objects, the oldest stored 2026-03-01 13:00" in text
    assert "CT01 waits for commitment: 1 request since 2026-03-01 13:00" in text
    assert "CT01 cannot be told yet: 1 request since" in text
    found = asked.json("status")
    assert [(row["destination"], row["objects"]) for row in found["uncommitted"]] == [("PACS", 2)]
    assert found["deliveries"] == {"committed": 1, "stored": 2}


def test_deliveries_and_timelines_say_why(asked: Place) -> None:
    """What is stored and not committed to stands apart, with the reason."""
    rows = {row["state"]: row for row in asked.json("deliveries")}
    assert rows["stored"]["reason"] == f"stored, not committed: {WHY}" and rows["stored"]["objects"] == 2
    assert rows["committed"]["reason"] == "committed"
    (study,) = asked.json("find", "--study", "1.2.9")
    said = [entry["detail"] for entry in study["timeline"] if entry["name"].startswith("delivery_")]
    assert said == ["1 received object committed", f"2 received objects stored: stored, not committed: {WHY}"]


def test_a_retry_by_hand_begins_anew(tmp_path: Path) -> None:
    """An object that was parked because nobody committed to it has all its rounds again."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        key = intake.add_instance(tx, header(), (1, 1), InstanceState.KEPT, reason="", series_id=None)
        deliveries.deliver_instance(tx, key, "PACS", "route", NOON)
        (row,) = deliveries.claim_deliveries(tx, queues.due_deliveries(tx, "PACS", NOON, 9))
        deliveries.finish_delivery(tx, row["id"], row["attempt"], DeliveryState.PARKED, commit_failures=6)
    assert made.run("retry", "--to", "PACS").exit_code == 0
    with database.read() as tx:
        (found,) = queues.due_deliveries(tx, "PACS", NOON + timedelta(days=9999), 9)
    database.close()
    assert found["commit_failures"] == 0
