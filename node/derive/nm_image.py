"""Volume → one derived Nuclear Medicine image, reconstructed slices as its frames (PS3.3 A.5, C.8.4)."""

from __future__ import annotations

from copy import copy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.derive import geometry
from node.derive.charset import settle_charset
from node.derive.inherit import put
from node.derive.lineage import source_items
from node.derive.making import with_file_meta
from node.derive.quantity import set_display, set_quantity
from node.derive.realworld import set_mapping
from node.derive.series import Series
from node.errors import Refused

_SLICE_VECTOR = Tag(0x0054, 0x0080)
_OF_FRAMES = (
    "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector", "TimeSlotVector",
    "SliceVector", "AngularViewVector", "TimeSliceVector", "NumberOfPhases",
    "NumberOfRRIntervals", "NumberOfTimeSlots", "NumberOfTimeSlices", "PhaseInformationSequence",
    "GatedInformationSequence", "ImagePositionPatient", "ImageOrientationPatient",
    "CountsAccumulated", "StartTrim", "StopTrim", "FrameIncrementPointer",
)  # fmt: skip
"""What describes the source's frames, or the projections they were reconstructed from, and not ours."""


def nm_image(series: Series) -> Dataset:
    """The object of all slices. Raises Refused where the source names no detector or energy window."""
    making = series.making
    dataset = series.base()
    for keyword in _OF_FRAMES:
        dataset.pop(keyword, None)
    set_quantity(dataset, series)
    set_display(dataset, series)
    _set_acquisition(dataset, series)
    making.stamp(dataset, series.sop_class, 1)
    making.describe(dataset)
    _set_frames(dataset, series)
    used = sorted({i for k in range(len(series.planes)) for i in series.contributors(k)})
    whole = series.planes[len(series.planes) // 2]
    reach = float(series.volume.spacing[0]) * len(series.planes)
    dataset.SourceImageSequence = source_items(making.sources, used, (whole, reach))
    scale = series.scale
    dataset.PixelRepresentation = int(scale.signed)
    if scale.padding is not None:
        dataset.add_new("PixelPaddingValue", "SS" if scale.signed else "US", scale.padding)
    set_mapping(dataset, series.volume, scale)
    dataset.add_new("PixelData", "OW", scale.store(series.volume.array, series.volume.valid).tobytes())
    return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)


def _set_acquisition(dataset: Dataset, series: Series) -> None:
    """The acquisition's own date and time: every slice was acquired by the same rotation."""
    every = range(series.inherited.size)
    for keyword in ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"):
        column = series.inherited.columns.get(keyword)
        put(dataset, keyword, column.agreed(every) if column else None)


def _set_frames(dataset: Dataset, series: Series) -> None:
    """Multi-frame, NM Multi-frame and NM Reconstruction Modules (C.8.4.8, C.8.4.15)."""
    count, first = len(series.planes), series.planes[0]
    if not dataset.get("NumberOfEnergyWindows") or not dataset.get("NumberOfDetectors"):
        raise Refused(
            f"output {series.making.output.name}: the source does not say how many energy windows and detectors "
            "it has (0054,0011 and 0054,0021), which a derived NM image must; send a mask or a map instead"
        )
    dataset.NumberOfFrames = dataset.NumberOfSlices = count
    dataset.FrameIncrementPointer = _SLICE_VECTOR
    dataset.SliceVector = list(range(1, count + 1))
    if "RotationInformationSequence" not in dataset:
        dataset.RotationInformationSequence = []  # type 2 of every tomogram (C.8.4.12)
    dataset.CountsAccumulated = None  # of the camera, not of what was computed
    dataset.SliceThickness = geometry.decimal(series.thickness)
    dataset.SliceLocation = geometry.decimal(first.position @ first.normal)
    # Positive: stacked along the normal of the first frame (C.8.4.15).
    side = np.sign(series.volume.affine[:3, 0] @ first.normal)
    dataset.SpacingBetweenSlices = geometry.decimal(side * series.volume.spacing[0])
    dataset.DetectorInformationSequence = [_detector(dataset, series)]
    dataset.NumberOfDetectors = 1


def _detector(dataset: Dataset, series: Series) -> Dataset:
    """The place of the first slice, in the one detector item reconstructions have (C.8.4.11)."""
    item = Dataset()
    theirs = dataset.get("DetectorInformationSequence") or ()
    if theirs:
        item._dict.update({tag: copy(element) for tag, element in theirs[0]._dict.items()})
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        item.pop(keyword, None)
    first = series.planes[0]
    for keyword in ("CollimatorType", "FocalDistance"):  # types 1 and 2 of the item
        if keyword not in item:
            setattr(item, keyword, None if keyword == "FocalDistance" else "")
    item.ImagePositionPatient = geometry.decimals(first.position)
    item.ImageOrientationPatient = geometry.decimals([*first.along_row, *first.along_column])
    return item
