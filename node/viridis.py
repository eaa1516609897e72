"""The one colour table that results are drawn with, whoever draws. Imports nothing of ours."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_VIRIDIS = (
    (0.267004, 0.004874, 0.329415), (0.282623, 0.140926, 0.457517), (0.253935, 0.265254, 0.529983),
    (0.206756, 0.371758, 0.553117), (0.163625, 0.471133, 0.558148), (0.127568, 0.566949, 0.550556),
    (0.134692, 0.658636, 0.517649), (0.266941, 0.748751, 0.440573), (0.477504, 0.821444, 0.318195),
    (0.741388, 0.873449, 0.149561), (0.993248, 0.906157, 0.143936),
)  # fmt: skip
"""viridis (van der Walt, Smith and Firing 2015, CC0) at 0, 10 … 100 %: evenly rising lightness."""


@cache
def viridis() -> NDArray[np.uint8]:
    """256 x 3, from the published values by linear interpolation."""
    anchors = np.array(_VIRIDIS) * 255
    at, steps = np.linspace(0, 1, len(anchors)), np.linspace(0, 1, 256)
    table = np.stack([np.interp(steps, at, anchors[:, c]) for c in range(3)], axis=-1)
    table = np.rint(table).astype(np.uint8)
    table.flags.writeable = False
    return table
