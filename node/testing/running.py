"""Operators and rules called the way a node calls them, without a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from node import desk
from node.dryrun import Place, Processed
from node.drystudy import ProcessedStudy
from node.model import Plan, Step
from node.operator import Segments, Stack
from node.process import steps
from node.process.signature import spec_of
from node.process.supervise import Limits


def run_operator(function: Callable[..., Any], /, *inputs: Any, **options: Any) -> Any:
    """Call an operator the way a run does, with every check of its signature and of what it returns.

    *inputs* are its inputs in order (Volume, Mask, Picture, Recording …), *options* are in the units it
    declares. Raises what a run would: Refused, Broken or Misconfigured, in words.
    """
    name = getattr(function, "__name__", "operator")
    given = {f"input_{number}": _view(value) for number, value in enumerate(inputs, 1)}
    names = [parameter.name for parameter in spec_of(name, function).inputs]
    plan = Plan("test", "", (Step(name, dict(zip(names, given, strict=False)), options, "result"),), ())
    return steps.run(plan, given.__getitem__, {name: function}.__getitem__)["result"]


def _view(value: Any) -> Any:
    """Return *value* with a view of its array: a run makes its inputs read-only, the caller's stays as it is."""
    if isinstance(value, Stack):
        return replace(value, volumes=tuple(_view(volume) for volume in value.volumes))
    if isinstance(value, Segments):
        return replace(value, masks=tuple(_view(mask) for mask in value.masks))
    if isinstance(getattr(value, "array", None), np.ndarray):
        return replace(value, array=value.array.view())
    return value


def run_rule(rule_file: Path, paths: Sequence[Path], out: Path) -> list[Processed | ProcessedStudy]:
    """Run the rules of *rule_file* on DICOM files, as `pacsnode process` does; results lie in *out*.

    `ended` of each result is None where the rule does not run on the series, and `judged.because` says
    why; else it has state, reason, products and measurements. Raises Misconfigured for the rule, Refused
    where there is no DICOM series.
    """
    return desk.process_files(None, rule_file, paths, Place(out, Limits(), "UTC"), "")
