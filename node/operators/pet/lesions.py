"""Foci of high uptake as segments, each outlined by its own maximum or by one level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Code, Mask, Number, Refused, Segments, Unit, Volume
from node.operators.pet.measuring import quantity_of, refuse_other_grid

Percent = Annotated[float, Unit("%")]
Millilitres = Annotated[float, Unit("ml")]
Bools = NDArray[np.bool_]

MOST = 100
"""Foci; more are noise, or a level that is too low."""
_TISSUE = Code("85756007", "SCT", "Tissue")
"""Category (CID 7150) and type (CID 7151): what a focus is, a lesion or a bladder, its uptake does not say."""
_FACES = ndimage.generate_binary_structure(3, 1)


def segment_uptake(
    volume: Volume,
    mask: Mask | None = None,
    *,
    at_least: Number,
    method: Literal["fraction", "fixed"] = "fraction",
    fraction: Percent = 41.0,
    smallest: Millilitres = 1.0,
) -> Segments:
    """Outline the foci of uptake of a PET volume in SUV or Bq/ml, the hottest first.

    A focus is a piece, connected over faces, of voxels of *at_least* a level, in *mask* if given. With *fixed* that
    is its outline; with *fraction* it is made of the voxels connected to its hottest one that have at least
    *fraction* percent of its value (41 %: EANM guideline 2.0, doi:10.1007/s00259-014-2961-x), below *at_least* as
    well. A voxel belongs to the hottest focus that reaches it, and what lies within a hotter one's outline is no
    focus of its own. Foci of less than *smallest* are left out.

    Raises Refused where there is none or there are more than 100, and where the mask is on another grid.
    """
    quantity_of(volume)
    if not 0 < fraction < 100:
        raise Refused(f"fraction {fraction:g} % is out of range: more than 0, less than 100")
    if at_least <= 0:
        raise Refused(f"at_least {at_least:g} must be greater than 0")
    allowed = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
    if mask is not None:
        refuse_other_grid(volume, mask)
        allowed = allowed & mask.array
    least = smallest * 1000 / volume.voxel_volume * (1 - 1e-9)
    share = fraction / 100 if method == "fraction" else None
    found = _foci(volume, allowed, at_least, share, least)
    if not found:
        raise Refused(f"no focus of at least {at_least:g} {volume.unit.value} and {smallest:g} ml was found")
    if len(found) > MOST:
        raise Refused(f"more than {MOST} foci were found; raise at_least or smallest, or give a mask")
    outline = f"{fraction:g} % of its maximum" if share else f"{at_least:g} {volume.unit.value}"
    said = f"Voxels of at least {outline}"
    masks = tuple(
        Mask(focus.full(volume.array.shape), volume.affine, f"Uptake {n}", _TISSUE, _TISSUE, said)
        for n, focus in enumerate(found, 1)
    )
    return Segments(masks, {k: v for k, v in volume.facts.items() if k == "frame_of_reference"})


@dataclass(frozen=True, eq=False)
class _Focus:
    """Voxels of one focus, in a box of the volume."""

    box: tuple[slice, ...]
    inside: Bools

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.inside))

    def full(self, shape: tuple[int, ...]) -> Bools:
        made = np.zeros(shape, bool)
        made[self.box] = self.inside
        return made


def _foci(volume: Volume, allowed: Bools, at_least: float, share: float | None, least: float) -> list[_Focus]:
    """All foci of *least* voxels, the hottest first; of equally hot ones that which comes first in the volume.

    No more than one beyond `MOST`.
    """
    pieces, count = ndimage.label(allowed & (volume.array >= at_least), _FACES)
    boxes = ndimage.find_objects(pieces)
    hottest = [_hottest(volume, pieces, box, n) for n, box in enumerate(boxes, 1)]
    taken = np.zeros(allowed.shape, bool)
    found: list[_Focus] = []
    for n in sorted(range(count), key=lambda n: (-float(volume.array[hottest[n]]), hottest[n])):
        if taken[hottest[n]]:
            continue
        focus = _Focus(boxes[n], pieces[boxes[n]] == n + 1)
        if share is not None:
            level = share * float(volume.array[hottest[n]])
            focus = _grown(volume, allowed, taken, hottest[n], level, boxes[n])
        taken[focus.box] |= focus.inside
        if focus.count >= least:
            found.append(focus)
        if len(found) > MOST:
            break
    return found


def _hottest(volume: Volume, pieces: NDArray[np.integer], box: tuple[slice, ...], n: int) -> tuple[int, ...]:
    """Index of the hottest voxel of piece *n*, the first of several."""
    values = np.where(pieces[box] == n, volume.array[box], -np.inf)
    at = np.unravel_index(int(values.argmax()), values.shape)
    return tuple(int(a) + side.start for a, side in zip(at, box, strict=True))


def _grown(
    volume: Volume, allowed: Bools, taken: Bools, at: tuple[int, ...], level: float, box: tuple[slice, ...]
) -> _Focus:
    """What is connected to the voxel *at* above *level*, sought in a box that grows until it holds all of it."""
    margin = 1
    while True:
        wide = tuple(
            slice(max(side.start - margin, 0), min(side.stop + margin, n))
            for side, n in zip(box, allowed.shape, strict=True)
        )
        near = allowed[wide] & ~taken[wide] & (volume.array[wide] >= level)
        pieces, _ = ndimage.label(near, _FACES)
        own = pieces == pieces[tuple(a - side.start for a, side in zip(at, wide, strict=True))]
        inner = ndimage.find_objects(own.astype(np.uint8))[0]
        ends = zip(inner, wide, allowed.shape, strict=True)
        if all(
            (i.start > 0 or w.start == 0) and (w.start + i.stop < w.stop or w.stop == n) for i, w, n in ends
        ):
            kept = tuple(slice(w.start + i.start, w.start + i.stop) for i, w in zip(inner, wide, strict=True))
            return _Focus(kept, own[inner])
        margin *= 4
