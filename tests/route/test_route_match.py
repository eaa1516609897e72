"""Matching: use, facts about the whole, groups, incompleteness, own outputs, immediate rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from route_cases import NOW, document, images, read, rule, verdict

from node.route.explain import as_json, lines
from node.route.match import judge, judge_immediate
from node.route.rules import parse_when
from node.route.weighing import holds
from node.shape import Shaper, parse

AXIAL = ("1", "0", "0", "0", "1", "0")
DO = "do: [segment_body: {}]\nsend: [{what: segment_body, to: PACS}]"


def stack(places: int, step: float = 2.0, sideways: float = 0.0) -> list[dict[str, object]]:
    """Axial slices along z, each shifted sideways along y."""
    return [
        {
            "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
            "ImageOrientationPatient": AXIAL,
            "ImagePositionPatient": ("0", str(i * sideways), str(i * step)),
            "frames": "1",
        }
        for i in range(places)
    ]


def test_use_narrows_before_anything_is_judged() -> None:
    """Scouts that `use` leaves out count neither in a clause nor in `slices`, and are named."""
    scouts = [{"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER"), "SliceThickness": 600}] * 2
    facts = images(*scouts, *[{**one, "SliceThickness": 1} for one in stack(5)])
    ours = rule(
        "{slices: 5, instances: 5, SliceThickness: {at_most: 2}}",
        "use: {ImageType: {excludes: LOCALIZER}}\nsend: [{what: received, to: PACS, mode: sealed}]",
    )
    found = judge([ours], facts, NOW)[0]
    assert found.runs
    assert found.used == (2, 3, 4, 5, 6)
    assert "5 of 7 images, 2 left out" in found.clauses[0].reason


def test_use_that_leaves_nothing_is_a_no() -> None:
    """Without an image left the rule does not run, and says which condition took them."""
    ours = rule("{}", "use: {ImageType: {excludes: AXIAL}}\nsend: [{what: received, to: PACS, mode: sealed}]")
    found = judge([ours], images(*stack(3)), NOW)[0]
    assert (found.outcome, found.used, found.decided_by) == ("no", (), "use")
    assert "none of 3 images" in found.because


def test_use_on_frames_that_differ_is_undecided() -> None:
    """One object whose frames partly fit `use` cannot be cut, so the rule is undecided."""
    ours = rule("{}", "use: {SliceThickness: {at_most: 2}}\nsend: [{what: received, to: PACS, mode: sealed}]")
    found = judge([ours], images({"SliceThickness": ["1", "5"]}), NOW)[0]
    assert (found.outcome, found.runs) == ("undecided", False)


@pytest.mark.parametrize(
    ("when", "facts", "outcome"),
    [
        ("{slices: 4}", images(*stack(4)), "yes"),
        ("{slices: 4}", images(*stack(4), *stack(4)), "yes"),
        ("{slices: {at_least: 1}}", images({"Rows": 1}), "no"),
        ("{has_tilt: no}", images(*stack(4)), "yes"),
        ("{has_tilt: yes}", images(*stack(4, sideways=0.6)), "yes"),
        ("{has_tilt: yes}", images(*stack(4, sideways=0.4)), "no"),
        ("{has_tilt: true}", images({"GantryDetectorTilt": "-12.5"}), "yes"),
        ("{has_tilt: no}", images({"Rows": 1}), "no"),
        ("{frames: 30}", images({"frames": "10"}, {"frames": "20"}), "yes"),
        ("{instances: {between: [2, 3]}}", images({"Rows": 1}, {"Rows": 1}), "yes"),
        ("{weekday: tuesday}", images({"Rows": 1}), "yes"),
        ("{local_time: {between: ['22:00', '06:00']}}", images({"Rows": 1}), "yes"),
        ("{local_time: {at_least: '08:00'}}", images({"Rows": 1}), "no"),
        ("{revision: {at_least: 2}}", images({"Rows": 1}), "no"),
        ("{}", images(), "no"),
    ],
)
def test_facts_about_the_whole(when: str, facts: object, outcome: str) -> None:
    """Counts, places, tilt and the clock are worked out over the used images."""
    assert verdict(when, facts).outcome == outcome  # type: ignore[arg-type]


def test_absurd_coordinates_do_not_raise() -> None:
    """Positions near the end of the number range leave `slices` unknown instead of raising."""
    far = [
        {**one, "ImagePositionPatient": (f"{i}e300", "-1e300", f"{i}e200")} for i, one in enumerate(stack(3))
    ]
    assert verdict("{slices: {at_least: 1}}", images(*far)).outcome in ("yes", "no")


GROUP = "group: g\n"


def group_of(*rules: tuple[str, str, str]) -> dict[str, bool]:
    """Which rules run over one CT image; each is (name, when, keys)."""
    text = "---\n".join(
        document(when, f"group: g\n{keys}\nsend: [{{what: received, to: PACS, mode: sealed}}]", name)
        for name, when, keys in rules
    )
    found = judge(read(text).rules, images({"Modality": "CT"}), NOW)
    return {j.rule.name: j.runs for j in found}


def test_fallback_yields_to_any_match_of_its_group() -> None:
    """A fallback runs only when no other rule of its group does, wherever it stands in the file."""
    assert group_of(("f", "{}", "fallback: true"), ("a", "{Modality: CT}", "")) == {"f": False, "a": True}
    assert group_of(("f", "{}", "fallback: true"), ("a", "{Modality: MR}", "")) == {"f": True, "a": False}


def test_unless_follows_what_really_runs() -> None:
    """A rule stopped by its own `unless` stops nobody else."""
    chain = (("a", "{}", "unless: [b]"), ("b", "{}", "unless: [c]"), ("c", "{}", ""))
    assert group_of(*chain) == {"a": True, "b": False, "c": True}


def test_a_rule_on_trial_stops_nobody() -> None:
    """`mode: shadow` neither suppresses a fallback nor an `unless`."""
    found = group_of(("s", "{}", "mode: shadow"), ("f", "{}", "fallback: yes"), ("u", "{}", "unless: [s]"))
    assert found == {"s": True, "f": False, "u": True}


def test_incomplete_series_are_routed_but_not_processed() -> None:
    """Gaps stop `do` unless the rule says `incomplete: ok`; received objects go regardless."""
    facts, gap = images({"Modality": "CT"}), replace(NOW, incomplete="12 of 40 slices are missing")
    process, route = rule("{}", DO), rule("{}")
    tolerant = rule("{}", "incomplete: ok\n" + DO)
    both = rule("{}", DO.replace("PACS}", "PACS}, {what: received, to: RESEARCH, mode: sealed}"))
    found = judge([process], facts, gap)[0]
    assert (found.runs, found.decided_by) == (False, "incomplete")
    assert "12 of 40" in found.because
    assert judge([route], facts, gap)[0].runs
    assert judge([tolerant], facts, gap)[0].runs
    kept = judge([both], facts, gap)[0]
    assert (kept.runs, kept.routes) == (False, True)


def test_own_outputs_are_routed_but_not_processed() -> None:
    """A series of ours never runs a rule with `do`, and the reason says whose it is."""
    facts, ours = images({"Modality": "CT"}), replace(NOW, ours="made by PACSNode")
    assert judge([rule("{}", DO)], facts, ours)[0].because.startswith("ours: made by PACSNode")
    assert judge([rule("{}")], facts, ours)[0].runs


def test_immediate_rules_judge_one_object() -> None:
    """Only rules that send at once answer for a single object, incomplete or ours or not."""
    at_once = rule("{Modality: CT}", "send: [{what: received, to: PACS}]", "now")
    later = rule("{Modality: CT}", name="later")
    context = replace(NOW, ours="ours", incomplete="gap")
    found = judge_immediate([at_once, later], images({"Modality": "CT"}), context)
    assert [(j.rule.name, j.runs, j.routes) for j in found] == [("now", True, True)]
    assert not judge_immediate([at_once], images({"Modality": "MR"}), context)[0].runs


def test_immediate_rule_on_trial_sends_nothing() -> None:
    """`mode: shadow` holds back objects that would go at once."""
    trial = rule("{}", "mode: shadow\nsend: [{what: received, to: PACS}]")
    assert not judge_immediate([trial], images({"Modality": "CT"}), NOW)[0].runs


def test_received_does_not_go_back() -> None:
    """An object is not sent to the peer it came from, unless the rule says so."""
    there, back = read(
        document(rest="send: [{what: received, to: [PACS, RESEARCH]}]", name="a")
        + "---\n"
        + document(rest="send: [{what: received, to: PACS, back_to_sender: yes}]", name="b")
    ).rules
    assert there.sends[0].destinations("PACS") == ("RESEARCH",)
    assert back.sends[0].destinations("PACS") == ("PACS",)


def test_seal_line() -> None:
    """`parse_when` and `holds` serve the site file's seal lines as well."""
    shaper = Shaper()
    when = parse_when(parse("{Modality: {one_of: [US, XA]}}", "node.yaml")[0], shaper)
    assert shaper.mistakes == []
    assert holds(when, images({"Modality": "US"}), NOW)
    assert not holds(when, images({"Modality": "CT"}), NOW)
    assert not holds(when, images({"Modality": "US"}, {"Modality": "CT"}), NOW)


def test_explanation_shows_every_clause() -> None:
    """`explain` shows the rule, each clause with its mark and the value seen, and the same as JSON."""
    found = verdict(
        "{Modality: CT, SliceThickness: {at_most: 2 mm}, Rows: 512}",
        images({"Modality": "CT", "SliceThickness": 5}, {"Modality": "CT", "SliceThickness": 1}),
    )
    told = lines(found)
    assert told[0].startswith("✗ r (a.yaml:1): does not run (Rows: is absent")
    assert [line.split()[0] for line in told[1:]] == ["✓", "?", "✗"]
    assert "1 of 2 say 5" in told[2]
    assert as_json(found)["clauses"][1]["outcome"] == "undecided"
    assert found.clauses[0].line == 4


def test_because_names_what_the_rule_wants() -> None:
    """The reason holds the value seen and what the rule asks for."""
    found = verdict("{SliceThickness: {at_most: 1.5 mm}}", images({"SliceThickness": 5}))
    assert found.because == "SliceThickness: is 5; the rule asks for {at_most: 1.5 mm}"
