"""Immediate rules, remembered: they say of every object what they would say if they were asked anew."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_cases import NOW, document, read

from node.facts import gather
from node.model import Cell
from node.route.at_once import AtOnce
from node.route.match import judge_immediate

SEND = "send: [{what: received, to: PACS}]"
RULES = read(
    "---\n".join(
        document(when, rest, name)
        for name, when, rest in (
            ("ct", "{Modality: CT, SliceThickness: {at_most: 2}}", f"group: g\n{SEND}"),
            ("rest", "{Modality: {present: yes}}", f"group: g\nfallback: true\n{SEND}"),
            ("odd", "{Modality: {one_of: [CT, MR]}, PatientSex: F}", f"group: h\nunless: [late]\n{SEND}"),
            (
                "late",
                "{BodyPartExamined: HEAD}",
                "group: h\nsend: [{what: received, to: PACS, mode: sealed}]",
            ),
            ("dose", "{RadiopharmaceuticalInformationSequence: {present: yes}}", SEND),
            ("sealed", "{slices: {at_least: 5}}", "send: [{what: received, to: PACS, mode: sealed}]"),
        )
    )
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "Modality": st.sampled_from(["CT", "MR", "PT"]),
        "SliceThickness": st.sampled_from(["1", "5"]),
        "PatientSex": st.sampled_from(["F", "M"]),
        "BodyPartExamined": st.sampled_from(["HEAD", "CHEST"]),
        "RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose": st.just("1"),
        "InstanceNumber": st.integers(1, 3).map(str),
    },
)


def cells(given: dict[str, str]) -> dict[str, Cell]:
    """One value each."""
    return {name: ((value,),) for name, value in given.items()}


@given(st.lists(OBJECTS, min_size=1, max_size=30))
def test_what_is_remembered_is_what_would_be_said(objects: list[dict[str, str]]) -> None:
    """Object after object the rules that send it are those that `judge_immediate` names over all rules."""
    remembered = AtOnce(RULES.rules)
    for one in objects:
        judged = judge_immediate(RULES.rules, gather([cells(one)]), NOW)
        asked = [rule.name for rule in remembered.rules_for(cells(one), NOW)]
        assert asked == [found.rule.name for found in judged if found.routes]


@pytest.mark.parametrize("condition", ["{local_time: {at_least: '12:00'}}", "{weekday: mon}"])
def test_the_clock_is_asked_every_time(condition: str) -> None:
    """A rule about the time of day or the weekday says something else of the same object a day or half a day later."""
    remembered = AtOnce(read(document(condition, SEND, "by-clock")).rules)
    said = set()
    for hours in range(0, 7 * 24, 6):
        later = NOW.__class__(NOW.now + timedelta(hours=hours), NOW.timezone)
        said.add(tuple(rule.name for rule in remembered.rules_for(cells({"Modality": "CT"}), later)))
    assert said == {(), ("by-clock",)}


def test_rules_that_wait_are_not_asked() -> None:
    """Without a rule that sends at once nothing is."""
    remembered = AtOnce([rule for rule in RULES.rules if rule.name in ("late", "sealed")])
    assert remembered.rules_for(cells({"BodyPartExamined": "HEAD"}), NOW) == ()
