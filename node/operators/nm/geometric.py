"""The geometric mean of anterior and posterior views.

What a gamma camera counts from one side falls off with depth; the product of two opposed views does not depend on how
deep a thin source lies, for exp(-μd) · exp(-μ(D - d)) = exp(-μD).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from node.operator import Picture
from node.operators.nm.frames import joined, of_window
from node.operators.nm.opposed import Stored
from node.operators.nm.views import counted, geometric, pair_of, shown_orientation

_OF_A_FRAME = (
    "frame_durations", "phases", "time_slices", "time_slots", "rr_intervals", "energy_windows",
    "energy_window_names",
)  # fmt: skip
_TITLE = "Geometric mean of anterior and posterior views, seen from the front"
_OF_ALL = ("modality", "body_part", "frame_kind")


def geometric_mean(
    picture: Picture, other: Picture | None = None, *, anterior: int | None = None, posterior: int | None = None,
    energy_window: int | None = None, posterior_stored: Stored = "as_stated",
) -> Picture:  # fmt: skip
    """Show the geometric mean of anterior and posterior views, seen from the front.

    Each pixel is the square root of the anterior counts times the posterior ones, the posterior view turned to lie as
    the anterior one: by the directions that the image states for both, and left to right where it states none. Where
    the two are the same, *posterior_stored* must say whether the camera stores a posterior view *as_seen*, or
    *mirrored*. Views are those the image states (View Code Sequence); where it states none, *anterior* and
    *posterior* name the frames, counted from 1. Where each view is an object of its own, *other* is the second one,
    and its frames are counted on. With *energy_window*, counted from 1, only the frames of that window are taken.

    Raises Refused where the views, or how the posterior one lies, are unknown, where they have other windows, moments
    or durations, and where they hold no counts.
    """
    both = picture if other is None else joined(picture, other)
    both = of_window(counted(both), energy_window, anterior)
    pair = pair_of(both, anterior, posterior, posterior_stored)
    times = None if both.times is None else both.times[list(pair.frames)]
    facts: dict[str, Any] = {name: both.facts[name] for name in _OF_ALL if name in both.facts}
    facts |= {
        name: tuple(both.facts[name][i] for i in pair.frames) for name in _OF_A_FRAME if both.facts.get(name)
    }
    sides = shown_orientation(both, pair.frames[0])
    if sides is not None:
        facts["shown_orientation"] = sides
    return Picture(
        geometric(pair.anterior, pair.posterior).astype(np.float32),
        both.unit,
        both.spacing,
        both.plane,
        times=times if times is None or len(times) > 1 else None,
        title=_TITLE,
        facts={
            **facts,
            "burned_in": False,
            "combined": "geometric mean",
            "views": (_TITLE,) * len(pair.frames),
        },
    )
