"""Waveform values to integer samples: sensitivity and baseline that give them back (PS3.3 C.10.9.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.derive.geometry import decimal

_EXACT = 1e-6
"""Farthest from a whole step, in steps, that a value of the source may be after floating-point arithmetic."""
_WASTE = 2.0
"""How many times finer steps must become before values are stored around their middle instead of zero."""


@dataclass(frozen=True, slots=True)
class Step:
    """sample x size + baseline = value; both are the numbers that their decimal strings say."""

    unit: str
    """UCUM."""
    size: str
    """Channel Sensitivity."""
    baseline: str
    """Channel Baseline."""

    def store(self, values: NDArray[np.float64], padding: int) -> NDArray[np.float64]:
        """Give the samples of *values* as whole numbers; *padding* where they are NaN."""
        stored = np.rint((values - float(self.baseline)) / float(self.size))
        return np.where(np.isfinite(values), stored, padding)


def step_of(unit: str, values: NDArray[np.float64], known: Sequence[Step], bits: int) -> Step:
    """Find the source's step that *values* consist of, else the finest one that *bits* allow.

    No value moves by more than half of the step. NaN counts for nothing; baseline 0 unless that wastes bits.
    """
    measured = values[np.isfinite(values)]
    top = 2 ** (bits - 1) - 1
    for step in known:
        if step.unit == unit and _consists_of(measured, step, top):
            return step
    low, high = (float(measured.min()), float(measured.max())) if measured.size else (0.0, 0.0)
    reach, middle = max(abs(low), abs(high)), (low + high) / 2
    baseline = "0"
    if reach > _WASTE * (high - low) / 2 * (1 + _EXACT) and high > low:
        baseline = decimal(middle)
        reach = max(high - float(baseline), float(baseline) - low)
    return Step(unit, _no_less(reach / top) if reach > 0 else "1", baseline)


def _no_less(size: float) -> str:
    """A decimal string a little above *size*, in at most 16 characters, so that the farthest value still fits."""
    return f"{size * (1 + 1e-8):.9g}"


def _consists_of(measured: NDArray[np.float64], step: Step, top: int) -> bool:
    steps = (measured - float(step.baseline)) / float(step.size)
    return bool((np.abs(steps) <= top).all() and (np.abs(steps - np.rint(steps)) <= _EXACT).all())


def bits_for(unit: str, values: NDArray[Any], known: Sequence[Step]) -> int:
    """Whether 16 bits keep *values* at least as fine as the source had them in this unit, else 32."""
    sizes = [float(step.size) for step in known if step.unit == unit]
    ours = float(step_of(unit, values, known, 16).size)
    return 16 if not sizes or ours <= min(sizes) * (1 + _EXACT) or not np.isfinite(values).any() else 32
