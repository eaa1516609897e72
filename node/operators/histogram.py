"""How often which value occurs in a region: a graph of one or several histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.operator import Mask, Number, Picture, Refused, Remark, Segments, Volume
from node.operators import graphs
from node.operators.colour import unit_text
from node.operators.planes import refuse_other_frame
from node.operators.region import beyond, brought, outside, refuse_other_grid, told_apart
from node.operators.statistics import quantity

MOST_LINES = 8
"""As many colours there are; more regions would not be told apart."""
MOST_BINS = 4096
_BINS = 100
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_SPREAD = (0.1, 99.9)
"""Percentiles that the axis spans where it is not asked for."""


def histogram(
    volume: Volume,
    segments: Segments | None = None,
    mask: Mask | None = None,
    *,
    low: Number | None = None,
    high: Number | None = None,
    bin_width: Number | None = None,
    mark: Number | None = None,
) -> Picture:
    """Draw how many percent of a region's voxels have which value: of every segment, of a mask, or of the volume.

    Every curve counts the measured voxels of its region as 100 %, those outside *low* to *high* included, so that
    regions of different size can be compared. Of more than eight regions the eight largest are drawn, and the title
    says so. The axis spans by default 0.1 % to 99.9 % of all that is drawn, in about 100 steps of a round width. *mark*
    draws an upright line at a value, such as a threshold. A segment on another grid is brought onto the volume's as
    `region` does it; a curve says how much of its region lies outside the image, and the run which region could not
    be drawn.

    Raises Refused where the options do not fit, the frames of reference differ, or no region holds a measured voxel.
    """
    found = _regions(volume, segments, mask)
    regions = found.regions
    of = f", the {MOST_LINES} largest of {len(regions)} regions" if len(regions) > MOST_LINES else ""
    regions = _largest(regions)
    drawn = [values for _, values in regions]
    low, high = _span(drawn, low, high)
    width = _width(high - low) if bin_width is None else bin_width
    if width <= 0 or (high - low) / width > MOST_BINS:
        raise Refused(f"bin_width {width:g} must be greater than 0, and give {MOST_BINS} steps at most")
    edges = low + width * np.arange(math.ceil((high - low) / width - 1e-9) + 1)
    lines = []
    for label, values in regions:
        counted, _ = np.histogram(values, edges)
        lines.append(graphs.Line(label, edges, 100 * counted / values.size))
    unit = unit_text(volume.unit)
    name = "CT number" if unit == "HU" else quantity(volume).meaning
    made = graphs.histogram(
        f"Histogram of {name}{of}",
        f"{name} [{unit}]" if unit else name,
        f"Share of voxels [% per {width:g}{' ' + unit if unit else ''}]",
        lines,
        () if mark is None else ((mark, f"{mark:g}{' ' + unit if unit else ''}"),),
    )
    return replace(made, facts={**made.facts, "remarks": found.remarks}) if found.remarks else made


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What is drawn: the measured values by name of each region, those that hold none left out."""

    regions: list[tuple[str, NDArray[np.floating]]]
    remarks: tuple[Remark, ...]
    """What of the regions could not be drawn."""


def _regions(volume: Volume, segments: Segments | None, mask: Mask | None) -> _Drawn:
    measured = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
    if segments is None and mask is None:
        return _checked([("", volume.array[measured])], [])
    found: list[tuple[str, NDArray[np.floating]]] = []
    remarks: list[Remark] = []
    if mask is not None:
        refuse_other_grid(volume, mask)
        found.append((_named(mask), volume.array[mask.array & measured]))
        remarks += beyond(mask)
    if segments is not None:
        refuse_other_frame(volume, segments, "the segmentation was made on other images")
        for segment in told_apart(segments):
            try:  # one at a time: a hundred masks of a whole scan are more than fits
                there = brought(volume, segments, segment)
            except Refused as refusal:
                remarks.append(Remark(f"{segment.label}: not drawn, since {refusal}.", missing=True))
                continue
            found.append((_named(there.mask), volume.array[there.mask.array & measured]))
            remarks += there.remarks
    remarks += [
        Remark(f"{label}: not drawn, since nothing in it was measured.", missing=True)
        for label, values in found
        if not values.size
    ]
    return _checked(found, remarks)


def _checked(found: list[tuple[str, NDArray[np.floating]]], remarks: list[Remark]) -> _Drawn:
    drawn = [(label, values) for label, values in found if values.size]
    if not drawn:
        said = " ".join(remark.text for remark in remarks)
        raise Refused(
            f"no voxel of what is to be drawn was measured; there is nothing to draw. {said}".strip()
        )
    return _Drawn(drawn, tuple(remarks))


def _named(mask: Mask) -> str:
    """A region as its curve is called: with how much of it is not in the curve, as it lies outside the image."""
    return ": ".join(filter(None, (mask.label, outside(mask))))


def _largest(
    regions: list[tuple[str, NDArray[np.floating]]],
) -> list[tuple[str, NDArray[np.floating]]]:
    """As many as can be told apart, in the order of the segmentation."""
    ranked = sorted(range(len(regions)), key=lambda n: -regions[n][1].size)[:MOST_LINES]
    return [regions[n] for n in sorted(ranked)]


def _span(
    drawn: Sequence[NDArray[np.floating]], low: float | None, high: float | None
) -> tuple[float, float]:
    """Where the axis begins and ends, on steps of a round width where it was not asked for."""
    if low is None or high is None:
        ends = [np.percentile(values, _SPREAD) for values in drawn]
        first, last = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
        step = _width(max(last - first, 1e-9, 1e-6 * max(abs(first), abs(last))))
        low = math.floor(first / step) * step if low is None else low
        high = (math.floor(last / step) + 1) * step if high is None else high
    if low >= high:
        raise Refused(f"low {low:g} must be less than high {high:g}")
    return low, high


def _width(span: float) -> float:
    """A round width of which about a hundred make *span*."""
    raw = span / _BINS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(nice * power for nice in _NICE if nice * power >= raw * (1 - 1e-9))
