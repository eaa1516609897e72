"""How a posterior view is brought to lie as the anterior one does.

A head behind the patient sees left and right the other way round, and a camera stores what it sees, or turns it. Which
of the two it was is told by the directions of rows and columns that the image states for each head (Image Orientation
(Patient) of the Detector Information Sequence: PS3.3 C.8.4.11, C.7.6.2.1.1); view codes say from where a head looked,
not how its picture was stored. Directions that are the same for both heads say of the posterior view that it was
turned. But cameras are known that write the same for all heads, whatever these see, and nothing in the image tells the
two apart: the rule must.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from node.operator import Picture, Refused

Stored = Literal["as_stated", "as_seen", "mirrored"]
_ALONG = 0.5
"""Cosine from which on two directions are one, or opposite."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is done to a posterior frame."""

    rows: bool
    """Their order is reversed: head and foot change places."""
    columns: bool
    """Their order is reversed: left and right change places."""
    said: str = ""
    """The sentence for reports, where it is not what a head sees and directions or their absence say."""


def turn_of(picture: Picture, front: int, back: int, stored: Stored) -> Turn:
    """How frame *back* is turned to lie as *front*. Raises Refused where neither the image nor the rule says it."""
    if stored == "as_seen":
        return Turn(False, True, "The posterior view was taken as it is seen from behind, as the rule says.")
    if stored == "mirrored":
        return Turn(False, False, "The posterior view was taken as stored mirrored, as the rule says.")
    along, down = (_cosine(picture, name, front, back) for name in ("row_directions", "column_directions"))
    if along is None:
        return Turn(False, True)
    down = 1.0 if down is None else down
    if min(abs(along), abs(down)) < _ALONG:
        raise Refused(
            f"rows or columns of frames {front + 1} and {back + 1} run neither the same way nor opposite ways "
            "(Image Orientation (Patient) of their heads), so the views cannot be laid over each other"
        )
    if along > 0 and down > 0:
        raise Refused(
            "the image states the same directions of rows and columns for the anterior and the posterior view: either "
            "the camera stores posterior views mirrored, or it states the same for all heads, whatever they see. Look "
            "once on which side of a posterior view the patient's left is, and say posterior_stored: mirrored (at "
            "the right, as from the front) or posterior_stored: as_seen (at the left) for geometric_mean or left_right"
        )
    upside_down = "The posterior view was stored upside down, as its directions say, and was turned."
    return Turn(down < 0, along < 0, upside_down if down < 0 else "")


def _cosine(picture: Picture, name: str, front: int, back: int) -> float | None:
    """Between the directions of two frames; None where they are not stated."""
    directions = picture.facts.get(name)
    if not directions:
        return None
    return float(np.dot(directions[front], directions[back]))
