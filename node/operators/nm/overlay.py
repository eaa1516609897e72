"""Where the regions of a rule lie on the image: to be looked at before their numbers are believed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from node.operator import Picture
from node.operators.colour import lettered, text_size
from node.operators.graphs import COLOURS
from node.operators.nm.frames import of_window
from node.operators.nm.regions import Measure, Roi, is_background, measured_rois, rois_of
from node.operators.nm.views import Use, counted, frame_words, frames_for

LEAST_PIXELS = 512
"""Rows or columns, whichever are more."""
_BRIGHT = 99.5
"""Percentile of the pixels with counts that is shown white."""
_GROUND = (16, 16, 20)
_BACKGROUND = "#d9d9d9"
Pixels = NDArray[np.uint8]


def show_regions(
    picture: Picture, *, regions: str, measure: Measure = "pixel", use: Use = "only",
    energy_window: int | None = None,
) -> Picture:  # fmt: skip
    """Draw the outlines of *regions*, with their names, over the sum of the frames of a view.

    Regions, view and energy window are those of `time_activity` and `roi_ratio`, in the colours of the curves;
    backgrounds are grey. Where the image states its directions, letters say which side of the patient lies where.

    Raises Refused where a region does not lie in the image, the view is unknown, or the image does not hold counts.
    """
    chosen = of_window(counted(picture), energy_window)
    frames, indices, _ = frames_for(chosen, use)
    rois = rois_of(regions, chosen, measure)
    times = max(1, math.ceil(LEAST_PIXELS / max(frames.shape[1:])))
    words = "geometric mean" if use == "geometric_mean" else frame_words(chosen, indices[0])
    summed = f"sum of {len(frames)} frames" if len(frames) > 1 else ""
    title = ", ".join(filter(None, (words, summed))) or "regions"
    pixels = _outlined(_grey(frames.sum(axis=0, dtype=np.float64), times), rois, times)
    axes = _axes(chosen, indices[0])
    spacing = (
        None if chosen.spacing is None else (chosen.spacing[0] / times, chosen.spacing[1] / times)
    )  # fmt: skip
    pixel = spacing[1] if spacing and chosen.plane == "patient" else 0.0
    shown = _titled(pixels, title) if axes is None else lettered(pixels, axes, title, pixel)
    return Picture(
        shown[None],
        spacing=spacing,
        plane=chosen.plane if spacing else "",
        title=title,
        facts={"burned_in": False},
    )


def colours_of(rois: tuple[Roi, ...]) -> dict[str, str]:
    """Name → colour: that of its curve, grey for backgrounds."""
    measured = {roi.name: COLOURS[n % len(COLOURS)] for n, roi in enumerate(measured_rois(rois))}
    return {roi.name: measured.get(roi.name, _BACKGROUND) for roi in rois}


def _grey(counts: NDArray[np.float64], times: int) -> Pixels:
    """The image, enlarged, from black to the brightest counts."""
    seen = counts[counts > 0]
    top = float(np.percentile(seen, _BRIGHT)) if seen.size else 1.0
    shares = np.clip(counts / top, 0, 1).astype(np.float32)
    size = (counts.shape[1] * times, counts.shape[0] * times)
    large = np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR))
    grey = np.rint(np.clip(large, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _outlined(pixels: Pixels, rois: tuple[Roi, ...], times: int) -> Pixels:
    """Lines of two pixels along the inner edge of each region, its name above it."""
    colours = colours_of(rois)
    size = text_size(*pixels.shape[:2])
    font = ImageFont.load_default(size)
    shown = pixels.copy()
    for roi in rois:
        large = np.repeat(np.repeat(roi.inside, times, axis=0), times, axis=1)
        edge = large & ~ndimage.binary_erosion(large, iterations=2, border_value=0)
        shown[edge] = ImageColor.getrgb(colours[roi.name])
    image = Image.fromarray(shown)
    draw = ImageDraw.Draw(image)
    for roi in rois:
        if not is_background(roi):
            rows, columns = np.nonzero(roi.inside)
            at = (
                (columns.min() + columns.max() + 1) / 2 * times,
                max(rows.min() * times - 2 - size // 3, 2 * size),
            )
            draw.text(at, roi.name, colours[roi.name], font, anchor="ms", stroke_width=1, stroke_fill=_GROUND)
    return np.asarray(image)


def _titled(pixels: Pixels, title: str) -> Pixels:
    size = text_size(*pixels.shape[:2])
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).text(
        (4, 4),
        title,
        "#ebebeb",
        ImageFont.load_default(size),
        anchor="lt",
        stroke_width=1,
        stroke_fill=_GROUND,
    )
    return np.asarray(image)


def _axes(picture: Picture, frame: int) -> NDArray[np.float64] | None:
    """Directions of slices, rows and columns in the patient, as a volume's axes; None where not stated."""
    found: list[Any] = [picture.facts.get(name) for name in ("row_directions", "column_directions")]
    if None in found:
        return None
    along, down = (np.array(directions[frame], np.float64) for directions in found)
    return np.stack([np.cross(along, down), down, along], axis=1)
