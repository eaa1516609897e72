"""How often which value occurs in a region: a graph of one or several histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node.operator import Mask, Number, Picture, Refused, Segments, Volume
from node.operators import graphs
from node.operators.colour import unit_text
from node.operators.region import on_grid
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
    draws an upright line at a value, such as a threshold.

    Raises Refused where the options do not fit, or no region holds a measured voxel.
    """
    regions = _regions(volume, segments, mask)
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
    return graphs.histogram(
        f"Histogram of {name}{of}",
        f"{name} [{unit}]" if unit else name,
        f"Share of voxels [% per {width:g}{' ' + unit if unit else ''}]",
        lines,
        () if mark is None else ((mark, f"{mark:g}{' ' + unit if unit else ''}"),),
    )


def _regions(
    volume: Volume, segments: Segments | None, mask: Mask | None
) -> list[tuple[str, NDArray[np.floating]]]:
    """The measured values of what is drawn, by name, regions that hold none left out."""
    measured = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
    if mask is not None and not volume.same_grid(mask):
        raise Refused("the mask lies on another grid than the volume; make both from the same step")
    found = [] if mask is None else [(mask.label, volume.array[mask.array & measured])]
    if segments is None and mask is None:
        found = [("", volume.array[measured])]
    if segments is not None:
        for segment in segments.masks:  # one at a time: a hundred masks of a whole scan are more than fits
            if segment.array.any():
                inside = on_grid(volume, segments, segment).array & measured
                found.append((segment.label, volume.array[inside]))
    if not any(values.size for _, values in found):
        raise Refused("no voxel of what is to be drawn was measured; there is nothing to draw")
    return [(label, values) for label, values in found if values.size]


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
