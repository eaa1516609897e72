"""The smallest box that holds a region: what lies outside it need not be looked at, or kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_of(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box that holds all of a mask that is not empty."""
    seen = (np.asarray(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    ends = [np.flatnonzero(line)[[0, -1]] for line in seen]
    first, second, third = (slice(int(low), int(high) + 1) for low, high in ends)
    return first, second, third
