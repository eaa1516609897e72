"""Contrast over time: what was added, how much, how it comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Map, Mask, Number, Refused, Stack, Unit, Volume
from node.operators.codes import PERCENT, PERCENT_ENHANCEMENT, RATIO, SECONDS, SIGNAL_ENHANCEMENT_RATIO
from node.operators.mr.background import measured, refuse_incomparable, tissue

Percent = Annotated[float, Unit("%")]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

TIME_TO_PEAK = Code("113069", "DCM", "Time To Peak")  # CID 4109

_OVER_TIME = frozenset((
    "temporal_position", "trigger_time", "acquisition_number", "acquired", "frame_reference_time", "content_time",
    "order",
))  # fmt: skip
"""What tells volumes apart that were taken one after the other, by `Stack.by`."""


def dce_subtract(stack: Stack, *, before: int = 1, clip_negative: bool = False) -> Stack:
    """Subtract the volume before contrast from each later one: one volume per later time point.

    *before* volumes, from the first, were taken before contrast; their mean is subtracted. With *clip_negative*
    differences below 0 become 0. Nothing is registered: where the patient moved, `register_rigid` comes first.

    Raises Refused where the volumes do not follow each other in time, or none is left.
    """
    volumes = _in_time(stack, before + 1)
    native, rest = _native(volumes, before), volumes[before:]
    made = []
    for volume in rest:
        array = volume.array.astype(np.float32) - native.array
        if clip_negative:
            np.maximum(array, 0, out=array)
        valid = measured((volume, native))
        if valid is not None:
            array[~valid] = 0
        facts = {k: v for k, v in volume.facts.items() if k != "window"}
        description = f"{_point(volume, volumes)} minus {_before(before)}"
        made.append(replace(volume, array=array, valid=valid, facts={**facts, "description": description}))
    return Stack(tuple(made), stack.by, stack.facts)


def percent_enhancement(
    stack: Stack, mask: Mask | None = None, *, before: int = 1, at: int = 2, above: Number | None = None
) -> Map:
    """Map the percent enhancement 100 · (S1 - S0) / S0 at one time point.

    S0 is the mean of the first *before* volumes, S1 volume number *at*, from 1. A voxel is valid within *mask*,
    or where S0 is *above* a level (default: half of Otsu's threshold): where there is next to no signal, any
    noise is a large percentage.

    Raises Refused where the volumes do not follow each other in time or there is no volume *at*.
    """
    volumes = _in_time(stack, before + 1)
    native, one = _native(volumes, before), _number(volumes, at, before, "at")
    valid = _within(tissue(native, mask, above), native, one)
    array = _enhancement(one, native, valid)
    said = f"100 (S1 - S0) / S0; S0: {_before(before)}, S1: {_point(one, volumes)}"
    return _map(array, PERCENT_ENHANCEMENT, PERCENT, "ENHANCEMENT", valid, native, said)


def signal_enhancement_ratio(
    stack: Stack,
    mask: Mask | None = None,
    *,
    before: int = 1,
    early: int = 2,
    late: int | None = None,
    above: Number | None = None,
    least_enhancement: Percent = 0.0,
) -> Map:
    """Map the signal enhancement ratio (S1 - S0) / (S2 - S0): above 1 the contrast washes out, below it still comes.

    S0 is the mean of the first *before* volumes, S1 volume number *early* (from 1), S2 volume number *late*
    (default: the last), as Hylton and others define it for breast MRI (Li, Radiology 2008, PMC5410941).
    A voxel is valid within *mask*, or where S0 is *above* a level (default: half of Otsu's threshold), where the
    late signal lies above S0, and where the early enhancement is at least *least_enhancement* percent: a ratio of
    two small differences is noise.

    Raises Refused where the volumes do not follow each other in time, and where early and late are one volume.
    """
    volumes = _in_time(stack, before + 2)
    native, one = _native(volumes, before), _number(volumes, early, before, "early")
    other = _number(volumes, len(volumes) if late is None else late, before, "late")
    if volumes.index(other) <= volumes.index(one):
        raise Refused("`late` must name a volume after `early`")
    valid = _within(tissue(native, mask, above), native, one, other)
    gain, later = one.array - native.array, other.array - native.array
    valid &= later > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        valid &= gain >= np.float32(least_enhancement / 100) * native.array
        array = np.divide(gain, later, out=np.zeros_like(gain), where=valid)
    said = (
        f"(S1 - S0) / (S2 - S0); S0: {_before(before)}, S1: {_point(one, volumes)}, S2: {_point(other, volumes)}; "
        f"early enhancement of {least_enhancement:g} % or more"
    )
    return _map(array, SIGNAL_ENHANCEMENT_RATIO, RATIO, "SER", valid, native, said)


def time_to_peak(
    stack: Stack,
    mask: Mask | None = None,
    *,
    before: int = 1,
    above: Number | None = None,
    least_enhancement: Percent = 20.0,
) -> Map:
    """Map when the signal is highest, in seconds from the beginning of the first volume.

    Times are those of the acquisition, as the images state them; the peak is one of the volumes acquired, nothing
    is interpolated. A voxel is valid within *mask*, or where the signal before contrast (the mean of the first
    *before* volumes) is *above* a level (default: half of Otsu's threshold), and where it rises by at least
    *least_enhancement* percent: elsewhere the highest of several noisy values says nothing.

    Raises Refused where the images do not state when they were acquired, or say it of several volumes at once.
    """
    volumes = _in_time(stack, before + 1)
    if any("time" not in volume.facts for volume in volumes):
        raise Refused(
            "when the volumes were acquired is not stated: none of Acquisition Time, Trigger Time or Temporal "
            "Position Time Offset tells them apart (Content Time is when an image was made); only the order is known"
        )
    _refuse_ties(volumes)
    native = _native(volumes, before)
    peak, when = native.array.astype(np.float32), np.zeros(native.array.shape, np.float32)
    for volume in volumes[before:]:
        higher = volume.array > peak
        peak[higher] = volume.array[higher]
        when[higher] = float(volume.facts["time"])
    valid = _within(tissue(native, mask, above), *volumes)
    valid &= peak > native.array  # what never has signal has no peak
    valid &= peak - native.array >= np.float32(least_enhancement / 100) * native.array
    when[~valid] = 0
    times = ", ".join(f"{v.facts['time']:g}" for v in volumes)
    said = (
        f"highest signal, s from the first volume ({volumes[0].facts.get('time_from', 'stated')}); "
        f"volumes at {times} s; enhancement of {least_enhancement:g} % or more"
    )
    return _map(when, TIME_TO_PEAK, SECONDS, "TIME TO PEAK", valid, native, said)


def _refuse_ties(volumes: Sequence[Volume]) -> None:
    times = [float(volume.facts["time"]) for volume in volumes]
    tied = sorted({time for time in times if times.count(time) > 1})
    if tied:
        raise Refused(
            f"{times.count(tied[0])} volumes are said to begin at {tied[0]:g} s "
            f"({volumes[0].facts.get('time_from', 'as stated')}), so when the signal is highest is unknown; narrow the "
            "rule with `use` if they belong to different acquisitions"
        )


def _in_time(stack: Stack, least: int) -> tuple[Volume, ...]:
    """The volumes in the order of time. Raises Refused where something else than time was varied."""
    varied = [name for name in stack.by if name not in _OVER_TIME]
    if varied:
        raise Refused(
            f"the volumes differ in {', '.join(varied)}, so they are no series over time; narrow the rule with `use` "
            "or `split`"
        )
    if len(stack.volumes) < least:
        raise Refused(f"{len(stack.volumes)} volumes were acquired; at least {least} are needed")
    refuse_incomparable(stack.volumes)
    _refuse_kinds(stack.volumes)
    if all("time" in volume.facts for volume in stack.volumes):
        return tuple(sorted(stack.volumes, key=lambda volume: float(volume.facts["time"])))
    return stack.volumes


def _refuse_kinds(volumes: Sequence[Volume]) -> None:
    """Refuse what is of several kinds, as water and fat of a Dixon series: they differ in more than time."""
    kinds = {"\\".join(v.facts["image_type"]) for v in volumes if v.facts.get("image_type")}
    if len(kinds) > 1:
        raise Refused(
            f"the volumes are of several kinds (Image Type {' and '.join(sorted(kinds))}), so they differ in more than "
            "time; narrow the rule with `use`"
        )


def _native(volumes: Sequence[Volume], before: int) -> Volume:
    if before < 1:
        raise Refused(f"before {before} is out of range: at least the first volume is without contrast")
    first = volumes[0]
    if before == 1:
        return first
    array = (
        sum((v.array.astype(np.float32) for v in volumes[1:before]), first.array.astype(np.float32)) / before
    )
    return replace(first, array=array, valid=measured(volumes[:before]))


def _number(volumes: Sequence[Volume], number: int, before: int, option: str) -> Volume:
    if not before < number <= len(volumes):
        raise Refused(
            f"{option} {number} is out of range: {len(volumes)} volumes were acquired, the first {before} before "
            "contrast"
        )
    return volumes[number - 1]


def _enhancement(volume: Volume, native: Volume, valid: Bools) -> Floats:
    array = volume.array.astype(np.float32) - native.array
    valid &= native.array > 0
    return np.divide(array * 100, native.array, out=np.zeros_like(array), where=valid)


def _within(inside: Bools, *volumes: Volume) -> Bools:
    valid = measured(volumes)
    return inside if valid is None else inside & valid


def _point(volume: Volume, volumes: Sequence[Volume]) -> str:
    number = f"volume {volumes.index(volume) + 1} of {len(volumes)}"
    return f"{number} at {volume.facts['time']:g} s" if "time" in volume.facts else number


def _before(before: int) -> str:
    return "the first volume" if before == 1 else f"the mean of the first {before} volumes"


def _map(
    array: Floats, quantity: Code, unit: Code, label: str, valid: Bools, native: Volume, said: str
) -> Map:
    if not valid.any():
        raise Refused(f"no voxel enhances as asked ({said}); there is nothing to map")
    kept = {k: v for k, v in native.facts.items() if k in ("modality", "body_part", "frame_of_reference")}
    facts = {**kept, "description": said}
    return Map(array, native.affine, quantity, unit, None if valid.all() else valid, label, facts)
