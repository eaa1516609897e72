"""`split:` and `each_part:` → what tells the parts of a series apart, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.route.keywords import OURS, lookup
from node.route.values import Kind
from node.shape import Node, Shaper

FACTS = ("orientation", "b_value", "temporal_position")
"""Facts of ours that differ from image to image; any DICOM keyword may stand beside them."""
EACH_PART = {
    "run": "every part is processed by itself; results say which",
    "largest": "only the part with the most slices is processed",
    "refuse": "a series with more than one part is not processed",
    "together": "the steps get all parts, as part_1, part_2 … in ascending order of the split values",
}


@dataclass(frozen=True, slots=True)
class Split:
    """How a series is divided before it is processed; by default not at all."""

    names: tuple[str, ...] = ()
    each_part: str = "refuse"

    @property
    def together(self) -> bool:
        """Whether steps may name parts."""
        return self.each_part == "together"

    def canonical(self) -> list[Any]:
        """What it means for the identity of outputs; empty where nothing is split."""
        return [list(self.names), self.each_part] if self.names else []


UNDIVIDED = Split()


def parse_split(fields: Mapping[str, Node], shaper: Shaper) -> Split:
    """The split of a rule's *fields*; mistakes are noted in *shaper*."""
    names: list[str] = []
    for item in fields["split"].items if "split" in fields else ():
        name = shaper.text(item)
        if name in names:
            shaper.wrong(item, f"split: {name} is named twice")
        elif name and _splits(name, item, shaper):
            names.append(name)
    if "split" in fields and not fields["split"].items:
        shaper.wrong(fields["split"], f"split holds a list such as [{', '.join(FACTS)}, EchoTime]")
    each_part = "run" if names else "refuse"
    if "each_part" in fields:
        each_part = shaper.choice(fields["each_part"], tuple(EACH_PART), each_part)
        if "split" not in fields:
            shaper.wrong(fields["each_part"], "each_part says what becomes of the parts; add split:")
    return Split(tuple(names), each_part)


def _splits(name: str, item: Node, shaper: Shaper) -> bool:
    if name in FACTS:
        return True
    if name in OURS:
        shaper.wrong(item, f"split: {name} is the same for every image; known facts are {', '.join(FACTS)}")
        return False
    try:
        found = lookup(name)
    except ValueError as error:
        shaper.wrong(item, f"split: {error}")
        return False
    if not name.isalnum() or found.kind is Kind.OPAQUE:
        shaper.wrong(item, f"split: {name} cannot tell images apart; use a DICOM keyword with a plain value")
        return False
    return True
