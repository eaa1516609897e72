"""Two images that hold one view each, as one image of two frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from node.operator import Picture, Refused


def joined(first: Picture, second: Picture) -> Picture:
    """The frames of both, where they are of one camera setting. Raises Refused where they are not."""
    if first.colour or second.colour or first.array.shape[1:] != second.array.shape[1:]:
        raise Refused("the two images have other rows or columns; they are no views of one acquisition")
    if first.unit != second.unit or first.spacing != second.spacing:
        raise Refused(
            "the two images have other units or pixel spacings; they are no views of one acquisition"
        )
    counts = (len(first.array), len(second.array))
    facts: dict[str, Any] = dict(first.facts)
    for name in (
        "views", "view_codes", "row_directions", "energy_windows", "frame_durations", "energy_window_names",
    ):  # fmt: skip
        own, theirs = first.facts.get(name), second.facts.get(name)
        facts.pop(name, None)
        if own and theirs:
            facts[name] = (*own, *theirs)
        elif name in ("views", "view_codes") and (own or theirs):
            facts[name] = (*(own or ("",) * counts[0]), *(theirs or ("",) * counts[1]))
    totals = [p.facts.get("counts_accumulated") for p in (first, second)]
    facts["counts_accumulated"] = sum(totals) if all(totals) else None
    facts["detectors"] = (1,) * counts[0] + (2,) * counts[1]
    for name in ("phases", "time_slices", "time_slots", "rr_intervals"):
        facts.pop(name, None)
    return Picture(
        np.concatenate([first.array, second.array]), first.unit, first.spacing, first.plane, facts=facts
    )
