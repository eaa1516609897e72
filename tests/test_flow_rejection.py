"""Claims about received rejection notes on the whole road, on a real database with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from flow_material import ROUTE, SMOOTH, House, done, header, product, rule

from node.desk.explaining import explain_kept
from node.desk.timeline import timeline_lines, timelines
from node.errors import Refused
from node.model import EXPIRED, Header, RunState
from node.send.protocol import Kind
from node.store import acts, intake, replays, work
from node.store.acts import Act
from node.store.choosing import Wanted
from node.store.queries import Search
from node.store.replays import Replay
from node.store.schema import delivery, instance, measurement, rejection, run, series

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
WHY = "Rejected for Quality Reasons (113001, DCM), says rejection note"
NUMBER = {"output": "soft", "name": "a^b^c", "value": 1.5, "unit": "mm^UCUM^mm"}


def note(*uids: str, code: str = "113001", number: int = 90, **changes: Any) -> Header:
    """A rejection note in a series of its own that names these objects."""
    return header(
        number, sop_class=KEY_OBJECT, series_uid=f"1.2.9.{number}", pixel_digest="", rejection=code,
        rejects=uids, attributes={"Modality": "KO", "ImagePositionPatient": None}, **changes,
    )  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Everything goes to the PACS at once; CT is smoothed and the result goes there too."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


def states(house: House, table: Any) -> list[str]:
    """The states of a table's rows, by id."""
    return [row["state"] for row in house.rows(table)]


def reasons(house: House, table: Any) -> list[str]:
    """The reasons of a table's rows, by id."""
    return [row["reason"] for row in house.rows(table)]


@pytest.mark.parametrize("code", ["113001", "113037", "113038", EXPIRED])
def test_what_waits_of_rejected_objects_is_not_sent(house: House, code: str) -> None:
    """Waiting, parked and held deliveries are cancelled; the note itself is kept and goes to the PACS."""
    house.take(*(header(n) for n in (1, 2, 3, 4)))
    first, *_ = house.claim()
    house.answer((first,))
    with house.tx() as tx:
        work.give_back(tx)
        acts.on_deliveries(tx, Act("hold", house.clock.at), Wanted(limit=1))
    house.take(note("1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.99", code=code))
    assert states(house, instance) == ["rejected"] * 3 + ["kept"] * 2
    assert states(house, delivery) == ["stored", "cancelled", "cancelled", "held", "waiting"]
    assert all(f"({code}, DCM)" in row["reason"] for row in house.rows(instance)[:3])
    (told,) = house.events("objects_rejected")
    assert told["series_id"] == 1 and told["detail"].startswith("3 objects rejected: ")
    (said,) = house.events("rejection_note")
    assert said["series_id"] == 2 and said["detail"].startswith(
        "4 objects named: 3 received here, 0 made here"
    )
    assert len(house.rows(rejection)) == 4


def test_an_object_that_is_being_sent_when_the_note_comes_is_not_tried_again(house: House) -> None:
    """Its batch broke: it waits, and the next claim sorts it out with the reason."""
    house.take(header(1), header(2))
    claimed = house.claim()
    house.take(note("1.2.3.1"))
    house.over("connection lost", claimed=claimed)
    house.clock.tick(hours=1)
    house.probe()
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.2", "1.2.3.90"]
    assert house.rows(delivery)[0]["state"] == "cancelled"
    assert house.rows(delivery)[0]["reason"] == "a rejection note names the object"


def test_a_rejected_object_of_an_open_series_is_not_in_it(house: House) -> None:
    """The series is sealed and processed without it."""
    house.take(header(1), header(2), header(3), note("1.2.3.3"))
    house.seal(1)
    house.route()
    (row,) = house.rows(run)
    assert row["files"] == "[1, 2]"


def test_a_note_counts_for_what_comes_in_the_same_group(house: House) -> None:
    """What it names is rejected though nobody knew of it when the group began; what it does not name is kept."""
    house.take(header(1), note("1.2.3.2", "1.2.3.4"), header(2), header(3))
    assert states(house, instance) == ["kept", "kept", "rejected", "kept"]


def test_an_open_series_without_any_other_object_is_rejected(house: House) -> None:
    """It is closed with the reason, and what comes later opens a revision of its own."""
    house.take(header(1), note("1.2.3.1"))
    assert states(house, series) == ["rejected", "receiving"]
    assert reasons(house, series)[0].startswith(WHY)
    assert list(house.parts.assembly.series) == [2]
    assert [row["series_id"] for row in house.events("series_rejected")] == [1]
    house.take(header(2))
    assert [(row["revision"], row["state"]) for row in house.series()] == [
        (1, "rejected"), (1, "receiving"), (2, "receiving"),
    ]  # fmt: skip
    house.seal(3)
    house.route()
    assert [row["files"] for row in house.rows(run)] == ["[3]"]


def test_a_sealed_series_is_judged_without_what_was_rejected_since(tmp_path: Path) -> None:
    """Members that a note names are neither judged nor used; the gap they leave is told."""
    house = House(
        tmp_path,
        SMOOTH + rule("partly", "do: [{smooth: {}, as: s}]\nsend: [{what: s, to: PACS}]\nincomplete: ok"),
    )
    house.take(*(header(n) for n in range(1, 7)))
    house.seal(1)
    house.take(note("1.2.3.3"))
    house.route()
    (row,) = house.rows(run)
    assert (row["rule"], row["files"]) == ("partly", "[1, 2, 4, 5, 6]")
    house.database.close()


def test_a_sealed_series_that_is_rejected_as_a_whole_is_not_routed(house: House) -> None:
    """It goes from sealed to rejected."""
    house.take(header(1), header(2))
    house.seal(1)
    house.take(note("1.2.3.1", "1.2.3.2"))
    house.route()
    assert states(house, series) == ["rejected", "receiving"]
    assert house.rows(run) == []


def test_runs_that_wait_or_work_are_cancelled(house: House) -> None:
    """A worker's is found by the conductor to be running no more, and what it still says counts for nothing."""
    house.complete(header(1), header(2))
    house.complete(header(11, series_uid="1.2.9.2"))
    started = house.start()
    assert started is not None and started.run == 1
    house.take(note("1.2.3.1", "1.2.3.11"))
    assert states(house, run) == ["cancelled", "cancelled"]
    assert all(reason.startswith(f"it uses rejected objects: {WHY}") for reason in reasons(house, run))
    with house.tx() as tx:
        assert work.not_running(tx, [(1, 1)]) == [(1, 1)]
    house.finish(started, done(product(1)))
    assert states(house, run) == ["cancelled", "cancelled"]
    assert [row["run_id"] for row in house.events("run_cancelled")] == [1, 2]
    assert [row["state"] for row in house.series()] == ["routed", "rejected", "receiving"]


def test_a_cancelled_run_that_is_tried_again_by_hand_stays_away_from_rejected_objects(house: House) -> None:
    """`retry` of it says what to do instead: replay judges what is left."""
    house.complete(header(1), header(2))
    house.take(note("1.2.3.1"))
    with house.tx() as tx:
        acts.on_runs(tx, Act("retry", house.clock.at), Wanted(run=1))
    assert house.start() is None
    assert states(house, run) == ["cancelled"] and "`pacsnode replay`" in reasons(house, run)[0]
    with house.tx() as tx:
        assert replays.replay_series(tx, 1, Replay(), Act("replay", house.clock.at)) == ""
    house.route()
    assert [(row["state"], row["files"]) for row in house.rows(run)] == [
        ("cancelled", "[1, 2]"),
        ("waiting", "[2]"),
    ]


def test_measurements_of_rejected_objects_are_removed(house: House) -> None:
    """The numbers go, what waits of the results is cancelled, and the run says why it is over."""
    house.complete(header(1), header(2))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1), measurements=(NUMBER,)))
    house.complete(header(11, series_uid="1.2.9.2"))
    second = house.start()
    assert second is not None
    house.finish(second, done(product(2), measurements=(NUMBER,)))
    house.take(note("1.2.3.2"))
    assert [row["run_id"] for row in house.rows(measurement)] == [2]
    assert [row["state"] for row in house.rows(delivery) if row["product_id"]] == ["cancelled", "waiting"]
    assert states(house, run) == ["cancelled", "done"]
    assert reasons(house, run)[0].startswith("it was made from rejected objects: ")


def test_expired_objects_make_no_result_wrong(house: House) -> None:
    """113039: numbers go and nothing waits any more, but what was made of them stays where it is."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1), measurements=(NUMBER,)))
    house.take(note("1.2.3.1", code=EXPIRED))
    assert house.rows(measurement) == [] and states(house, run) == ["done"]


def test_a_note_may_name_results_of_ours(house: House) -> None:
    """A radiologist rejects our result at the PACS: what still waits of it goes nowhere, and its numbers are gone."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1), product(2), measurements=(NUMBER,)))
    house.take(note("2.25.2"))
    assert [row["state"] for row in house.rows(delivery) if row["product_id"]] == ["waiting", "cancelled"]
    assert house.rows(measurement) == [] and states(house, instance) == ["kept", "kept"]
    (told,) = house.events("results_rejected")
    assert (told["run_id"], told["detail"].split(":")[0]) == (1, "1 result rejected")


@pytest.mark.parametrize(
    ("code", "state"), [("113001", "rejected"), ("113038", "rejected"), (EXPIRED, "kept")]
)
def test_what_comes_after_the_note_is_rejected_unless_it_merely_expired(
    house: House, code: str, state: str
) -> None:
    """Its bytes are kept and shown; it is neither grouped nor sent."""
    house.take(note("1.2.3.1", code=code), header(1))
    assert states(house, instance) == ["kept", state]
    assert len(house.rows(delivery)) == (2 if state == "kept" else 1)
    assert len(house.parts.assembly.series) == (2 if state == "kept" else 1)
    if state == "rejected":
        assert states(house, series) == ["receiving", "rejected"], "it can be found by its study"
        assert [row["instance_id"] for row in house.events("instance_rejected")] == [2]


def test_the_worse_note_counts(house: House) -> None:
    """First expired, then rejected for quality: what comes now is rejected; the other way round as well."""
    house.take(note("1.2.3.1", code=EXPIRED, number=90), note("1.2.3.1", number=91), header(1))
    house.take(note("1.2.3.2", number=92), note("1.2.3.2", code=EXPIRED, number=93), header(2))
    assert [row["state"] for row in house.rows(instance) if row["sop_uid"] in ("1.2.3.1", "1.2.3.2")] == [
        "rejected"
    ] * 2


def test_a_rejected_object_sent_again_is_no_duplicate(house: House) -> None:
    """The same bytes come again: rejected as well, and nothing is delivered again."""
    house.take(header(1))
    house.answer(house.claim())
    house.take(note("1.2.3.1"))
    house.clock.tick(hours=1)
    taken = house.take(header(1))
    assert taken[0].remove is None
    assert states(house, instance) == ["rejected", "kept", "rejected"]
    assert house.events("redelivery") == []


def test_a_corrected_object_under_a_new_uid_is_just_new(house: House) -> None:
    """It opens a revision without the rejected one, and that is processed."""
    house.complete(header(1), header(2))
    house.take(note("1.2.3.2"))
    house.complete(header(3))
    assert [row["files"] for row in house.rows(run)] == ["[1, 2]", "[1, 4]"]
    assert states(house, run) == ["cancelled", "waiting"]
    assert house.rows(instance)[-1]["state"] == "kept"


def test_a_conflict_and_a_comparison_end_with_the_note(house: House) -> None:
    """Objects that were set aside under a rejected UID are not released into its place."""
    house.take(header(1), header(1, digest="d" * 64, pixel_digest="e" * 64))
    assert states(house, instance) == ["kept", "conflict"]
    house.take(note("1.2.3.1"))
    assert states(house, instance) == ["rejected", "rejected", "kept"]
    assert [row["instance_id"] for row in house.events("instance_rejected")] == [2]


def test_a_note_that_comes_twice_or_names_itself_does_nothing_more(house: House) -> None:
    """A duplicate of a note is a duplicate; a note that names itself stays kept."""
    one = note("1.2.3.1", "1.2.3.90")
    house.take(header(1), one, one)
    assert states(house, instance) == ["rejected", "kept", "duplicate"]
    assert len(house.events("rejection_note")) == 1


def test_a_note_over_two_thousand_objects(house: House) -> None:
    """Every object it names is rejected, those that come later too."""
    uids = [f"1.2.3.{n}" for n in range(2000)]
    house.take(*(header(n, series_uid=f"1.2.9.{n % 3}") for n in range(0, 30)))
    house.take(note(*uids, number=5000))
    house.take(header(1999))
    found = states(house, instance)
    assert found[:30] == ["rejected"] * 30 and found[30:] == ["kept", "rejected"]
    assert len(house.rows(rejection)) == 2000


def test_a_note_to_a_node_that_knows_nothing_of_it(house: House) -> None:
    """It is remembered, kept and routed."""
    house.complete(note("1.2.3.1"))
    assert states(house, series) == ["routed"]
    assert house.events("rejection_note")[0]["detail"].startswith(
        "1 object named: 0 received here, 0 made here; "
    )


def test_a_note_with_a_newer_header_is_heard_again(house: House) -> None:
    """The corrected note names one more object."""
    house.take(header(1), header(2), note("1.2.3.1", digest="a" * 64))
    house.take(note("1.2.3.1", "1.2.3.2", digest="b" * 64))
    assert [row["state"] for row in house.rows(instance)] == ["rejected", "rejected", "replaced", "kept"]


def test_a_restart_between_note_and_seal_rebuilds_without_the_rejected(house: House) -> None:
    """Only what is kept of an open series comes back from its files."""
    house.take(header(1), header(2), note("1.2.3.2"))
    with house.tx() as tx:
        assert [row["id"] for row in intake.arrived_in(tx, 1)] == [1]


def test_results_that_a_batch_still_carries_do_not_come_back(house: House) -> None:
    """A result that was being sent when its source was rejected and failed is not tried again."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.answer(house.claim())
    house.finish(started, done(product(1)))
    claimed = house.claim()
    assert [item.sop_uid for item in claimed] == ["2.25.1"]
    house.take(note("1.2.3.1"))
    house.answer(claimed, Kind.FAILED, None)
    house.clock.tick(hours=2)
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.90"]
    assert [row["state"] for row in house.rows(delivery) if row["product_id"]] == ["cancelled"]
    assert states(house, run) == [RunState.CANCELLED]


def test_find_and_explain_tell_of_it(house: House) -> None:
    """The timeline of the study shows note, objects, runs and series; `explain` says why no rule is asked."""
    house.complete(header(1))
    house.take(note("1.2.3.1", "1.2.3.2"), header(2))
    (study,) = timelines(house.database, Search(study="1.2.9"))
    told = {entry["name"]: entry["detail"] for entry in study["timeline"]}
    names = {"rejection_note", "objects_rejected", "run_cancelled", "series_rejected", "instance_rejected"}
    assert names <= set(told)
    assert all(WHY in told[name] for name in names)
    assert told["delivery_cancelled"].startswith(f"1 received object cancelled: rejected: {WHY}")
    assert any("rejected" in line for line in timeline_lines([study], UTC, "UTC"))
    with pytest.raises(Refused, match=r"series 1 is rejected as a whole.*113001"):
        explain_kept(house.parts.settings, house.parts.rules, Search(series="1"))
