"""Rules over headers of real scanners, read by the node's own reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from route_cases import verdict

from node.facts import Facts, gather
from node.read.header import arrival_of_file, read_header

SAMPLES = Path(os.environ.get("PACSNODE_SAMPLES", Path(__file__).parents[3] / "shared" / "samples"))


def series(folder: str) -> Facts:
    """The facts of a sample series."""
    if not (SAMPLES / folder).is_dir():
        pytest.skip(f"the sample images {folder} are not here (set PACSNODE_SAMPLES)")
    files = sorted(path for path in (SAMPLES / folder).rglob("*") if path.is_file())
    return gather([read_header(path, *arrival_of_file(path)).attributes for path in files])


@pytest.mark.parametrize(
    ("folder", "when", "outcome"),
    [
        (
            "CT/crlm-1004-chest-abdomen",
            "{slices: 8, SliceThickness: 5 mm, has_tilt: no, orientation: axial}",
            "yes",
        ),
        ("CT/siemens-gantry-tilt", "{has_tilt: yes}", "yes"),
        ("MR/philips-enhanced-dti", "{SliceThickness: 2.7 mm, slices: 8, frames: 32, instances: 1}", "yes"),
        ("MR/philips-enhanced-dti", "{b_value: {some: {at_least: 1000 s/mm2}}}", "yes"),
        ("MR/philips-enhanced-dti", "{b_value: {at_least: 1000 s/mm2}}", "undecided"),
        ("PET/qin-headneck-0139", "{Modality: PT}", "undecided"),
        ("PET/qin-headneck-0139", "{Modality: {some: PT}, PatientWeight: {at_least: 100 kg}}", "yes"),
        ("US/aloka-palette", "{slices: {at_least: 1}}", "no"),
    ],
)
def test_real_headers(folder: str, when: str, outcome: str) -> None:
    """Values of real classic and enhanced objects are found where a rule looks for them."""
    assert verdict(when, series(folder)).outcome == outcome
