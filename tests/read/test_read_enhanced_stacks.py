"""Enhanced objects and classic images of one acquisition are one stack: same volumes, same facts, same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.operator import Stack
from node.operators.mr.diffusion import adc, adc_fit
from node.operators.mr.dynamic import (
    dce_subtract,
    percent_enhancement,
    signal_enhancement_ratio,
    time_to_peak,
)
from node.operators.mr.relaxation import t1_map, t2_map
from node.operators.mr.shading import n4
from node.operators.mr.slices import choose_volume
from node.read.series import parts
from node.testing import run_operator
from node.testing.relaxing import diffusion_stack, dynamic_stack, echo_stack, flip_stack, inversion_stack
from node.testing.stacks import write_enhanced_mr, write_mr_stack

Operator = Callable[..., Any]
CASES: dict[str, tuple[Callable[[], Stack], tuple[Operator, ...]]] = {
    "diffusion": (diffusion_stack, (adc, adc_fit)),
    "contrast": (dynamic_stack, (percent_enhancement, signal_enhancement_ratio, time_to_peak)),
    "echoes": (echo_stack, (t2_map,)),
    "gradient echoes": (lambda: echo_stack(echo="gradient"), (t2_map,)),
    "flip angles": (flip_stack, (t1_map,)),
    "inversion times": (inversion_stack, (t1_map,)),
}
FACTS = (
    "b_value",
    "gradient",
    "directionality",
    "echo_time",
    "flip_angle",
    "inversion_time",
    "time",
    "echo",
    "spoiled",
)


def load(paths: list[Path]) -> Stack:
    """The one stack."""
    (part,) = parts("Stack", paths, (), "refuse")
    return part.load().value


@pytest.mark.parametrize("name", CASES)
def test_both_kinds_give_the_same_maps(tmp_path: Path, name: str) -> None:
    """Volumes, what tells them apart, and every map made of them, to the bit."""
    stack, operators = CASES[name]
    written = stack()
    classic = load(write_mr_stack(tmp_path / "classic", written))
    one = load([write_enhanced_mr(tmp_path / "enhanced.dcm", written)])
    assert classic.by == one.by
    for ours, theirs, truth in zip(classic.volumes, one.volumes, _ordered(written, one), strict=True):
        assert np.array_equal(ours.array, theirs.array) and theirs.same_grid(truth)
        assert theirs.array == pytest.approx(truth.array, abs=0.51)
        for fact in FACTS:
            if fact in truth.facts:
                assert ours.facts[fact] == theirs.facts[fact] == pytest.approx(truth.facts[fact]), fact
    for operator in operators:
        assert np.array_equal(run_operator(operator, classic).array, run_operator(operator, one).array)


def _ordered(written: Stack, read: Stack) -> list[Any]:
    """The volumes as they were written, in the order in which they were read: directions come sorted."""
    left = list(written.volumes)
    found = []
    for volume in read.volumes:
        same = [v for v in left if v.facts.get("gradient") == volume.facts.get("gradient")] or left
        nearest = min(same, key=lambda v: float(np.abs(v.array - volume.array).max()))
        left.remove(nearest)
        found.append(nearest)
    return found


def test_one_volume_may_be_chosen_and_evened(tmp_path: Path) -> None:
    """What takes one volume works on any of the stack, and on the differences of a contrast series."""
    stack = load([write_enhanced_mr(tmp_path / "e.dcm", dynamic_stack())])
    first = run_operator(choose_volume, stack, number=1)
    assert run_operator(n4, first).array.shape == first.array.shape
    difference = run_operator(choose_volume, run_operator(dce_subtract, stack), number=-1)
    assert difference.array == pytest.approx(stack.volumes[-1].array - stack.volumes[0].array)
