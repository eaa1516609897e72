"""The rotating projection by which PET is read first: dark on white, with the scale and the sides of the patient."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from node.operator import Mm, Number, Picture, Refused, Volume
from node.operators.colour import Bar, bar, lettered, share_of, table, unit_text
from node.operators.mip import mip_rotating
from node.operators.planes import CORONAL, turned
from node.operators.turning import LEAST_PIXELS, cropped

_FAINT = 0.02
"""Of the highest value shown: columns in which no view has more are cut off."""
_SPREAD = 99.8
"""Percentile of what was measured, as the highest value shown where none is asked for."""


def mip_uptake(
    volume: Volume, *, views: int = 36, spacing: Mm | None = None, highest: Number | None = None
) -> Picture:
    """Project a PET volume from *views* directions around the patient, dark on white, from 0 to *highest*.

    The views are those of `mip_rotating`, of maxima: frame 1 from the front, then to the patient's left side and on
    around. *highest*, in the volume's unit, is black and the scale's upper end (default: 99.8 % of the measured
    values lie below it); what was not measured is white as the empty background is. Columns that stay empty all
    around are cut off on both sides, the axis of rotation in the middle, and frames are enlarged to at least 512
    pixels. Letters say which side of the patient lies where, a bar what the greys mean, and a scale how long a mm is.

    Raises Refused where *highest* is not above 0, and what `mip_rotating` refuses.
    """
    if highest is not None and highest <= 0:
        raise Refused(f"highest {highest:g} must be greater than 0")
    made = mip_rotating(volume, views=views, spacing=spacing)
    values = made.array if made.valid is None else np.where(made.valid, made.array, np.float32(0))
    most = _highest(volume) if highest is None else highest
    values = cropped(values, values > _FAINT * most)
    pixel = made.spacing[0] if made.spacing else 1.0
    times = max(1, math.ceil(LEAST_PIXELS / max(values.shape[1:])))
    name = f"{volume.facts.get('modality', 'image')} {unit_text(volume.unit)}".strip()
    rows, columns = (times * count for count in values.shape[1:])
    side = bar(rows, Bar(0.0, most, volume.unit, "inverse_grey"), columns)
    greys = table("inverse_grey")
    frames = []
    for seen, angle in zip(values, made.facts["angles"], strict=True):
        shares = _enlarged(share_of(seen, 0.0, most), times)
        shown = greys[np.rint(shares * 255).astype(np.uint8)]
        view = lettered(shown, turned(angle) @ CORONAL, f"{name} MIP", pixel / times)
        frames.append(np.concatenate([view, side], axis=1)[..., 1])
    facts = {**made.facts, "burned_in": False, "window": (128.0, 256.0)}
    spaced = (pixel / times, pixel / times)
    return Picture(
        np.stack(frames), spacing=spaced, plane="patient", title=f"{made.title}, {name}", facts=facts
    )


def _highest(volume: Volume) -> float:
    values = volume.array if volume.valid is None else volume.array[volume.valid]
    most = float(np.percentile(values, _SPREAD)) if values.size else 0.0
    if most <= 0:
        most = float(values.max()) if values.size else 0.0
    if most <= 0:
        raise Refused("the volume holds no uptake; there is nothing to show")
    return most


def _enlarged(shares: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    if times == 1:
        return shares
    size = (shares.shape[1] * times, shares.shape[0] * times)
    found = np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR))
    return np.clip(found, 0, 1)
