"""What kind of MR acquisition it was: said alike by single-frame and by enhanced headers."""

from __future__ import annotations

from typing import Any

import pytest
from volume_phantoms import item

from node.read.sequence import sequence_facts

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "spin echo": ({"ScanningSequence": "SE"}, {"echo": "spin"}),
    "spin echo EPI": ({"ScanningSequence": ["EP", "SE"]}, {"echo": "spin"}),
    "spoiled gradient echo": (
        {"ScanningSequence": "GR", "SequenceVariant": ["SK", "SP"]},
        {"echo": "gradient", "spoiled": "yes"},
    ),
    "steady state": (
        {"ScanningSequence": ["GR"], "SequenceVariant": ["SS", "SK"]},
        {"echo": "gradient", "spoiled": "no"},
    ),
    "echo planar says neither": ({"ScanningSequence": "EP"}, {}),
    "both": ({"ScanningSequence": ["SE", "GR"]}, {}),
    "enhanced spin": ({"EchoPulseSequence": "SPIN", "Spoiling": "NONE"}, {"echo": "spin", "spoiled": "no"}),
    "enhanced gradient": (
        {"EchoPulseSequence": "GRADIENT", "Spoiling": "RF", "MRAcquisitionType": "3D"},
        {"echo": "gradient", "spoiled": "yes", "acquisition_type": "3D"},
    ),
    "enhanced both": ({"EchoPulseSequence": "BOTH"}, {}),
    "a map": (
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        {"image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), "computed": "yes"},
    ),
    "a magnitude": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]},
        {"image_type": ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"), "component": "M"},
    ),
    "a phase": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE"]},
        {"image_type": ("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE"), "component": "P"},
    ),
    "a phase in words": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]},
        {"image_type": ("ORIGINAL", "PRIMARY", "PHASE MAP"), "component": "P"},
    ),
    "enhanced real": ({"ComplexImageComponent": "REAL"}, {"component": "R"}),
    "enhanced mixed": ({"ComplexImageComponent": "MIXED"}, {}),
    "nothing": ({}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_acquisition_is_said_in_one_way(name: str) -> None:
    """Classic and enhanced attributes give the same facts, and silence gives none."""
    said, facts = CASES[name]
    assert sequence_facts([item(**said)] * 2) == facts


def test_slices_that_differ_say_nothing() -> None:
    """A fact of a stack is one that all its slices share."""
    assert sequence_facts([item(ScanningSequence="SE"), item(ScanningSequence="GR")]) == {}
