"""A first rule from an example series: `rule new`. It stays in shadow until a person has read it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from node import dryrun
from node.dryrun import FoundSeries
from node.errors import Refused
from node.example import Clause, clauses, numbers, plane, quoted, split_lines, use_line, whole_facts
from node.facts import Facts
from node.model import OperatorSpec, Parameter

_STACKS = ("CT", "MR", "PT", "NM")
"""Modalities whose series are stacks of slices, as a rule."""
_THICK = {"CT": 5, "MR": 3, "PT": 5, "NM": 5}
"""mm: what the reading list of many departments shows; a thicker source keeps its own thickness."""
_KINDS = {
    "Recording": ("ECG", "EEG", "EMG", "EOG", "EPS", "HD", "RESP", "AU"),
    "Tiles": ("SM",),
    "Document": ("DOC", "SR"),
}
"""Type that operators take → modalities (PS3.3 C.7.3.1.1.1); every other one is taken for pictures."""
_OF_PICTURES = {"NM": "count_qa"}
"""Modality → what suits its pictures unasked. Pictures of other kinds have nothing in common but pixels."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person who asks for a rule has said."""

    to: str
    """The peer that gets the results."""
    owner: str
    operator: str = ""
    """Empty for the one that fits best."""
    taken: tuple[str, ...] = ()
    """Names of rules that are there already."""


def choose(found: Sequence[FoundSeries], number: int = 0) -> FoundSeries:
    """The series that is meant, by its place from 1. Raises Refused where there is none or it is not clear which."""
    usable = [one for one in found if one.say("Modality")]
    if not usable:
        raise Refused(
            "no usable series among these files: none has a Modality (0008,0060), which every rule asks for"
        )
    told = "\n".join(f"  {place}  {dryrun.title(one)}" for place, one in enumerate(usable, 1))
    if number > len(usable):
        raise Refused(f"--series {number}: there are {len(usable)}:\n{told}")
    if not number and len(usable) > 1:
        raise Refused(f"there are {len(usable)} series; choose one with --series N:\n{told}")
    return usable[max(number, 1) - 1]


def sketch(
    found: FoundSeries, specs: Mapping[str, OperatorSpec], wish: Wish, others: Sequence[FoundSeries] = ()
) -> str:
    """The text of a rule file: commented, in `mode: shadow`, its `when` true of the example, and `try:` cases.

    The *others* lie beside the example and are not meant: each is a case for which the rule must not run.
    Raises Refused where the operator that is wished for does not suit the example.
    """
    modality = found.say("Modality")
    facts = whole_facts(found)
    lines_of_when = list(clauses(facts, modality))
    steps, result, described = _do(facts, modality, specs, wish.operator)
    name = _free(
        _slug(modality, found.say("BodyPartExamined"), wish.operator or (steps and steps[-1][0]) or "send"),
        wish.taken,
    )
    lines = [
        f"# Made from an example: {dryrun.title(found)}.",
        "# Read every line: an example says what a series may be like, not what it must be like. Loosen what is",
        "# too narrow, remove what does not matter, add cases under `try`, and `pacsnode check` it.",
        f"rule: {name}",
        f"purpose: {quoted(_purpose(modality, described, wish.to))}",
        f"owner: {quoted(wish.owner)}",
        "mode: shadow                               # makes its results and sends nothing; remove it to go live",
        "when:                                      # every line must hold",
        "  # from: [CT01]                           # only from these peers of the site file",
        *(
            f"  {clause.name}: {clause.condition}".ljust(42) + (f" # {clause.why}" if clause.why else "")
            for clause in lines_of_when
        ),
        *use_line(facts),
        *(split_lines(facts) if result and not _takes_stack(specs[steps[0][0]]) else ()),
        *_do_lines(steps, result),
        "send:",
        _send_line(result, described, wish.to),
        "on_failure: {retry: 3, then: quarantine}",
        *_try_lines(lines_of_when, modality),
        *_other_lines(lines_of_when, others),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _try_lines(lines_of_when: Sequence[Clause], modality: str) -> Iterator[str]:
    """The example runs; the same of another modality does not."""
    other = "MR" if modality != "MR" else "CT"
    yield "try:                                       # `pacsnode check` runs these, without network or data"
    yield f"  - given: {{{', '.join(f'{c.name}: {c.given}' for c in lines_of_when)}}}"
    yield "    expect: {runs: yes}"
    not_so = (f"{c.name}: {other if c.name == 'Modality' else c.given}" for c in lines_of_when)
    yield f"  - given: {{{', '.join(not_so)}}}"
    yield "    expect: {runs: no, because: Modality}"


def _other_lines(lines_of_when: Sequence[Clause], others: Sequence[FoundSeries]) -> Iterator[str]:
    """What the other series of the example folder say of the same attributes; what says the same is told once."""
    told = {others_given(one, lines_of_when): dryrun.title(one) for one in reversed(others)}
    for given, title in reversed(told.items()):
        yield f"  # not meant: {title}"
        yield f"  - given: {{{given}}}"
        yield "    expect: {runs: no}"


def others_given(found: FoundSeries, lines_of_when: Sequence[Clause]) -> str:
    """One series under the names that a rule asks for, as `given:` holds it."""
    facts = whole_facts(found)
    told = []
    for name in (clause.name for clause in lines_of_when):
        seen = facts.seen(name)
        value = seen[0].value if seen else None
        parts = [quoted(part) for part in value or () if part]
        text = "absent" if not parts else parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"
        told.append(f"{name}: {text}")
    return ", ".join(told)


def _purpose(modality: str, described: str, to: str) -> str:
    what = f"gets results ({described})" if described else f"goes to {to} when it is complete"
    return f"{modality} like the example {what}."


# --- do


_Step = tuple[str, Mapping[str, str], str]
"""Operator, options and inputs as they are written, name of the result."""


def _do(
    facts: Facts, modality: str, specs: Mapping[str, OperatorSpec], wished: str
) -> tuple[list[_Step], str, str]:
    """The steps, the name of their result, and what its description adds; no steps where nothing fits."""
    stack = modality in _STACKS and bool(numbers(facts, "slices")) and numbers(facts, "slices")[0] > 1
    kind = "Volume" if stack else next((k for k, names in _KINDS.items() if modality in names), "Picture")
    if not wished and stack and "reformat" in specs:
        return _reformat(facts, modality)
    if wished:
        kind = "Stack" if stack and _takes_stack(specs[wished]) else kind
        return [*_chain(specs[wished], kind, specs)], "result", wished
    for spec in specs.values():
        if kind == "Picture" and spec.name != _OF_PICTURES.get(modality):
            continue
        if [p.type for p in spec.inputs] == [kind] and not _needed(spec):
            return [(spec.name, {}, "result")], "result", spec.name
    return [], "", ""


def _takes_stack(spec: OperatorSpec) -> bool:
    """Whether it works on all volumes of a series at once, so that they are not split."""
    return bool(spec.inputs) and spec.inputs[0].type == "Stack"


def _reformat(facts: Facts, modality: str) -> tuple[list[_Step], str, str]:
    seen = plane(facts)
    to = seen.condition if seen and seen.condition != "oblique" else "axial"
    thick = max([_THICK[modality], *(math.ceil(v) for v in numbers(facts, "SliceThickness"))])
    options = {"plane": to, "thickness": f"{thick} mm", "every": f"{thick} mm", "combine": "mean"}
    return [("reformat", options, "thick")], "thick", f"{thick}mm {to}"


def _chain(spec: OperatorSpec, kind: str, specs: Mapping[str, OperatorSpec]) -> Iterator[_Step]:
    """The wished operator, after a step for each further input that another operator can make of the series."""
    if not spec.inputs or spec.inputs[0].type != kind:
        takes = spec.inputs[0].type if spec.inputs else "nothing"
        raise Refused(
            f"{spec.name} takes {takes}, and the example is a {kind}; `pacsnode operators` lists what suits"
        )
    if needed := _needed(spec):
        told = ", ".join(needed)
        raise Refused(
            f"{spec.name} needs values that an example cannot tell: {told}; "
            f"`pacsnode operators {spec.name}` explains them: write that rule by hand"
        )
    inputs: dict[str, str] = {}
    for other in (p for p in spec.inputs[1:] if p.required):
        maker = _maker(other, kind, specs)
        if maker is None:
            raise Refused(
                f"{spec.name} also takes {other.name}: {other.type}, which no operator makes of a {kind} alone"
            )
        inputs[other.name] = other.name
        yield maker.name, {}, other.name
    yield spec.name, inputs, "result"


def _maker(wanted: Parameter, kind: str, specs: Mapping[str, OperatorSpec]) -> OperatorSpec | None:
    """An operator that makes this type of the series and needs nothing else."""
    may: Callable[[OperatorSpec], bool] = lambda s: (  # noqa: E731 - said once, used once
        s.returns == wanted.type and [p.type for p in s.inputs] == [kind] and not _needed(s)
    )
    return (
        next((spec for _, spec in sorted(specs.items()) if may(spec)), None) if wanted.type != kind else None
    )


def _needed(spec: OperatorSpec) -> list[str]:
    """Options without a default."""
    return [p.name for p in spec.options if p.required]


def _do_lines(steps: Sequence[_Step], result: str) -> Iterator[str]:
    if not steps:
        yield "# do: no operator takes such a series without more being said; `pacsnode operators` lists all"
        return
    yield f"do:{' ' * 40}# the result is `{result}`"
    for operator, options, name in steps:
        told = ", ".join(f"{key}: {value}" for key, value in options.items())
        yield f"  - {operator}: {{{told}}}"
        yield f"    as: {name}"


def _send_line(result: str, described: str, to: str) -> str:
    if not result:
        return f"  - {{what: received, to: {quoted(to)}, mode: sealed}}"
    text = quoted(f"{{SeriesDescription}} {described}")
    return f"  - {{what: {result}, to: {quoted(to)}, SeriesDescription: {text}}}"


# --- names


def _slug(*words: str) -> str:
    return "-".join(found for word in words if (found := re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")))


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, or the next that no rule has."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
