"""What every fit over several MR images asks first: can they be compared, and where is there tissue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from node.operator import NO_UNITS, Mask, Refused, Volume
from node.operators.region import refuse_other_grid

Bools = NDArray[np.bool_]

_DARK = 0.5
"""Of Otsu's threshold: fluid, fat or vessels are so bright that tissue lies below the threshold itself."""
_BRIGHT_PERCENTILE = 98.0
"""Otsu's threshold is sought below this: the few brightest voxels must not be the one class and all else the other."""

_COMPONENTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}


def tissue(volume: Volume, mask: Mask | None, above: float | None) -> Bools:
    """The measured voxels of *volume* within *mask*; without one those from *above*, or from half of Otsu's threshold.

    Raises Refused where the mask lies on another grid, or nothing is left.
    """
    if mask is not None:
        refuse_other_grid(volume, mask)
    level = above if above is not None else (-np.inf if mask is not None else _level(volume))
    inside = volume.array >= level
    if mask is not None:
        inside &= mask.array
    if volume.valid is not None:
        inside &= volume.valid
    if not inside.any():
        raise Refused(f"no voxel reaches {level:g}" + (" within the mask" if mask is not None else ""))
    return inside


def measured(volumes: Sequence[Volume]) -> Bools | None:
    """Where all of *volumes* were measured; None where that is everywhere. Not to be written into."""
    found: Bools | None = None
    for volume in volumes:
        if volume.valid is not None:
            found = volume.valid if found is None else found & volume.valid
    return found


def refuse_incomparable(volumes: Sequence[Volume]) -> None:
    """Raise Refused where the values of *volumes* cannot be compared: a unit, unknown scaling, or several components.

    Phase, real and imaginary images lie in one series with their magnitude on some scanners.
    """
    kinds = sorted({str(v.facts["component"]) for v in volumes if v.facts.get("component")}, key="MPRI".find)
    if len(kinds) > 1:
        named = " and ".join(_COMPONENTS.get(kind, kind) for kind in kinds)
        raise Refused(f"{named} images are in one series; narrow the rule with `use`")
    for volume in volumes:
        if volume.unit.value != NO_UNITS.value:
            raise Refused(f"the values are in {volume.unit.value}, not the signal of an MR image")
        if volume.facts.get("scaling") == "unknown":
            raise Refused(
                "Philips scaled the images differently, and Scale Slope (2005,100E), which would make them comparable, "
                "is missing; was it removed by an anonymiser?"
            )


def _level(volume: Volume) -> float:
    values: NDArray[Any] = volume.array if volume.valid is None else volume.array[volume.valid]
    below = values[values <= np.percentile(values, _BRIGHT_PERCENTILE)] if values.size else values
    if not below.size or below.min() == below.max():
        return float(values.min()) if values.size else np.inf
    return float(threshold_otsu(below)) * _DARK


def listed(values: Iterable[float]) -> str:
    """Numbers of an acquisition in words: b-values, angles, times."""
    return ", ".join(f"{value:.4g}" for value in values)
