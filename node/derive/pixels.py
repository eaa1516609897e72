"""Real-world values to stored integers, with the rescale that gives them back (PS3.3 C.11.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.derive.geometry import decimal
from node.derive.standard import CT, MR, PT
from node.errors import Broken

_LOW, _HIGH = -32768, 32767
_PADDED_BELOW = -2048
"""CT padding lies at or below this, where scanners put it and viewers expect it."""
_FINE = 1024
"""A range of at least so many whole steps loses nothing a reader could see by rounding to them."""
_FINE_MR = 256
"""The same for MR, whose images hold whole numbers as they are: a viewer need not know of a rescale there."""


@dataclass(frozen=True, slots=True)
class Scale:
    """stored x slope + intercept = value; the slope is the number its decimal string says."""

    slope: str
    intercept: str
    signed: bool
    padding: int | None
    """Stored value of voxels that were never measured; outside the range of real ones."""

    def store(self, values: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        """One slice as 16-bit integers."""
        stored = np.rint((values.astype(np.float64) - float(self.intercept)) / float(self.slope))
        if valid is not None and self.padding is not None:
            stored[~valid] = self.padding
        kind = np.int16 if self.signed else np.uint16
        return stored.clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(np.dtype(kind).newbyteorder("<"))


def valid_range(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Smallest and largest measured value; (0, 0) where nothing was. Raises Broken on NaN or infinity."""
    measured = values if valid is None else values[valid]
    if measured.size == 0:
        return 0.0, 0.0
    low, high = float(measured.min()), float(measured.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Broken("the volume holds NaN or infinite voxels; mark them as not valid in the operator")
    return low, high


def whole(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> bool:
    """Whether every measured value is a whole number."""
    if values.dtype.kind in "iub":
        return True
    for k in range(len(values)):  # slice by slice: most that is computed shows a fraction in the first
        measured = values[k] if valid is None else values[k][valid[k]]
        if not (measured == np.rint(measured)).all():
            return False
    return True


def scale(sop_class: str, low: float, high: float, *, wholes: bool, padded: bool) -> Scale:
    """How values from *low* to *high* are stored in an image of *sop_class*.

    CT: steps of 1 from intercept 0, signed, unless the range needs coarser or, for small fractional
    quantities, finer ones. PET: the finest slope, intercept 0 as C.8.9.1 demands, signed. MR: whole
    numbers as they are, because MR Image has no rescale; only a small fractional range gets one.
    """
    if sop_class == PT:
        return _through_zero(low, high, padded=padded)
    room = 1 if padded else 0
    fits = low >= _LOW + room and high <= _HIGH
    fine = _FINE_MR if sop_class == MR else _FINE
    if fits and (wholes or high - low >= fine):
        return _steps_of_one(sop_class, low, padded=padded)
    return _spread(low, high, padded=padded)


def _steps_of_one(sop_class: str, low: float, *, padded: bool) -> Scale:
    below = int(np.floor(low)) - 1
    if sop_class == CT:
        return Scale("1", "0", True, max(min(_PADDED_BELOW, below), _LOW) if padded else None)
    if padded:
        padding = 0 if below >= 0 else below
        return Scale("1", "0", padding < 0, padding)
    return Scale("1", "0", low < -0.5, None)


def _through_zero(low: float, high: float, *, padded: bool) -> Scale:
    largest = max(abs(low), abs(high))
    slope = _rounded_up(largest / _HIGH) if largest else "1"
    return Scale(slope, "0", True, _LOW if padded else None)


def _spread(low: float, high: float, *, padded: bool) -> Scale:
    """Spread the range over the bits around its middle, as exact as a decimal string can say that."""
    middle = decimal((low + high) / 2)
    reach = max(high - float(middle), float(middle) - low)
    slope = _rounded_up(reach / (_HIGH - 1)) if reach > 0 else "1"
    return Scale(slope, middle, True, _LOW if padded else None)


def _rounded_up(number: float) -> str:
    """Write a decimal string not below *number*, so that the largest value still fits."""
    for digits in (10, 9, 8):
        text = f"{number * (1 + 10.0**-digits):.{digits}g}"
        if len(text) <= 16 and float(text) >= number:
            return text
    return f"{number * 1.000001:.8g}"


def window(low: float, high: float) -> tuple[str, str]:
    """Window Center and Width that show *low* to *high* in full."""
    return decimal(round((low + high) / 2, 6)), decimal(round(max(high - low, 1e-6), 6))


def display_window(
    values: NDArray[Any], valid: NDArray[np.bool_] | None, *, from_zero: bool = False
) -> tuple[str, str]:
    """Window Center and Width from the 1st to the 99th percentile of what was measured; 0 and 1 for nothing."""
    measured = values.reshape(-1) if valid is None else values[valid]
    if not measured.size:
        return "0", "1"
    low, high = np.percentile(measured[:: max(1, measured.size // 1_000_000)], [1, 99])
    return window(0.0 if from_zero and low >= 0 else float(low), float(high))
