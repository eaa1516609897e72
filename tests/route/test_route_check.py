"""`check`, the shipped rules and their `try:` cases, and the editors' schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from route_cases import PEERS, SPECS, document

from node.route.check import check
from node.route.rules import parse_rules, read_folder
from node.route.schema import schema

RULES = Path(__file__).parents[2] / "rules"
SEALED = "send: [{what: received, to: PACS, mode: sealed}]"


def test_shipped_rules_pass() -> None:
    """Every shipped rule is right, warns of nothing, has cases, and they all come out as expected."""
    report = check(read_folder(RULES), SPECS, PEERS)
    assert report.errors == ()
    assert report.warnings == ()
    assert [case for case in report.cases if not case.passed] == []
    assert {case.rule for case in report.cases} == set(report.rules)
    assert set(report.rules) >= {"ct-chest-thick", "ct-body-report", "mr-reformat", "route-everything"}


def test_shipped_plans() -> None:
    """The shipped pipelines send what they are made for."""
    rules = {rule.name: rule for rule in parse_rules(read_folder(RULES), SPECS, PEERS).rules}
    plan = rules["ct-body-report"].plan()
    assert plan is not None
    assert [output.name for output in plan.outputs] == ["body", "measured"]
    assert rules["route-everything"].sends[0].immediate
    assert rules["route-everything"].plan() is None


@pytest.mark.parametrize(
    ("case", "passed", "words"),
    [
        ("{given: {Modality: CT}, expect: {runs: yes}}", True, "it runs"),
        (
            "{given: {Modality: MR}, expect: {runs: yes}}",
            False,
            "expected runs: yes, but it does not run (Modality",
        ),
        ("{given: {Modality: MR}, expect: {runs: no, because: Modality}}", True, "is MR"),
        (
            "{given: {Modality: MR}, expect: {runs: no, because: ImageType}}",
            False,
            "expected because: ImageType",
        ),
        (
            "{given: [{Modality: CT}, {Modality: MR}], expect: {runs: no, because: Modality}}",
            True,
            "undecided",
        ),
        ("{given: {}, expect: {runs: no, because: Modality}}", True, "is absent"),
    ],
)
def test_try_cases(case: str, passed: bool, words: str) -> None:
    """A case passes exactly when the rule does what it expects, for the reason it names."""
    report = check({"a.yaml": document("{Modality: CT}", f"{SEALED}\ntry:\n- {case}")}, SPECS, PEERS)
    (found,) = report.cases
    assert (found.passed, report.ok) == (passed, passed)
    assert words in found.message
    assert found.place == "a.yaml:7:3"


def test_given_values_are_typed_like_headers() -> None:
    """Units, ages, dates and names in `given` become what a header would hold; aggregates replace ours."""
    when = (
        "{SliceThickness: 1, RepetitionTime: {at_least: 2000}, PatientAge: {at_most: 3},"
        " StudyDate: 2024-01-31,"
        " sop_class: 1.2.840.10008.5.1.4.1.1.2, slices: 320, local_time: {at_least: '20:00'}, weekday: sun,"
        " ContrastBolusAgent: absent}"
    )
    given = (
        "{SliceThickness: 0.1 cm, RepetitionTime: 2 s, PatientAge: 030M, StudyDate: 2024-01-31,"
        " sop_class: CTImageStorage, slices: 320, local_time: '21:00', weekday: sunday,"
        " ContrastBolusAgent: absent}"
    )
    text = document(when, f"{SEALED}\ntry:\n- {{given: {given}, expect: {{runs: yes}}}}")
    (found,) = check({"a.yaml": text}, SPECS, PEERS).cases
    assert found.passed, found.message


def test_the_clock_of_the_machine_does_not_decide_a_case() -> None:
    """A rule that asks for the time does not run in a case that does not give it."""
    text = document(
        "{weekday: [mon, tue, wed, thu, fri, sat, sun]}",
        f"{SEALED}\ntry:\n- {{given: {{}}, expect: {{runs: no}}}}",
    )
    assert check({"a.yaml": text}, SPECS, PEERS).ok


def test_cases_of_a_fallback_see_its_group() -> None:
    """A fallback's case is judged beside the other rules of its group."""
    first = document("{Modality: CT}", f"group: g\n{SEALED}", "first")
    last = document(
        "{}",
        f"group: g\nfallback: yes\n{SEALED}\ntry:\n"
        "- {given: {Modality: CT}, expect: {runs: no, because: fallback}}\n"
        "- {given: {Modality: MR}, expect: {runs: yes}}",
        "last",
    )
    report = check({"a.yaml": first + "---\n" + last}, SPECS, PEERS)
    assert [case.passed for case in report.cases] == [True, True]


def test_check_tries_what_is_sound_beside_what_is_not() -> None:
    """A wrong rule does not hide the cases of the others."""
    good = document("{}", f"{SEALED}\ntry:\n- {{given: {{}}, expect: {{runs: yes}}}}", "good")
    report = check({"a.yaml": good, "b.yaml": document("{Modalty: CT}", name="bad")}, SPECS, PEERS)
    assert len(report.errors) == 1
    assert [case.rule for case in report.cases] == ["good"]
    assert not report.ok


def test_schema_knows_operators_options_and_keywords() -> None:
    """The schema is JSON, names each operator's options with unit and choices, and explains keywords."""
    found = json.loads(json.dumps(schema(SPECS)))
    step = found["properties"]["do"]["items"]["properties"]["reformat"]
    assert step["properties"]["combine"]["enum"] == ["mean", "max", "min"]
    assert step["required"] == ["thickness"]
    assert "mm" in step["properties"]["thickness"]["description"]
    keywords = found["definitions"]["when"]["properties"]
    assert keywords["SliceThickness"]["description"] == "Slice Thickness (0018,0050) DS, in mm"
    assert {"slices", "any_of", "none_of", "Modality"} <= set(keywords)
    assert set(found["required"]) == {"rule", "purpose", "owner", "when"}


def test_schema_references_resolve() -> None:
    """Every `$ref` in the schema points at a definition that is there."""
    found = schema(SPECS)
    text = json.dumps(found)
    names = {part.split('"')[0] for part in text.split('"#/definitions/')[1:]}
    assert names <= set(found["definitions"])


DESIGN_EXAMPLE = """\
rule: ct-chest-thick
purpose: Thin chest CT gets 5 mm axials for the reading list.
owner: radiology-it@hospital.example
group: chest-ct                            # optional
when:
  from: [CT01, CT02]                       # peer names
  Modality: CT
  BodyPartExamined: {one_of: [CHEST, THORAX]}
  ImageType: {has_all: [ORIGINAL, PRIMARY]}
  SliceThickness: {at_most: 1.5 mm}
  slices: {at_least: 80}
use: {ImageType: {excludes: LOCALIZER}}
do:
  - reformat: {plane: axial, thickness: 5 mm, every: 5 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: PACS, SeriesDescription: "{SeriesDescription} 5mm AX"}
on_failure: {retry: 3, then: quarantine}
try:
  - {given: {from: CT01, Modality: CT, BodyPartExamined: CHEST, ImageType: [ORIGINAL, PRIMARY, AXIAL], \
SliceThickness: 1 mm, slices: 320}, expect: {runs: yes}}
  - {given: {from: CT01, Modality: CT, BodyPartExamined: CHEST, ImageType: [DERIVED, SECONDARY], \
SliceThickness: 1 mm, slices: 320}, expect: {runs: no, because: ImageType}}
---
rule: route-ct
purpose: All CT goes to the PACS as it comes, and de-identified to research.
owner: radiology-it@hospital.example
when: {Modality: CT}
send:
  - {what: received, to: PACS}                               # immediate: each object as it arrives
  - {what: received, to: RESEARCH, deidentify: basic}
"""


def test_the_promised_example() -> None:
    """The example in the design passes with its cases."""
    report = check({"rules/x.yaml": DESIGN_EXAMPLE}, SPECS, PEERS)
    assert not report.errors
    assert [case.passed for case in report.cases] == [True, True]
