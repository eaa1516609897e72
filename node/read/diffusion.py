"""In which direction a frame was diffusion-weighted, where the header says it (PS3.3 C.8.13.5.9)."""

from __future__ import annotations

import math
from typing import Any

from pydicom import Dataset

Direction = tuple[float, float, float]


def gradient_of(header: Dataset) -> Direction | None:
    """The unit vector of the diffusion gradient in patient coordinates; None where none is stated or there is none."""
    return _unit(header.get("DiffusionGradientOrientation"))


def directionality_of(header: Dataset) -> str:
    """DIRECTIONAL, BMATRIX, ISOTROPIC or NONE, as Diffusion Directionality says; empty where it is not stated."""
    return str(header.get("DiffusionDirectionality") or "").strip().upper()


def _unit(values: Any) -> Direction | None:
    """*values* as a vector of length 1; None where they are no three numbers or all 0."""
    try:
        x, y, z = (float(v) for v in values)
    except (TypeError, ValueError):
        return None
    length = math.hypot(x, y, z)
    if not math.isfinite(length) or length < 1e-6:
        return None
    return round(x / length, 6) + 0.0, round(y / length, 6) + 0.0, round(z / length, 6) + 0.0
