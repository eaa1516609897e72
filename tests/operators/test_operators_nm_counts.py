"""Counts and count rates of a scan, rows without counts, and a header that promises something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.operator import Picture, Refused, Report
from node.operators.nm.counts import count_qa, empty_lines
from node.testing import flood_frames, kidney_frames, lung_frames, nuclear_picture, run_operator
from node.testing.nuclear import RENOGRAM


def values(report: Report, site: str) -> dict[str, float]:
    """Name and derivation → value, of one site."""
    return {
        f"{m.name.meaning} {m.derivation.meaning if m.derivation else ''}".strip(): m.value
        for m in report.measurements
        if m.site is not None and m.site.meaning.startswith(site)
    }


def test_each_view_has_its_counts_and_rate() -> None:
    """Total, rate over 300 s and highest pixel of both views, and of both together: numpy's sums."""
    frames = lung_frames()
    report = run_operator(count_qa, nuclear_picture(frames, ("anterior", "posterior")))
    front = values(report, "Frame 1: anterior projection, head 1")
    assert front["Nuclear Medicine Projection Activity Total"] == frames[0].sum()
    assert front["Count rate"] == pytest.approx(frames[0].sum() / 300)
    assert front["Nuclear Medicine Projection Activity Maximum"] == frames[0].max()
    assert front["Rows and columns without counts inside the image"] == 12  # the columns between the lungs
    both = values(report, "All frames of the image")
    assert both["Nuclear Medicine Projection Activity Total"] == frames.sum()
    assert "columns 59, 60, 61" in " ".join(remark.text for remark in report.remarks)


def test_many_frames_are_counted_together() -> None:
    """A renogram of 174 frames has one group: the highest and the mean count rate among it."""
    frames = kidney_frames()
    report = count_qa(nuclear_picture(frames, ("posterior",), phases=RENOGRAM))
    assert {m.site.meaning for m in report.measurements if m.site} == {"All frames of the image"}
    assert "All frames of the image: 174." in [remark.text for remark in report.remarks]
    lasts = np.repeat([1.0, 10.0], [60, 114])
    rates = frames.sum(axis=(1, 2)) / lasts
    found = values(report, "All")
    assert found["Count rate Maximum"] == pytest.approx(rates.max())
    assert found["Count rate Mean"] == pytest.approx(rates.mean())


def test_a_dead_row_is_found_and_the_dark_rim_is_not() -> None:
    """A row and two columns without counts inside the field are named, counted from 1."""
    frame = flood_frames(seed=None)[0]
    frame[20], frame[:, 30:32] = 0, 0
    assert empty_lines(frame) == ([21], [31, 32])
    assert empty_lines(np.zeros((4, 4))) == ([], [])
    report = count_qa(nuclear_picture(frame[None]))
    said = " ".join(remark.text for remark in report.remarks)
    assert "row 21 held no counts" in said
    assert "columns 31, 32 held no counts" in said


def test_header_and_pixels_are_compared() -> None:
    """Counts Accumulated that differ from the sum, or are absent, and a full pixel are said."""
    picture = nuclear_picture(flood_frames())

    def said(changed: Picture) -> str:
        return " ".join(remark.text for remark in count_qa(changed).remarks)

    assert said(picture) == ""
    wrong = replace(picture, facts={**picture.facts, "counts_accumulated": 17.0})
    assert f"add up to {picture.array.sum(dtype=float):.0f}; the image states 17 Counts" in said(wrong)
    absent = {k: v for k, v in picture.facts.items() if k != "counts_accumulated"}
    assert "does not state its Counts Accumulated" in said(replace(picture, facts=absent))
    full = replace(picture, array=np.minimum(picture.array, 4095), facts={**absent, "bits_stored": 12.0})
    assert "A pixel holds 4095, the largest value of 12 bits" in said(full)


def test_without_durations_there_is_no_rate() -> None:
    """The rest is reported, and a sentence says what is missing."""
    picture = nuclear_picture(flood_frames())
    bare = replace(picture, facts={k: v for k, v in picture.facts.items() if k != "frame_durations"})
    report = count_qa(bare)
    assert "Count rate" not in values(report, "Frame 1")
    assert any("No count rate" in remark.text for remark in report.remarks)


def test_colours_are_no_counts() -> None:
    """A screenshot has no counts."""
    with pytest.raises(Refused, match="in colour"):
        run_operator(count_qa, Picture(np.zeros((1, 4, 4, 3), np.uint8)))
