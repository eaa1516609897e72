"""Measurements → Comprehensive 3D SR by TID 1500 (PS3.16), linked to images and segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded
from pydicom.uid import ExplicitVRLittleEndian

from node.derive import geometry
from node.derive.identity import CREATOR
from node.derive.making import MANUFACTURER, Making
from node.derive.segmentation import algorithm, coded, finished, stand_in
from node.derive.standard import CT, MR, PT
from node.operator import Mask, Measurement

_PROCEDURES = {  # CID 100
    CT: Coded("25045-6", "LN", "CT unspecified body region"),
    MR: Coded("25056-3", "LN", "MRI unspecified body region"),
    PT: Coded("44136-0", "LN", "PET unspecified body region"),
}
_ANY_PROCEDURE = Coded("363679005", "SCT", "Imaging procedure")
_ANATOMY = ("123037004", "SCT")
"""Category Anatomical Structure: only then is a segment's type also a finding site."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask that left as SEG in the same run, so that measurements can point at it."""

    mask: Mask
    dataset: Dataset
    output: str


def reports(
    making: Making, measurements: Sequence[Measurement], segments: Sequence[Segment]
) -> Iterator[Dataset]:
    """Write one report on regions that left as segments, one on all else; each with what there is of it.

    They are apart because TID 1500 readers decide once per report whether its groups are volumetric
    (TID 1411) or of whole images (TID 1501), PixelMed's validator among them.
    """
    masks = [segment.mask for segment in segments]
    segmented = [m for m in measurements if any(m.region is mask for mask in masks)]
    others = [m for m in measurements if not any(m.region is mask for mask in masks)]
    used = [segment for segment in segments if any(m.region is segment.mask for m in measurements)]
    for index, (kept, referenced) in enumerate(
        filter(lambda pair: pair[0], ((segmented, used), (others, []))), 1
    ):
        yield _report(making, kept, referenced, index)


def _report(
    making: Making, measurements: Sequence[Measurement], segments: Sequence[Segment], index: int
) -> Dataset:
    sources = making.sources
    images = [stand_in(making, i, plane) for i, plane in enumerate(sources.planes)]
    regions: dict[int, list[Measurement]] = {}
    for measurement in measurements:
        regions.setdefault(id(measurement.region), []).append(measurement)
    groups = [
        _group(making, number, group, segments, images) for number, group in enumerate(regions.values(), 1)
    ]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(making),
        procedure_reported=_PROCEDURES.get(sources.sop_class, _ANY_PROCEDURE),
        imaging_measurements=groups,
        title=Coded("126000", "DCM", "Imaging Measurement Report"),
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            Coded("en", "RFC5646", "English")
        ),
        referenced_images=[image for image in images if "ImagePositionPatient" in image] or None,
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=[*images, *(_evidence(segment.dataset) for segment in segments)],
        content=content,
        series_instance_uid=making.uid("series"),
        series_number=1,
        sop_instance_uid=making.uid("instance", index),
        instance_number=index,
        manufacturer=MANUFACTURER,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.ManufacturerModelName = MANUFACTURER
    made.SoftwareVersions = making.job.provenance.software
    return finished(making, made, index, ("Patient", "Study"), ("TimezoneOffsetFromUTC",))


def _evidence(dataset: Dataset) -> Dataset:
    item = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(item, keyword, str(dataset[keyword].value))
    return item


def _observer(making: Making) -> hd.sr.ObservationContext:
    provenance = making.job.provenance
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=CREATOR, name=provenance.device, manufacturer_name=MANUFACTURER, model_name=provenance.software
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=Coded("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )


def _group(
    making: Making,
    number: int,
    measurements: Sequence[Measurement],
    segments: Sequence[Segment],
    images: Sequence[Dataset],
) -> hd.sr.MeasurementsAndQualitativeEvaluations | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    region = measurements[0].region
    name, version = algorithm(making, making.output.name)
    segment = next((s for s in segments if s.mask is region), None)
    shared = {
        "measurements": [_measurement(measurement) for measurement in measurements],
        "algorithm_id": hd.sr.AlgorithmIdentification(name=name, version=version),
        "tracking_identifier": _tracking(making, number, region, segment),
        **_finding(region),
    }
    if segment is not None:
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_referenced(segment, images), **shared
        )
    shown = images if region is None else _shown(making, region, images)
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=image.SOPClassUID, referenced_sop_instance_uid=image.SOPInstanceUID
            )
            for image in shown
        ],
        **shared,
    )


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    return hd.sr.Measurement(
        name=coded(measurement.name),
        value=measurement.value,
        unit=coded(measurement.unit),
        derivation=coded(measurement.derivation) if measurement.derivation else None,
        method=coded(measurement.method) if measurement.method else None,
    )


def _tracking(
    making: Making, number: int, region: Mask | None, segment: Segment | None
) -> hd.sr.TrackingIdentifier:
    if segment is not None:
        described = segment.dataset.SegmentSequence[0]
        return hd.sr.TrackingIdentifier(uid=str(described.TrackingUID), identifier=str(described.TrackingID))
    label = region.label if region else making.output.name
    return hd.sr.TrackingIdentifier(uid=making.uid("tracking", number), identifier=label[:64])


def _finding(region: Mask | None) -> dict[str, object]:
    if region is None:
        return {}
    found: dict[str, object] = {
        "finding_type": coded(region.type),
        "finding_category": coded(region.category),
    }
    if (region.category.value, region.category.scheme) == _ANATOMY:
        found["finding_sites"] = [hd.sr.FindingSite(anatomic_location=coded(region.type))]
    return found


def _referenced(segment: Segment, images: Sequence[Dataset]) -> hd.sr.ReferencedSegment:
    return hd.sr.ReferencedSegment(
        sop_class_uid=str(segment.dataset.SOPClassUID),
        sop_instance_uid=str(segment.dataset.SOPInstanceUID),
        segment_number=1,
        source_series=hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
    )


def _shown(making: Making, region: Mask, images: Sequence[Dataset]) -> list[Dataset]:
    """Return the source images that the region's own slices touch."""
    planes = geometry.planes_of(region)
    sources = making.sources
    filled = np.flatnonzero(region.array.any(axis=(1, 2)))
    touched: set[int] = set()
    for k in filled:
        touched.update(
            geometry.contributors(planes[k], float(region.spacing[0]), sources.planes, sources.gap)
        )
    return [images[i] for i in sorted(touched)] or list(images)
