"""Nuclear medicine phantoms: what a gamma camera counts, exactly known, as arrays and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from node.model import Code
from node.operator import Picture

Floats = NDArray[np.float64]
COUNTS = Code("{counts}", "UCUM", "Counts")
VIEWS = {
    "anterior": ("399321004", "Anterior projection", 1.0),
    "posterior": ("399001007", "Posterior projection", -1.0),
}
"""Name → SCT code (PS3.16 CID 26), its meaning, and to which side columns count up: +x is the patient's left."""
ATTENUATION = 0.012
"""Per mm: soft tissue at 140 keV, with scatter in the window (0.12/cm)."""


@dataclass(frozen=True)
class Phase:
    """One phase of a dynamic study; times in ms (PS3.3 C.8.4.14)."""

    frames: int
    duration: float
    pause: float = 0.0
    delay: float = 0.0


def phase_times(phases: Sequence[Phase]) -> tuple[Floats, Floats]:
    """Return when each frame begins, from the first, and how long it takes: ms."""
    begins, lasts, moment = [], [], 0.0
    for number, phase in enumerate(phases):
        moment += phase.delay if number else 0.0
        for _ in range(phase.frames):
            begins.append(moment)
            lasts.append(phase.duration)
            moment += phase.duration + phase.pause
        moment -= phase.pause
    return np.array(begins), np.array(lasts)


def phase_vector(phases: Sequence[Phase]) -> tuple[int, ...]:
    """Return the Phase Vector: the number of its phase for each frame."""
    return tuple(number for number, phase in enumerate(phases, 1) for _ in range(phase.frames))


def slice_vector(phases: Sequence[Phase]) -> tuple[int, ...]:
    """Return the Time Slice Vector: the number of each frame within its phase."""
    return tuple(n + 1 for phase in phases for n in range(phase.frames))


def ellipse(shape: tuple[int, int], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie in the ellipse of *box* (top, left, bottom, right edge, in pixels)."""
    top, left, bottom, right = box
    rows = (np.arange(shape[0])[:, None] + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
    columns = (np.arange(shape[1])[None, :] + 0.5 - (left + right) / 2) / ((right - left) / 2)
    return np.asarray(rows**2 + columns**2 <= 1)


def lung_frames(
    *, left: float = 0.5, per_pixel: float = 4000.0, depths: tuple[float, float] = (101.0, 90.0),
    thickness: float = 200.0,
) -> Floats:  # fmt: skip
    """Return lungs from the front and from behind, 128 x 128: the *left* has that share of the activity.

    The left and the right lung are two point-thin sheets *depths* mm below the front of a body *thickness* mm
    deep, so each view is attenuated by what lies before it; the product of the two views is not. With the
    default depths the anterior view alone says 46.7 % left where it is 50 %.
    """
    shape = (128, 128)
    sides = (  # from the front, the patient's left is at the right of the image
        (ellipse(shape, (30, 70, 98, 106)), left, depths[0]),
        (ellipse(shape, (30, 22, 98, 58)), 1 - left, depths[1]),
    )
    front, back = np.zeros(shape), np.zeros(shape)
    for inside, share, depth in sides:
        front[inside] = 2 * per_pixel * share * np.exp(-ATTENUATION * depth)
        back[inside] = 2 * per_pixel * share * np.exp(-ATTENUATION * (thickness - depth))
    return np.rint(np.stack([front, back[:, ::-1]]))


def as_seen(frames: Any, *, fwhm: float = 2.0, seed: int = 0) -> Floats:
    """Return what a camera shows of *frames*: blurred to *fwhm* pixels at half maximum, Poisson counts from *seed*."""
    expected = np.asarray(frames, np.float64)
    blurred = gaussian_filter(expected, (0.0, fwhm / 2.3548, fwhm / 2.3548), mode="constant")
    return np.random.default_rng(seed).poisson(blurred).astype(np.float64)


def gamma_curve(seconds: Any, peak: float, at: float) -> Floats:
    """Return `peak · t/at · exp(1 - t/at)`: its highest value is *peak*, at *at* seconds."""
    t = np.asarray(seconds, float)
    return np.asarray(peak * t / at * np.exp(1 - t / at))


def gamma_counts(begin: Any, end: Any, peak: float, at: float) -> Floats:
    """Return the integral of `gamma_curve` from *begin* to *end*, seconds."""

    def primitive(t: Any) -> Any:
        return -peak * np.e * (np.asarray(t, float) + at) * np.exp(-np.asarray(t, float) / at)

    return np.asarray(primitive(end) - primitive(begin))


RENOGRAM = (Phase(60, 1000.0), Phase(114, 10000.0))
"""One minute of one-second frames, then 19 minutes of ten-second frames."""
KIDNEYS = {"left": ((44, 26, 72, 46), 60.0, 180.0), "right": ((46, 82, 74, 102), 40.0, 240.0)}
"""From behind: box of the ellipse (pixels), counts per second and pixel at the peak, seconds to the peak."""
KIDNEY_BACKGROUND = 5.0
"""Counts per second and pixel, everywhere."""


def kidney_frames(
    phases: Sequence[Phase] = RENOGRAM, *, scale: float = 1.0, seed: int | None = None
) -> Floats:
    """Return a renogram from behind, 128 x 128: what is expected in each frame, or Poisson counts from *seed*."""
    begins, lasts = (times / 1000 for times in phase_times(phases))
    shape = (128, 128)
    frames = np.full((len(begins), *shape), KIDNEY_BACKGROUND * scale) * lasts[:, None, None]
    for box, peak, at in KIDNEYS.values():
        counts = gamma_counts(begins, begins + lasts, peak * scale, at)
        frames += counts[:, None, None] * ellipse(shape, box)
    if seed is None:
        return np.rint(frames)
    return np.random.default_rng(seed).poisson(frames).astype(np.float64)


def flood_frames(
    shape: tuple[int, int] = (64, 64), *, mean: float = 12000.0, field: tuple[int, int] = (44, 60),
    seed: int | None = 0, dent: float = 0.0,
) -> Floats:  # fmt: skip
    """Return one flood image of *mean* counts per pixel over a *field* of rows x columns, dark around it.

    *dent* takes that share off a Gaussian spot of 3 pixels: a photomultiplier that drifts. Poisson noise is drawn
    from *seed*; None is without noise.
    """
    expected = np.zeros(shape)
    top, left = (shape[0] - field[0]) // 2, (shape[1] - field[1]) // 2
    expected[top : top + field[0], left : left + field[1]] = mean
    rows, columns = np.indices(shape)
    away = np.hypot(rows - shape[0] * 0.4, columns - shape[1] * 0.6)
    expected *= 1 - dent * np.exp(-((away / 3) ** 2) / 2)
    counts = expected if seed is None else np.random.default_rng(seed).poisson(expected)
    return np.asarray(counts, np.float64)[None]


def nuclear_picture(
    frames: Any, views: Sequence[str] = ("",), *, phases: Sequence[Phase] = (), duration: float = 300000.0,
    spacing: float | None = 4.8, kind: str = "",
) -> Picture:  # fmt: skip
    """Return *frames* as the Picture that reading the written image gives: head by head, in time within each."""
    array = np.asarray(frames, np.float32)
    each = len(array) // len(views)
    facts: dict[str, Any] = {
        "modality": "NM",
        "frame_kind": kind or ("DYNAMIC" if phases else "STATIC"),
        "detectors": tuple(np.repeat(np.arange(len(views)) + 1, each).tolist()),
        "energy_windows": (1,) * len(array),
        "frame_durations": (float(duration),) * len(array),
        "counts_accumulated": float(array.sum(dtype=np.float64)),
    }
    if any(views):
        stated = [VIEWS[view][:2] if view else ("", "") for view in np.repeat(views, each)]
        facts |= {
            "view_codes": tuple(code for code, _ in stated),
            "views": tuple(words for _, words in stated),
        }
    times = None
    if phases:
        begins, lasts = phase_times(phases)
        times = np.tile(begins, len(views))
        facts |= {
            "phases": phase_vector(phases) * len(views),
            "time_slices": slice_vector(phases) * len(views),
            "frame_durations": tuple(np.tile(lasts, len(views)).tolist()),
        }
    return Picture(
        array, COUNTS, None if spacing is None else (spacing, spacing), "patient" if spacing else "",
        times=times, facts=facts,
    )  # fmt: skip
