"""Picture → secondary capture, one frame or several (PS3.3 A.8): the classes that every viewer shows.

A picture made of a radiograph, ultrasound image or photograph leaves as secondary capture, too, never in
its source's own class: Digital X-Ray For Presentation, VL and US images ask for modules that sources lack
(a source's missing type 1 attribute would become our error), and a drawing is none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.derive.charset import settle_charset
from node.derive.derivation import derivation
from node.derive.geometry import decimal, decimals
from node.derive.making import MANUFACTURER, Making, code_item, with_file_meta
from node.derive.references import set_lossy, set_sources
from node.derive.standard import roots
from node.derive.stored import Stored, stored_as
from node.errors import Broken
from node.operator import NO_UNITS, Picture

_SCREENS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(3\.1|6\.[0-9]+|7(\.[0-9]+)*|77\.1\.1(\.1)?)")
"""Ultrasound, secondary capture and endoscopy: pictures of a screen as a rule."""

_ENTITIES = ("Patient", "Study", "Series", "Equipment", "Acquisition", "Image")
_OURS = frozenset({
    "SeriesDate", "SeriesTime", "SeriesNumber", "SeriesInstanceUID", "SeriesDescription",
    "SeriesDescriptionCodeSequence", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "PixelPaddingValue", "ConversionType", "SecondaryCaptureDeviceID", "VideoImageFormatAcquired",
    "DigitalImageFormatAcquired", "RelatedSeriesSequence", "ImagesInAcquisition",
    "ReferencedSeriesSequence", "SpecificCharacterSet",
})  # fmt: skip
"""What this module decides itself, or what was true of the source's pixels only."""
_OF_THE_IMAGE = frozenset({
    "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence", "ImageLaterality",
    "ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence", "AlternateContainerIdentifierSequence",
    "ContainerTypeCodeSequence", "ContainerDescription", "ContainerComponentSequence",
    "SpecimenDescriptionSequence",
})  # fmt: skip
"""What says what the image shows, and is still true of a picture of it."""
_EVEN_MS = 1e-3
"""Frame times that differ by no more are even: far below what a display can do."""
_MOST_BYTES = 0xFFFFFFFE
"""Length of an explicit OB or OW element (PS3.5 7.1.2)."""


def captures(making: Making, picture: Picture) -> Iterator[Dataset]:
    """Make the one secondary capture of *picture*, ready to be written.

    Grey values are kept: as bytes where they are bytes, else as 16 bits with the rescale that gives them
    back, shown by the window in the picture's facts or its robust range. Raises Broken where the picture
    is too large, not finite, or its times do not fit its frames.
    """
    yield _Capture(making, picture).dataset()


@dataclass(frozen=True)
class _Capture:
    making: Making
    picture: Picture

    @cached_property
    def stored(self) -> Stored:
        try:
            stored = stored_as(self.picture)
        except Broken as error:
            raise Broken(f"output {self.making.output.name}: {error}") from None
        if stored.pixels.nbytes > _MOST_BYTES:
            raise Broken(
                f"output {self.making.output.name}: {stored.pixels.nbytes / 2**30:.1f} GiB of pixels; an "
                "uncompressed object holds 4; return fewer frames or a smaller picture"
            )
        return stored

    def dataset(self) -> Dataset:
        making, sop_class = self.making, self.stored.sop_class
        dataset = self._inherited(sop_class)
        making.stamp(dataset, sop_class, 1)
        making.describe(dataset)
        self._set_history(dataset)
        self._set_device(dataset)
        self._set_pixels(dataset)
        self._set_spacing(dataset)
        if len(self.stored.pixels) > 1:
            self._set_frames(dataset)
        return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)

    def _inherited(self, sop_class: str) -> Dataset:
        sources = self.making.sources
        void = {keyword for keyword, row in roots(sop_class).items() if row.entity == "Image"}
        dataset = sources.inherit(sop_class).common(_ENTITIES, _OURS | (void - _OF_THE_IMAGE))
        if len(dataset.get("AnatomicRegionSequence") or ()) != 1:  # one item, but in Digital X-Ray (C.7.6.1)
            dataset.pop("AnatomicRegionSequence", None)
        if "Modality" not in dataset:
            dataset.Modality = "OT"
        if not any(keyword in dataset for keyword in ("BodyPartExamined", "Laterality", "ImageLaterality")):
            dataset.Laterality = None  # type 2C (C.7.3.1): it may be one of a pair, and nobody says which
        # Type 2C: it may be empty where the directions are not known (C.7.6.1).
        dataset.PatientOrientation = self._orientation()
        return dataset

    def _orientation(self) -> list[str] | None:
        """What the operator knows, else the source's where the picture still has the source's rows and columns."""
        told = self.picture.facts.get("shown_orientation")
        if told is not None:
            return [str(letters) for letters in told]
        sources = self.making.sources
        shape = self.stored.pixels.shape[1:3]
        stated = sources.text("PatientOrientation").split("\\")
        same = all((header.get("Rows"), header.get("Columns")) == shape for header in sources.headers)
        agreed = all(sources.text("PatientOrientation", i).split("\\") == stated
                     for i in range(len(sources.headers)))  # fmt: skip
        return stated if same and agreed and len(stated) == 2 and all(stated) else None

    def _set_history(self, dataset: Dataset) -> None:
        job, name = self.making.job, self.making.output.name
        made = derivation(job.plan, name, job.provenance.operators, reshaped=False)
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        said = "; ".join(filter(None, (made.description, self.picture.title, self.stored.said)))
        dataset.DerivationDescription = said[:1024]
        if made.codes:
            dataset.DerivationCodeSequence = [code_item(code) for code in made.codes]
        if self.picture.title:
            dataset.ImageComments = self.picture.title[:10240]
        dataset.BurnedInAnnotation = self._burned_in()
        set_sources(dataset, self.making.sources)
        set_lossy(dataset, self.making.sources)

    def _burned_in(self) -> str:
        """What the operator knows, else what the sources say, else YES where they are screens as a rule."""
        known = self.picture.facts.get("burned_in")
        if known is not None:
            return "YES" if known in (True, "YES") else "NO"
        sources = self.making.sources
        stated = {sources.text("BurnedInAnnotation", i) for i in range(len(sources.headers))}
        if "YES" in stated or stated == {"NO"}:
            return "YES" if "YES" in stated else "NO"
        # On screens the name is as a rule part of the picture (PS3.15 E.3.1): NO has to be said by someone.
        return "YES" if _SCREENS.fullmatch(sources.sop_class) else "NO"

    def _set_device(self, dataset: Dataset) -> None:
        provenance = self.making.job.provenance
        dataset.ConversionType = "WSD"
        dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
        dataset.SecondaryCaptureDeviceManufacturerModelName = MANUFACTURER
        dataset.SecondaryCaptureDeviceSoftwareVersions = provenance.software[:64]
        if len(self.stored.pixels) == 1:  # SC Image is a module of the single-frame class first of all
            dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = (
                self.making.date,
                self.making.time,
            )

    def _set_pixels(self, dataset: Dataset) -> None:
        stored = self.stored
        pixels = stored.pixels
        frames, dataset.Rows, dataset.Columns = pixels.shape[:3]
        dataset.SamplesPerPixel = 3 if stored.photometric == "RGB" else 1
        dataset.PhotometricInterpretation = stored.photometric
        if stored.photometric == "RGB":
            dataset.PlanarConfiguration = 0
        bits = 8 * pixels.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
        if stored.photometric != "RGB":
            self._set_grey(dataset, several=frames > 1)
        data = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()
        dataset.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))

    def _set_grey(self, dataset: Dataset, *, several: bool) -> None:
        """Rescale, window and what the numbers mean; multi-frame captures always state them (C.8.6.3)."""
        stored, unit = self.stored, self.picture.unit
        identity = (stored.slope, stored.intercept) == ("1", "0")
        if several or not identity or unit.value != NO_UNITS.value:
            dataset.RescaleSlope, dataset.RescaleIntercept = stored.slope, stored.intercept
            dataset.RescaleType = "HU" if unit.value == "[hnsf'U]" else "US"
        if several:
            dataset.PresentationLUTShape = "IDENTITY"
        if stored.window:
            dataset.WindowCenter, dataset.WindowWidth = stored.window
            if not float(stored.slope).is_integer():  # LINEAR would show a width of 2 as 1 (C.11.2.1.2)
                dataset.VOILUTFunction = "LINEAR_EXACT"
        if unit.value != NO_UNITS.value and not stored.inverted:
            item = Dataset()
            item.LUTLabel = item.LUTExplanation = unit.meaning[:16]
            item.MeasurementUnitsCodeSequence = [code_item(unit)]
            tops = (0, (1 << dataset.BitsStored) - 1)
            item.add_new("RealWorldValueFirstValueMapped", "US", tops[0])
            item.add_new("RealWorldValueLastValueMapped", "US", tops[1])
            item.RealWorldValueSlope, item.RealWorldValueIntercept = (
                float(stored.slope),
                float(stored.intercept),
            )
            dataset.RealWorldValueMappingSequence = [item]

    def _set_spacing(self, dataset: Dataset) -> None:
        """Pixel Spacing is in the patient; Imager Pixel Spacing on the detector is no such claim (10.7.1.3).

        Nominal Scanned Pixel Spacing is of a digitised film or page (C.8.6.2), so never ours.
        """
        spacing = self.picture.spacing
        if spacing is None:
            return
        if self.picture.plane == "patient":
            dataset.PixelSpacing = decimals(spacing)
            return
        if self.picture.plane == "detector":
            dataset.ImagerPixelSpacing = decimals(spacing)
        if abs(spacing[0] / spacing[1] - 1) > 1e-3:  # proportions hold whatever the plane (C.7.6.3.1.7)
            dataset.PixelAspectRatio = [round(1e4 * spacing[0] / spacing[1]), 10000]

    def _set_frames(self, dataset: Dataset) -> None:
        """What leads from frame to frame: time where it is known, else the page number (C.7.6.6, C.8.6.4)."""
        frames, times = len(self.stored.pixels), self.picture.times
        dataset.NumberOfFrames = frames
        if times is not None and len(times) != frames:
            raise Broken(f"output {self.making.output.name}: {len(times)} times for {frames} frames")
        steps = np.diff(np.asarray(times, float)) if times is not None else np.zeros(0)
        if not steps.size or not (np.isfinite(steps).all() and steps.min() > 0):
            dataset.PageNumberVector = list(range(1, frames + 1))
            keyword = "PageNumberVector"
        elif np.ptp(steps) <= _EVEN_MS:
            dataset.FrameTime = decimal(round(float(steps.mean()), 6))
            keyword = "FrameTime"
        else:
            dataset.FrameTimeVector = decimals([0.0, *(round(float(step), 6) for step in steps)])
            keyword = "FrameTimeVector"
        dataset.FrameIncrementPointer = tag_for_keyword(keyword)
