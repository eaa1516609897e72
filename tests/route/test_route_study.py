"""Claims about rules over a study: what they say, what they take, what they wait for, and why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_cases import NOW, PEERS, SPECS, images, read

from node.errors import Misconfigured
from node.facts import Facts
from node.route.check import check
from node.route.rule import Rule
from node.route.study import (
    Apart,
    Asked,
    Candidate,
    Combination,
    Moment,
    Over,
    Ready,
    StudyJudgement,
    Waiting,
    decide,
)
from node.route.study_explain import as_json, lines

FUSION = """
rule: fusion
purpose: PET over CT.
owner: o@h.example
scope: study
when: {}
inputs:
  ct:
    when: {Modality: CT, slices: {at_least: 2}}
    prefer: [{BodyPartExamined: CHEST}, {SliceThickness: smallest}]
  pet: {when: {Modality: PT}}
wait: {at_most: 30 min, then: skip}
do: [{fuse: {volume: ct, other: pet}, as: fused}]
send: [{what: fused, to: PACS}]
"""
OPTIONAL = (
    FUSION.replace(
        "{when: {Modality: PT}}", "{when: {Modality: PT}}\n  mr: {when: {Modality: MR}, optional: yes}"
    )
    .replace("as: fused}]", "as: fused}, {subtract: {volume: ct, other: mr}, as: rest}]")
    .replace("send: [", "send: [{what: rest, to: PACS}, ")
)


def rule(text: str = FUSION) -> Rule:
    """The rule in *text*."""
    return read(text).rules[0]


def changed(text: str, old: str, new: str) -> Rule:
    """The rule in *text* with one piece of it changed."""
    assert old in text
    return read(text.replace(old, new)).rules[0]


def series(key: int, modality: str = "CT", count: int = 3, **changes: object) -> Candidate:
    """A sealed series of the study, with parallel slices."""
    own = {k: v for k, v in changes.items() if k in Candidate.__dataclass_fields__}
    attributes = {k: v for k, v in changes.items() if k not in own}
    facts = images(*(
        {"Modality": modality, "SeriesNumber": key, "PatientID": "P1",
         "ImageOrientationPatient": (1, 0, 0, 0, 1, 0), "ImagePositionPatient": (0, 0, z), **attributes}
        for z in range(count)
    ))  # fmt: skip
    return replace(Candidate(key, f"series {key}", f"1.2.{key}", key, facts, patient=("P1", "")), **own)  # type: ignore[arg-type]


def judged(found: Rule, *candidates: Candidate, waited: float = 0, **priors: Asked) -> StudyJudgement:
    """What the rule says, so many minutes after its first input was there."""
    context = replace(NOW, now=NOW.now + timedelta(minutes=waited))
    return decide(found, candidates, Moment(context, NOW.now, priors))


def taken(found: StudyJudgement) -> list[dict[str, int]]:
    """Input → key of its series, of each run."""
    assert isinstance(found.verdict, Ready), found.because
    return [{name: key for name, key, _ in one.taken} for one in found.verdict.combinations]


def test_it_runs_as_soon_as_every_required_input_is_sealed() -> None:
    """Nothing is waited for where nothing known could change what the rule runs on."""
    found = judged(rule(), series(1), series(2, "PT"), series(3, "SR", 1))
    assert taken(found) == [{"ct": 1, "pet": 2}]
    assert "pet is series 2 (the only one that fits)" in found.because


def test_a_required_input_is_waited_for_until_the_wait_ends() -> None:
    """Before: waits, and says for what and until when. After: skipped, with the reason."""
    found = judged(rule(), series(1), waited=29)
    assert isinstance(found.verdict, Waiting)
    assert found.verdict.until == NOW.now + timedelta(minutes=30)
    assert found.because.startswith("waits for pet: the one series does not fit; series 1: Modality: is CT")
    late = judged(rule(), series(1), waited=30)
    assert late.verdict == Over("skipped")
    assert late.because.startswith("after 30 min of waiting, pet: ")
    assert late.decided_by == "pet"


def test_after_the_wait_a_person_may_look() -> None:
    """`then: quarantine` is another end of the same wait."""
    found = changed(FUSION, "then: skip", "then: quarantine")
    assert judged(found, series(1), waited=30).verdict == Over("quarantined")


def test_a_study_of_other_things_is_none_of_its_business() -> None:
    """Where no input is there the rule neither waits nor gives up."""
    found = judged(rule(), series(1, "MR"), series(2, "SR", 1))
    assert found.verdict == Apart()
    assert "no input is there" in found.because
    assert judged(rule()).verdict == Apart()


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"BodyPartExamined": "CHEST", "SliceThickness": 5}, {"SliceThickness": 1}, "{BodyPartExamined: CHEST} dec"),
        ({"SliceThickness": 1}, {"SliceThickness": 5}, "SliceThickness: smallest decides (1 against 5)"),
        ({"SliceThickness": 5}, {}, "SliceThickness: smallest decides (5 against absent)"),
        ({}, {}, "prefer says the same of them; the lower Series Number decides"),
    ],
)  # fmt: skip
def test_what_is_preferred(first: dict[str, object], second: dict[str, object], words: str) -> None:
    """Each preference in turn, then the Series Number; the reason says which one decided, whatever the order."""
    one, other = series(1, **first), series(2, **second)
    for pair in ((one, other), (other, one)):
        found = judged(rule(), *pair, series(9, "PT"))
        assert taken(found) == [{"ct": 1, "pet": 9}]
        assert f"of 2 that fit: {words}" in found.because


def test_the_largest_and_the_whole_series() -> None:
    """Facts about the series as a whole are preferences, too; without a number the UID decides."""
    most = changed(FUSION, "{SliceThickness: smallest}", "{slices: largest}")
    assert taken(judged(most, series(1, count=3), series(2, count=5), series(9, "PT"))) == [
        {"ct": 2, "pet": 9}
    ]
    twins = [replace(series(key), number=None, series_uid=uid) for key, uid in ((1, "1.9"), (2, "1.10"))]
    found = judged(rule(), *twins, series(9, "PT"))
    assert taken(found) == [{"ct": 2, "pet": 9}]
    assert "the Series Instance UID decides" in found.because


def test_one_that_is_arriving_is_waited_for_where_it_could_win() -> None:
    """What is preferred, or unknown yet, is waited for; what cannot win or fit is not."""
    best, pet = series(1, SliceThickness=3), series(9, "PT")
    waits = [
        series(2, SliceThickness=1, sealed=False),
        series(2, SliceThickness=3, BodyPartExamined="CHEST", sealed=False),
        series(2, sealed=False, facts=Facts(0)),  # nothing of it is known yet
        replace(series(2, SliceThickness=5, sealed=False), series_uid="1.2.1"),  # a revision of the best
        series(0, SliceThickness=3, sealed=False),  # the lower Series Number
    ]
    for one in waits:
        found = judged(rule(), best, pet, one)
        assert isinstance(found.verdict, Waiting), one
        assert found.because.startswith(f"waits for ct: {one.title} is still arriving and may be preferred")
        assert taken(judged(rule(), best, pet, one, waited=30)) == [{"ct": 1, "pet": 9}]
    for one in (series(2, SliceThickness=5, sealed=False), series(2, "MR", sealed=False)):
        assert taken(judged(rule(), best, pet, one)) == [{"ct": 1, "pet": 9}]


def test_an_arriving_series_is_not_judged_by_what_it_does_not_have_yet() -> None:
    """Too few slices so far say nothing; another modality in some of its images does, for good."""
    assert isinstance(judged(rule(), series(9, "PT"), series(1, count=1, sealed=False)).verdict, Waiting)
    mixed = Candidate(1, "mixed", "1.2.1", 1, images({"Modality": "CT"}, {"Modality": "SR"}), sealed=False)
    found = judged(rule(), series(9, "PT"), mixed)
    assert isinstance(found.verdict, Waiting)
    assert "✗ mixed: Modality: 1 of 2 say SR" in "\n".join(lines(found))


def test_an_optional_input_that_did_not_come() -> None:
    """It is waited for while it arrives, or with `run_without` until the wait ends; then the rule runs without it."""
    ct, pet, mr = series(1), series(2, "PT"), series(3, "MR")
    plain, patient = rule(OPTIONAL), changed(OPTIONAL, "then: skip", "then: run_without")
    assert taken(judged(plain, ct, pet)) == [{"ct": 1, "pet": 2}]
    assert taken(judged(plain, ct, pet, mr)) == [{"ct": 1, "pet": 2, "mr": 3}]
    assert isinstance(judged(plain, ct, pet, replace(mr, sealed=False)).verdict, Waiting)
    assert isinstance(judged(patient, ct, pet, waited=29).verdict, Waiting)
    late = judged(patient, ct, pet, waited=30)
    assert taken(late) == [{"ct": 1, "pet": 2}]
    assert "waited 30 min for mr" in late.because
    assert judged(patient, ct, mr, waited=30).verdict == Over("skipped")


def test_steps_that_need_what_did_not_come_are_left_out() -> None:
    """The plan without an optional input has neither its steps nor their results; an optional parameter stays empty."""
    plan = rule(OPTIONAL).plan_without(["mr"], SPECS)
    assert plan is not None
    assert [step.name for step in plan.steps] == ["fused"]
    assert [output.name for output in plan.outputs] == ["fused"]
    assert plan.inputs == ("ct", "pet")
    both = changed(OPTIONAL, "subtract: {volume: ct, other: mr}", "compare: {volume: ct, earlier: mr}")
    plan = both.plan_without(["mr"], SPECS)
    assert plan is not None
    assert [dict(step.inputs) for step in plan.steps] == [{"volume": "ct", "other": "pet"}, {"volume": "ct"}]


def test_each_that_fits_gives_a_run() -> None:
    """`pick: each` makes a combination of every series that fits, told apart by its UID."""
    each = changed(FUSION, "{when: {Modality: PT}}", "{when: {Modality: PT}, pick: each}")
    found = judged(each, series(1), series(3, "PT"), series(2, "PT"))
    assert taken(found) == [{"ct": 1, "pet": 2}, {"ct": 1, "pet": 3}]
    assert isinstance(found.verdict, Ready)
    assert [one.slot for one in found.verdict.combinations] == ["1.2.2", "1.2.3"]


def test_no_series_is_two_inputs() -> None:
    """An input that comes later in the rule takes the next one that fits."""
    twice = changed(FUSION, "pet: {when: {Modality: PT}}", "pet: {when: {Modality: CT}}")
    assert taken(judged(twice, series(1), series(2))) == [{"ct": 1, "pet": 2}]
    found = judged(twice, series(1))
    assert "it is ct already" in found.because


def test_what_we_made_and_what_is_incomplete_is_no_input() -> None:
    """Unless the rule says so: `ours: ok` at the input, `incomplete: ok` in the rule."""
    ours = series(1, ours="made by a PACSNode")
    gaps = series(1, incomplete="1 gap")
    pet = series(2, "PT")
    assert "such are inputs only with ours: ok" in judged(rule(), ours, pet).because
    assert "does not say incomplete: ok" in judged(rule(), gaps, pet).because
    allowed = changed(FUSION, "    prefer:", "    ours: ok\n    prefer:")
    assert taken(judged(allowed, ours, pet)) == [{"ct": 1, "pet": 2}]
    assert taken(judged(changed(FUSION, "scope: study", "scope: study\nincomplete: ok"), gaps, pet))


def test_inputs_of_different_patients_are_refused() -> None:
    """One study of two patients is an error of somebody's: nothing is made of it, and the words say what differs."""
    for other in (("P2", ""), ("P1", "OTHER")):
        found = judged(rule(), series(1), series(2, "PT", patient=other))
        assert found.verdict == Over("refused")
        assert found.decided_by == "patient"
    facts = images({"Modality": "PT", "PatientID": "P1"}, {"Modality": "PT", "PatientID": "P2"})
    mixed = series(2, "PT", facts=facts)
    assert "its own images differ in Patient ID" in judged(rule(), series(1), mixed).because


def test_the_study_itself_is_judged_by_when() -> None:
    """Facts of patient and study over all that was chosen; for some of the images only is not enough."""
    women = changed(FUSION, "when: {}", "when: {PatientSex: F}")
    assert judged(women, series(1, PatientSex="F"), series(2, "PT", PatientSex="F")).runs
    for sex in ("M", None):
        found = judged(women, series(1, PatientSex="F"), series(2, "PT", PatientSex=sex))
        assert found.verdict == Apart()
        assert found.decided_by == "PatientSex"


def test_images_that_an_input_does_not_use() -> None:
    """`use` picks within the series; what is left out counts neither for the conditions nor for the run."""
    found = changed(FUSION, "    prefer:", "    use: {ImageType: {excludes: LOCALIZER}}\n    prefer:")
    facts = images(*(
        {"Modality": "CT", "ImageType": ("ORIGINAL", kind), "ImageOrientationPatient": (1, 0, 0, 0, 1, 0),
         "ImagePositionPatient": (0, 0, z)}
        for z, kind in enumerate(("LOCALIZER", "AXIAL", "AXIAL"))
    ))  # fmt: skip
    ct = series(1, facts=facts)
    verdict = judged(found, ct, series(2, "PT")).verdict
    assert isinstance(verdict, Ready)
    assert verdict.combinations[0].taken == (("ct", 1, 2), ("pet", 2, 3))


PRIOR = FUSION.replace(
    "pet: {when: {Modality: PT}}", "pet: {when: {Modality: CT}, prior: {at: PACS, max_age: 5 y}}"
)


def test_a_prior_is_asked_for_when_the_rest_is_there() -> None:
    """Not before: a study without its own inputs asks nobody. Then it waits for the answer, and says for whose."""
    asking = judged(rule(PRIOR), series(1))
    assert asking.asks == ("pet",)
    assert isinstance(asking.verdict, Waiting)
    assert judged(rule(PRIOR), series(1, count=1)).asks == ()
    asked = judged(rule(PRIOR), series(1), pet=Asked("asking"))
    assert asked.asks == ()
    assert asked.because == "waits for pet: PACS is asked for an earlier study"
    fetched = series(7, prior_of="pet", patient=("P1", ""))
    assert taken(judged(rule(PRIOR), series(1), fetched, pet=Asked("fetched"))) == [{"ct": 1, "pet": 7}]


def test_without_a_prior_the_wait_is_over() -> None:
    """Where there is none, waiting brings nothing: skipped at once; an optional one is done without at once."""
    none = Asked("none", "the patient's sex is empty, so no earlier study is surely theirs")
    found = judged(rule(PRIOR), series(1), pet=none)
    assert found.verdict == Over("skipped")
    assert found.because == f"pet: {none.reason}"
    optional = OPTIONAL.replace(
        "{when: {Modality: MR}", "{prior: {at: PACS, max_age: 5 y}, when: {Modality: MR}"
    )
    for text in (optional, optional.replace("then: skip", "then: run_without")):
        assert taken(judged(rule(text), series(1), series(2, "PT"), mr=none)) == [{"ct": 1, "pet": 2}]
        asking = judged(rule(text), series(1), series(2, "PT"))
        assert (asking.asks, type(asking.verdict)) == (("mr",), Waiting)


def test_a_prior_is_an_input_only_where_it_is_asked_for() -> None:
    """A series that was fetched is not taken for one of the study, nor one of the study for a prior."""
    fetched = series(7, prior_of="pet")
    assert judged(rule(), fetched, series(2, "PT")).verdict != Ready
    assert (
        "no series of this kind came"
        not in judged(rule(PRIOR), series(1), series(2), pet=Asked("none", "x")).because
    )
    assert judged(rule(PRIOR), series(1), series(2), pet=Asked("none", "x")).verdict == Over("skipped")


def test_it_explains_itself() -> None:
    """Each input, each series looked at, each clause that speaks against it, for people and for scripts."""
    found = judged(rule(), series(1), series(2, "MR"))
    text = "\n".join(lines(found))
    assert "? fusion (a.yaml:2): waits for pet" in text
    assert "✓ ct: series 1: the only one that fits" in text
    assert "✗ series 2: Modality: is MR; the rule asks for PT" in text
    told = as_json(found)
    assert (told["state"], told["decided_by"], told["until"]) == ("waits", "pet", "2024-05-06T23:00:00+00:00")
    assert [view["chosen"] for view in told["inputs"]] == [["series 1"], []]


BAD = {
    "no inputs": (("inputs:", "inputs2:"), 'needs inputs:'),
    "a fact of one series": (("when: {}", "when: {Modality: CT}"), "a.yaml:6:8: Modality may differ"),
    "received": (("volume: ct, ", "volume: received, "), "takes inputs by their names: ct, pet"),
    "not named": (("volume: ct, ", ""), "fuse needs volume, a Volume; add volume: ct"),
    "unknown name": (("other: pet", "other: pett"), "is called pett by its as: name; did you mean pet?"),
    "not taken": (("other: pet", "other: ct"), "a.yaml:11:3: no step takes the input pet"),
    "use beside": (("when: {}", "when: {}\nuse: {Modality: CT}"), "put it under an input"),
    "split beside": (("when: {}", "when: {}\nsplit: [EchoTime]"), "split is for rules over one series"),
    "group beside": (("when: {}", "when: {}\ngroup: g"), "group is for rules over one series"),
    "discard beside": (("when: {}", "when: {}\ndiscard: yes"), "discard is for rules over one series"),
    "received sent": (("what: fused, to: PACS", "what: received, to: PACS"), "a rule over a study sends results"),
    "name": (("  pet: {", "  Pet: {"), "Pet is no name for an input"),
    "name of a part": (("  pet: {", "  part_1: {"), "part_1 is no name for an input"),
    "key of an input": (("pet: {when", "pet: {whenn: {}, when"), "unknown key whenn; did you mean when?"),
    "pick": (("pet: {when", "pet: {pick: all, when"), "all is not one of best, each"),
    "order of a text": (("SliceThickness: smallest", "SeriesDescription: smallest"), "is text and has no order"),
    "order of nothing": (("SliceThickness: smallest", "SliceThicknes: smallest"), "did you mean SliceThickness?"),
    "how long": (("30 min", "30"), "expected a duration"),
    "too long": (("30 min", "3 d"), "the most is 2 d"),
    "what then": (("then: skip", "then: stop"), "stop is not one of run_without, skip, quarantine"),
    "run without what": (("then: skip", "then: run_without"), "every input is required"),
    "again": (("wait:", "again: sometimes\nwait:"), "sometimes is not one of better_input, never"),
    "optional main": (("pet: {when", "pet: {optional: yes, when"), "without pet nothing that is sent is left"),
    "as an input": (("as: fused", "as: pet"), "as: pet is the name of an input"),
    "peer": (("pet: {when", "pet: {prior: {at: PAKS, max_age: 5 y}, when"), "no peer PAKS in the site file"),
    "cannot be asked": (("pet: {when", "pet: {prior: {at: CT01, max_age: 5 y}, when"), "CT01 cannot be asked"),
    "age": (("pet: {when", "pet: {prior: {at: PACS, max_age: 5}, when"), "a whole number of y, months, w or d"),
    "use of the series": (("    prefer:", "    use: {slices: 3}\n    prefer:"), "use picks single images"),
    "no steps": (("do: [{fuse: {volume: ct, other: pet}, as: fused}]\n", ""), "nothing under do: is called fused"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_every_mistake_has_its_line_and_words(name: str) -> None:
    """What is wrong in a rule over a study is named, with file and line, and never by a traceback."""
    (old, new), words = BAD[name]
    assert old in FUSION
    with pytest.raises(Misconfigured) as caught:
        read(FUSION.replace(old, new, 1))
    assert words in str(caught.value)
    assert all(mistake.startswith("a.yaml:") for mistake in caught.value.mistakes)


def test_two_kinds_of_one_input() -> None:
    """One series is read in one way: as a volume or as a picture, not both."""
    text = FUSION.replace("as: fused}]", "as: fused}, {crop: {picture: pet}, as: part}]")
    with pytest.raises(Misconfigured, match="the input pet cannot be read in several ways"):
        read(text)


def test_inputs_need_scope_study() -> None:
    """Without `scope: study` the keys that belong to it are mistakes that say so."""
    text = "rule: r\npurpose: p\nowner: o\nwhen: {}\nagain: never\nsend: [{what: received, to: PACS}]\n"
    with pytest.raises(
        Misconfigured, match=r"a\.yaml:5:1: again is for rules over several series; add scope: study"
    ):
        read(text)


def test_what_decides_the_outputs() -> None:
    """Names, conditions and preferences do not change what is made of the same images; steps and `use` do."""
    same = rule().meaning
    assert changed(FUSION, "{SliceThickness: smallest}", "{slices: largest}").meaning == same
    assert changed(FUSION, "30 min", "10 min").meaning == same
    renamed = FUSION.replace("pet:", "hot:").replace("other: pet", "other: hot")
    assert read(renamed).rules[0].meaning == same
    assert changed(FUSION, "volume: ct, other: pet", "volume: pet, other: ct").meaning != same
    assert changed(FUSION, "    prefer:", "    use: {Modality: CT}\n    prefer:").meaning != same


CASES = """
try:
  - given:
      study: {PatientSex: F}
      series: {thick: {Modality: CT, slices: 9, SliceThickness: 5 mm},
               thin: {Modality: CT, slices: 99, SliceThickness: 1 mm}, pet: {Modality: PT}}
    expect: {runs: yes, uses: {ct: thin, pet: pet}}
  - {given: {series: {thin: {Modality: CT, slices: 9}}}, expect: {runs: no, because: pet}}
  - {given: {series: {pet: {Modality: PT}}, arriving: {thin: {Modality: CT}}}, expect: {runs: no, because: ct}}
  - {given: {series: {thin: {Modality: CT, slices: 9}}, waited: 1 h}, expect: {runs: no, because: pet}}
"""  # fmt: skip


def test_cases_with_several_series() -> None:
    """`check` runs cases in which each series has a name, and says which one an input is."""
    report = check({"a.yaml": FUSION + CASES}, SPECS, PEERS)
    assert report.errors == report.warnings == ()
    assert [case.passed for case in report.cases] == [True] * 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("uses: {ct: thin", "uses: {ct: thick", "expected ct: thick, but it is thin"),
        ("because: pet}}\n  - {given: {series: {pet", "because: ct}}\n  - {given: {series: {pet", "because: ct"),
        ("expect: {runs: yes, uses", "expect: {runs: no, uses", "uses says what a rule runs on"),
        ("uses: {ct: thin", "uses: {ct: thinn", "thinn is no series of given; did you mean thin?"),
        ("uses: {ct: thin", "uses: {cct: thin", "cct is no input of the rule; did you mean ct?"),
        ("arriving: {thin", "priors: {thin", "thin is no input with prior:"),
    ],
)  # fmt: skip
def test_a_case_that_is_wrong(old: str, new: str, words: str) -> None:
    """A case that comes out otherwise, or names what is not there, is told."""
    assert old in CASES
    report = check({"a.yaml": FUSION + CASES.replace(old, new)}, SPECS, PEERS)
    assert not report.ok
    assert words in "\n".join([*report.errors, *(case.message for case in report.cases if not case.passed)])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["CT", "PT", "MR", ""]), st.integers(0, 4), st.booleans(),
            st.sampled_from(["1", "2.5", "x", "", "1e400"]), st.sampled_from(["", "ours"]),
            st.sampled_from(["", "gap"]),
        ), max_size=6,
    ),
    st.floats(0, 60),
)  # fmt: skip
def test_any_study_gets_a_verdict_that_does_not_depend_on_the_order(
    made: list[tuple[str, int, bool, str, str, str]], waited: float
) -> None:
    """Whatever the series are, there is a verdict in words, the same in whatever order they came."""
    found = [
        series(key, modality, count, SliceThickness=thickness, sealed=sealed, ours=ours, incomplete=gap)
        for key, (modality, count, sealed, thickness, ours, gap) in enumerate(made, 1)
    ]
    one, other = (
        judged(rule(OPTIONAL), *found, waited=waited),
        judged(rule(OPTIONAL), *reversed(found), waited=waited),
    )
    assert one.because
    assert type(one.verdict) is type(other.verdict)
    if isinstance(one.verdict, Ready) and isinstance(other.verdict, Ready):
        assert _keys(one.verdict.combinations) == _keys(other.verdict.combinations)


def _keys(found: tuple[Combination, ...]) -> list[tuple[tuple[str, int, int], ...]]:
    return [one.taken for one in found]


def test_an_input_that_no_series_can_be() -> None:
    """Conditions of an input that contradict each other are told, at their line; those of two inputs do not."""
    text = FUSION.replace("{Modality: PT}", "{Modality: PT, slices: {at_least: 9, at_most: 3}}")
    (told,) = [w for w in read(text + CASES).warnings if "never matches" in w]
    assert told.startswith("a.yaml:11:")
    assert read(FUSION + CASES).warnings == ()
