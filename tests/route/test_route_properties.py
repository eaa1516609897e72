"""Properties: matching never raises, and pure helpers agree with slower ones."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from route_cases import NOW, document, rule

from node.errors import Misconfigured
from node.facts import gather
from node.route.conditions import Outcome
from node.route.conditions import judge as judge_values
from node.route.explain import as_json, lines
from node.route.extents import judge_column
from node.route.match import judge, judge_immediate
from node.route.rules import parse_rules
from node.route.values import fits
from node.route.when import Line

NAMES = (
    "Modality", "ImageType", "SliceThickness", "PixelSpacing", "StudyDate", "ContentTime",
    "AcquisitionDateTime",
    "PatientAge", "PatientName", "SOPClassUID", "RequestAttributesSequence", "ImageOrientationPatient",
    "ImagePositionPatient", "GantryDetectorTilt", "(0019,xx0C) SIEMENS MR HEADER", "from", "frames",
    "sop_class",
    "age", "orientation", "b_value", "temporal_position",
)  # fmt: skip
NASTY = st.sampled_from(
    ["", " ", "\0", "NaN", "-Infinity", "1e999", "1e9999999999", "9" * 400, "٣", "99999999", "00000000",
     "245960",
     "2024-02-30", "20240101000000+9999", "00010101000000+1400", "99991231235959-1200", "000Y", "999W",
     "1.2.840",
     "\\", "�", "{x}", "*", "1e-400", "+.", "²"]
)  # fmt: skip
TEXT = NASTY | st.text(max_size=20)
CELL = st.lists(st.lists(TEXT, max_size=6).map(tuple), min_size=1, max_size=3).map(tuple)
FACTS = st.lists(st.dictionaries(st.sampled_from(NAMES), CELL, max_size=8), max_size=5).map(gather)

EVERYTHING = """{
  Modality: {one_of: [CT, MR], not: PT, matches: ['C*', '?R']},
  ImageType: {has_all: [A], has_any: [B, C], excludes: D, some: {has_any: E}},
  SliceThickness: {at_least: 0.1 mm, at_most: 1e300},
  PixelSpacing: {between: [0.1, 2]},
  StudyDate: {between: [2000-01-01, 2024-12-31]},
  ContentTime: {between: ['22:00', '06:00']},
  AcquisitionDateTime: {at_least: '2024-01-01T00:00+14:00', at_most: '9999-12-31T23:59-12:00'},
  PatientAge: {at_most: 6 mo}, PatientName: {matches: '*x*'}, SOPClassUID: CTImageStorage,
  RequestAttributesSequence: absent, "(0019,xx0C) SIEMENS MR HEADER": {at_least: 3, not: 5},
  from: [CT01], sop_class: {matches: '*Image*'}, age: {at_least: 18}, orientation: axial, b_value: 1000,
  temporal_position: {at_most: 3}, instances: {at_least: 1}, frames: {at_least: 1}, slices: {at_least: 1},
  has_tilt: no, local_time: {at_most: '23:59'}, weekday: mon, revision: 1,
  any_of: [{Modality: CT, SliceThickness: 1}, {none_of: [{ImageType: {has_any: X}}, {PatientAge: 3 y}]}],
  none_of: [{StudyDate: 2024-01-01}]
}"""
USE = "{ImageType: {excludes: LOCALIZER}, frames: {at_least: 1}}"
SEALED = "send: [{what: received, to: PACS, mode: sealed}]"
ALL = rule(EVERYTHING.replace("\n", " "), SEALED, "all")
USED = rule("{instances: 1}", f"use: {USE}\ngroup: g\nfallback: yes\n{SEALED}", "used")
AT_ONCE = rule("{Modality: CT}", "send: [{what: received, to: PACS}]", "now")


@settings(max_examples=150, deadline=None)
@given(facts=FACTS, zone=st.sampled_from(["Europe/Berlin", "", "../etc", "Nowhere/Land", "\0"]))
def test_matching_never_raises(facts: object, zone: str) -> None:
    """Whatever text a header holds, every kind of condition gives a verdict that can be shown."""
    context = replace(NOW, timezone=zone)
    found = (*judge([ALL, USED, AT_ONCE], facts, context), *judge_immediate([AT_ONCE], facts, context))  # type: ignore[arg-type]
    for judgement in found:
        assert isinstance(judgement.outcome, Outcome)
        assert judgement.runs <= (judgement.outcome is Outcome.YES)
        assert lines(judgement)
        assert as_json(judgement)["rule"]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    op=st.sampled_from(["one_of", "not", "matches", "at_least", "at_most", "has_any", "excludes"]),
    operand=TEXT,
    facts=FACTS,
)
def test_any_condition_is_refused_or_judged(name: str, op: str, operand: str, facts: object) -> None:
    """Any operator with any operand is either refused with a place, or judges any facts."""
    quoted = operand.replace("'", "''")
    text = document(f"{{'{name}': {{{op}: '{quoted}'}}}}", SEALED)
    try:
        rules = parse_rules({"a.yaml": text}, {}, {"PACS": True}).rules
    except Misconfigured as error:
        assert all(mistake.startswith("a.yaml:") for mistake in error.mistakes)
        return
    assert judge(rules, facts, NOW)[0].outcome in Outcome  # type: ignore[arg-type]


@given(pattern=st.text("ab*?", max_size=8), text=st.text("abc", max_size=10))
def test_patterns_agree_with_fnmatch(pattern: str, text: str) -> None:
    """The linear matcher and a regular expression say the same."""
    assert fits(pattern, text) == bool(re.match(fnmatch.translate(pattern), text))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_refused_in_words(text: str) -> None:
    """No rule file makes the reader fail otherwise than with places and sentences."""
    try:
        parse_rules({"a.yaml": text}, {}, {})
    except Misconfigured as error:
        assert error.mistakes
        assert all(mistake.startswith("a.yaml:") for mistake in error.mistakes)


ODD = st.sampled_from(["", "x", "NaN", "1e400", "-0", "3", "3.0000000001", "12:00", "2500"])
MANY = st.lists(st.decimals(-5, 5, places=2).map(str) | ODD, min_size=17, max_size=60, unique=True)
BOUND = st.sampled_from(["-6", "-1", "0", "2.5", "3", "6"])


@settings(max_examples=200, deadline=None)
@given(
    values=MANY | MANY.map(lambda found: [v for v in found if v.lstrip("-").replace(".", "").isdigit()]),
    bounds=st.fixed_dictionaries({}, optional={"at_least": BOUND, "at_most": BOUND}).filter(bool),
    several=st.booleans(),
)
def test_a_column_is_judged_as_its_values_are(
    values: list[str], bounds: dict[str, str], several: bool
) -> None:
    """Where the smallest and the largest value tell, they tell what asking each value tells, in the same words."""
    (line,) = rule(f"{{SliceThickness: {{{', '.join(f'{k}: {v}' for k, v in bounds.items())}}}}}").when.lines
    assert isinstance(line, Line)
    cells = [(((v, v) if several and i == 3 else (v,)) if v else (),) for i, v in enumerate(values)]
    facts = gather({"SliceThickness": cell} for cell in cells)
    if not values:
        return
    column = facts.columns["SliceThickness"]
    one_by_one = judge_values(line.condition, line.attribute, facts.seen("SliceThickness"), facts.size)
    assert judge_column(line.condition, line.attribute, column, facts.size) == one_by_one
