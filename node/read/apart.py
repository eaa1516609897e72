"""What tells the volumes of one series apart: what was varied, else what else differs, else their order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from node.errors import Refused
from node.read.alike import gathered
from node.read.diffusion import directionality_of, told_apart_by
from node.read.frames import Frame
from node.read.moments import CLOCKS, clock_of
from node.read.split import Key, Value, column_of, places_of, rank_of, said

VARIED = {
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


def volumes_of(frames: Sequence[Frame]) -> tuple[tuple[str, ...], list[tuple[Key, tuple[Frame, ...]]]]:
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
    written = {name: _column(frames, name) for name in VARIED}
    meant = {name: gathered(name, column) for name, column in written.items()}
    varied = {name: column for name, column in meant.items() if _varies(column, places)}
    as_written = {name: column for name, column in written.items() if _varies(column, places)}
    for columns in (varied, as_written, *(_without(varied, name) for name in _FLOATING if name in varied)):
        if _whole(list(columns.values()), places):
            return [VARIED[name] for name in columns], list(columns.values())
    gated = _without(varied, _GATED)
    for columns in (varied, gated) if _GATED in varied else (varied,):
        names, chosen = [VARIED[name] for name in columns], list(columns.values())
        further = None if _apart(chosen, places) else _further(frames, chosen, places)
        if further and _whole([*chosen, further[1]], places):
            return [*names, further[0]], [*chosen, further[1]]
    names, chosen = [VARIED[name] for name in varied], list(varied.values())
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
                f"the volume with {label_of(names, key)} has {len(members)} of the {whole} slice positions of the "
                "series; are images missing? Narrow the rule with `use` if it belongs to another acquisition"
            )


def label_of(names: Sequence[str], key: Key) -> str:
    """A volume's values in words."""
    return ", ".join(f"{name} {said(value)}" for name, value in zip(names, key, strict=True))
