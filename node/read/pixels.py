"""Whether two files hold the same pixels, however they are compressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import dcmread


def same_pixels(one: Path, two: Path) -> bool:
    """Whether two Part 10 files decode to the same pixel values.

    Raises what pydicom raises where either cannot be decoded.
    """
    first, second = dcmread(one), dcmread(two)
    if getattr(first, "PhotometricInterpretation", "") != getattr(second, "PhotometricInterpretation", ""):
        return False
    return np.array_equal(first.pixel_array, second.pixel_array)
