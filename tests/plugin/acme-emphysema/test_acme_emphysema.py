"""The plugin's own tests, as its author writes them: no node, no files."""

from __future__ import annotations

import acme_emphysema
import numpy as np
import pytest

from node.operator import Refused
from node.testing import Grid, body_volume, run_operator, sphere_volume

GRID = Grid((40, 96, 96), (4.0, 4.0, 4.0))


def test_the_lungs_of_the_phantom_are_found() -> None:
    """Two lungs of known shape are marked, the air around the patient is not."""
    volume = body_volume(GRID, noise=0)
    mask = run_operator(acme_emphysema.lungs, volume, darker_than=-500.0)
    assert mask.array.sum() * volume.voxel_volume == pytest.approx(1.65e6, rel=0.02)  # mm³
    assert not mask.array[:, 0].any()


def test_the_index_is_the_share_of_dark_voxels() -> None:
    """With every fourth lung voxel at -980 HU the index is 25 %."""
    volume = body_volume(GRID, noise=0)
    mask = run_operator(acme_emphysema.lungs, volume)
    dark = np.flatnonzero(mask.array)[::4]
    volume.array.reshape(-1)[dark] = -980
    (index,) = run_operator(acme_emphysema.emphysema_index, volume, mask, below=-950.0)
    assert index.value == pytest.approx(25, abs=0.01)


def test_a_series_without_lungs_is_refused_in_words() -> None:
    """A ball in air has no space inside, and the reason says what was looked for."""
    with pytest.raises(Refused, match="50 ml"):
        run_operator(acme_emphysema.lungs, sphere_volume())
