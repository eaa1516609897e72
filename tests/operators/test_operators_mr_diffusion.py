"""Diffusion: the apparent coefficient of known tissues, the trace of known directions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Refused
from node.operator import NO_UNITS, Code, Mask, Stack, Volume
from node.operators.mr.diffusion import UM2_S, adc, adc_fit, trace
from node.operators.mr.weighted import weightings
from node.testing import run_operator
from node.testing.relaxing import LESION, WHITE, diffusion_stack, head_labels, of_tissues

ICE_WATER = 1.1e-3
"""mm²/s of water at 0 °C, the reference of the QIBA DWI profile (Chenevert 2011, doi:10.1002/jmri.22363)."""


def stack(values: list[tuple[float, float | np.ndarray]], **more: Any) -> Stack:
    """One small volume per (b-value, signal); *more* facts are lists, one per volume."""
    volumes = []
    for n, (b, signal) in enumerate(values):
        facts = {"b_value": b, "part": n, **{k: v[n] for k, v in more.items() if v[n] is not None}}
        array = np.broadcast_to(np.asarray(signal, np.float32), (2, 3, 4)).copy()
        volumes.append(Volume(array, np.diag([5.0, 2.0, 2.0, 1.0]), NO_UNITS, facts=facts))
    return Stack(tuple(volumes), ("b_value",))


def change(whole: Stack, number: int, **facts: Any) -> Stack:
    """*whole* with other facts in one volume; None takes one away."""
    volume = whole.volumes[number]
    kept = {k: v for k, v in {**volume.facts, **facts}.items() if v is not None}
    volumes = list(whole.volumes)
    volumes[number] = replace(volume, facts=kept)
    return replace(whole, volumes=tuple(volumes))


def test_tissues_get_their_coefficient() -> None:
    """Without noise every voxel of the head has a third of its tensor's trace, to 10⁻⁶ of it."""
    found = run_operator(adc, diffusion_stack(), above=0.01)
    labels = head_labels()
    truth = of_tissues(labels, "adc")
    assert np.abs(found.array / truth - 1)[found.valid].max() < 1e-6
    assert np.array_equal(found.valid, labels > 0)
    assert (found.unit, found.quantity.value, found.quantity.scheme) == (UM2_S, "113041", "DCM")


def test_ice_water_has_its_reference_value() -> None:
    """Signals of water at 0 °C at b 0, 100, 600 and 800 give 1.1·10⁻³ mm²/s = 1100 um²/s, to 10⁻⁶."""
    found = run_operator(adc, stack([(b, 1000 * np.exp(-b * ICE_WATER)) for b in (0, 100, 600, 800)]))
    assert found.array == pytest.approx(np.full((2, 3, 4), ICE_WATER * 1e6), rel=1e-6)


def test_it_is_what_least_squares_say() -> None:
    """On noisy signals the map equals an independent fit by numpy.linalg.lstsq of every voxel."""
    noisy = diffusion_stack((0.0, 50.0, 400.0, 800.0), noise=400.0)
    found = run_operator(adc, noisy)
    logs, b_values = [], []
    for b in (0.0, 50.0, 400.0, 800.0):
        alike = [np.log(v.array.astype(float)[found.valid]) for v in noisy.volumes if v.facts["b_value"] == b]
        logs.append(np.mean(alike, axis=0))
        b_values.append(b)
    design = np.c_[np.ones(4), -np.array(b_values)]
    expected = np.linalg.lstsq(design, np.array(logs), rcond=None)[0][1] * 1e6
    assert found.array[found.valid] == pytest.approx(expected, rel=1e-5, abs=1e-3)
    tissue = head_labels() > 2
    assert found.valid[tissue].mean() > 0.98
    assert found.valid[head_labels() == 0].mean() < 0.02


def test_a_mask_says_where() -> None:
    """Within a given mask, and nowhere else, whatever the signal there."""
    labels = head_labels()
    whole = diffusion_stack()
    lesion = Mask(labels == LESION, whole.volumes[0].affine, "L", Code("1", "X", "x"), Code("1", "X", "x"))
    found = run_operator(adc, whole, lesion)
    assert np.array_equal(found.valid, lesion.array)
    assert found.array[lesion.array] == pytest.approx(450.0, rel=1e-6)
    with pytest.raises(Refused, match="another grid"):
        run_operator(adc, whole, replace(lesion, affine=np.diag([1.0, 1, 1, 1])))


def test_b_values_may_be_left_out() -> None:
    """Where blood flow adds to b 0, a fit from b 100 on gives the tissue; what was used stands in the map."""
    signals = [(b, 800 * np.exp(-b * 1e-3) + (200 if b == 0 else 0)) for b in (0, 100, 400, 800)]
    assert run_operator(adc, stack(signals)).array.mean() > 1100
    found = run_operator(adc, stack(signals), least_b=100.0)
    assert found.array == pytest.approx(np.full((2, 3, 4), 1000), rel=1e-6)
    assert found.facts["b_values"] == (100, 400, 800)
    assert found.facts["description"] == (
        "b 100, 400, 800 s/mm2; b 100, 400, 800: one volume whose direction is not stated"
    )
    assert [pair[1][0] for pair in found.facts["definition"][2:]] == [100, 400, 800]
    with pytest.raises(Refused, match=r"there is the one b-value 800 s/mm².*needs two"):
        run_operator(adc, stack(signals), least_b=500.0)
    with pytest.raises(Refused, match="no b-value in the range asked for"):
        run_operator(adc, stack(signals), least_b=5000.0)


def test_two_b_values_are_a_ratio_and_have_no_quality() -> None:
    """With two b-values the method is the log of a ratio, and there is no fit to judge."""
    two = stack([(0, 1000.0), (1000, 1000 * np.exp(-1.0))])
    assert run_operator(adc, two).facts["definition"][1][1].value == "113260"
    with pytest.raises(Refused, match="with the two b-values 0, 1000 any line fits"):
        run_operator(adc_fit, two)


def test_the_quality_tells_noise_and_two_compartments() -> None:
    """R² is 1 for one exponential, below it for two, and equals numpy's corrcoef squared."""
    b = np.array([0.0, 200, 600, 1000, 2000])
    clean = run_operator(adc_fit, stack([(x, 1000 * np.exp(-x * 1e-3)) for x in b]))
    assert clean.array == pytest.approx(np.ones((2, 3, 4)), abs=1e-7)
    both = 700 * np.exp(-b * 2e-3) + 300 * np.exp(-b * 0.3e-3)
    found = run_operator(adc_fit, stack(list(zip(b, both, strict=True))))
    assert found.array == pytest.approx(np.corrcoef(b, np.log(both))[0, 1] ** 2, rel=1e-6)
    assert found.array.max() < 0.97
    assert found.quantity.value == "126220"


def test_the_trace_does_not_depend_on_direction() -> None:
    """Three directions at right angles, however turned, give one trace; one direction of fibres does not."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = tuple(tuple(float(v) for v in row) for row in turn)
    straight, other = (
        run_operator(trace, diffusion_stack((0.0, 800.0), directions))
        for directions in (((1, 0, 0), (0, 1, 0), (0, 0, 1)), turned)
    )
    assert [v.facts["b_value"] for v in straight.volumes] == [0, 800]
    assert [v.facts["directionality"] for v in straight.volumes] == ["NONE", "ISOTROPIC"]
    assert "gradient" not in straight.volumes[1].facts
    assert straight.volumes[1].array == pytest.approx(other.volumes[1].array, rel=1e-5)
    still = diffusion_stack((0.0,)).volumes[0].array
    labels = head_labels()
    expected = still * np.exp(-800e-6 * of_tissues(labels, "adc"))
    assert straight.volumes[1].array == pytest.approx(expected, rel=1e-5, abs=1e-3)
    along = diffusion_stack((0.0, 800.0)).volumes[1].array
    assert not np.allclose(along[labels == WHITE], expected[labels == WHITE], rtol=0.1)
    with pytest.raises(Refused, match="there are no directions to combine"):
        run_operator(trace, straight)


@given(
    st.lists(st.floats(1.0, 30000.0, width=32), min_size=2, max_size=6),
    st.floats(0.0, 3000.0),
)
def test_the_trace_lies_between_its_directions(signals: list[float], b: float) -> None:
    """A geometric mean is never above the arithmetic one nor outside the values."""
    made = run_operator(
        trace, stack([(b, s) for s in signals], directionality=["DIRECTIONAL"] * len(signals))
    )
    (volume,) = made.volumes
    assert min(signals) * (1 - 1e-5) <= volume.array.min() <= np.mean(signals) * (1 + 1e-5)


KINDS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "one direction": ([{"directionality": "DIRECTIONAL", "gradient": (1, 0, 0)}], "one direction only, no trace"),
    "one direction twice": (
        [{"directionality": "DIRECTIONAL", "gradient": (x, 0, 0)} for x in (1, -1)],
        "geometric mean of 2 volumes of one direction only, no trace",
    ),
    "uneven": (
        [{"directionality": "DIRECTIONAL", "gradient": g} for g in ((1, 0, 0), (0, 1, 0), (0, 0.6, 0.8))],
        "geometric mean of 3 directions, not evenly spread",
    ),
    "even": (
        [{"directionality": "DIRECTIONAL", "gradient": g} for g in ((1, 0, 0), (0, 1, 0), (0, 0, 1))],
        "geometric mean of 3 directions, evenly spread",
    ),
    "unknown vectors": (
        [{"directionality": "DIRECTIONAL"}] * 4,
        "geometric mean of 4 directions, how they are spread is not stated",
    ),
    "the scanner's": ([{"directionality": "ISOTROPIC"}], "the scanner's own trace"),
    "not stated": ([{}, {}], "geometric mean of 2 volumes whose direction is not stated"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_for_a_b_value_is_said(name: str) -> None:
    """The map says how each b-value was made: of how many directions, spread how, or by the scanner."""
    facts, words = KINDS[name]
    whole = stack([(0, 1000.0), *[(1000, 400.0)] * len(facts)])
    for n, more in enumerate(facts, 1):
        whole = change(whole, n, **more)
    found = run_operator(adc, whole)
    assert found.facts["description"] == f"b 0, 1000 s/mm2; b 1000: {words}"


def test_directions_are_preferred_to_the_scanners_trace() -> None:
    """Where three directions are there, a trace or an image without direction beside them is left out, and said."""
    even = [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), None]
    whole = stack(
        [(0, 1000.0), *[(1000, 400.0)] * 3, (1000, 1.0)],
        gradient=[None, *even],
        directionality=["NONE", *["DIRECTIONAL"] * 3, "ISOTROPIC"],
    )
    found = run_operator(adc, whole)
    assert found.array == pytest.approx(np.full((2, 3, 4), 1000 * np.log(2.5)), rel=1e-6)
    assert found.facts["description"].endswith("not used: 1 scanner's trace of b 1000")
    fewer = replace(whole, volumes=(whole.volumes[0], whole.volumes[1], whole.volumes[4]))
    assert (
        run_operator(adc, fewer)
        .facts["description"]
        .endswith("b 1000: the scanner's own trace; not used: 1 direction of b 1000")
    )


def test_maps_that_came_along_do_not_enter() -> None:
    """An ADC image in the series, which Image Type names, is no weighting; it is left out, and said."""
    whole = stack([(0, 1000.0), (1000, 400.0), (1000, 1234.0)])
    found = run_operator(adc, change(whole, 2, computed="yes"))
    assert found.array == pytest.approx(np.full((2, 3, 4), 1000 * np.log(2.5)), rel=1e-6)
    assert "not used: 1 diffusion map" in found.facts["description"]
    alone = replace(whole, volumes=(change(whole, 2, computed="yes").volumes[2],))
    with pytest.raises(Refused, match="diffusion maps only"):
        run_operator(adc, alone)


def test_a_scanner_may_leave_the_b_value_out() -> None:
    """Canon states none for unweighted images: refused, unless the rule says which they have; then the map says so."""
    whole = change(stack([(0, 1000.0), (1000, 400.0)]), 0, b_value=None)
    with pytest.raises(Refused, match="`unstated_b: 0`"):
        run_operator(adc, whole)
    found = run_operator(adc, whole, unstated_b=0.0)
    assert found.array == pytest.approx(np.full((2, 3, 4), 1000 * np.log(2.5)), rel=1e-6)
    assert found.facts["description"].endswith("1 volumes state no b-value, 0 by the rule")


def test_b_values_reached_and_asked_for_are_one() -> None:
    """998.6 and 1003 are one b-value, as is 0 and 0.004; their mean is exact for one exponential."""
    told = [(0, 1.0), (0.004, 1.0), (998.6, 1.0), (1003.0, 1.0), (500, 1.0)]
    exact = stack([(b, 5000 * np.exp(-b * 7e-4)) for b, _ in told])
    groups = weightings(exact)
    assert [len(group.volumes) for group in groups.groups] == [2, 1, 2]
    assert groups.b_values == pytest.approx((0.002, 500, 1000.8))
    assert run_operator(adc, exact).array == pytest.approx(np.full((2, 3, 4), 700), rel=1e-6)


def test_voxels_without_signal_are_not_valid() -> None:
    """A 0 in one of the images has no logarithm: that voxel is invalid, the others keep their value."""
    dead = np.full((2, 3, 4), 400.0)
    dead[0, 0, 0] = 0
    found = run_operator(adc, stack([(0, 1000.0), (1000, dead)]))
    assert found.valid.sum() == 23 and not found.valid[0, 0, 0]
    valid = np.ones((2, 3, 4), bool)
    valid[1, 2, 3] = False
    whole = stack([(0, 1000.0), (1000, 400.0)])
    padded = replace(whole, volumes=(whole.volumes[0], replace(whole.volumes[1], valid=valid)))
    assert not run_operator(adc, padded).valid[1, 2, 3]


REFUSALS: dict[str, tuple[Callable[[Stack], Stack], str]] = {
    "no b-value": (lambda s: change(s, 1, b_value=None), "1 of 2 volumes state no b-value"),
    "one b-value": (lambda s: change(s, 1, b_value=0), "there is the one b-value 0 s/mm²"),
    "echo times": (
        lambda s: change(change(s, 0, echo_time=60.0), 1, echo_time=80.0),
        r"different echo times \(60 to 80 ms\)",
    ),
    "a unit": (
        lambda s: replace(s, volumes=tuple(replace(v, unit=UM2_S) for v in s.volumes)),
        "the values are in um2/s, not the signal of an MR image",
    ),
    "unknown scaling": (lambda s: change(s, 1, scaling="unknown"), "Philips scaled the images differently"),
    "nothing": (
        lambda s: replace(s, volumes=tuple(replace(v, array=np.zeros_like(v.array)) for v in s.volumes)),
        "no voxel is above the background",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_gives_no_coefficient_is_refused(name: str) -> None:
    """No number without its b-values, in words that say what is missing."""
    broken, words = REFUSALS[name]
    with pytest.raises(Refused, match=words):
        run_operator(adc, broken(stack([(0, 1000.0), (1000, 400.0)])))


@pytest.mark.parametrize("operator", [adc, trace])
def test_kinds_of_images_are_not_averaged(operator: Callable[..., Any]) -> None:
    """Magnitude and phase of one b-value are refused, and so are other kinds that only Image Type tells apart."""
    values = [(0.0, 100.0), (0.0, 9.0), (800.0, 50.0), (800.0, 9.0)]
    with pytest.raises(Refused, match="magnitude and phase images are in one series; narrow the rule"):
        run_operator(operator, stack(values, component=["M", "P"] * 2))
    kinds = [("ORIGINAL", "PRIMARY", kind) for kind in ("DIFFUSION", "FILTERED")] * 2
    by = ("b_value", "image_type")
    words = r"have the same b-value and direction \(Image Type ORIGINAL\\PRIMARY\\DIFFUSION and ORIGINAL\\PRIMARY\\FILT"
    with pytest.raises(Refused, match=words):
        run_operator(operator, replace(stack(values, image_type=kinds), by=by))


def test_kinds_that_belong_to_b_values_are_taken() -> None:
    """Unweighted images and the scanner's trace differ in Image Type by design, and maps that came along do."""
    kinds = [("ORIGINAL", "PRIMARY", kind, "M") for kind in ("DIFFUSION", "TRACEW")]
    series = stack([(0.0, 100.0), (800.0, 50.0)], image_type=kinds, component=["M", "M"])
    expected = np.log(2) / 800 * 1e6
    assert run_operator(adc, series).array == pytest.approx(expected)
    assert run_operator(adc, replace(series, by=("b_value", "image_type"))).array == pytest.approx(expected)


@pytest.mark.parametrize("missing", [1, 2])
def test_what_one_direction_did_not_measure_has_no_trace(missing: int) -> None:
    """A voxel that any direction did not measure is not valid in the trace of its b-value, and only there."""
    series = stack(
        [(0.0, 100.0), (800.0, 50.0), (800.0, 40.0)],
        directionality=["NONE", "DIRECTIONAL", "DIRECTIONAL"],
        gradient=[None, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)],
    )
    valid = np.ones((2, 3, 4), bool)
    valid[1, 2, 3] = False
    volumes = list(series.volumes)
    volumes[missing] = replace(volumes[missing], valid=valid)
    first, second = run_operator(trace, replace(series, volumes=tuple(volumes))).volumes
    assert first.valid is None
    assert second.valid is not None
    assert np.argwhere(~second.valid).tolist() == [[1, 2, 3]]
    assert second.array[0] == pytest.approx(np.sqrt(50 * 40))
