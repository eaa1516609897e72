"""`scope: study`: YAML nodes → inputs, wait and again; every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from node.model import is_received
from node.route.inputs import (
    AGAIN,
    INPUT_KEYS,
    LONGEST_WAIT,
    PICKS,
    WAITS,
    Input,
    Preference,
    Prior,
    Study,
    Wait,
)
from node.route.keywords import NOT_OF_ONE_IMAGE, lookup
from node.route.values import ORDERED
from node.route.when import When
from node.route.when_reading import flow, parse_when
from node.shape import Node, Place, Shaper, nearest, quantity

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
        node.place.column,
    )  # fmt: skip


def _single_images(use: When, node: Node, shaper: Shaper) -> None:
    for line in use.conditions():
        if line.name in NOT_OF_ONE_IMAGE or line.condition.some:
            what = "some asks" if line.condition.some else f"{line.name} tells"
            at = Node(Place(node.place.file, line.line, line.column), "")
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
