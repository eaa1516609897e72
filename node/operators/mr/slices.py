"""Slices as they were acquired, one image each, and one volume out of several."""

from __future__ import annotations

from node.operator import Refused, Stack, Volume
from node.operators.mr.diffusion import BValue
from node.operators.mr.weighted import SAME_B, SAME_B_LEAST


def slices(stack: Stack) -> Stack:
    """Give the slices of a series as images of their own, with their values and places unchanged.

    For what viewers cannot show as a stack: Siemens' mosaics, and multi-frame objects for systems that know
    single-frame images only. Volumes follow each other in the order of what was varied; each image keeps its own
    b-value, echo time or time of acquisition.
    """
    return stack


def choose_volume(stack: Stack, *, number: int | None = None, b_value: BValue | None = None) -> Volume:
    """Give one volume of a stack: by its *number*, from 1 (or from the end: -1 is the last), or by its b-value.

    Raises Refused where there is no such volume, or several have that b-value (their trace is one).
    """
    if (number is None) == (b_value is None):
        raise Refused("say which volume: either `number` or `b_value`")
    total = len(stack.volumes)
    if number is not None:
        if number == 0 or abs(number) > total:
            raise Refused(
                f"number {number} is out of range: there are {total} volumes, 1 to {total}, or -1 from the end"
            )
        return stack.volumes[number - 1 if number > 0 else number]
    asked = b_value or 0.0
    near = max(SAME_B_LEAST, SAME_B * asked)
    found = [
        v for v in stack.volumes if "b_value" in v.facts and abs(float(v.facts["b_value"]) - asked) <= near
    ]
    if len(found) != 1:
        there = ", ".join(
            f"{b:.4g}"
            for b in sorted({float(v.facts["b_value"]) for v in stack.volumes if "b_value" in v.facts})
        )
        raise Refused(
            f"{len(found)} of {total} volumes have b {asked:g} s/mm² (b-values: {there or 'none stated'}); "
            + ("combine them first (trace)" if found else "ask for another")
        )
    return found[0]
