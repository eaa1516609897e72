"""Mask → Segmentation object (PS3.3 A.51), one binary segment, on the source's or its own grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded

from node.derive import geometry
from node.derive.derivation import step_of
from node.derive.inherit import put
from node.derive.making import MANUFACTURER, Making, settle_charset, with_file_meta
from node.errors import Refused
from node.model import Code
from node.operator import Mask

_FAMILY = Coded("113076", "DCM", "Segmentation")
"""Algorithm Family: CID 7162 is extensible, and none of its terms fits every operator."""
_ENTITIES = ("Patient", "Study", "Frame of Reference")
_FROM_SERIES = ("RequestAttributesSequence", "BodyPartExamined", "TimezoneOffsetFromUTC")


def segmentation(making: Making, mask: Mask) -> Dataset:
    """Return the SEG object of one mask. Raises Refused where the sources state no planes."""
    sources = making.sources
    known = [plane for plane in sources.planes if plane is not None]
    if len(known) < len(sources.headers):
        raise Refused(f"output {making.output.name}: a segmentation needs Image Position, Orientation and "
                      "Pixel Spacing in every source image")  # fmt: skip
    stand_ins = [stand_in(making, i, plane) for i, plane in enumerate(known)]
    aligned = geometry.same_planes(geometry.planes_of(mask), known)
    pixels = mask.array.astype(np.uint8) if aligned else _grid(mask, making.frame_of_reference)
    made = hd.seg.Segmentation(
        source_images=stand_ins,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
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
    )
    return finished(making, made, 1, _ENTITIES, _FROM_SERIES)


def _grid(mask: Mask, frame_of_reference: str) -> hd.Volume:
    return hd.Volume(
        mask.array.astype(np.uint8),
        affine=mask.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference,
    )


def _segment(making: Making, mask: Mask) -> hd.seg.SegmentDescription:
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


def coded(code: Code) -> Coded:
    """Our code as pydicom's."""
    return Coded(code.value, code.scheme, code.meaning[:64])


def algorithm(making: Making, result: str) -> tuple[str, str]:
    """Name and version of the operator that made *result*."""
    step = step_of(making.job.plan, result)
    name = step.operator if step else result
    return name[:64], making.job.provenance.operators.get(name, making.job.provenance.software)[:64]


def stand_in(making: Making, index: int, plane: geometry.Plane | None) -> Dataset:
    """Return a source header reduced to what highdicom reads, so that bad text in it cannot make it fail."""
    sources = making.sources
    item = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
        setattr(item, keyword, sources.text(keyword, index))
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
    ):
        setattr(item, keyword, "")
    item.StudyDate = item.StudyTime = None
    if plane is not None:
        first = next(known for known in sources.planes if known is not None)
        item.FrameOfReferenceUID = making.frame_of_reference
        item.Rows, item.Columns = plane.rows, plane.columns
        item.ImagePositionPatient = geometry.decimals(plane.position)
        item.ImageOrientationPatient = geometry.decimals([*first.along_row, *first.along_column])
        item.PixelSpacing = geometry.decimals(first.spacing)
        item.SliceThickness = geometry.decimal(sources.number("SliceThickness") or sources.gap or 1.0)
    return item


def finished(
    making: Making, made: Dataset, index: int, entities: Collection[str], further: Sequence[str]
) -> Dataset:
    """Give *made* by highdicom the sources' patient and study, our UIDs and dates, and nothing random."""
    sop_class = str(made.SOPClassUID)
    result = making.sources.inherit(sop_class).common(entities, without=("FrameOfReferenceUID",))
    own = {element.tag for element in result.elements()}
    for element in made:
        if element.tag not in own and element.keyword not in _BLANK:
            result.add(element)
    columns = making.sources.inherit(making.sources.sop_class).columns
    for keyword in further:
        column = columns.get(keyword)
        put(result, keyword, column.agreed(range(len(making.sources.headers))) if column else None)
    _fix_dimensions(result, making.uid("dimensions"))
    making.stamp(result, sop_class, index)
    making.describe(result)
    return with_file_meta(settle_charset(result, making.sources), making.job.provenance.software)


_BLANK = frozenset({"StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName", "SpecificCharacterSet"})


def _fix_dimensions(dataset: Dataset, organization: str) -> None:
    """Replace highdicom's random Dimension Organization UID (C.7.6.17)."""
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, ()):
            item.DimensionOrganizationUID = organization
