"""The numbers of a map as a volume, for the steps that measure in one."""

from __future__ import annotations

from node.operator import Map, Volume


def as_volume(map: Map) -> Volume:
    """Give the numbers of a map as a volume in its unit, so that they can be measured in regions or projected.

    What is measured in it is called by the map's own quantity (an ADC stays an ADC). Voxels where the map could
    compute nothing count as not measured.
    """
    facts = {name: value for name, value in map.facts.items() if name not in ("definition", "window")}
    return Volume(map.array, map.affine, map.unit, map.valid, {**facts, "quantity": map.quantity})
