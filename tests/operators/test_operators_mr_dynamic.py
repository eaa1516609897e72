"""Contrast over time: known curves give their enhancement, ratio and peak; what is no series over time is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Refused
from node.operator import NO_UNITS, Code, Mask, Stack, Volume
from node.operators.mr.dynamic import (
    dce_subtract,
    percent_enhancement,
    signal_enhancement_ratio,
    time_to_peak,
)
from node.testing import run_operator
from node.testing.relaxing import LESION, TISSUES, WHITE, dynamic_stack, head_labels

OPERATORS = (dce_subtract, percent_enhancement, signal_enhancement_ratio, time_to_peak)


def over_time(signals: list[float], by: tuple[str, ...] = ("temporal_position",), **more: Any) -> Stack:
    """One small volume per signal, 60 s apart."""
    volumes = tuple(
        Volume(
            np.full((2, 3, 4), signal, np.float32),
            np.diag([5.0, 2, 2, 1]),
            NO_UNITS,
            facts={"part": n, "time": 60.0 * n, "time_from": "AcquisitionTime", **more},
        )
        for n, signal in enumerate(signals)
    )
    return Stack(volumes, by)


def curve(label: int, t: float) -> float:
    """What the phantom's tissue gains at *t* s, as a share."""
    most, arrival = TISSUES[label].uptake
    return most * (1 - np.exp(-t / arrival)) * np.exp(-t / TISSUES[label].washout)


def test_known_curves_give_their_numbers() -> None:
    """In a head with a leaking lesion PE, SER and time to peak are those of the curve it was made with, to 10⁻⁵."""
    stack, labels = dynamic_stack(), head_labels()
    pe = run_operator(percent_enhancement, stack)
    ser = run_operator(signal_enhancement_ratio, stack, least_enhancement=5.0)
    peak = run_operator(time_to_peak, stack)
    for label in (LESION, WHITE):
        where = labels == label
        assert pe.array[where] == pytest.approx(100 * curve(label, 60), rel=1e-5)
        assert ser.array[where] == pytest.approx(curve(label, 60) / curve(label, 420), rel=1e-4)
    assert np.unique(peak.array[labels == LESION]) == [
        max((60, 120, 240, 420), key=lambda t: curve(LESION, t))
    ]
    assert not peak.valid[labels == WHITE].any()  # 8 % are below the 20 % that are asked for
    assert np.array_equal(ser.valid, (labels == LESION) | (labels == WHITE))
    assert not pe.valid[labels == 0].any()
    assert [(m.quantity.value, m.unit.value) for m in (pe, ser, peak)] == [
        ("PERCENTENHANCEMENT", "%"), ("SER", "{ratio}"), ("113069", "s"),
    ]  # fmt: skip


def test_the_definitions_by_hand() -> None:
    """100, 180, 140: PE is 80 %, SER (180-100)/(140-100) = 2, the peak 60 s after the first (Li 2008)."""
    stack = over_time([100.0, 180.0, 140.0])
    assert run_operator(percent_enhancement, stack).array == pytest.approx(80.0)
    assert run_operator(percent_enhancement, stack, at=3).array == pytest.approx(40.0)
    assert run_operator(signal_enhancement_ratio, stack).array == pytest.approx(2.0)
    assert run_operator(time_to_peak, stack).array == pytest.approx(60.0)
    made = run_operator(dce_subtract, stack)
    assert [float(v.array.mean()) for v in made.volumes] == [80, 40]
    assert [v.facts["part"] for v in made.volumes] == [1, 2]
    assert made.volumes[1].facts["description"] == "volume 3 of 3 at 120 s minus the first volume"


def test_several_volumes_before_contrast_are_averaged() -> None:
    """With two volumes before contrast S0 is their mean."""
    stack = over_time([90.0, 110.0, 150.0, 180.0])
    found = run_operator(percent_enhancement, stack, before=2, at=3)
    assert found.array == pytest.approx(50.0)
    assert (
        found.facts["description"]
        == "100 (S1 - S0) / S0; S0: the mean of the first 2 volumes, S1: volume 3 of 4 at 120 s"
    )
    assert [float(v.array.mean()) for v in run_operator(dce_subtract, stack, before=2).volumes] == [50, 80]


def test_what_falls_below_is_clipped_when_asked() -> None:
    """Differences below 0 stay, unless they are to be 0."""
    stack = over_time([100.0, 80.0, 140.0])
    assert run_operator(dce_subtract, stack).volumes[0].array.max() == -20
    assert run_operator(dce_subtract, stack, clip_negative=True).volumes[0].array.max() == 0


def test_order_is_that_of_time() -> None:
    """Volumes that come in another order are put in that of their times."""
    stack = over_time([100.0, 180.0, 140.0])
    turned = replace(stack, volumes=stack.volumes[::-1])
    assert run_operator(percent_enhancement, turned).array == pytest.approx(80.0)


def test_a_ratio_of_nothing_is_not_valid() -> None:
    """Where the late signal is not above the first, or the early gain too small, there is no ratio."""
    rising = np.array([[100, 100, 100, 100]], np.float32)
    early, late = np.array([[150, 150, 101, 150]], np.float32), np.array([[100, 90, 102, 140]], np.float32)
    stack = over_time([1.0, 1.0, 1.0])
    volumes = [
        replace(v, array=np.broadcast_to(a, (2, 3, 4)).copy())
        for v, a in zip(stack.volumes, (rising, early, late), strict=True)
    ]
    found = run_operator(
        signal_enhancement_ratio, replace(stack, volumes=tuple(volumes)), least_enhancement=10.0
    )
    assert found.valid[0, 0].tolist() == [False, False, False, True]
    assert found.array[0, 0, 3] == pytest.approx(1.25)


@given(st.floats(1, 1000), st.floats(0, 3000), st.floats(0.1, 50))
def test_enhancement_does_not_depend_on_the_scale(before: float, gain: float, scale: float) -> None:
    """PE is a ratio: the same for any receiver gain."""
    one = run_operator(percent_enhancement, over_time([before, before + gain]), above=0.0)
    other = run_operator(percent_enhancement, over_time([before * scale, (before + gain) * scale]), above=0.0)
    assert one.array == pytest.approx(other.array, rel=1e-3, abs=1e-2)


def test_a_mask_says_where() -> None:
    """Within a given mask only."""
    stack = dynamic_stack()
    lesion = head_labels() == LESION
    mask = Mask(lesion, stack.volumes[0].affine, "L", Code("1", "X", "x"), Code("1", "X", "x"))
    for operator in OPERATORS[1:]:
        assert np.array_equal(run_operator(operator, stack, mask).valid, lesion)


def test_times_must_be_those_of_the_acquisition() -> None:
    """Without stated times there is no time to peak; enhancement needs the order only."""
    stack = over_time([100.0, 180.0, 140.0], ("content_time",))
    silent = replace(
        stack,
        volumes=tuple(
            replace(v, facts={k: x for k, x in v.facts.items() if not k.startswith("time")})
            for v in stack.volumes
        ),
    )
    with pytest.raises(
        Refused, match=r"when the volumes were acquired is not stated.*only the order is known"
    ):
        run_operator(time_to_peak, silent)
    assert run_operator(signal_enhancement_ratio, silent).array == pytest.approx(2.0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_no_series_over_time_is_refused(operator: Any) -> None:
    """Echoes or b-values are not time points; one volume is no series; a unit is no signal."""
    with pytest.raises(Refused, match=r"the volumes differ in echo_time, so they are no series over time"):
        run_operator(operator, over_time([100.0, 90.0, 80.0], ("echo_time",)))
    with pytest.raises(Refused, match=r"1 volumes were acquired; at least [23] are needed"):
        run_operator(operator, over_time([100.0]))
    wrong = over_time([100.0, 150.0, 160.0])
    wrong = replace(wrong, volumes=tuple(replace(v, unit=Code("ms", "UCUM", "ms")) for v in wrong.volumes))
    with pytest.raises(Refused, match="the values are in ms, not the signal of an MR image"):
        run_operator(operator, wrong)
    with pytest.raises(Refused, match="before 0 is out of range"):
        run_operator(operator, over_time([100.0, 150.0, 160.0]), before=0)


def test_numbers_out_of_range_are_refused() -> None:
    """A volume that was not acquired, or was before contrast, cannot be asked for."""
    stack = over_time([100.0, 180.0, 140.0])
    with pytest.raises(
        Refused, match="at 4 is out of range: 3 volumes were acquired, the first 1 before contrast"
    ):
        run_operator(percent_enhancement, stack, at=4)
    with pytest.raises(Refused, match="early 1 is out of range"):
        run_operator(signal_enhancement_ratio, stack, early=1)
    with pytest.raises(Refused, match="`late` must name a volume after `early`"):
        run_operator(signal_enhancement_ratio, stack, early=3, late=2)
    with pytest.raises(Refused, match="no voxel enhances as asked"):
        run_operator(time_to_peak, over_time([100.0, 101.0]))


def of_kinds(*kinds: str, **more: Any) -> Stack:
    """Volumes over time whose Image Type ends in *kinds*; *more* are facts of all."""
    stack = over_time([100.0 + 40 * n for n in range(len(kinds))], ("content_time",), **more)
    volumes = [
        replace(v, facts={**v.facts, "image_type": ("DERIVED", "PRIMARY", kind)})
        for v, kind in zip(stack.volumes, kinds, strict=True)
    ]
    return replace(stack, volumes=tuple(volumes))


@pytest.mark.parametrize("operator", OPERATORS)
def test_water_and_fat_are_no_series_over_time(operator: Any) -> None:
    """Water and fat that alternate, and phase beside magnitude, are refused by name; one kind is not."""
    words = r"several kinds \(Image Type DERIVED\\PRIMARY\\FAT and DERIVED\\PRIMARY\\WATER\)"
    with pytest.raises(Refused, match=words):
        run_operator(operator, of_kinds("WATER", "FAT", "WATER", "FAT"))
    assert run_operator(operator, of_kinds("WATER", "WATER", "WATER"))
    both = over_time([100.0, 150.0, 160.0], component="M")
    last = replace(both.volumes[2], facts={**both.volumes[2].facts, "component": "P"})
    with pytest.raises(Refused, match="magnitude and phase images are in one series; narrow the rule"):
        run_operator(operator, replace(both, volumes=(*both.volumes[:2], last)))


def test_what_never_has_signal_has_no_peak() -> None:
    """A voxel of 0 in every volume is not valid, though 0 is 20 % of 0 more than 0; nor where 0 % are enough."""
    stack = over_time([100.0, 180.0, 140.0])
    for volume in stack.volumes:
        volume.array[0, 0, 0] = 0
    affine = stack.volumes[0].affine
    mask = Mask(np.ones((2, 3, 4), bool), affine, "L", Code("1", "X", "x"), Code("1", "X", "x"))
    for least in (20.0, 0.0):
        found = run_operator(time_to_peak, stack, mask, least_enhancement=least)
        assert found.valid is not None
        assert np.argwhere(~found.valid).tolist() == [[0, 0, 0]]


def test_volumes_that_begin_at_once_have_no_peak() -> None:
    """Where several volumes state one time, which of them came first is unknown: refused with the time."""
    stack = over_time([100.0, 180.0, 140.0, 120.0])
    tied = [replace(v, facts={**v.facts, "time": min(v.facts["time"], 60.0)}) for v in stack.volumes]
    with pytest.raises(Refused, match=r"3 volumes are said to begin at 60 s \(AcquisitionTime\)"):
        run_operator(time_to_peak, replace(stack, volumes=tuple(tied)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_units_in_other_words(operator: Any) -> None:
    """(1, UCUM) means no units whatever its meaning is called."""
    stack = over_time([100.0, 180.0, 140.0])
    named = tuple(replace(v, unit=Code("1", "UCUM", "Unity")) for v in stack.volumes)
    assert run_operator(operator, replace(stack, volumes=named))
