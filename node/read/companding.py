"""Samples in eight logarithmic bits → linear ones (ITU-T G.711)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def linear(stored: NDArray[Any], interpretation: str) -> NDArray[Any]:
    """*stored* samples on a linear scale: MB from mu-law (G.711 table 2), AB from A-law (table 1).

    Steps are those of the tables' decoder output values (14 and 13 bits); anything else is linear already.
    """
    if interpretation == "MB":
        return _mu_law(stored.astype(np.int32))
    return _a_law(stored.astype(np.int32)) if interpretation == "AB" else stored


def _mu_law(code: NDArray[np.int32]) -> NDArray[np.int32]:
    turned = ~code & 0xFF
    segment, step = (turned >> 4) & 7, turned & 15
    size = ((2 * step + 33) << segment) - 33
    return np.where(turned & 0x80, -size, size)


def _a_law(code: NDArray[np.int32]) -> NDArray[np.int32]:
    turned = code ^ 0x55
    segment, step = (turned >> 4) & 7, turned & 15
    size = np.where(segment > 0, (2 * step + 33) << np.maximum(segment - 1, 0), 2 * step + 1)
    return np.where(turned & 0x80, size, -size)
