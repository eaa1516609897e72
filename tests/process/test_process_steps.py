"""Running a plan: results flow by name, promises are checked, and every failure names its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from node.errors import Broken, Misconfigured, Refused, Retryable
from node.model import Code, OperatorSpec, Parameter, Plan, Step
from node.operator import (
    Channel,
    FractionalMask,
    Map,
    Mask,
    Measurement,
    Picture,
    Recording,
    Remark,
    Report,
    Segments,
    Stack,
    Volume,
    Waveform,
)
from node.process.steps import received_as, run

CODE = Code("1", "99T", "t")
RECEIVED = Volume(np.arange(8.0).reshape(2, 2, 2), np.eye(4), CODE)


def above(volume: Volume, *, level: float = 3) -> Mask:
    """Mark what is brighter."""
    return Mask(volume.array > level, volume.affine, "a", CODE, CODE)


def count(volume: Volume, mask: Mask | None = None) -> list[Measurement]:
    """Count."""
    return [Measurement(CODE, float(volume.array.size if mask is None else mask.array.sum()), CODE)]


def give(name: str) -> Volume:
    """Hand out what was received, undivided."""
    return {"received": RECEIVED}[name]


def loader(**operators: Callable[..., Any]) -> Callable[[str], Callable[..., Any]]:
    """Find operators by name among those given."""
    return lambda name: {"above": above, "count": count, **operators}[name]


def plan(*steps: Step) -> Plan:
    """A plan of *steps*."""
    return Plan("r", "m", steps, ())


def step(operator: str, name: str, inputs: dict[str, str] | None = None, **options: Any) -> Step:
    """A step, on the received series unless said otherwise."""
    return Step(operator, {"volume": "received"} if inputs is None else inputs, options, name)


def test_results_flow_by_name() -> None:
    """A later step takes an earlier result; optional inputs may be left out; each step is announced."""
    begun: list[str] = []
    steps = (
        step("above", "bright", level=5),
        step("count", "n", {"volume": "received", "mask": "bright"}),
        step("count", "all"),
    )
    results = run(plan(*steps), give, loader(), begun.append)
    assert list(results) == ["bright", "n", "all"]
    assert (results["n"][0].value, results["all"][0].value) == (2, 8)
    assert begun == ["step 1, above", "step 2, count", "step 3, count"]


def test_no_step_can_change_what_another_made() -> None:
    """Writing into an input fails and names the step, so that later steps see what was received."""

    def spoil(volume: Volume) -> Volume:
        volume.array[0] = 0
        return volume

    with pytest.raises(Broken, match=r"step 1, spoil: ValueError: assignment destination is read-only"):
        run(plan(step("spoil", "s")), give, loader(spoil=spoil))


@pytest.mark.parametrize("kind", [Refused, Broken, Retryable, Misconfigured])
def test_node_errors_keep_their_kind_and_gain_the_step(kind: type[Exception]) -> None:
    """Who must act stays the same; the sentence begins with the step."""

    def fail(volume: Volume) -> Volume:
        raise kind("because")

    with pytest.raises(kind, match=r"^step 2, fail: because$"):
        run(plan(step("above", "a"), step("fail", "f")), give, loader(fail=fail))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((step("count", "n", {}),), "its input volume is not given"),
        (
            (step("count", "n", {"volume": "nowhere"}),),
            "its input is nowhere, which no earlier step made",
        ),
        (
            (step("count", "n", {"volume": "received", "mask": "received"}),),
            "must be a Mask, received is a Volume",
        ),
        (
            (step("count", "n", {"volume": "part_2"}),),
            "its input is part_2, which the series does not have",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(steps: tuple[Step, ...], words: str) -> None:
    """Missing, unknown and mistyped inputs are sentences, not tracebacks."""
    with pytest.raises(Misconfigured, match=words):
        run(plan(*steps), give, loader())


SKEW = np.eye(4)
SKEW[0, 1] = 0.3


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "promised a Volume and returned NoneType"),
        (above(RECEIVED), "promised a Volume and returned Mask"),
        (Volume(np.zeros((2, 2)), np.eye(4), CODE), "shape"),
        (Volume(np.zeros((0, 2, 2)), np.eye(4), CODE), "shape"),
        (Volume(np.zeros((2, 2, 2)), np.zeros((4, 4)), CODE), "invertible"),
        (Volume(np.zeros((2, 2, 2)), SKEW, CODE), "not perpendicular"),
        (Volume(np.zeros((2, 2, 2), complex), np.eye(4), CODE), "not real numbers"),
        (Volume(np.zeros((2, 2, 2)), np.eye(4), CODE, np.ones(2, bool)), "valid"),
    ],
)
def test_a_volume_that_dicom_cannot_say_is_broken(made: Any, words: str) -> None:
    """What an operator returns is checked against its promise before anything is derived from it."""

    def make(volume: Volume) -> Volume:
        return made  # type: ignore[no-any-return]

    with pytest.raises(Broken, match=words):
        run(plan(step("make", "m")), give, loader(make=make))


@pytest.mark.parametrize("made", [[1.0], Measurement(CODE, 1, CODE), [Measurement(CODE, float("nan"), CODE)]])
def test_measurements_are_checked(made: Any) -> None:
    """Bare numbers, a lone measurement and NaN are no list of measurements."""

    def make(volume: Volume) -> list[Measurement]:
        return made  # type: ignore[no-any-return]

    with pytest.raises(Broken, match="step 1, make: it"):
        run(plan(step("make", "m")), give, loader(make=make))


def test_a_mask_of_numbers_is_broken() -> None:
    """A mask holds yes and no; 0 and 255 would become a fractional segmentation nobody asked for."""

    def make(volume: Volume) -> Mask:
        return Mask(np.zeros((2, 2, 2), np.uint8), np.eye(4), "a", CODE, CODE)  # type: ignore[arg-type]

    with pytest.raises(Broken, match="uint8"):
        run(plan(step("make", "m")), give, loader(make=make))


GREY = np.zeros((1, 4, 4), np.float32)
LEAD = Channel("I", None, CODE)


@pytest.mark.parametrize(
    ("made", "promise", "words"),
    [
        (Picture(np.zeros((4, 4))), Picture, "picture has shape"),
        (Picture(np.zeros((1, 4, 4, 3))), Picture, "RGB picture holds float64; uint8 is needed"),
        (Picture(GREY, valid=np.ones((4, 4), bool)), Picture, "valid"),
        (FractionalMask(GREY + 2, np.eye(4), "a", CODE, CODE), FractionalMask, "between 0 and 1"),
        (Map(GREY.astype(complex), np.eye(4), CODE, CODE), Map, "not real numbers"),
        (Recording(()), Recording, "no group of channels"),
        (Report(()), Report, "says nothing: no number and no remark"),
        (Report((), (Remark(" "),)), Report, "a remark of its report is empty"),
        (Report((Measurement(CODE, float("nan"), CODE),)), Report, "t is nan, not a number"),
        (Stack(()), Stack, "its Stack is empty"),
        (
            Stack((RECEIVED, Volume(GREY, np.eye(4), CODE))),
            Stack,
            "the members of its Stack lie on different grids",
        ),
        (Segments((Mask(GREY, np.eye(4), "a", CODE, CODE),)), Segments, "its mask holds float32"),
        (Recording((Waveform(np.zeros((2, 9)), 500, (LEAD,)),)), Recording, "1 channels over an array"),
        (Recording((Waveform(np.zeros((1, 9)), 0, (LEAD,)),)), Recording, "0 samples per second"),
    ],
)
def test_every_kind_of_result_is_checked(made: Any, promise: type, words: str) -> None:
    """Pictures, maps, shares and recordings that DICOM cannot say are broken, in words."""

    def make(volume: Volume) -> Any:
        return made

    make.__annotations__["return"] = promise
    with pytest.raises(Broken, match=words):
        run(plan(step("make", "m")), give, loader(make=make))


def spec(name: str, kind: str) -> OperatorSpec:
    """An operator that takes one input of *kind*."""
    return OperatorSpec(name, "", (Parameter("volume", kind),), (), "Volume", "1", "acme")


def test_a_plan_reads_the_series_in_one_way() -> None:
    """What the steps take decides how files are read; two ways in one plan are a mistake."""
    specs = {"slab": spec("slab", "Volume"), "window": spec("window", "Picture")}
    again = step("slab", "b", {"volume": "part_2"})
    assert received_as(plan(step("slab", "a"), again), specs) == "Volume"
    with pytest.raises(Misconfigured, match="slab as Volume, window as Picture"):
        received_as(plan(step("slab", "a"), step("window", "b")), specs)
