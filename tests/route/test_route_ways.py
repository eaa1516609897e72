"""Where and when a rule sends: peers that share, windows, and what waits for a person, as rules spell it."""

from __future__ import annotations

import pytest
from route_cases import SPECS, document

from node.errors import Misconfigured
from node.route.rules import parse_rules
from node.route.sends import Send
from node.route.ways import Share

PEERS = {"PACS": True, "AI1": True, "AI2": True, "CT01": False}


def sends(rest: str) -> tuple[Send, ...]:
    """What a rule with these lines sends."""
    return parse_rules({"a.yaml": document(rest=rest)}, SPECS, PEERS).rules[0].sends


def test_peers_share_by_patient_unless_the_rule_says_study() -> None:
    """All of the peers are named; one gets it."""
    (one,) = sends("send: [{what: received, to: {share: [AI1, AI2]}}]")
    assert one.to == ("AI1", "AI2") and one.share == Share(("AI1", "AI2"), "patient")
    (two,) = sends("send: [{what: received, to: {share: [AI2, AI1], by: study}}]")
    assert two.share == Share(("AI2", "AI1"), "study")


def test_the_order_in_which_peers_are_named_means_nothing() -> None:
    """Whoever sorts the list in the rule moves no patient."""
    for n in range(50):
        assert Share(("AI1", "AI2"), "patient").ranked(f"P{n}") == Share(("AI2", "AI1"), "patient").ranked(
            f"P{n}"
        )


def test_windows_are_kept_as_one_text() -> None:
    """An entry's own window takes the place of the rule's."""
    one, two = sends(
        "window: mon-fri 19:00-6:00\n"
        "send: [{what: received, to: PACS}, {what: received, to: AI1, window: [sat 00:00-24:00, 1:00-2:00]}]"
    )
    assert (one.window, two.window) == ("mon-fri 19:00-06:00", "sat 00:00-24:00, 01:00-02:00")


def test_an_entry_may_wait_for_a_person() -> None:
    """`hold: yes` is one entry's: another of the same rule goes at once."""
    one, two = sends("send: [{what: received, to: PACS, hold: yes}, {what: received, to: AI1}]")
    assert (one.hold, two.hold) == (True, False)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("send: [{what: received, to: {share: [AI1]}}]", "AI1 alone shares with nobody; say to: AI1"),
        ("send: [{what: received, to: {share: [AI1, AI3]}}]", "there is no peer AI3 in the site file; did you mean"),
        ("send: [{what: received, to: {share: [AI1, CT01]}}]", "CT01 cannot receive"),
        ("send: [{what: received, to: {share: [AI1, AI1]}}]", "AI1 is named twice"),
        ("send: [{what: received, to: {share: [AI1, AI2], by: weather}}]", "weather is not one of patient, study"),
        ("send: [{what: received, to: {by: patient}}]", "share is missing"),
        ("send: [{what: received, to: {split: [AI1, AI2]}}]", "unknown key split"),
        ("send: [{what: received, to: PACS, window: night}]", "expected a window such as 19:00-06:00"),
        ("send: [{what: received, to: PACS, window: []}]", "window is empty"),
        ("send: [{what: received, to: PACS, hold: perhaps}]", "expected yes or no"),
        ("send: [{what: received, to: PACS}]\nhold: yes", "hold stands in an entry under send:"),
        ("discard: yes\nwindow: 19:00-06:00", "window says when it is sent; add send:"),
        ("discard: yes\nedit: [{remove: [StudyID]}]", "edit changes what is sent; add send:"),
        ("send: [{what: received, to: [PACS, AI1]}, {what: received, to: {share: [AI1, AI2]}}]",
         "received is already sent to AI1 above"),
    ],
)  # fmt: skip
def test_a_mistake_says_what_is_right(rest: str, words: str) -> None:
    """Each is one sentence with its place."""
    with pytest.raises(Misconfigured) as refused:
        sends(rest)
    assert any(words in told for told in refused.value.mistakes), refused.value.mistakes
