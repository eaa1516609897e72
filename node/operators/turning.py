"""A rotating projection as it is read: windowed, large enough for a screen, with the sides of the patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from node.operator import NO_UNITS, Mm, Number, Picture, Refused, Volume
from node.operators.colour import Pixels, lettered, unit_text
from node.operators.mip import mip_rotating
from node.operators.planes import CORONAL, turned
from node.operators.reformat import Combine
from node.operators.window import IDENTITY, windowed

LEAST_PIXELS = 512
"""Rows or columns of a frame, whichever are more."""
_MARGIN = 4
"""Columns beside what is shown."""


def mip_turning(
    volume: Volume,
    *,
    center: Number,
    width: Number,
    views: int = 36,
    combine: Combine = "max",
    spacing: Mm | None = None,
) -> Picture:
    """Project the volume from *views* directions, bright on black, with letters for the sides of the patient.

    The views are those of `mip_rotating`: frame 1 from the front, then to the patient's left side and on around.
    They are shown under the window *center*, *width* (LINEAR_EXACT, PS3.3 C.11.2.1.3.2); columns that stay black all
    around are cut off on both sides, and frames are enlarged to at least 512 pixels. A projection alone does not
    tell front from back; the letters do. A scale in mm is in the lower left. What was not measured is black.

    Raises Refused where *width* is not above 0, and what `mip_rotating` refuses.
    """
    if width <= 0:
        raise Refused(f"a window of width {width:g} is too narrow; it must be greater than 0")
    made = mip_rotating(volume, views=views, combine=combine, spacing=spacing)
    pixel = made.spacing[0] if made.spacing else 1.0
    unit = unit_text(volume.unit)
    kind = {"max": "MIP", "min": "MinIP", "mean": "mean"}[combine]
    title = f"{volume.facts.get('modality', 'image')} {kind}, {center:g}/{width:g} {unit}".strip()
    shown = np.rint(windowed(made.array, (center, width), "linear_exact") * 255).astype(np.uint8)
    if made.valid is not None:
        shown[~made.valid] = 0
    shown = cropped(shown, shown > 0)
    times = max(1, math.ceil(LEAST_PIXELS / max(shown.shape[1:])))
    frames = [
        lettered(_enlarged(view, times), turned(angle) @ CORONAL, title, pixel / times)[..., 1]
        for view, angle in zip(shown, made.facts["angles"], strict=True)
    ]
    facts = {**made.facts, "burned_in": False, "window": IDENTITY}  # letters, nothing of the patient
    spaced = (pixel / times, pixel / times)
    return Picture(np.stack(frames), NO_UNITS, spaced, "patient", title=made.title, facts=facts)


def cropped(shown: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """The columns in which something of some view is *seen*, as many on either side of the axis of rotation."""
    columns = np.flatnonzero(seen.any(axis=(0, 1)))
    if not columns.size:
        return shown
    wide = shown.shape[2]
    cut = max(0, min(int(columns[0]), wide - 1 - int(columns[-1])) - _MARGIN)
    return shown[:, :, cut : wide - cut]


def _enlarged(view: Pixels, times: int) -> Pixels:
    """As RGB, each pixel *times* as wide and high, linear between them."""
    image = Image.fromarray(view)
    large = image.resize((image.width * times, image.height * times), Image.Resampling.BILINEAR)
    return np.asarray(large.convert("RGB"))
