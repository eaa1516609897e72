"""What an example series says, as the lines of a rule: conditions that hold for it, and values for `try:`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from node import dryrun
from node.dryrun import FoundSeries
from node.facts import Facts
from node.route.aggregates import geometry, with_aggregates

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*|[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Clause:
    """One line under `when`: its condition, and the example's value for `try:`."""

    name: str
    condition: str
    given: str
    why: str = ""


def whole_facts(found: FoundSeries) -> Facts:
    """The facts of all images that are no localizers, with those about the whole."""
    facts = found.facts()
    image = [i for i in range(facts.size) if not _is_localizer(facts, i)] or list(range(facts.size))
    used = facts.only(image)
    context = dryrun.context_of(found, "UTC", datetime.now(UTC))
    return with_aggregates(used, context, geometry(used))


def _is_localizer(facts: Facts, image: int) -> bool:
    return any("LOCALIZER" in value for value in facts.cell("ImageType", image) or ())


def use_line(facts: Facts) -> Iterator[str]:
    """The line that leaves scouts out, where images say what they are."""
    if facts.seen("ImageType")[:1] and facts.seen("ImageType")[0].value:
        yield "use: {ImageType: {excludes: LOCALIZER}}    # scouts may share a series; they are left out and counted"


_SPLIT = ("AcquisitionNumber", "EchoTime", "b_value", "temporal_position")


def split_lines(facts: Facts) -> Iterator[str]:
    """Where an example holds several stacks: each is a part of its own (design §5)."""
    names = [name for name in _SPLIT if len(facts.seen(name)) > 1]
    if names:
        yield f"split: [{', '.join(names)}]".ljust(42) + " # the example holds several of them"
        yield "each_part: run"


def clauses(facts: Facts, modality: str) -> Iterator[Clause]:
    """The lines under `when`: what all images of the example say alike, with bounds where they are numbers."""
    yield Clause("Modality", quoted(modality), quoted(modality))
    for maker in (_body_part, _image_type, _acquisition, _thickness, plane, _slices, _description_like):
        made = maker(facts)
        if made is not None:
            yield made


def _same(facts: Facts, name: str) -> tuple[str, ...] | None:
    """The value that all images have; None where they differ or one lacks it."""
    seen = facts.seen(name)
    return seen[0].value if len(seen) == 1 and seen[0].value and all(seen[0].value) else None


def _body_part(facts: Facts) -> Clause | None:
    value = _same(facts, "BodyPartExamined")
    if value is None:
        return None
    return Clause(
        "BodyPartExamined",
        quoted(value[0]),
        quoted(value[0]),
        "often set by hand, or by the protocol's name",
    )


def _image_type(facts: Facts) -> Clause | None:
    """What the first three values have in common: pixels, examination, and the modality's own."""
    seen = [s.value for s in facts.seen("ImageType")]
    if not seen or not all(seen):
        return None
    values = [value for value in seen if value]
    common = [part for part in values[0][:3] if part and all(part in value for value in values)]
    if not common:
        return None
    given = ", ".join(quoted(part) for part in values[0] if part)
    told = ", ".join(quoted(part) for part in common)
    why = "so that processed images do not match" if "ORIGINAL" in common else ""
    return Clause("ImageType", f"{{has_all: [{told}]}}", f"[{given}]", why)


def _acquisition(facts: Facts) -> Clause | None:
    value = _same(facts, "MRAcquisitionType")
    return Clause("MRAcquisitionType", quoted(value[0]), quoted(value[0])) if value else None


def numbers(facts: Facts, name: str) -> list[float]:
    """All values of a number; empty where an image lacks it."""
    try:
        values = [float(seen.value[0]) for seen in facts.seen(name) if seen.value]
    except ValueError:
        return []
    return values if len(values) == len(facts.seen(name)) and all(map(math.isfinite, values)) else []


def _thickness(facts: Facts) -> Clause | None:
    values = numbers(facts, "SliceThickness")
    if not values or min(values) <= 0:
        return None
    most = math.ceil(max(values) * 2 - 1e-6) / 2
    return Clause(
        "SliceThickness",
        f"{{at_most: {most:g} mm}}",
        f"{max(values):g} mm",
        f"the example has {max(values):g} mm",
    )


def plane(facts: Facts) -> Clause | None:
    """The plane of the slices, where all lie in one."""
    value = _same(facts, "orientation")
    return Clause("orientation", value[0], value[0]) if value else None


def _slices(facts: Facts) -> Clause | None:
    values = numbers(facts, "slices")
    if not values or values[0] < 2:
        return None
    count = int(values[0])
    least = count // 20 * 10 if count >= 20 else max(2, count // 2)
    return Clause("slices", f"{{at_least: {least}}}", str(count), f"the example has {count}")


def _description_like(facts: Facts) -> Clause | None:
    """Its words, whatever stands between them; numbers change from patient to patient."""
    value = _same(facts, "SeriesDescription")
    words = re.findall(r"[^\W\d_]{3,}", value[0]) if value else []
    if not value or not words:
        return None
    pattern = f"*{'*'.join(words)}*"
    return Clause(
        "SeriesDescription",
        f"{{matches: {quoted(pattern)}}}",
        quoted(value[0]),
        "protocol names change: prefer tags",
    )


def quoted(text: str) -> str:
    """As YAML: in quotes where it is more than a word or a number."""
    return (
        text
        if _PLAIN.fullmatch(text) and text.lower() not in ("absent", "yes", "no", "null")
        else json.dumps(text, ensure_ascii=False)
    )
