"""A chest whose lungs, airways, vessels and emphysema are known in millimetres, for operators on CT."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.operator import Volume
from node.testing.phantoms import HOUNSFIELD, Array, Grid, Triple

CHEST_GRID = Grid(shape=(140, 140, 170), spacing=(2.0, 2.0, 2.0))
"""280 x 280 x 340 mm around the middle of the lungs."""


@dataclass(frozen=True)
class Chest:
    """What `chest_volume` draws: lungs as ellipsoids in a body, HU and millimetres."""

    body: tuple[float, float] = (150.0, 110.0)
    """Half axes of the body, an elliptic cylinder as long as the grid."""
    lung: Triple = (48.0, 70.0, 105.0)
    """Half axes of each lung."""
    apart: float = 62.0
    """Of each lung's middle from the midline; less than *lung*'s first half axis makes the two overlap."""
    parenchyma: float = -860.0
    emphysema: float = -985.0
    diseased: tuple[float, float] = (0.0, 0.0)
    """Share of the height of the left and of the right lung, from the top, that is emphysema."""
    trachea: float = 9.0
    """Radius of its lumen; its wall is 2 mm; 0 leaves the airway out."""
    vessel: float = 2.5
    """Radius of one vessel along each lung; 0 leaves them out."""
    field: float = 0.0
    """Radius of the scanner's circular field of view; what lies outside is padding of -3024 HU. 0: none."""

    @property
    def lung_millilitres(self) -> float:
        """Of one lung, its vessel included, less nothing: 4/3 π abc."""
        a, b, c = self.lung
        return 4 / 3 * math.pi * a * b * c / 1000

    def emphysema_share(self, which: int) -> float:
        """Share of an ellipsoid that lies in the top part *diseased* of its height (a cap of a ball)."""
        h = 2 * self.diseased[which]
        return h**2 * (3 - h) / 4


def chest_volume(grid: Grid = CHEST_GRID, chest: Chest = Chest(), *, noise: float = 0.0) -> Volume:
    """Return the chest: a voxel is what its centre lies in, so its truth is that of `Chest`.

    Left is +x (LPS), the head +z. The trachea comes down in the midline to 20 mm above the middle of the lungs and
    forks into two bronchi that run 45° down to the lungs. *noise* is the standard deviation of Gaussian noise.
    """
    x, y, z = grid.coordinates()
    array = np.full(grid.shape, -1000.0, np.float32)
    wide, deep = chest.body
    table = deep + 12
    array[np.hypot(x / wide, y / deep) <= 1] = 30.0
    array[np.hypot(x / 10, (y - deep + 25) / 12) <= 1] = 400.0  # the spine
    array[(np.abs(y - table) < 5) & (np.abs(x) < 160)] = -100.0
    array[(np.abs(y - table) < 3.5) & (np.abs(x) < 158)] = -960.0  # the table's foam, closed all around
    for which, middle in enumerate((chest.apart, -chest.apart)):
        _lung(array, (x - middle, y, z), chest, which)
    if chest.trachea:
        _airway(array, (x, y, z), chest)
    if noise:
        array += np.random.default_rng(0).normal(0.0, noise, grid.shape).astype(np.float32)
    volume = Volume(np.clip(np.rint(array), -1024, 3071), grid.affine, HOUNSFIELD, facts={"modality": "CT"})
    return _padded(volume, np.hypot(x, y) > chest.field) if chest.field else volume


def _lung(array: NDArray[np.float32], point: tuple[Array, Array, Array], chest: Chest, which: int) -> None:
    x, y, z = point
    a, b, c = chest.lung
    inside = (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1
    array[inside] = chest.parenchyma
    if chest.diseased[which]:
        array[inside & (z >= c - 2 * c * chest.diseased[which])] = chest.emphysema
    if chest.vessel:
        array[inside & (np.hypot(x, y - 0.35 * b) <= chest.vessel)] = 40.0


def _airway(array: NDArray[np.float32], point: tuple[Array, Array, Array], chest: Chest) -> None:
    """Walls first, then lumina: a tube down the midline, and one to each side from the carina."""
    x, y, z = point
    carina, reach = 20.0, max(chest.apart - chest.lung[0], 0) + 14
    for radius, value in ((chest.trachea + 2, 40.0), (chest.trachea, -1000.0)):
        array[(np.hypot(x, y) <= radius) & (z >= carina)] = value
    small = 0.75 * chest.trachea
    for radius, value in ((small + 2, 40.0), (small, -1000.0)):
        along = np.abs(x)  # 45° down to both sides
        bronchus = np.hypot((along + (z - carina)) / math.sqrt(2), y) <= radius
        array[bronchus & (along <= reach) & (z <= carina + radius)] = value
    array[(np.hypot(x, y) <= chest.trachea) & (z >= carina - 3)] = -1000.0


def _padded(volume: Volume, outside: NDArray[np.bool_]) -> Volume:
    array = np.where(outside, np.float32(-3024), volume.array)
    return replace(volume, array=array, valid=~outside)
