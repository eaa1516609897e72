"""Run a plan's steps one after the other, each over the received volume and earlier results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from node.errors import Broken, Misconfigured, Refused, Retryable
from node.model import Plan, Step
from node.operator import Mask, Measurement, Volume
from node.process.registry import Operator
from node.process.signature import spec_of

RECEIVED = "received"
"""How a step calls the series itself."""


def named(number: int, step: Step) -> str:
    """How messages call a step: `step 2, segment_body`."""
    return f"step {number}, {step.operator}"


def run(
    plan: Plan,
    received: Volume,
    load: Callable[[str], Operator],
    begin: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Each step's result by its name, in order; `received` is not among them.

    *load* finds the operator, *begin* is told which step begins. Raises Refused, Broken, Misconfigured
    or Retryable, each naming the step; MemoryError passes.
    """
    results: dict[str, Any] = {RECEIVED: _frozen(received)}
    for number, step in enumerate(plan.steps, 1):
        begin(named(number, step))
        try:
            results[step.name] = _frozen(_call(step, load(step.operator), results))
        except (Refused, Broken, Retryable) as error:
            raise type(error)(f"{named(number, step)}: {error}") from error
        except Misconfigured as error:
            raise Misconfigured(*(f"{named(number, step)}: {m}" for m in error.mistakes)) from error
        except MemoryError:
            raise
        except Exception as error:
            raise Broken(f"{named(number, step)}: {_said(error)}") from error
    del results[RECEIVED]
    return results


def _call(step: Step, operator: Operator, results: Mapping[str, Any]) -> Any:
    spec = spec_of(step.operator, operator)
    given: dict[str, Any] = {}
    for parameter in spec.inputs:
        source = step.inputs.get(parameter.name)
        if source is None and parameter.required:
            raise Misconfigured(f"its input {parameter.name} is not given")
        if source is not None and source not in results:
            raise Misconfigured(f"its input {parameter.name} is {source}, which no earlier step made")
        given[parameter.name] = None if source is None else results[source]
        found = type(given[parameter.name]).__name__
        if source is not None and found != parameter.type:
            raise Misconfigured(
                f"its input {parameter.name} must be a {parameter.type}, {source} is a {found}"
            )
    returned = operator(*given.values(), **step.options)
    _check(returned, spec.returns)
    return returned


def _check(returned: Any, kind: str) -> None:
    """Whether *returned* keeps the promise of the operator's annotation. Raises Broken."""
    if kind == "Measurements":
        if not isinstance(returned, list) or not all(isinstance(m, Measurement) for m in returned):
            raise Broken(f"it promised list[Measurement] and returned {type(returned).__name__}")
        for measurement in returned:
            if not np.isfinite(measurement.value):
                raise Broken(
                    f"its measurement {measurement.name.meaning} is {measurement.value}, not a number"
                )
        return
    if type(returned).__name__ != kind:
        raise Broken(f"it promised a {kind} and returned {type(returned).__name__}")
    _check_grid(returned)


def _check_grid(returned: Volume | Mask) -> None:
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
    elif not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise Broken(f"its volume holds {array.dtype}, not real numbers")
    elif returned.valid is not None and (
        returned.valid.shape != array.shape or returned.valid.dtype != np.bool_
    ):
        raise Broken("its `valid` is no bool array of the volume's shape")


def _frozen(result: Any) -> Any:
    """*result* with read-only arrays: a later step cannot change what an earlier one made."""
    for name in ("array", "affine", "valid"):
        array = getattr(result, name, None)
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return result


def _said(error: Exception) -> str:
    """Type, words and the line that raised, without the words of a long chain."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}{': ' if words else ''}{words}{where}"
