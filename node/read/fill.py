"""Frames on a grid → the array of a volume, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.read.frames import Frame, plane
from node.read.geometry import Grid
from node.read.realworld import Scale
from node.read.scale import padded
from node.read.tilt import Straight, shifted, straight

Array = NDArray[np.floating[Any]]
Valid = NDArray[np.bool_]

_EXACT_BITS = 24
"""float32 holds whole numbers of so many bits exactly."""


class Filled:
    """A volume's *array*, *affine* and *valid* (None where every voxel was measured).

    float32 holds every 16-bit stored value exactly under slope 1, and any rescaled one to 6e-8; where
    more than 24 bits are stored the array is float64. Padding keeps its value and is not valid.
    """

    def __init__(self, frames: Sequence[Frame], scales: Sequence[Scale], place: Grid) -> None:
        first = frames[0].header
        shape = (len(frames), int(first.Rows), int(first.Columns))
        self._frames, self._scales = frames, scales
        self._onto: Straight | None = straight(shape, place.sideways) if place.tilt else None
        self.affine = place.affine if self._onto is None else self._onto.affine(place.affine)
        kind = np.float64 if any(_wide(frame.header) for frame in frames) else np.float32
        # Memory that is not there is missed here, before a pixel of a large object is read.
        self.array: Array = np.empty(shape if self._onto is None else self._onto.shape, kind)
        self.valid: Valid | None = None
        self._holes = False
        self._fill()

    def _fill(self) -> None:
        """Decode every frame of every object once, in the order of its file."""
        slices: dict[int, dict[int, list[int]]] = {}
        for k, frame in enumerate(self._frames):
            slices.setdefault(id(frame.source), {}).setdefault(max(1, frame.number), []).append(k)
        for of_source in slices.values():
            numbers = sorted(of_source)
            source = self._frames[of_source[numbers[0]][0]].source
            for number, stored in zip(numbers, source.stored(numbers), strict=True):
                for k in of_source[number]:  # several where the frame is a mosaic
                    self._put(k, plane(stored, self._frames[k]))
            if source.frames == 1:
                source.release()
        if self._holes and self.valid is not None:  # what is not there must not stand out
            lowest = float(self.array.min(where=self.valid, initial=np.inf))
            self.array[np.isnan(self.array)] = lowest if np.isfinite(lowest) else 0.0

    def _put(self, k: int, stored: NDArray[Any]) -> None:
        values, measured = self._scales[k](stored), _measured(stored, self._frames[k].header, self._scales[k])
        if np.issubdtype(stored.dtype, np.floating) and measured is not None:
            values = np.where(np.isfinite(values), values, np.nan)
            self._holes = True
        if self._onto is not None:
            values, measured = shifted(np.asarray(values, np.float64), measured, self._onto, k, np.nan)
            self._holes = True
        self.array[k] = values
        if measured is not None and not measured.all():
            self.valid = np.ones(self.array.shape, bool) if self.valid is None else self.valid
            self.valid[k] = measured


def _measured(stored: NDArray[Any], header: Dataset, scale: Scale) -> Valid | None:
    """Where *stored* is neither padding nor without meaning nor no number; None where that is everywhere."""
    without = [padded(stored, header), scale.undefined(stored)]
    if np.issubdtype(stored.dtype, np.floating) and not np.isfinite(stored).all():
        without.append(~np.isfinite(stored))
    found = [mask for mask in without if mask is not None]
    return ~np.logical_or.reduce(found) if found else None


def _wide(header: Dataset) -> bool:
    """Whether stored values may have more digits than float32."""
    return int(header.get("BitsAllocated") or 16) > 32 or int(header.get("BitsStored") or 16) > _EXACT_BITS
