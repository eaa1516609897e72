"""Tiles → VL whole slide images, one object per level, uncompressed, all tiles in reading order (PS3.3 A.32.8).

One level is in memory at a time, about three times while it is encoded, written and gated: a level of
20 000 x 20 000 pixels (1.2 GB) needs some 4 GB. Levels beyond the 4 GiB that uncompressed pixels may
have are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from node.derive import lineage, references
from node.derive.charset import settle_charset
from node.derive.derivation import derivation
from node.derive.geometry import decimal, decimals
from node.derive.inherit import put
from node.derive.making import Making, code_item, with_file_meta
from node.errors import Broken, Refused
from node.operator import Level, Tiles

_ENTITIES = ("Patient", "Study", "Series", "Frame of Reference", "Equipment", "Acquisition", "Image")
_OURS = frozenset({
    "ImageType", "InstanceNumber", "ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "SeriesNumber",
    "SeriesInstanceUID", "SeriesDescription", "SeriesDescriptionCodeSequence", "SOPInstanceUID",
    "SOPClassUID", "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID",
    "ContributingEquipmentSequence", "SpecificCharacterSet", "FrameOfReferenceUID", "LossyImageCompression",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "PresentationLUTShape", "TotalPixelMatrixRows", "TotalPixelMatrixColumns",
    "TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "TotalPixelMatrixFocalPlanes",
    "NumberOfOpticalPaths", "NumberOfFocalPlanes", "DistanceBetweenFocalPlanes", "ImagedVolumeWidth",
    "ImagedVolumeHeight", "DimensionOrganizationType", "DimensionOrganizationSequence",
    "DimensionIndexSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "SourceImageSequence", "DerivationDescription", "DerivationCodeSequence", "ReferencedSeriesSequence",
    "SpecimenLabelInImage", "PyramidUID", "PyramidLabel", "PyramidDescription",
})  # fmt: skip
"""What this module decides itself."""
_VOID = frozenset({
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "ReferencedImageSequence",
    "LargestPixelValueInSeries", "PixelPaddingValue", "PixelPaddingRangeLimit", "IconImageSequence",
    "PixelAspectRatio", "ColorSpace", "PixelDataProviderURL", "ExtendedOffsetTable", "PatientOrientation",
    "ExtendedOffsetTableLengths", "RealWorldValueMappingSequence", "ReferencedInstanceSequence",
    "SourceInstanceSequence", "RelatedSeriesSequence", "ConcatenationUID", "InConcatenationNumber",
    "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber", "SOPInstanceUIDOfConcatenationSource",
    "StudiesContainingOtherReferencedInstancesSequence", "LabelText", "FrameExtractionSequence",
    "ImagesInAcquisition", "FrameIncrementPointer", "RecommendedAbsentPixelCIELabValue",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
})  # fmt: skip
"""What was true of the source's pixels and is not of ours."""
_MOST_BYTES = 0xFFFFFFFE
"""Length of an explicit OB element (PS3.5 7.1.2)."""


def slides(making: Making, tiles: Tiles) -> Iterator[Dataset]:
    """Make one object per level, the finest first, each ready to be written before the next is begun.

    Raises Refused where the source is no whole slide, Broken where a level cannot be stored or a tile has
    another shape than its level says.
    """
    source, name = making.sources.sop_class, making.output.name
    if source != VLWholeSlideMicroscopyImageStorage:
        raise Refused(
            f"output {name}: whole slides are made of whole slides only, the source's class is {source}"
        )
    if not tiles.levels:
        raise Broken(f"output {name}: the slide has no level")
    for index, level in enumerate(tiles.levels):
        yield _Object(making, tiles, level, index).dataset()


@dataclass(frozen=True)
class _Object:
    making: Making
    tiles: Tiles
    level: Level
    index: int

    @cached_property
    def raster(self) -> tuple[int, int]:
        """How many tiles down and across."""
        rows, columns = self.level.tile
        return -(-self.level.rows // rows), -(-self.level.columns // columns)

    @cached_property
    def image_type(self) -> list[str]:
        """Value 4 tells a level with the scanner's own pixels from a coarser one (C.8.12.4.1.1)."""
        own = any(
            (header.get("TotalPixelMatrixRows"), header.get("TotalPixelMatrixColumns"))
            == (self.level.rows, self.level.columns)
            and "RESAMPLED" not in header.get("ImageType", ())
            for header in self.making.sources.headers
        )
        return ["DERIVED", "PRIMARY", "VOLUME", "NONE" if own else "RESAMPLED"]

    def dataset(self) -> Dataset:
        making = self.making
        inherited = making.sources.inherit(VLWholeSlideMicroscopyImageStorage)
        dataset = inherited.common(_ENTITIES, _OURS | _VOID)
        self._keep_of_first(dataset)
        making.stamp(dataset, VLWholeSlideMicroscopyImageStorage, self.index + 1)
        making.describe(dataset)
        dataset.ImageType = self.image_type
        dataset.FrameOfReferenceUID = making.frame_of_reference
        if len(self.tiles.levels) > 1:
            dataset.PyramidUID = making.uid("pyramid")
        self._set_history(dataset)
        self._set_matrix(dataset)
        self._set_groups(dataset)
        self._set_pixels(dataset)
        return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)

    def _keep_of_first(self, dataset: Dataset) -> None:
        """What levels of one scan may say differently and every level has to say: as the finest does."""
        columns = self.making.sources.inherit(VLWholeSlideMicroscopyImageStorage).columns
        for keyword in ("OpticalPathSequence", "AcquisitionDateTime", "ImagedVolumeDepth", "FocusMethod",
                        "ExtendedDepthOfField", "BurnedInAnnotation", "VolumetricProperties",
                        "SpecimenDescriptionSequence"):  # fmt: skip
            column = columns.get(keyword)
            element = column.variants[column.rows[0]] if column else None
            put(dataset, keyword, element)
        dataset.SpecimenLabelInImage = "NO"

    def _set_history(self, dataset: Dataset) -> None:
        making = self.making
        made = derivation(
            making.job.plan, making.output.name, making.job.provenance.operators, reshaped=False
        )
        dataset.DerivationDescription = made.description
        if made.codes:
            dataset.DerivationCodeSequence = [code_item(code) for code in made.codes]
        references.set_sources(dataset, making.sources)
        dataset.ReferencedSeriesSequence = lineage.series_items(making.sources.headers)
        dataset.LossyImageCompression = "00"
        references.set_lossy(dataset, making.sources)
        if dataset.LossyImageCompression == "00":
            for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                dataset.pop(keyword, None)

    def _set_matrix(self, dataset: Dataset) -> None:
        """Microscope Slide Layer Tile Organization and the image's extent (C.8.12.14, C.8.12.4)."""
        level = self.level
        down, across = self.raster
        dataset.Rows, dataset.Columns = level.tile
        dataset.NumberOfFrames = down * across
        dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = level.rows, level.columns
        origin = Dataset()
        origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = decimals(
            self.tiles.origin
        )
        dataset.TotalPixelMatrixOriginSequence = [origin]
        dataset.ImageOrientationSlide = decimals(self.tiles.orientation)
        dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
        dataset.ImagedVolumeWidth = level.columns * level.spacing[1]
        dataset.ImagedVolumeHeight = level.rows * level.spacing[0]
        dataset.DimensionOrganizationType = "TILED_FULL"
        organization = Dataset()
        organization.DimensionOrganizationUID = self.making.uid("dimensions")
        dataset.DimensionOrganizationSequence = [organization]

    def _set_groups(self, dataset: Dataset) -> None:
        """What is the same for all tiles; TILED_FULL needs nothing per frame (C.7.6.17.3)."""
        measures, kind, path, group = Dataset(), Dataset(), Dataset(), Dataset()
        measures.PixelSpacing = decimals(self.level.spacing)
        thickness = self._thickness()
        if thickness is not None:
            measures.SliceThickness = decimal(thickness)
        kind.FrameType = self.image_type
        path.OpticalPathIdentifier = self._path()
        group.PixelMeasuresSequence = [measures]
        group.WholeSlideMicroscopyImageFrameTypeSequence = [kind]
        group.OpticalPathIdentificationSequence = [path]
        dataset.SharedFunctionalGroupsSequence = [group]

    def _thickness(self) -> float | None:
        """Depth of the layer in mm: the source's, else its imaged volume's (in µm); None where it says neither."""
        header = self.making.sources.first
        for shared in header.get("SharedFunctionalGroupsSequence") or ():
            for item in shared.get("PixelMeasuresSequence") or ():
                if item.get("SliceThickness") is not None:  # 0 where nobody measured it, as some say
                    return float(item.SliceThickness)
        depth = header.get("ImagedVolumeDepth")
        return float(depth) / 1000 if depth else None

    def _path(self) -> str:
        for item in self.making.sources.first.get("OpticalPathSequence") or ():
            return str(item.get("OpticalPathIdentifier", ""))
        raise Refused(f"output {self.making.output.name}: the source slide has no optical path")

    def _set_pixels(self, dataset: Dataset) -> None:
        first = self._tile(0, 0)
        colour = first.ndim == 3
        dataset.SamplesPerPixel = 3 if colour else 1
        dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            dataset.PlanarConfiguration = 0
        else:
            dataset.PresentationLUTShape, dataset.RescaleSlope, dataset.RescaleIntercept = (
                "IDENTITY",
                "1",
                "0",
            )
            dataset.OpticalPathSequence = [
                _grey_path(path) for path in dataset.get("OpticalPathSequence") or ()
            ]
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.add_new("PixelData", "OB", self._pixels(first))

    def _pixels(self, first: NDArray[np.uint8]) -> bytes:
        down, across = self.raster
        size = first.nbytes * down * across
        if size > _MOST_BYTES:
            raise Broken(
                f"output {self.making.output.name}: level {self.index + 1} has {size / 2**30:.1f} GiB of pixels; an "
                "uncompressed object holds 4; return coarser levels"
            )
        data = bytearray(size + size % 2)
        for frame in range(down * across):
            tile = self._tile(*divmod(frame, across)) if frame else first
            if tile.shape != first.shape:
                raise Broken(f"output {self.making.output.name}: some tiles are coloured and some are grey")
            data[frame * first.nbytes : (frame + 1) * first.nbytes] = tile.tobytes()
        return bytes(data)

    def _tile(self, row: int, column: int) -> NDArray[np.uint8]:
        tile = np.asarray(self.level.read(row, column))
        if (
            tile.dtype != np.uint8
            or tile.shape[:2] != tuple(self.level.tile)
            or tile.shape[2:] not in ((), (3,))
        ):
            raise Broken(
                f"output {self.making.output.name}: tile ({row}, {column}) of level {self.index + 1} is "
                f"{tile.dtype} {tile.shape}; whole tiles of uint8 {self.level.tile}, and 3 for RGB, are needed"
            )
        return tile


def _grey_path(path: Dataset) -> Dataset:
    """An optical path without the profile of its colours."""
    grey = Dataset()
    for tag in path.keys():  # noqa: SIM118 - iterating a Dataset converts its values
        if keyword_for_tag(tag) != "ICCProfile":
            put(grey, keyword_for_tag(tag), path.get_item(tag))
    return grey
