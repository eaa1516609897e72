"""Two operators of a third party: the lungs, and the share of them that is emphysema."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from node.operator import HU, Code, Mask, Measurement, Refused, Volume

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LUNGS = Code("74101002", "SCT", "Both lungs")
INDEX = Code("LAA", "99ACME", "Low attenuation area of lung")
PERCENT = Code("%", "UCUM", "percent")
LITRE = 1e6
"""mm³."""


def lungs(volume: Volume, *, darker_than: HU = -500) -> Mask:
    """Mark the air-filled lungs: what is dark and does not reach the edge of the image."""
    if volume.unit.value != "[hnsf'U]":
        raise Refused(f"the lungs are found by their CT numbers; these values are in {volume.unit.meaning}")
    dark = volume.array < darker_than
    parts, _ = ndimage.label(dark)
    edge = np.unique(np.concatenate([parts[:, [0, -1]].ravel(), parts[:, :, [0, -1]].ravel()]))
    inside = dark & ~np.isin(parts, edge)
    parts, count = ndimage.label(inside)
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * volume.voxel_volume / LITRE
    kept = np.flatnonzero(sizes[1:] > 0.05) + 1
    if not len(kept):
        raise Refused("no air-filled space of more than 50 ml lies inside the body; is this a chest CT?")
    return Mask(np.isin(parts, kept), volume.affine, "Lungs", ANATOMY, LUNGS)


def emphysema_index(volume: Volume, mask: Mask, *, below: HU = -950) -> list[Measurement]:
    """Share of lung voxels darker than *below*."""
    if not volume.same_grid(mask):
        raise Refused("the mask lies on another grid than the images")
    share = float((volume.array[mask.array] < below).mean() * 100)
    return [
        Measurement(
            INDEX, share, PERCENT, method=Code(f"LAA{below:g}", "99ACME", f"Below {below:g} HU"), region=mask
        )
    ]
