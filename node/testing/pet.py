"""PET phantoms: hot spheres whose Standardized Uptake Values are known, and the activity that makes them.

`write_pet_series` says 70 kg, 370 MBq of fluorine-18 at 09:15 and a scan at 10:15; `activity` is what 1 g/ml is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, inf, pi, sin

import numpy as np

from node.model import Code
from node.operator import Volume
from node.testing.phantoms import Blob, Grid, Triple, nodules, paint

BECQUEREL = Code("Bq/ml", "UCUM", "Becquerels/milliliter")
DIAMETERS = (10.0, 13.0, 17.0, 22.0, 28.0, 37.0)
"""mm: the spheres of the IEC body phantom (NEMA NU 2-2018, section 7.4.1)."""
WEIGHT, DOSE, HALF_LIFE, DECAY = 70.0, 3.7e8, 6586.2, 3600.0
"""kg, Bq, s and s, of `write_pet_series`."""
_IEC = Grid((40, 96, 96), (3.0, 3.0, 3.0))
_PARTS = 4
"""Each voxel is sampled at so many points along each axis."""


@dataclass(frozen=True)
class Sphere:
    """One hot sphere."""

    centre: Triple
    """mm."""
    radius: float
    """mm."""
    suv: float


def activity(suv: float) -> float:
    """Bq/ml that are *suv* g/ml (body weight) in a series of `write_pet_series`."""
    return suv * DOSE * 2 ** (-DECAY / HALF_LIFE) / (WEIGHT * 1000)


def nema_spheres(suv: float = 8.0) -> tuple[Sphere, ...]:
    """Return the six spheres of the IEC body phantom, on a circle of 57.2 mm radius in one axial plane."""
    angles = [pi * n / 3 for n in range(len(DIAMETERS))]
    return tuple(
        Sphere((57.2 * cos(a), 57.2 * sin(a), 0.0), d / 2, suv)
        for a, d in zip(angles, DIAMETERS, strict=True)
    )


def nema_volume(
    grid: Grid = _IEC,
    *,
    background: float = 2.0,
    spheres: tuple[Sphere, ...] | None = None,
    blur: float = 0.0,
) -> Volume:
    """Return a warm body (150 x 115 mm radii) with hot spheres in Bq/ml, each voxel the mean over its box.

    *background* is its SUV. *blur* is the full width at half maximum, in mm, of a scanner that sees it so.
    """
    fine = np.zeros(grid.shape, np.float64)
    spheres = nema_spheres() if spheres is None else spheres
    offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    point = grid.coordinates()
    for dk in offsets:
        for dj in offsets:
            for di in offsets:
                step = grid.affine[:3, :3] @ np.array([dk, dj, di])
                fine += _painted(point + step.reshape(3, 1, 1, 1), background, spheres)
    array = fine / _PARTS**3 * activity(1.0)
    if blur:
        from scipy.ndimage import gaussian_filter  # noqa: PLC0415 (few phantoms are blurred)

        array = gaussian_filter(array, [blur / 2.354820045 / s for s in grid.spacing])
    return Volume(array.astype(np.float32), grid.affine, BECQUEREL)


_CHEST = Grid((70, 96, 96), (4.0, 4.0, 4.0))


def chest_uptake(grid: Grid = _CHEST, *, blur: float = 6.0, noise: float = 0.06, seed: int = 0) -> Volume:
    """Return what a PET of `body_volume` may show, in Bq/ml: the same outlines, and its nodules hot.

    SUV 1 in soft tissue, 0.4 in fat and lung, 1.6 in blood, 2.2 in the liver, 4 in the heart's muscle, 1.4 in the
    spine, 9, 6, 4 and 1 in the nodules (the last is calcified). *noise* is relative, of a Gaussian drawn from *seed*.
    """
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 (as above)

    point, soft = grid.coordinates(), min(grid.spacing)
    suv = np.zeros(grid.shape)
    body = (Blob((0, 0, 0), (140, 95, inf), 0.4), Blob((0, 0, 0), (128, 84, inf), 1.0))
    lungs = (Blob((-62, -5, 22), (47, 62, 92), 0.4), Blob((62, -5, 22), (44, 60, 92), 0.4))
    liver = (Blob((-50, -8, -85), (76, 68, 58), 2.2),)
    heart = (Blob((16, -25, -12), (46, 38, 46), 4.0), Blob((22, -27, -14), (29, 24, 31), 1.6))
    vessels = (Blob((24, 40, 0), (12, 12, inf), 1.6), Blob((-12, -8, 0), (9, 9, inf), 1.6))
    spine = (Blob((0, 54, 0), (21, 16, inf), 1.4),)
    found = tuple(
        Blob(nodule.centre, nodule.radii, value)
        for nodule, value in zip(nodules(), (9.0, 6.0, 4.0, 1.0), strict=True)
    )
    paint(suv, point, soft, (*body, *lungs, *liver, *heart, *vessels, *spine, *found))
    seen = gaussian_filter(suv, [blur / 2.354820045 / s for s in grid.spacing])
    grain = np.random.default_rng(seed).normal(1.0, noise, grid.shape)
    array = np.clip(seen * grain, 0, None) * activity(1.0)
    return Volume(array.astype(np.float32), grid.affine, BECQUEREL)


def _painted(point: np.ndarray, background: float, spheres: tuple[Sphere, ...]) -> np.ndarray:
    x, y, _ = point
    values = np.where((x / 150) ** 2 + (y / 115) ** 2 <= 1, background, 0.0)
    for sphere in spheres:
        away = point - np.array(sphere.centre).reshape(3, 1, 1, 1)
        values[(away**2).sum(axis=0) <= sphere.radius**2] = sphere.suv
    return values


def with_dose(volume: Volume) -> Volume:
    """Return *volume* (Bq/ml) with the facts that a read series of `write_pet_series` has."""
    facts = {
        "modality": "PT", "units": "BQML", "injected_dose": DOSE, "half_life": HALF_LIFE, "decay_time": DECAY,
        "patient_weight": WEIGHT, "patient_size": 1.75, "patient_sex": "M", "decay_correction": "START",
        "corrected_image": ("DECY", "ATTN"),
    }  # fmt: skip
    return replace(volume, facts={**volume.facts, **facts})
