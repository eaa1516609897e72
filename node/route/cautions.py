"""Warnings: rules that are right, but may not do what their author thinks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from node.route.conditions import Condition
from node.route.deidentify import refused_later
from node.route.disagreements import disagreements
from node.route.impossible import contradictions
from node.route.overlaps import overlaps
from node.route.rule import Rule
from node.route.terms import doubtful
from node.route.values import Kind, squeeze
from node.route.when import Group, Line, When
from node.shape import Place, nearest

_ALWAYS_THERE = frozenset(
    {
        "Modality", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows",
        "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
        "PhotometricInterpretation", "from", "called", "instances", "frames", "revision",
        "transfer_syntax", "sop_class", "local_time", "weekday",
    }
)  # fmt: skip
"""Type 1 in every image object (PS3.3 C.7, C.12), and the facts of ours that are always known."""
_WITH_IMAGE_TYPE = frozenset({"ct", "mr", "pt", "nm", "dx", "mg", "xa", "rf"})
"""Modalities whose image objects have Image Type as type 1 (PS3.3 C.8)."""


_WHOSE = {
    "PatientID": "whose it is",
    "PatientName": "whose it is",
    "IssuerOfPatientID": "whose it is",
    "PatientBirthDate": "whose it is",
    "PatientSex": "whose it is",
    "AccessionNumber": "which order it belongs to",
}


def cautions(rules: Sequence[Rule], peers: Mapping[str, bool]) -> tuple[str, ...]:
    """A sentence, with its place, for everything worth a second look."""
    of_each = (sentence for rule in rules for sentence in _of_rule(rule, peers))
    return tuple(dict.fromkeys((*of_each, *overlaps(rules), *disagreements(rules))))


def _of_rule(rule: Rule, peers: Mapping[str, bool]) -> Iterator[str]:
    if not rule.tries:
        yield f"{rule.place}: rule {rule.name} has no try: cases that show what it does"
    yield from _of_conditions(rule, peers)
    for one in rule.study.inputs if rule.study else ():
        yield from _of_conditions(replace(rule, when=one.when, use=one.use), peers)
    yield from _of_edits(rule)
    for send in rule.sends:
        for sentence in refused_later(send.to, send.treatment, peers):
            yield f"{rule.place.file}:{send.at}: {sentence}"
    used = {source for step in rule.steps for source in step.inputs.values()} | {s.what for s in rule.sends}
    for step in rule.steps:
        if step.name not in used:
            yield f"{rule.place}: the result {step.name} is neither sent nor used by a later step"


def _of_conditions(rule: Rule, peers: Mapping[str, bool]) -> Iterator[str]:
    """What `use` and `when` ask for: of a rule, or of one input of a rule over a study."""
    certain = _certain(rule.when)
    for block in (rule.use, rule.when):
        for line, how in _exclusions(block):
            if line.name not in certain:
                yield f"{_at(rule, line)}: {line.name} may be missing from an image; {how}"
        for line in block.conditions():
            for sentence in _of_line(line, rule.when, peers):
                yield f"{_at(rule, line)}: {sentence}"
    for where, sentence in contradictions(rule):
        yield f"{_at(rule, where)}: {sentence}"


def _at(rule: Rule, line: Line | Group) -> Place:
    return Place(rule.place.file, line.line, line.column)


def _of_edits(rule: Rule) -> Iterator[str]:
    """Who an object is about, or which order it belongs to, is changed on its way."""
    said = set()
    for send in rule.sends:
        for keyword, line in send.edits.lines.items():
            if keyword not in _WHOSE or (keyword, line) in said:
                continue
            said.add((keyword, line))
            told = (
                f"{rule.place.file}:{line}: {keyword} says {_WHOSE[keyword]}; it is changed in what goes to "
            )
            issuer = "; set IssuerOfPatientID as well, so that the two numbers are told apart"
            alone = keyword == "PatientID" and "IssuerOfPatientID" not in send.edits.lines
            yield told + ", ".join(send.to) + (issuer if alone else "")


def _of_line(line: Line, when: When, peers: Mapping[str, bool]) -> Iterator[str]:
    if line.name == "from":
        known = {squeeze(peer) for peer in peers}
        for text in _texts(line.condition):
            if text not in known and text not in peers:  # without a site file every name is a peer
                yield f"from: {text} is no peer of the site file{nearest(text, peers)}; is it an AE title?"
    if line.attribute.several and line.attribute.least == 1 and line.attribute.kind is not Kind.ANY:
        singles = [
            t
            for t in line.condition.tests
            if t.op in ("equals", "one_of") and any(len(o) == 1 for o in t.operands)
        ]
        if singles:
            yield f"{line.name} may hold several values, and then never equals one; has_any looks at each"
    yield from doubtful(line)
    if line.name.endswith("RadionuclideTotalDose") and "pt" not in modalities(when):
        # PS3.3 C.8.4.10 has MBq, C.8.9.2 has Bq for the same attribute.
        yield f"{line.name} is in Bq for PET, but in MBq for NM; add Modality: PT, or compare plain numbers"


def _texts(condition: Condition) -> list[str]:
    return [str(o[0]) for t in condition.tests if t.op in ("equals", "one_of") for o in t.operands if o]


def modalities(when: When) -> frozenset[str]:
    """The modalities that a block is bound to; none when it takes any."""
    lines = [line for line in when.lines if isinstance(line, Line) and line.name == "Modality"]
    return frozenset(text for line in lines for text in _texts(line.condition))


def _certain(when: When) -> frozenset[str]:
    bound = modalities(when)
    image_type = {"ImageType"} if bound and bound <= _WITH_IMAGE_TYPE else set()
    asked = {
        line.name
        for line in when.lines
        if isinstance(line, Line) and any(test.op == "present" for test in line.condition.tests)
    }
    return _ALWAYS_THERE | image_type | asked


def _exclusions(block: When, inverted: bool = False) -> Iterator[tuple[Line, str]]:
    """Each line that rules something out, and what happens when its tag is missing."""
    passes = "none_of lets it pass then"
    for line in block.lines:
        if isinstance(line, Group):
            for inner in line.blocks:
                yield from _exclusions(inner, inverted or line.name == "none_of")
        elif _asks_absence(line.condition):
            continue
        elif inverted or any(op == "none_of" for op, _ in line.condition.groups):
            yield line, passes
        elif any(op == "not" for op, _ in line.condition.groups):
            yield line, "not is a no then; none_of lets it pass"
        elif any(test.op == "excludes" for test in line.condition.tests):
            yield line, "excludes is a no then; none_of: [{has_any: …}] lets it pass"


def _asks_absence(condition: Condition) -> bool:
    inner = [c for _, group in condition.groups for c in group]
    return any(t.op in ("absent", "present") for t in condition.tests) or any(_asks_absence(c) for c in inner)
