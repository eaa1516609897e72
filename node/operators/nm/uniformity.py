"""Flood field uniformity of a gamma camera as NEMA NU 1-2007 has it in 2.4.4: integral and differential.

In the words of this module: the *useful* field (UFOV) is what the camera uses, the *central* one (CFOV) has three
quarters of its linear dimensions. Pixels count 6.4 mm ± 30 %, summed from smaller ones. Pixels at the edge of the
useful field with less than 75 % of the mean of the central one are left out, then those beside them; the rest is
smoothed once by [1 2 1; 2 4 2; 1 2 1], pixels left out having no weight. Integral uniformity is (max - min) / (max +
min) over a field, differential uniformity the largest such value of any five neighbours in a row or a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Measurement, Mm, Picture, Refused, Remark, Report
from node.operators.codes import (
    CENTRAL_FIELD,
    DIFFERENTIAL,
    DIFFERENTIAL_X,
    DIFFERENTIAL_Y,
    INTEGRAL,
    NEMA,
    PERCENT,
    USEFUL_FIELD,
    private_code,
)
from node.operators.nm.views import counted, frame_words

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PIXEL, TOLERANCE = 6.4, 0.3
"""mm, and the share by which pixels may differ from it."""
CENTRAL = 0.75
"""Linear dimensions of the central field, by those of the useful one."""
EDGE = 0.75
"""Share of the central field's mean that a pixel at the edge must have."""
ENOUGH = 10_000
"""Counts that the pixel at the centre should hold."""
MOST_FRAMES = 8
KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float64)
WINDOW = 5
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
_ROUNDING = 1e-6
_PARTS = 4
"""Points per pixel and direction by which is told how much of it lies in the central field."""


@dataclass(frozen=True, eq=False)
class Fields:
    """What is analysed: summed counts, and which pixels belong to which field."""

    counts: Floats
    useful: Bools
    central: Bools


@dataclass(frozen=True, slots=True)
class Uniformity:
    """Of one field, in percent."""

    integral: float
    rows: float
    """Differential, along rows (X)."""
    columns: float

    @property
    def differential(self) -> float:
        """The larger of both directions."""
        return max(self.rows, self.columns)


def uniformity(
    picture: Picture, *, width: Mm | None = None, height: Mm | None = None, summed: int | None = None
) -> Report:  # fmt: skip
    """Report integral and differential uniformity of a flood image, over the useful and the central field of view.

    By NEMA NU 1-2007, 2.4.4. The useful field is *width* x *height* about the centre of the image; without them it is
    taken from the image: where it has at least half of the counts of its middle. *summed* x *summed* pixels are summed
    to one, by default as many as come nearest to 6.4 mm. Each frame is a flood of its own.

    Raises Refused where pixels are not square or their size is unknown (and *summed* is not given), where the field is
    too small or larger than the image, where there are more than 8 frames, and where the image does not hold counts.
    """
    picture = counted(picture)
    if (width is None) != (height is None):
        raise Refused("width and height of the useful field belong together; give both or neither")
    if len(picture.array) > MOST_FRAMES:
        raise Refused(
            f"the image has {len(picture.array)} frames; a flood has one for each head and energy window"
        )
    factor, size, remarks = _summing(picture, summed)
    if width is not None and size is None:
        raise Refused("width and height are in mm, and the image states no pixel spacing; leave them out")
    _refuse_larger(picture, width, height)
    measurements: list[Measurement] = []
    for number, frame in enumerate(picture.array, 1):
        words = frame_words(picture, number - 1) if len(picture.array) > 1 else ""
        name = f"frame {number}{f' ({words})' if words else ''}" if len(picture.array) > 1 else ""
        counts = binned(frame.astype(np.float64), factor)
        stated = None if width is None or height is None or size is None else (height / size, width / size)
        fields = fields_of(counts, stated)
        remarks += _counted_enough(fields, name)
        for field, mask in (
            (USEFUL_FIELD, fields.useful), (CENTRAL_FIELD, fields.central),
        ):  # fmt: skip
            values = measured(smoothed(fields.counts, fields.useful), mask)
            site = private_code(f"{field.value}{number}", f"{field.meaning}, {name}") if name else field
            measurements += [
                Measurement(code, value, PERCENT, None, NEMA, None, site)
                for code, value in (
                    (INTEGRAL, values.integral), (DIFFERENTIAL, values.differential),
                    (DIFFERENTIAL_X, values.rows), (DIFFERENTIAL_Y, values.columns),
                )
            ]  # fmt: skip
    remarks.append(Remark(
        "Useful field: taken from the image, where it has at least half of the counts of its middle."
        if width is None else f"Useful field: {width:g} x {height:g} mm about the centre of the image."
    ))  # fmt: skip
    return Report(tuple(measurements), tuple(remarks))


def _refuse_larger(picture: Picture, width: float | None, height: float | None) -> None:
    """A useful field that reaches out of the image was imaged in part: a zoomed flood, or another camera's size."""
    if width is None or height is None or picture.spacing is None:
        return
    rows, columns = (n * step for n, step in zip(picture.array.shape[1:3], picture.spacing, strict=True))
    if width > columns * (1 + _ROUNDING) or height > rows * (1 + _ROUNDING):
        raise Refused(
            f"the useful field of {width:g} x {height:g} mm is larger than the image, which has {columns:.4g} x "
            f"{rows:.4g} mm; give that of this camera, or a flood that holds all of it"
        )


def binned(counts: Floats, factor: int) -> Floats:
    """Sums over *factor* x *factor* pixels; what is left over at the edges is cut off, at both as much."""
    rows, columns = (n // factor for n in counts.shape)
    if not rows or not columns:
        raise Refused(f"{factor} x {factor} pixels cannot be summed in an image of {counts.shape}")
    top, left = ((n - m * factor) // 2 for n, m in zip(counts.shape, (rows, columns), strict=True))
    whole = counts[top : top + rows * factor, left : left + columns * factor]
    return np.asarray(whole.reshape(rows, factor, columns, factor).sum(axis=(1, 3)))


def fields_of(counts: Floats, stated: tuple[float, float] | None = None) -> Fields:
    """Useful and central field, edges left out; *stated* are rows and columns of the useful one, in pixels."""
    if stated is None:
        useful = lit(counts)
        outside_is_dark = True
        central = shrunk(useful)
    else:
        useful, central = (rectangle(counts.shape, stated, scale) for scale in (1.0, CENTRAL))
        outside_is_dark = False
    if not useful.any() or not central.any():
        raise Refused("the useful field is too small: no pixel of the central one lies at least half in it")
    kept = without_edge(counts, useful, central, outside_is_dark=outside_is_dark)
    return Fields(counts, kept, central & kept)


def lit(counts: Floats) -> Bools:
    """The one piece of the image that has at least half of the counts of its middle, holes filled."""
    if not counts.sum() > 0:
        raise Refused("the image holds no counts")
    middle = ndimage.center_of_mass(counts)
    around = tuple(
        slice(max(int(m) - n // 8, 0), int(m) + n // 8 + 1) for m, n in zip(middle, counts.shape, strict=True)
    )
    pieces, found = ndimage.label(counts >= counts[around].mean() / 2)
    if not found:
        raise Refused("the image has no bright field")
    largest = 1 + int(np.argmax(ndimage.sum_labels(np.ones_like(counts), pieces, np.arange(1, found + 1))))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest), bool)


def shrunk(useful: Bools) -> Bools:
    """The central field: the shape of *useful*, scaled about the middle of its box; pixels at least half inside."""
    middles, grids = [], []
    for axis in (0, 1):
        filled = np.flatnonzero(useful.any(axis=1 - axis))
        middles.append((filled[0] + filled[-1] + 1) / 2)
        points = (np.arange(useful.shape[axis] * _PARTS) + 0.5) / _PARTS
        grids.append(np.floor((points - middles[axis]) / CENTRAL + middles[axis]).astype(int))
    known = [(grid >= 0) & (grid < n) for grid, n in zip(grids, useful.shape, strict=True)]
    rows, columns = (np.clip(grid, 0, n - 1) for grid, n in zip(grids, useful.shape, strict=True))
    points_inside = useful[rows][:, columns] & known[0][:, None] & known[1][None, :]
    shares = points_inside.reshape(useful.shape[0], _PARTS, useful.shape[1], _PARTS).mean(axis=(1, 3))
    return np.asarray(shares >= 0.5)


def rectangle(shape: tuple[int, ...], size: tuple[float, float], scale: float) -> Bools:
    """Pixels of which at least half lies in a rectangle of *size* pixels times *scale* about the image's centre."""
    shares = []
    for n, wanted in zip(shape, size, strict=True):
        low, high = n / 2 - wanted * scale / 2, n / 2 + wanted * scale / 2
        edges = np.clip(np.arange(n + 1), low, high)
        shares.append(np.diff(edges))
    return np.asarray(shares[0][:, None] * shares[1][None, :] >= 0.5 - 1e-9)


def without_edge(counts: Floats, useful: Bools, central: Bools, *, outside_is_dark: bool) -> Bools:
    """*useful* less its outer pixels below 75 % of the central mean, less those beside a pixel without counts."""
    outer = useful & ~ndimage.binary_erosion(useful, _CROSS, border_value=0)
    dark = outer & (counts < EDGE * counts[central].mean())
    beyond = ~useful & (outside_is_dark | (counts == 0))
    beside = ndimage.binary_dilation(dark | beyond, _CROSS)
    return np.asarray(useful & ~beside)


def smoothed(counts: Floats, inside: Bools) -> Floats:
    """The 9-point mean over what lies *inside*; 0 elsewhere."""
    weights = ndimage.convolve(inside.astype(np.float64), KERNEL, mode="constant")
    total = ndimage.convolve(np.where(inside, counts, 0.0), KERNEL, mode="constant")
    return np.divide(total, weights, out=np.zeros_like(counts), where=inside)


def measured(values: Floats, field: Bools) -> Uniformity:
    """Integral and differential uniformity of smoothed *values* over *field*, percent."""
    inside = values[field]
    if not inside.size or inside.max() + inside.min() <= 0:
        raise Refused("the field is too small, or holds no counts")
    along = [_steepest(v, f) for v, f in ((values, field), (values.T, field.T))]
    if None in along:
        raise Refused(f"the field has no {WINDOW} neighbours in a row or in a column; it is too small")
    return Uniformity(_contrast(inside.max(), inside.min()), float(along[0] or 0), float(along[1] or 0))


def _steepest(values: Floats, field: Bools) -> float | None:
    if values.shape[1] < WINDOW:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=1)
    whole = np.lib.stride_tricks.sliding_window_view(field, WINDOW, axis=1).all(axis=-1)
    if not whole.any():
        return None
    high, low = runs.max(axis=-1)[whole], runs.min(axis=-1)[whole]
    total = high + low
    return float(np.max(100 * np.divide(high - low, total, out=np.zeros_like(total), where=total > 0)))


def _contrast(high: float, low: float) -> float:
    return float(100 * (high - low) / (high + low))


def _summing(picture: Picture, summed: int | None) -> tuple[int, float | None, list[Remark]]:
    """How many pixels make one, how large that is (mm), and what has to be said of it."""
    if summed is not None and summed < 1:
        raise Refused(f"summed: {summed} pixels make none; give 1 or more")
    if picture.spacing is None:
        if summed is None:
            raise Refused(
                "the image states no pixel spacing, and pixels of 6.4 mm are needed (NEMA NU 1); where the rule "
                "knows the camera, say how many pixels make one (summed)"
            )
        said = f"Summed {summed} x {summed} pixels of unknown size, as the rule says."
        return summed, None, [Remark(said)]
    rows, columns = picture.spacing
    if abs(rows / columns - 1) > 0.01:
        raise Refused(f"pixels of {rows:g} x {columns:g} mm are not square (NEMA NU 1)")
    factor = summed or min(range(1, int(PIXEL / columns) + 2), key=lambda n: abs(n * columns - PIXEL))
    size = factor * columns
    remarks = [Remark(f"Pixels of {columns:.4g} mm, {factor} x {factor} of them summed to {size:.4g} mm.")]
    if abs(size / PIXEL - 1) > TOLERANCE:
        remarks.append(
            Remark(
                f"{size:.4g} mm is not within 6.4 mm ± 30 %: these are no NEMA figures, and cannot be compared "
                "with those of the camera's maker."
            )
        )
    return factor, size, remarks


def _counted_enough(fields: Fields, name: str) -> list[Remark]:
    rows, columns = (int(np.mean(np.flatnonzero(fields.useful.any(axis=axis)))) for axis in (1, 0))
    centre = float(fields.counts[rows, columns])
    if centre >= ENOUGH:
        return []
    where = f" of {name}" if name else ""
    return [
        Remark(
            f"The pixel at the centre{where} holds {centre:.0f} counts; NEMA NU 1 asks for 10000, so noise makes "
            "these figures larger."
        )
    ]
