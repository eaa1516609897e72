"""`deidentify:` in rules and in the site file: every mistake by line, with the right word, before anything is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node import settings
from node.app import destinations
from node.errors import Misconfigured
from node.model import OperatorSpec
from node.process import registry
from node.route.rules import RuleSet, parse_rules
from node.settings.deidentify import Deidentify

SPECS: dict[str, OperatorSpec] = registry.specs()
SITE = """
node: {ae_titles: [N], listen: "127.0.0.1:104", timezone: UTC, data: d, rules: r}
peers:
  PACS: {ae_title: P, address: "h:1"}
  RESEARCH: {ae_title: R, address: "h:2", only: deidentified}
"""
PROFILES = """
deidentify:
  prefix: STUDY7-
  shift_dates: {at_least: 1 d, at_most: 2 w}
  words: [buik]
  profiles: {trial: {profile: basic, retain: [device], clean: [descriptors]}}
  devices:
    - when: {Manufacturer: AC*, SOPClass: UltrasoundImageStorage, Rows: 768}
      black: [{left: 0, top: 1, width: 2, height: 3}]
    - {when: {Modality: XA}, clean: yes}
"""


def site(text: str = "") -> settings.Settings:
    """The settings of a site."""
    return settings.parse(SITE + text, "site.yaml", {})


def rules(entry: str, text: str = PROFILES) -> RuleSet:
    """A rule with one entry."""
    document = f"rule: r\npurpose: p\nowner: o@x.example\nwhen: {{}}\nsend:\n  - {entry}\n"
    return parse_rules({"a.yaml": document}, SPECS, destinations(site(text)))


def asked(entry: str) -> dict[str, Any]:
    """The treatment of what goes by it."""
    return json.loads(rules(entry).rules[0].sends[0].treatment)["deidentify"]


def told(entry: str) -> str:
    """The one mistake in it."""
    with pytest.raises(Misconfigured) as caught:
        rules(entry)
    (sentence,) = caught.value.mistakes
    return sentence


def test_a_profile_is_the_same_however_it_is_written() -> None:
    """By name, as a mapping, in any order, on top of one of the site's: one normalised meaning."""
    to = "what: received, to: RESEARCH"
    assert asked(f"{{{to}, deidentify: basic}}") == {"profile": "basic", "retain": [], "clean": []}
    assert asked(f"{{{to}, deidentify: trial}}") == {
        "profile": "basic",
        "retain": ["device"],
        "clean": ["descriptors"],
    }
    assert asked(f"{{{to}, deidentify: {{profile: trial, retain: [uids]}}}}") == {
        "profile": "basic", "retain": ["device", "uids"], "clean": ["descriptors"]}  # fmt: skip
    one, two = (
        asked(f"{{{to}, deidentify: {{profile: basic, retain: {order}}}}}")
        for order in ("[uids, dates]", "[dates, uids]")
    )
    assert one == two


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("basik", "there is no profile basik; did you mean basic?"),
        ("{profile: tryal}", "did you mean trial?"),
        ("{retain: [uids]}", "profile is missing"),
        ("{profile: basic, retane: [uids]}", "did you mean retain?"),
        ("{profile: basic, retain: [uid]}", "did you mean uids?"),
        ("{profile: basic, retain: [descriptors]}", "descriptors stands under clean:"),
        ("{profile: basic, clean: [device]}", "device stands under retain:"),
        ("{profile: basic, clean: [pixels]}", "there is no pixels"),
        (
            "{profile: basic, clean: [recognizable_visual_features]}",
            "is not offered: nothing here can tell that a face",
        ),
        ("{profile: basic, retain: [dates, shifted_dates]}", "take one of dates, shifted_dates"),
        ("{profile: basic, retain: [uids, uids]}", "named twice"),
    ],
)
def test_each_mistake_in_a_rule_has_its_line_and_the_right_word(value: str, words: str) -> None:
    """A wrong profile or option is refused when the rules are read."""
    sentence = told(f"{{what: received, to: RESEARCH, deidentify: {value}}}")
    assert sentence.startswith("a.yaml:6:") and words in sentence


def test_beside_send_it_is_refused_in_words() -> None:
    """Who gets what without identity is said per destination."""
    document = (
        "rule: r\npurpose: p\nowner: o\nwhen: {}\ndeidentify: basic\nsend: [{what: received, to: PACS}]\n"
    )
    with pytest.raises(Misconfigured, match=r"a\.yaml:5:.*put it into send:"):
        parse_rules({"a.yaml": document}, SPECS, destinations(site()))


def test_check_says_in_advance_what_queueing_will_refuse() -> None:
    """An entry without deidentify to a peer `only: deidentified` gets a warning with its line; one with it none."""
    (warning,) = [w for w in rules("{what: received, to: [PACS, RESEARCH]}").warnings if "RESEARCH" in w]
    assert warning.startswith("a.yaml:6:") and "add deidentify: basic" in warning
    assert not [
        w for w in rules("{what: received, to: RESEARCH, deidentify: basic}").warnings if "RESEARCH" in w
    ]


def test_the_site_file_is_read() -> None:
    """Prefix, shift, words, profiles and devices are values; without the key there are defaults."""
    found = site(PROFILES).deidentify
    assert (found.prefix, found.shift_days, found.words) == ("STUDY7-", (1, 14), ("buik",))
    assert found.devices[0].rectangles == ((0, 1, 2, 3),) and found.devices[0].when["Rows"] == "768"
    assert not found.devices[1].rectangles
    assert site().deidentify == Deidentify()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{prefx: A}", "did you mean prefix?"),
        ("{prefix: anön}", "a prefix holds"),
        ("{shift_dates: {at_least: 1 d}}", "at_most is missing"),
        ("{shift_dates: {at_least: 12 h, at_most: 3 d}}", "whole days"),
        ("{shift_dates: {at_least: 5 d, at_most: 3 d}}", "more than that"),
        ("{profiles: {basic: {profile: basic}}}", "the standard's own"),
        ("{profiles: {a: {profile: basic, retain: [dats]}}}", "did you mean dates?"),
        ("{profiles: {a: basic}}", "profile a is a mapping"),
        ("{devices: [{clean: yes}]}", "when is missing"),
        ("{devices: [{when: {Modality: XA}}]}", "either what is blacked out"),
        (
            "{devices: [{when: {Modality: XA}, clean: yes, black: [{left: 0, top: 0, width: 1, height: 1}]}]}",
            "either what",
        ),
        ("{devices: [{when: {Manufactuer: A}, clean: yes}]}", "did you mean Manufacturer?"),
        ("{devices: [{when: {}, clean: yes}]}", "expected a mapping such as"),
        ("{devices: [{when: {Modality: XA}, black: [{left: 0, top: 0, width: 0, height: 1}]}]}", "too small"),
    ],
)
def test_each_mistake_in_the_site_file_is_named(text: str, words: str) -> None:
    """Nothing about de-identification is taken silently."""
    with pytest.raises(Misconfigured) as caught:
        site(f"deidentify: {text}\n")
    assert any(
        words in sentence and sentence.startswith("site.yaml:6:") for sentence in caught.value.mistakes
    ), caught.value.mistakes
