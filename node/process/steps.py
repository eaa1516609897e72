"""Run a plan's steps one after the other, each over the received volume and earlier results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node.errors import Broken, Misconfigured, Refused, Retryable
from node.model import OperatorSpec, Plan, Step, is_received
from node.operator import (
    FractionalMask,
    Map,
    Mask,
    Measurement,
    Picture,
    Recording,
    Report,
    Segments,
    Stack,
    Volume,
)
from node.process.registry import Operator
from node.process.signature import spec_of


def named(number: int, step: Step) -> str:
    """How messages call a step: `step 2, segment_body`."""
    return f"step {number}, {step.operator}"


def run(
    plan: Plan,
    give: Callable[[str], Any],
    load: Callable[[str], Operator],
    begin: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Each step's result by its name, in order; what was received is not among them.

    *give* hands out what was received, by its name (`received`, or `part_2` where parts come together),
    and raises KeyError for a name it does not know; *load* finds the operator, *begin* is told which step
    begins. Raises Refused, Broken, Misconfigured or Retryable, each naming the step; MemoryError passes.
    """
    results: dict[str, Any] = {}
    for number, step in enumerate(plan.steps, 1):
        begin(named(number, step))
        try:
            results[step.name] = _frozen(_call(step, load(step.operator), results, give))
        except (Refused, Broken, Retryable) as error:
            raise type(error)(f"{named(number, step)}: {error}") from error
        except Misconfigured as error:
            raise Misconfigured(*(f"{named(number, step)}: {m}" for m in error.mistakes)) from error
        except MemoryError:
            raise
        except Exception as error:
            raise Broken(f"{named(number, step)}: {_said(error)}") from error
    return results


def received_as(plan: Plan, specs: Mapping[str, OperatorSpec], name: str = "") -> str:
    """As what the steps take the received series: Volume, Picture … Raises Misconfigured where they differ.

    *name* is an input of a rule over a study. An operator that is not in *specs* is passed over here: `run` says
    what is wrong with it.
    """
    kinds = {
        parameter.type: step.operator
        for step in plan.steps
        if step.operator in specs
        for parameter in specs[step.operator].inputs
        if (source := step.inputs.get(parameter.name, ""))
        and (source == name if name else is_received(source))
    }
    if len(kinds) > 1:
        said = ", ".join(f"{operator} as {kind}" for kind, operator in kinds.items())
        what = f"the input {name}" if name else "the received series"
        raise Misconfigured(f"{what} is taken in different ways ({said}); make one rule of each")
    return next(iter(kinds), "Volume")


def _input(source: str, results: Mapping[str, Any], give: Callable[[str], Any]) -> Any:
    if source in results:
        return results[source]
    try:
        return _frozen(give(source))
    except KeyError:
        missing = "which the series does not have" if is_received(source) else "which no earlier step made"
        raise Misconfigured(f"its input is {source}, {missing}") from None


def _call(step: Step, operator: Operator, results: Mapping[str, Any], give: Callable[[str], Any]) -> Any:
    spec = spec_of(step.operator, operator)
    given: dict[str, Any] = {}
    for parameter in spec.inputs:
        source = step.inputs.get(parameter.name)
        if source is None and parameter.required:
            raise Misconfigured(f"its input {parameter.name} is not given")
        given[parameter.name] = None if source is None else _input(source, results, give)
        found = type(given[parameter.name]).__name__
        if source is not None and not _is(given[parameter.name], parameter.type):
            raise Misconfigured(
                f"its input {parameter.name} must be a {parameter.type}, {source} is a {found}"
            )
    returned = operator(*given.values(), **step.options)
    _check(returned, spec.returns)
    return returned


def _check(returned: Any, kind: str) -> None:
    """Whether *returned* keeps the promise of the operator's annotation. Raises Broken."""
    if kind == "Measurements":
        if not isinstance(returned, list):
            raise Broken(f"it promised list[Measurement] and returned {type(returned).__name__}")
        _check_numbers(returned)
        return
    if not _is(returned, kind):
        raise Broken(f"it promised a {kind} and returned {type(returned).__name__}")
    if isinstance(returned, Report):
        _check_report(returned)
    elif isinstance(returned, Volume | Mask | FractionalMask | Map):
        _check_grid(returned)
    elif isinstance(returned, Stack | Segments):
        members = returned.volumes if isinstance(returned, Stack) else returned.masks
        if not members:
            raise Broken(f"its {kind} is empty")
        for member in members:
            _check_grid(member)
            if not member.same_grid(members[0]):
                raise Broken(f"the members of its {kind} lie on different grids")
    elif isinstance(returned, Picture):
        _check_picture(returned)
    elif isinstance(returned, Recording):
        _check_recording(returned)


def _check_report(returned: Report) -> None:
    if not returned.measurements and not returned.remarks:
        raise Broken("its report says nothing: no number and no remark")
    if not all(remark.text.strip() for remark in returned.remarks):
        raise Broken("a remark of its report is empty")
    _check_numbers(returned.measurements)


def _check_numbers(measurements: Sequence[Any]) -> None:
    for measurement in measurements:
        if not isinstance(measurement, Measurement):
            raise Broken(f"its measurements hold a {type(measurement).__name__}")
        if not np.isfinite(measurement.value):
            raise Broken(f"its measurement {measurement.name.meaning} is {measurement.value}, not a number")


def _is(value: Any, kind: str) -> bool:
    """Whether *value* is of *kind*, as readers and operators may refine it."""
    return kind in {one.__name__ for one in type(value).__mro__}


def _check_grid(returned: Volume | Mask | FractionalMask | Map) -> None:
    array, affine = returned.array, np.asarray(returned.affine)
    if getattr(array, "ndim", 0) != 3 or 0 in array.shape:
        raise Broken(f"its array has shape {getattr(array, 'shape', None)}; three axes are needed")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise Broken("its affine is no invertible 4 x 4 matrix of numbers")
    if np.abs(returned.axes.T @ returned.axes - np.eye(3)).max() > 1e-4:
        raise Broken("the axes of its affine are not perpendicular; DICOM images cannot say that")
    if isinstance(returned, Mask):
        if array.dtype != np.bool_:
            raise Broken(f"its mask holds {array.dtype}, not yes and no (bool)")
        return
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise Broken(f"its array holds {array.dtype}, not real numbers")
    if isinstance(returned, FractionalMask):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise Broken("its shares are not all between 0 and 1")
        return
    _check_valid(array, returned.valid)


def _check_valid(array: Any, valid: Any) -> None:
    if valid is not None and (valid.shape != array.shape[:3] or valid.dtype != np.bool_):
        raise Broken("its `valid` is no bool array of the array's shape")


def _check_picture(returned: Picture) -> None:
    array = returned.array
    grey, colour = array.ndim == 3, array.ndim == 4 and array.shape[-1] == 3
    if not (grey or colour) or 0 in array.shape:
        raise Broken(
            f"its picture has shape {array.shape}; (frames, rows, columns), and 3 for RGB, are needed"
        )
    if colour and array.dtype != np.uint8:
        raise Broken(f"its RGB picture holds {array.dtype}; uint8 is needed")
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise Broken(f"its picture holds {array.dtype}, not real numbers")
    _check_valid(array, returned.valid)


def _check_recording(returned: Recording) -> None:
    if not returned.groups:
        raise Broken("its recording has no group of channels")
    for group in returned.groups:
        if group.array.ndim != 2 or len(group.channels) != len(group.array) or 0 in group.array.shape:
            raise Broken(
                f"its recording has {len(group.channels)} channels over an array {group.array.shape}"
            )
        if not group.frequency > 0:
            raise Broken(f"its recording has {group.frequency} samples per second")


def _frozen(result: Any) -> Any:
    """*result* with read-only arrays: a later step cannot change what an earlier one made."""
    members = getattr(result, "volumes", None) or getattr(result, "masks", None) or (result,)
    for member in members:
        for name in ("array", "affine", "valid"):
            array = getattr(member, name, None)
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
    return result


def _said(error: Exception) -> str:
    """Type, words and the line that raised, without the words of a long chain."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}{': ' if words else ''}{words}{where}"
