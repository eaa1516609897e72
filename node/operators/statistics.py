"""Statistics: what a region measures, as coded numbers (PS3.16 TID 1411, TID 1419)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Mask, Measurement, Refused, Report, Volume
from node.operators.codes import (
    ATTENUATION,
    CUBIC_MM,
    MAXIMUM,
    MEAN,
    MEDIAN,
    MINIMUM,
    NOT_MEASURED,
    SIGNAL,
    STANDARD_DEVIATION,
    SUVS,
    TOMOGRAPHIC,
    VOLUME,
    VOXEL_SUM,
    VOXEL_VALUE,
    VOXELS,
)
from node.operators.region import beyond, refuse_other_grid

_BY_UNIT = {"[hnsf'U]": ATTENUATION, **SUVS}  # CID 7180
_BY_MODALITY = {
    "MR": SIGNAL,
    "PT": TOMOGRAPHIC,
}
_OF_MODALITY = {
    "MR": ("1",),
    "PT": ("Bq/ml", "{counts}", "{counts}/s", "{propcounts}", "{propcounts}/s"),
}
"""Units of what the modality stores by itself."""


def statistics(volume: Volume, mask: Mask) -> Report:
    """Measure the region's volume, and mean, standard deviation, minimum, maximum and median in it.

    The volume counts every voxel of the mask. The others leave out voxels that were not measured
    (padding); if there are any, their number is one more measurement. The standard deviation is that of
    the whole population (divided by n), whose square is IBSI's variance (ECT3, arXiv:1612.07003). Where a part
    of the region lies outside the image, a sentence says how much.
    Raises Refused where the mask is empty or on another grid, or no voxel in it was measured.
    """
    return Report(tuple(numbers_of(volume, mask)), beyond(mask))


def numbers_of(volume: Volume, mask: Mask) -> list[Measurement]:
    """The measurements of `statistics`. Raises Refused as it does."""
    refuse_other_grid(volume, mask)
    count = int(np.count_nonzero(mask.array))
    if not count:
        raise Refused(f"the region {mask.label} is empty")
    inside = mask.array if volume.valid is None else mask.array & volume.valid
    values = volume.array[inside]
    if not values.size:
        raise Refused(f"none of the {count} voxels of the region {mask.label} was measured: all are padding")
    name = quantity(volume)
    left_out = count - values.size
    numbers = _five(values)
    found = [Measurement(VOLUME, count * mask.voxel_volume, CUBIC_MM, method=VOXEL_SUM, region=mask)]
    found += [Measurement(name, float(v), volume.unit, how, region=mask) for how, v in numbers.items()]
    if left_out:
        found.append(Measurement(NOT_MEASURED, left_out, VOXELS, region=mask))
    return found


def _five(values: NDArray[Any]) -> dict[Code, float]:
    """What NumPy's functions give in double precision, to the bit, with one copy of *values*; their order is lost."""
    numbers = {MINIMUM: float(values.min()), MAXIMUM: float(values.max())}
    exact = values.astype(np.float64)
    mean = exact.mean()
    exact -= mean
    np.multiply(exact, exact, out=exact)
    middle = [(values.size - 1) // 2, values.size // 2]
    values.partition(middle)
    median = sum(float(values[i]) for i in middle) / 2
    spread = float(np.sqrt(exact.sum() / exact.size))
    return {MEAN: float(mean), STANDARD_DEVIATION: spread, **numbers, MEDIAN: median}


def quantity(volume: Volume) -> Code:
    """What the volume's values are: as its maker says, by unit, or by modality; else a plain voxel value.

    A modality names what it stores by itself only where the unit does not say that it is something else:
    an ADC map is of MR, and no signal intensity.
    """
    stated = volume.facts.get("quantity")
    if isinstance(stated, Code):
        return stated
    modality = str(volume.facts.get("modality", ""))
    natural = volume.unit.value in _OF_MODALITY.get(modality, ())
    return _BY_UNIT.get(volume.unit.value) or (_BY_MODALITY[modality] if natural else VOXEL_VALUE)
