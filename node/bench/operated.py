"""The series that operators are measured on, written as files: large, and drawn in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from node.operator import Volume
from node.testing import (
    Chest,
    Grid,
    Series,
    body_volume,
    chest_volume,
    head_volume,
    write_ct_series,
    write_mr_series,
    write_pet_series,
)

MODALITIES = {"ct": "CT", "chest": "CT", "pet": "PT", "mr": "MR"}
"""Series → its Modality."""


def write(folder: Path, series: str, slices: int) -> tuple[list[Path], int]:
    """Write *slices* of a series; its files, and how many voxels it has.

    A chest of 512 x 512 pixels, or its uptake in 400 x 400, a slab of it again and again; a whole chest with lungs as
    high as fits, without contrast; or a head of 256 x 256.
    """
    if series == "chest":
        chest = _chest(slices)
        native = Series("chest", "bench", changes={"ContrastBolusAgent": None})
        return write_ct_series(folder, chest, series=native), chest.array.size
    if series == "mr":
        head = head_volume(Grid((slices, 256, 256), (1.0, 0.94, 0.94)))
        return write_mr_series(folder, head, series=Series("mr", "bench")), head.array.size
    side = 512 if series == "ct" else 400
    spacing = (1.0, 0.75, 0.75) if series == "ct" else (2.0, 1.5, 1.5)
    made = body_volume(Grid((40, side, side), spacing))
    volume = replace(made, array=np.resize(made.array, (slices, side, side)))
    if series == "ct":
        return write_ct_series(folder, volume, series=Series("ct", "bench")), volume.array.size
    uptake = replace(volume, array=np.maximum(volume.array + 1000, 0) * 10)
    return write_pet_series(folder, uptake, series=Series("pet", "bench")), volume.array.size


def _chest(slices: int) -> Volume:
    """Drawn with half as many voxels each way, each of them eight times."""
    half = Grid((-(-slices // 2), 256, 256), (2.0, 1.5, 1.5))
    drawn = chest_volume(half, Chest(lung=(48.0, 70.0, 0.42 * slices), diseased=(0.1, 0.2)), noise=20.0)
    array = drawn.array
    for axis in range(3):
        array = np.repeat(array, 2, axis=axis)
    whole = Grid((slices, 512, 512), (1.0, 0.75, 0.75))
    return replace(drawn, array=array[:slices], affine=whole.affine)
