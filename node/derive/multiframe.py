"""What segmentations and parametric maps share: frames on a grid, and where each of them came from.

highdicom builds the objects from stand-ins: source headers reduced to their planes, so that bad text in
them cannot make it fail, and one per frame, so that multi-frame sources need no other way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded

from node.derive import geometry
from node.derive.charset import settle_charset
from node.derive.derivation import step_of
from node.derive.inherit import put
from node.derive.lineage import series_items, source_items
from node.derive.making import MANUFACTURER, Making, code_item, with_file_meta
from node.derive.schemes import declare
from node.derive.standard import CT
from node.errors import Refused
from node.model import Code
from node.operator import FractionalMask, Map, Mask

_BLANK = frozenset({"StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName", "SpecificCharacterSet"})
_UNSPECIFIED = Code("112187", "DCM", "Unspecified method of calculation")
_SEGMENTED = Code("113076", "DCM", "Segmentation")
FROM_SERIES = ("RequestAttributesSequence", "BodyPartExamined", "TimezoneOffsetFromUTC")
"""What a result says of the series it was made from."""
AnyGrid: TypeAlias = Mask | FractionalMask | Map


_OF_THE_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
"""What highdicom insists on, and `finished` takes from the sources afterwards."""


@dataclass(frozen=True, eq=False)
class Framed:
    """A grid on its way to a multi-frame object: where its frames lie and what highdicom needs to build it."""

    making: Making
    grid: AnyGrid
    known: list[geometry.Plane]
    """One per source header."""

    @cached_property
    def planes(self) -> list[geometry.Plane]:
        """One per slice of the grid."""
        return geometry.planes_of(self.grid)

    @cached_property
    def aligned(self) -> bool:
        """Whether the grid is the sources' own, voxel for voxel."""
        return geometry.same_planes(self.planes, self.known)

    def stand_ins(self) -> list[Dataset]:
        """One classic image per source frame, each with a UID of its own until `settled`."""
        return [_stand_in(self.making, i, plane) for i, plane in enumerate(self.known)]

    def pixels(
        self, array: NDArray[Any], channels: Mapping[str, Sequence[int]] | None = None
    ) -> NDArray[Any] | hd.Volume:
        """*array* by frame where the sources' planes hold, else with its own geometry; *channels*: its last axis."""
        if self.aligned:
            return array
        return hd.Volume(
            array,
            self.grid.affine,
            coordinate_system="PATIENT",
            frame_of_reference_uid=self.making.frame_of_reference,
            channels=dict(channels) if channels else None,
        )


def framed(making: Making, grid: AnyGrid, what: str) -> Framed:
    """Place *grid* among the sources. Raises Refused where they state no planes."""
    sources = making.sources
    known = [plane for plane in sources.planes if plane is not None]
    if len(known) < len(sources.headers):
        raise Refused(f"output {making.output.name}: {what} needs Image Position, Orientation and "
                      "Pixel Spacing in every source image")  # fmt: skip
    return Framed(making, grid, known)


def nameless() -> Dataset:
    """An object that highdicom takes, of nobody: bad text in a source's header cannot make it fail."""
    item = Dataset()
    for keyword in _OF_THE_PATIENT:
        setattr(item, keyword, "")
    item.StudyDate = item.StudyTime = None
    return item


def _stand_in(making: Making, index: int, plane: geometry.Plane) -> Dataset:
    sources = making.sources
    first = next(known for known in sources.planes if known is not None)
    item = nameless()
    item.SOPClassUID = CT
    item.SOPInstanceUID = making.uid("stand-in", index + 1)
    item.StudyInstanceUID = sources.text("StudyInstanceUID")
    item.SeriesInstanceUID = making.uid("stand-in")
    item.Modality = "CT"
    item.FrameOfReferenceUID = making.frame_of_reference
    item.Rows, item.Columns = plane.rows, plane.columns
    item.ImagePositionPatient = geometry.decimals(plane.position)
    item.ImageOrientationPatient = geometry.decimals([*first.along_row, *first.along_column])
    item.PixelSpacing = geometry.decimals(first.spacing)
    item.SliceThickness = geometry.decimal(sources.number("SliceThickness") or sources.gap or 1.0)
    return item


def settled(made: Dataset, place: Framed) -> Dataset:
    """Put the true sources where highdicom named stand-ins: of the object, and of each frame."""
    sources = place.making.sources
    every = range(len(sources.headers))
    middle = place.planes[len(place.planes) // 2]
    reach = float(place.grid.spacing[0]) * len(place.planes)
    made.SourceImageSequence = source_items(sources, every, (middle, reach))
    made.ReferencedSeriesSequence = series_items((*sources.headers, *sources.others))
    for item in made.PerFrameFunctionalGroupsSequence:
        item.DerivationImageSequence = [_derivation(place, item)]
    return made


def _derivation(place: Framed, item: Dataset) -> Dataset:
    """Derivation Image macro (C.7.6.16.2.6) of the frame that *item* describes."""
    position = np.array([float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient])
    apart = [float(np.abs(plane.position - position).max()) for plane in place.planes]
    k = int(np.argmin(apart))
    sources, plane = place.making.sources, place.planes[k]
    thickness = 0.0 if place.aligned else float(place.grid.spacing[0])
    used = [k] if place.aligned else geometry.contributors(plane, thickness, sources.planes, sources.gap)
    found = Dataset()
    found.SourceImageSequence = source_items(sources, used, (plane, thickness))
    for image in found.SourceImageSequence:
        image.SpatialLocationsPreserved = "YES" if place.aligned else "NO"
    code = _UNSPECIFIED if isinstance(place.grid, Map) else _SEGMENTED
    found.DerivationCodeSequence = [code_item(code)]
    return found


def coded(code: Code) -> Coded:
    """Our code as pydicom's."""
    return Coded(code.value, code.scheme, code.meaning[:64])


def algorithm(making: Making, result: str) -> tuple[str, str]:
    """Name and version of the operator that made *result*."""
    step = step_of(making.job.plan, result)
    name = step.operator if step else result
    return name[:64], making.job.provenance.operators.get(name, making.job.provenance.software)[:64]


def named(making: Making) -> dict[str, Any]:
    """What highdicom wants to know of an object; `finished` puts the numbers that count."""
    return {
        "series_instance_uid": making.uid("series"), "series_number": 1,
        "sop_instance_uid": making.uid("instance", 1), "instance_number": 1,
        "manufacturer": MANUFACTURER, "manufacturer_model_name": MANUFACTURER,
        "software_versions": making.job.provenance.software,
        "device_serial_number": making.job.provenance.device,
    }  # fmt: skip


def finished(
    making: Making,
    made: Dataset,
    index: int,
    entities: Collection[str] = ("Patient", "Study", "Frame of Reference"),
    further: Sequence[str] = FROM_SERIES,
) -> Dataset:
    """Give *made* by highdicom the sources' patient and study, our UIDs and dates, and nothing random."""
    sop_class = str(made.SOPClassUID)
    result = making.sources.inherit(sop_class).common(entities, without=("FrameOfReferenceUID",))
    own = {element.tag for element in result.elements()}
    declare(made)
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


def _fix_dimensions(dataset: Dataset, organization: str) -> None:
    """Replace highdicom's random Dimension Organization UID (C.7.6.17)."""
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, ()):
            item.DimensionOrganizationUID = organization
