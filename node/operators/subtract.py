"""Subtract: what one image has and the other has not, e.g. after and before contrast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from node.operator import Number, Refused, Volume


def subtract(volume: Volume, other: Volume, *, scale: Number = 1.0, clip_negative: bool = False) -> Volume:
    """Subtract *scale* times *other* from *volume*, voxel by voxel, in the same unit.

    A voxel is valid where both were measured; elsewhere the result holds its lowest value. With
    *clip_negative* differences below 0 become 0.

    Raises Refused where the two lie on different grids, in different frames of reference, or hold
    different units, and where no voxel was measured in both.
    """
    if volume.unit.value != other.unit.value:
        raise Refused(
            f"{other.unit.value} cannot be subtracted from {volume.unit.value}; the units must be one"
        )
    frames = {v.facts["frame_of_reference"] for v in (volume, other) if v.facts.get("frame_of_reference")}
    if len(frames) > 1:
        raise Refused(
            "the two volumes have different frames of reference; register them first (register_rigid)"
        )
    if not volume.same_grid(other):
        raise Refused(
            f"the two volumes lie on different grids: {difference(volume, other)}; resample the one like the "
            "other first (resample, with like), or register them (register_rigid)"
        )
    array = (volume.array.astype(np.float64) - scale * other.array).astype(np.float32)
    if clip_negative:
        np.maximum(array, 0, out=array)
    valid = volume.valid if other.valid is None else other.valid
    if volume.valid is not None and other.valid is not None:
        valid = volume.valid & other.valid
    if valid is not None:
        if not valid.any():
            raise Refused("no voxel was measured in both volumes")
        array[~valid] = array[valid].min()
    return replace(volume, array=array, valid=valid)


def difference(volume: Volume, other: Volume) -> str:
    """In what two grids differ, the first thing that does."""
    ours, theirs = volume.array.shape, other.array.shape
    if ours != theirs:
        return "{} against {} voxels".format(*(" x ".join(map(str, shape)) for shape in (ours, theirs)))
    if not np.allclose(volume.spacing, other.spacing, rtol=1e-4):
        first, second = (" x ".join(f"{s:.4g}" for s in v.spacing) for v in (volume, other))
        return f"voxels of {first} against {second} mm"
    if not np.allclose(volume.axes, other.axes, atol=1e-4):
        cosines = np.clip(np.einsum("ia,ia->a", volume.axes, other.axes), -1, 1)
        return f"their directions differ by {np.degrees(np.arccos(cosines)).max():.3g}°"
    apart = float(np.linalg.norm(volume.origin - other.origin))
    return f"their first voxels are {apart:.3g} mm apart"
