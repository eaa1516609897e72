"""Fuse: one image in colour over another in grey, for people to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Mm, Number, Picture, Refused, Volume
from node.operators.colour import Bar, Colours, Pixels, bar, lettered, share_of, table, unit_text
from node.operators.planes import axes_of, refuse_other_frame
from node.operators.reformat import reformat
from node.operators.sampling import SLACK, Source, lattice_of, means, settled
from node.operators.window import windowed

LEAST_PIXELS = 480
"""Rows or columns of a frame, whichever are more: fewer leave no room for letters."""
_GREY, _COLOUR = (1.0, 99.5), (1.0, 99.9)
"""Percentiles of the measured values that a window not asked for spans: a hot lesion is small."""


@dataclass(frozen=True, slots=True)
class _Look:
    """How the two are shown."""

    grey: tuple[float, float]
    """Window center and width."""
    colour: tuple[float, float]
    """Lowest and highest value."""
    colours: Colours
    opacity: float


def fuse(
    volume: Volume,
    other: Volume,
    *,
    opacity: Number = 0.5,
    center: Number | None = None,
    width: Number | None = None,
    other_center: Number | None = None,
    other_width: Number | None = None,
    colours: Colours = "hot_iron",
    plane: Literal["acquired", "axial", "coronal", "sagittal"] = "acquired",
    thickness: Mm | None = None,
    every: Mm | None = None,
) -> Picture:
    """Show *other* in colour over *volume* in grey, one frame per slice, and a colour bar.

    *volume* is reformatted into *plane* with square pixels, in slabs of *thickness* (default: what it
    resolves) every *every* mm, *other* as means over the same voxels. Grey is *volume* under its window
    (LINEAR_EXACT, PS3.3 C.11.2.1.3.2), colour is *other*, from half a width below its center to half a width
    above. A pixel is *opacity* times colour plus (1 - *opacity*) times grey (0 to 1); where *other* is at or
    below the lower end, or was not measured, grey is shown alone. A window not given spans 1 % to 99.5 % of
    the measured values, that of the colour 1 % to 99.9 %; the bar says which values the colours mean. The
    letters at the edges are sides of the patient (PS3.3 C.7.6.1.1.1), and a scale in mm is in the lower left.

    Raises Refused where the two lie in different frames of reference or do not overlap, where an option is
    out of range, and what `reformat` refuses.
    """
    if not 0 <= opacity <= 1:
        raise Refused(f"opacity {opacity:g} is out of range: 0 (grey only) to 1 (colour only)")
    refuse_other_frame(volume, other, "register them first (register_rigid)")
    grey = _window(volume, (center, width), _GREY, "center and width")
    middle, span = _window(other, (other_center, other_width), _COLOUR, "other_center and other_width")
    look = _Look(grey, (middle - span / 2, middle + span / 2), colours, opacity)
    shown = _slices(volume, plane, thickness, every)
    source = Source(other)
    array, share = means(source, lattice_of(shown))
    valid = settled(array, share, source.low)
    if valid is not None and not valid.any():
        raise Refused("the two volumes do not overlap; nothing of the one lies in the other")
    over = replace(other, array=array, affine=shown.affine, valid=valid)
    title = f"{_name(other)} on {_name(volume)}"
    pixel = (float(shown.spacing[1]), float(shown.spacing[2]))
    side = bar(shown.array.shape[1], Bar(*look.colour, other.unit, colours), shown.array.shape[2])
    frames = [
        np.concatenate([lettered(_blended(shown, over, k, look), shown.axes, title, pixel[1]), side], axis=1)
        for k in range(len(shown.array))
    ]
    kept = {k: v for k, v in volume.facts.items() if k in ("modality", "body_part")}
    facts = {**kept, "burned_in": False, "fused": title}  # letters and a scale, nothing of the patient
    return Picture(np.stack(frames), spacing=pixel, plane="patient", title=title, facts=facts)


def _window(
    volume: Volume, asked: tuple[float | None, float | None], spread: tuple[float, float], names: str
) -> tuple[float, float]:
    """The window asked for, else that of the facts, else one over *spread* percent of what was measured."""
    center, width = asked
    if (center is None) != (width is None):
        raise Refused(f"{names} belong together; give both or neither")
    if center is not None and width is not None:
        if width <= 1e-9:
            raise Refused(f"a window of width {width:g} is too narrow; it must be greater than 0")
        return center, width
    stated = volume.facts.get("window")
    if stated is not None:
        return float(stated[0]), float(stated[1])
    values = volume.array if volume.valid is None else volume.array[volume.valid]
    if not values.size:
        raise Refused("a volume holds no measured voxel; there is nothing to show")
    low, high = (float(v) for v in np.percentile(values, spread))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        raise Refused(f"a volume holds one value only ({low:g}); give {names}")
    return (low + high) / 2, high - low


def _slices(
    volume: Volume,
    plane: Literal["acquired", "axial", "coronal", "sagittal"],
    thickness: float | None,
    every: float | None,
) -> Volume:
    """*volume* in slices of the plane, with square pixels, as fine as it resolves and a screen needs."""
    axes = axes_of(plane, volume)
    resolved = float(np.max(np.abs(axes[:, 0] @ volume.axes) * volume.spacing))
    field = np.max(np.abs(volume.axes.T @ axes[:, 1:]) * (volume.spacing * volume.array.shape)[:, None])
    finest = float(volume.spacing[1:].min())
    times = max(1, math.ceil(LEAST_PIXELS * finest / float(field) - SLACK))
    thick = resolved if thickness is None else thickness
    return reformat(volume, plane=plane, thickness=thick, every=every, spacing=finest / times)


def _blended(volume: Volume, over: Volume, k: int, look: _Look) -> Pixels:
    """One slice as RGB."""
    grey = windowed(volume.array[k], look.grey, "linear_exact") * 255
    low, high = look.colour
    coloured = table(look.colours)[np.rint(share_of(over.array[k], low, high) * 255).astype(np.uint8)]
    seen: NDArray[np.bool_] = over.array[k] > low
    if over.valid is not None:
        seen &= over.valid[k]
    alpha = np.where(seen, look.opacity, 0.0)[..., None]
    mixed: Pixels = np.rint(alpha * coloured + (1 - alpha) * grey[..., None]).astype(np.uint8)
    return mixed


def _name(volume: Volume) -> str:
    modality, unit = str(volume.facts.get("modality", "image")), unit_text(volume.unit)
    return f"{modality} [{unit}]" if unit else modality
