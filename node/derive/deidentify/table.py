"""PS3.15 2026c as data: Table E.1-1 (attributes), Table E.3.4-1 (content items), Table E.3.10-1 (safe private).

The rows are in the `.tsv` files beside this module, complete, in the order of their tags or codes; a cell holds
the action code of the column of that name, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from node.derive.deidentify import profile

EDITION = "PS3.15 2026c"
_OPTIONS = (*profile.RETAIN, *profile.CLEAN)
ODD, CURVES, OVERLAY_DATA, OVERLAY_COMMENTS = "odd", "50xxxxxx", "60xx3000", "60xx4000"
"""The rows of Table E.1-1 that stand for more than one tag."""


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute, or one content item of a structured report, and what is to be done with it."""

    name: str
    basic: str
    """The action of the Basic Profile: D, Z, X, U or one of the compound codes of Table E.1-1a."""
    options: Mapping[str, str]
    """Option → K or C, where the option says something of its own."""


@dataclass(frozen=True, slots=True)
class Private:
    """One private attribute that the standard thinks safe."""

    vr: str
    meaning: str


def _lines(name: str) -> Iterator[dict[str, str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    head, *rest = (line.split("\t") for line in text.splitlines())
    for line in rest:
        yield dict(zip(head, line, strict=True))


def _row(name: str, line: Mapping[str, str]) -> Row:
    return Row(name, line["basic"], {option: line[option] for option in _OPTIONS if line.get(option)})


@cache
def families() -> Mapping[str, Row]:
    """Every row of Table E.1-1 by its tag as the table writes it, without brackets."""
    return {line["tag"]: _row(line["name"], line) for line in _lines("attributes.tsv")}


@cache
def attributes() -> Mapping[int, Row]:
    """The rows that name one attribute, by its tag."""
    return {int(tag, 16): row for tag, row in families().items() if "x" not in tag and tag != ODD}


@cache
def content_items() -> Mapping[tuple[str, str, str], Row]:
    """Coding scheme, code and value type of a concept name → the row of Table E.3.4-1."""
    found = _lines("content_items.tsv")
    return {(line["scheme"], line["code"], line["type"]): _row(line["meaning"], line) for line in found}


@cache
def safe_private() -> Mapping[tuple[int, int, str], Private]:
    """Group, element within its block, and private creator → the row of Table E.3.10-1."""
    return {
        (int(line["group"], 16), int(line["element"], 16), line["creator"]): Private(
            line["vr"], line["meaning"]
        )
        for line in _lines("private.tsv")
    }
