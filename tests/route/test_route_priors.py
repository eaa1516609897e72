"""Claims about earlier studies: who counts as the same patient, and which series of an answer is the prior."""

from __future__ import annotations

from datetime import date
from itertools import product

import pytest
from route_cases import SPECS

from node.model import Cell
from node.route.inputs import Input, Prior
from node.route.priors import (
    Offer,
    Patient,
    Wanted,
    choose,
    different,
    earliest,
    keys,
    modalities,
    no_prior,
    patient_from_json,
    patient_of,
)
from node.route.rules import parse_rules

ANNA = Patient("P1", "HOSPITAL", "19700102", "F")
FIELDS = ("patient_id", "issuer", "birth_date", "sex")


def cells(**values: str) -> dict[str, Cell]:
    """Attributes as a C-FIND answer gives them."""
    return {name: ((value,),) for name, value in values.items()}


def source(wish: str = "when: {Modality: CT}") -> Input:
    """An input `old` that asks PACS for a prior with these conditions, of a rule that fuses it."""
    rule = (
        "rule: r\npurpose: p\nowner: o\nscope: study\nwhen: {}\ninputs:\n  now: {when: {Modality: CT}}\n"
        f"  old: {{prior: {{at: PACS, max_age: 5 y}}, {wish}}}\n"
        "do: [{fuse: {volume: now, other: old}}]\nsend: [{what: fuse, to: PACS}]\n"
    )
    (found,) = parse_rules({"r.yaml": rule}, SPECS, {"PACS": True}).rules
    assert found.study is not None
    return next(one for one in found.study.inputs if one.name == "old")


def offer(number: int = 1, **changes: str) -> Offer:
    """One series of an earlier study of Anna."""
    said = {
        "PatientID": "P1", "IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": "19700102", "PatientSex": "F",
        "StudyDate": "20240301", "StudyTime": "1200", "Modality": "CT", **changes,
    }  # fmt: skip
    return Offer(f"1.2.{number}", f"1.2.{number}.1", cells(**said))


WANTED = Wanted("1.1", ANNA, "20260301", "0900", "20210301")


@pytest.mark.parametrize(("name", "value"), list(product(FIELDS, ("", "other"))))
def test_one_value_that_is_empty_or_differs_is_enough(name: str, value: str) -> None:
    """Patient ID, issuer, birth date and sex must each be there and the same; any one that is not refuses."""
    other = Patient(**{field: getattr(ANNA, field) for field in FIELDS} | {name: value})
    assert different(ANNA, other)
    assert different(other, ANNA)
    assert bool(no_prior(other)) == (value == "")


def test_the_same_four_are_the_same_patient() -> None:
    """Padding and the case of the sex do not make another patient; the case of an ID does."""
    assert different(ANNA, ANNA) == ""
    assert different(ANNA, Patient("P1 ", "HOSPITAL", "19700102", "f")) == ""
    assert "Patient ID differs" in different(ANNA, Patient("p1", "HOSPITAL", "19700102", "F"))
    assert no_prior(ANNA) == ""
    assert patient_from_json(ANNA.as_json()) == ANNA


def test_every_empty_value_is_named() -> None:
    """The reason names all that is missing, so that a person knows what to ask the PACS team for."""
    assert no_prior(Patient("P1", "", "", "F")) == (
        "the patient's Issuer of Patient ID and birth date are empty, so no earlier study is surely theirs"
    )
    assert patient_of({}) == Patient()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"StudyDate": "20210228"}, "older than 2021-03-01"),
        ({"StudyDate": "20260302"}, "not earlier"),
        ({"StudyDate": "20260301", "StudyTime": "0900"}, "not earlier"),
        ({"StudyDate": "20260301", "StudyTime": ""}, "not earlier"),
        ({"StudyDate": ""}, "no date"),
        ({"PatientSex": "M"}, "sex differs"),
        ({"IssuerOfPatientID": ""}, "Issuer of Patient ID is empty"),
        ({"Modality": "MR"}, "Modality: is MR"),
    ],
)
def test_what_is_no_prior(changes: dict[str, str], reason: str) -> None:
    """Too old, not earlier, another patient or another kind: none is chosen, and the reason says why."""
    found = choose(source(), WANTED, [offer(**changes)])
    assert found.order == ()
    assert reason in found.why


def test_the_same_study_and_what_was_tried_are_no_priors() -> None:
    """A study is not its own prior, and a series that was fetched and did not fit is not fetched again."""
    same = Offer("1.1", "1.1.5", offer().attributes)
    tried = Wanted("1.1", ANNA, "20260301", "0900", "20210301", ("1.2.1.1",))
    assert "same study" in choose(source(), WANTED, [same]).why
    assert "did not fit" in choose(source(), tried, [offer()]).why
    assert choose(source(), WANTED, []).why == "nothing was found"


def test_the_most_recent_comes_first_unless_another_is_preferred() -> None:
    """Without `prefer` the newest study; with it what is preferred, and the newest among those alike."""
    offers = [
        offer(1, StudyDate="20230101", SeriesDescription="lung"),
        offer(2, StudyDate="20250101", SeriesDescription="bone"),
        offer(3, StudyDate="20240101", SeriesDescription="lung"),
    ]
    assert [o.study_uid for o in choose(source(), WANTED, offers).order] == ["1.2.2", "1.2.3", "1.2.1"]
    lung = source("when: {Modality: CT}, prefer: [{SeriesDescription: lung}]")
    found = choose(lung, WANTED, offers)
    assert [o.study_uid for o in found.order] == ["1.2.3", "1.2.1", "1.2.2"]
    assert found.why == "of 2024-01-01, 3 of 3 offered fit"


def test_what_the_answer_does_not_say_decides_nothing() -> None:
    """Slices and thickness are judged when the series is there; a PACS need not answer them."""
    thin = source("when: {Modality: CT, SliceThickness: {at_most: 1 mm}, slices: {at_least: 40}}")
    assert choose(thin, WANTED, [offer()]).order
    assert not choose(thin, WANTED, [offer(SliceThickness="5")]).order
    assert choose(thin, WANTED, [offer(SliceThickness="0.6")]).order


def test_what_is_asked_for() -> None:
    """C-FIND narrows by the modalities of the input, and asks for the keywords it needs."""
    wish = source(
        "when: {Modality: {one_of: [CT, PT]}, ProtocolName: x}, prefer: [{SliceThickness: smallest}]"
    )
    assert modalities(wish) == ("CT", "PT")
    assert keys(wish) == ("ProtocolName", "SliceThickness")
    assert modalities(source("when: {}")) == ()


def test_how_old_it_may_be() -> None:
    """Years and months count by the calendar, also over a leap day."""
    assert earliest(source(), "20240229") == "20190228"
    assert Prior("PACS", (18, "month")).earliest(date(2026, 3, 31)) == date(2024, 9, 30)
    assert Prior("PACS", (30, "d")).earliest(date(2026, 3, 1)) == date(2026, 1, 30)
