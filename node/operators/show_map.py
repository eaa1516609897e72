"""A map once more, in the colours asked for: for results that go as numbers and as pictures to one system."""

from __future__ import annotations

from dataclasses import replace

from node.operator import Map, Number, Refused


def show_map(map: Map, *, low: Number | None = None, high: Number | None = None) -> Map:
    """Give the same map under a name of its own, shown in colours from *low* to *high*.

    The numbers stay as they are; one range for all patients lets pictures be compared. Without the two the colours
    span 1 % to 99 % of the measured values.

    Raises Refused where only one of the two is given, or *high* is not above *low*.
    """
    if (low is None) != (high is None):
        raise Refused("low and high belong together; give both or neither")
    if low is None or high is None:
        return replace(map)
    if not high > low:
        raise Refused(f"high {high:g} must be above low {low:g}")
    return replace(map, facts={**map.facts, "window": ((low + high) / 2, high - low)})
