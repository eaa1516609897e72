"""What `check` warns of: rules that never match, rules that do the same, comparisons hardly meant, unseen results."""

from __future__ import annotations

import pytest
from route_cases import PEERS, SPECS, document, images, read, rule, verdict

from node.route.check import check
from node.route.impossible import apart, contradictions, lines_together

NEVER = [
    "{SliceThickness: {at_least: 5, at_most: 3}}",
    "{SliceThickness: {at_least: 5, between: [1 mm, 0.3 cm]}}",
    "{slices: {at_least: 80, at_most: 79}}",
    "{Modality: {one_of: [CT, MR], not: {one_of: [CT, MR]}}}",
    "{SliceThickness: {one_of: [1, 2], at_least: 3}}",
    "{ImageType: {has_all: [ORIGINAL, PRIMARY], excludes: PRIMARY}}",
    "{ImageType: {has_any: [LOCALIZER], excludes: [LOCALIZER, MPR]}}",
    "{PatientAge: {absent: yes, at_least: 18}}",
    "{PatientAge: {present: yes, absent: yes}}",
    "{has_tilt: {none_of: [yes, no], present: yes}}",
    "{Modality: CT, any_of: [{Modality: MR}, {Modality: PT, Rows: 5}]}",
    "{Modality: CT, none_of: [{Modality: {one_of: [CT, MR]}}]}",
    "{StudyDate: {at_least: 2024-01-31, at_most: 2024-01-01}}",
    "{Modality: {some: CT, not: CT}}",
]
MAY = [
    "{SliceThickness: {at_least: 3, at_most: 3}}",
    "{SliceThickness: {at_least: 5 mm, at_most: 1 cm}}",
    "{local_time: {between: ['22:00', '06:00'], at_least: '23:00'}}",
    "{Modality: {one_of: [CT, MR], not: CT}}",
    "{ImageType: {has_all: [ORIGINAL], excludes: PRIMARY}}",
    "{ImageType: {has_any: [LOCALIZER, AXIAL], excludes: [LOCALIZER]}}",
    "{orientation: {not: axial}}",
    "{Modality: CT, any_of: [{Modality: MR}, {Modality: CT, Rows: 5}]}",
    "{Modality: CT, none_of: [{Modality: CT, Rows: 5}]}",
    "{SeriesDescription: {matches: '*a*', not: {matches: '*a*'}}}",
    "{Modality: {some: CT, one_of: [CT, MR]}}",
    "{StudyDate: {at_least: 2024-01-01, at_most: 2024-01-31}}",
    "{EchoTime: {absent: yes}}",
    "{none_of: [{EchoTime: {at_least: 5}}]}",
]


@pytest.mark.parametrize("when", NEVER)
def test_a_rule_that_can_never_match_is_told(when: str) -> None:
    """Contradicting conditions are warned of where they stand; the rule stays a rule."""
    warnings = read(document(when)).warnings
    assert any("never matches" in told and told.startswith("a.yaml:4:") for told in warnings), warnings


@pytest.mark.parametrize("when", MAY)
def test_a_rule_that_can_match_is_not_accused(when: str) -> None:
    """Only what is certain is said."""
    assert not list(contradictions(rule(when)))


def test_use_and_when_are_asked_of_the_same_images() -> None:
    """What `use` picks, `when` cannot ask to be something else."""
    text = document("{Modality: CT}", "use: {Modality: MR}\nsend: [{what: received, to: PACS, mode: sealed}]")
    assert any("Modality: MR and Modality: CT cannot hold at once" in w for w in read(text).warnings)


def test_an_input_that_no_series_can_be() -> None:
    """What an input of a rule over a study asks for is looked at, too."""
    study = (
        "rule: r\npurpose: p\nowner: o@h.example\nscope: study\nwhen: {}\ninputs:\n"
        "  thick: {when: {SliceThickness: {at_least: 3}}, use: {SliceThickness: {at_most: %s}}}\n"
        "do: [{segment_body: {volume: thick}, as: body}]\nsend: [{what: body, to: PACS}]\n"
    )
    told = [w for w in read(study % 2).warnings if "no series is ever the input thick of rule r" in w]
    assert len(told) == 1
    assert told[0].startswith("a.yaml:7:")
    assert not any("no series is ever" in w for w in read(study % 5).warnings)


@pytest.mark.parametrize(
    ("when", "values"),
    [
        (MAY[0], {"SliceThickness": "3"}),
        (MAY[3], {"Modality": "MR"}),
        (MAY[4], {"ImageType": ("ORIGINAL", "X")}),
        (MAY[5], {"ImageType": ("AXIAL",)}),
        (MAY[7], {"Modality": "CT", "Rows": "5"}),
        (MAY[8], {"Modality": "CT", "Rows": "6"}),
        (MAY[11], {"StudyDate": "20240115"}),
    ],
)
def test_what_is_not_accused_does_match_something(when: str, values: dict[str, object]) -> None:
    """An image for which such a rule runs."""
    assert verdict(when, images(values)).runs


def both(first: str, second: str, more: str = "") -> list[str]:
    """The warnings over two rules."""
    documents = document(first, name="one") + "---\n" + document(second, name="two")
    return [told for told in read(documents + more).warnings if "try:" not in told]


@pytest.mark.parametrize(
    ("first", "second", "overlapping"),
    [
        ("{Modality: CT}", "{}", True),
        ("{Modality: CT}", "{Rows: 512}", True),
        ("{Modality: CT}", "{Modality: MR}", False),
        ("{Modality: {one_of: [CT, MR]}}", "{Modality: {one_of: [MR, PT]}}", True),
        ("{SliceThickness: {at_most: 1}}", "{SliceThickness: {at_least: 2}}", False),
        ("{SliceThickness: {at_most: 2}}", "{SliceThickness: {at_least: 2}}", True),
    ],
)
def test_two_rules_that_send_the_same_objects_to_one_place(
    first: str, second: str, overlapping: bool
) -> None:
    """The later one is told with the earlier one's name, unless no series can match both."""
    told = [w for w in both(first, second) if "each object goes there once" in w]
    assert bool(told) is overlapping
    if overlapping:
        assert told[0].startswith("a.yaml:7:1: rule two sends received objects to PACS, and so does one")
    (one, two) = read(document(first, name="one") + "---\n" + document(second, name="two")).rules
    assert apart(lines_together(one), lines_together(two)) is not overlapping


def test_rules_of_a_group_that_take_turns_do_not_overlap() -> None:
    """`unless` and `fallback` say which one applies."""
    sends = "send: [{what: received, to: PACS, mode: sealed}]\ngroup: g"
    for turn in ("unless: [one]", "fallback: yes"):
        text = document("{Modality: CT}", sends, "one") + "---\n" + document("{}", f"{sends}\n{turn}", "two")
        assert not any("goes there once" in told for told in read(text).warnings)


def test_many_overlaps_are_one_sentence_per_rule() -> None:
    """Three names and a number, not a line per pair."""
    text = "---\n".join(document("{}", name=f"r{n}") for n in range(10))
    told = [w for w in read(text).warnings if "goes there once" in w]
    assert len(told) == 9
    assert "r0, r1, r2 and 6 more" in told[-1]


def test_two_rules_that_make_the_same_result() -> None:
    """The same `use`, `do` and texts make the same objects, wherever they go."""
    make = "do: [{segment_body: {}, as: body}]\nsend: [{what: body, to: %s}]"
    same = (
        document("{Modality: CT}", make % "PACS", "one") + "---\n" + document("{}", make % "RESEARCH", "two")
    )
    assert any("rule two makes what one makes" in told for told in read(same).warnings)
    other = same.replace(
        "segment_body: {}, as: body}]\nsend: [{what: body, to: RES",
        "segment_body: {above: 1}, as: body}]\nsend: [{what: body, to: RES",
    )
    assert not any("makes what" in told for told in read(other).warnings)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("{SeriesDescription: {matches: LOCALIZER}}", "for a part of it write *localizer*"),
        ("{SeriesDescription: CHEST*}", "* and ? are plain characters under a value alone"),
        (
            "{BodyPartExamined: {one_of: [CHEST*, HEAD]}}",
            "plain characters under one_of; for a pattern write matches",
        ),
        ("{SliceThickness: {matches: 1*}}", "looks at its spelling"),
        ("{StudyDate: {matches: 2024*}}", "StudyDate is a date"),
        ("{Modality: MRI}", "did you mean MR?"),
        ("{Modality: {one_of: [CT, PET]}}", "did you mean PT?"),
        ("{none_of: [{Modality: SEGM}]}", "did you mean SEG?"),
    ],
)
def test_comparisons_hardly_meant(when: str, words: str) -> None:
    """They are right, and warned of with their place."""
    warnings = read(document(when)).warnings
    assert any(words in told and told.startswith("a.yaml:4:") for told in warnings), warnings


def test_results_that_nobody_sees() -> None:
    """A destination that shows none of a result's forms is named, on the line that sends it there."""
    make = "do: [{segment_body: {}, as: body}]\nsend: [{what: body, to: PACS}]"
    shows = {"PACS": ["image", "picture", "report"]}
    told = check({"a.yaml": document("{}", make)}, SPECS, PEERS, shows).warnings
    assert any(w.startswith("a.yaml:6:8: PACS shows no segmentation") for w in told), told
    for text, show in (
        (document("{}", make), {"PACS": ["segmentation"]}),
        (document("{}", make.replace("to: PACS", "to: PACS, as: [segmentation, picture]")), shows),
        (document("{}", make), {"RESEARCH": []}),
        (document("{}"), {"PACS": []}),
    ):
        assert not any("shows no" in w for w in check({"a.yaml": text}, SPECS, PEERS, show).warnings)
