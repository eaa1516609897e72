"""Split series and results that may go as pictures: what a rule may say, and what it means."""

from __future__ import annotations

import pytest
from route_cases import PEERS, document, rule

from node.errors import Misconfigured
from node.route.rules import parse_rules

DO = "do:\n  - reformat: {thickness: 5 mm}\n    as: thick\n"
SEND = "send: [{what: thick, to: PACS}]\n"
PARTS = "split: [b_value, EchoTime]\n"


def mistakes(rest: str) -> tuple[str, ...]:
    """What is wrong with a rule that ends so."""
    with pytest.raises(Misconfigured) as refused:
        rule("{Modality: CT}", rest)
    return refused.value.mistakes


def test_a_split_says_what_becomes_of_its_parts() -> None:
    """Parts are run one by one unless the rule says otherwise; without a split nothing is divided."""
    assert rule("{Modality: CT}", PARTS + DO + SEND).split.each_part == "run"
    largest = rule("{Modality: CT}", PARTS + "each_part: largest\n" + DO + SEND)
    plan = largest.plan()
    assert plan is not None
    assert (plan.split, plan.each_part) == (("b_value", "EchoTime"), "largest")
    undivided = rule("{Modality: CT}", DO + SEND).plan()
    assert undivided is not None
    assert (undivided.split, undivided.each_part) == ((), "refuse")


def test_the_split_counts_for_identity_and_its_absence_does_not() -> None:
    """Other parts are other results; a rule without split means what it meant before there were splits."""
    meanings = [
        rule("{Modality: CT}", rest + DO + SEND).meaning
        for rest in ("", PARTS, "split: [EchoTime, b_value]\n", PARTS + "each_part: largest\n")
    ]
    assert len(set(meanings)) == 4


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("split: [slices]\n" + DO + SEND, "slices is the same for every image"),
        ("split: [EchoTim]\n" + DO + SEND, "did you mean EchoTime?"),
        ("split: [RadiopharmaceuticalInformationSequence]\n" + DO + SEND, "cannot tell images apart"),
        ("split: [EchoTime, EchoTime]\n" + DO + SEND, "named twice"),
        ("split: []\n" + DO + SEND, "split holds a list"),
        (PARTS + "each_part: all\n" + DO + SEND, "all is not one of run, largest, refuse, together"),
        ("each_part: run\n" + DO + SEND, "add split:"),
        (PARTS + "send: [{what: received, to: PACS, mode: sealed}]\n", "add do:"),
    ],
)
def test_a_wrong_split_is_named(rest: str, words: str) -> None:
    """Each mistake in split and each_part is a sentence that says what to write."""
    assert any(words in told for told in mistakes(rest)), mistakes(rest)


def test_parts_that_come_together_have_names() -> None:
    """With each_part: together a step may take part_2; without it the sentence says what is missing."""
    steps = "do:\n  - reformat: {volume: part_2, thickness: 5 mm}\n    as: thick\n"
    found = rule("{Modality: CT}", PARTS + "each_part: together\n" + steps + SEND)
    assert found.steps[0].inputs == {"volume": "part_2"}
    other = rule("{Modality: CT}", PARTS + "each_part: together\n" + steps.replace("part_2", "part_1") + SEND)
    assert found.meaning != other.meaning
    (told,) = mistakes(steps + SEND)
    assert "each_part: together" in told


def test_a_result_may_go_as_a_picture() -> None:
    """`as: [report, picture]` asks for both forms; the picture counts for identity, where it goes does not."""
    numbers = "do:\n  - segment_body\n  - statistics: {mask: segment_body}\n    as: numbers\n"
    plain = rule("{Modality: CT}", numbers + "send: [{what: numbers, to: PACS}]")
    both = rule("{Modality: CT}", numbers + "send: [{what: numbers, to: PACS, as: [report, picture]}]")
    assert both.sends[0].forms == ("report", "picture")
    assert [plain.outputs()[0].picture, both.outputs()[0].picture] == [False, True]
    assert plain.meaning != both.meaning


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("[report]", "thick can go as image or picture, not as report"),
        ("[image, image]", "named twice"),
        ("[pictur]", "did you mean picture?"),
    ],
)
def test_a_form_that_the_result_cannot_have_is_named(form: str, words: str) -> None:
    """A volume is no report; the sentence says what it can be."""
    told = mistakes(DO + f"send: [{{what: thick, to: PACS, as: {form}}}]")
    assert any(words in sentence for sentence in told), told


def test_a_result_goes_to_one_peer_once_in_each_form() -> None:
    """As what it is and as a picture in two entries; the same form twice is a mistake, however it is spelled."""
    sends = "send: [{{what: thick, to: PACS}}, {{what: thick, to: PACS, as: {form}}}]"
    both = rule("{Modality: CT}", DO + sends.format(form="picture"))
    assert [send.forms for send in both.sends] == [(), ("picture",)]
    assert [(output.name, output.picture) for output in both.outputs()] == [("thick", True)]
    for form in ("image", "[picture, image]"):
        told = mistakes(DO + sends.format(form=form))
        assert any("thick is already sent to PACS above" in sentence for sentence in told), told


def test_received_objects_have_no_other_form() -> None:
    """`as:` on what: received is refused: received objects go as they came."""
    with pytest.raises(Misconfigured, match="as: is for results"):
        parse_rules({"a.yaml": document(rest="send: [{what: received, to: PACS, as: picture}]")}, {}, PEERS)
