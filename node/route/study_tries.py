"""`try:` cases of a rule over a study: made-up series under names, and which of them the rule should take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from node.facts import Facts, gather
from node.model import Cell, Value
from node.route.inputs import Study
from node.route.tries import given_image
from node.shape import Node, Shaper, nearest

_EXAMPLE = "given: {series: {thin: {Modality: CT}, pet: {Modality: PT}}}"


@dataclass(frozen=True, slots=True)
class MadeUp:
    """One series of a case."""

    name: str
    facts: Facts
    whole: Mapping[str, Value] = field(default_factory=dict)
    """Facts about the series as a whole, as given."""
    sealed: bool = True
    prior: str = ""
    """The input for which it was fetched from an earlier study."""


@dataclass(frozen=True, slots=True)
class StudyTry:
    """One case: a study in, and whether the rule should run, on which of its series."""

    series: tuple[MadeUp, ...]
    waited: timedelta = timedelta()
    """Since the first input was there."""
    runs: bool = True
    because: str = ""
    """The input or clause that should decide, where the case names one."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """Input → name of the series that it should be."""
    line: int = 0
    column: int = 0


def parse_study_tries(node: Node, study: Study, shaper: Shaper) -> tuple[StudyTry, ...]:
    """The cases under `try:`; mistakes are noted in *shaper*."""
    if not node.is_list:
        shaper.wrong(node, f"try holds a list, for example try: [{{{_EXAMPLE}, expect: {{runs: yes}}}}]")
        return ()
    return tuple(_try(item, study, shaper) for item in node.items)


def _try(node: Node, study: Study, shaper: Shaper) -> StudyTry:
    fields = shaper.fields(node, ("given", "expect"), ("given", "expect"))
    found: tuple[MadeUp, ...] = ()
    waited = timedelta()
    if "given" in fields:
        found, waited = _given(fields["given"], study, shaper)
    expected: dict[str, Node] = {}
    if "expect" in fields:
        expected = shaper.fields(fields["expect"], ("runs", "because", "uses"), ("runs",))
    runs = shaper.yes_no(expected["runs"]) if "runs" in expected else True
    because = shaper.text(expected["because"]) if "because" in expected else ""
    if because and runs:
        shaper.wrong(
            expected["because"], "because says why a rule does not run; this case expects that it runs"
        )
    uses = _uses(expected["uses"], study, found, shaper) if "uses" in expected else {}
    if uses and not runs:
        shaper.wrong(
            expected["uses"], "uses says what a rule runs on; this case expects that it does not run"
        )
    return StudyTry(found, waited, runs, because, uses, node.place.line, node.place.column)


def _given(node: Node, study: Study, shaper: Shaper) -> tuple[tuple[MadeUp, ...], timedelta]:
    fields = shaper.fields(node, ("study", "series", "arriving", "priors", "waited"), ("series",))
    shared: dict[str, Cell] = {}
    about_all: dict[str, Value] = {}
    if "study" in fields:
        shared, about_all = given_image(fields["study"], shaper)
    found = []
    for key, sealed in (("series", True), ("arriving", False)):
        for name, item in _named(fields, key, shaper).items():
            found.append(_made_up(name, item, shared, about_all, shaper, sealed=sealed))
    for name, item in _named(fields, "priors", shaper).items():
        wanted = [one.name for one in study.inputs if one.prior is not None]
        if name not in wanted:
            shaper.wrong(item, f"priors: {name} is no input with prior:{nearest(name, wanted)}")
        found.append(_made_up(name, item, {}, {}, shaper, prior=name))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        shaper.wrong(node, "given: each series needs a name of its own")
    waited = shaper.duration(fields["waited"]) if "waited" in fields else timedelta()
    return tuple(found), waited


def _named(fields: Mapping[str, Node], key: str, shaper: Shaper) -> dict[str, Node]:
    if key not in fields:
        return {}
    if not fields[key].is_mapping:
        shaper.wrong(fields[key], f"{key} holds series under names of your choice, for example {_EXAMPLE}")
    return fields[key].fields


def _made_up(
    name: str,
    node: Node,
    shared: Mapping[str, Cell],
    about_all: Mapping[str, Value],
    shaper: Shaper,
    *,
    sealed: bool = True,
    prior: str = "",
) -> MadeUp:
    """One series: an image that stands for all of them, or a list of images."""
    images: list[dict[str, Cell]] = []
    whole: dict[str, Value] = dict(about_all)
    for item in node.items:
        cells, about = given_image(item, shaper)
        images.append({**shared, **cells})
        whole |= about
    return MadeUp(name, gather(images), whole, sealed, prior)


def _uses(node: Node, study: Study, found: tuple[MadeUp, ...], shaper: Shaper) -> dict[str, str]:
    """Input → the series it should be, by the names of the case; `none` for an optional one that is missing."""
    inputs, given = [one.name for one in study.inputs], [one.name for one in found]
    uses: dict[str, str] = {}
    if not node.is_mapping:
        shaper.wrong(node, "uses holds an input and the series it should be, for example uses: {ct: thin}")
    for name, value in node.fields.items():
        uses[name] = shaper.text(value)
        if name not in inputs:
            shaper.wrong(value, f"uses: {name} is no input of the rule{nearest(name, inputs)}")
        elif uses[name] not in (*given, "none"):
            shaper.wrong(value, f"uses: {uses[name]} is no series of given{nearest(uses[name], given)}")
    return uses
