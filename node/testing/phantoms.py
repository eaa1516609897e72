"""Analytic phantoms: sampled at the voxel centres of any grid, so their truth is known in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from node.model import Code
from node.operator import NO_UNITS, Channel, Picture, Recording, Volume, Waveform, affine_of

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MICROVOLT = Code("uV", "UCUM", "microvolt")


@dataclass(frozen=True)
class Grid:
    """Where a phantom is sampled: centred on the phantom's own origin."""

    shape: tuple[int, int, int] = (60, 128, 128)
    """Slices, rows, columns."""
    spacing: Triple = (2.5, 2.5, 2.5)
    """mm between slices, rows, columns."""
    row: Triple = (1.0, 0.0, 0.0)
    """Direction in which the column index grows (first half of Image Orientation (Patient))."""
    column: Triple = (0.0, 1.0, 0.0)
    """Direction in which the row index grows; perpendicular to *row*."""

    @property
    def affine(self) -> Array:
        """4 x 4, array index → LPS mm; slices advance along *row* x *column*."""
        row, column = (np.array(v, float) / np.linalg.norm(v) for v in (self.row, self.column))
        axes = np.stack([np.cross(row, column), column, row], axis=1)
        extent = axes @ ((np.array(self.shape) - 1) * np.array(self.spacing))
        return affine_of(-extent / 2, axes, np.array(self.spacing))

    def coordinates(self) -> Array:
        """Return x, y, z in mm of every voxel centre: shape (3, slices, rows, columns)."""
        affine = self.affine
        indices = np.indices(self.shape, dtype=float)
        found: Array = np.tensordot(affine[:3, :3], indices, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
        return found

    @staticmethod
    def tilted(degrees: float, shape: tuple[int, int, int] = (60, 128, 128)) -> Grid:
        """Return an oblique grid: axial, turned about the x and then about the z axis by *degrees*."""
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        row = (float(cosine), float(sine), 0.0)
        column = (float(-sine * cosine), float(cosine * cosine), float(sine))
        return Grid(shape=shape, row=row, column=column)


@dataclass(frozen=True)
class Blob:
    """One ellipsoid of a phantom; a radius of inf makes it a cylinder."""

    centre: Triple
    radii: Triple
    value: float


def sphere_volume(
    grid: Grid = Grid((32, 48, 48), (2.0, 1.0, 1.0)),
    *,
    radius: float = 15.0,
    centre: Triple = (0.0, 0.0, 0.0),
    inside: float = 100.0,
    outside: float = -1000.0,
    unit: Code = HOUNSFIELD,
) -> Volume:
    """Return a sphere of *radius* mm with a sharp edge: a voxel is inside when its centre is."""
    offset = grid.coordinates() - np.array(centre).reshape(3, 1, 1, 1)
    array = np.where((offset**2).sum(axis=0) <= radius**2, inside, outside).astype(np.float32)
    return Volume(array, grid.affine, unit)


def ramp_volume(
    grid: Grid = Grid((20, 30, 40), (3.0, 1.5, 1.0)),
    *,
    per_mm: Triple = (1.0, 2.0, 4.0),
    offset: float = 0.0,
    unit: Code = HOUNSFIELD,
) -> Volume:
    """Return *offset* plus *per_mm* · (x, y, z): any linear resampling reproduces it exactly."""
    array = np.tensordot(np.array(per_mm), grid.coordinates(), 1) + offset
    return Volume(array.astype(np.float32), grid.affine, unit)


def nodules() -> tuple[Blob, ...]:
    """Return the spheres in the lungs of `body_volume`: their volumes are 4/3 π r³."""
    return (
        Blob((62.0, -22.0, 40.0), (12.0, 12.0, 12.0), 40.0),
        Blob((-62.0, 12.0, 45.0), (8.0, 8.0, 8.0), 40.0),
        Blob((-56.0, -28.0, 15.0), (5.0, 5.0, 5.0), 40.0),
        Blob((70.0, 14.0, 5.0), (6.0, 6.0, 6.0), 800.0),  # calcified
    )


def body_volume(grid: Grid = Grid(), *, noise: float = 12.0, seed: int = 0) -> Volume:
    """Return an enhanced chest in HU on its table: fat, muscle, lungs, heart, liver, spine, ribs, nodules.

    *noise* is the standard deviation of the added Gaussian noise, drawn from *seed*.
    """
    x, y, z = point = grid.coordinates()
    soft = min(grid.spacing)
    array = np.full(grid.shape, -1000.0)
    paint(array, point, soft, (Blob((0, 0, 0), (140, 95, inf), -100), Blob((0, 0, 0), (128, 84, inf), 50)))
    ring = np.abs(np.hypot(x / 118, y / 76) - 1) < 0.035
    array[ring & (np.mod(z - 0.35 * y, 24) < 9)] = 350.0  # ribs slope down to the front
    lungs = (Blob((-62, -5, 22), (47, 62, 92), -850), Blob((62, -5, 22), (44, 60, 92), -850))
    liver = (Blob((-50, -8, -85), (76, 68, 58), 110),)
    heart = (Blob((16, -25, -12), (46, 38, 46), 50), Blob((22, -27, -14), (29, 24, 31), 190))
    vessels = (Blob((24, 40, 0), (12, 12, inf), 190), Blob((-12, -8, 0), (9, 9, inf), 170))
    bones = (Blob((0, -76, 0), (15, 5, inf), 320), Blob((0, 80, 0), (5, 9, inf), 350))
    paint(array, point, soft, (*lungs, *liver, *heart, *vessels, *bones))
    paint(array, point, soft, (Blob((0, 54, 0), (21, 16, inf), 260),))
    array[(np.hypot(x / 21, (y - 54) / 16) < 1) & (np.mod(z, 25) < 6)] = 90.0  # discs between vertebrae
    paint(array, point, soft, (Blob((0, 74, 0), (9, 8, inf), 20), *nodules()))
    array[(np.abs(y - 110) < 4) & (np.abs(x) < 150)] = -250.0  # the table, 11 mm below the back
    array += np.random.default_rng(seed).normal(0.0, noise, grid.shape)
    return Volume(np.clip(np.rint(array), -1024, 3071).astype(np.float32), grid.affine, HOUNSFIELD)


def head_volume(
    grid: Grid = Grid((40, 128, 128), (4.0, 1.875, 1.875)),
    *,
    noise: float = 15.0,
    seed: int = 0,
) -> Volume:
    """Return a T1-weighted head: scalp, skull, folded cortex, ventricles, eyes and one bright lesion.

    Arbitrary units; a coil's shading (± 12 %) and Rician noise of *noise* units per channel are added.
    """
    x, y, z = point = grid.coordinates()
    soft = min(grid.spacing)
    array = np.zeros(grid.shape)
    shells = ((76, 96, 92, 900), (70, 90, 86, 60), (66, 86, 82, 180))
    paint(array, point, soft, tuple(Blob((0, 0, 0), (a, b, c), value) for a, b, c, value in shells))
    paint(array, point, soft, (Blob((0, 0, 0), (63, 83, 79), 480),))
    angle = np.arctan2(y, x)
    folds = 1 + 0.05 * np.sin(11 * angle + z / 9) + 0.04 * np.sin(23 * angle - z / 5)
    array[np.sqrt((x / 55) ** 2 + (y / 74) ** 2 + (z / 70) ** 2) < folds] = 720.0  # white matter
    array[(np.abs(x) < 1.5) & (array > 300) & (array < 800) & (z > 10)] = (
        180.0  # the fissure between the halves
    )
    inner = [Blob((side * 12, 4, 12), (6, 28, 14), 150) for side in (-1, 1)]
    inner += [Blob((side * 20, 2, -6), (11, 16, 12), 520) for side in (-1, 1)]
    inner += [Blob((side * 32, -80, -28), (13, 13, 13), 140) for side in (-1, 1)]
    paint(array, point, soft, (*inner, Blob((-34, 26, 24), (9, 9, 9), 1100)))
    array *= 1 + 0.12 * (y / 96)
    channels = np.random.default_rng(seed).normal(0.0, noise, (2, *grid.shape))
    array = np.hypot(array + channels[0], channels[1])
    return Volume(np.clip(np.rint(array), 0, 4095).astype(np.float32), grid.affine, NO_UNITS)


def paint(array: Array, point: Array, soft: float, blobs: tuple[Blob, ...]) -> None:
    """Paint *blobs* over *array*, one after the other, their edges blended over *soft* mm."""
    for blob in blobs:
        parts = zip(point, blob.centre, blob.radii, strict=True)
        away = np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in parts))
        share = np.clip(0.5 - (away - 1) * min(blob.radii) / soft, 0, 1)
        array += share * (blob.value - array)


def disc_picture(
    shape: tuple[int, int] = (240, 200), *, radius: float = 30.0, spacing: float = 0.5, inside: float = 900.0
) -> Picture:
    """Return one grey image of a disc of *radius* mm at its centre, calibrated in the patient."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    away = np.hypot(rows[:, None], columns[None, :]) * spacing
    array = np.where(away <= radius, inside, 100.0).astype(np.float32)[None]
    return Picture(array, NO_UNITS, (spacing, spacing), "patient")


def sine_recording(
    frequencies: tuple[float, ...] = (1.0, 8.0, 50.0), *, seconds: float = 4.0, rate: float = 500.0
) -> Recording:
    """Return one channel per frequency (Hz): a sine of 100 uV amplitude, sampled at *rate* Hz."""
    times = np.arange(round(seconds * rate)) / rate
    array = np.array([100.0 * np.sin(2 * np.pi * f * times) for f in frequencies])
    channels = tuple(Channel(f"{f:g} Hz", None, MICROVOLT) for f in frequencies)
    return Recording((Waveform(array, rate, channels, "RHYTHM"),))
