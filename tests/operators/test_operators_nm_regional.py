"""Relative uptake of regions of a SPECT: means by hand, against the region that the rule names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.operator import Code, Mask, Refused, Report, Segments, Volume
from node.operators.nm.regional import uptake_ratios
from node.testing import Grid, ball_mask, run_operator, sphere_volume

GRID = Grid((20, 24, 24), (4.0, 4.0, 4.0))
COUNTS = Code("{counts}", "UCUM", "Counts")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
FRAME = {"frame_of_reference": "1.2"}
STRIATUM = Code("361466000", "SCT", "Corpus striatum")


def brain() -> tuple[Volume, Segments]:
    """Striata of 240 and 150 counts in a brain of 60, and three segments: both, and a reference."""
    base = sphere_volume(GRID, radius=36, inside=60, outside=0, unit=COUNTS)
    array = base.array.copy()
    masks = []
    for side, x, value in ((LEFT, 14.0, 240), (RIGHT, -14.0, 150)):
        mask = ball_mask(
            base, 9, (x, 0.0, 0.0), label=f"{side.meaning} striatum", type=STRIATUM, laterality=side
        )
        array[mask.array] = value
        masks.append(mask)
    masks.append(
        ball_mask(base, 9, (0.0, 22.0, 0.0), label="Reference", type=Code("1", "99T", "Reference region"))
    )
    return replace(base, array=array, facts=FRAME), Segments(tuple(masks), FRAME)


def ratios(report: Report, what: str) -> dict[str, float]:
    """Label → value of one quantity."""
    return {m.region.label: m.value for m in report.measurements if m.name.meaning == what and m.region}


def test_ratios_are_of_means() -> None:
    """240 / 60 and 150 / 60, and binding ratios one less; the reference has its mean alone."""
    report = run_operator(uptake_ratios, *brain(), reference="Reference")
    assert ratios(report, "Relative uptake, mean of voxels") == {"Left striatum": 4.0, "Right striatum": 2.5}
    assert ratios(report, "Specific binding ratio") == {"Left striatum": 3.0, "Right striatum": 1.5}
    means = ratios(report, "Nuclear Medicine Tomographic Activity")
    assert means == {"Left striatum": 240.0, "Right striatum": 150.0, "Reference": 60.0}
    assert report.remarks[-1].text == "Ratios are of mean values, against Reference."


def test_what_was_not_measured_does_not_count() -> None:
    """Voxels that are padding change no mean; a region that is all padding, or outside, is left out with a sentence."""
    volume, segments = brain()
    valid = np.ones(volume.array.shape, bool)
    valid[:, :, :12] = False  # the right half
    holed = replace(volume, valid=valid, array=np.where(valid, volume.array, 0))
    far = replace(segments.masks[0], affine=segments.masks[0].affine + np.eye(4, k=3) * 1e4, label="Far")
    report = uptake_ratios(holed, replace(segments, masks=(*segments.masks, far)), reference="Reference")
    assert ratios(report, "Relative uptake, mean of voxels") == {"Left striatum": 4.0}
    said = " ".join(remark.text for remark in report.remarks)
    assert "Nothing was measured in Right striatum." in said
    assert "Nothing was measured in Far: nothing of the segment Far lies in the image." in said


@pytest.mark.parametrize(
    ("unit", "keep", "reference", "words"),
    [
        ("1", 3, "Reference", "need counts or activity; the volume is in 1"),
        ("{counts}", 3, "Cerebellum", "no segment is called Cerebellum"),
        ("{counts}", 1, "Left striatum", "no region beside the reference"),
    ],
)
def test_ratios_without_sense_are_refused(unit: str, keep: int, reference: str, words: str) -> None:
    """Arbitrary units, a reference that is not there, and nothing to compare it with."""
    volume, segments = brain()
    volume, segments = (
        replace(volume, unit=Code(unit, "UCUM", unit)),
        replace(segments, masks=segments.masks[:keep]),
    )
    with pytest.raises(Refused, match=words):
        run_operator(uptake_ratios, volume, segments, reference=reference)


def test_a_reference_without_counts_is_refused() -> None:
    """Nothing is divided by 0."""
    volume, segments = brain()
    empty: Mask = segments.masks[2]
    dark = replace(volume, array=np.where(empty.array, 0, volume.array))
    with pytest.raises(Refused, match="has a mean of 0"):
        uptake_ratios(dark, segments, reference="Reference")
