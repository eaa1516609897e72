"""Segments that a report's numbers are of: those that left in the same run, and those that were received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset

from node.derive.making import Making
from node.operator import Mask, Measurement


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask that left as SEG in the same run, or came as one, so that measurements can point at it."""

    mask: Mask
    dataset: Dataset
    output: str
    number: int = 1
    """Segment Number."""


def received(
    making: Making, measurements: Sequence[Measurement], made: Sequence[Segment]
) -> Iterator[Segment]:
    """The regions of *measurements* that are segments of a source, unless they left as segments of ours."""
    whole = making.sources.together
    at = {
        whole.text("SOPInstanceUID", i): i
        for i, header in enumerate(whole.headers)
        if "SegmentSequence" in header
    }
    regions = {id(m.region): m.region for m in measurements if m.region is not None}
    for region in regions.values():
        if region.stored is None or any(segment.mask is region for segment in made):
            continue
        if region.stored.sop_uid in at:
            header = whole.headers[at[region.stored.sop_uid]]
            yield Segment(region, header, "", region.stored.number)


def tracked(making: Making, number: int, segment: Segment) -> hd.sr.TrackingIdentifier:
    """What the segment is tracked by; *number* makes an identifier where its object has none."""
    described = next(i for i in segment.dataset.SegmentSequence if i.SegmentNumber == segment.number)
    return hd.sr.TrackingIdentifier(
        uid=str(described.get("TrackingUID") or making.uid("tracking", number)),
        identifier=str(described.get("TrackingID") or segment.mask.label)[:64],
    )


def referenced(making: Making, segment: Segment) -> hd.sr.ReferencedSegment:
    """The reference of TID 1411 to it, with the series that it was drawn on."""
    stated = segment.dataset.get("ReferencedSeriesSequence") if segment.mask.stored else None
    of = str(stated[0].SeriesInstanceUID) if stated else making.sources.text("SeriesInstanceUID")
    return hd.sr.ReferencedSegment(
        sop_class_uid=str(segment.dataset.SOPClassUID),
        sop_instance_uid=str(segment.dataset.SOPInstanceUID),
        segment_number=segment.number,
        source_series=hd.sr.SourceSeriesForSegmentation(of),
    )
