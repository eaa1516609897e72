"""Relative uptake: how many counts a pixel of one region has, against one of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Measurement, Picture, Refused, Remark, Report
from node.operators.codes import COUNTS, GEOMETRIC_MEAN, MEAN, ONE_VIEW, PROJECTION, RATIO, RELATIVE_UPTAKE
from node.operators.nm.frames import of_window
from node.operators.nm.regions import BACKGROUND, Measure, Roi, is_background, rois_of, said_of
from node.operators.nm.views import Use, counted, frames_for


def roi_ratio(
    picture: Picture, *, regions: str, reference: str, measure: Measure = "pixel", use: Use = "only",
    energy_window: int | None = None, subtract_background: bool = False,
) -> Report:  # fmt: skip
    """Divide the mean counts per pixel of each region by those of the *reference* region.

    *regions* are rectangles or ellipses (`sacrum: 60,50,80,78; left joint: ellipse 58,80,82,90; …`) in pixels or mm
    (*measure*) of the view that *use* names, and of one *energy_window*, counted from 1, where there are several;
    from behind, the patient's left is at the left. With *subtract_background* the mean of the region called
    `background` is taken from all means first.

    Raises Refused where the view is unknown, several moments are in the image, the reference is no region or has no
    more counts than the background, and where the image does not hold counts.
    """
    frames, indices, view = frames_for(of_window(counted(picture), energy_window), use)
    if len(indices) != 1:
        raise Refused(
            f"the view has {len(indices)} frames; a ratio is made of one (several moments: use time_activity)"
        )
    rois = rois_of(regions, picture, measure)
    named = {roi.name.lower(): roi for roi in rois}
    against = named.get(reference.strip().lower())
    if against is None:
        raise Refused(f"the reference {reference} is none of the regions: {', '.join(r.name for r in rois)}")
    common = named.get(BACKGROUND)
    if subtract_background and common is None:
        raise Refused("there is no region called background to subtract")
    below = _mean(frames, common) if subtract_background and common is not None else 0.0
    others = [roi for roi in rois if roi is not against and not is_background(roi)]
    if not others:
        raise Refused("there is no region beside the reference")
    divisor = _mean(frames, against) - below
    if divisor <= 0:
        raise Refused(
            f"the reference {against.name} has {divisor:g} counts per pixel"
            f"{' above background' if subtract_background else ''}, so no ratio can be told"
        )
    method = GEOMETRIC_MEAN if use == "geometric_mean" else ONE_VIEW
    measurements = []
    for roi in (*others, against):
        mean = _mean(frames, roi) - below
        where = (method, None, roi.site, roi.laterality)
        measurements.append(Measurement(PROJECTION, mean, COUNTS, MEAN, *where))
        if roi is not against:
            measurements.append(Measurement(RELATIVE_UPTAKE, mean / divisor, RATIO, None, *where))
    said = [
        f"Ratios are of mean counts per pixel, against {against.name}"
        + (f", less {below:.6g} of the background." if subtract_background else "."),
    ]
    if view is not None:
        said.append(f"View: {view.meaning}.")
    return Report(tuple(measurements), (*said_of(rois), *(Remark(text) for text in said)))


def _mean(frames: NDArray[Any], roi: Roi) -> float:
    return float(frames[0][roi.inside].mean(dtype=np.float64))
