"""Claims about the whole road: take_in, seal, route, run, deliver, on a real database with a clock of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import (
    JPEG,
    NOON,
    ROUTE,
    SITE,
    SMOOTH,
    Clock,
    House,
    done,
    header,
    product,
    rule,
)
from sqlalchemy import select, update

from node import flow
from node.assemble.completeness import Policy, Sealed, verdict
from node.assemble.resend import OTHER_PIXELS, RECOMPRESSED
from node.model import Exit, RunState
from node.route.rules import parse_rules
from node.store import intake, queues, work
from node.store.schema import delivery, identity, instance, run, series
from node.store.schema import product as products


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Everything goes to the PACS at once; CT is smoothed and the result goes there too."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


def with_rules(folder: Path, *rules: str, text: str = SITE) -> House:
    """A node with these rules."""
    return House(folder, "".join(rules), text=text)


def states(house: House, table: Any = instance) -> list[str]:
    """The states of a table's rows, by id."""
    return [row["state"] for row in house.rows(table)]


def queued(house: House) -> list[tuple[str, int | None]]:
    """(destination, instance) of every delivery of a received object."""
    return [(row["destination"], row["instance_id"]) for row in house.rows(delivery) if row["instance_id"]]


# --- take_in


def test_a_new_object_is_kept_in_its_series_and_sent_on_at_once(house: House) -> None:
    """One instance, one receiving series with what people search by, one waiting delivery."""
    house.take(header(1))
    (row,) = house.series()
    assert states(house) == ["kept"]
    assert {k: row[k] for k in ("state", "revision", "patient_id", "accession", "modality", "series_number",
                                "instances", "ours", "held")} == {
        "state": "receiving", "revision": 1, "patient_id": "P1", "accession": "A1", "modality": "CT",
        "series_number": 3, "instances": 1, "ours": False, "held": "",
    }  # fmt: skip
    assert queued(house) == [("PACS", 1)]
    assert [e["name"] for e in house.events()] == ["series_opened"]


def test_a_record_met_twice_in_catch_up_is_taken_once(house: House) -> None:
    """After a crash the same record comes again and changes nothing."""
    house.take(header(1))
    house.sequence = 0
    assert house.take(header(1)) == [flow.Taken()]
    assert states(house) == ["kept"]
    assert len(queued(house)) == 1


def test_a_duplicate_is_counted_and_its_file_let_go(house: House) -> None:
    """The same bytes again: nothing is recomputed or sent, and the file may go after the commit."""
    house.take(header(1))
    (taken,) = house.take(header(1))
    assert taken.remove == house.parts.data / "objects" / "00000001" / "0000" / "00000002.dcm"
    assert states(house) == ["kept", "duplicate"]
    assert len(queued(house)) == 1
    assert house.series()[0]["instances"] == 1


def test_what_comes_together_is_judged_as_if_one_after_the_other(house: House) -> None:
    """A second copy in the same group is a duplicate; another record met again is nothing new; all others are kept."""
    taken = house.take(header(1), header(2), header(1), header(3))
    assert states(house) == ["kept", "kept", "duplicate", "kept"]
    assert [bool(one.remove) for one in taken] == [False, False, True, False]
    house.sequence = 3
    house.take(header(3), header(4))
    assert states(house) == ["kept", "kept", "duplicate", "kept", "kept"]


def test_a_duplicate_is_delivered_again_only_when_the_last_delivery_is_old(house: House) -> None:
    """The sender asked: after `redeliver_after` (10 min) the object and what was made of it go again."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))
    house.answer(house.claim())
    house.clock.tick(minutes=9)
    house.take(header(1))
    assert states(house, delivery) == ["stored", "stored"]
    house.clock.tick(minutes=2)
    house.take(header(1))
    assert states(house, delivery) == ["waiting", "waiting"]
    assert [e["detail"] for e in house.events("redelivery")] == ["2 sent again"]


def test_a_newer_header_takes_the_place_of_the_older(house: House) -> None:
    """Same pixels, other header: the newest is kept and sent, what still waits sends it, the series has it once."""
    house.take(header(1), header(2))
    house.take(header(1, digest="a" * 64))
    assert states(house) == ["replaced", "kept", "kept"]
    assert queued(house) == [("PACS", 3), ("PACS", 2)]
    assert list(house.parts.assembly.series[1].members) == [2, 3]
    house.seal()
    assert house.series()[0]["instances"] == 2


def test_a_newer_header_of_something_delivered_is_delivered_too(house: House) -> None:
    """What the PACS has of the older one stays recorded, and the newer one is sent."""
    house.take(header(1))
    house.answer(house.claim())
    house.take(header(1, digest="a" * 64))
    assert [(r["instance_id"], r["state"]) for r in house.rows(delivery)] == [(1, "stored"), (2, "waiting")]


def test_a_newer_header_after_sealing_opens_a_revision_without_the_older(house: House) -> None:
    """Revision 1 stays what it was; revision 2 holds the newer object in place of the older."""
    house.complete(header(1), header(2))
    house.complete(header(2, digest="a" * 64))
    with house.database.read() as tx:
        from node.store import intake

        assert intake.members_and_facts(tx, 1)[0] == (1, 2)
        assert intake.members_and_facts(tx, 2)[0] == (1, 3)


def test_other_pixels_under_a_known_uid_are_kept_aside(house: House) -> None:
    """A conflict is in no series, replaces nothing, goes nowhere, and is told."""
    house.take(header(1))
    (taken,) = house.take(header(1, digest="a" * 64, pixel_digest="b" * 64))
    assert taken == flow.Taken()
    assert states(house) == ["kept", "conflict"]
    assert queued(house) == [("PACS", 1)]
    (told,) = house.events("instance_conflict")
    assert told["instance_id"] == 2
    assert "other pixels" in told["detail"]


def test_a_known_uid_in_another_series_is_a_conflict(house: House) -> None:
    """One SOP Instance UID in two series is nobody's header revision."""
    house.take(header(1), header(1, digest="a" * 64, series_uid="1.2.9.2"))
    assert states(house) == ["kept", "conflict"]
    assert len(house.series()) == 1


def test_a_recompressed_copy_waits_for_its_pixels_to_be_compared(house: House) -> None:
    """Bytes cannot tell: the copy is aside until both were decoded, and which files to compare is said."""
    house.take(header(1))
    (taken,) = house.take(header(1, digest="a" * 64, pixel_digest="b" * 64, transfer_syntax=JPEG))
    assert taken.instance == 2
    assert taken.compare is not None
    assert [p.name for p in taken.compare] == ["00000001.dcm", "00000002.dcm"]
    assert house.rows(instance)[1]["reason"] == RECOMPRESSED


@pytest.mark.parametrize("same", [True, False])
def test_compared_pixels_decide_between_revision_and_conflict(house: House, same: bool) -> None:
    """The same pixels make the copy a header revision; others leave it aside with the reason, also when told twice."""
    copy = header(1, digest="a" * 64, pixel_digest="b" * 64, transfer_syntax=JPEG)
    house.take(header(1), copy)
    for _ in range(2):
        with house.tx() as tx:
            flow.compared(tx, house.parts, 2, copy, same)
    if same:
        assert states(house) == ["replaced", "kept"]
        assert queued(house) == [("PACS", 2)]
        assert list(house.parts.assembly.series[1].members) == [2]
    else:
        assert states(house) == ["kept", "conflict"]
        assert house.rows(instance)[1]["reason"] == OTHER_PIXELS


def test_an_unreadable_object_is_kept_and_routed_by_how_it_came(house: House) -> None:
    """It is in no series, its reason is visible, and rules that need no attribute still send it (promise 2)."""
    attributes = {"Modality": None, "PatientID": None}
    house.take(
        header(1, readable=False, why="cannot be parsed", study_uid="", series_uid="", attributes=attributes)
    )
    (row,) = house.rows(instance)
    assert (row["state"], row["reason"], row["series_id"]) == ("unreadable", "cannot be parsed", None)
    assert house.series() == []
    assert queued(house) == [("PACS", 1)]


def test_an_object_that_broke_the_reader_is_kept_with_what_its_file_meta_says(house: House) -> None:
    """A crashed reader says nothing; a damaged file not even how it came: both are kept aside, in words."""
    with house.tx() as tx:
        flow.unreadable(tx, house.parts, (1, 1), "the reader crashed")
        flow.unreadable(tx, house.parts, (1, 1), "the reader crashed")
    (row,) = house.rows(instance)
    assert row["state"] == "unreadable"
    assert row["reason"].startswith("the reader crashed")


def test_an_object_without_a_series_is_kept_and_routed(house: House) -> None:
    """Without Series Instance UID it is in no series, and goes where it would go."""
    house.take(header(1, series_uid="", why="SeriesInstanceUID is missing, so it belongs to no series"))
    (row,) = house.rows(instance)
    assert (row["state"], row["series_id"]) == ("kept", None)
    assert queued(house) == [("PACS", 1)]
    assert house.series() == []


@pytest.mark.parametrize("number", ["--5", "²", "1e3", "99999999999", "", "3.0", "A"])
def test_any_series_number_is_taken_in(house: House, number: str) -> None:
    """What is no whole number of nine digits is no Series Number to us, and stops nothing."""
    house.take(header(1, attributes={"SeriesNumber": number}))
    assert house.series()[0]["series_number"] is None


@pytest.mark.parametrize(("number", "expected"), [("3", 3), ("-2", -2), ("0", 0), ("123456789", 123456789)])
def test_a_series_number_is_kept_as_a_number(house: House, number: str, expected: int) -> None:
    """Negative ones are seen in the field."""
    house.take(header(1, attributes={"SeriesNumber": number}))
    assert house.series()[0]["series_number"] == expected


def test_peers_words_of_any_length_and_kind_are_taken_in_by_postgresql(tmp_path: Path, postgres: str) -> None:
    """NUL characters, an endless patient ID or UID: the database takes them, because reception never stops."""
    house = House(tmp_path, ROUTE, state=postgres)
    noise = "".join(str(i * 7919 % 9973) for i in range(1500))
    house.take(
        header(1, attributes={"PatientID": noise, "AccessionNumber": noise, "IssuerOfPatientID": noise}),
        header(
            2, sop_uid=noise, why="SOPInstanceUID is longer than 64 characters, so it belongs to no series"
        ),
        header(3, peer="A\0B", association="1\0", attributes={"Modality": "C" * 40}),
        header(4, readable=False, why="no\0", sop_uid="1\0002"),
    )
    assert states(house) == ["kept", "kept", "kept", "unreadable"]
    with house.database.read() as tx:
        from node.store import intake

        assert intake.kept(tx, noise) is not None  # and is a duplicate when it comes again
    house.database.close()


# --- routing at once


def test_nothing_goes_back_to_where_it_came_from(tmp_path: Path) -> None:
    """What the PACS sends is not sent to the PACS; with `back_to_sender: yes` it is."""
    house = with_rules(tmp_path, rule("r", "send: [{what: received, to: [PACS, ARCHIVE]}]"))
    house.take(header(1, peer="PACS"), header(2))
    assert queued(house) == [("ARCHIVE", 1), ("PACS", 2), ("ARCHIVE", 2)]
    house.database.close()
    back = rule("r", "send: [{what: received, to: [PACS, ARCHIVE], back_to_sender: yes}]")
    (tmp_path / "two").mkdir()
    house = with_rules(tmp_path / "two", back)
    house.take(header(1, peer="PACS"))
    assert queued(house) == [("PACS", 1), ("ARCHIVE", 1)]


def test_identified_data_never_goes_to_a_deidentified_destination(tmp_path: Path) -> None:
    """Whatever a rule says, received objects and results are refused there, and it is told each time."""
    house = with_rules(
        tmp_path,
        rule("r", "send: [{what: received, to: RESEARCH}]"),
        rule("s", "send: [{what: received, to: RESEARCH, mode: sealed}]"),
        rule("d", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: [RESEARCH, PACS]}]"),
    )
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))
    assert [(r["destination"], r["product_id"]) for r in house.rows(delivery)] == [("PACS", 1)]
    told = "RESEARCH takes only de-identified data, and the rule does not say deidentify:"
    assert [e["detail"] for e in house.events("delivery_refused")] == [
        f"r: {told}", f"s: {told}", told,
    ]  # fmt: skip


def test_two_rules_send_an_object_to_one_destination_once(tmp_path: Path) -> None:
    """Delivery is recorded per object and destination, at once or at seal."""
    house = with_rules(
        tmp_path,
        rule("a", "send: [{what: received, to: PACS}]"),
        rule("b", "send: [{what: received, to: PACS, mode: sealed}]"),
    )
    house.complete(header(1), header(2))
    assert queued(house) == [("PACS", 1), ("PACS", 2)]


def test_an_immediate_rule_looks_at_each_object_alone(tmp_path: Path) -> None:
    """Of a mixed series only the objects that fit go out; the series counts as routed by that rule."""
    original = rule("r", "send: [{what: received, to: PACS}]", "{ImageType: {has_all: [ORIGINAL]}}")
    house = with_rules(tmp_path, original)
    house.complete(
        header(1, attributes={"ImageType": ["ORIGINAL", "PRIMARY"]}),
        header(2, attributes={"ImageType": ["DERIVED", "SECONDARY"]}),
    )
    assert queued(house) == [("PACS", 1)]
    (row,) = house.series()
    assert row["state"] == "routed"
    assert "1 of 2" in row["reason"]


# --- seal


def test_the_peers_own_policy_comes_first_then_the_first_line_that_fits(tmp_path: Path) -> None:
    """MR01 has its own; ultrasound has a line; everything else takes the last one."""
    house = with_rules(tmp_path, ROUTE)
    house.take(
        header(1, peer="MR01"),
        header(2, series_uid="1.2.9.2", attributes={"Modality": "US"}),
        header(3, series_uid="1.2.9.3"),
        header(4, series_uid="1.2.9.4", peer="STRANGER"),
    )
    found = [flow.seal_policy(house.parts, i) for i in (1, 2, 3, 4)]
    seconds = [(p.quiet_for.total_seconds(), p.on_release) for p in found]
    assert seconds == [(5, True), (600, False), (60, False), (60, False)]


def test_what_a_peers_seal_leaves_out_comes_from_the_first_line_that_fits(tmp_path: Path) -> None:
    """A peer that says only on_release keeps the site's quiet_for, per modality."""
    text = SITE.replace("seal: {quiet_for: 5 s, on_release: yes}", "seal: {on_release: yes}")
    house = with_rules(tmp_path, ROUTE, text=text.replace("quiet_for: 60 s", "quiet_for: 90 s, settle: 3 s"))
    house.take(
        header(1, peer="MR01", attributes={"Modality": "US"}),
        header(2, peer="MR01", series_uid="1.2.9.2"),
        header(3, series_uid="1.2.9.3"),
    )
    found = [flow.seal_policy(house.parts, i) for i in (1, 2, 3)]
    seconds = [(p.quiet_for.total_seconds(), p.on_release, p.settle.total_seconds()) for p in found]
    assert seconds == [(600, True, 1), (90, True, 3), (90, False, 3)]


def test_sealing_fixes_members_and_says_why(house: House) -> None:
    """The revision holds its objects in the order they came, its reason and its gaps, once."""
    house.take(*(header(n) for n in (2, 1, 3, 4, 9)))
    house.seal(1, "quiet for 60 s")
    (row,) = house.series()
    assert (row["state"], row["reason"], row["instances"]) == ("sealed", "quiet for 60 s", 5)
    assert row["incomplete"] == "1 gap of up to 5 mm where slices lie 1 mm apart"
    assert row["sealed_at"] == NOON
    assert house.parts.assembly.series == {}
    assert len(house.events("series_sealed")) == 1


def test_a_source_that_sends_late_images_in_another_association_is_not_trusted_to_be_done(
    tmp_path: Path,
) -> None:
    """After a release cut a series in two, this source's next series wait for quiet, and say so."""
    house = with_rules(tmp_path, ROUTE)
    house.take(header(1, peer="MR01"), header(2, peer="MR01"))
    house.parts.assembly.end("1-1", False, house.clock.seconds)
    house.clock.tick(seconds=1)
    assert isinstance(decided(house, 1), Sealed)
    house.seal(1)
    house.take(header(3, peer="MR01", association="1-2"))
    house.seal(2)
    house.take(*(header(n, peer="MR01", association="1-3", series_uid="1.2.9.7") for n in (11, 12)))
    house.parts.assembly.end("1-3", False, house.clock.seconds)
    house.clock.tick(seconds=1)
    assert not isinstance(decided(house, 3), Sealed)
    house.clock.tick(seconds=5)
    assert decided(house, 3) == Sealed(
        "quiet for 5 s; this source spreads a series over several associations"
    )  # fmt: skip


def test_a_corrected_header_does_not_make_a_source_one_of_several_associations(tmp_path: Path) -> None:
    """Sending an object again with a corrected header is no late image."""
    house = with_rules(tmp_path, ROUTE)
    house.take(header(1, peer="MR01"), header(2, peer="MR01"))
    house.seal(1)
    house.take(header(2, peer="MR01", association="1-2", digest="a" * 64))
    assert house.parts.assembly.several == set()


def decided(house: House, series_id: int) -> object:
    """The verdict on one open series now."""
    policy: Policy = flow.seal_policy(house.parts, series_id)
    return verdict(house.parts.assembly.evidence(series_id, house.clock.seconds), policy)


# --- route


def test_a_series_is_routed_unrouted_or_discarded_with_the_reason(tmp_path: Path) -> None:
    """The reason says how it was sealed and which rules apply, or what each rule lacked."""
    house = with_rules(
        tmp_path,
        rule("ct", "send: [{what: received, to: PACS, mode: sealed}]"),
        rule("junk", "discard: yes", "{Modality: OT}"),
    )
    house.complete(
        header(1), header(2, series_uid="1.2.9.2", attributes={"Modality": "OT"}),
        header(3, series_uid="1.2.9.3", attributes={"Modality": "US"}),
    )  # fmt: skip
    one, two, three = house.series()
    assert (one["state"], one["reason"]) == ("routed", "quiet; ct")
    assert (two["state"], two["reason"]) == ("discarded", "quiet; discarded by junk")
    assert three["state"] == "unrouted"
    assert "ct: Modality" in three["reason"]
    assert "junk: Modality" in three["reason"]
    assert queued(house) == [("PACS", 1)]


def test_of_many_rules_a_series_names_the_nearest(tmp_path: Path) -> None:
    """The three with the largest share of lines that hold, and how many others there are; the event has all."""
    house = with_rules(
        tmp_path,
        *(rule(f"us-{n}", "send: [{what: received, to: PACS, mode: sealed}]", "{Modality: US}") for n in range(9)),
        rule("knee", "discard: yes", "{Modality: CT, BodyPartExamined: KNEE}"),
    )  # fmt: skip
    house.complete(header(1))
    (row,) = house.series()
    reason = row["reason"]
    assert reason.startswith("quiet; no rule: knee: BodyPartExamined"), reason
    assert reason.count("us-") == 2
    assert reason.endswith("; and 7 more rules; `explain` tells of all")
    (told,) = house.events("series_unrouted")
    said = json.loads(told["detail"])
    assert len(said) == 10
    assert said[0]["rule"] == "knee"


def test_without_rules_a_series_says_so(tmp_path: Path) -> None:
    """Reception only: unrouted, because there are no rules."""
    house = with_rules(tmp_path)
    house.complete(header(1))
    assert house.series()[0]["reason"] == "quiet; there are no rules"


def test_every_decision_is_an_event(house: House) -> None:
    """The event of routing names each rule, whether it runs, and why or why not."""
    house.complete(header(1, attributes={"Modality": "MR"}))
    (told,) = house.events("series_routed")
    said = {d["rule"]: (d["runs"], d["because"]) for d in json.loads(told["detail"])}
    assert said["route"] == (True, "every condition holds")
    assert said["smooth"][0] is False
    assert said["smooth"][1].startswith("Modality: ")


def test_a_gap_runs_only_what_says_incomplete_ok(tmp_path: Path) -> None:
    """A series with missing slices is routed, processed only where the rule takes it so, and says what is not run."""
    careful = rule("careful", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]")
    easy = rule("easy", "incomplete: ok\ndo: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]")
    house = with_rules(tmp_path, ROUTE, careful, easy)
    house.complete(*(header(n) for n in (1, 2, 3, 9)))
    assert [row["rule"] for row in house.rows(run)] == ["easy"]
    assert len(queued(house)) == 4
    assert house.series()[0]["reason"] == (
        "quiet; route, easy; careful is not run: incomplete: 1 gap of up to 6 mm where slices lie 1 mm apart; "
        "the rule does not say incomplete: ok"
    )


def test_use_decides_which_images_a_run_gets(tmp_path: Path) -> None:
    """Only the used objects are in the run and go out with a sealed send."""
    rest = (
        "use: {ImageType: {excludes: LOCALIZER}}\ndo: [{smooth: {}, as: soft}]\n"
        "send: [{what: soft, to: PACS}, {what: received, to: ARCHIVE, mode: sealed}]"
    )
    house = with_rules(tmp_path, rule("r", rest))
    house.complete(
        header(1, attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        header(2, attributes={"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}),
    )
    assert json.loads(house.rows(run)[0]["files"]) == [2]
    assert queued(house) == [("ARCHIVE", 2)]


def test_a_late_image_opens_a_revision_with_the_members_of_both(house: House) -> None:
    """Revision 1 never changes; revision 2 is processed instead, and revision 1's waiting run is cancelled."""
    house.complete(header(1), header(2))
    house.clock.tick(minutes=5)
    house.complete(header(3))
    one, two = house.series()
    assert (one["revision"], one["instances"]) == (1, 2)
    assert (two["revision"], two["instances"], two["state"]) == (2, 3, "routed")
    assert [(r["state"], json.loads(r["files"])) for r in house.rows(run)] == [
        ("cancelled", [1, 2]), ("waiting", [1, 2, 3]),
    ]  # fmt: skip
    (told,) = house.events("run_cancelled")
    assert (told["run_id"], told["detail"]) == (1, "a later revision replaces it")
    assert queued(house) == [("PACS", 1), ("PACS", 2), ("PACS", 3)]  # each once


def test_a_late_image_leaves_a_running_run_alone(house: House) -> None:
    """What runs already finishes; what it made is delivered."""
    house.complete(header(1))
    started = house.start()
    house.complete(header(2))
    assert states(house, run) == ["running", "waiting"]
    assert started is not None
    house.finish(started, done(product(1)))
    assert states(house, run) == ["done", "waiting"]


def test_a_revision_of_a_held_series_is_held_too(house: House) -> None:
    """What a person has not released is not released by an image that comes late."""
    house.complete(header(1))
    with house.tx() as tx:
        tx.execute(update(series).values(held="restored"))
    house.complete(header(2))
    assert house.series()[1]["held"] == "restored"
    assert states(house, series) == ["routed", "sealed"]


# --- run


def started_one(house: House, *headers: Any) -> flow.Started:
    """The run of a complete series, started."""
    house.complete(*(headers or (header(1), header(2))))
    started = house.start()
    assert started is not None
    return started


def test_a_started_run_is_one_value_with_all_a_worker_needs(house: House) -> None:
    """Files in order, the plan as the rule was, the identity's first run, series numbers, operators, time zone."""
    started = started_one(house)
    job = started.job
    assert (started.run, started.attempt) == (1, 1)
    assert started.folder == house.parts.data / "runs" / "1" / "1"
    assert job.files == tuple(
        str(house.parts.data / "objects" / "00000001" / "0000" / f"{n:08d}.dcm") for n in (1, 2)
    )
    assert job.plan == house.parts.rules.rules[1].plan()
    assert job.inherited_timezone == "Europe/Berlin"
    made_by = job.provenance
    assert (made_by.first_run_at, made_by.device, made_by.series_numbers) == (NOON, "PACSNODE", {"soft": 301})
    assert made_by.operators == {"smooth": "1"}
    assert made_by.software.startswith("PACSNode ")


def test_the_same_input_keeps_its_identity_and_first_run(house: House) -> None:
    """A later attempt, and a restart, make the same UIDs with the dates of the first run."""
    first = started_one(house)
    house.clock.tick(hours=2)
    with house.tx() as tx:
        work.give_back(tx)
    second = house.start()
    assert second is not None
    assert second.attempt == 2
    assert second.folder != first.folder
    assert second.job.provenance == first.job.provenance
    assert second.job.provenance.first_run_at == NOON
    assert second.job.provenance.first_run_at.tzinfo is UTC


def test_another_source_or_meaning_is_another_identity(tmp_path: Path) -> None:
    """One more image, another digest or another step gives other UIDs; purpose and destination do not."""

    def identity_with(text: str, *headers: Any) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        house = with_rules(folder, text)
        found = started_one(house, *headers).job.provenance.identity
        house.database.close()
        return found

    steps = "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]"
    base = identity_with(rule("a", steps), header(1), header(2))
    assert identity_with(rule("b", steps).replace("PACS", "ARCHIVE"), header(2), header(1)) == base
    assert identity_with(rule("a", steps), header(1)) != base
    assert identity_with(rule("a", steps), header(1), header(2, digest="a" * 64)) != base
    described = steps.replace("to: PACS", 'to: PACS, SeriesDescription: "x"')
    assert identity_with(rule("a", described), header(1), header(2)) != base


@pytest.mark.parametrize(
    ("number", "others", "expected"),
    [
        ("3", [], {"soft": 301, "sharp": 302}),
        ("3", ["301"], {"soft": 302, "sharp": 303}),
        ("3", ["302"], {"soft": 301, "sharp": 303}),
        ("", [], {"soft": 9001, "sharp": 9002}),
        ("0", [], {"soft": 9001, "sharp": 9002}),
        ("-4", [], {"soft": 9001, "sharp": 9002}),
        ("30000000", [], {"soft": 9001, "sharp": 9002}),  # × 100 would not fit an IS (PS3.5 6.2)
    ],
)
def test_series_numbers_follow_the_source_and_are_free(
    tmp_path: Path, number: str, others: list[str], expected: dict[str, int]
) -> None:
    """Source × 100 + output index, 9000 + index without a usable one, the next free in the study as known to us."""
    steps = (
        "do: [{smooth: {}, as: soft}, {smooth: {volume: received}, as: sharp}]\n"
        "send: [{what: soft, to: PACS}, {what: sharp, to: PACS}]"
    )
    house = with_rules(tmp_path, rule("two", steps))
    house.take(
        *(header(50 + i, series_uid=f"1.2.9.{50 + i}", attributes={"SeriesNumber": n, "Modality": "SC"})
          for i, n in enumerate(others))
    )  # fmt: skip
    started = started_one(house, header(1, attributes={"SeriesNumber": number}))
    assert dict(started.job.provenance.series_numbers) == expected


def test_two_runs_of_a_study_never_share_a_series_number(tmp_path: Path) -> None:
    """Two rules over one series take numbers one after the other."""
    other = rule("b", "do: [{smooth: {}, as: sharp}]\nsend: [{what: sharp, to: PACS}]")
    house = with_rules(tmp_path, SMOOTH, other)
    house.complete(header(1))
    first, second = house.start(), house.start()
    assert first is not None
    assert second is not None
    assert [dict(s.job.provenance.series_numbers) for s in (first, second)] == [{"soft": 301}, {"sharp": 302}]


def test_a_finished_run_queues_its_products(house: House) -> None:
    """All derived objects are delivered, images before what refers to them, and an event counts them."""
    started = started_one(house)
    house.finish(started, done(product(1), product(2)))
    assert states(house, run) == ["done"]
    assert [row["path"] for row in house.rows(products)] == [
        "runs/1/1/soft/0001.dcm",
        "runs/1/1/soft/0002.dcm",
    ]
    made = [row for row in house.rows(delivery) if row["product_id"]]
    assert [(r["destination"], r["rule"], r["state"]) for r in made] == [("PACS", "smooth", "waiting")] * 2
    assert house.events("run_done")[0]["detail"] == "2 objects made, 2 deliveries queued"


def test_a_result_goes_only_where_the_rule_says(tmp_path: Path) -> None:
    """Each output has its own destinations, and a destination that is gone from the site file is told."""
    steps = (
        "do: [{smooth: {}, as: soft}, {outline: {}, as: body}, {measure: {mask: body}, as: numbers}]\n"
        "send: [{what: body, to: ARCHIVE}, {what: numbers, to: [PACS, ARCHIVE]}]"
    )
    house = with_rules(tmp_path, rule("r", steps))
    started = started_one(house)
    assert [o.name for o in started.job.plan.outputs] == ["body", "numbers"]
    peers = {name: peer for name, peer in house.parts.settings.peers.items() if name != "PACS"}
    house.parts.settings = replace(house.parts.settings, peers=peers)
    house.finish(
        started, done(product(1, "body", "segmentation"), product(1, "numbers", "report", sop_uid="2.25.7"))
    )
    assert [(r["destination"], r["stage"]) for r in house.rows(delivery)] == [("ARCHIVE", 1), ("ARCHIVE", 2)]
    assert house.events("delivery_refused")[0]["detail"] == "PACS is not among the peers any more"


def test_a_rule_on_trial_makes_everything_and_sends_nothing(tmp_path: Path) -> None:
    """`mode: shadow` keeps its products, and neither they nor received objects go anywhere."""
    steps = "mode: shadow\ndo: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}, {what: received, to: PACS}]"
    house = with_rules(tmp_path, rule("trial", steps))
    started = started_one(house)
    house.finish(started, done(product(1)))
    assert states(house, run) == ["done"]
    assert len(house.rows(products)) == 1
    assert house.rows(delivery) == []


def test_a_refusal_is_final_and_says_why(house: House) -> None:
    """The data does not suit the rule: no retry, no product, the originals are delivered all the same."""
    started = started_one(house)
    house.finish(started, Exit(RunState.REFUSED, "the slices lie apart unevenly"))
    (row,) = house.rows(run)
    assert (row["state"], row["reason"], row["retries"]) == ("refused", "the slices lie apart unevenly", 3)
    assert house.start() is None
    assert len(house.claim()) == 2


@pytest.mark.parametrize("state", [RunState.QUARANTINED, RunState.WAITING])
def test_a_failed_run_is_tried_again_and_then_quarantined(house: House, state: RunState) -> None:
    """Three retries, each after a longer pause, then a person is asked; the reason stays."""
    house.complete(header(1))
    waits = []
    for _ in range(4):
        started = house.start()
        assert started is not None
        house.finish(started, Exit(state, "the operator crashed"))
        (row,) = house.rows(run)
        assert row["reason"] == "the operator crashed"
        waits.append((row["due_at"] - house.clock.at).total_seconds())
        if row["state"] == "waiting":
            assert house.start() is None  # not before its time
            house.clock.tick(seconds=waits[-1])
    assert row["state"] == "quarantined"
    assert waits[:3] == [5, 10, 20]
    assert house.start() is None
    assert [e["name"] for e in house.events() if e["run_id"]] == [
        "run_opened", "run_waiting", "run_waiting", "run_waiting", "run_quarantined",
    ]  # fmt: skip


def test_the_pause_before_a_retry_is_bounded() -> None:
    """Doubling ends at ten minutes, also after a thousand attempts."""
    assert flow.retry_wait(1) == timedelta(seconds=5)
    assert flow.retry_wait(20) == flow.retry_wait(1000) == timedelta(minutes=10)


def test_a_replaced_attempt_changes_nothing(house: House) -> None:
    """A worker that was given up on comes back: its result is dropped, the successor's counts."""
    old = started_one(house)
    with house.tx() as tx:
        work.give_back(tx)
    new = house.start()
    house.finish(old, done(product(1)))
    assert states(house, run) == ["running"]
    assert house.rows(products) == []
    assert new is not None
    house.finish(new, done(product(2)))
    assert [row["path"] for row in house.rows(products)] == ["runs/1/2/soft/0002.dcm"]
    house.finish(new, done(product(3)))  # and not twice
    assert len(house.rows(products)) == 1


def test_other_bytes_under_the_same_uids_are_made_again_with_new_uids(house: House) -> None:
    """A result that differs from the one remembered is not sent: the run is done again as a new generation."""
    first = started_one(house)
    house.finish(first, done(product(1)))
    with house.tx() as tx:
        tx.execute(update(run).values(state="waiting", due_at=house.clock.at))
        tx.execute(delivery.delete())
        tx.execute(products.delete())
    again = house.start()
    assert again is not None
    assert again.job.provenance.identity == first.job.provenance.identity
    house.finish(again, done(product(1, digest="f" * 64)))
    (row,) = house.rows(run)
    assert (row["state"], row["reason"]) == (
        "waiting",
        "made other bytes than before: done again with new UIDs",
    )
    assert house.rows(products) == []
    house.clock.tick(minutes=1)
    third = house.start()
    assert third is not None
    assert third.job.provenance.identity != first.job.provenance.identity
    assert third.job.provenance.series_numbers == first.job.provenance.series_numbers
    assert house.rows(identity)[0]["generation"] == 1


# --- loops


def test_our_own_outputs_are_known_by_their_uid(house: House) -> None:
    """A result that comes back from the PACS is kept and routed elsewhere, but not processed again."""
    house.finish(started_one(house), done(product(1)))
    back = header(70, sop_uid="2.25.1", series_uid="2.25.99", peer="ARCHIVE")
    house.complete(back)
    row = house.series()[1]
    assert (row["ours"], row["state"]) == (True, "routed")
    assert [r["series_id"] for r in house.rows(run)] == [1]
    assert ("PACS", 3) in queued(house)
    said = json.loads(house.events("series_routed")[1]["detail"])
    assert next(d["because"] for d in said if d["rule"] == "smooth").startswith("ours: ")


@pytest.mark.parametrize("name", ["Manufacturer", "ManufacturerModelName"])
def test_another_nodes_outputs_are_known_by_their_contributing_equipment(house: House, name: str) -> None:
    """Two nodes in one house do not process each other's results."""
    house.complete(header(1, attributes={f"ContributingEquipmentSequence[1].{name}": "PACSNode"}))
    assert house.series()[0]["ours"] is True
    assert house.rows(run) == []
    assert queued(house) == [("PACS", 1)]


def test_equipment_of_others_is_no_loop(house: House) -> None:
    """A scanner's own manufacturer, or another processor's contribution, is processed as ever."""
    house.complete(
        header(
            1,
            attributes={"Manufacturer": "PACSNode", "ContributingEquipmentSequence[0].Manufacturer": "Acme"},
        )
    )
    assert house.series()[0]["ours"] is False
    assert len(house.rows(run)) == 1


def test_rules_of_a_file_are_those_that_ran(tmp_path: Path) -> None:
    """A run ends with the text it began with: the plan is stored, and a changed rule does not reach into it."""
    house = with_rules(tmp_path, SMOOTH)
    house.complete(header(1))
    changed = SMOOTH.replace("smooth: {}, as: soft", "outline: {}, as: soft")
    house.parts.rules = parse_rules({"r.yaml": changed}, house.specs, {"PACS": True})
    started = house.start()
    assert started is not None
    assert [s.operator for s in started.job.plan.steps] == ["smooth"]


def test_time_is_the_clock_of_the_parts(tmp_path: Path) -> None:
    """No step looks at a clock of its own: at another time everything is stamped with that time."""
    clock = Clock(at=NOON + timedelta(days=400))
    house = House(tmp_path, ROUTE + SMOOTH, clock=clock)
    house.finish(started_one(house), done(product(1)))
    house.answer(house.claim())
    house.over("down")
    stamps = [e["at"] for e in house.events()] + [r["created_at"] for r in house.rows(delivery)]
    stamps += [r["finished_at"] for r in house.rows(delivery)] + [r["started_at"] for r in house.rows(run)]
    assert set(stamps) == {clock.at}


def test_an_object_that_the_node_fails_over_is_set_aside_once(house: House) -> None:
    """Set aside, it is in no series and not routed, and the catch-up passes it."""
    with house.tx() as tx:
        for _ in range(2):
            flow.set_aside(tx, house.parts, (1, 1), "the node failed over it (ValueError)")
    (row,) = house.rows(instance)
    assert row["state"] == "unreadable"
    assert row["reason"].startswith("the node failed over it (ValueError)")
    assert queued(house) == []


def test_a_duplicate_that_outlived_its_commit_is_found_at_start(house: House) -> None:
    """Killed between commit and unlink, the duplicate's file is removed by the next start."""
    house.take(header(1), header(1))
    with house.tx() as tx:
        intake.set_cursor(tx, 1, 2)
        assert intake.fresh_duplicates(tx, 200) == [(1, 2)]
        intake.set_cursor(tx, 1, 500)
        assert intake.fresh_duplicates(tx, 200) == []


def test_results_of_a_later_revision_say_so_and_supersede(tmp_path: Path) -> None:
    """Revision 2's descriptions end `(rev 2)`; revision 1's run is superseded and what waits of it is cancelled."""
    house = with_rules(tmp_path, SMOOTH)
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    house.complete(header(2))
    second = house.start()
    assert second is not None
    assert (first.job.revision, second.job.revision) == (1, 2)
    house.finish(second, done(product(2)))
    assert states(house, run) == ["superseded", "done"]
    assert states(house, delivery) == ["cancelled", "waiting"]
    assert len(house.events("run_superseded")) == 1


def test_a_released_series_is_routed_as_if_it_had_just_come(tmp_path: Path) -> None:
    """What reindex held goes nowhere until a person releases it; then immediate and sealed rules take it."""
    house = with_rules(tmp_path, ROUTE, SMOOTH)
    house.parts.hold = "restored"
    house.complete(header(1), header(2))
    assert queued(house) == []
    assert states(house, series) == ["sealed"]
    house.parts.hold = ""
    with house.tx() as tx:
        assert intake.held_series(tx) == [1]
        assert intake.release_series(tx, 1)
        assert not intake.release_series(tx, 1)
    house.route()
    assert states(house, series) == ["routed"]
    assert queued(house) == [("PACS", 1), ("PACS", 2)]
    assert states(house, run) == ["waiting"]


def test_restarts_of_the_node_do_not_lengthen_the_pause_after_a_failure(house: House) -> None:
    """The pause grows with failures, not with attempts that a restart took away."""
    house.complete(header(1))
    for _ in range(6):
        assert house.start() is not None
        with house.tx() as tx:
            work.give_back(tx)
    started = house.start()
    assert started is not None
    house.finish(started, Exit(RunState.QUARANTINED, "it crashed"))
    (row,) = house.rows(run)
    assert (row["state"], row["due_at"] - house.clock.at) == ("waiting", timedelta(seconds=5))


def test_the_same_result_of_a_later_revision_is_still_delivered(tmp_path: Path) -> None:
    """A late image that `use` leaves out makes the same objects anew: superseding must not cancel them."""
    house = with_rules(tmp_path, SMOOTH)
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    house.complete(header(2))
    second = house.start()
    assert second is not None
    house.finish(second, done(product(1)))
    assert states(house, run) == ["superseded", "done"]
    assert sorted(states(house, delivery)) == ["cancelled", "waiting"]
    (told,) = house.events("run_superseded")
    assert (told["series_id"], told["run_id"]) == (1, 1)


def test_a_destination_gets_the_first_form_that_it_shows(tmp_path: Path) -> None:
    """Where reports are not shown the picture goes, elsewhere the report; each object once."""
    numbers = rule(
        "numbers",
        "do: [{outline: {}}, {measure: {mask: outline}, as: numbers}]\n"
        "send: [{what: numbers, to: [PACS, ARCHIVE], as: [report, picture]}]",
    )
    text = SITE.replace('"127.0.0.1:4243"', '"127.0.0.1:4243", shows: [images, SEG]')
    house = House(tmp_path, numbers, text=text)
    house.complete(header(1))
    started = house.start()
    assert started is not None
    assert started.job.plan.outputs[0].picture
    assert dict(started.job.provenance.series_numbers) == {"numbers": 301, "numbers/picture": 302}
    made = (
        replace(product(1), output="numbers", kind="report"),
        replace(product(2), output="numbers", kind="picture", index=2),
    )
    house.finish(started, done(*made))
    with house.tx() as tx:
        found = {to: queues.due_deliveries(tx, to, house.clock.at, 9) for to in ("PACS", "ARCHIVE")}
    assert {to: [row["sop_uid"] for row in due] for to, due in found.items()} == {
        "PACS": [made[0].sop_uid], "ARCHIVE": [made[1].sop_uid],
    }  # fmt: skip


@pytest.mark.parametrize("older", [False, True])
def test_two_entries_send_one_result_in_two_forms_to_one_destination(tmp_path: Path, *, older: bool) -> None:
    """What it is and its picture, each once; each in the way that its entry asks for. Older runs know one way each."""
    numbers = rule(
        "numbers",
        "do: [{outline: {}}, {measure: {mask: outline}, as: numbers}]\n"
        "send: [{what: numbers, to: PACS}, {what: numbers, to: PACS, as: picture, hold: yes}]",
    )
    house = House(tmp_path, numbers)
    house.complete(header(1))
    started = house.start()
    assert started is not None
    assert [output.name for output in started.job.plan.outputs] == ["numbers"]
    with house.tx() as tx:
        row = tx.execute(select(run.c.sends)).scalar_one()
        assert [way["forms"] for way in json.loads(row)["numbers"]["PACS"]] == [[], ["picture"]]
        if older:
            one = {"numbers": {"PACS": json.loads(row)["numbers"]["PACS"][1]}}
            tx.execute(update(run).values(sends=json.dumps(one)))
    made = (
        replace(product(1), output="numbers", kind="report"),
        replace(product(2), output="numbers", kind="picture", index=2),
    )
    house.finish(started, done(*made))
    assert states(house, delivery) == (["held"] if older else ["waiting", "held"])


def test_a_split_series_has_a_number_for_every_part_it_may_have(tmp_path: Path) -> None:
    """Series numbers are given before the parts are known: as many as the facts allow, none twice."""
    house = with_rules(tmp_path, SMOOTH.replace("do:", "split: [EchoTime]\ndo:"))
    house.complete(*(header(n, attributes={"EchoTime": str(n % 3)}) for n in range(1, 7)))
    started = house.start()
    assert started is not None
    assert dict(started.job.provenance.series_numbers) == {"soft": 301, "soft#2": 302, "soft#3": 303}
