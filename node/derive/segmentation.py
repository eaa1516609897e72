"""Mask → Segmentation object (PS3.3 A.51): one segment, binary or fractional, on the source's or its own grid."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded

from node.derive.making import MANUFACTURER, Making
from node.derive.multiframe import algorithm, coded, finished, framed, settled
from node.errors import Broken
from node.operator import FractionalMask, Mask

_FAMILY = Coded("113076", "DCM", "Segmentation")
"""Algorithm Family: CID 7162 is extensible, and none of its terms fits every operator."""
_FULL = 255
"""Maximum Fractional Value: 1.0 as stored (C.8.20.2.3.1)."""


def segmentation(making: Making, mask: Mask | FractionalMask) -> Dataset:
    """The SEG object of one mask.

    Raises Refused where the sources state no planes, Broken where a fraction is none.
    """
    place = framed(making, mask, "a segmentation")
    array, kind = _fractions(making, mask) if isinstance(mask, FractionalMask) else (mask.array, {})
    made = hd.seg.Segmentation(
        source_images=place.stand_ins(),
        pixel_array=place.pixels(array.astype(np.float32 if kind else np.uint8)),
        segment_descriptions=[_segment(making, mask)],
        series_instance_uid=making.uid("series"),
        series_number=1,
        sop_instance_uid=making.uid("instance", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=making.job.provenance.software,
        device_serial_number=making.job.provenance.device,
        content_label="SEGMENTATION",
        **(kind or {"segmentation_type": hd.seg.SegmentationTypeValues.BINARY}),
    )
    return finished(making, settled(made, place), 1)


def _fractions(making: Making, mask: FractionalMask) -> tuple[Any, dict[str, Any]]:
    """The array, and how it is to be stored."""
    array = np.asarray(mask.array)
    if not (np.isfinite(array).all() and array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise Broken(
            f"output {making.output.name}: a fractional mask holds values outside 0 to 1, or NaN; "
            "the operator must clip them"
        )
    return array, {
        "segmentation_type": hd.seg.SegmentationTypeValues.FRACTIONAL,
        "fractional_type": hd.seg.SegmentationFractionalTypeValues(mask.kind),
        "max_fractional_value": _FULL,
    }


def _segment(making: Making, mask: Mask | FractionalMask) -> hd.seg.SegmentDescription:
    name, version = algorithm(making, making.output.name)
    described = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=mask.label[:64],
        segmented_property_category=coded(mask.category),
        segmented_property_type=coded(mask.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=name, family=_FAMILY, version=version
        ),
        tracking_uid=making.uid("tracking", 1),
        tracking_id=mask.label[:64],
    )
    if mask.description:
        described.SegmentDescription = mask.description[:1024]
    return described
