"""Which frame of a scintigram shows what: told by the views that the image states, or by the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import NO_UNITS, Code, Picture, Refused
from node.operators.codes import COUNTS
from node.operators.nm.opposed import Stored, turn_of

ANTERIOR = frozenset({"399321004", "255549009"})
"""Anterior projection (PS3.16 CID 26), and plain anterior; SNOMED CT."""
POSTERIOR = frozenset({"399001007", "255551008"})
_ONE_OF = (
    ("detectors", "heads", "with `use` which view to take (anterior, posterior or geometric_mean)"),
    ("energy_windows", "energy windows", "which with `energy_window`"),
)
_SIDES = ("LR", "PA", "HF")
"""Letters of +x and -x, +y and -y, +z and -z (PS3.3 C.7.6.1.1.1)."""
_ALONG = 0.9
"""Cosine from which a direction is called by the axis it runs along."""
Use = Literal["only", "anterior", "posterior", "geometric_mean"]


@dataclass(frozen=True, eq=False)
class Pair:
    """The same moments from the front and from behind, the posterior frames turned to match."""

    anterior: NDArray[Any]
    """(frames, rows, columns)"""
    posterior: NDArray[Any]
    frames: tuple[int, ...]
    """Indices of the anterior frames in the picture."""
    said: str = ""
    """How the posterior frames were stored, for the report; empty where as they are seen."""


def pair_of(
    picture: Picture, anterior: int | None = None, posterior: int | None = None, stored: Stored = "as_stated"
) -> Pair:
    """Anterior and posterior frames, the latter turned to lie as the former. Raises Refused where that is unknown."""
    picture = counted(picture)
    front, back = _stated(picture, ANTERIOR), _stated(picture, POSTERIOR)
    if (anterior is None) != (posterior is None):
        raise Refused("anterior and posterior belong together; name both frames or neither")
    if anterior is not None and posterior is not None:
        front, back = (
            (_numbered(picture, "anterior", anterior),),
            (_numbered(picture, "posterior", posterior),),
        )
        if front == back:
            raise Refused(f"anterior and posterior are both frame {anterior}; they are two views")
    elif not front or not back:
        raise Refused(_views_missing(picture))
    if len(front) != len(back):
        raise Refused(
            f"there are {len(front)} anterior and {len(back)} posterior frames; each needs its counterpart"
        )
    for one, other in zip(front, back, strict=True):
        _refuse_other_moment(picture, one, other)
    turn = turn_of(picture, front[0], back[0], stored)
    behind = picture.array[list(back)]
    behind = behind[:, :: -1 if turn.rows else 1, :: -1 if turn.columns else 1]
    return Pair(picture.array[list(front)], behind, front, turn.said)


def frames_for(picture: Picture, use: Use) -> tuple[NDArray[Any], tuple[int, ...], Code | None]:
    """The frames that *use* asks for, (frames, rows, columns), their indices, and the view they show.

    `only` is for images of one head and one energy window. Raises Refused where it has more, or the view is unknown.
    """
    picture = counted(picture)
    if use == "geometric_mean":
        pair = pair_of(picture)
        return geometric(pair.anterior, pair.posterior), pair.frames, None
    if use == "only":
        indices = tuple(range(len(picture.array)))
        for fact, words, way in _ONE_OF:
            numbers = picture.facts.get(fact, ())
            if len(set(numbers)) > 1:
                raise Refused(f"the image has frames of {len(set(numbers))} {words}; say {way}")
    else:
        indices = _stated(picture, ANTERIOR if use == "anterior" else POSTERIOR)
        if not indices:
            raise Refused(_views_missing(picture, use))
    views, codes = picture.facts.get("views", ()), picture.facts.get("view_codes", ())
    view = (
        Code(codes[indices[0]], "SCT", views[indices[0]]) if views and codes and codes[indices[0]] else None
    )
    frames = picture.array if len(indices) == len(picture.array) else picture.array[list(indices)]
    return frames, indices, view


def geometric(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """√(one · other), pixel by pixel; 0 where either is below 0."""
    product = np.multiply(one, other, dtype=np.float64)
    if min(one.min(), other.min()) < 0:  # a background was subtracted by someone
        product[(one < 0) | (other < 0)] = 0
    return np.sqrt(product, out=product)


def toward_left(picture: Picture, frame: int) -> bool | None:
    """Whether columns of *frame* count up to the patient's left; None where nothing says it.

    The direction of rows is asked first, then the view: from the front, the left side is seen at the right.
    """
    directions = picture.facts.get("row_directions")
    if directions and abs(directions[frame][0]) > 0.5:
        return bool(directions[frame][0] > 0)
    code = (picture.facts.get("view_codes") or ("",) * len(picture.array))[frame]
    return True if code in ANTERIOR else False if code in POSTERIOR else None


def shown_orientation(picture: Picture, frame: int) -> tuple[str, str] | None:
    """To which sides of the patient columns and rows of *frame* count up, as letters; None where not stated."""
    found = []
    for fact in ("row_directions", "column_directions"):
        direction = (picture.facts.get(fact) or {frame: (0.0, 0.0, 0.0)})[frame]
        axis = max(range(3), key=lambda n: abs(direction[n]))
        if abs(direction[axis]) < _ALONG:
            return None
        found.append(_SIDES[axis][direction[axis] < 0])
    if {"A", "P"} & {*found}:  # no view from the front or from behind: what is stated is of something else
        return None
    return found[0], found[1]


def counted(picture: Picture) -> Picture:
    """*picture* where it holds counts, its unit said. Raises Refused where nothing says that it does.

    Secondary captures of a camera state no unit. Where the sum of all pixels is the Counts Accumulated (0018,0070)
    that the image states, each pixel holds its counts; the fact `counts_told_by` then says so.
    """
    if picture.colour:
        raise Refused("the image is in colour: a picture of a scan, without its counts")
    if picture.unit.value == COUNTS.value:
        return picture
    stated = picture.facts.get("counts_accumulated")
    if (
        stated
        and picture.unit.value == NO_UNITS.value
        and float(picture.array.sum(dtype=np.float64)) == stated
    ):
        said = (
            f"The image states no unit; its pixels add up to its Counts Accumulated ({stated:.0f}), so they are "
            "counts."
        )
        return replace(picture, unit=COUNTS, facts={**picture.facts, "counts_told_by": said})
    raise Refused(
        f"the image does not say that it holds counts (its unit is {picture.unit.value}, and its pixels do not add "
        f"up to the Counts Accumulated, which is {'absent' if not stated else f'{stated:.0f}'}); numbers of its grey "
        "values would mean nothing"
    )


def frame_words(picture: Picture, frame: int) -> str:
    """What is known of a frame: `anterior projection, head 1, window Tc99m`."""
    facts = picture.facts
    parts = [
        facts["views"][frame].lower() if facts.get("views") else "",
        f"head {facts['detectors'][frame]}" if _several(facts.get("detectors", ())) else "",
        f"window {facts['energy_window_names'][frame]}" if facts.get("energy_window_names") else "",
    ]
    return ", ".join(part for part in parts if part)


def _several(numbers: Sequence[int]) -> bool:
    return len(set(numbers)) > 1


def _stated(picture: Picture, codes: frozenset[str]) -> tuple[int, ...]:
    return tuple(i for i, code in enumerate(picture.facts.get("view_codes", ())) if code in codes)


def _numbered(picture: Picture, name: str, frame: int) -> int:
    if not 1 <= frame <= len(picture.array):
        raise Refused(f"{name} is frame {frame}, and the image has {len(picture.array)}, counted from 1")
    return frame - 1


def _views_missing(picture: Picture, wanted: str = "anterior and posterior") -> str:
    said = sorted({view for view in picture.facts.get("views", ()) if view})
    stated = f"it states only {', '.join(said)}" if said else "it states no views (View Code Sequence)"
    return (
        f"which frames show the {wanted} view is unknown: {stated}; the {len(picture.array)} "
        f"{'frame' if len(picture.array) == 1 else 'frames'} can be named in the rule where the camera "
        "always sends them in one order (anterior: 1, posterior: 2)"
    )


def _refuse_other_moment(picture: Picture, one: int, other: int) -> None:
    """Two frames belong together where they are of one window, and of one moment."""
    for fact, words in (
        ("energy_windows", "energy windows"), ("phases", "phases"), ("time_slices", "time slices"),
        ("time_slots", "time slots"),
    ):  # fmt: skip
        numbers = picture.facts.get(fact)
        if numbers and numbers[one] != numbers[other]:
            raise Refused(
                f"frames {one + 1} and {other + 1} are of different {words} ({numbers[one]} and "
                f"{numbers[other]}); their product would mean nothing"
            )
    durations = picture.facts.get("frame_durations")
    if durations and abs(durations[one] / durations[other] - 1) > 1e-3:
        raise Refused(
            f"frames {one + 1} and {other + 1} were acquired for {durations[one] / 1000:g} and "
            f"{durations[other] / 1000:g} s; their counts cannot be compared"
        )
