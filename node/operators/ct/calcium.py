"""Calcium in a region of a CT: what is bright enough to be it, as Agatston score, volume and mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import NO_UNITS, Code, Mask, Measurement, Refused, Remark, Report, Unit, Volume
from node.operators.codes import AGATSTON_SCALED, CUBIC_MM
from node.operators.ct.common import (
    AGENT,
    acquired_as,
    contrast_of,
    is_axial,
    kvp_of,
    refuse_other_units,
    thickness_of,
)
from node.operators.region import beyond, refuse_other_grid

Calibration = Annotated[float, Unit("mg/(ml.[hnsf'U])")]

SCORE = Code("112058", "DCM", "Calcium score")
AGATSTON = Code("112055", "DCM", "Agatston scoring method")  # CID 6140
CALCIUM_VOLUME = Code("122660", "DCM", "Calcium Volume")
CALCIUM_MASS = Code("122661", "DCM", "Calcium Mass")
BY_VOLUME = Code("112056", "DCM", "Volume scoring method")
BY_MASS = Code("112057", "DCM", "Mass scoring method")
MILLIGRAM = Code("mg", "UCUM", "milligram")
THRESHOLD = Code("122657", "DCM", "Agatston Score Threshold")
CALIBRATION = Code("122659", "DCM", "Calcium Scoring Calibration")

BRIGHT = 130.0
"""HU: at least this is calcium (Agatston 1990, doi:10.1016/0735-1097(90)90282-T)."""
WEIGHTS = (200.0, 300.0, 400.0)
"""Peaks (HU) from which on a lesion weighs 2, 3 and 4 instead of 1 (the same)."""
LEAST_MM2 = 1.0
SLICE_MM = 3.0
"""The slice thickness, and increment, for which the score was defined."""
_THICKNESS = (2.5, 3.0)
_KV = 120.0
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class _Found:
    """Over all slices: Σ area · weight (mm²), voxels in lesions, and the sum of their CT numbers."""

    score: float
    voxels: int
    total: float


def calcium_score(volume: Volume, mask: Mask, *, calibration: Calibration | None = None) -> Report:
    """Measure candidate calcium in a region: Agatston score where the scan allows it, volume and mass.

    Candidate calcium is every piece of at least 130 HU and 1 mm² in a slice, its pixels joined by their sides, within
    *mask*; nothing tells bone, stents or valves from coronary calcium but the region. The Agatston score is
    the sum over slices of area (mm²) times 1, 2, 3 or 4 for a peak below 200, 300, 400 HU or above. It is
    given for native axial scans at 120 kV in slices of 2.5 to 3 mm only; where slices do not come every 3 mm, times
    increment / 3 mm, which approximates it and is called so. The volume is that of the pieces' voxels; the mass, where
    *calibration* (mg/ml per HU, from the scanner's phantom) is given, their volume times mean CT number times it.
    Sentences say why a number is missing.

    Raises Refused for what is not in Hounsfield units, and a region that is empty or on another grid.
    """
    refuse_other_units(volume, "calcium_score")
    refuse_other_grid(volume, mask)
    inside = mask.array if volume.valid is None else mask.array & volume.valid
    if not inside.any():
        raise Refused(f"the region {mask.label} holds no measured voxel")
    if calibration is not None and calibration <= 0:
        raise Refused(f"calibration {calibration:g} mg/ml/HU must be greater than 0")
    found = _pieces(volume, inside)
    score, why = _score(volume, mask, found)
    millilitres = found.voxels * volume.voxel_volume / 1000
    numbers = [Measurement(CALCIUM_VOLUME, 1000 * millilitres, CUBIC_MM, method=BY_VOLUME, region=mask)]
    if calibration is not None:
        mass = calibration * found.total * volume.voxel_volume / 1000
        numbers.append(Measurement(CALCIUM_MASS, mass, MILLIGRAM, method=BY_MASS, region=mask))
    remarks = (
        Remark(f"Candidate calcium in {mask.label}: all of it that is at least {BRIGHT:g} HU bright and {LEAST_MM2:g} "
               "mm² large in a slice. Bone, valves, stents and calcium outside the coronary arteries count if they "
               "lie in the region.", THRESHOLD),
        *beyond(mask),
        *why,
        *_about_mass(calibration),
        *acquired_as(volume),
    )  # fmt: skip
    return Report((*score, *numbers), remarks)


def _pieces(volume: Volume, inside: NDArray[np.bool_]) -> _Found:
    """Lesion by lesion, slice by slice."""
    pixel = float(volume.spacing[1] * volume.spacing[2])
    score, voxels, total = 0.0, 0, 0.0
    for values, region in zip(volume.array, inside, strict=True):
        bright = region & (values >= BRIGHT)
        if not bright.any():
            continue
        pieces, count = ndimage.label(bright)
        numbers = np.arange(1, count + 1)
        sizes = np.bincount(pieces[bright], minlength=count + 1)[1:]
        peaks = ndimage.maximum(values, pieces, numbers)
        counted = sizes * pixel >= LEAST_MM2 * (1 - 1e-9)
        weights = 1 + np.digitize(peaks, WEIGHTS)
        score += float((sizes * weights)[counted].sum()) * pixel
        voxels += int(sizes[counted].sum())
        total += float(values[np.isin(pieces, numbers[counted])].sum(dtype=np.float64))
    return _Found(score, voxels, total)


def _score(volume: Volume, mask: Mask, found: _Found) -> tuple[list[Measurement], tuple[Remark, ...]]:
    """The Agatston score with what it rests on, or why there is none."""
    against = _against(volume)
    if against:
        return [], (Remark(f"No Agatston score: {'; '.join(against)}.", SCORE, missing=True),)
    step = float(volume.spacing[0])
    plain = abs(step - SLICE_MM) <= 0.01
    factor = 1.0 if plain else step / SLICE_MM
    method = AGATSTON if plain else AGATSTON_SCALED
    number = Measurement(SCORE, found.score * factor, NO_UNITS, method=method, region=mask)
    said = [Remark("No contrast agent.", AGENT)]
    if not plain:
        said.append(Remark(
            f"The Agatston score was defined for slices every 3 mm; these come every {step:.4g} mm, so the sum was "
            f"multiplied by {factor:.4g}. That approximates the score, and may differ from one of 3 mm slices.", SCORE,
        ))  # fmt: skip
    return [number], tuple(said)


def _against(volume: Volume) -> list[str]:
    """What forbids an Agatston score, in words."""
    kvp, thickness, agent = kvp_of(volume), thickness_of(volume), contrast_of(volume)
    why = []
    if kvp is None:
        why.append("the tube voltage is not stated")
    elif abs(kvp - _KV) > _SLACK:
        why.append(f"it is defined for 120 kV, and the tube voltage was {kvp:g} kV")
    if agent is None:
        why.append("the images do not say whether contrast was given")
    elif agent:
        why.append(f"contrast was given ({agent})")
    if thickness is None:
        why.append("Slice Thickness is not stated")
    elif not _THICKNESS[0] - _SLACK <= thickness <= _THICKNESS[1] + _SLACK:
        why.append(f"it is defined for slices of 2.5 to 3 mm, and these have {thickness:g} mm")
    elif float(volume.spacing[0]) > thickness * 1.01:
        why.append(f"slices of {thickness:g} mm every {float(volume.spacing[0]):.4g} mm leave gaps")
    if not is_axial(volume):
        why.append("the slices are not axial")
    return why


def _about_mass(calibration: float | None) -> tuple[Remark, ...]:
    if calibration is None:
        text = "No mass: the scanner's calibration (option calibration, in mg/ml per HU) is not given."
        return (Remark(text, CALCIUM_MASS, missing=True),)
    return (Remark(f"Mass by a calibration of {calibration:g} mg/ml per HU.", CALIBRATION),)
