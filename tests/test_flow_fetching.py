"""Claims about earlier studies that are fetched: asked for, chosen, taken as inputs, kept apart from what arrives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import NOON, ROUTE, SITE, House, header
from sqlalchemy import insert

from node import flow
from node.flow.fetching import LONGEST_PAUSE, Question, Request
from node.model import Cell, Header, InstanceState
from node.ops.removing import remove
from node.route.priors import Offer
from node.store import fetches, intake
from node.store.database import rows
from node.store.schema import delivery, instance, prior_fetch, run, series, wanted_prior

RULE = """---
rule: growth
purpose: p
owner: o@h.example
scope: study
when: {}
inputs:
  now: {when: {Modality: CT}}
  old: {prior: {at: PACS, max_age: 5 y}, when: {Modality: CT}}
do: [{smooth: {volume: now}, as: soft}, {smooth: {volume: old}, as: softer}]
send: [{what: soft, to: PACS}, {what: softer, to: PACS}]
"""
PATIENT = {
    "PatientID": "P-7", "IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": "19600131", "PatientSex": "F",
}  # fmt: skip
STUDY, SERIES = "1.2.5", "1.2.5.1"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Parts over a fresh database; PACS has an address and is called as PACSNODE."""
    return House(tmp_path, rules=RULE + ROUTE)


def want(house: House, **changes: Any) -> int:
    """A prior that the study 1.2.9 wants."""
    values = {
        "study_uid": "1.2.9", "rule": "growth", "input": "old", "peer": "PACS", "state": "wanted", "reason": "",
        "patient": json.dumps(PATIENT), "study_date": "20260301", "study_time": "0900", "from_date": "20210301",
        "tried": "[]", "attempt": 0, "failures": 0, "due_at": NOON, "created_at": NOON, **changes,
    }  # fmt: skip
    with house.tx() as tx:
        key = tx.execute(insert(wanted_prior).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def wanted(house: House) -> Mapping[str, Any]:
    """The one row."""
    (found,) = house.rows(wanted_prior)
    return found


def claimed(house: House) -> tuple[Mapping[str, Any], Question | None]:
    """Claim what is due, and what to ask."""
    with house.tx() as tx:
        (row,) = fetches.due(tx, house.clock.at, ())
        mine = fetches.claim(tx, row)
        assert mine is not None and fetches.claim(tx, row) is None, "once only"
        return mine, flow.ask_for_prior(tx, house.parts, mine)


def offer(study: str = STUDY, uid: str = SERIES, **changes: str) -> Offer:
    """One series that the PACS offers."""
    said = {**PATIENT, "StudyDate": "20240105", "StudyTime": "1200", "Modality": "CT", **changes}
    attributes: dict[str, Cell] = {name: ((value,),) for name, value in said.items()}
    return Offer(study, uid, attributes)


def asked(house: House, *offers: Offer, error: str = "") -> tuple[Mapping[str, Any], Request | None]:
    """Claim, ask, and hear what is offered."""
    mine, _ = claimed(house)
    with house.tx() as tx:
        return mine, flow.offered(tx, house.parts, mine, list(offers or [offer()]), error)


def image(number: int, origin: str = "move 1 PACSNODE", **changes: Any) -> Header:
    """One object of the series that is fetched."""
    own: dict[str, Any] = {
        "peer": "PACS", "study_uid": STUDY, "series_uid": SERIES, "origin": origin, "attributes": PATIENT, **changes,
    }  # fmt: skip
    return header(number, **own)


def end(house: House, mine: Mapping[str, Any], request: Request, *numbers: int, error: str = "") -> None:
    """The PACS says that it sent these, and all is indexed."""
    with house.tx() as tx:
        flow.sent(tx, house.parts, request.fetch, mine, tuple(f"1.2.3.{n}" for n in numbers), error)
    if not error:
        with house.tx() as tx:
            flow.finish_fetch(tx, house.parts, request.fetch, mine)


def states(house: House) -> list[str]:
    """Of all objects."""
    return [str(row["state"]) for row in house.rows(instance)]


def test_what_is_asked(house: House) -> None:
    """The patient's ID and issuer, the dates from the oldest that counts to the study's, and the input's modality."""
    want(house)
    mine, question = claimed(house)
    assert question is not None and mine["attempt"] == 1
    assert (question.patient_id, question.issuer, question.dates) == ("P-7", "HOSPITAL", "20210301-20260301")
    assert (question.not_study, question.modalities, question.where.name) == ("1.2.9", ("CT",), "PACS")
    assert "PatientBirthDate" in question.study_keys and "SeriesInstanceUID" in question.series_keys


def test_a_prior_is_an_input_and_nothing_else(house: House) -> None:
    """Its objects are kept in a sealed revision of its own: not routed, not judged, not counted as an arrival."""
    want(house)
    mine, request = asked(house)
    assert request is not None and (request.way, request.message_id, request.move_to) == (
        "move",
        1,
        "PACSNODE",
    )
    house.take(image(1), image(2), image(3))
    assert states(house) == ["fetched"] * 3 and not house.parts.assembly.series
    end(house, mine, request, 1, 2, 3)
    (row,) = house.series()
    assert (row["prior"], row["state"], row["revision"], row["instances"]) == ("PACS", "sealed", 0, 3)
    assert (wanted(house)["state"], wanted(house)["series_id"]) == ("fetched", row["id"])
    with house.tx() as tx:
        members, facts = intake.members_and_facts(tx, row["id"])
    assert members == (1, 2, 3) and facts.size == 3
    house.route()
    assert not house.rows(delivery) and not house.rows(run)
    assert house.series()[0]["state"] == "unrouted"
    assert [row["state"] for row in house.rows(prior_fetch)] == ["done"]


def test_the_same_objects_may_arrive_as_well(house: House) -> None:
    """Sent ordinarily, before or after, they are arrivals: first revision, routed; the fetched ones stay inputs."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    house.take(image(2))
    end(house, mine, request, 2)
    house.complete(image(1, origin=""), image(2, origin=""))
    own = [row for row in house.series() if not row["prior"]]
    assert [(row["revision"], row["state"], row["incomplete"]) for row in own] == [(1, "routed", "")]
    assert sorted(states(house)) == ["fetched", "kept", "kept"]


@pytest.mark.parametrize(
    ("origin", "fetched"),
    [
        ("move 1 PACSNODE", True),
        ("move 2 PACSNODE", False),  # no request of ours
        ("move 1 OTHER", False),  # somebody else's
        ("", True),  # a peer that names no originator, of just this series, while it is fetched
        ("get 1", True),  # only we write that, and nothing else is known of it
        ("move x", False),
    ],
)
def test_whose_request_an_object_answers(house: House, origin: str, fetched: bool) -> None:
    """A Move Originator that is not ours, or a Message ID that we did not use, is an ordinary arrival."""
    want(house)
    asked(house)
    house.take(image(1, origin=origin))
    assert states(house) == ["fetched" if fetched else "kept"]
    assert bool(house.rows(delivery)) is False, "PACS sent it; nothing goes back"


def test_of_another_peer_it_is_an_arrival(house: House) -> None:
    """Whoever was not asked cannot send priors, whatever its C-STORE says."""
    want(house)
    asked(house)
    house.take(image(1, peer="CT01"), image(2, peer="CT01", origin=""))
    assert states(house) == ["kept", "kept"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"series_uid": "1.2.5.2"}, "is of another series"),
        ({"study_uid": "1.2.6"}, "is of another series"),
        (
            {"attributes": {**PATIENT, "PatientID": "P-8"}},
            "is not surely of the same patient: Patient ID differs",
        ),
        ({"attributes": {**PATIENT, "PatientSex": ""}}, "is not surely of the same patient: sex is empty"),
        ({"readable": False, "why": "the dataset cannot be parsed"}, "the dataset cannot be parsed"),
    ],
)
def test_what_was_not_asked_for_is_set_aside(house: House, changes: dict[str, Any], words: str) -> None:
    """Another series, another patient, noise: kept aside, not routed, and the prior has failed for good."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    house.take(image(1), image(2, **changes))
    assert states(house)[1] in ("conflict", "unreadable")
    assert words in house.rows(instance)[1]["reason"]
    end(house, mine, request, 1)
    found = wanted(house)
    assert found["state"] == "failed" and words in found["reason"]
    assert not house.rows(delivery) and house.series()[0]["state"] == "unrouted"


def test_nothing_fits(house: House) -> None:
    """Another patient's, too old, of the same study: none, with the reason."""
    want(house)
    asked(house, offer(PatientSex="M"), offer(StudyDate="20200101"), offer(study="1.2.9"))
    found = wanted(house)
    assert found["state"] == "none"
    assert found["reason"].startswith("PACS: none of 3 series offered is a prior")
    assert house.events("prior_none")


def test_a_patient_id_that_is_a_pattern_is_not_asked_for(house: House) -> None:
    """`P*` would match whoever's ID begins so."""
    want(house, patient=json.dumps({**PATIENT, "PatientID": "P*"}))
    _, question = claimed(house)
    assert question is None
    assert wanted(house)["state"] == "none" and "takes for a pattern" in wanted(house)["reason"]


def test_what_is_here_is_not_fetched_again(house: House) -> None:
    """Neither what was fetched for another rule, nor what arrived; what arrived counts first."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    want(house, rule="growth", study_uid="1.2.8")
    other, second = asked(house)
    assert second is None, "it is under way"
    with house.tx() as tx:
        (row,) = rows(tx, wanted_prior.select().where(wanted_prior.c.id == other["id"]))
    assert (row["state"], row["failures"]) == ("wanted", 0) and row["due_at"] > NOON
    house.take(image(1))
    end(house, mine, request, 1)
    house.clock.tick(seconds=5)
    asked(house)
    assert [(row["state"], row["series_id"]) for row in house.rows(wanted_prior)] == [("fetched", 1)] * 2
    assert "is here already" in house.rows(wanted_prior)[1]["reason"]
    assert len(house.rows(prior_fetch)) == 1
    house.complete(image(1, origin=""))
    with house.tx() as tx:
        assert fetches.held(tx, STUDY, SERIES) == 2


def test_a_failure_is_tried_again_and_given_up(house: House) -> None:
    """After 10 s, 1, 5 and 15 min; then it has failed, and the study's rules hear of it."""
    want(house)
    for seconds in (10, 60, 300, 900):
        asked(house, error="PACS at h:1 did not answer")
        found = wanted(house)
        assert (found["state"], found["due_at"] - house.clock.at) == ("wanted", timedelta(seconds=seconds))
        house.clock.tick(seconds=seconds)
    asked(house, error="PACS at h:1 did not answer")
    found = wanted(house)
    assert (found["state"], found["reason"]) == ("failed", "PACS at h:1 did not answer")
    assert len(house.events("prior_delayed")) == 1 and len(house.events("prior_failed")) == 1


def test_a_transfer_that_loses_objects_is_done_again(house: House) -> None:
    """Two of three came: that revision is nobody's input, and the whole is fetched anew, as another one."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    house.take(image(1), image(2))
    end(house, mine, request, 1, 2, 3)
    assert wanted(house)["reason"] == "PACS says that it sent 3 objects; 1 did not come"
    assert house.series()[0]["state"] == "unrouted"
    house.clock.tick(seconds=10)
    mine, request = asked(house)
    assert request is not None and request.message_id == 2
    house.take(*(image(n, origin="move 2 PACSNODE") for n in (1, 2, 3)), image(3, origin="move 2 PACSNODE"))
    end(house, mine, request, 1, 2, 3)
    assert wanted(house)["state"] == "fetched"
    assert [(row["revision"], row["instances"]) for row in house.series()][1] == (-1, 3)
    assert states(house) == ["fetched"] * 5 + ["duplicate"]


def test_a_restart_asks_again(house: House) -> None:
    """What was under way is wanted again; what came is not used, and what still comes of it is no arrival."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    house.take(image(1))
    with house.tx() as tx:
        flow.nobody_asks(tx, house.parts)
    assert (wanted(house)["state"], wanted(house)["attempt"]) == ("wanted", 1)
    assert house.series()[0]["state"] == "unrouted"
    house.take(image(2))
    assert states(house) == ["fetched", "fetched"] and len(house.series()) == 1
    with house.tx() as tx:  # an answer to who asked before
        assert not fetches.settle(tx, mine, fetches.WantedState.FETCHED)
    _, again = asked(house)
    assert again is not None


def test_a_rejected_object_is_no_input(house: House) -> None:
    """What a rejection note named before it was fetched is kept, and not used; of nothing else there is no prior."""
    want(house)
    note = header(9, rejection="113001", rejects=("1.2.3.1",), series_uid="1.2.9.5", peer="CT01")
    house.take(note)
    mine, request = asked(house)
    assert request is not None
    house.take(image(1), image(2))
    assert states(house)[1:] == ["rejected", "fetched"]
    end(house, mine, request, 1, 2)
    with house.tx() as tx:
        assert intake.members_and_facts(tx, wanted(house)["series_id"])[0] == (3,)


def test_retention_takes_what_was_fetched_after_a_day(house: House) -> None:
    """`keep.priors`, not the time of what no rule wanted; then it is fetched again where it is wanted."""
    want(house)
    mine, request = asked(house)
    assert request is not None
    house.take(image(1))
    end(house, mine, request, 1)
    house.route()
    remove(house.database, house.parts.settings, NOON + timedelta(hours=23))
    assert states(house) == ["fetched"]
    remove(house.database, house.parts.settings, NOON + timedelta(hours=25))
    assert states(house) == [InstanceState.REMOVED]
    with house.tx() as tx:
        assert fetches.held(tx, STUDY, SERIES) is None
    (row,) = house.rows(series)
    assert row["removed_at"] is not None
    assert "`keep.priors`" in house.events("series_removed")[0]["detail"]


def test_a_clock_that_was_set_back(house: House) -> None:
    """Nobody waits longer than the longest pause."""
    want(house, due_at=NOON + timedelta(hours=5), failures=2)
    want(house, due_at=NOON + timedelta(hours=5), input="older")
    with house.tx() as tx:
        assert flow.cap_waits(tx, house.parts) == 2
    assert [row["due_at"] for row in house.rows(wanted_prior)] == [NOON + LONGEST_PAUSE, NOON]


def test_the_site_file_says_how_to_fetch(tmp_path: Path) -> None:
    """`priors: get` at the peer, and our title towards it where that is one of ours."""
    text = SITE.replace('"127.0.0.1:4242",', '"127.0.0.1:4242", priors: get, call_as: RESEARCHER,')
    house = House(tmp_path, rules=RULE, text=text)
    want(house)
    _, request = asked(house)
    assert request is not None and (request.way, request.move_to) == ("get", "PACSNODE")
    assert request.where.calling_ae == "RESEARCHER"
    house.take(image(1, origin="move 1 PACSNODE"))
    assert states(house) == ["kept"], "it was asked for by C-GET"
