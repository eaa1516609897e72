"""Slices as they were acquired, one image each, whatever they came packed in."""

from __future__ import annotations

from node.operator import Volume


def slices(volume: Volume) -> Volume:
    """Give the slices of a volume as images of their own, with their values and places unchanged.

    For what viewers cannot show as a stack: Siemens' mosaics, and multi-frame objects for systems that know
    single-frame images only.
    """
    return volume
