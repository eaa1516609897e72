"""Measurements → Comprehensive 3D SR by TID 1500 (PS3.16), linked to images, waveforms and segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Coded
from pydicom.uid import ExplicitVRLittleEndian

from node.derive import geometry
from node.derive.identity import CREATOR
from node.derive.image_library import OF_MEASUREMENT, evidence, image, library
from node.derive.issued import evidence_of
from node.derive.making import MANUFACTURER, Making
from node.derive.multiframe import algorithm, coded, finished, nameless
from node.derive.references import is_image, items
from node.derive.remarks import evaluations, remarks_of
from node.derive.segments import Segment, received, referenced, tracked
from node.derive.sources import Sources
from node.derive.standard import roots
from node.operator import Mask, Measurement, Report
from node.words import legible

_PROCEDURES = {  # by Modality; of CID 100 in its edition of 2019, which validators hold against extensions
    "CT": Coded("25045-6", "LN", "CT unspecified body region"),
    "MR": Coded("25056-3", "LN", "MRI unspecified body region"),
    "NM": Coded("49118-3", "LN", "NM unspecified body region"),
    "PT": Coded("44136-0", "LN", "PET unspecified body region"),
}
_ANY_PROCEDURE = Coded("363679005", "SCT", "Imaging procedure")
_SOURCE = Coded("260753009", "SCT", "Source")
_IMAGING_MEASUREMENTS, _MEASUREMENT_GROUP = "126010", "125007"
_PER_REPORT = 1000
"""Regions of one report are numbered from a multiple of this, so that no two of an output are tracked as one."""
_ANATOMY = (("91723000", "SCT"), ("123037004", "SCT"))
"""Category Anatomical Structure, in this edition of CID 7150 and in earlier ones: its types are finding sites, too."""


def reports(making: Making, report: Report, segments: Sequence[Segment]) -> Iterator[Dataset]:
    """Write one report on regions that are segments, one on all else; each with what there is of it.

    They are apart because TID 1500 readers decide once per report whether its groups are volumetric
    (TID 1411) or of whole images (TID 1501), PixelMed's validator among them. What is remarked stands in both.
    """
    measurements = report.measurements
    segments = [*segments, *received(making, measurements, segments)]
    masks = [segment.mask for segment in segments]
    segmented = [m for m in measurements if any(m.region is mask for mask in masks)]
    others = [m for m in measurements if not any(m.region is mask for mask in masks)]
    used = [segment for segment in segments if any(m.region is segment.mask for m in measurements)]
    kept = [pair for pair in ((segmented, used), (others, [])) if pair[0]] or [([], [])]
    for index, (numbers, pointed_at) in enumerate(kept, 1):
        yield _report(making, Report(tuple(numbers), report.remarks), pointed_at, index)


def _report(making: Making, report: Report, segments: Sequence[Segment], index: int) -> Dataset:
    regions: dict[object, list[Measurement]] = {}
    for measurement in report.measurements:
        key = (id(measurement.region), measurement.site, measurement.laterality)
        regions.setdefault(key, []).append(measurement)
    first = _PER_REPORT * (index - 1) + 1
    groups = [_group(making, number, group, segments) for number, group in enumerate(regions.values(), first)]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(making),
        procedure_reported=_PROCEDURES.get(making.sources.text("Modality"), _ANY_PROCEDURE),
        imaging_measurements=groups or [hd.sr.MeasurementsAndQualitativeEvaluations(_nothing(making))],
        title=Coded("126000", "DCM", "Imaging Measurement Report"),
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            Coded("en", "RFC5646", "English")
        ),
    )
    segmentations = _evidence_of(segments)
    made = hd.sr.Comprehensive3DSR(
        evidence=[_stand_in(making.sources), *segmentations],
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
    if not groups:
        _hold(made, [item for item in made.ContentSequence if _concept(item) != _IMAGING_MEASUREMENTS])
    _say_what_it_replaces(making, made)
    _complete(making, made, [group[0].region for group in regions.values()], segments)
    said = evaluations(remarks_of(making, report), making.job.provenance.notice)
    _hold(made, [*made.ContentSequence, *said])
    return finished(making, made, index, ("Patient", "Study"), ("TimezoneOffsetFromUTC",))


def _say_what_it_replaces(making: Making, made: Dataset) -> None:
    """Name the reports of the same output that this one takes the place of (PS3.3 C.17.2)."""
    replaced = [one for one in making.job.predecessors if one.output == making.output.name]
    if not replaced:
        return
    made.PredecessorDocumentsSequence = evidence_of(replaced)
    uids = " and ".join(one.sop_uid for one in replaced)
    said = f"This report was made anew and replaces report {uids}, which is not valid any more."
    comment = hd.sr.TextContentItem(Coded("121106", "DCM", "Comment"), said, "CONTAINS")
    _hold(made, [*made.ContentSequence, comment])


def _complete(
    making: Making, made: Dataset, regions: Sequence[Mask | None], segments: Sequence[Segment]
) -> None:
    """Add what names every source: evidence, image library, and the sources of each group without segment."""
    made.CurrentRequestedProcedureEvidenceSequence = [evidence(making, _evidence_of(segments))]
    made.pop("PertinentOtherEvidenceSequence", None)
    masks = [segment.mask for segment in segments]
    for item, region in zip(_groups_of(made) if regions else (), regions, strict=True):
        segmented = any(region is mask for mask in masks)
        used = [] if segmented else [*_images(making, region), *_waveforms(making, region)]
        _hold(item, [*item.ContentSequence, *used])
    images = library(making)
    if images is not None:  # before the measurements, as TID 1500 orders its rows
        content = list(made.ContentSequence)
        before = [*(_concept(item) for item in content), _IMAGING_MEASUREMENTS]
        at = min(before.index(_IMAGING_MEASUREMENTS), len(content))
        _hold(made, [*content[:at], images, *content[at:]])


def _hold(item: Dataset, content: list[Dataset]) -> None:
    """Give *item* its content; highdicom's own sequences take nothing but items of its classes."""
    item.add(DataElement(tag_for_keyword("ContentSequence"), "SQ", content))


def _stand_in(sources: Sources) -> Dataset:
    """The first source, reduced to what highdicom reads, so that bad text in a header cannot make it fail."""
    item = nameless()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
        setattr(item, keyword, sources.text(keyword))
    return item


def _evidence(dataset: Dataset) -> Dataset:
    item = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(item, keyword, str(dataset[keyword].value))
    return item


def _evidence_of(segments: Sequence[Segment]) -> list[Dataset]:
    """The segmentation objects, each once."""
    objects = {str(segment.dataset.SOPInstanceUID): segment.dataset for segment in segments}
    return [_evidence(dataset) for dataset in objects.values()]


def _nothing(making: Making) -> hd.sr.TrackingIdentifier:
    """What stands where highdicom insists on a measurement and the report has none; it is taken out again."""
    return hd.sr.TrackingIdentifier(uid=making.uid("tracking", 1), identifier=making.output.name[:64])


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
    making: Making, number: int, measurements: Sequence[Measurement], segments: Sequence[Segment]
) -> hd.sr.MeasurementsAndQualitativeEvaluations | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    first = measurements[0]
    region = first.region
    name, version = algorithm(making, making.output.name)
    segment = next((s for s in segments if s.mask is region), None)
    shared = {
        "measurements": [_measurement(measurement) for measurement in measurements],
        "algorithm_id": hd.sr.AlgorithmIdentification(name=name, version=version),
        "tracking_identifier": _tracking(making, number, first, segment),
        **_finding(first),
    }
    if segment is not None:
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=referenced(making, segment), **shared
        )
    return hd.sr.MeasurementsAndQualitativeEvaluations(**shared)


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    made = hd.sr.Measurement(
        name=coded(measurement.name),
        value=measurement.value,
        unit=coded(measurement.unit),
        derivation=coded(measurement.derivation) if measurement.derivation else None,
        method=coded(measurement.method) if measurement.method else None,
    )
    if isinstance(measurement.value, float):  # all of it is in Floating Point Value beside it (PS3.3 C.18.1)
        made[0].MeasuredValueSequence[0].NumericValue = legible(measurement.value)
    return made


def _tracking(
    making: Making, number: int, first: Measurement, segment: Segment | None
) -> hd.sr.TrackingIdentifier:
    if segment is not None:
        return tracked(making, number, segment)
    place = " ".join(code.meaning for code in (first.laterality, first.site) if code)
    label = first.region.label if first.region else place or making.output.name
    return hd.sr.TrackingIdentifier(uid=making.uid("tracking", number), identifier=label[:64])


def _finding(first: Measurement) -> dict[str, object]:
    """Finding, its category and its site, as far as the region or the measurement says them."""
    region, found = first.region, dict[str, object]()
    anatomy = region is not None and (region.category.value, region.category.scheme) in _ANATOMY
    if region is not None:
        found |= {"finding_type": coded(region.type), "finding_category": coded(region.category)}
    site = first.site or (region.type if region is not None and anatomy else None)
    laterality = first.laterality or (region.laterality if region is not None else None)
    if site is not None:
        found["finding_sites"] = [
            hd.sr.FindingSite(
                anatomic_location=coded(site), laterality=coded(laterality) if laterality else None
            )
        ]
    return found


def _images(making: Making, region: Mask | None) -> list[Dataset]:
    """The source images that the region's own slices touch, all for none; each object once, by frame."""
    whole = making.sources.together
    every = range(len(whole.headers))
    used = every if region is None else _touched(making, region) or every
    return [image(item, OF_MEASUREMENT) for item in items(whole, [i for i in used if is_image(whole, i)])]


def _waveforms(making: Making, region: Mask | None) -> list[Dataset]:
    """The recordings that numbers without region are of (TID 1501 row 10f)."""
    whole = making.sources.together
    recordings = [
        i for i in range(len(whole.headers)) if "WaveformSequence" in roots(whole.text("SOPClassUID", i))
    ]
    return [
        hd.sr.WaveformContentItem(
            _SOURCE, item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, None, "CONTAINS"
        )
        for item in (items(whole, recordings) if region is None else ())
    ]


def _groups_of(made: Dataset) -> list[Dataset]:
    """The Measurement Group containers of a report; highdicom's own classes know no waveform to put in them."""
    found = next(item for item in made.ContentSequence if _concept(item) == _IMAGING_MEASUREMENTS)
    return [item for item in found.ContentSequence if _concept(item) == _MEASUREMENT_GROUP]


def _concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def _touched(making: Making, region: Mask) -> list[int]:
    planes = geometry.planes_of(region)
    sources = making.sources
    touched: set[int] = set()
    for k in np.flatnonzero(region.array.any(axis=(1, 2))):
        touched.update(
            geometry.contributors(planes[k], float(region.spacing[0]), sources.planes, sources.gap)
        )
    return sorted(touched)
