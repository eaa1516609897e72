"""How a derived MR image was diffusion-weighted (PS3.3 C.8.13.5.9).

The attributes are not in the classic class, but without them the images cannot be told apart (Standard Extended,
PS3.2). What the operator's volume says holds: a b-value that the source states in a maker's private element only, or
a trace that has no direction any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from node.operator import Volume


def set_weighting(dataset: Dataset, volume: Volume, headers: Sequence[Dataset]) -> None:
    """b-value, and direction or that there is none, by the facts of *volume*, else where all *headers* agree."""
    kind = str(volume.facts.get("directionality", ""))
    b_value = volume.facts.get("b_value")
    if b_value == 0 and not kind:  # as GE states of every image, diffusion or not
        b_value = None
    b_value = _agreed(headers, "DiffusionBValue") if b_value is None else b_value
    if b_value is not None:
        dataset.DiffusionBValue = b_value
    direction = volume.facts.get("gradient")
    if direction is None and kind not in ("ISOTROPIC", "NONE"):
        direction = _agreed(headers, "DiffusionGradientOrientation")
    if direction is not None:
        dataset.DiffusionGradientOrientation = [float(v) for v in direction]
    elif kind in ("ISOTROPIC", "NONE"):
        dataset.DiffusionDirectionality = kind


def _agreed(headers: Sequence[Dataset], keyword: str) -> Any:
    found = [header.get(keyword) for header in headers]
    return found[0] if found[0] is not None and all(value == found[0] for value in found) else None
