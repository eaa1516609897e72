"""How much of the counts lies on the left and on the right side of the patient.

The shares of lungs or kidneys are taken from the geometric mean of two views (see `geometric_mean`); the anterior view
alone is reported beside it, because the two differ wherever one side lies deeper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Measurement, Number, Picture, Refused, Remark, Report
from node.operators.codes import (
    ANTERIOR_ALONE,
    COUNTS,
    GEOMETRIC_MEAN,
    LEFT,
    ONE_VIEW,
    PERCENT,
    PROJECTION,
    RIGHT,
    SHARE,
    TOTAL,
    private_code,
)
from node.operators.nm.frames import joined, of_window
from node.operators.nm.opposed import Stored
from node.operators.nm.regions import Measure, Roi, background_of, counts_in, measured_rois, rois_of, said_of
from node.operators.nm.views import Pair, counted, frame_words, pair_of, toward_left


def left_right(
    picture: Picture, other: Picture | None = None, *, regions: str | None = None, measure: Measure = "pixel",
    midline: Number | None = None, anterior: int | None = None, posterior: int | None = None,
    energy_window: int | None = None, single_view: bool = False, posterior_stored: Stored = "as_stated",
) -> Report:  # fmt: skip
    """Count the left and the right side: their shares of the geometric mean, and of the anterior view alone.

    *regions* are rectangles or ellipses as seen from the front, in pixels or mm (*measure*), whose names say left or
    right: `left lung: 30,70,98,106; right lung: 30,22,98,58`. A `background` region, or a `left lung background`, is
    subtracted, pixel for pixel, from each view first. Without regions the halves of the image beside *midline* are
    taken (a column of the view from the front, counted from its left edge; the middle where it is not given).

    The geometric mean of a side is that of its counts in the two views, which are found, or named, and laid over each
    other as in `geometric_mean`. *single_view* is for images of one view: then its counts are shared alone, and the
    report says so.

    Raises Refused where views, or the side of the patient, are unknown, and where a side has no counts.
    """
    if picture.facts.get("combined") == "geometric mean":
        raise Refused(
            "the image is a geometric mean already, whose two views are gone; give left_right the received series"
        )
    both = counted(picture if other is None else joined(picture, other))
    both = of_window(both, energy_window, anterior)
    front = _one_view(both) if single_view else pair_of(both, anterior, posterior, posterior_stored)
    if len(front.anterior) != 1:
        raise Refused(
            f"there are {len(front.anterior)} anterior frames; a left and right split is made of one, so name "
            "one energy window (energy_window), or use time_activity for several moments"
        )
    sides = _sides(both, front, (regions, measure), midline, told=anterior is not None)
    remarks = said_of(tuple(sides.regions), "" if single_view else "as seen from the front")
    measurements = list(_shares(sides, front, both, alone=single_view))
    if single_view:
        remarks.append(Remark("Made of one view: deeper activity counts for less; no geometric mean."))
    elif front.said:
        remarks.append(Remark(front.said))
    remarks += [Remark(both.facts["counts_told_by"])] if "counts_told_by" in both.facts else []
    if sides.backgrounds:
        remarks.append(Remark("Counts are less what as many pixels of the background region have."))
    return Report(tuple(measurements), tuple(remarks))


class _Sides:
    """The regions of both sides, and their backgrounds, in the view from the front."""

    def __init__(self, left: Roi, right: Roi, backgrounds: dict[str, Roi]) -> None:
        self.left, self.right, self.backgrounds = left, right, backgrounds

    @property
    def regions(self) -> list[Roi]:
        return [self.left, self.right, *self.backgrounds.values()]

    def counts(self, frames: NDArray[Any]) -> tuple[float, float]:
        """Left and right, of the first frame."""
        found = [counts_in(frames, roi, self.backgrounds.get(roi.name))[0] for roi in (self.left, self.right)]
        return float(found[0]), float(found[1])


def _sides(
    picture: Picture, front: Pair, asked: tuple[str | None, Measure], midline: float | None, *, told: bool
) -> _Sides:
    """The regions of both sides; *told* says that the rule told which frame is seen from the front."""
    regions, measure = asked
    grows_left = toward_left(picture, front.frames[0])
    if grows_left is None and told:
        grows_left = True  # from the front, the patient's left is seen at the right
    if regions is None:
        return _halves(picture, grows_left, measure, midline)
    if midline is not None:
        raise Refused("give regions or a midline, not both")
    rois = rois_of(regions, picture, measure)
    named = measured_rois(rois)
    left = [roi for roi in named if roi.laterality == LEFT]
    right = [roi for roi in named if roi.laterality == RIGHT]
    if len(left) != 1 or len(right) != 1 or len(named) != 2:
        said = ", ".join(roi.name for roi in named) or "none"
        raise Refused(
            f"one region must be called left and one right (left lung, right lung); the regions are {said}"
        )
    below = {roi.name: found for roi in named if (found := background_of(roi, rois)) is not None}
    if len(below) == 1:
        raise Refused(
            f"only {next(iter(below))} has a background; give both one, or a common region `background`"
        )
    _refuse_other_side(grows_left, left[0], right[0])
    return _Sides(left[0], right[0], below)


def _refuse_other_side(grows_left: bool | None, left: Roi, right: Roi) -> None:
    """Names of regions must agree with what the image says of the sides of the patient, where it does."""
    if grows_left is None:
        return
    at = [np.flatnonzero(roi.inside.any(axis=0)).mean() for roi in (left, right)]
    if (at[0] > at[1]) != grows_left:
        raise Refused(
            f"the region {left.name} lies where the image says the patient's right is; seen from the front the "
            "left side of the patient is at the right of the image"
        )


def _halves(picture: Picture, grows_left: bool | None, measure: Measure, midline: float | None) -> _Sides:
    if grows_left is None:
        raise Refused(
            "which side of the image is the patient's left is unknown: the view is not stated; name regions "
            "(left …, right …)"
        )
    rows, columns = picture.array.shape[1:3]
    step = 1.0
    if measure == "mm":
        if picture.spacing is None:
            raise Refused("the midline is in mm, and the image states no pixel spacing; give it in pixels")
        step = picture.spacing[1]
    edge = columns / 2 if midline is None else midline / step
    if not 0 < edge < columns:
        raise Refused(f"the midline {midline:g} lies outside the image, which has {columns} columns")
    before = np.broadcast_to(np.arange(columns) + 0.5 < edge, (rows, columns))
    left, right = (~before, before) if grows_left else (before, ~before)
    said = f"beside column {edge:g}"
    return _Sides(
        Roi("left half of the image", left, f"left half: {said}"),
        Roi("right half of the image", right, f"right half: {said}"),
        {},
    )


def _shares(sides: _Sides, front: Pair, picture: Picture, *, alone: bool) -> list[Measurement]:
    views = [] if alone else [("geometric mean", GEOMETRIC_MEAN, _mean_counts(sides, front))]
    said = frame_words(picture, front.frames[0]) or "one view"
    views.append((said, ONE_VIEW if alone else _of_view(picture, front), sides.counts(front.anterior)))
    found = []
    for words, method, (left, right) in views:
        if left <= 0 or right <= 0:
            side = "left" if left <= 0 else "right"
            raise Refused(
                f"the {side} side has {min(left, right):g} counts ({words}), so no share can be told"
            )
        for roi, laterality, counts in ((sides.left, LEFT, left), (sides.right, RIGHT, right)):
            share = 100 * counts / (left + right)
            found += [
                Measurement(PROJECTION, counts, COUNTS, TOTAL, method, site=roi.site, laterality=laterality),
                Measurement(SHARE, share, PERCENT, None, method, site=roi.site, laterality=laterality),
            ]
    return found


def _mean_counts(sides: _Sides, front: Pair) -> tuple[float, float]:
    ahead, behind = sides.counts(front.anterior), sides.counts(front.posterior)
    return tuple(float(np.sqrt(max(a, 0) * max(b, 0))) for a, b in zip(ahead, behind, strict=True))  # type: ignore[return-value]


def _of_view(picture: Picture, front: Pair) -> Code:
    """The method of counts of the anterior view: as the image calls it, where it calls it something else."""
    views = picture.facts.get("views")
    meaning = (
        f"{views[front.frames[0]]} alone" if views and views[front.frames[0]] else ANTERIOR_ALONE.meaning
    )
    return ANTERIOR_ALONE if meaning == ANTERIOR_ALONE.meaning else private_code("ANTERIOR", meaning)


def _one_view(picture: Picture) -> Pair:
    if len(picture.array) != 1:
        raise Refused(
            f"single_view is for images of one frame; this one has {len(picture.array)}, whose views must be told"
        )
    return Pair(picture.array, picture.array, (0,))
