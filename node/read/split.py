"""A series that holds several things → its parts, by what a rule names: keywords and facts of ours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from pydicom.datadict import tag_for_keyword

from node.errors import Misconfigured, Refused
from node.read.elements import attributes_of
from node.read.frames import Frame
from node.read.geometry import SAME_PLACE_MM, SamePlace, directions_of, orientation_of, position_of
from node.read.vendor import frame_facts

MOST_PARTS = 99
"""A rule that cuts a series into more has named the wrong thing."""
_PARALLEL = 2e-3
"""Difference of direction cosines (0.1°) below which slices are parallel: scanners round them differently."""
_FACTS = ("orientation", "b_value", "temporal_position")
_TELLING = (
    "b_value", "EchoTime", "temporal_position", "AcquisitionNumber", "ImageType", "TriggerTime",
    "InversionTime", "RepetitionTime", "FlipAngle", "TimeSlotVector", "EnergyWindowVector",
    "ComplexImageComponent", "ConvolutionKernel", "KVP", "EnergyWeightingFactor", "DiffusionDirectionality",
    "DiffusionGradientOrientation", "NominalCardiacTriggerDelayTime", "FrameReferenceTime",
    "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesDescription", "InstanceNumber",
)  # fmt: skip
"""What usually tells images at one place from each other, the best name first."""

Value = tuple[str, ...]
Key = tuple[Value, ...]


def part_frames(frames: Sequence[Frame], names: Sequence[str]) -> list[tuple[str, tuple[Frame, ...]]]:
    """The parts of *frames* with what tells each from the others, in ascending order of the values of *names*.

    Values are compared as numbers where they are, else as texts; what lacks a value comes last. Raises
    Refused where there are more than MOST_PARTS, Misconfigured where a name is none.
    """
    groups: dict[Key, list[Frame]] = {}
    columns = [column_of(frames, name) for name in names]
    for frame, key in zip(frames, zip(*columns, strict=True), strict=True):
        groups.setdefault(key, []).append(frame)
    if len(groups) > MOST_PARTS:
        raise Refused(
            f"`split: [{', '.join(names)}]` gives {len(groups)} parts, more than {MOST_PARTS}; name fewer or others"
        )
    keys = sorted(groups, key=lambda key: [rank_of(value) for value in key])
    differing = [i for i in range(len(names)) if len({key[i] for key in keys}) > 1]
    return [(", ".join(f"{names[i]} {said(key[i])}" for i in differing), tuple(groups[key])) for key in keys]


def column_of(frames: Sequence[Frame], name: str) -> list[Value]:
    """What each frame says of *name*, a keyword or a fact; `()` where it says nothing."""
    if name == "orientation":
        return _stacks(frames)
    return [_value(frame, name) for frame in frames]


def _value(frame: Frame, name: str) -> Value:
    """What one frame says of *name*, `()` where it says nothing."""
    if name in _FACTS:
        found = frame_facts(frame.header).get(name)
        return (_plain(found),) if found else ()
    if name.isidentifier():
        if tag_for_keyword(name) is None:
            raise Misconfigured(f"`split`: {name} is no DICOM keyword and no fact of ours")
        value = frame.header.get(name)
        if value is None or value == "":
            return ()
        many = isinstance(value, Sequence) and not isinstance(value, str)
        return tuple(_plain(str(v)) for v in (value if many else (value,)))
    cell = attributes_of(frame.header).get(name)  # a path, or a private element
    return tuple(_plain(v) for v in cell[0]) if cell else ()


def _plain(text: str) -> str:
    """A number in one form, so that 30, 30.0 and 30.000001 are one value."""
    number = _number(text)
    return text.strip() if number is None else format(number, ".6g")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def rank_of(value: Value) -> tuple[bool, list[tuple[bool, float, str]]]:
    """By which values are ordered: as numbers where they are, else as texts; what is absent last."""
    numbers = [(_number(text), text) for text in value]
    return not value, [(number is None, number or 0.0, text) for number, text in numbers]


def said(value: Value) -> str:
    """A value in words."""
    return "/".join(value) if value else "absent"


def _stacks(frames: Sequence[Frame]) -> list[Value]:
    """Per frame the name of its plane; with a number where parallel stacks of one name are several."""
    normals: list[np.ndarray] = []
    planes: list[str] = []
    member: list[int] = []
    for frame in frames:
        found = orientation_of(frame.header, frame.name)
        near = [i for i, known in enumerate(normals) if np.abs(known - found).max() <= _PARALLEL]
        if not near:
            normals.append(found)
            planes.append(frame_facts(frame.header).get("orientation", "oblique"))
        member.append(near[0] if near else len(normals) - 1)
    # Several oblique stacks are numbered by their direction, not by the order in which files came.
    ranked = sorted(range(len(normals)), key=lambda i: (planes[i], tuple(np.round(normals[i], 3))))
    names: dict[int, Value] = {}
    for i in ranked:
        same = [j for j in ranked if planes[j] == planes[i]]
        names[i] = (planes[i] if len(same) == 1 else f"{planes[i]} {same.index(i) + 1}",)
    return [names[i] for i in member]


def advice(frames: Sequence[Frame], refusal: SamePlace) -> Refused:
    """*refusal* with the `split` that would part *frames*, named from what really differs in them."""
    columns: dict[str, list[Value]] = {}
    for name in _TELLING:
        column = column_of(frames, name)
        if len(set(column)) > 1:
            columns[name] = column
    places = places_of(frames)
    for size in (1, 2):
        for names in combinations(columns, size):
            if _parts_well([columns[name] for name in names], places):
                return Refused(
                    f"{refusal}; narrow the rule with `use`, or part them with `split: [{', '.join(names)}]`"
                )
    some = ", ".join(list(columns)[:4])
    return Refused(
        f"{refusal}; narrow the rule with `use` or `split`"
        + (f" (they differ in {some}, which does not part them fully)" if some else
           " (no attribute that could tell them apart differs)")
    )  # fmt: skip


def places_of(frames: Sequence[Frame]) -> list[int]:
    """Per frame the number of its place along the normal, from 0."""
    normal = directions_of(orientation_of(frames[0].header, frames[0].name))[2]
    offsets = np.array([position_of(frame.header, frame.name) @ normal for frame in frames])
    order = np.argsort(offsets, kind="stable")
    steps = np.r_[False, np.diff(offsets[order]) >= SAME_PLACE_MM]
    places = np.empty(len(frames), int)
    places[order] = np.cumsum(steps)
    return [int(place) for place in places]


def _parts_well(columns: Sequence[Sequence[Value]], places: Sequence[int]) -> bool:
    """Whether no two images at one place share a part, and there are no more parts than that needs."""
    keys = list(zip(*columns, strict=True))
    apart = len(set(zip(keys, places, strict=True))) == len(keys)
    return apart and len(set(keys)) == max(Counter(places).values()) <= MOST_PARTS


def choose(
    parts: list[tuple[str, tuple[Frame, ...]]], each_part: str, split: str
) -> list[tuple[str, tuple[Frame, ...]]]:
    """The parts a rule wants: all (run, together), the one with most slices (largest, the first of equals).

    *refuse* raises Refused where there are several, naming them; *split* says by what.
    """
    if each_part == "largest":
        return [max(parts, key=lambda part: len(part[1]))]
    if each_part == "refuse" and len(parts) > 1:
        named = "; ".join(f"{label} ({len(frames)} images)" for label, frames in parts[:6])
        more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
        raise Refused(
            f"{split} gives {len(parts)} parts ({named}{more}); say `each_part: run` or `each_part: largest`"
        )
    return parts
