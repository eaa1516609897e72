"""Frames of scintigrams: those of one energy window, and those of two images as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Picture, Refused

PER_FRAME = (
    "detectors", "energy_windows", "phases", "rotations", "rr_intervals", "time_slots", "angular_views",
    "time_slices", "views", "view_codes", "row_directions", "column_directions", "energy_window_names", "collimators",
    "frame_durations",
)  # fmt: skip
"""Facts with one value per frame."""


def of_window(picture: Picture, energy_window: int | None, named: int | None = None) -> Picture:
    """The frames of one energy window, counted from 1; all where none is asked for.

    Raises Refused where it is none, and where a frame is *named* by its number, which says its window, too.
    """
    if energy_window is None:
        return picture
    if named is not None:
        raise Refused("frames are named by number (anterior, posterior): leave energy_window out")
    numbers = picture.facts.get("energy_windows")
    if not numbers:
        raise Refused("the image does not say which energy window its frames are of")
    names = picture.facts.get("energy_window_names", ("",) * len(numbers))
    found = [i for i, number in enumerate(numbers) if number == energy_window]
    if not found:
        known = sorted({f"{n} {name}".strip() for n, name in zip(numbers, names, strict=True)})
        raise Refused(f"there is no energy window {energy_window}; the image has {', '.join(known)}")
    return selected(picture, found)


def selected(picture: Picture, frames: Sequence[int]) -> Picture:
    """Some frames of a picture, with their facts."""
    facts = dict(picture.facts)
    facts |= {name: tuple(facts[name][i] for i in frames) for name in PER_FRAME if facts.get(name)}
    picked = list(frames)
    return replace(
        picture,
        array=picture.array[picked],
        times=None if picture.times is None else picture.times[picked],
        valid=None if picture.valid is None else picture.valid[picked],
        facts=facts,
    )


def joined(first: Picture, second: Picture) -> Picture:
    """The frames of both, where they are of one camera setting. Raises Refused where they are not.

    Facts of frames that only one of the two states are dropped, but for views: a rule may name the others.
    """
    if first.colour or second.colour or first.array.shape[1:] != second.array.shape[1:]:
        raise Refused("the two images have other rows or columns; they are no views of one acquisition")
    if first.unit != second.unit or first.spacing != second.spacing:
        raise Refused(
            "the two images have other units or pixel spacings; they are no views of one acquisition"
        )
    counts = (len(first.array), len(second.array))
    facts: dict[str, Any] = dict(first.facts)
    for name in PER_FRAME:
        own, theirs = first.facts.get(name), second.facts.get(name)
        facts.pop(name, None)
        if own and theirs:
            facts[name] = (*own, *theirs)
        elif name in ("views", "view_codes") and (own or theirs):
            facts[name] = (*(own or ("",) * counts[0]), *(theirs or ("",) * counts[1]))
    totals = [p.facts.get("counts_accumulated") for p in (first, second)]
    facts["counts_accumulated"] = sum(totals) if all(totals) else None
    facts["detectors"] = (1,) * counts[0] + (2,) * counts[1]
    return Picture(
        np.concatenate([first.array, second.array]), first.unit, first.spacing, first.plane,
        _both_valid(first, second), facts=facts,
    )  # fmt: skip


def _both_valid(first: Picture, second: Picture) -> NDArray[np.bool_] | None:
    if first.valid is None and second.valid is None:
        return None
    stated = [np.ones(p.array.shape, bool) if p.valid is None else p.valid for p in (first, second)]
    return np.concatenate(stated)
