"""Relaxation times of known tissues, and the names they may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from node.errors import Refused
from node.operator import NO_UNITS, Code, Stack, Volume
from node.operators.mr.inversion import inversion_times
from node.operators.mr.relaxation import t1_map, t2_map
from node.testing import run_operator
from node.testing.relaxing import echo_stack, flip_stack, head_labels, inversion_stack, of_tissues


def with_facts(stack: Stack, **facts: Any) -> Stack:
    """*stack* with other facts in every volume; None takes one away."""
    return replace(
        stack,
        volumes=tuple(
            replace(v, facts={k: x for k, x in {**v.facts, **facts}.items() if x is not None})
            for v in stack.volumes
        ),
    )


@pytest.mark.parametrize(
    ("operator", "stack", "what"),
    [(t2_map, echo_stack, "t2"), (t1_map, flip_stack, "t1"), (t1_map, inversion_stack, "t1")],
)
def test_tissues_get_their_times(operator: Any, stack: Any, what: str) -> None:
    """Without noise every voxel of the head has its time to 10⁻⁵; with noise the median of a tissue to 1 %."""
    labels = head_labels()
    truth = of_tissues(labels, what)
    found = run_operator(operator, stack(), above=1.0)
    assert np.abs(found.array / truth - 1)[found.valid].max() < 1e-5
    assert np.array_equal(found.valid, labels > 0)
    noisy = run_operator(operator, stack(noise=40.0))
    for label in range(3, 7):
        where = noisy.valid & (labels == label)
        assert where.sum() > 0.95 * (labels == label).sum()
        assert np.median(noisy.array[where]) == pytest.approx(truth[where].mean(), rel=0.01)
    assert noisy.valid[labels == 0].mean() < 0.02


@pytest.mark.parametrize(("echo", "code"), [("spin", "113065"), ("gradient", "113064")])
def test_the_echo_names_the_quantity(echo: str, code: str) -> None:
    """Spin echoes give T2, gradient echoes T2*; where the images do not say, only the rule may."""
    stack = echo_stack(echo=echo)
    assert run_operator(t2_map, stack).quantity.value == code
    silent = with_facts(stack, echo=None)
    with pytest.raises(Refused, match="whether this is T2 or T2\\* is unknown"):
        run_operator(t2_map, silent)
    assert run_operator(t2_map, silent, echo=echo).quantity.value == code
    other = {"spin": "gradient", "gradient": "spin"}[echo]
    with pytest.raises(Refused, match=f"the images say that they are {echo} echoes, the rule says {other}"):
        run_operator(t2_map, stack, echo=other)


def test_first_echoes_may_be_left_out() -> None:
    """A first echo darkened by stimulated echoes biases T2; without it T2 is right, and the map says so."""
    stack = echo_stack()
    first = replace(stack.volumes[0], array=stack.volumes[0].array * np.float32(0.7))
    bad = replace(stack, volumes=(first, *stack.volumes[1:]))
    truth = of_tissues(head_labels(), "t2")
    assert np.median((run_operator(t2_map, bad).array / truth)[head_labels() == 4]) > 1.1
    found = run_operator(t2_map, bad, skip_first=1)
    assert np.abs(found.array / truth - 1)[found.valid & (head_labels() > 0)].max() < 1e-5
    assert "TE 20, 40, 60" in found.facts["description"]
    with pytest.raises(Refused, match="1 echoes are left after skipping 7"):
        run_operator(t2_map, stack, skip_first=7)


def test_weights_are_those_of_the_noise() -> None:
    """With noise the weighted line scatters less than a plain one, and is near a nonlinear fit of the signal."""
    rng = np.random.default_rng(0)
    times = np.array([10.0, 20, 40, 80, 160])
    signals = np.hypot(1000 * np.exp(-times / 50) + rng.normal(0, 10, (400, 5)), rng.normal(0, 10, (400, 5)))
    volumes = tuple(
        Volume(signals[:, n].reshape(4, 10, 10).astype(np.float32), np.eye(4), NO_UNITS,
               facts={"echo_time": t, "echo": "spin"})
        for n, t in enumerate(times)
    )  # fmt: skip
    found = run_operator(t2_map, Stack(volumes, ("echo_time",)), above=0.0).array.ravel()
    plain = -1 / np.polyfit(times, np.log(signals).T, 1)[0]
    assert found.mean() == pytest.approx(50, rel=0.01) and found.std() < plain.std() / 1.5
    fitted = [
        curve_fit(lambda t, s, t2: s * np.exp(-t / t2), times, row, (1000, 60))[0][1] for row in signals[:60]
    ]
    assert found[:60] == pytest.approx(np.array(fitted), rel=0.05)


@settings(max_examples=30)
@given(st.floats(60.0, 3000.0), st.floats(0.5, 1.0), st.integers(0, 5))
def test_an_imperfect_inversion_does_not_matter(t1: float, efficiency: float, seed: int) -> None:
    """|S0 (1 - (1 + e) exp(-TI/T1))|: T1 is found whatever the inversion's efficiency, and the sign is restored."""
    times = np.sort(np.random.default_rng(seed).uniform(0.1, 4.0, 6)) * t1
    signal = np.abs(1000 * (1 - (1 + efficiency) * np.exp(-times / t1)))
    assert inversion_times(times, signal[:, None], 6000.0)[0] == pytest.approx(t1, rel=1e-3)


def test_times_beyond_the_longest_are_not_valid() -> None:
    """What decays more slowly than asked for is not measured by such echoes."""
    found = run_operator(t2_map, echo_stack(), longest=500.0)
    labels = head_labels()
    assert not found.valid[labels == 3].any() and found.valid[labels == 4].all()
    assert not run_operator(t1_map, inversion_stack(), longest=2000.0).valid[labels == 3].any()
    assert not run_operator(t1_map, flip_stack(), longest=2000.0).valid[labels == 3].any()


REFUSALS: dict[str, tuple[Any, Any, str]] = {
    "no echoes": (
        t2_map,
        flip_stack,
        "does not hold several echo times: its volumes differ in flip_angle",
    ),
    "no angles": (t1_map, echo_stack, "neither flip angle nor inversion time was varied"),
    "both": (
        t1_map,
        lambda: replace(flip_stack(), by=("flip_angle", "repetition_time")),
        "differ in repetition_time as well as in flip angles",
    ),
    "not spoiled": (
        t1_map,
        lambda: with_facts(flip_stack(), spoiled="no"),
        "not stated to be of a spoiled gradient",
    ),
    "not said": (
        t1_map,
        lambda: with_facts(flip_stack(), spoiled=None),
        "not stated to be of a spoiled gradient",
    ),
    "no TR": (
        t1_map,
        lambda: with_facts(flip_stack(), repetition_time=None),
        "do not state one Repetition Time",
    ),
    "three times": (
        t1_map,
        lambda: inversion_stack((50.0, 500.0, 2000.0)),
        "3 inversion times.*need 4 or more",
    ),
    "a unit": (
        t2_map,
        lambda: replace(
            echo_stack(),
            volumes=tuple(replace(v, unit=Code("ms", "UCUM", "ms")) for v in echo_stack().volumes),
        ),
        "the values are in ms",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_holds_no_times_is_refused(name: str) -> None:
    """No number where the series does not hold what it rests on."""
    operator, stack, words = REFUSALS[name]
    with pytest.raises(Refused, match=words):
        run_operator(operator, stack())


@pytest.mark.parametrize(
    ("operator", "make"), [(t2_map, echo_stack), (t1_map, flip_stack), (t1_map, inversion_stack)]
)
def test_what_one_volume_did_not_measure_has_no_time(operator: Any, make: Any) -> None:
    """A voxel that any of the volumes did not measure is not valid, whichever of them is the brightest."""
    stack = make()
    whole = run_operator(operator, stack, above=1.0)
    assert whole.valid is not None
    at = tuple(np.argwhere(whole.valid)[len(np.argwhere(whole.valid)) // 2])
    for number, volume in enumerate(stack.volumes):
        valid = np.ones(volume.array.shape, bool)
        valid[at] = False
        volumes = list(stack.volumes)
        volumes[number] = replace(volume, valid=valid)
        found = run_operator(operator, replace(stack, volumes=tuple(volumes)), above=1.0)
        assert found.valid is not None
        assert np.argwhere(found.valid != whole.valid).tolist() == [list(at)]
