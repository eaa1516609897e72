"""`scope: study`: named inputs, what to wait for, and when to do it again; every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from node.model import is_received
from node.route.keywords import NOT_OF_ONE_IMAGE, Attribute, lookup
from node.route.values import ORDERED
from node.route.when import When, flow, parse_when
from node.shape import Node, Place, Shaper, nearest, quantity

INPUT_KEYS = {
    "when": "conditions that a series must fulfil to be this input",
    "use": "which images of that series; the rest is left out and counted",
    "prefer": "which of several that fit: a list of conditions, or {Keyword: smallest} or {Keyword: largest}",
    "pick": "best: the one that is preferred; each: one run for each that fits",
    "optional": "yes: the rule can do without it; steps that need it are then left out",
    "prior": "a series of an earlier study of the same patient: {at: PEER, max_age: 5 y}",
    "ours": "ok: results of a node like this one may be this input",
}
"""Every key of an input, with a sentence for editors."""
WAITS = {
    "run_without": "waits for optional inputs, too, and then runs without those that did not come",
    "skip": "does nothing, and says so",
    "quarantine": "a run that a person looks after: quarantined, with what is missing",
}
"""What becomes of a rule whose wait is over, with a sentence for editors."""
AGAIN = {
    "better_input": "a better or newer input than the one that was used opens a new run; its results supersede",
    "never": "the rule runs once per study; only corrected or rejected images make it run again",
}
"""What later series of a study that was processed bring about, with a sentence for editors."""
PICKS = ("best", "each")
LONGEST_WAIT = timedelta(days=2)
"""Retention must not take what a rule waits with."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MOST = 16
"""Inputs of one rule."""
_OLDEST = 150
"""Years."""

# Attributes of the patient and the study, which every series of a study shares (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).
STUDY_FACTS = frozenset(
    {
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
        "OtherPatientIDs", "EthnicGroup", "PatientComments", "PatientSpeciesDescription", "PatientIdentityRemoved",
        "DeidentificationMethod", "ResponsiblePerson", "QualityControlSubject",
        "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
        "StudyDescription", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingService",
        "PatientAge", "PatientSize", "PatientWeight", "PatientBodyMassIndex", "MedicalAlerts", "Allergies",
        "PregnancyStatus", "PatientState", "SmokingStatus", "AdmissionID", "Occupation",
        "AdditionalPatientHistory", "AdmittingDiagnosesDescription", "PatientSexNeutered", "ServiceEpisodeID",
        "age", "local_time", "weekday",
    }
)  # fmt: skip
_STUDY_SEQUENCES = re.compile(
    r"(ProcedureCode|ReferencedStudy|ReferringPhysicianIdentification|RequestingServiceCode|AdmittingDiagnosesCode"
    r"|ReasonForPerformedProcedureCode|PatientSpeciesCode|IssuerOfAccessionNumber)Sequence(\[|$)"
)


_ANY = When()


@dataclass(frozen=True, slots=True)
class Preference:
    """One entry of `prefer`: a condition, or an order."""

    text: str
    """As the user wrote it."""
    when: When = _ANY
    """Series that fulfil it come first."""
    order: Attribute | None = None
    """Instead of a condition: the series with the smallest or largest value comes first."""
    largest: bool = False


@dataclass(frozen=True, slots=True)
class Prior:
    """Where an earlier study is asked for, and how old it may be."""

    at: str
    max_age: tuple[int, str]
    """A number of days, months or years (`d`, `month`, `y`)."""

    def earliest(self, day: date) -> date:
        """The first study date that is not too old for a study of *day*."""
        number, unit = self.max_age
        if unit == "d":
            return day - timedelta(days=min(number, (day - date.min).days))
        months = day.year * 12 + day.month - 1 - number * (12 if unit == "y" else 1)
        year, month = max(1, months // 12), months % 12 + 1
        return date(year, month, min(day.day, _days_in(year, month)))


def _days_in(year: int, month: int) -> int:
    following = date(year + month // 12, month % 12 + 1, 1)
    return (following - timedelta(days=1)).day


@dataclass(frozen=True, slots=True)
class Input:
    """One named series that a rule takes."""

    name: str
    when: When = _ANY
    use: When = _ANY
    prefer: tuple[Preference, ...] = ()
    each: bool = False
    optional: bool = False
    prior: Prior | None = None
    ours: bool = False
    line: int = 0

    def names(self) -> frozenset[str]:
        """Every attribute it asks for."""
        orders = {p.order.name for p in self.prefer if p.order is not None}
        preferred = frozenset[str]().union(*(p.when.names() for p in self.prefer))
        return self.when.names() | self.use.names() | preferred | orders


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a rule waits for inputs after the first of them was there, and what then."""

    at_most: timedelta = timedelta(hours=2)
    then: str = "skip"


@dataclass(frozen=True, slots=True)
class Study:
    """What a rule over a study has beside others."""

    inputs: tuple[Input, ...] = ()
    wait: Wait = field(default_factory=Wait)
    again: str = "better_input"

    @property
    def main(self) -> Input:
        """The first required input: its series stands for the run, and results inherit patient and study from it."""
        return next(one for one in self.inputs if not one.optional and one.prior is None)

    @property
    def order(self) -> tuple[str, ...]:
        """The inputs by name, with the one first that stands for the study."""
        return (self.main.name, *(one.name for one in self.inputs if one is not self.main))

    def place(self, name: str) -> int:
        """Which of the inputs this is, from 1."""
        return 1 + [one.name for one in self.inputs].index(name)

    @property
    def each(self) -> str:
        """The input of which each fitting series gives a run of its own; empty where none does."""
        return next((one.name for one in self.inputs if one.each), "")

    def canonical(self) -> list[str]:
        """What it means for the identity of outputs: which images are used; which series does not count (design §6)."""
        return [one.use.canonical() for one in self.inputs]


def parse_study(fields: Mapping[str, Node], peers: Mapping[str, bool], shaper: Shaper) -> Study | None:
    """What `scope: study` asks for, None for a rule over single series. Mistakes are noted in *shaper*."""
    scope = fields.get("scope")
    if scope is None or shaper.choice(scope, ("series", "study"), "series") != "study":
        for key in ("inputs", "wait", "again"):
            if key in fields:
                shaper.wrong(fields[key], f"{key} is for rules over several series; add scope: study")
        return None
    for key, instead in _NOT_HERE.items():
        if key in fields:
            shaper.wrong(fields[key], instead)
    if "when" in fields and fields["when"].is_mapping:
        _study_facts_only(fields["when"], shaper)
    if "inputs" not in fields:
        shaper.wrong(scope, "scope: study needs inputs:, for example inputs: {ct: {when: {Modality: CT}}}")
    inputs = _inputs(fields["inputs"], peers, shaper) if "inputs" in fields else ()
    wait = _wait(fields["wait"], inputs, shaper) if "wait" in fields else Wait()
    again = (
        shaper.choice(fields["again"], tuple(AGAIN), "better_input") if "again" in fields else "better_input"
    )
    return Study(inputs, wait, again)


_NOT_HERE = {
    "use": "use picks images of one series: put it under an input",
    "split": "split is for rules over one series; give each part an input of its own, with use:",
    "each_part": "each_part is for rules over one series",
    "group": "group is for rules over one series; make the inputs' conditions exclude each other",
    "unless": "unless is for rules over one series",
    "fallback": "fallback is for rules over one series",
    "discard": "discard is for rules over one series",
}


def _study_facts_only(node: Node, shaper: Shaper) -> None:
    """What stands under `when` of the rule itself is the same in every series of a study."""
    for key, value in node.fields.items():
        if key in ("any_of", "none_of"):
            for item in value.items:
                if item.is_mapping:
                    _study_facts_only(item, shaper)
        elif not (key in STUDY_FACTS or _STUDY_SEQUENCES.match(key)):
            shaper.wrong(
                value,
                f"{key} may differ between the series of a study; put it under when: of an input "
                "(beside scope: study, when holds facts of patient and study, or {})",
            )


def _inputs(node: Node, peers: Mapping[str, bool], shaper: Shaper) -> tuple[Input, ...]:
    if not node.is_mapping or not node.fields:
        shaper.wrong(
            node, "inputs holds a name for each series, for example inputs: {ct: {when: {Modality: CT}}}"
        )
        return ()
    if len(node.fields) > _MOST:
        shaper.wrong(node, f"{len(node.fields)} inputs are too many; the most is {_MOST}")
    found = tuple(_input(name, item, peers, shaper) for name, item in node.fields.items())
    if all(one.optional or one.prior is not None for one in found):
        shaper.wrong(
            node,
            "one input at least must be of this study and not optional: its study is that of the results",
        )
    if len([one for one in found if one.each]) > 1:
        shaper.wrong(node, "pick: each may stand at one input only; of two, every pair would be a run")
    return found


def _input(name: str, node: Node, peers: Mapping[str, bool], shaper: Shaper) -> Input:
    if not _NAME.fullmatch(name) or is_received(name):
        shaper.wrong(
            node,
            f"{name} is no name for an input; use a lower-case word of at most 32 letters, not received or part_1",
        )
    prior = node.fields.get("prior") if node.is_mapping else None
    fields = shaper.fields(node, tuple(INPUT_KEYS), () if prior is not None else ("when",))
    when = parse_when(fields["when"], shaper) if "when" in fields else When()
    use = parse_when(fields["use"], shaper) if "use" in fields else When()
    _single_images(use, node, shaper)
    each = "pick" in fields and shaper.choice(fields["pick"], PICKS, "best") == "each"
    optional = shaper.yes_no(fields["optional"]) if "optional" in fields else False
    if each and prior is not None:
        shaper.wrong(
            fields["pick"], f"{name}: of earlier studies one series is fetched; pick: each is not for priors"
        )
    return Input(
        name, when, use, _prefer(fields["prefer"], shaper) if "prefer" in fields else (), each, optional,
        _prior(fields["prior"], peers, shaper) if "prior" in fields else None,
        "ours" in fields and shaper.choice(fields["ours"], ("ok",)) == "ok", node.place.line,
    )  # fmt: skip


def _single_images(use: When, node: Node, shaper: Shaper) -> None:
    for line in use.conditions():
        if line.name in NOT_OF_ONE_IMAGE or line.condition.some:
            what = "some asks" if line.condition.some else f"{line.name} tells"
            at = Node(Place(node.place.file, line.line), "")
            shaper.wrong(at, f"{what} about the series, but use picks single images; put it under when:")


def _prefer(node: Node, shaper: Shaper) -> tuple[Preference, ...]:
    found = []
    for item in node.items:
        if not item.is_mapping or not item.fields:
            shaper.wrong(item, "prefer holds conditions and orders, for example [{SliceThickness: smallest}]")
            continue
        key, value = next(iter(item.fields.items()))
        if (
            len(item.fields) == 1
            and value.is_text
            and not value.quoted
            and value.text in ("smallest", "largest")
        ):
            found += _order(key, value, shaper)
        else:
            found.append(Preference(flow(item), parse_when(item, shaper)))
    return tuple(found)


def _order(key: str, value: Node, shaper: Shaper) -> list[Preference]:
    try:
        attribute = lookup(key)
    except ValueError as error:
        shaper.wrong(value, str(error))
        return []
    if attribute.kind not in ORDERED:
        what = "text" if attribute.kind == "text" else f"a {attribute.kind}"
        shaper.wrong(value, f"{key} is {what} and has no order; {value.text} is for numbers, dates and times")
        return []
    return [Preference(f"{key}: {value.text}", order=attribute, largest=value.text == "largest")]


def _prior(node: Node, peers: Mapping[str, bool], shaper: Shaper) -> Prior:
    fields = shaper.fields(node, ("at", "max_age"), ("at", "max_age"))
    at = shaper.text(fields["at"]) if "at" in fields else ""
    if at and at not in peers:
        shaper.wrong(fields["at"], f"there is no peer {at} in the site file{nearest(at, peers)}")
    elif at and not peers[at]:
        shaper.wrong(fields["at"], f"{at} cannot be asked: the site file gives it no address")
    return Prior(at, _age(fields["max_age"], shaper) if "max_age" in fields else (0, "d"))


def _age(node: Node, shaper: Shaper) -> tuple[int, str]:
    units = {"d": "d", "w": "w", "month": "month", "months": "month", "y": "y"}
    found = quantity(node.text) if node.is_text else None
    if found is None or found[1] not in units or found[0] <= 0 or found[0] != int(found[0]):
        shaper.wrong(node, "max_age: expected a whole number of y, months, w or d, for example 5 y")
        return (0, "d")
    number, unit = int(found[0]), units[found[1]]
    if number > _OLDEST * {"d": 366, "w": 53, "month": 12, "y": 1}[unit]:
        shaper.wrong(node, f"max_age: {node.text} is longer than a life; the most is {_OLDEST} y")
        return (0, "d")
    return (number * 7, "d") if unit == "w" else (number, unit)


def _wait(node: Node, inputs: tuple[Input, ...], shaper: Shaper) -> Wait:
    fields = shaper.fields(node, ("at_most", "then"), ("at_most", "then"))
    at_most = shaper.duration(fields["at_most"]) if "at_most" in fields else timedelta()
    if at_most > LONGEST_WAIT:
        shaper.wrong(fields["at_most"], f"{fields['at_most'].text} is too long a wait; the most is 2 d")
        at_most = LONGEST_WAIT
    then = shaper.choice(fields["then"], tuple(WAITS), "skip") if "then" in fields else "skip"
    if then == "run_without" and inputs and not any(one.optional for one in inputs):
        shaper.wrong(
            fields["then"], "run_without: every input is required, so there is none to run without; "
            "mark those with optional: yes, or write skip or quarantine",
        )  # fmt: skip
    return Wait(at_most, then)
