"""Rule files: every mistake at once, what is not there yet by name, plans and meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
from route_cases import PEERS, SPECS, document, read, rule

from node.errors import Misconfigured
from node.route.rules import parse_rules, read_folder, scan_folder

SEND = "send: [{what: received, to: PACS, mode: sealed}]"

TEN_MISTAKES = """\
rule: ten-mistakes
purpos: A misspelt key.
owner: radiology-it@hospital.example
when:
  Modalty: CT
  ImageType: {contains: ORIGINAL}
  SliceThickness: {at_most: 3 s}
do:
  - reformat: {thickness: 5 kg, combine: median}
    as: thick
  - statistics: {mask: thick}
    as: numbers
  - segment_lungs: {}
    as: lungs
send:
  - {what: thik, to: PACS}
  - {what: thick, to: PASC}
on_failure: {retry: often, then: quarantine}
"""


def mistakes_of(text: str, **files: str) -> tuple[str, ...]:
    """Every mistake in these files."""
    with pytest.raises(Misconfigured) as refused:
        read(text, **files)
    return refused.value.mistakes


def test_ten_mistakes_are_all_reported_with_file_and_line() -> None:
    """One reading of a bad file names each of its mistakes, where it is, and the right word."""
    with pytest.raises(Misconfigured) as refused:
        parse_rules({"rules/ten.yaml": TEN_MISTAKES}, SPECS, PEERS)
    told = refused.value.mistakes
    expected = [
        (1, "purpose is missing"),
        (2, "unknown key purpos; did you mean purpose?"),
        (5, "Modalty is not a DICOM keyword; did you mean Modality?"),
        (6, "has_all"),
        (7, "s does not fit SliceThickness, which is in mm"),
        (9, "kg does not fit thickness, which is in mm"),
        (9, "median is not one of mean, max, min"),
        (11, "mask must be a Mask, but thick is a Volume"),
        (13, "there is no operator segment_lungs"),
        (16, "nothing under do: is called thik by its as: name; did you mean thick?"),
        (17, "there is no peer PASC in the site file; did you mean PACS?"),
        (18, "expected a whole number, found 'often'"),
    ]
    assert len(told) == len(expected), told
    for sentence, (line, words) in zip(told, expected, strict=True):
        assert sentence.startswith(f"rules/ten.yaml:{line}:"), sentence
        assert words in sentence


def test_mistakes_of_all_files_come_together() -> None:
    """A file that is no YAML and one with a wrong rule are both named."""
    told = mistakes_of("rule: [", b=document("{Modalty: CT}"))
    assert [sentence.split(":")[0] for sentence in told] == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "add send:"),
        ("discard: yes\n" + SEND, "make two rules"),
        ("do: [segment_body: {}]", "nothing of do: is sent"),
        ("do: [segment_body: {}]\n" + SEND, "nothing would come of it"),
        ("send: [{what: received, to: CT01}]", "no address"),
        ("send: [{what: received, to: [PACS, PACS]}]", "named twice"),
        ("send: [{what: received, to: PACS}, {what: received, to: PACS}]", "already sent to PACS"),
        ("send: [{what: received, to: PACS, SeriesDescription: x}]", "edit:"),
        ("send: [{what: received, to: PACS, mode: later}]", "immediate, sealed"),
        ("send: [{what: received}]", "to is missing"),
        (
            "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, mode: immediate}]",
            "after processing",
        ),
        ("do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, SeriesTime: '1'}]", "cannot be set"),
        (
            "do: [segment_body: {}]\n"
            "send: [{what: segment_body, to: PACS, SeriesDescription: '{SeriesDescripton}'}]",
            "did you mean SeriesDescription?",
        ),
        (
            "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, SeriesDescription: '{Modality'}]",
            "braces come in pairs",
        ),
        (
            "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, SeriesDescription: a},"
            " {what: segment_body, to: RESEARCH, SeriesDescription: b}]",
            "two different SeriesDescription",
        ),
        (
            "do: [segment_threshold: {}]\nsend: [{what: segment_threshold, to: PACS}]",
            "needs the option at_least",
        ),
        ("do: [segment_body: {abov: 1}]\nsend: [{what: segment_body, to: PACS}]", "did you mean above?"),
        ("do: [segment_body: {above: -300 HU}]\nsend: [{what: segment_body, to: PACS}]", "without HU"),
        ("do: [statistics: {}]\nsend: [{what: statistics, to: PACS}]", "needs mask, a Mask"),
        (
            "do: [statistics: {mask: received}]\nsend: [{what: statistics, to: PACS}]",
            "received is the series itself",
        ),
        (
            "do: [statistics: {mask: body}]\nsend: [{what: statistics, to: PACS}]",
            "no earlier step is called body",
        ),
        ("do: [{segment_body: {}, statistics: {}}]\nsend: [{what: x, to: PACS}]", "a step has one operator"),
        (
            "do:\n- segment_body: {}\n- segment_body: {}\nsend: [{what: segment_body, to: PACS}]",
            "already called segment_body",
        ),
        (
            "do: [{segment_body: {}, as: received}]\nsend: [{what: received, to: PACS, mode: sealed}]",
            "not a free name",
        ),
        (
            "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, SeriesNumber: '7'}]",
            "cannot be set",
        ),
        (
            "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS, SeriesDescription: '{slices}'}]",
            "no DICOM keyword with a value",
        ),
        ("fallback: yes\n" + SEND, "add group:"),
        ("group: g\nunless: [nobody]\n" + SEND, "no rule of group g"),
        ("use: {slices: 3}\n" + SEND, "use picks single images"),
        ("mode: trial\n" + SEND, "shadow"),
        ("incomplete: yes\n" + SEND, "one of ok"),
        ("on_failure: {retry: 1000}\n" + SEND, "too often"),
        ("Modality: CT\n" + SEND, "stands under when:"),
        ("from: CT01\n" + SEND, "stands under when:"),
        (SEND + "\ntry: [{given: {Modalty: CT}, expect: {runs: yes}}]", "did you mean Modality?"),
        (SEND + "\ntry: [{given: {}, expect: {runs: yes, because: Modality}}]", "why a rule does not run"),
    ],
)
def test_nonsense_is_refused(rest: str, words: str) -> None:
    """A rule that cannot do what it says is refused, in words."""
    told = mistakes_of(document(rest=rest))
    assert any(words in sentence for sentence in told), told


@pytest.mark.parametrize(
    "clause", ["slices: 80", "instances: 3", "frames: 3", "ImageType: {some: {has_any: X}}"]
)
def test_immediate_rule_cannot_ask_for_the_whole(clause: str) -> None:
    """A rule that sends at once and asks for a fact of the whole series is refused; the clause is named."""
    (told,) = mistakes_of(document(f"{{{clause}}}", "send: [{what: received, to: PACS}]"))
    assert clause in told
    assert "add mode: sealed" in told
    assert rule(f"{{{clause}}}").sends[0].immediate is False


def test_immediate_fallback_needs_a_group_that_answers_at_once() -> None:
    """A fallback that sends at once cannot wait for a rule that counts slices."""
    told = mistakes_of(
        document("{}", "group: g\nfallback: yes\nsend: [{what: received, to: PACS}]", "f"),
        b=document("{slices: 3}", "group: g\n" + SEND, "counts"),
    )
    assert any("fallback waits for" in sentence and "slices" in sentence for sentence in told)


def test_names_count_once_and_unless_has_no_circle() -> None:
    """Two rules of one name, and two that exclude each other in a circle, are refused."""
    assert "already a rule r at a.yaml:1:1" in mistakes_of(document(), b=document())[0]
    told = mistakes_of(
        document(rest="group: g\nunless: [b]\n" + SEND, name="a"),
        b=document(rest="group: g\nunless: [a]\n" + SEND, name="b"),
    )
    assert all("circle" in sentence for sentence in told)


CHAIN = """\
do:
  - segment_body: {}
    as: body
  - acme.emphysema_index: {mask: body, below: -910 HU, strict: yes, count: 3}
    as: index
send:
  - {what: index, to: [PACS, RESEARCH], SeriesDescription: "{SeriesDescription} EI"}
"""


def test_plan() -> None:
    """A plan has typed options, inputs by name, and only the outputs that some send names."""
    plan = rule("{}", CHAIN).plan()
    assert plan is not None
    assert plan.steps[0].inputs == {"volume": "received"}
    assert plan.steps[1].inputs == {"volume": "received", "mask": "body"}
    assert plan.steps[1].options == {"below": -910.0, "strict": True, "count": 3}
    assert [(o.name, o.index, dict(o.attributes)) for o in plan.outputs] == [
        ("index", 1, {"SeriesDescription": "{SeriesDescription} EI"})
    ]
    assert rule().plan() is None


def test_meaning_counts_only_what_changes_the_objects() -> None:
    """Units, order, spelling, destinations and purpose leave the meaning; options and templates change it."""
    base = "use: {SliceThickness: {at_most: 1.5 mm}, ImageType: {has_all: [A, B]}}\n" + CHAIN
    meaning = rule("{}", base).meaning
    assert len(meaning) == 64
    same = [
        base.replace("1.5 mm", "0.15 cm"),
        base.replace("[A, B]", "[b, A]"),
        base.replace("[PACS, RESEARCH]", "PACS"),
        base.replace(": body", ": outline"),
        base.replace("-910 HU", "-910.0"),
        base + "on_failure: {retry: 7}\n",
    ]
    assert {rule("{}", text).meaning for text in same} == {meaning}
    assert rule("{Modality: CT}", base).meaning == meaning
    other = [
        base.replace("1.5 mm", "1.6 mm"),
        base.replace("-910", "-950"),
        base.replace(" EI", " emphysema"),
        base.replace("as: index", "as: score").replace("what: index", "what: score"),
    ]
    found = {rule("{}", text).meaning for text in other}
    assert len(found) == len(other)
    assert meaning not in found


def test_given_default_means_the_same_as_none() -> None:
    """Writing an option's default does not change the meaning, and so not the UIDs."""
    text = "do: [{{reformat: {{thickness: 5 mm{}}}, as: t}}]\nsend: [{{what: t, to: PACS}}]"
    assert rule("{}", text.format("")).meaning == rule("{}", text.format(", combine: mean")).meaning


def test_several_rules_in_one_file() -> None:
    """YAML documents in one file are rules of their own, with their own lines."""
    found = read(document(name="one") + "---\n" + document(name="two"))
    assert [(r.name, r.place.line) for r in found.rules] == [("one", 1), ("two", 7)]
    assert found.digest == read(document(name="one") + "---\n" + document(name="two")).digest


def test_folder(tmp_path: object) -> None:
    """Only *.yaml and *.yml are read; a folder that is not there is a mistake with words."""
    folder = tmp_path / "rules"  # type: ignore[operator]
    with pytest.raises(Misconfigured, match="no such folder"):
        read_folder(folder)
    folder.mkdir()
    for name in ("b.yml", "a.yaml", "c.txt", ".d.yaml"):
        (folder / name).write_text(name)
    assert read_folder(folder) == {"rules/a.yaml": "a.yaml", "rules/b.yml": "b.yml"}


def test_a_file_that_is_no_text_does_not_hide_the_others(tmp_path: Path) -> None:
    """The readable files come with a sentence for each other one; whoever wants all of them is refused."""
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / "b.yaml").write_bytes(b"rule: K\xd6LN")
    (tmp_path / "c.yaml").mkdir()
    texts, mistakes = scan_folder(tmp_path)
    assert texts == {f"{tmp_path.name}/a.yaml": "a"}
    assert mistakes == (
        f"{tmp_path / 'b.yaml'}:1:8: not UTF-8 text; save the file as UTF-8",
        f"{tmp_path / 'c.yaml'}: cannot be read: Is a directory",
    )
    with pytest.raises(Misconfigured) as caught:
        read_folder(tmp_path)
    assert caught.value.mistakes == mistakes


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("{SeriesDescription: {not: SCOUT}}", "SeriesDescription may be missing"),
        ("{none_of: [{ProtocolName: SCOUT}]}", "none_of lets it pass"),
        ("{ImageType: {excludes: LOCALIZER}}", "ImageType may be missing"),
        ("{from: CT03}", "did you mean CT02?"),
        ("{EchoTime: 30, SeriesDescription: x, OperatorsName: DOE}", "OperatorsName may hold several values"),
        (
            "{'RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose': {at_least: 1 MBq}}",
            "in MBq for NM",
        ),
        ("{Modality: CT}", "has no try: cases"),
    ],
)
def test_cautions(when: str, words: str) -> None:
    """What is right but may surprise is warned of, with file and line."""
    warnings = read(document(when)).warnings
    assert any(words in warning and warning.startswith("a.yaml:") for warning in warnings), warnings


def test_no_caution_where_the_tag_is_always_there() -> None:
    """CT images always have Image Type, so excluding by it is no surprise."""
    text = document("{Modality: CT, ImageType: {excludes: LOCALIZER}}")
    assert not any("ImageType" in warning for warning in read(text).warnings)
