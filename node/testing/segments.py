"""Masks as a SEG object beside the images they were drawn on (PS3.3 A.51): same arguments, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code as Coded

from node.model import Code
from node.operator import Mask, Volume
from node.testing.series import Series

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")


def ball_mask(
    volume: Volume,
    radius: float,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    label: str = "Ball",
    type: Code = Code("10200004", "SCT", "Liver"),  # noqa: B008 (the field's name; a frozen value)
    category: Code = ANATOMY,
    laterality: Code | None = None,
) -> Mask:
    """Return the voxels of *volume* whose centre lies within *radius* mm of *centre*."""
    indices = np.indices(volume.array.shape, dtype=float)
    points = np.tensordot(volume.affine[:3, :3], indices, 1) + volume.origin.reshape(3, 1, 1, 1)
    away = ((points - np.array(centre).reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
    return Mask(away <= radius**2, volume.affine, label, category, type, laterality=laterality)


def write_segmentation(
    file: Path, images: Sequence[Path], masks: Sequence[Mask], *, series: Series | None = None
) -> Path:
    """Write *masks*, which lie on the slices of *images*, as one binary SEG of their study; empty frames left out."""
    series = series or Series("seg", number=100)
    sources = sorted((dcmread(path) for path in images), key=_height)
    made = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack([mask.array for mask in masks], axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_described(number, mask) for number, mask in enumerate(masks, 1)],
        series_instance_uid=series.uid(f"seg-series:{series.name}"),
        series_number=series.number,
        sop_instance_uid=series.uid(f"seg:{series.name}"),
        instance_number=1,
        manufacturer="PACSNode",
        manufacturer_model_name="Analytic phantom",
        software_versions="1",
        device_serial_number="1",
        content_label="PHANTOM",
    )
    made.pop(
        "ContributingEquipmentSequence", None
    )  # it would name the images' maker, and make the object ours
    _without_chance(made, series)
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file)
    return file


def _described(number: int, mask: Mask) -> hd.seg.SegmentDescription:
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=mask.label,
        segmented_property_category=_coded(mask.category),
        segmented_property_type=_coded(mask.type),
        algorithm_type="MANUAL",
    )
    if mask.laterality is not None:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = mask.laterality.value, mask.laterality.scheme
        item.CodeMeaning = mask.laterality.meaning
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [item]
    return described


def _coded(code: Code) -> Coded:
    return Coded(code.value, code.scheme, code.meaning)


def _height(header: Dataset) -> float:
    along = [float(v) for v in header.ImageOrientationPatient]
    return float(np.cross(along[:3], along[3:]) @ [float(v) for v in header.ImagePositionPatient])


def _without_chance(made: Any, series: Series) -> None:
    """What highdicom draws at random or takes from the clock."""
    dimensions = series.uid(f"seg-dimensions:{series.name}")
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made[keyword].value:
            item.DimensionOrganizationUID = dimensions
    for part in ("InstanceCreation", "Content", "Series"):
        setattr(made, f"{part}Date", "20240102")
        setattr(made, f"{part}Time", "111500")
