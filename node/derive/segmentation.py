"""Masks → Segmentation object (PS3.3 A.51): binary or fractional segments, on the source's or their own grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded

from node.derive.making import Making, code_item
from node.derive.multiframe import Framed, algorithm, coded, finished, framed, named, settled
from node.errors import Broken
from node.operator import FractionalMask, Mask

_FAMILY = Coded("113076", "DCM", "Segmentation")
"""Algorithm Family: CID 7162 is extensible, and none of its terms fits every operator."""
_FULL = 255
"""Maximum Fractional Value: 1.0 as stored (C.8.20.2.3.1)."""


def segmentation(making: Making, masks: Sequence[Mask | FractionalMask]) -> Dataset:
    """The SEG object of one mask, or of several on one grid.

    Raises Refused where the sources state no planes, Broken where a fraction is none or the grids differ.
    """
    first = masks[0]
    if not all(mask.same_grid(first) for mask in masks):
        raise Broken(f"output {making.output.name}: its segments lie on different grids; one object has one")
    place = framed(making, first, "a segmentation")
    made = hd.seg.Segmentation(
        source_images=place.stand_ins(),
        pixel_array=_pixels(making, masks, place),
        segment_descriptions=[_segment(making, mask, n) for n, mask in enumerate(masks, 1)],
        **named(making),
        content_label="SEGMENTATION",
        **_kind(first),
    )
    return finished(making, settled(made, place), 1)


def _pixels(making: Making, masks: Sequence[Mask | FractionalMask], place: Framed) -> Any:
    """(slices, rows, columns) of one mask or of several that do not overlap, else a last axis of segments.

    Numbers in one array make the same object as one array per segment, ten times as fast and in a tenth of the memory.
    """
    if len(masks) == 1:
        return place.pixels(_array(making, masks[0]))
    numbers = _numbered(masks)
    if numbers is not None:
        return place.pixels(numbers)
    whole = np.stack([_array(making, mask) for mask in masks], axis=-1)
    return place.pixels(whole, {"SegmentNumber": list(range(1, len(masks) + 1))})


def _numbered(masks: Sequence[Mask | FractionalMask]) -> Any:
    """Which segment each voxel is in, 0 for none; None where two overlap, or one is fractional."""
    numbers = np.zeros(masks[0].array.shape, np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, 1):
        if isinstance(mask, FractionalMask):
            return None
        array = np.asarray(mask.array)
        if numbers[array].any():
            return None
        numbers[array] = number
    return numbers


def _kind(mask: Mask | FractionalMask) -> dict[str, Any]:
    """How it is stored."""
    if isinstance(mask, Mask):
        return {"segmentation_type": hd.seg.SegmentationTypeValues.BINARY}
    return {
        "segmentation_type": hd.seg.SegmentationTypeValues.FRACTIONAL,
        "fractional_type": hd.seg.SegmentationFractionalTypeValues(mask.kind),
        "max_fractional_value": _FULL,
    }


def _array(making: Making, mask: Mask | FractionalMask) -> Any:
    array = np.asarray(mask.array)
    if isinstance(mask, Mask):
        return array.astype(np.uint8)
    if not (np.isfinite(array).all() and array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise Broken(
            f"output {making.output.name}: a fractional mask holds values outside 0 to 1, or NaN; "
            "the operator must clip them"
        )
    return array.astype(np.float32)


def _segment(making: Making, mask: Mask | FractionalMask, number: int) -> hd.seg.SegmentDescription:
    name, version = algorithm(making, making.output.name)
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=mask.label[:64],
        segmented_property_category=coded(mask.category),
        segmented_property_type=coded(mask.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=name, family=_FAMILY, version=version
        ),
        tracking_uid=making.uid("tracking", number),
        tracking_id=mask.label[:64],
    )
    if isinstance(mask, Mask) and mask.laterality is not None:
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            code_item(mask.laterality)
        ]
    if mask.description:
        described.SegmentDescription = mask.description[:1024]
    return described
