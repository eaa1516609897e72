"""First-order statistics of a region, exactly as the Image Biomarker Standardisation Initiative defines them.

IBSI reference manual (arXiv:1612.07003v11), section 3.3, intensity-based statistical features (UHIW), calculated over
the whole region in 3D (DHQ4). Its codes are the coding scheme IBSI of PS3.16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import NO_UNITS, Code, Mask, Measurement, Number, Refused, Remark, Report, Segments, Volume
from node.operators.codes import CUBIC_MM, LEFT_OUT, NOT_MEASURED, VOLUME, VOXEL_SUM, VOXELS
from node.operators.region import beyond, brought, refuse_other_grid, told_apart

FEATURES = {
    name: Code(value, "IBSI", meaning)
    for name, value, meaning in (
        ("mean", "Q4LE", "Mean intensity"),
        ("variance", "ECT3", "Intensity variance"),
        ("skewness", "KE2A", "Intensity skewness"),
        ("kurtosis", "IPH6", "(Excess) intensity kurtosis"),
        ("median", "Y12H", "Median intensity"),
        ("minimum", "1GSF", "Minimum intensity"),
        ("p10", "QG58", "10th intensity percentile"),
        ("p90", "8DWT", "90th intensity percentile"),
        ("maximum", "84IY", "Maximum intensity"),
        ("iqr", "SALO", "Intensity interquartile range"),
        ("range", "2OJQ", "Intensity range"),
        ("mad", "4FUA", "Intensity-based mean absolute deviation"),
        ("rmad", "1128", "Intensity-based robust mean absolute deviation"),
        ("medad", "N72L", "Intensity-based median absolute deviation"),
        ("cov", "7TET", "Intensity-based coefficient of variation"),
        ("qcod", "9S40", "Intensity-based quartile coefficient of dispersion"),
        ("energy", "N8CA", "Intensity-based energy"),
        ("rms", "5ZWQ", "Root mean square intensity"),
    )
}
"""The 18 features in the manual's order, by its permanent identifiers."""
METHOD = Code("UHIW", "IBSI", "Intensity-based statistical features")

_PLAIN = frozenset(("skewness", "kurtosis", "cov", "qcod"))
_SQUARED = frozenset(("variance", "energy"))
_AT_ONCE = 1 << 20
"""Values taken to double precision in one go."""


def first_order(
    volume: Volume, mask: Mask, *, at_least: Number | None = None, at_most: Number | None = None
) -> Report:
    """Measure the region's volume and the 18 intensity-based statistical features of IBSI in it.

    Percentiles are interpolated linearly between the ordered values; the variance is that of the population; the
    kurtosis is that in excess of a normal distribution's. Voxels that were not measured (padding) do not count,
    nor do those below *at_least* or above *at_most*, in the volume's unit (IBSI's range re-segmentation, USB3);
    how many they are is one more number each. What would be a division by 0, such as the
    ratio to a mean of 0, is left out and remarked.

    Raises Refused where the mask lies on another grid, and where it holds no voxel that counts.
    """
    refuse_other_grid(volume, mask)
    numbers, remarks = _measured(volume, mask, at_least, at_most, mask)
    return Report(numbers, (*beyond(mask), *remarks))


def first_order_segments(
    volume: Volume, segments: Segments, *, at_least: Number | None = None, at_most: Number | None = None
) -> Report:
    """Measure every segment of a segmentation as `first_order` does, on the grid of *volume* (see `region`).

    Where several have one label, their number is put behind it.
    A segment that is empty, or of which nothing can be measured, becomes a remark. Raises Refused where that is
    all of them.
    """
    numbers: list[Measurement] = []
    remarks: list[Remark] = []
    for mask in told_apart(segments):
        try:
            there = brought(volume, segments, mask)
            found, said = _measured(volume, there.mask, at_least, at_most, there.region)
        except Refused as refusal:
            said = (Remark(f"{mask.label}: {refusal}", missing=True),)
        else:
            numbers += found
            said = (*there.remarks, *said)
        remarks += [remark for remark in said if remark not in remarks]
    if not numbers:
        raise Refused("; ".join(remark.text for remark in remarks))
    return Report(tuple(numbers), tuple(remarks))


def _measured(
    volume: Volume, mask: Mask, at_least: float | None, at_most: float | None, region: Mask
) -> tuple[tuple[Measurement, ...], tuple[Remark, ...]]:
    """The numbers of *mask*, said to be of *region*, and what there is to say of them."""
    values, unmeasured, beyond = _values(volume, mask, at_least, at_most)
    found = features(values)
    remarks = [
        Remark(
            f"{mask.label}: {FEATURES[name].meaning} is left out: it would be a division by 0", missing=True
        )
        for name in FEATURES
        if name not in found
    ]
    if volume.unit.value == NO_UNITS.value:
        remarks.append(
            Remark("the intensities have no unit: what they say of one image does not hold for another")
        )
    size = int(np.count_nonzero(mask.array)) * volume.voxel_volume
    numbers = [Measurement(VOLUME, size, CUBIC_MM, method=VOXEL_SUM, region=region)]
    numbers += [
        Measurement(FEATURES[name], value, _unit(name, volume.unit), method=METHOD, region=region)
        for name, value in found.items()
    ]
    for what, count in ((NOT_MEASURED, unmeasured), (LEFT_OUT, beyond)):
        if count:
            numbers.append(Measurement(what, count, VOXELS, region=region))
    return tuple(numbers), tuple(remarks)


def _values(
    volume: Volume, mask: Mask, at_least: float | None, at_most: float | None
) -> tuple[NDArray[Any], int, int]:
    """The values that count, and how many do not: not measured, and beyond the limits."""
    inside = mask.array if volume.valid is None else mask.array & volume.valid
    unmeasured = int(np.count_nonzero(mask.array)) - int(np.count_nonzero(inside))
    values = volume.array[inside]
    if not values.size:
        what = f"none of its {unmeasured} voxels was measured" if unmeasured else "it is empty"
        raise Refused(f"the region {mask.label} cannot be measured: {what}")
    count = values.size
    for limit, compare in ((at_least, np.greater_equal), (at_most, np.less_equal)):
        if limit is not None:
            values = values[compare(values, np.float64(limit))]
    if not values.size:
        raise Refused(
            f"none of the {count} values of the region {mask.label} lies between at_least and at_most"
        )
    return values, unmeasured, count - values.size


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over all values: of powers and sizes of what they differ from the mean, from the median, and of squares."""

    second: float
    third: float
    fourth: float
    from_mean: float
    from_median: float
    squares: float


def features(values: NDArray[Any]) -> dict[str, float]:
    """The features of *values* by name, in the manual's order; without those that would divide by 0."""
    count = values.size
    low, p10, p25, median, p75, p90, high = percentiles(values, (0, 10, 25, 50, 75, 90, 100))
    mean = math.fsum(float(part.sum()) for part in _parts(values)) / count
    sums = _sums(values, mean, median)
    variance = sums.second / count
    varies = low < high
    found: dict[str, float | None] = {
        "mean": mean,
        "variance": variance if varies else 0.0,
        "skewness": sums.third / count / variance**1.5 if varies else 0.0,
        "kurtosis": sums.fourth / count / variance**2 - 3.0 if varies else 0.0,
        "median": median,
        "minimum": low,
        "p10": p10,
        "p90": p90,
        "maximum": high,
        "iqr": p75 - p25,
        "range": high - low,
        "mad": sums.from_mean / count if varies else 0.0,
        "rmad": _robust(values, p10, p90) if varies else 0.0,
        "medad": sums.from_median / count,
        "cov": _over(math.sqrt(variance) if varies else 0.0, mean),
        "qcod": _over(p75 - p25, p75 + p25),
        "energy": sums.squares,
        "rms": math.sqrt(sums.squares / count),
    }
    return {name: value for name, value in found.items() if value is not None}


def percentiles(values: NDArray[Any], asked: tuple[float, ...]) -> list[float]:
    """The percentiles *asked* of *values*, interpolated linearly between neighbours, in double precision."""
    places = [(values.size - 1) * percent / 100 for percent in asked]
    below = [math.floor(place) for place in places]
    above = [math.ceil(place) for place in places]
    ordered = np.partition(values, sorted({*below, *above}))
    pairs = [(float(ordered[i]), float(ordered[j])) for i, j in zip(below, above, strict=True)]
    return [low + (high - low) * (place % 1) for (low, high), place in zip(pairs, places, strict=True)]


def _parts(values: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    for first in range(0, values.size, _AT_ONCE):
        yield values[first : first + _AT_ONCE].astype(np.float64)


def _sums(values: NDArray[Any], mean: float, median: float) -> _Sums:
    found = []
    for part in _parts(values):
        off = part - mean
        square = off * off
        found.append((
            square.sum(), (square * off).sum(), (square * square).sum(), np.abs(off).sum(),
            np.abs(part - median).sum(), (part * part).sum(),
        ))  # fmt: skip
    return _Sums(*(math.fsum(map(float, column)) for column in zip(*found, strict=True)))


def _robust(values: NDArray[Any], p10: float, p90: float) -> float | None:
    """Mean absolute deviation of the values from the 10th to the 90th percentile, both included; None of none."""

    def kept() -> Iterator[NDArray[np.float64]]:
        for part in _parts(values):
            yield part[(part >= p10) & (part <= p90)]

    sums = [(float(part.sum()), part.size) for part in kept()]
    count = sum(size for _, size in sums)
    if not count:
        return None
    mean = math.fsum(total for total, _ in sums) / count
    return math.fsum(float(np.abs(part - mean).sum()) for part in kept()) / count


def _over(one: float, other: float) -> float | None:
    return one / other if other else None


def _unit(name: str, unit: Code) -> Code:
    if name in _PLAIN:
        return NO_UNITS
    return squared(unit) if name in _SQUARED else unit


_SIMPLE: Mapping[str, str] = {"[hnsf'U]": "[hnsf'U]2", "1": "1"}


def squared(unit: Code) -> Code:
    """The UCUM unit of a square: written twice, since a term is read from left to right (UCUM §7)."""
    value = _SIMPLE.get(unit.value, f"{unit.value}.{unit.value}")
    return unit if value == unit.value else Code(value, unit.scheme, f"{unit.meaning} squared"[:64])
