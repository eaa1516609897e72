"""How derived MR images say their diffusion weighting, and maps how they were made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from node.derive.derivation import Derivation
from node.derive.parametric_map import definition
from node.derive.weighting import set_weighting
from node.operator import NO_UNITS, Code, Map, Volume


def header(**said: Any) -> Dataset:
    """A source's header."""
    ds = Dataset()
    for keyword, value in said.items():
        setattr(ds, keyword, value)
    return ds


def weighted(facts: dict[str, Any], *headers: Dataset) -> dict[str, Any]:
    """What is said of a volume with *facts* made of *headers*."""
    ds = Dataset()
    volume = Volume(np.zeros((1, 2, 2), np.float32), np.eye(4), NO_UNITS, facts=facts)
    set_weighting(ds, volume, headers or (header(),))
    said = {e.keyword: e.value for e in ds}
    return {k: list(v) if k == "DiffusionGradientOrientation" else v for k, v in said.items()}


X, Y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
CASES: dict[str, tuple[dict[str, Any], list[Dataset], dict[str, Any]]] = {
    "private b-value": ({"b_value": 800.0}, [header()], {"DiffusionBValue": 800.0}),
    "as the source": (
        {},
        [header(DiffusionBValue=500.0, DiffusionGradientOrientation=X)] * 2,
        {"DiffusionBValue": 500.0, "DiffusionGradientOrientation": X},
    ),
    "sources differ": ({}, [header(DiffusionBValue=0.0), header(DiffusionBValue=500.0)], {}),
    "a direction of its own": (
        {"b_value": 800.0, "directionality": "DIRECTIONAL", "gradient": (0.0, 1.0, 0.0)},
        [header(DiffusionGradientOrientation=X)],
        {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": Y},
    ),
    "a trace has none": (
        {"b_value": 800.0, "directionality": "ISOTROPIC"},
        [header(DiffusionBValue=800.0, DiffusionGradientOrientation=X)],
        {"DiffusionBValue": 800.0, "DiffusionDirectionality": "ISOTROPIC"},
    ),
    "GE says 0 of every image": ({"b_value": 0.0}, [header()], {}),
    "unweighted among weighted": (
        {"b_value": 0.0, "directionality": "NONE"},
        [header()],
        {"DiffusionBValue": 0.0, "DiffusionDirectionality": "NONE"},
    ),
    "no diffusion": ({}, [header()], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_weighting_is_that_of_the_volume(name: str) -> None:
    """What the volume says holds; else what all sources say alike; a trace never keeps a direction."""
    facts, headers, expected = CASES[name]
    assert weighted(facts, *headers) == expected


def test_an_operator_adds_a_sentence() -> None:
    """Derivation Description: the steps, then what the operator says; 1024 characters at most."""
    made = Derivation("adc 1.0 (least_b=100)", (), "OTHER")
    assert made.told("b 100, 800 s/mm2").description == "adc 1.0 (least_b=100); b 100, 800 s/mm2"
    assert made.told("") == made
    assert len(made.told("x" * 2000).description) == 1024


def test_a_map_says_its_method_in_codes() -> None:
    """Items of CID 9000 in the Content Item Macro: a code, or a number and its unit in the item itself."""
    method = (
        Code("370129005", "SCT", "Measurement Method"),
        Code("113250", "DCM", "Mono-exponential diffusion model"),
    )
    b_value = Code("113240", "DCM", "Source image diffusion b-value"), (998.6, Code("s/mm2", "UCUM", "s/mm2"))
    made = Map(
        np.zeros((1, 2, 2), np.float32),
        np.eye(4),
        Code("113041", "DCM", "Apparent Diffusion Coefficient"),
        Code("um2/s", "UCUM", "um2/s"),
        facts={"definition": (method, b_value)},
    )
    first, second = definition(made)
    assert (first.ValueType, first.ConceptNameCodeSequence[0].CodeValue) == ("CODE", "370129005")
    assert first.ConceptCodeSequence[0].CodeValue == "113250"
    assert (second.ValueType, second.NumericValue) == ("NUMERIC", 998.6)
    assert second.MeasurementUnitsCodeSequence[0].CodeValue == "s/mm2"
