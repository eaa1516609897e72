"""A series in which the same slices were taken several times → a Stack: diffusion, contrast, echoes.

What was varied tells the volumes apart: every attribute of the acquisition that has more than one value at
one place. Where that is not enough (repetitions, phases of contrast) the next attribute that tells all of them
apart is taken, and last the order in which the images were acquired.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from node.errors import Refused
from node.operator import Stack, Volume
from node.read.alike import TOLERANCES, gathered, same_gradient, stated
from node.read.decay import Scan
from node.read.diffusion import directionality_of, gradient_of, told_apart_by
from node.read.frames import Frame, sources
from node.read.kinds import frames_of, kind_of
from node.read.loaded import Loaded, Part
from node.read.moments import CLOCKS, clock_of, moments_of
from node.read.philips import comparable
from node.read.split import Key, Value, choose, column_of, part_frames, places_of, rank_of, said
from node.read.volume import volume_of

_VARIED = {
    "b_value": "b_value",
    "gradient": "gradient",
    "directionality": "directionality",
    "EchoTime": "echo_time",
    "InversionTime": "inversion_time",
    "RepetitionTime": "repetition_time",
    "FlipAngle": "flip_angle",
    "temporal_position": "temporal_position",
}
"""What an acquisition varies on purpose → how `Stack.by` calls it."""
_FLOATING = ("RepetitionTime", "InversionTime", "EchoTime", "FlipAngle")
"""What may float from image to image without being varied."""
_GATED = "RepetitionTime"
"""The one that floats with the patient's heart or breath, also where only times tell the volumes apart."""
_TELLING = {
    "ImageType": "image_type",
    "TriggerTime": "trigger_time",
    "AcquisitionNumber": "acquisition_number",
    "AcquisitionDateTime": "acquired",
    "AcquisitionTime": "acquired",
    "FrameReferenceTime": "frame_reference_time",
    "ContentTime": "content_time",
}
"""What tells volumes apart where nothing, or not enough, was varied; the best first."""
_CHRONICLE = ("AcquisitionDateTime", "AcquisitionTime", "TriggerTime", "ContentTime", "InstanceNumber")
"""By what images of one place are put in order where nothing tells whole volumes apart."""
ORDER = "order"
MOST = 999
"""A series with more volumes than that is told apart by the wrong thing."""


def stacks(paths: Sequence[Path], split: Sequence[str], each_part: str) -> Iterator[Part[Stack]]:
    """The parts of a series, each a stack; one where *split* names nothing. Raises what `volumes` does."""
    opened = sources(paths)
    kind = kind_of(opened)
    frames = frames_of(opened)
    parts = [("", frames)]
    if split:
        parts = choose(part_frames(frames, split), each_part, f"`split: [{', '.join(split)}]`")
    return iter([Part(label, partial(_stack, of_part, kind, label)) for label, of_part in parts])


def _stack(frames: Sequence[Frame], kind: str, label: str) -> Loaded[Stack]:
    """Read *frames* as volumes on one grid. Raises Refused where they cannot be told apart or do not match."""
    by, groups = _groups(frames)
    scan = Scan([frame.header for frame in frames])
    read = [volume_of(group, kind, _label(by, key), scan) for key, group in groups]
    _refuse_other_grids([one.value for one in read], [one.label for one in read])
    times, source = moments_of([one.headers for one in read])
    volumes = comparable([(one.value, one.headers) for one in read])
    for number, (volume, (_, group)) in enumerate(zip(volumes, groups, strict=True)):
        facts: dict[str, Any] = {
            **_floating(group, volume),
            **volume.facts,
            **_directions(group),
            "part": number,
        }
        if times:
            facts |= {"time": times[number], "time_from": source}
        volumes[number] = replace(volume, facts=facts)
    stack = Stack(tuple(volumes), by, _common([volume.facts for volume in volumes]))
    headers = tuple(header for one in read for header in one.headers)
    numbers = tuple(number for one in read for number in one.frames)
    return Loaded(stack, headers, numbers, label, sizes=tuple(len(one.headers) for one in read))


def _common(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all volumes say alike."""
    first, *others = facts
    return {k: v for k, v in first.items() if k != "part" and all(other.get(k) == v for other in others)}


def _floating(group: Sequence[Frame], volume: Volume) -> dict[str, Any]:
    """What the slices of one volume mean as one value and write as several."""
    silent = [name for name in TOLERANCES if _VARIED[name] not in volume.facts and name != "gradient"]
    found = {_VARIED[name]: stated([frame.header for frame in group], name) for name in silent}
    return {name: value for name, value in found.items() if value is not None}


def _directions(group: Sequence[Frame]) -> dict[str, Any]:
    """Gradient and directionality of one volume, where its slices agree."""
    gradients = [gradient_of(frame.header) for frame in group]
    alike = all(same_gradient(gradient, gradients[0]) for gradient in gradients)
    kinds = {directionality_of(frame.header) for frame in group}
    found: dict[str, Any] = {"gradient": gradients[0]} if alike else {}
    if len(kinds) == 1:
        found["directionality"] = next(iter(kinds))
    return {name: value for name, value in found.items() if value}


def _groups(frames: Sequence[Frame]) -> tuple[tuple[str, ...], list[tuple[Key, tuple[Frame, ...]]]]:
    """What tells the volumes apart, and each with the values that name it, in ascending order."""
    places = places_of(frames)
    names, chosen = _chosen(frames, places)
    groups: dict[Key, list[int]] = {}
    for i in range(len(frames)):
        groups.setdefault(tuple(column[i] for column in chosen), []).append(i)
    if len(groups) > MOST:
        raise Refused(f"the series holds {len(groups)} volumes by {', '.join(names)}, more than {MOST}")
    _refuse_holes(names, groups, places)
    keys = sorted(groups, key=lambda key: [rank_of(value) for value in key])
    return tuple(names), [(key, tuple(frames[i] for i in groups[key])) for key in keys]


def _chosen(frames: Sequence[Frame], places: Sequence[int]) -> tuple[list[str], list[list[Value]]]:
    """Names and columns that tell the volumes apart, each with one image in every place where that can be had.

    Values that are meant as one are one, unless only their differences tell the volumes apart. What a scanner
    lets float from image to image (a gated repetition time) fills no whole volumes, and is left out where the
    others do.
    """
    written = {name: _column(frames, name) for name in _VARIED}
    meant = {name: gathered(name, column) for name, column in written.items()}
    varied = {name: column for name, column in meant.items() if _varies(column, places)}
    as_written = {name: column for name, column in written.items() if _varies(column, places)}
    for columns in (varied, as_written, *(_without(varied, name) for name in _FLOATING if name in varied)):
        if _whole(list(columns.values()), places):
            return [_VARIED[name] for name in columns], list(columns.values())
    gated = _without(varied, _GATED)
    for columns in (varied, gated) if _GATED in varied else (varied,):
        names, chosen = [_VARIED[name] for name in columns], list(columns.values())
        further = None if _apart(chosen, places) else _further(frames, chosen, places)
        if further and _whole([*chosen, further[1]], places):
            return [*names, further[0]], [*chosen, further[1]]
    names, chosen = [_VARIED[name] for name in varied], list(varied.values())
    if not _apart(chosen, places):
        name, column = _needed(_further(frames, chosen, places), places)
        names, chosen = [*names, name], [*chosen, column]
    return names, chosen


def _without(columns: Mapping[str, list[Value]], name: str) -> dict[str, list[Value]]:
    return {other: column for other, column in columns.items() if other != name}


def _whole(columns: Sequence[Sequence[Value]], places: Sequence[int]) -> bool:
    """Whether the columns tell volumes apart that have one image in every place each."""
    if not _apart(columns, places):
        return False
    sizes = Counter(zip(*columns, strict=True)) if columns else Counter({(): len(places)})
    return set(sizes.values()) == {len(set(places))}


def _column(frames: Sequence[Frame], name: str) -> list[Value]:
    if name == "gradient":
        return [told_apart_by(frame.header) for frame in frames]
    if name == "directionality":
        return [tuple(filter(None, (directionality_of(frame.header),))) for frame in frames]
    return column_of(frames, name)


def _told(frames: Sequence[Frame], keyword: str) -> list[Value]:
    """What tells images apart, times with their date."""
    if keyword in CLOCKS:
        return clock_of([frame.header for frame in frames], keyword)
    return column_of(frames, keyword)


def _varies(column: Sequence[Value], places: Sequence[int]) -> bool:
    """Whether one place has several values: what differs from slice to slice only was not varied."""
    first: dict[int, Value] = {}
    return any(first.setdefault(place, value) != value for place, value in zip(places, column, strict=True))


def _apart(columns: Sequence[Sequence[Value]], places: Sequence[int]) -> bool:
    """Whether no two images of one place have all values in common."""
    keys = list(zip(*columns, places, strict=True))
    return len(set(keys)) == len(keys)


def _further(
    frames: Sequence[Frame], chosen: Sequence[Sequence[Value]], places: Sequence[int]
) -> tuple[str, list[Value]] | None:
    """One more name and column with which nothing is left in one place; None where there is none."""
    most = max(Counter(places).values())
    for keyword, name in _TELLING.items():
        column = _told(frames, keyword)
        keys = set(zip(*chosen, column, strict=True))
        if _apart([*chosen, column], places) and len(keys) == most:
            return name, column
    for keyword in _CHRONICLE:
        ranks = _ranks(frames, chosen, places, keyword)
        if ranks is not None:
            return ORDER, ranks
    return None


def _needed(further: tuple[str, list[Value]] | None, places: Sequence[int]) -> tuple[str, list[Value]]:
    if further is not None:
        return further
    raise Refused(
        f"{max(Counter(places).values())} images lie in one place and nothing tells which of them belong together: no "
        "b-value, time, echo, acquisition or instance number does; narrow the rule with `use`"
    )


def _ranks(
    frames: Sequence[Frame], chosen: Sequence[Sequence[Value]], places: Sequence[int], keyword: str
) -> list[Value] | None:
    """Each image's number among those of its place that nothing else tells apart, by *keyword*.

    None where that is not stated for all, or where it would mix volumes: the second image of one slice must
    come after the first image of every slice, or the images of each slice must follow each other.
    """
    numbers = [_number(value) for value in _told(frames, keyword)]
    if any(number is None for number in numbers):
        return None
    alike: dict[Key, list[int]] = {}
    for i, key in enumerate(zip(*chosen, [(str(place),) for place in places], strict=True)):
        alike.setdefault(tuple(key), []).append(i)
    ranks = [0] * len(frames)
    for members in alike.values():
        ordered = sorted(members, key=lambda i: numbers[i] or 0.0)
        if len({numbers[i] for i in members}) < len(members):
            return None
        for rank, i in enumerate(ordered):
            ranks[i] = rank
    told = [number or 0.0 for number in numbers]
    if not (_one_after_the_other(told, ranks) or _one_after_the_other(told, places)):
        return None
    return [(str(rank + 1),) for rank in ranks]


def _one_after_the_other(numbers: Sequence[float], groups: Sequence[int]) -> bool:
    """Whether the groups cover ranges of *numbers* that do not overlap."""
    spans: dict[int, list[float]] = {}
    for number, group in zip(numbers, groups, strict=True):
        span = spans.setdefault(group, [number, number])
        span[0], span[1] = min(span[0], number), max(span[1], number)
    ordered = sorted(spans.values())
    return all(one[1] < other[0] for one, other in itertools.pairwise(ordered))


def _number(value: Value) -> float | None:
    """A number, or a date and time as one."""
    try:
        return float(value[0])
    except (IndexError, ValueError):
        return None


def _refuse_holes(names: Sequence[str], groups: dict[Key, list[int]], places: Sequence[int]) -> None:
    whole = len(set(places))
    for key, members in groups.items():
        if len(members) != whole:
            raise Refused(
                f"the volume with {_label(names, key)} has {len(members)} of the {whole} slice positions of the "
                "series; are images missing? Narrow the rule with `use` if it belongs to another acquisition"
            )


def _label(names: Sequence[str], key: Key) -> str:
    return ", ".join(f"{name} {said(value)}" for name, value in zip(names, key, strict=True))


def _refuse_other_grids(volumes: Sequence[Volume], labels: Sequence[str]) -> None:
    for volume, label in zip(volumes[1:], labels[1:], strict=True):
        if volume.unit != volumes[0].unit:
            raise Refused(
                f"the volume with {label} is in {volume.unit.value}, the first in {volumes[0].unit.value}"
            )
        if not volume.same_grid(volumes[0]):
            raise Refused(
                f"the volume with {label} lies on another grid than the first; they cannot be compared"
            )
