"""Time-activity curves of a dynamic scintigram: how fast regions fill and empty, drawn and in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Measurement, Picture, Refused, Remark, Report, Unit
from node.operators.codes import (
    AREA,
    COUNT_RATE,
    COUNTS,
    DECAY_CORRECTED,
    HALF_TIME,
    LEFT,
    MAXIMUM,
    NOT_CORRECTED,
    PERCENT,
    PROJECTION,
    RIGHT,
    SECONDS,
    SHARE,
    TIME_TO_PEAK,
    TOTAL,
)
from node.operators.graphs import Line, curves
from node.operators.nm.codes import PER_SECOND
from node.operators.nm.frames import of_window
from node.operators.nm.regions import Measure, Roi, background_of, counts_in, measured_rois, rois_of, said_of
from node.operators.nm.views import Use, counted, frames_for

Seconds = Annotated[float, Unit("s")]
_LONG = 600.0
"""Seconds from which a graph's axis is in minutes."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts per second of one region over time."""

    roi: Roi
    begins: Floats
    """When each frame begins, s from the first."""
    lasts: Floats
    """How long it takes, s."""
    rates: Floats

    @property
    def middles(self) -> Floats:
        """The middle of each frame."""
        return self.begins + self.lasts / 2

    @property
    def area(self) -> float:
        """Counts under the curve: those of the frames, and in pauses the mean rate of the frames beside them."""
        pauses = np.diff(self.begins) - self.lasts[:-1]
        bridged = (self.rates[:-1] + self.rates[1:]) / 2 * pauses
        return float((self.rates * self.lasts).sum() + bridged.sum())

    def within(self, begin: float, end: float) -> float:
        """Counts from *begin* to *end*, frames that lie partly there counting partly."""
        shares = np.minimum(self.begins + self.lasts, end) - np.maximum(self.begins, begin)
        return float((self.rates * np.clip(shares, 0, None)).sum())

    def half_time(self) -> float | None:
        """Seconds from the highest rate to half of it, between frames by a straight line; None where it stays above."""
        top = int(np.argmax(self.rates))
        half = self.rates[top] / 2
        below = np.flatnonzero(self.rates[top:] <= half)
        if not len(below):
            return None
        after = top + int(below[0])
        ahead = self.rates[after - 1] - half
        step = ahead / (self.rates[after - 1] - self.rates[after])
        at = self.middles[after - 1] + step * (self.middles[after] - self.middles[after - 1])
        return float(at - self.middles[top])


def time_activity(
    picture: Picture, *, regions: str, measure: Measure = "pixel", use: Use = "only",
    energy_window: int | None = None, half_life: Seconds | None = None, subtract_background: bool = True,
) -> Picture:  # fmt: skip
    """Draw the counts per second of each region over time.

    *regions* are rectangles or ellipses (`left kidney: ellipse 44,26,72,46; right kidney: …; background: …`) in
    pixels or mm (*measure*) of the view that *use* names, and of one *energy_window*, counted from 1, where there
    are several; from behind, the patient's left is at the left. A `background`, or a `left kidney background`, is
    subtracted, pixel for pixel, unless *subtract_background* says no. Rates stand at the middle of their frames.
    With *half_life* they are corrected for decay to the start of the first frame; without, they are as counted.

    Raises Refused where the image does not state when its frames began and how long they took (Phase Information
    Sequence, PS3.3 C.8.4.14), where the view is unknown, and where it does not hold counts.
    """
    chosen = of_window(counted(picture), energy_window)
    found = curves_of(chosen, regions, measure, use, half_life, subtract_background=subtract_background)
    minutes = bool(found[0].middles[-1] > _LONG)
    corrected = ", corrected for decay" if half_life else ""
    lines = [Line(c.roi.name, c.middles / (60 if minutes else 1), c.rates, len(c.rates) < 60) for c in found]
    return curves(
        "Time-activity curves",
        f"time from the first frame ({'min' if minutes else 's'})",
        f"counts per second{corrected}",
        lines,
    )


def time_activity_values(
    picture: Picture, *, regions: str, measure: Measure = "pixel", use: Use = "only",
    energy_window: int | None = None, half_life: Seconds | None = None, subtract_background: bool = True,
    share_from: Seconds | None = None, share_to: Seconds | None = None,
) -> Report:  # fmt: skip
    """Report of each region the highest count rate, the time to it, the area under the curve, and the half-time after.

    Regions, view, background and *half_life* as in `time_activity`. The half-time is from the highest rate to half of
    it, and is left out, with a sentence, where the curve does not fall that far. With *share_from* and *share_to* the
    counts of the left and the right region between these moments are compared (relative kidney function by the area
    method).

    Raises Refused as `time_activity` does, and where shares are asked for and there is not one left and one right.
    """
    chosen = of_window(counted(picture), energy_window)
    found = curves_of(chosen, regions, measure, use, half_life, subtract_background=subtract_background)
    method = DECAY_CORRECTED if half_life else NOT_CORRECTED
    measurements: list[Measurement] = []
    remarks = [*said_of(rois_of(regions, picture, measure)), _said(found, half_life)]
    for curve in found:
        where = (method, None, curve.roi.site, curve.roi.laterality)
        top = int(np.argmax(curve.rates))
        if curve.rates[top] <= 0:
            remarks.append(
                Remark(
                    f"{curve.roi.name}: no numbers; no frame has counts above the background.", missing=True
                )
            )
            continue
        values = (
            (COUNT_RATE, float(curve.rates[top]), PER_SECOND, MAXIMUM),
            (TIME_TO_PEAK, float(curve.middles[top]), SECONDS, None),
            (AREA, curve.area, COUNTS, None),
        )
        measurements += [Measurement(name, v, unit, how, *where) for name, v, unit, how in values]
        half = curve.half_time()
        if half is None:
            left = float(curve.middles[-1] - curve.middles[top])
            remarks.append(
                Remark(
                    f"{curve.roi.name}: no half-time; the curve does not fall to half of its highest rate in "
                    f"the {left:.4g} s that follow it.",
                    missing=True,
                )
            )
        else:
            measurements.append(Measurement(HALF_TIME, half, SECONDS, None, *where))
    if share_from is not None or share_to is not None:
        measurements += _shares(found, share_from, share_to, method)
        remarks.append(Remark(f"Shares are of the counts from {share_from:g} to {share_to:g} s."))
    if not measurements:
        raise Refused("no region has counts above its background, so there are no numbers")
    return Report(tuple(measurements), tuple(remarks))


def curves_of(
    picture: Picture, regions: str, measure: Measure, use: Use, half_life: float | None, *,
    subtract_background: bool,
) -> tuple[Curve, ...]:  # fmt: skip
    """The curve of each region that is no background. Raises Refused where times or regions do not suit."""
    durations = picture.facts.get("frame_durations")
    if picture.times is None or not durations or "phases" not in picture.facts:
        raise Refused(
            "the image does not state when its frames began and how long they took (Phase Vector and Phase "
            "Information Sequence of a dynamic study), so there is no time axis"
        )
    frames, indices, _ = frames_for(picture, use)
    begins = picture.times[list(indices)] / 1000
    lasts = np.array([durations[i] for i in indices], np.float64) / 1000
    if (np.diff(begins) < 0).any():
        order = np.argsort(begins, kind="stable")
        frames, begins, lasts = frames[order], begins[order], lasts[order]
    begins = begins - begins[0]
    if len(frames) < 3:
        raise Refused(f"a curve of {len(frames)} frames says nothing; at least 3 are needed")
    if (np.diff(begins) < lasts[:-1] - 1e-6).any():
        raise Refused("frames of the view overlap in time; select one head with `use` and one energy window")
    if half_life is not None and half_life <= 0:
        raise Refused(f"a half-life of {half_life:g} s is none")
    rois = rois_of(regions, picture, measure)
    named = measured_rois(rois)
    if not named:
        raise Refused("all regions are backgrounds; name one that is measured")
    scale = decay_factors(begins, lasts, half_life) / lasts
    return tuple(
        Curve(
            roi, begins, lasts,
            counts_in(frames, roi, background_of(roi, rois) if subtract_background else None) * scale,
        )
        for roi in named
    )  # fmt: skip


def decay_factors(begins: Floats, lasts: Floats, half_life: float | None) -> Floats:
    """What makes of counts those without decay since the first frame began, also while each frame was acquired."""
    if half_life is None:
        return np.ones(len(begins))
    rate = np.log(2) / half_life
    during = rate * lasts / -np.expm1(-rate * lasts)
    return np.asarray(np.exp(rate * begins) * during)


def _shares(
    found: tuple[Curve, ...], begin: float | None, end: float | None, method: Code
) -> list[Measurement]:
    left = [curve for curve in found if curve.roi.laterality == LEFT]
    right = [curve for curve in found if curve.roi.laterality == RIGHT]
    if len(left) != 1 or len(right) != 1:
        raise Refused("shares need one region called left and one called right (left kidney, right kidney)")
    last = float(left[0].begins[-1] + left[0].lasts[-1])
    if begin is None or end is None or not 0 <= begin < end <= last:
        raise Refused(
            f"shares need share_from and share_to within the {last:g} s of the study, the first before the second"
        )
    counts = [max(curve.within(begin, end), 0.0) for curve in (left[0], right[0])]
    if sum(counts) <= 0:
        raise Refused("neither side has counts above its background where the shares are taken")
    return [
        Measurement(name, value, unit, how, method, None, curve.roi.site, curve.roi.laterality)
        for curve, count in zip((left[0], right[0]), counts, strict=True)
        for name, value, unit, how in (
            (PROJECTION, count, COUNTS, TOTAL),
            (SHARE, 100 * count / sum(counts), PERCENT, None),
        )
    ]


def _said(found: tuple[Curve, ...], half_life: float | None) -> Remark:
    decay = (
        f"Corrected for decay with a half-life of {half_life:g} s, to the start of the first frame."
        if half_life
        else "Not corrected for decay."
    )
    seconds = found[0].begins[-1] + found[0].lasts[-1]
    return Remark(f"{len(found[0].rates)} frames in {seconds:.6g} s. {decay}")
