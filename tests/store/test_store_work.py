"""Claims about rows of what is to be done: runs, products, deliveries, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import NOON, done, header, product
from sqlalchemy import Connection, select, update
from store_cases import STATES, opened

from node.model import KIND_OF, DeliveryState, RunState
from node.store import deliveries, intake, queries, queues, work
from node.store.database import Database, open_database, rows
from node.store.schema import delivery, measurement, run, series
from node.store.schema import product as product_table

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=STATES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the node."""
    found = open_database(opened(request), tmp_path)
    yield found
    found.close()


def new_series(tx: Connection, revision: int = 1, number: int | None = 3, uid: str = "1.2.9.1") -> int:
    """A receiving revision."""
    about: dict[str, Any] = {"series_number": number}
    return intake.open_series(tx, header(series_uid=uid), revision, about, NOON)


def new_run(tx: Connection, series_id: int, rule: str = "r", **changes: Any) -> int:
    """A waiting run."""
    values: dict[str, Any] = {
        "rule": rule, "plan": "{}", "sends": "{}", "files": "[]", "due_at": NOON, "created_at": NOON, **changes,
    }  # fmt: skip
    made = work.add_run(tx, series_id=series_id, **values)
    assert made is not None
    return made


def new_instance(tx: Connection, number: int = 1, series_id: int | None = None) -> int:
    """A kept object."""
    return intake.add_instance(
        tx, header(number), (1, number), intake.InstanceState.KEPT, reason="", series_id=series_id
    )


def the_run(tx: Connection, key: int) -> dict[str, Any]:
    """One run's row."""
    return dict(work.run_row(tx, key) or {})


# --- runs


def test_a_rule_runs_once_per_revision(database: Database) -> None:
    """A second run of the same rule over the same revision is not made; over another one it is."""
    with database.write() as tx:
        one, two = new_series(tx), new_series(tx, 2)
        first = new_run(tx, one)
        values = {"rule": "r", "plan": "{}", "sends": "{}", "files": "[]", "due_at": NOON, "created_at": NOON}
        assert work.add_run(tx, series_id=one, **values) is None
        assert new_run(tx, two) != first
        assert new_run(tx, one, "other") != first


def test_runs_are_due_in_order_and_not_before_their_time(database: Database) -> None:
    """Waiting runs come oldest first; what is due later, running or done does not come."""
    with database.write() as tx:
        one = new_series(tx)
        late = new_run(tx, one, "late", due_at=NOON + MINUTE)
        second = new_run(tx, one, "second", due_at=NOON)
        first = new_run(tx, one, "first", due_at=NOON - MINUTE)
        over = new_run(tx, one, "over")
        work.claim_run(tx, the_run(tx, over), NOON)
        assert [row["id"] for row in work.due_runs(tx, NOON, 10)] == [first, second]
        assert [row["id"] for row in work.due_runs(tx, NOON, 1)] == [first]
        assert [row["id"] for row in work.due_runs(tx, NOON + MINUTE, 10)] == [first, second, late]


def test_only_one_of_two_claimers_gets_a_run(database: Database) -> None:
    """Both saw it waiting; the second finds it taken, and the attempt was raised once."""
    with database.write() as tx:
        key = new_run(tx, new_series(tx))
        seen_by_both = the_run(tx, key)
    with database.write() as tx:
        assert work.claim_run(tx, seen_by_both, NOON) == 1
    with database.write() as tx:
        assert work.claim_run(tx, seen_by_both, NOON) is None
        assert (the_run(tx, key)["state"], the_run(tx, key)["attempt"]) == (RunState.RUNNING, 1)


def test_an_old_claim_does_not_take_a_run_that_waits_again(database: Database) -> None:
    """Given back and claimed by another meanwhile, a row read before is of no use: the attempt differs."""
    with database.write() as tx:
        key = new_run(tx, new_series(tx))
        old = the_run(tx, key)
        work.claim_run(tx, old, NOON)
        work.give_back(tx)
        assert the_run(tx, key)["state"] == RunState.WAITING
        assert work.claim_run(tx, old, NOON) is None
        assert work.claim_run(tx, the_run(tx, key), NOON) == 2


def test_giving_back_returns_every_claim_and_nothing_else(database: Database) -> None:
    """At start running runs and sending deliveries wait again; what is finished stays finished."""
    with database.write() as tx:
        one = new_series(tx)
        running, finished = new_run(tx, one, "a"), new_run(tx, one, "b")
        for key in (running, finished):
            work.claim_run(tx, the_run(tx, key), NOON)
        tx.execute(update(run).where(run.c.id == finished).values(state=RunState.DONE))
        for number in (1, 2, 3):
            deliveries.deliver_instance(tx, new_instance(tx, number), "PACS", "r", NOON)
        stored, *_ = deliveries.claim_deliveries(tx, queues.due_deliveries(tx, "PACS", NOON, 2))
        deliveries.finish_delivery(tx, stored["id"], stored["attempt"], DeliveryState.STORED)
        assert work.give_back(tx) == ([running], 1)
        assert [row["state"] for row in rows(tx, select(delivery).order_by(delivery.c.id))] == [
            "stored", "waiting", "waiting",
        ]  # fmt: skip
        assert the_run(tx, finished)["state"] == RunState.DONE


def test_older_waiting_runs_are_cancelled_and_others_are_not(database: Database) -> None:
    """Only waiting runs of earlier revisions of the same series go; running ones and other series stay."""
    with database.write() as tx:
        old, new, other = new_series(tx), new_series(tx, 2), new_series(tx, 1, uid="1.2.9.2")
        waiting, running = new_run(tx, old, "a"), new_run(tx, old, "b")
        work.claim_run(tx, the_run(tx, running), NOON)
        stays, elsewhere = new_run(tx, new), new_run(tx, other)
        assert work.cancel_older_runs(tx, "1.2.9", "1.2.9.1", 2, "why") == [waiting]
        assert (the_run(tx, waiting)["state"], the_run(tx, waiting)["reason"]) == (RunState.CANCELLED, "why")
        for key, state in (
            (running, RunState.RUNNING),
            (stays, RunState.WAITING),
            (elsewhere, RunState.WAITING),
        ):
            assert the_run(tx, key)["state"] == state


# --- identity


def test_the_same_bytes_settle_and_other_bytes_raise_the_generation(database: Database) -> None:
    """A digest once made stands for its UID; other bytes under it are refused and counted, new UIDs are fine."""
    with database.write() as tx:
        work.remember_identity(tx, "key", NOON, {"soft": 301})
        assert work.settle_identity(tx, "key", [product(1), product(2)])
        assert work.settle_identity(tx, "key", [product(1)])
        assert dict(work.identity_of(tx, "key") or {})["generation"] == 0
        assert not work.settle_identity(tx, "key", [product(2), product(1, digest="f" * 64)])
        found = dict(work.identity_of(tx, "key") or {})
        assert (found["generation"], found["first_run_at"]) == (1, NOON)
        assert work.settle_identity(tx, "key", [product(11)])  # the new generation's UID
        assert work.identity_of(tx, "other") is None


def test_numbers_in_study_count_received_and_made_series(database: Database) -> None:
    """A study's taken Series Numbers are those received and those given to results, of no other study."""
    with database.write() as tx:
        one = new_series(tx, number=3)
        new_series(tx, number=7, uid="1.2.9.2")
        new_series(tx, number=None, uid="1.2.9.3")
        elsewhere = intake.open_series(
            tx, header(study_uid="5.5", series_uid="5.5.1"), 1, {"series_number": 50}, NOON
        )
        for key, of, numbers in (("k1", one, {"soft": 301, "sharp": 302}), ("k2", elsewhere, {"soft": 5001})):
            work.remember_identity(tx, key, NOON, numbers)
            made = new_run(tx, of)
            tx.execute(update(run).where(run.c.id == made).values(identity=key))
        assert work.numbers_in_study(tx, one) == (3, {3, 7, 301, 302})


# --- deliveries


def test_an_object_goes_to_a_destination_once(database: Database) -> None:
    """Queued by two rules it is one delivery per destination."""
    with database.write() as tx:
        key = new_instance(tx)
        assert deliveries.deliver_instance(tx, key, "PACS", "a", NOON)
        assert not deliveries.deliver_instance(tx, key, "PACS", "b", NOON)
        assert deliveries.deliver_instance(tx, key, "ARCHIVE", "b", NOON)
        assert queues.waiting_destinations(tx, NOON) in (["ARCHIVE", "PACS"], ["PACS", "ARCHIVE"])
        assert queues.waiting_destinations(tx, NOON - MINUTE) == []


def test_the_same_result_goes_to_a_destination_once(database: Database) -> None:
    """The same UID with the same bytes is not queued again, other bytes are, and a cancelled one counts for nothing."""
    with database.write() as tx:
        one, two = (new_run(tx, new_series(tx, revision)) for revision in (1, 2))
        ((first, made),) = work.add_products(tx, one, "runs/1/1", done(product(1)))
        ((again, _),) = work.add_products(tx, two, "runs/2/1", done(product(1)))
        other_bytes = product(1, digest="e" * 64)
        assert deliveries.deliver_product(tx, first, made, "PACS", "r", NOON)
        assert not deliveries.deliver_product(tx, again, made, "PACS", "r", NOON)
        assert deliveries.deliver_product(tx, again, other_bytes, "PACS", "r", NOON)
        tx.execute(update(delivery).values(state=DeliveryState.CANCELLED))
        assert deliveries.deliver_product(tx, again, made, "ARCHIVE", "r", NOON)


def test_a_result_that_retention_removed_goes_again(database: Database) -> None:
    """The series was sent once more after its removal: the same result is queued as at the first time."""
    with database.write() as tx:
        one, two = (new_run(tx, new_series(tx, revision)) for revision in (1, 2))
        ((first, made),) = work.add_products(tx, one, "runs/1/1", done(product(1)))
        ((again, _),) = work.add_products(tx, two, "runs/2/1", done(product(1)))
        assert deliveries.deliver_product(tx, first, made, "PACS", "r", NOON)
        tx.execute(update(delivery).values(state=DeliveryState.STORED))
        tx.execute(update(product_table).where(product_table.c.id == first).values(removed_at=NOON))
        assert deliveries.deliver_product(tx, again, made, "PACS", "r", NOON)


@pytest.mark.parametrize("kind", KIND_OF.values())
def test_a_result_of_every_kind_can_be_queued(tmp_path: Path, kind: str) -> None:
    """Whatever an operator returns has its place in the order in which a destination gets results."""
    database = open_database("sqlite", tmp_path)
    with database.write() as tx:
        made = product(1, kind=kind)
        ((key, made),) = work.add_products(tx, new_run(tx, new_series(tx)), "runs/1/1", done(made))
        assert deliveries.deliver_product(tx, key, made, "PACS", "r", NOON)
    database.close()


def run_with_all_stages(tx: Connection) -> dict[str, int]:
    """A report, a SEG and two images of one run, queued in that order for PACS; name → delivery."""
    key = new_run(tx, new_series(tx))
    names = {"report": product(1, "sr", "report"), "seg": product(2, "seg", "segmentation"),
             "two": product(4), "one": product(3)}  # fmt: skip
    found = {}
    for name, made in names.items():
        ((product_id, _),) = work.add_products(tx, key, "runs/1/1", done(made))
        deliveries.deliver_product(tx, product_id, made, "PACS", "r", NOON)
        found[name] = rows(tx, select(delivery.c.id).where(delivery.c.product_id == product_id))[0]["id"]
    return found


def due(tx: Connection, to: str = "PACS") -> list[int]:
    """Ids of what may be sent now."""
    return [row["id"] for row in queues.due_deliveries(tx, to, NOON, 200)]


def put(tx: Connection, key: int, state: DeliveryState) -> None:
    """Set a delivery's state."""
    tx.execute(update(delivery).where(delivery.c.id == key).values(state=state))


def test_reports_wait_until_images_and_segmentations_are_stored(database: Database) -> None:
    """Image → SEG → report: each stage is due only when the whole stage before it is stored there."""
    with database.write() as tx:
        queued = run_with_all_stages(tx)
        assert due(tx) == [queued["two"], queued["one"]]
        put(tx, queued["one"], DeliveryState.STORED)
        assert due(tx) == [queued["two"]]
        put(tx, queued["two"], DeliveryState.COMMITTED)
        assert due(tx) == [queued["seg"]]
        put(tx, queued["seg"], DeliveryState.SENDING)
        assert due(tx) == []
        put(tx, queued["seg"], DeliveryState.STORED)
        assert due(tx) == [queued["report"]]


@pytest.mark.parametrize("state", [DeliveryState.PARKED, DeliveryState.HELD, DeliveryState.WAITING])
def test_a_parked_segmentation_keeps_the_report_waiting(database: Database, state: DeliveryState) -> None:
    """A report never arrives before what it refers to, however long a person takes; a cancelled one frees it."""
    with database.write() as tx:
        queued = run_with_all_stages(tx)
        for name in ("one", "two"):
            put(tx, queued[name], DeliveryState.STORED)
        put(tx, queued["seg"], state)
        assert queued["report"] not in due(tx)
        put(tx, queued["seg"], DeliveryState.CANCELLED)
        assert due(tx) == [queued["report"]]


def test_another_destination_and_another_run_do_not_wait(database: Database) -> None:
    """What is missing at one destination, or of another run, holds up nothing else."""
    with database.write() as tx:
        run_with_all_stages(tx)
        other = new_run(tx, new_series(tx, uid="1.2.9.7"))
        made = product(9, "sr", "report")
        ((key, _),) = work.add_products(tx, other, "runs/2/1", done(made))
        deliveries.deliver_product(tx, key, made, "ARCHIVE", "r", NOON)
        deliveries.deliver_product(tx, key, made, "PACS", "r", NOON)
        (alone,) = due(tx, "ARCHIVE")
        assert len(due(tx)) == 3  # both images, and the other run's report after them
        assert rows(tx, select(delivery.c.product_id).where(delivery.c.id == alone)) == [{"product_id": key}]


def test_a_delivery_says_what_it_sends(database: Database) -> None:
    """Received objects carry where their file is, results their path, both their UIDs and transfer syntax."""
    with database.write() as tx:
        deliveries.deliver_instance(tx, new_instance(tx, 5), "PACS", "r", NOON)
        ((key, made),) = work.add_products(tx, new_run(tx, new_series(tx)), "runs/1/1", done(product(2)))
        deliveries.deliver_product(tx, key, made, "PACS", "r", NOON)
        received, result = queues.due_deliveries(tx, "PACS", NOON, 10)
        assert (received["sop_uid"], received["receiver_run"], received["sequence"]) == ("1.2.3.5", 1, 5)
        assert (result["sop_uid"], result["path"]) == ("2.25.2", "runs/1/1/soft/0002.dcm")
        assert received["transfer_syntax"] == result["transfer_syntax"] == "1.2.840.10008.1.2.1"


def test_only_one_of_two_claimers_gets_a_delivery(database: Database) -> None:
    """Both saw it waiting; it goes to the first, and a late result of an older attempt changes nothing."""
    with database.write() as tx:
        deliveries.deliver_instance(tx, new_instance(tx), "PACS", "r", NOON)
        seen = queues.due_deliveries(tx, "PACS", NOON, 10)
        (mine,) = deliveries.claim_deliveries(tx, seen)
        assert deliveries.claim_deliveries(tx, seen) == []
        deliveries.unclaim_deliveries(tx, [mine["id"]])
        (later,) = deliveries.claim_deliveries(tx, queues.due_deliveries(tx, "PACS", NOON, 10))
        assert later["attempt"] == mine["attempt"] + 1
        assert not deliveries.finish_delivery(tx, mine["id"], mine["attempt"], DeliveryState.PARKED)
        assert deliveries.finish_delivery(tx, later["id"], later["attempt"], DeliveryState.STORED)


def test_sent_again_is_what_was_delivered_long_enough_ago(database: Database) -> None:
    """A received object and its results go again where they were stored before the given moment, and only there."""
    with database.write() as tx:
        one = new_series(tx)
        key = new_instance(tx, 1, one)
        ((made_id, made),) = work.add_products(tx, new_run(tx, one), "runs/1/1", done(product(1)))
        deliveries.deliver_instance(tx, key, "PACS", "r", NOON)
        deliveries.deliver_product(tx, made_id, made, "PACS", "r", NOON)
        deliveries.deliver_instance(tx, key, "ARCHIVE", "r", NOON)
        deliveries.deliver_instance(tx, new_instance(tx, 2), "PACS", "r", NOON)
        long_ago = NOON - timedelta(hours=1)
        tx.execute(update(delivery).values(state=DeliveryState.STORED, finished_at=long_ago))
        tx.execute(update(delivery).where(delivery.c.destination == "ARCHIVE").values(finished_at=NOON))
        before = {"PACS": NOON - MINUTE, "ARCHIVE": NOON - MINUTE}
        assert deliveries.redeliver(tx, key, before, NOON) == 2
        found = rows(tx, select(delivery).order_by(delivery.c.id))
        assert [row["state"] for row in found] == ["waiting", "waiting", "stored", "stored"]
        assert deliveries.redeliver(tx, key, before, NOON) == 0  # it is on its way already


def test_results_keep_their_numbers(database: Database) -> None:
    """Products and measurements of a run are stored with the run they belong to."""
    number = {
        "output": "m",
        "name": "a^b^c",
        "value": 1.5,
        "unit": "mm^UCUM^mm",
        "region": "Body",
        "derivation": "",
    }
    with database.write() as tx:
        key = new_run(tx, new_series(tx))
        made = work.add_products(tx, key, "runs/1/2", done(product(1), product(2), measurements=(number,)))
        assert [p.sop_uid for _, p in made] == ["2.25.1", "2.25.2"]
        assert work.is_ours(tx, "2.25.2")
        assert not work.is_ours(tx, "2.25.3")
        (stored,) = queries.measurements_of(tx, key)
        assert {k: stored[k] for k in number} == number
        assert len(rows(tx, select(product_table))) == 2
        assert tx.scalar(select(measurement.c.run_id)) == key


def test_a_destination_is_remembered_down_and_up(database: Database) -> None:
    """What is known of a destination is one row, changed in place."""
    with database.write() as tx:
        queues.set_destination(tx, "PACS", down=True, reason="refused", since=NOON, failures=1, next_at=NOON)
        queues.set_destination(tx, "PACS", down=False, reason="", since=None, failures=0, next_at=None)
        assert list(queues.destinations(tx)) == ["PACS"]
        assert queues.destinations(tx)["PACS"]["down"] is False


def test_a_failed_object_is_traced_to_its_series(database: Database) -> None:
    """An event about a delivery names the instance or the run, and the series of either."""
    with database.write() as tx:
        one = new_series(tx)
        received = new_instance(tx, 1, one)
        key = new_run(tx, one)
        ((made_id, made),) = work.add_products(tx, key, "runs/1/1", done(product(1)))
        deliveries.deliver_instance(tx, received, "PACS", "r", NOON)
        deliveries.deliver_product(tx, made_id, made, "PACS", "r", NOON)
        first, second = tx.scalars(select(delivery.c.id).order_by(delivery.c.id))
        assert deliveries.object_of(tx, first) == {"instance_id": received, "run_id": None, "series_id": one}
        assert deliveries.object_of(tx, second) == {"instance_id": None, "run_id": key, "series_id": one}
        assert deliveries.failures_of(tx, first) == (0, None)
        assert tx.scalar(select(series.c.id)) == one
