"""Volume → derived CT, MR or PET images, one file per slice, in the source's own object class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.derive import geometry, pixels
from node.derive.derivation import Derivation, derivation, step_of
from node.derive.inherit import AnyElement, Column, Inheritance, put, text_element
from node.derive.making import Making, code_item, settle_charset, with_file_meta
from node.derive.standard import CT, MR, PT, roots
from node.derive.values import octets
from node.errors import Broken, Refused
from node.model import Code
from node.operator import Volume

_OURS = frozenset({
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
"""What this module decides itself."""
_VOID = frozenset({
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
_OF_THE_GRID = frozenset({
    "GantryDetectorTilt", "GantryDetectorSlew", "ReconstructionDiameter", "SliceProgressionDirection",
    "WaterEquivalentDiameter", "WaterEquivalentDiameterCalculationMethodCodeSequence", "ViewCodeSequence",
})  # fmt: skip
"""What describes the source's slices and is void once they were cut anew."""
_BEYOND = {MR: ("DiffusionBValue", "DiffusionGradientOrientation")}
"""Not in the classic class, but without them the images cannot be told apart (Standard Extended, PS3.2)."""
_ENTITIES = ("Patient", "Study", "Series", "Frame of Reference", "Equipment", "Acquisition", "Image")
_CT_UNITS = {"[hnsf'U]": "HU", "mg/ml": "MGML", "%": "PCT"}
"""UCUM → Rescale Type (C.11.1.1.2); anything else is US, unspecified."""
_PET_UNITS = {
    "Bq/ml": "BQML", "{counts}": "CNTS", "{counts}/s": "CPS", "{propcounts}": "PROPCNTS",
    "{propcounts}/s": "PROPCPS", "%": "PCNT", "g/ml": "GML", "cm2/ml": "CM2ML", "1": "NONE",
}  # fmt: skip
"""UCUM without annotation → Units (0054,1001)."""
_SUV_TYPES = {
    "SUVbw": "BW", "SUVibw": "IBW", "SUVlbm": "LBM", "SUVlbm(James128)": "LBMJAMES128",
    "SUVlbm(Janma)": "LBMJANMA", "SUVbsa": "BSA",
}  # fmt: skip
"""UCUM annotation → SUV Type (0054,1006)."""
_MR_FLAVOURS = {"MPR": "MPR", "MIP": "PROJECTION IMAGE", "MINIP": "PROJECTION IMAGE", "OTHER": "OTHER"}
_SOURCE_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class _Series:
    """One volume on its way to a series: everything its slices share."""

    making: Making
    volume: Volume
    sop_class: str

    @cached_property
    def planes(self) -> list[geometry.Plane]:
        return geometry.planes_of(self.volume)

    @cached_property
    def reshaped(self) -> bool:
        return not geometry.same_planes(self.planes, self.making.sources.planes)

    @cached_property
    def derivation(self) -> Derivation:
        job = self.making.job
        return derivation(job.plan, self.making.output.name, job.provenance.operators, reshaped=self.reshaped)

    @cached_property
    def inherited(self) -> Inheritance:
        return self.making.sources.inherit(self.sop_class)

    @cached_property
    def without(self) -> frozenset[str]:
        dropped = _OURS | _VOID | (_OF_THE_GRID if self.reshaped else frozenset())
        # PET decay correction is anchored in the series' own start (C.8.9.1), which is therefore not ours.
        return dropped - {"SeriesDate", "SeriesTime"} if self.sop_class == PT else dropped

    @cached_property
    def varying(self) -> Mapping[str, Column]:
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
        return pixels.valid_range(self.volume.array, self.volume.valid)

    @cached_property
    def padded(self) -> bool:
        return self.volume.valid is not None and not bool(self.volume.valid.all())

    @cached_property
    def scale(self) -> pixels.Scale:
        wholes = pixels.whole(self.volume.array, self.volume.valid)
        return pixels.scale(self.sop_class, *self.range, wholes=wholes, padded=self.padded)

    @cached_property
    def base(self) -> Dataset:
        """The attributes all slices share."""
        dataset = self.inherited.common(_ENTITIES, self.without)
        for keyword in _BEYOND.get(self.sop_class, ()):
            _copy_if_agreed(dataset, keyword, self.making.sources.headers)
        for kind in (_set_grid, _set_display, _set_quantity, _set_history):
            kind(dataset, self)
        return dataset


def images(making: Making, volume: Volume) -> Iterator[Dataset]:
    """Make the derived series, slice by slice, ready to be written.

    Raises Refused where the sources are no CT, MR or PET images, Broken where the volume cannot be stored.
    """
    sop_class = making.sources.sop_class
    if sop_class not in (CT, MR, PT):
        raise Refused(
            f"output {making.output.name}: derived images are made of CT, MR and PET only, the source's "
            f"SOP class is {sop_class}; send a mask or measurements instead"
        )
    series = _Series(making, volume, sop_class)
    for k in range(volume.array.shape[0]):
        yield _slice(series, k)


def _slice(series: _Series, k: int) -> Dataset:
    making, plane = series.making, series.planes[k]
    sources = [k]
    if series.reshaped:
        sources = geometry.contributors(plane, series.thickness, making.sources.planes, making.sources.gap)
    dataset = Dataset()
    dataset._dict.update(series.base._dict)
    _set_varying(dataset, series, sources)
    _set_acquisition(dataset, series, sources)
    started = {k: dataset.get_item(k) for k in ("SeriesDate", "SeriesTime")} if series.sop_class == PT else {}
    making.stamp(dataset, series.sop_class, k + 1)
    for keyword, element in started.items():
        put(dataset, keyword, element)
    making.describe(dataset)
    dataset.ImagePositionPatient = geometry.decimals(plane.position)
    dataset.SliceLocation = geometry.decimal(plane.position @ plane.normal)
    dataset.SourceImageSequence = [_source_item(making.sources.headers[i]) for i in sources]
    if series.sop_class == PT:
        dataset.ImageIndex = k + 1
    _set_pixels(dataset, series, k)
    return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)


def _copy_if_agreed(dataset: Dataset, keyword: str, headers: Sequence[Dataset]) -> None:
    found = [header.get(keyword) for header in headers]
    if found[0] is not None and all(value == found[0] for value in found):
        setattr(dataset, keyword, found[0])


def _set_varying(dataset: Dataset, series: _Series, sources: Sequence[int]) -> None:
    """Per-slice attributes: kept where all contributors agree; types 1 and 1C from the one in the middle.

    A slab of PET slices so has the Frame Reference Time and the Decay Factor of its middle (C.8.9.4).
    """
    rows = roots(series.sop_class)
    for keyword, column in series.varying.items():
        element = column.agreed(sources)
        if element is None and rows[keyword].type in ("1", "1C"):
            element = column.variants[column.rows[sources[len(sources) // 2]]]
        put(dataset, keyword, element)


def _set_acquisition(dataset: Dataset, series: _Series, sources: Sequence[int]) -> None:
    """When the data that resulted in this image began to be acquired (C.7.6.1): the earliest contributor."""
    for keywords in (("AcquisitionDate", "AcquisitionTime"), ("AcquisitionDateTime",)):
        columns = [series.inherited.columns.get(keyword) for keyword in keywords]
        stated = [_stated(columns, i) for i in sources]
        if all(stated):
            earliest = min(stated, key=lambda elements: [octets(element) for element in elements])
            for keyword, element in zip(keywords, earliest, strict=True):
                put(dataset, keyword, element)
        elif series.sop_class == PT and len(keywords) == 2:
            dataset.AcquisitionDate = dataset.AcquisitionTime = None


def _stated(columns: Sequence[Column | None], source: int) -> list[AnyElement]:
    """One source's elements, none where it lacks one of them."""
    found = [column.variants[column.rows[source]] for column in columns if column]
    filled = [element for element in found if element is not None and element.value]
    return filled if len(filled) == len(columns) else []


def _set_grid(dataset: Dataset, series: _Series) -> None:
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
    if series.sop_class == PT:
        dataset.NumberOfSlices = len(series.planes)


def _set_display(dataset: Dataset, series: _Series) -> None:
    """Keep the source's window where it still means the same numbers, else show 1 % to 99 %."""
    columns = series.inherited.columns
    same = series.sop_class == CT and series.volume.unit.value == "[hnsf'U]"
    kept = [
        columns[k].agreed(range(series.inherited.size))
        for k in ("WindowCenter", "WindowWidth")
        if k in columns
    ]
    if same and len(kept) == 2 and all(element is not None and element.value for element in kept):
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"):
            column = columns.get(keyword)
            put(dataset, keyword, column.agreed(range(series.inherited.size)) if column else None)
        return
    volume = series.volume
    measured = volume.array if volume.valid is None else volume.array[volume.valid]
    if measured.size:
        step = max(1, measured.size // 1_000_000)
        low, high = np.percentile(measured.reshape(-1)[::step], [1, 99])
        low = 0.0 if series.sop_class == PT and low >= 0 else low
        dataset.WindowCenter, dataset.WindowWidth = pixels.window(float(low), float(high))


def _set_quantity(dataset: Dataset, series: _Series) -> None:
    """Image Type and what the numbers mean."""
    flavour = series.derivation.flavour
    unit = series.volume.unit.value
    if series.sop_class == CT:
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", flavour]
        # Rescale Type is needed once the values are no Hounsfield units (C.8.2.1).
        dataset.RescaleType = _CT_UNITS.get(unit, "US")
    elif series.sop_class == MR:
        dataset.ImageType = ["DERIVED", "SECONDARY", _MR_FLAVOURS[flavour]]
    else:
        dataset.ImageType = ["DERIVED", "PRIMARY", flavour]  # value 2 is enumerated (C.8.9.4.1.1)
        _set_pet_units(dataset, series, unit)
    scale = series.scale
    if series.sop_class != MR or (scale.slope, scale.intercept) != ("1", "0"):
        dataset.RescaleSlope, dataset.RescaleIntercept = scale.slope, scale.intercept
        if series.sop_class == MR:
            dataset.RescaleType = "US"


def _set_pet_units(dataset: Dataset, series: _Series, unit: str) -> None:
    """Units and SUV Type; where they are the source's, exactly as the source says them."""
    sources = series.making.sources
    base, _, note = unit.rstrip("}").partition("{")
    units = _PET_UNITS.get(unit) or _PET_UNITS.get(base, "")
    suv = _SUV_TYPES.get(note, "BW" if units == "GML" else "")
    theirs = sources.text("Units")
    if not units:
        raise Broken(f"output {series.making.output.name}: PET images cannot say the unit {unit}; "
                     "return the source's unit or an SUV")  # fmt: skip
    said = sources.text("SUVType")
    same = units == theirs and suv == (said or ("BW" if theirs == "GML" else ""))
    dataset.Units = units
    if suv and not (same and not said):
        dataset.SUVType = suv


def _set_history(dataset: Dataset, series: _Series) -> None:
    dataset.DerivationDescription = series.derivation.description
    if series.derivation.codes:
        dataset.DerivationCodeSequence = [code_item(code) for code in series.derivation.codes]
    # Once lossy, always lossy (C.7.6.1.1.5); what the sources do not state is not claimed.
    sources = series.making.sources
    stated = {sources.text("LossyImageCompression", i) for i in range(len(sources.headers))}
    if "01" in stated:
        dataset.LossyImageCompression = "01"
    elif stated == {"00"}:
        dataset.LossyImageCompression = "00"


def _source_item(header: Dataset) -> Dataset:
    item = Dataset()
    for keyword, source in (
        ("ReferencedSOPClassUID", "SOPClassUID"),
        ("ReferencedSOPInstanceUID", "SOPInstanceUID"),
    ):
        put(item, keyword, _uid_element(header, source, keyword))
    item.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_PURPOSE)]
    return item


def _uid_element(header: Dataset, source: str, keyword: str) -> Any:
    return text_element(tag_for_keyword(keyword), "UI", octets(header.get_item(source)))


def _set_pixels(dataset: Dataset, series: _Series, k: int) -> None:
    volume = series.volume
    valid = None if volume.valid is None else volume.valid[k]
    scale = series.scale
    if series.sop_class == PT:
        # A slope per slice: quiet slices keep their resolution beside a full bladder.
        low, high = pixels.valid_range(volume.array[k], valid)
        scale = pixels.scale(PT, low, high, wholes=False, padded=series.padded)
        dataset.RescaleSlope, dataset.RescaleIntercept = scale.slope, scale.intercept
    dataset.PixelRepresentation = int(scale.signed)
    if scale.padding is not None:
        dataset.add_new("PixelPaddingValue", "SS" if scale.signed else "US", scale.padding)
    dataset.add_new("PixelData", "OW", scale.store(volume.array[k], valid).tobytes())
