"""Segment the lungs: air inside the body, without the airways, left and right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import HU, Mask, Mm, Refused, Segments, Unit, Volume
from node.operators.boxes import box_of
from node.operators.codes import ANATOMY, LEFT, LUNG, RIGHT
from node.operators.ct.airway import Pixel, airway
from node.operators.ct.common import is_axial, refuse_other_units
from node.operators.ct.halves import closed, halves
from node.operators.segment import segment_body

Bools = NDArray[np.bool_]
Millilitres = Annotated[float, Unit("ml")]

GAS_HU = -975.0
"""A piece darker than this on average is gas in bowel or stomach: lungs hold blood and tissue, even with
severe emphysema."""
ACROSS = 0.2
"""Share of a piece that lies on the other side of the middle from which on it is both lungs in one."""
BESIDE = 0.3
"""Share of the shorter lung's height over which the two must lie beside each other."""
OF_BODY = 0.12
"""Share of the body's cross-section that the lungs take at least where they are widest: gas and stool in the bowel
take less."""
_UPRIGHT = 0.9
"""Cosine between rows and the patient's left-right axis above which left and right are told by columns."""
_MOST_PIECES = 8
"""Pieces that are looked at, the largest first."""


@dataclass(frozen=True, eq=False)
class _Field:
    """What is looked at: a box around the air within the body, slices from head to foot."""

    air: Bools
    values: NDArray[np.floating]
    box: tuple[slice, ...]
    """Of the volume's array; its first slice runs backwards where the volume begins at the foot."""
    spacing: NDArray[np.float64]
    side: NDArray[np.float64]
    """Of each column: mm to the patient's left of the middle of the body."""

    @property
    def millilitres(self) -> float:
        """Of one voxel."""
        return float(np.prod(self.spacing)) / 1000


def segment_lungs(
    volume: Volume, *, air: HU = -400.0, close: Mm = 4.0, at_least: Millilitres = 100.0
) -> Segments:
    """Mark left and right lung in an axial chest CT: voxels below *air* within the body, without the airways.

    The body is that of `segment_body`. Trachea and main bronchi are followed from slice to slice down from the
    neck until their wall is lost, and are taken away. Of the pieces that are left, connected over
    faces, the largest on either side of the body's middle are the lungs; where one piece holds both, it is
    parted at its neck (watershed on the distance from its surface). Each lung is closed by a ball
    of *close* mm radius, so that vessels up to twice as thick belong to it; 0 leaves them out. What was not
    measured (padding) never belongs to a lung.

    Raises Refused where there are no two lungs of *at_least* each beside each other, where they cannot be
    parted, and for what is no axial CT in Hounsfield units.
    """
    refuse_other_units(volume, "segment_lungs")
    if not is_axial(volume):
        raise Refused("lungs are sought in axial slices; `reformat: {plane: axial, …}` first")
    if abs(volume.axes[0, 2]) < _UPRIGHT:
        raise Refused(
            "rows of the images do not run from one side of the patient to the other (a decubitus scan?), so left and "
            "right cannot be told; `reformat: {plane: axial, …}` first"
        )
    if close < 0 or at_least <= 0:
        raise Refused(f"close {close:g} mm must be 0 or more, and at_least {at_least:g} ml more than 0")
    body = segment_body(volume).array
    field = _field(volume, body, air)
    tubes = airway(field.air, field.values, _pixel(field))
    lungs = field.air if tubes is None else field.air & ~tubes
    left, right = _pair(lungs, field, at_least)
    _check_size(left, right, body[field.box[0]])
    allowed = body[field.box]
    if volume.valid is not None:
        allowed = allowed & volume.valid[field.box]
    if tubes is not None:
        allowed = allowed & ~tubes
    left, right = (closed(half, close, field.spacing) & allowed for half in (left, right))
    right &= ~left
    without = "no trachea found" if tubes is None else "without trachea and main bronchi"
    how = f"Air below {air:g} HU within the body, {without}, closed by a ball of {close:g} mm radius"
    frame = {k: volume.facts[k] for k in ("frame_of_reference",) if k in volume.facts}
    return Segments(
        tuple(
            Mask(_placed(half, field, volume), volume.affine, label, ANATOMY, LUNG, how, which)
            for half, label, which in ((left, "Left lung", LEFT), (right, "Right lung", RIGHT))
        ),
        {**frame, "airways": "not found" if tubes is None else "left out"},
    )


def _field(volume: Volume, body: Bools, air: float) -> _Field:
    """The air within the body, cropped to it."""
    inner = volume.array < air
    inner &= body
    if volume.valid is not None:
        inner &= volume.valid
    if not inner.any():
        raise Refused(f"no lungs found: the body holds no voxel below {air:g} HU")
    box = box_of(inner)
    down = volume.axes[2, 0] < 0  # the first slice is that at the head
    first, last = box[0].start, box[0].stop
    order = slice(first, last) if down else slice(last - 1, None if first == 0 else first - 1, -1)
    box = (order, *box[1:])
    columns = np.arange(box[2].start, box[2].stop)
    across = body[box[0]].sum(axis=(0, 1), dtype=np.int64)
    middle = float((across * np.arange(len(across))).sum() / across.sum())
    side = (columns - middle) * float(volume.affine[0, 2])
    return _Field(inner[box], volume.array[box], box, volume.spacing, side)


def _pixel(field: _Field) -> Pixel:
    step = field.side[1] - field.side[0] if len(field.side) > 1 else 1.0
    s = field.spacing
    return Pixel(float(s[0]), float(s[1]), float(s[2]), float(-field.side[0] / step))


def _pair(lungs: Bools, field: _Field, at_least: float) -> tuple[Bools, Bools]:
    """The left and the right lung. Raises Refused where there are none."""
    pieces, count = ndimage.label(lungs)
    sizes = sum(
        (np.bincount(layer.ravel(), minlength=count + 1) for layer in pieces), np.zeros(count + 1, int)
    )
    sizes[0] = 0
    millilitres = sizes * field.millilitres
    found: dict[bool, Bools] = {}
    for number in np.argsort(-sizes, kind="stable")[:_MOST_PIECES]:
        if millilitres[number] < at_least or len(found) == 2:
            break
        piece = pieces == number
        if float(field.values[piece].mean(dtype=np.float64)) < GAS_HU:
            continue
        on_left = float(piece.sum(axis=(0, 1))[field.side > 0].sum() / sizes[number])
        if not found and ACROSS < on_left < 1 - ACROSS:
            return _parted(piece, field, at_least)
        found.setdefault(on_left > 0.5, piece)
    if len(found) < 2:
        which = "none" if not found else f"the {'left' if True in found else 'right'} one only"
        raise Refused(
            f"no pair of lungs found: of the pieces of air within the body, {which} has {at_least:g} ml or more "
            f"(the largest: {', '.join(f'{v:.0f}' for v in sorted(millilitres, reverse=True)[:3] if v)} ml)"
        )
    left, right = found[True], found[False]
    _check_beside(left, right)
    return left, right


def _parted(piece: Bools, field: _Field, at_least: float) -> tuple[Bools, Bools]:
    """The two lungs in one piece. Raises Refused where a cut between them leaves one too small."""
    left, right = halves(piece, field.values, field.side)
    smaller = min(np.count_nonzero(left), np.count_nonzero(right)) * field.millilitres
    if smaller < at_least:
        raise Refused(
            "the air within the chest is one piece, and no cut near the middle of the body makes two lungs of it: "
            f"the smaller part has {smaller:.0f} ml"
        )
    return left, right


def _check_beside(left: Bools, right: Bools) -> None:
    """Refuse two pieces one above the other: a lung, and the bowel's gas."""
    heights = [half.any(axis=(1, 2)) for half in (left, right)]
    shorter = min(np.count_nonzero(h) for h in heights)
    if np.count_nonzero(heights[0] & heights[1]) < BESIDE * shorter:
        raise Refused(
            "no pair of lungs found: the two largest pieces of air within the body do not lie beside each other"
        )


def _check_size(left: Bools, right: Bools, body: Bools) -> None:
    """Refuse two pieces that are small for the body they lie in; *body* in the same slices, whole."""
    areas = np.count_nonzero(left, axis=(1, 2)) + np.count_nonzero(right, axis=(1, 2))
    widest = int(areas.argmax())
    share = areas[widest] / max(1, np.count_nonzero(body[widest]))
    if share < OF_BODY:
        raise Refused(
            f"no pair of lungs found: the two largest pieces of air take {100 * share:.0f} % of the body's "
            "cross-section where they are widest, as gas in the bowel does"
        )


def _placed(half: Bools, field: _Field, volume: Volume) -> Bools:
    whole = np.zeros(volume.array.shape, bool)
    whole[field.box] = half
    return whole
