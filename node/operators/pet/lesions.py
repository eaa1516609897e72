"""Foci of high uptake as segments, each outlined by its own maximum or by one level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Mask, Number, Refused, Segments, Unit, Volume
from node.operators.codes import TISSUE
from node.operators.pet.measuring import quantity_of, refuse_elsewhere

Percent = Annotated[float, Unit("%")]
Millilitres = Annotated[float, Unit("ml")]
Bools = NDArray[np.bool_]
Labels = NDArray[np.integer[Any]]

MOST = 100
"""Foci; more are noise, or a level that is too low."""
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
    *fraction* percent of its value (41 %: EANM guideline 2.0, doi:10.1007/s00259-014-2961-x), but never below
    *at_least*, where the outline of a weak focus would run into its surroundings. What hangs together above
    *at_least* is one focus, outlined by its hottest voxel: a higher level parts what lies close. Foci of less than
    *smallest* are left out.

    Raises Refused where there is none or there are more than 100, and where the mask is on another grid.
    """
    quantity_of(volume)
    if not 0 < fraction < 100:
        raise Refused(f"fraction {fraction:g} % is out of range: more than 0, less than 100")
    if at_least <= 0:
        raise Refused(f"at_least {at_least:g} must be greater than 0")
    allowed = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
    if mask is not None:
        refuse_elsewhere(volume, mask)
        allowed = allowed & mask.array
    least = smallest * 1000 / volume.voxel_volume * (1 - 1e-9)
    share = fraction / 100 if method == "fraction" else None
    found = _foci(volume, allowed, at_least, share, least)
    if not found:
        raise Refused(f"no focus of at least {at_least:g} {volume.unit.value} and {smallest:g} ml was found")
    if len(found) > MOST:
        raise Refused(f"more than {MOST} foci were found; raise at_least or smallest, or give a mask")
    level = f"{at_least:g} {volume.unit.value}"
    said = f"Voxels of at least {f'{fraction:g} % of its maximum and ' if share else ''}{level}"
    masks = tuple(  # of tissue: what a focus is, a lesion or a bladder, its uptake does not say
        Mask(focus.full(volume.array.shape), volume.affine, f"Uptake {n}", TISSUE, TISSUE, said)
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
    tops = [float(volume.array[at]) for at in hottest]
    levels = [at_least if share is None else max(at_least, share * top) for top in tops]
    found: list[_Focus] = []
    for n in sorted(range(count), key=lambda n: (-tops[n], hottest[n])):
        focus = _outlined(volume, pieces, n + 1, boxes[n], hottest[n], levels[n])
        if focus.count >= least:
            found.append(focus)
        if len(found) > MOST:
            break
    return found


def _hottest(volume: Volume, pieces: Labels, box: tuple[slice, ...], n: int) -> tuple[int, ...]:
    """Index of the hottest voxel of piece *n*, the first of several."""
    values = np.where(pieces[box] == n, volume.array[box], -np.inf)
    at = np.unravel_index(int(values.argmax()), values.shape)
    return tuple(int(a) + side.start for a, side in zip(at, box, strict=True))


def _outlined(
    volume: Volume, pieces: Labels, n: int, box: tuple[slice, ...], at: tuple[int, ...], level: float
) -> _Focus:
    """What of piece *n* is connected to its hottest voxel above *level*."""
    near, _ = ndimage.label((pieces[box] == n) & (volume.array[box] >= level), _FACES)
    own = near == near[tuple(a - side.start for a, side in zip(at, box, strict=True))]
    inner = ndimage.find_objects(own.astype(np.uint8))[0]
    kept = tuple(slice(b.start + i.start, b.start + i.stop) for i, b in zip(inner, box, strict=True))
    return _Focus(kept, own[inner])
