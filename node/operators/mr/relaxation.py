"""Relaxation times: T2 or T2* from several echoes, T1 from several flip angles or inversion times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Map, Mask, Number, Refused, Stack, Unit, Volume
from node.operators.mr.background import listed, measured, refuse_incomparable, tissue
from node.operators.mr.inversion import LEAST_TIMES, inversion_times

Ms = Annotated[float, Unit("ms")]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

T1 = Code("113063", "DCM", "T1")  # CID 7180
T2 = Code("113065", "DCM", "T2")  # CID 7180
T2_STAR = Code("113064", "DCM", "T2*")  # CID 7180
MS = Code("ms", "UCUM", "millisecond")
_QUANTITIES = {"spin": (T2, "T2"), "gradient": (T2_STAR, "T2 STAR")}


def t2_map(
    stack: Stack,
    mask: Mask | None = None,
    *,
    skip_first: int = 0,
    echo: Literal["stated", "spin", "gradient"] = "stated",
    longest: Ms = 3000.0,
    above: Number | None = None,
) -> Map:
    """Map T2, or T2* of gradient echoes: ln S = ln S0 - TE / T2 by least squares, each echo weighted with S².

    The weights undo what the logarithm does to noise. *skip_first* leaves out the first echoes, which stimulated
    echoes darken in trains. Whether it is T2 or T2* follows from the images' Scanning Sequence (spin or gradient
    echo), or from *echo* where they say neither. A voxel is valid within *mask*, or where the first echo used is
    *above* a level (default: half of Otsu's threshold), where the signal decays, and where T2 is at most *longest*.

    Raises Refused where fewer than two echoes are left, where something else was varied too, and where the kind of
    echo is unknown.
    """
    volumes = _varied(stack, "echo_time", "echo times")[max(skip_first, 0) :]
    if len(volumes) < 2:
        raise Refused(f"{len(volumes)} echoes are left after skipping {skip_first}; T2 needs two or more")
    quantity, label = _QUANTITIES[_kind_of_echo(volumes, echo)]
    inside = _positive(tissue(volumes[0], mask, above), volumes)
    times = np.array([float(v.facts["echo_time"]) for v in volumes])
    found = np.zeros(inside.shape)
    for k in range(len(found)):
        signals = np.stack([v.array[k] for v in volumes]).astype(np.float64)
        rate = -_weighted_slope(times, signals, inside[k])
        inside[k] &= rate * longest >= 1
        np.divide(1, rate, out=found[k], where=inside[k])
    said = f"ln S over TE {listed(times)} ms, weighted with the square of S; T2 up to {longest:g} ms"
    return _map(found, quantity, label, inside, volumes[0], said)


def t1_map(
    stack: Stack, mask: Mask | None = None, *, longest: Ms = 5000.0, above: Number | None = None
) -> Map:
    """Map T1 from spoiled gradient echoes at several flip angles, or from several inversion times.

    Flip angles: S / sin α over S / tan α is a line of slope exp(-TR / T1) (Gupta 1977; Deoni 2003,
    doi:10.1002/mrm.10407), by least squares; the angles are taken as prescribed, so where the transmitted field is
    uneven, T1 is wrong by the square of it. Inversion times: |a + b exp(-TI / T1)|, the sign of the signals before
    the minimum restored (Barral 2010, doi:10.1002/mrm.22497), which needs no perfect inversion. A voxel is valid
    within *mask*, or where the brightest volume is *above* a level (default: half of Otsu's threshold), and where
    T1 is at most *longest*.

    Raises Refused where neither was varied alone, where flip angles are not of a spoiled gradient echo with one
    repetition time, and with fewer than two flip angles or four inversion times.
    """
    if "flip_angle" in stack.by:
        volumes = _varied(stack, "flip_angle", "flip angles")
        return _of_flip_angles(volumes, mask, longest, above)
    if "inversion_time" in stack.by:
        volumes = _varied(stack, "inversion_time", "inversion times")
        return _of_inversion(volumes, mask, longest, above)
    raise Refused(
        f"neither flip angle nor inversion time was varied (the volumes differ in {', '.join(stack.by) or 'nothing'}): "
        "T1 cannot be mapped from them"
    )


def _of_flip_angles(volumes: Sequence[Volume], mask: Mask | None, longest: float, above: float | None) -> Map:
    repetition = _repetition_time(volumes)
    kinds = {(v.facts.get("echo"), v.facts.get("spoiled")) for v in volumes}
    if kinds != {("gradient", "yes")}:
        raise Refused(
            "the flip angles are not stated to be of a spoiled gradient echo (Scanning Sequence GR with Sequence "
            "Variant SP, or Spoiling); T1 follows from that only"
        )
    angles = np.radians([float(v.facts["flip_angle"]) for v in volumes])
    inside = _positive(_bright(volumes, mask, above), volumes)
    found = np.zeros(inside.shape)
    for k in range(len(found)):
        signals = np.stack([v.array[k] for v in volumes]).astype(np.float64)
        along = signals / np.tan(angles)[:, None, None]
        up = signals / np.sin(angles)[:, None, None]
        along -= along.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (along * up).sum(axis=0) / (along**2).sum(axis=0)
            inside[k] &= (slope > 0) & (slope < 1) & (slope <= np.exp(-repetition / longest))
            found[k] = np.where(inside[k], -repetition / np.log(slope), 0)
    degrees = listed(np.degrees(angles))
    said = (
        f"spoiled gradient echo, TR {repetition:g} ms, flip angles {degrees} degrees as prescribed; "
        f"T1 up to {longest:g} ms"
    )
    return _map(found, T1, "T1", inside, volumes[0], said)


def _of_inversion(volumes: Sequence[Volume], mask: Mask | None, longest: float, above: float | None) -> Map:
    if len(volumes) < LEAST_TIMES:
        raise Refused(
            f"{len(volumes)} inversion times were acquired; T1 and its sign need {LEAST_TIMES} or more"
        )
    _repetition_time(volumes)
    times = np.array([float(v.facts["inversion_time"]) for v in volumes])
    inside = _bright(volumes, mask, above)
    valid = measured(volumes)
    if valid is not None:
        inside &= valid
    found = np.zeros(inside.shape)
    for k in range(len(found)):
        if inside[k].any():
            signals = np.stack([v.array[k][inside[k]] for v in volumes]).astype(np.float64)
            fitted = inversion_times(times, signals, longest)
            found[k][inside[k]] = fitted
            inside[k] &= found[k] > 0
    said = f"inversion recovery, TI {listed(times)} ms, sign restored; T1 up to {longest:g} ms"
    return _map(found, T1, "T1", inside, volumes[0], said)


def _varied(stack: Stack, name: str, words: str) -> list[Volume]:
    """The volumes by ascending *name*. Raises Refused where something else was varied, or that is not stated."""
    others = [by for by in stack.by if by != name]
    if name not in stack.by:
        raise Refused(
            f"the series does not hold several {words}: its volumes differ in {', '.join(others) or 'nothing'}"
        )
    if others:
        raise Refused(
            f"the volumes differ in {', '.join(others)} as well as in {words}; narrow the rule with `use` or `split`"
        )
    refuse_incomparable(stack.volumes)
    for volume in stack.volumes:
        if name not in volume.facts:
            raise Refused(f"one of the volumes does not state its {name.replace('_', ' ')}")
    return sorted(stack.volumes, key=lambda volume: float(volume.facts[name]))


def _kind_of_echo(volumes: Sequence[Volume], asked: str) -> str:
    stated = {str(v.facts.get("echo", "")) for v in volumes}
    if asked == "stated":
        if len(stated) == 1 and (kind := stated.pop()):
            return kind
        raise Refused(
            "the images do not say whether they are spin or gradient echoes (Scanning Sequence SE or GR), so whether "
            "this is T2 or T2* is unknown; say it with `echo: spin` or `echo: gradient`"
        )
    if stated - {"", asked}:
        raise Refused(f"the images say that they are {stated.pop()} echoes, the rule says {asked}")
    return asked


def _repetition_time(volumes: Sequence[Volume]) -> float:
    times = {v.facts.get("repetition_time") for v in volumes}
    if len(times) != 1 or (time := times.pop()) is None or not float(time) > 0:
        raise Refused("the volumes do not state one Repetition Time that they share; T1 cannot be computed")
    return float(time)


def _bright(volumes: Sequence[Volume], mask: Mask | None, above: float | None) -> Bools:
    """Tissue by the volume that is brightest altogether: others have their nulls."""
    return tissue(max(volumes, key=lambda v: float(v.array.mean(dtype=np.float64))), mask, above)


def _positive(inside: Bools, volumes: Sequence[Volume]) -> Bools:
    valid = measured(volumes)
    if valid is not None:
        inside &= valid
    for volume in volumes:
        inside &= volume.array > 0
    return inside


def _weighted_slope(x: Floats, signals: Floats, inside: Bools) -> Floats:
    """Slope of ln S over *x*, each point weighted with S² (the inverse variance of ln S); 0 where not *inside*."""
    safe = np.where(inside, signals, 1.0)
    weights = (safe / safe.max(axis=0)) ** 2
    logs = np.log(safe)
    total = weights.sum(axis=0)
    column = x[:, None, None]
    middle = (weights * column).sum(axis=0) / total
    away = weights * (column - middle)
    slope: Floats = (away * logs).sum(axis=0) / (away * (column - middle)).sum(axis=0)
    return slope


def _map(found: Floats, quantity: Code, label: str, valid: Bools, first: Volume, said: str) -> Map:
    if not valid.any():
        raise Refused(f"no voxel has a {quantity.meaning} in range ({said}); there is nothing to map")
    kept = {k: v for k, v in first.facts.items() if k in ("modality", "body_part", "frame_of_reference")}
    facts = {**kept, "description": said}
    array = np.where(valid, found, 0).astype(np.float32)
    return Map(array, first.affine, quantity, MS, None if valid.all() else valid, label, facts)
