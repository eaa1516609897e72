"""Diffusion: trace-weighted images, the apparent diffusion coefficient, and how well it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Map, Mask, Number, Refused, Stack, Unit
from node.operators.codes import RATIO
from node.operators.mr.background import listed, measured, tissue
from node.operators.mr.weighted import SAME_B_LEAST, Weighting, Weightings, weightings

BValue = Annotated[float, Unit("s/mm2")]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ADC = Code("113041", "DCM", "Apparent Diffusion Coefficient")  # CID 7180
R2 = Code("126220", "DCM", "R2-Coefficient")  # CID 7180
UM2_S = Code("um2/s", "UCUM", "square micrometer per second")
"""10⁻⁶ mm²/s, in which scanners write their maps."""
METHOD = Code("370129005", "SCT", "Measurement Method")  # CID 9000
MONO_EXPONENTIAL = Code("113250", "DCM", "Mono-exponential diffusion model")  # CID 7273
FITTING = Code("113241", "DCM", "Model fitting method")  # CID 9000
TWO_SAMPLES = Code("113260", "DCM", "Log of ratio of two samples")  # CID 7274
LEAST_SQUARES = Code("113261", "DCM", "Least squares fit of multiple samples")  # CID 7274
B_VALUE = Code("113240", "DCM", "Source image diffusion b-value")  # CID 7276
S_MM2 = Code("s/mm2", "UCUM", "s/mm2")

_PER_UM2 = 1e6  # mm²/s → um²/s


def trace(stack: Stack, *, unstated_b: BValue | None = None) -> Stack:
    """Make one trace-weighted volume per b-value: the geometric mean of its directions (PS3.3 C.8.13.5.9.1).

    For directions spread evenly (three at right angles, or many) that is the image which an isotropic weighting
    would give, whatever the tissue's direction. Where the scanner made the trace itself and fewer than three
    directions are there, its trace is passed on. Voxels of 0 in any direction are 0;
    what one direction did not measure is not valid.

    Raises Refused where volumes state no b-value or echo times differ, and where there is nothing to combine.
    """
    found = weightings(stack, unstated=unstated_b)
    if all(len(group.volumes) == 1 for group in found.groups):
        raise Refused("every b-value has one volume: there are no directions to combine")
    volumes = []
    for group in found.groups:
        first = group.volumes[0]
        if len(group.volumes) == 1:
            array = first.array
        else:
            array = np.stack([_exp(group.logarithm(k)) for k in range(len(first.array))])
        kept = {k: v for k, v in first.facts.items() if k not in ("gradient", "window", "image_type")}
        kind = "ISOTROPIC" if group.b > SAME_B_LEAST else "NONE"
        said = {"b_value": group.b, "directionality": kind, "description": _sentence(found)}
        valid = measured(group.volumes)
        if valid is not None and len(group.volumes) > 1:
            array[~valid] = 0
        volumes.append(replace(first, array=array, valid=valid, facts={**kept, **said}))
    return Stack(tuple(volumes), ("b_value",), stack.facts)


def _exp(logarithm: Floats) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.exp(logarithm), nan=0.0).astype(np.float32)


def adc(
    stack: Stack,
    mask: Mask | None = None,
    *,
    least_b: BValue = 0.0,
    most_b: BValue | None = None,
    unstated_b: BValue | None = None,
    above: Number | None = None,
) -> Map:
    """Map the apparent diffusion coefficient: ln S = ln S0 - b · ADC by least squares over the b-values.

    The logarithms of a b-value's directions are averaged (trace), the b-values count alike. *least_b* to *most_b*
    are the b-values used: all by default. Where blood flow must not count, ask for *least_b* 50 to 100 s/mm²
    (QIBA diffusion profile), if two such b-values or more were acquired. *unstated_b* is that of volumes whose
    scanner states none, as Canon's of unweighted ones. What was used stands in the map. A voxel
    is valid within *mask* where every image is above 0, and, without a mask, where the least weighted image is
    *above* a level; by default half of Otsu's threshold, which parts tissue from background.

    Raises Refused where fewer than two b-values remain, where volumes state none, and where echo times differ.
    """
    found = _usable(weightings(stack, least_b, most_b, unstated_b))
    fit = _fit(found.groups, tissue(found.groups[0].volumes[0], mask, above))
    if not fit.valid.any():
        raise Refused("no voxel is above the background in all b-values; there is nothing to fit")
    array = fit.slope
    array *= np.float32(-_PER_UM2)
    array[~fit.valid] = 0
    return _map(array, ADC, UM2_S, "ADC", fit.valid, found)


def adc_fit(
    stack: Stack,
    mask: Mask | None = None,
    *,
    least_b: BValue = 0.0,
    most_b: BValue | None = None,
    unstated_b: BValue | None = None,
    above: Number | None = None,
) -> Map:
    """Map how well one exponential fits: R² of ln S over the b-values that `adc` with the same options uses.

    1 is a perfect fit; low values mark noise, motion, perfusion or several compartments.

    Raises Refused where `adc` does, and with two b-values, through which a line always goes.
    """
    found = _usable(weightings(stack, least_b, most_b, unstated_b))
    if len(found.groups) == 2:
        raise Refused(
            f"with the two b-values {listed(found.b_values)} any line fits: there is no quality to map; three are "
            "needed"
        )
    fit = _fit(found.groups, tissue(found.groups[0].volumes[0], mask, above), quality=True)
    valid = fit.valid & np.isfinite(fit.quality)
    if not valid.any():
        raise Refused("no voxel is above the background in all b-values; there is nothing to fit")
    return _map(np.where(valid, fit.quality, np.float32(0)), R2, RATIO, "ADC FIT R2", valid, found)


@dataclass(frozen=True, eq=False)
class _Fit:
    slope: NDArray[np.float32]
    """Per s/mm²; not finite where *valid* is False."""
    quality: NDArray[np.float32]
    """R², where it was asked for."""
    valid: Bools


def _usable(found: Weightings) -> Weightings:
    if len(found.groups) >= 2:
        return found
    there = (
        f"the one b-value {found.b_values[0]:.4g} s/mm²"
        if found.groups
        else "no b-value in the range asked for"
    )
    raise Refused(f"there is {there}; a diffusion coefficient needs two")


def _fit(groups: Sequence[Weighting], inside: Bools, *, quality: bool = False) -> _Fit:
    """Least squares of the logarithm over b, slice by slice, so that logarithms of few slices are held at once."""
    b = np.array([group.b for group in groups])
    centred = b - b.mean()
    weights = centred / np.sum(centred**2)
    slopes = np.empty(inside.shape, np.float32)
    fits, valid = np.empty(inside.shape if quality else 0, np.float32), inside
    for k in range(len(slopes)):
        logs = np.stack([group.logarithm(k) for group in groups])
        valid[k] &= np.isfinite(logs).all(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.einsum("b,brc->rc", weights, logs)  # no BLAS: its sums depend on its threads
            slopes[k] = slope
            if quality:
                away = logs - logs.mean(axis=0)
                rest = ((away - centred[:, None, None] * slope) ** 2).sum(axis=0)
                fits[k] = 1 - rest / (away**2).sum(axis=0)
    return _Fit(slopes, fits, valid)


def _map(
    array: NDArray[np.float32], quantity: Code, unit: Code, label: str, valid: Bools, found: Weightings
) -> Map:
    first = found.groups[0].volumes[0]
    kept = {k: v for k, v in first.facts.items() if k in ("modality", "body_part", "frame_of_reference")}
    fitting = TWO_SAMPLES if len(found.groups) == 2 else LEAST_SQUARES
    told = (
        (METHOD, MONO_EXPONENTIAL),
        (FITTING, fitting),
        *((B_VALUE, (round(b, 3), S_MM2)) for b in found.b_values),
    )
    facts = {**kept, "b_values": found.b_values, "description": _sentence(found), "definition": told}
    return Map(array, first.affine, quantity, unit, None if valid.all() else valid, label, facts)


def _sentence(found: Weightings) -> str:
    """What went into the result, for people."""
    said = [f"b {listed(found.b_values)} s/mm2"]
    for how in dict.fromkeys(group.how for group in found.groups if group.how):
        said.append(f"b {listed([group.b for group in found.groups if group.how == how])}: {how}")
    return "; ".join([*said, *found.notes])
