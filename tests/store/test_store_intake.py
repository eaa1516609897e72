"""Claims about rows of what was received, and what people ask, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flow_material import ROUTE, SMOOTH, House, done, header, product
from sqlalchemy import select, update
from store_cases import STATES, opened

from node.facts import gather
from node.model import InstanceState, SeriesState
from node.send.protocol import Kind
from node.store import choosing, intake, queries, rejections, standing
from node.store.choosing import Wanted
from node.store.database import note
from node.store.queries import Search
from node.store.schema import instance, series


@pytest.fixture(params=STATES)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A node's parts with two rules: everything to the PACS, CT also smoothed."""
    found = House(tmp_path, ROUTE + SMOOTH, state=opened(request))
    yield found
    found.database.close()


def test_each_receiver_run_has_a_cursor_of_its_own(house: House) -> None:
    """A cursor starts at 0, goes where it is set, and moves no other."""
    with house.tx() as tx:
        assert intake.cursor_of(tx, 7) == 0
        intake.set_cursor(tx, 7, 12)
        intake.set_cursor(tx, 7, 13)
        intake.set_cursor(tx, 8, 1)
        assert (intake.cursor_of(tx, 7), intake.cursor_of(tx, 8), intake.cursor_of(tx, 9)) == (13, 1, 0)


def test_a_kept_object_is_found_by_its_uid_with_its_series(house: House) -> None:
    """Only the kept one counts, and it brings the UIDs of its series along."""
    house.take(header(1), header(1, digest="d" * 64, pixel_digest="e" * 64))
    with house.tx() as tx:
        found = intake.kept(tx, "1.2.3.1")
        assert found is not None
        assert (found["state"], found["study_uid"], found["series_uid"]) == ("kept", "1.2.9", "1.2.9.1")
        assert intake.kept(tx, "1.2.3.2") is None
        assert intake.has_file(tx, 1, 2)
        assert not intake.has_file(tx, 2, 1)


def test_a_stranger_is_one_of_whom_no_table_knows(house: House) -> None:
    """Not who was kept or set aside before, is named by a rejection note, comes twice, is met again, or has no UID."""
    house.take(header(1), header(1, digest="d" * 64, pixel_digest="e" * 64), header(2))
    with house.tx() as tx:
        rejections.remember(tx, ["1.2.3.3"], "113001", 1, house.clock.at)
        assert intake.strangers(tx, {}) == set()
        group = {(1, 9): "1.2.3.1", (2, 1): "1.2.3.3", (2, 2): "1.2.3.4", (2, 3): "1.2.3.4", (1, 3): "1.2.3.5",
                 (2, 4): "", (2, 5): "1.2.3.6", (3, 3): "1.2.3.7"}  # fmt: skip
        assert intake.strangers(tx, group) == {"1.2.3.6", "1.2.3.7"}


def test_a_sealed_revision_gives_back_its_members_and_facts(house: House) -> None:
    """Members and facts are stored as one blob in the same order, and a second sealing changes nothing."""
    house.take(header(1), header(2))
    facts = gather([header(2).attributes, header(1).attributes])
    with house.tx() as tx:
        assert intake.members_and_facts(tx, 1)[0] == ()
        assert intake.seal_series(tx, 1, "why", "gap", members=(2, 1), facts=facts, now=house.clock.at)
        assert intake.members_and_facts(tx, 1) == ((2, 1), facts)
        assert not intake.seal_series(tx, 1, "again", "", members=(1,), facts=facts, now=house.clock.at)
    (row,) = house.series()
    assert (row["state"], row["reason"], row["incomplete"], row["instances"]) == ("sealed", "why", "gap", 2)


def test_series_that_are_held_do_not_come_up_for_work(house: House) -> None:
    """`in_state` lists what is not held, oldest first."""
    house.take(header(1), header(2, series_uid="1.2.9.2"), header(3, series_uid="1.2.9.3"))
    with house.tx() as tx:
        tx.execute(update(series).where(series.c.id == 2).values(held="restored"))
        assert [row["id"] for row in intake.in_state(tx, SeriesState.RECEIVING)] == [1, 3]


def test_instances_come_in_the_order_asked(house: House) -> None:
    """Also past the number of parameters one statement takes, and unknown ids are left out."""
    house.take(header(1), header(2), header(3))
    with house.tx() as tx:
        ids = [3, 1, *range(1000, 1600), 2]
        assert [row["id"] for row in intake.instances_of(tx, ids)] == [3, 1, 2]
        assert [row["id"] for row in intake.arrived_in(tx, 1)] == [1, 2, 3]


def test_revisions_know_the_one_before(house: House) -> None:
    """The newest revision of a series is found, and each one's predecessor."""
    house.complete(header(1))
    house.complete(header(2))
    house.complete(header(3))
    with house.tx() as tx:
        newest = intake.latest(tx, "1.2.9", "1.2.9.1")
        assert newest is not None
        assert newest["revision"] == 3
        assert intake.revision_before(tx, 3) == 2
        assert intake.revision_before(tx, 1) is None
        assert intake.latest(tx, "1.2.9", "1.2.9.4") is None


def test_a_revision_is_stored_once(house: House) -> None:
    """The same revision of a series cannot be opened twice."""
    house.take(header(1))
    with pytest.raises(Exception, match=r"(?i)unique"), house.tx() as tx:
        intake.open_series(tx, header(1), 1, {}, house.clock.at)


# --- what people ask


def worked(house: House) -> None:
    """Two series came and went; one object is parked, one result was made."""
    house.complete(header(1), header(2))
    house.clock.tick(minutes=5)
    other = {"Modality": "MR", "PatientID": "P2", "AccessionNumber": "A2"}
    house.complete(header(3, study_uid="1.2.8", series_uid="1.2.8.1", attributes=other))
    batch = house.claim()
    house.answer(batch[:2])
    house.answer(batch[2:], Kind.FAILED, 0x0122)
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))


def test_the_overview_counts_every_state(house: House) -> None:
    """Status shows instances, series, runs and deliveries by state, and the oldest waiting delivery."""
    worked(house)
    with house.database.read() as tx:
        found = standing.overview(tx)
        assert not standing.is_idle(tx)
    assert found["instances"] == {"kept": 3}
    assert found["series"] == {"routed": 2}
    assert found["runs"] == {"done": 1}
    assert found["deliveries"] == {"stored": 2, "parked": 1, "waiting": 1}
    assert found["oldest_waiting_delivery"] == house.clock.at


def test_lists_are_narrowed_by_what_is_wanted(house: House) -> None:
    """Series by id, UID or state; runs and events by series or run; newest first, at most so many."""
    worked(house)
    with house.database.read() as tx:
        assert [row["id"] for row in queries.list_series(tx, Wanted())] == [2, 1]
        assert [row["id"] for row in queries.list_series(tx, Wanted(series="1"))] == [1]
        assert [row["id"] for row in queries.list_series(tx, Wanted(series="1.2.8.1"))] == [2]
        assert queries.list_series(tx, Wanted(state="receiving")) == []
        assert len(queries.list_series(tx, Wanted(limit=1))) == 1
        (run,) = queries.list_runs(tx, Wanted(series="1"))
        assert (run["rule"], run["state"], run["products"]) == ("smooth", "done", 1)
        assert queries.list_runs(tx, Wanted(series="2")) == []
        assert queries.list_runs(tx, Wanted(run=run["id"], state="waiting")) == []
        of_run = [row["name"] for row in queries.list_events(tx, Wanted(run=1))]
        assert of_run == ["run_done", "run_opened"]
        assert {row["name"] for row in queries.list_events(tx, Wanted(series="1.2.9.1"))} >= {
            "series_opened", "series_sealed", "series_routed", "run_done",
        }  # fmt: skip


def test_no_list_names_the_patient(house: House) -> None:
    """What `pacsnode series` shows holds neither patient ID nor accession number; `find` is asked for them."""
    worked(house)
    with house.database.read() as tx:
        (row, *_) = queries.list_series(tx, Wanted())
        assert not {"patient_id", "accession", "issuer", "facts"} & set(row)
        assert queries.find_series(tx, Search(patient="P2"))[0]["patient_id"] == "P2"


def test_every_list_can_be_narrowed_by_state_series_and_destination(house: House) -> None:
    """An option the command line takes for a list is never ignored by it."""
    worked(house)
    with house.database.read() as tx:
        assert {r["destination"] for r in queries.list_events(tx, Wanted(destination="PACS"))} == {"PACS"}
        assert queries.list_events(tx, Wanted(destination="ARCHIVE")) == []
        assert sum(r["objects"] for r in queries.list_deliveries(tx, Wanted(series="2"))) == 1
        assert sum(r["objects"] for r in queries.list_deliveries(tx, Wanted(series="1"))) == 3
        assert sum(r["objects"] for r in queries.list_deliveries(tx, Wanted(run=1))) == 1


def test_deliveries_are_listed_in_groups(house: House) -> None:
    """A backlog of thousands is one line per destination, state and reason."""
    worked(house)
    with house.database.read() as tx:
        found = {(r["state"], r["status"]): r["objects"] for r in queries.list_deliveries(tx, Wanted())}
        assert found == {("parked", 0x0122): 1, ("stored", 0): 2, ("waiting", None): 1}
        assert [r["state"] for r in queries.list_deliveries(tx, Wanted(status=0x0122))] == ["parked"]


def test_a_study_is_found_by_what_people_know_of_it(house: House) -> None:
    """Accession number, patient ID, Study Instance UID and time each lead to the same series."""
    worked(house)
    recent = house.clock.at - timedelta(minutes=1)
    with house.database.read() as tx:
        for search in (
            Search(accession="A2"),
            Search(patient="P2"),
            Search(study="1.2.8"),
            Search(since=recent),
        ):
            assert [row["series_uid"] for row in queries.find_series(tx, search)] == ["1.2.8.1"], search
        assert queries.find_series(tx, Search(accession="A2", patient="P1")) == []


def test_progress_counts_a_series_objects_and_its_results(house: House) -> None:
    """How far a series is: per destination, what became of its objects and of what was made of them."""
    worked(house)
    with house.database.read() as tx:
        assert standing.progress(tx, 1) == {"PACS": {"stored": 2, "waiting": 1}}
        assert standing.progress(tx, 2) == {"PACS": {"parked": 1}}


def test_objects_kept_aside_are_listed_by_their_state(house: House) -> None:
    """A conflict is visible, and the events tell it."""
    house.take(header(1), header(1, digest="d" * 64, pixel_digest="e" * 64))
    with house.tx() as tx:
        (aside,) = queries.list_instances(tx, choosing.Wanted(state=InstanceState.CONFLICT))
        assert (aside["sequence"], aside["series_id"]) == (2, None)
        note(tx, house.clock.at, "other", destination="X")
        assert tx.scalar(select(instance.c.id).where(instance.c.state == "conflict")) == aside["id"]
