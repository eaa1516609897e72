"""Claims about results that are taken back: to whom, when, and exactly which; with a clock of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_material import ROUTE, SITE, SMOOTH, House, done, header, product, rule
from sqlalchemy import update
from test_flow_rejection import note

from node.flow import Started
from node.model import Exit, Product, RunState
from node.route.rules import parse_rules
from node.send.protocol import Kind
from node.store import acts, replays, work
from node.store.acts import Act
from node.store.choosing import Wanted
from node.store.replays import Replay
from node.store.schema import delivery, identity, instance, run

IOCM = SITE.replace("redeliver_after: 10 min}", "redeliver_after: 10 min, iocm: yes}")
BOTH = IOCM.replace('"127.0.0.1:4243"}', '"127.0.0.1:4243", iocm: yes}')
TO_BOTH = rule("smooth", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: [PACS, ARCHIVE]}]")
NOTE = product(900, output="note_1", kind="rejection")


def house_with(folder: Path, rules: str = SMOOTH, text: str = IOCM) -> House:
    """A house whose PACS takes rejection notes."""
    return House(folder, rules, text=text)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """CT is smoothed and the result goes to the PACS, which takes rejection notes."""
    found = house_with(tmp_path)
    yield found
    found.database.close()


def made(house: House, *products: Product) -> int:
    """The run that waits is done and made these."""
    started = house.start()
    assert started is not None
    house.finish(started, done(*products))
    return started.run


def send_all(house: House, to: str = "PACS") -> list[str]:
    """Everything that may go now is stored there; the SOP Instance UIDs."""
    items = house.claim(to)
    house.answer(items, to=to)
    return [item.sop_uid for item in items]


def withdrawals(house: House) -> list[Any]:
    """The runs that withdraw."""
    return [row for row in house.rows(run) if row["withdraws"]]


def begin(house: House) -> Started:
    """The withdrawal that waits starts."""
    started = house.start()
    assert started is not None and started.job.withdraws
    return started


def named(started: Started) -> list[str]:
    """What its notes name."""
    return [one.sop_uid for one in started.job.withdraws]


def superseded(house: House) -> None:
    """A result reached the PACS, a late image came, and the newer result is made and waits."""
    house.complete(header(1), header(2))
    made(house, product(1), product(2))
    assert send_all(house) == ["2.25.1", "2.25.2"]
    house.complete(header(3))
    made(house, product(11), product(12))


def test_the_note_follows_the_new_results(house: House) -> None:
    """It names exactly what the PACS holds of the old run and is sent when all of the new is stored there."""
    superseded(house)
    (row,) = withdrawals(house)
    assert (row["withdraws"], row["state"], row["rule"]) == (1, "waiting", "smooth")
    started = begin(house)
    assert named(started) == ["2.25.1", "2.25.2"]
    assert {one.study_uid for one in started.job.withdraws} == {"1.2.9"}
    assert started.job.why.startswith("the results of run 2 over a later revision")
    assert [output.name for output in started.job.plan.outputs] == ["note_1"]
    house.finish(started, done(NOTE))
    first = house.claim()
    assert [item.sop_uid for item in first] == ["2.25.11", "2.25.12"]
    house.answer(first[:1])
    assert house.claim() == ()
    house.answer(first[1:])
    assert send_all(house) == ["2.25.900"]
    assert [(row["state"], row["withdraws"]) for row in house.rows(run)] == [
        ("superseded", 0), ("done", 0), ("done", 1),
    ]  # fmt: skip
    assert house.start() is None
    (opened,) = house.events("withdrawal_opened")
    assert opened["detail"].startswith("the results of run 1 at PACS are withdrawn")


def test_a_destination_that_commits_commits_first(house: House) -> None:
    """Stored is not enough where the new results are still to be committed."""
    superseded(house)
    house.finish(begin(house), done(NOTE))
    send_all(house)
    with house.tx() as tx:
        newest = delivery.c.id == 4
        tx.execute(update(delivery).where(newest).values(commit_due=house.clock.at))
    assert house.claim() == ()
    with house.tx() as tx:
        tx.execute(update(delivery).where(newest).values(commit_due=None, state="committed"))
    assert send_all(house) == ["2.25.900"]


def test_peers_that_do_not_take_notes_get_none(tmp_path: Path) -> None:
    """The archive holds the old results as well and gets none; without any such peer there is no run at all."""
    house = house_with(tmp_path, TO_BOTH)
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    send_all(house, "ARCHIVE")
    house.complete(header(2))
    made(house, product(2))
    house.finish(begin(house), done(NOTE))
    assert {row["destination"] for row in house.rows(delivery) if row["stage"] == 3} == {"PACS"}
    house.database.close()

    (tmp_path / "other").mkdir()
    without = house_with(tmp_path / "other", text=SITE)
    superseded(without)
    assert withdrawals(without) == []
    without.database.close()


def test_nothing_that_never_left_is_withdrawn(house: House) -> None:
    """Old results that waited are cancelled; there is nothing to take back."""
    house.complete(header(1))
    made(house, product(1))
    house.complete(header(2))
    made(house, product(2))
    assert withdrawals(house) == []
    assert send_all(house) == ["2.25.2"]


def test_a_note_for_each_set_that_peers_hold(tmp_path: Path) -> None:
    """Two peers with the same results share a note; one that has fewer of them gets its own, at once where it can."""
    house = house_with(tmp_path, TO_BOTH, BOTH)
    house.complete(header(1))
    made(house, product(1), product(2))
    send_all(house)
    partly = house.claim("ARCHIVE")
    house.answer(partly[:1], to="ARCHIVE")
    house.answer(partly[1:], Kind.FAILED, 0xA900, to="ARCHIVE")
    house.complete(header(2))
    made(house, product(3))
    started = begin(house)
    assert sorted((one.output, one.sop_uid) for one in started.job.withdraws) == [
        ("note_1", "2.25.1"), ("note_2", "2.25.1"), ("note_2", "2.25.2"),
    ]  # fmt: skip
    house.finish(started, done(NOTE, product(901, output="note_2", kind="rejection")))
    assert send_all(house) == ["2.25.3"]
    assert send_all(house) == ["2.25.901"], "the archive, which has nothing yet, holds nobody up"
    assert send_all(house, "ARCHIVE") == ["2.25.3"]
    assert send_all(house, "ARCHIVE") == ["2.25.900"]
    house.database.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_what_is_being_sent_is_waited_for(house: House, arrives: bool) -> None:
    """Old results on their way when the new ones are made: named when they arrive, never sent again when not."""
    house.complete(header(1))
    made(house, product(1), product(2))
    first, second = house.claim()
    house.answer((first,))
    house.complete(header(2))
    made(house, product(11))
    assert house.start() is None, "nobody knows yet what the PACS holds"
    house.answer((second,), Kind.STORED if arrives else Kind.FAILED, 0 if arrives else None)
    house.clock.tick(seconds=3)
    started = begin(house)
    assert named(started) == (["2.25.1", "2.25.2"] if arrives else ["2.25.1"])
    house.finish(started, done(NOTE))
    house.clock.tick(hours=2)
    assert send_all(house) == ["2.25.11"]
    assert send_all(house) == ["2.25.900"]
    assert house.rows(delivery)[1]["state"] == ("stored" if arrives else "cancelled")


def test_all_that_was_being_sent_failed(house: House) -> None:
    """Then the withdrawal ends and says that there was nothing."""
    house.complete(header(1))
    made(house, product(1))
    items = house.claim()
    house.complete(header(2))
    made(house, product(2))
    house.over("gone", claimed=items)
    house.clock.tick(seconds=3)
    assert house.start() is None
    (row,) = withdrawals(house)
    assert (row["state"], row["reason"]) == ("cancelled", "no peer holds any of these results")


def replay(house: House, *, fresh: bool = False) -> None:
    """Judge the first series again."""
    with house.tx() as tx:
        assert replays.replay_series(tx, 1, Replay("", fresh), Act("replay", house.clock.at)) == ""
    house.route()


def test_a_replay_that_makes_the_same_withdraws_nothing(house: House) -> None:
    """Its UIDs are valid; when a later revision replaces them they are named, though the first run sent them."""
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    replay(house)
    made(house, product(1))
    assert withdrawals(house) == []
    house.complete(header(2))
    made(house, product(2))
    (row,) = withdrawals(house)
    assert row["withdraws"] == 2
    assert named(begin(house)) == ["2.25.1"]


def test_an_older_runs_batch_that_breaks_still_sends_what_a_replay_made_anew(house: House) -> None:
    """The object is valid under the newer run, and is not queued twice: the older delivery goes on."""
    house.complete(header(1))
    made(house, product(1))
    items = house.claim()
    replay(house)
    made(house, product(1))
    house.answer(items, Kind.FAILED, None)
    house.clock.tick(hours=1)
    assert send_all(house) == ["2.25.1"]
    assert [row["state"] for row in house.rows(delivery)] == ["stored"]


def test_a_new_generation_replaces_the_former(house: House) -> None:
    """Fresh UIDs after a PACS has rejected a result: the former are withdrawn, and the new ones stay valid."""
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    replay(house, fresh=True)
    made(house, product(2))
    assert named(begin(house)) == ["2.25.1"]
    assert next(row["generation"] for row in house.rows(identity)) == 1


def test_uids_that_were_withdrawn_are_not_used_again(house: House) -> None:
    """The late image is rejected, so the series is what it was before: the same sources give new UIDs now."""
    house.complete(header(1), header(2))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    send_all(house)
    house.complete(header(3))
    made(house, product(2))
    house.finish(begin(house), done(NOTE))
    send_all(house)
    send_all(house)
    house.take(note("1.2.3.3"))
    house.finish(begin(house), done(product(901, output="note_1", kind="rejection")))
    send_all(house)
    replay_of_newest(house)
    again = house.start()
    assert again is not None and again.job.files == first.job.files
    assert again.job.provenance.identity != first.job.provenance.identity
    known = {row["key"]: row["generation"] for row in house.rows(identity)}
    assert sorted(known.values()) == [0, 0, 1, 1]


def replay_of_newest(house: House) -> None:
    """Judge the newest revision of the CT series again, without its rejected image."""
    newest = max(row["id"] for row in house.series() if row["series_uid"] == "1.2.9.1")
    with house.tx() as tx:
        assert replays.replay_series(tx, newest, Replay(), Act("replay", house.clock.at)) == ""
    house.route()


def test_a_node_that_dies_over_a_withdrawal_makes_the_same_note(house: House) -> None:
    """Between claim and end, and between end and sending: one identity, one note, one delivery."""
    superseded(house)
    first = begin(house)
    with house.tx() as tx:
        work.give_back(tx)
    second = begin(house)
    assert second.attempt == 2
    assert (second.job.provenance, second.job.withdraws, second.job.plan) == (
        first.job.provenance, first.job.withdraws, first.job.plan,
    )  # fmt: skip
    house.finish(first, done(NOTE))
    assert [row["state"] for row in withdrawals(house)] == ["running"], "it was replaced"
    house.finish(second, done(NOTE))
    house.finish(second, done(NOTE))
    assert len([row for row in house.rows(delivery) if row["stage"] == 3]) == 1
    send_all(house)
    note_items = house.claim()
    with house.tx() as tx:
        work.give_back(tx)
    assert [i.sop_uid for i in house.claim()] == [i.sop_uid for i in note_items] == ["2.25.900"]


def test_a_newer_revision_does_not_cancel_a_withdrawal(house: House) -> None:
    """A second late burst while the first withdrawal waits: both old runs are taken back, the newest stays."""
    superseded(house)
    send_all(house)
    house.complete(header(4))
    assert [row["state"] for row in withdrawals(house)] == ["waiting"]
    first = begin(house)
    assert first.job.withdraws[0].sop_uid == "2.25.1"
    house.finish(first, done(NOTE))
    made(house, product(21))
    assert house.claim()[0].sop_uid == "2.25.21"
    second = begin(house)
    assert named(second) == ["2.25.11", "2.25.12"]
    house.finish(second, done(product(901, output="note_1", kind="rejection")))
    assert house.claim() == (), "both notes wait for what is valid now"
    assert [row["state"] for row in house.rows(run) if not row["withdraws"]] == [
        "superseded", "superseded", "done",
    ]  # fmt: skip


def corrected(house: House, **attributes: str) -> None:
    """All objects of the first series come again with another header."""
    kept = [row for row in house.rows(instance) if row["state"] == "kept"]
    house.complete(
        *(
            header(int(row["sop_uid"].split(".")[-1]), digest=f"{i:064d}", attributes=attributes)
            for i, row in enumerate(kept, 7000)
        )
    )


def test_corrected_headers_reissue_and_withdraw(house: House) -> None:
    """A merged patient: the results are made again over the corrected series, and the old ones are withdrawn."""
    house.complete(header(1), header(2))
    made(house, product(1))
    send_all(house)
    corrected(house, PatientID="MERGED")
    newer = house.start()
    assert newer is not None and json.loads(house.rows(run)[1]["files"]) == [3, 4]
    house.finish(newer, done(product(2)))
    assert named(begin(house)) == ["2.25.1"]
    assert house.series()[-1]["patient_id"] == "MERGED"


def test_results_of_corrected_objects_go_even_where_nothing_newer_comes(house: House) -> None:
    """The correction says that it is no CT: the rule does not match, nothing newer is made, the old is withdrawn."""
    house.complete(header(1), header(2))
    made(house, product(1))
    send_all(house)
    corrected(house, Modality="MR")
    assert [row["state"] for row in house.rows(run)] == ["superseded", "waiting"]
    assert "nothing newer is made: Modality" in house.rows(run)[0]["reason"]
    started = begin(house)
    assert named(started) == ["2.25.1"]
    house.finish(started, done(NOTE))
    assert send_all(house) == ["2.25.900"], "there is nothing to wait for"


def test_a_late_image_that_a_rule_does_not_suit_leaves_the_results(house: House) -> None:
    """A late localizer leaves the rule undecided: what was made of the others is not wrong."""
    axial = rule(
        "smooth",
        "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]",
        "{ImageType: {excludes: LOCALIZER}}",
    )
    house.parts.rules = parse_rules({"r.yaml": axial}, house.specs, {"PACS": True})
    house.complete(header(1, attributes={"ImageType": ("ORIGINAL", "PRIMARY", "AXIAL")}))
    made(house, product(1))
    send_all(house)
    house.complete(header(2, attributes={"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}))
    assert [row["state"] for row in house.rows(run)] == ["done"]


def test_results_of_corrected_objects_go_where_the_corrected_ones_are_refused(house: House) -> None:
    """The run over the corrected series ends refused: nothing newer comes, and the old is withdrawn."""
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    corrected(house, PatientID="MERGED")
    newer = house.start()
    assert newer is not None
    house.finish(newer, Exit(RunState.REFUSED, "two patients"))
    assert [row["state"] for row in house.rows(run)] == ["superseded", "refused", "waiting"]
    assert named(begin(house)) == ["2.25.1"]


def test_a_refused_late_revision_leaves_the_results(house: House) -> None:
    """A late image makes the series unsuitable: the earlier results stay, for nothing they were made of is wrong."""
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    house.complete(header(2))
    newer = house.start()
    assert newer is not None
    house.finish(newer, Exit(RunState.REFUSED, "no stack"))
    assert [row["state"] for row in house.rows(run)] == ["done", "refused"]


@pytest.mark.parametrize(
    ("code", "gone"), [("113001", True), ("113037", True), ("113038", True), ("113039", False)]
)
def test_results_of_rejected_objects_are_withdrawn(house: House, code: str, gone: bool) -> None:
    """A received note takes back what was made of the objects it names, unless these merely expired."""
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    house.take(note("1.2.3.1", code=code))
    assert [row["state"] for row in house.rows(run)] == (["cancelled", "waiting"] if gone else ["done"])
    if gone:
        started = begin(house)
        assert named(started) == ["2.25.1"] and "rejected objects" in started.job.why
        house.finish(started, done(NOTE))
        assert send_all(house) == ["2.25.900"]


def test_a_run_on_trial_replaces_nothing(tmp_path: Path) -> None:
    """A shadow run over a later revision leaves the results of the real one where they are."""
    house = house_with(tmp_path)
    house.complete(header(1))
    made(house, product(1))
    send_all(house)
    house.parts.rules = parse_rules({"r.yaml": SMOOTH + "mode: shadow\n"}, house.specs, {"PACS": True})
    house.complete(header(2))
    made(house, product(2))
    assert [row["state"] for row in house.rows(run)] == ["done", "done"]
    house.database.close()


# --- headers that were corrected


@pytest.mark.parametrize("mode", ["immediate", "sealed"])
def test_a_corrected_object_goes_wherever_the_former_went(tmp_path: Path, mode: str) -> None:
    """Immediate or sealed, it is delivered once more, once; even where no rule would send it any more."""
    house = House(tmp_path, rule("route", f"send: [{{what: received, to: PACS, mode: {mode}}}]"))
    house.complete(header(1))
    assert len(send_all(house)) == 1
    house.take(header(1, digest="f" * 64, attributes={"Modality": "MR"}))
    assert len(send_all(house)) == 1
    house.seal(2)
    house.route()
    assert send_all(house) == []
    assert [(row["instance_id"], row["state"]) for row in house.rows(delivery)] == [
        (1, "stored"),
        (2, "stored"),
    ]
    house.database.close()


def test_a_corrected_object_is_tried_where_the_former_was_refused(tmp_path: Path) -> None:
    """The parked delivery of the former gives way to a new one."""
    house = House(tmp_path, ROUTE)
    house.take(header(1))
    house.answer(house.claim(), Kind.FAILED, 0xA900)
    house.take(header(1, digest="f" * 64))
    assert [(row["instance_id"], row["state"]) for row in house.rows(delivery)] == [
        (1, "cancelled"), (2, "waiting"),
    ]  # fmt: skip
    house.database.close()


def test_a_corrected_object_stays_on_hold(tmp_path: Path) -> None:
    """What a person holds is held with the newer header, and cancelled deliveries stay cancelled."""
    house = House(tmp_path, ROUTE)
    house.take(header(1), header(2))
    with house.tx() as tx:
        acts.on_deliveries(tx, Act("hold", house.clock.at), Wanted())
    with house.tx() as tx:
        tx.execute(update(delivery).where(delivery.c.id == 2).values(state="cancelled"))
    house.parts.rules = parse_rules({"r.yaml": rule("none", "send: [{what: received, to: PACS}]", "{Modality: XX}")},
                                    house.specs, {"PACS": True})  # fmt: skip
    house.take(header(1, digest="f" * 64), header(2, digest="e" * 64))
    assert [(row["instance_id"], row["state"]) for row in house.rows(delivery)] == [
        (3, "held"),
        (2, "cancelled"),
    ]
    house.database.close()


def test_a_corrected_object_waits_while_the_former_is_being_sent(tmp_path: Path) -> None:
    """On another association it could overtake the older one, which would then be the last to arrive."""
    house = House(tmp_path, ROUTE)
    house.take(header(1), header(2))
    items = house.claim()
    house.take(header(1, digest="f" * 64), header(3))
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.3"]
    house.answer(items)
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.1"]
    house.database.close()


@pytest.mark.parametrize("begun", [False, True])
def test_runs_over_the_older_header_end(house: House, begun: bool) -> None:
    """Waiting work takes the newer header: a run that would make results of the old one ends, at work or not."""
    house.complete(header(1), header(2))
    if begun:
        started = house.start()
    house.take(header(1, digest="f" * 64))
    assert [row["state"] for row in house.rows(run)] == ["cancelled"]
    if begun:
        assert started is not None
        house.finish(started, done(product(1)))
    house.seal(2)
    house.route()
    assert [(row["state"], json.loads(row["files"])) for row in house.rows(run)] == [
        ("cancelled", [1, 2]), ("waiting", [2, 3]),
    ]  # fmt: skip
    assert send_all(house) == []


def test_corrections_on_postgresql(tmp_path: Path, postgres: str) -> None:
    """The same road on the other database: late image, withdrawal, correction, rejection, replay."""
    house = House(tmp_path, SMOOTH, text=IOCM, state=postgres)
    superseded(house)
    house.finish(begin(house), done(NOTE))
    send_all(house)
    assert send_all(house) == ["2.25.900"]
    corrected(house, PatientID="MERGED")
    made(house, product(31))
    assert named(begin(house)) == ["2.25.11", "2.25.12"]
    send_all(house)
    house.take(note("1.2.3.1", "2.25.31", "1.2.3.77"), header(77))
    assert house.rows(instance)[-1]["state"] == "rejected"
    assert named(begin(house)) == ["2.25.31"]
    replay_of_newest(house)
    again = house.start()
    assert again is not None and len(again.job.files) == 2
    house.database.close()
