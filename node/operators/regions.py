"""Statistics of every region of a segmentation, under the regions' own names."""

from __future__ import annotations

from dataclasses import replace

from node.operator import Measurement, Refused, Remark, Report, Segments, Volume
from node.operators.region import brought, told_apart
from node.operators.statistics import numbers_of


def region_statistics(volume: Volume, segments: Segments) -> Report:
    """Measure volume, mean, standard deviation, minimum, maximum and median in every segment.

    The numbers are those of `statistics`; a segment on another grid is brought onto the volume's as `region` does it.
    Where several have one label, their number is put behind it. Of a segment that is empty, or lies where nothing was
    measured, a sentence says so; one more says how the values were made where an earlier step told it (an ADC's
    b-values).

    Raises Refused where none of the segments could be measured.
    """
    found: list[Measurement] = []
    made = str(volume.facts.get("description", ""))
    remarks = [Remark(f"The values measured: {made}.")] if made else []
    for mask in told_apart(segments):
        try:
            there = brought(volume, segments, mask)
            found += [replace(n, region=there.region) for n in numbers_of(volume, there.mask)]
            remarks += there.remarks
        except Refused as refusal:
            remarks.append(Remark(f"Nothing was measured in {mask.label}: {refusal}.", missing=True))
    if not found:
        said = " ".join(remark.text for remark in remarks)
        raise Refused(f"no region could be measured. {said or 'The segmentation holds no segment.'}")
    return Report(tuple(found), tuple(remarks))
