"""A map's numbers, measured as what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.operator import Code, Mask
from node.operators.as_volume import as_volume
from node.operators.mr.diffusion import ADC, UM2_S, adc
from node.operators.statistics import statistics
from node.testing import run_operator
from node.testing.relaxing import LESION, diffusion_stack, head_labels


def test_a_map_is_measured_by_its_own_quantity() -> None:
    """Statistics of a lesion in an ADC map are ADC in um2/s; what the map lacks is left out and counted."""
    found = run_operator(adc, diffusion_stack())
    lesion = head_labels() == LESION
    holes = found.valid.copy()
    holes[lesion] &= np.arange(lesion.sum()) % 2 == 0
    volume = run_operator(as_volume, replace(found, valid=holes))
    mask = Mask(lesion, found.affine, "Lesion", Code("1", "X", "x"), Code("1", "X", "x"))
    numbers = run_operator(statistics, volume, mask).measurements
    mean = next(m for m in numbers if m.derivation and m.derivation.meaning == "Mean")
    assert (mean.name, mean.unit) == (ADC, UM2_S)
    assert mean.value == pytest.approx(450, rel=1e-6)
    assert numbers[-1].value == lesion.sum() // 2
