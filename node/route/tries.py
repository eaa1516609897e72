"""`try:` cases: a made-up series in a few words, and what the rule should do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal

from node.facts import Facts, gather
from node.model import Cell, Value
from node.route.keywords import OURS, Attribute, lookup
from node.route.values import Kind, stored, written
from node.shape import Node, Shaper

WHOLE = frozenset(
    name for name, fact in OURS.items() if fact.whole_series or name in ("local_time", "weekday")
)


@dataclass(frozen=True, slots=True)
class Try:
    """One case: facts in, and whether the rule should run."""

    facts: Facts
    whole: Mapping[str, Value] = field(default_factory=dict)
    """Facts about the series as a whole, as given."""
    runs: bool = True
    because: str = ""
    """The clause that should decide, where the case names one."""
    line: int = 0
    column: int = 0


def parse_tries(node: Node, shaper: Shaper) -> tuple[Try, ...]:
    """The cases under `try:`; mistakes are noted in *shaper*."""
    if not node.is_list:
        shaper.wrong(
            node, "try holds a list, for example try: [{given: {Modality: CT}, expect: {runs: yes}}]"
        )
        return ()
    return tuple(_try(item, shaper) for item in node.items)


def _try(node: Node, shaper: Shaper) -> Try:
    fields = shaper.fields(node, ("given", "expect"), ("given", "expect"))
    instances: list[dict[str, Cell]] = []
    whole: dict[str, Value] = {}
    for given in fields["given"].items if "given" in fields else ():
        cells, about_all = given_image(given, shaper)
        instances.append(cells)
        whole |= about_all
    runs, because = True, ""
    if "expect" in fields:
        expected = shaper.fields(fields["expect"], ("runs", "because"), ("runs",))
        runs = shaper.yes_no(expected["runs"]) if "runs" in expected else True
        because = shaper.text(expected["because"]) if "because" in expected else ""
        if because and runs:
            shaper.wrong(
                expected["because"], "because says why a rule does not run; this case expects that it runs"
            )
    return Try(gather(instances), whole, runs, because, node.place.line, node.place.column)


def given_image(node: Node, shaper: Shaper) -> tuple[dict[str, Cell], dict[str, Value]]:
    """One made-up image (it stands for all of them when it is the only one)."""
    cells: dict[str, Cell] = {}
    whole: dict[str, Value] = {}
    if not node.is_mapping:
        shaper.wrong(node, "given holds attributes and their values, for example given: {Modality: CT}")
    for key, value in node.fields.items():
        try:
            attribute = lookup(key)
        except ValueError as error:
            shaper.wrong(value, str(error))
            continue
        if value.is_text and not value.quoted and value.text == "absent":
            continue
        parts = tuple(_text(attribute, item, shaper) for item in value.items)
        if attribute.name in WHOLE:
            whole[attribute.name] = parts
        if attribute.name not in WHOLE or attribute.name == "frames":
            cells[attribute.name] = (parts if any(parts) else (),)
    return cells, whole


def _text(attribute: Attribute, node: Node, shaper: Shaper) -> str:
    """A value as a header would hold it: `1 mm` is `1`."""
    if not node.is_text:
        shaper.wrong(node, f"{attribute.name}: expected a value or a list of values")
        return ""
    if not node.text.strip() or attribute.kind in (Kind.OPAQUE, Kind.ANY):
        return node.text
    if attribute.kind is Kind.AGE and stored(attribute.kind, node.text) is not None:
        return node.text
    try:
        value = written(attribute.kind, attribute.unit, node.text, attribute.name)
    except ValueError as error:
        shaper.wrong(node, str(error))
        return ""
    return _as_header(value, node.text)


def _as_header(value: object, text: str) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, time):
        return value.strftime("%H%M%S.%f")
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.strftime("%Y%m%d")
    return text.strip()
