"""One volume on its way to a derived series: what its slices share, of CT, MR, PET and NM alike."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.derive import geometry, pixels
from node.derive.derivation import Derivation, derivation, step_of
from node.derive.inherit import Column, Inheritance
from node.derive.lineage import source_items
from node.derive.making import Making, code_item
from node.derive.references import set_lossy
from node.derive.standard import MR, PT, roots
from node.derive.weighting import set_weighting
from node.operator import Volume

OURS = frozenset({
    "ImageType", "InstanceNumber", "ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "SeriesNumber",
    "SeriesInstanceUID", "SeriesDescription", "SeriesDescriptionCodeSequence", "SOPInstanceUID",
    "SOPClassUID",
    "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "ContributingEquipmentSequence",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "LossyImageCompression",
    "SpecificCharacterSet", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation", "SamplesPerPixel",
    "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelData", "RescaleSlope", "RescaleIntercept", "RescaleType", "NumberOfSlices",
    "ImageIndex", "Units", "SUVType", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation",
    "VOILUTFunction", "DerivationDescription", "DerivationCodeSequence", "SourceImageSequence",
})  # fmt: skip
"""What derived images say for themselves."""
VOID = frozenset({
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries", "SmallestImagePixelValue",
    "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "IconImageSequence",
    "PixelAspectRatio", "PlanarConfiguration", "ICCProfile", "ColorSpace", "PixelDataProviderURL",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "VOILUTSequence", "RealWorldValueMappingSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "ReferencedImageSequence",
    "ReferencedInstanceSequence", "SourceInstanceSequence", "RelatedSeriesSequence", "ImagesInAcquisition",
    "ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence", "PatientOrientation",
})  # fmt: skip
"""What was true of the source's pixels and is not of ours."""
OF_THE_GRID = frozenset({
    "GantryDetectorTilt", "GantryDetectorSlew", "ReconstructionDiameter", "SliceProgressionDirection",
    "WaterEquivalentDiameter", "WaterEquivalentDiameterCalculationMethodCodeSequence", "ViewCodeSequence",
})  # fmt: skip
"""What describes the source's slices and is void once they were cut anew."""
ENTITIES = ("Patient", "Study", "Series", "Frame of Reference", "Equipment", "Acquisition", "Image")


@dataclass(frozen=True)
class Series:
    """One volume, what it was made of, and the class its images are of."""

    making: Making
    volume: Volume
    sop_class: str

    @cached_property
    def planes(self) -> list[geometry.Plane]:
        """One per slice of the volume."""
        return geometry.planes_of(self.volume)

    @cached_property
    def reshaped(self) -> bool:
        """Whether the grid is not the sources' own."""
        return not geometry.same_planes(self.planes, self.making.sources.planes)

    @cached_property
    def derivation(self) -> Derivation:
        """How it was made."""
        job = self.making.job
        made = derivation(job.plan, self.making.output.name, job.provenance.operators, reshaped=self.reshaped)
        made = made.told(str(self.volume.facts.get("description", "")))
        return made.projected(str(self.volume.facts.get("projection", "")))

    @cached_property
    def inherited(self) -> Inheritance:
        """What the sources say."""
        return self.making.sources.inherit(self.sop_class)

    @cached_property
    def without(self) -> frozenset[str]:
        """What is not taken over."""
        dropped = OURS | VOID | (OF_THE_GRID if self.reshaped else frozenset())
        # PET decay correction is anchored in the series' own start (C.8.9.1), which is therefore not ours.
        return dropped - {"SeriesDate", "SeriesTime"} if self.sop_class == PT else dropped

    @cached_property
    def varying(self) -> Mapping[str, Column]:
        """Attributes of image and acquisition in which the sources differ."""
        rows = roots(self.sop_class)
        image = ("Acquisition", "Image")
        columns = self.inherited.varying().items()
        return {k: c for k, c in columns if rows[k].entity in image and k not in self.without}

    @cached_property
    def thickness(self) -> float:
        """mm, as the operator says, else the rule asked, else the source has, else the slice distance."""
        step = step_of(self.making.job.plan, self.making.output.name)
        asked = step.options.get("thickness") if step and self.reshaped else None
        source = None if self.reshaped else self.making.sources.number("SliceThickness")
        for stated in (self.volume.facts.get("slice_thickness") if self.reshaped else None, asked, source):
            if isinstance(stated, int | float) and stated > 0:
                return float(stated)
        return float(self.volume.spacing[0])

    @cached_property
    def range(self) -> tuple[float, float]:
        """Smallest and largest measured value."""
        return pixels.valid_range(self.volume.array, self.volume.valid)

    @cached_property
    def padded(self) -> bool:
        """Whether some voxels were never measured."""
        return self.volume.valid is not None and not bool(self.volume.valid.all())

    @cached_property
    def scale(self) -> pixels.Scale:
        """How values are stored."""
        wholes = pixels.whole(self.volume.array, self.volume.valid)
        return pixels.scale(self.sop_class, *self.range, wholes=wholes, padded=self.padded)

    @cached_property
    def _base(self) -> Dataset:
        dataset = self.inherited.common(ENTITIES, self.without)
        if self.sop_class == MR:
            set_weighting(dataset, self.volume, self.making.sources.headers)
        _set_grid(dataset, self)
        _set_history(dataset, self)
        return dataset

    def base(self) -> Dataset:
        """A fresh dataset of what all slices share; no element is shared with another slice's."""
        dataset = Dataset()
        for tag, element in self._base._dict.items():
            dataset._dict[tag] = copy(element) if isinstance(element, DataElement) else element
        return dataset

    def contributors(self, k: int) -> list[int]:
        """The source headers that slice *k* was made of."""
        if not self.reshaped:
            return [k]
        sources = self.making.sources
        return geometry.contributors(self.planes[k], self.thickness, sources.planes, sources.gap)

    def references(self, k: int) -> list[Dataset]:
        """Source Image Sequence items of slice *k*, of parts that came together as well."""
        slab = (self.planes[k], self.thickness if self.reshaped else 0.0)
        return source_items(self.making.sources, self.contributors(k), slab)


def _set_grid(dataset: Dataset, series: Series) -> None:
    plane = series.planes[0]
    dataset.FrameOfReferenceUID = series.making.frame_of_reference
    dataset.ImageOrientationPatient = geometry.decimals([*plane.along_row, *plane.along_column])
    dataset.PixelSpacing = geometry.decimals(plane.spacing)
    dataset.SliceThickness = geometry.decimal(series.thickness)
    if len(series.planes) > 1:
        dataset.SpacingBetweenSlices = geometry.decimal(series.volume.spacing[0])
    dataset.Rows, dataset.Columns = plane.rows, plane.columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15


def _set_history(dataset: Dataset, series: Series) -> None:
    dataset.DerivationDescription = series.derivation.description
    if series.derivation.codes:
        dataset.DerivationCodeSequence = [code_item(code) for code in series.derivation.codes]
    set_lossy(dataset, series.making.sources)
