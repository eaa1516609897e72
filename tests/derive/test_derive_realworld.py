"""Derived images say what their stored values mean, coded, whatever their class; a second opinion on each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from derive_material import HU, affine, complaints, ct_headers, job, volume
from pydicom import dcmread

from node.derive import pixels
from node.derive.realworld import mapping_item
from node.derive.sources import Sources
from node.derive.write import write
from node.operator import NO_UNITS, Code, Volume
from node.testing import sphere_volume, write_nm_tomo
from node.testing.running import run_rule

PLACE = affine((2.0, 0.7, 0.5))
SHAPE = (3, 8, 7)


@pytest.mark.parametrize("padded", [False, True])
def test_a_ct_says_its_hounsfield_units_in_ucum(tmp_path: Path, padded: bool) -> None:
    """The mapping gives back every measured value, and leaves the padding out of its range."""
    given = volume(SHAPE, PLACE)
    valid = np.ones(SHAPE, bool)
    valid[:, 0] = not padded
    given = replace(given, valid=valid if padded else None)
    products = write({"thick": given}, job("thick"), Sources(tuple(ct_headers(*SHAPE, PLACE))), tmp_path)
    for k, product in enumerate(products):
        ds = dcmread(tmp_path / product.path)
        (mapping,) = ds.RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == HU.value
        stored = ds.pixel_array.astype(float)
        real = stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        assert np.allclose(real[valid[k]], given.array[k][valid[k]], atol=0.5)
        low, high = mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped
        inside = (stored >= low) & (stored <= high)
        assert inside[valid[k]].all()
        assert not inside[~valid[k]].any()
        assert complaints(tmp_path / product.path) == set()


@pytest.mark.parametrize("unit", [NO_UNITS, Code("1", "UCUM", "Unity")])
def test_what_has_no_unit_has_no_mapping(tmp_path: Path, unit: Code) -> None:
    """Arbitrary intensities are not said to be anything."""
    given = replace(volume(SHAPE, PLACE), unit=unit)
    (product, *_) = write({"thick": given}, job("thick"), Sources(tuple(ct_headers(*SHAPE, PLACE))), tmp_path)
    assert "RealWorldValueMappingSequence" not in dcmread(tmp_path / product.path)


def test_a_quantity_is_named(tmp_path: Path) -> None:
    """What an operator says was measured stands beside the unit."""
    fraction = Code("FATFRACTION", "99PACSNODE", "Fat fraction")
    percent = Code("%", "UCUM", "percent")
    given = Volume(np.full(SHAPE, 12.5, np.float32), PLACE, percent, facts={"quantity": fraction})
    (product, *_) = write({"thick": given}, job("thick"), Sources(tuple(ct_headers(*SHAPE, PLACE))), tmp_path)
    (mapping,) = dcmread(tmp_path / product.path).RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == fraction.value


def test_spect_says_that_it_holds_counts(tmp_path: Path) -> None:
    """A slab of a reconstructed SPECT is one NM object in counts; dciodvfy finds nothing wrong with it."""
    (source,) = write_nm_tomo(
        tmp_path / "in",
        replace(sphere_volume(inside=900.0, outside=100.0), unit=Code("{counts}", "UCUM", "Counts")),
    )
    rule = tmp_path / "rule.yaml"
    rule.write_text(
        "rule: slab\npurpose: p\nowner: o\nwhen: {Modality: NM}\ndo:\n"
        "  - reformat: {plane: acquired, thickness: 12 mm}\n    as: slab\nsend: [{what: slab, to: PACS}]\n"
    )
    (made,) = run_rule(rule, [source], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "done", made.ended.reason
    (path,) = (tmp_path / "out").rglob("*.dcm")
    (mapping,) = dcmread(path).RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{counts}"
    assert complaints(path) <= complaints(source)


@pytest.mark.parametrize(
    ("unit", "label"),
    [("g/ml{SUVbw}", "SUVbw"), ("{counts}", "counts"), ("{counts}/s", "{counts}/s"), ("Bq/ml", "Bq/ml")],
)
def test_a_mapping_is_called_by_what_people_say(unit: str, label: str) -> None:
    """The annotation where it is the unit's end, else the whole unit."""
    item = mapping_item(pixels.Scale("1", "0", signed=True, padding=None), Code(unit, "UCUM", unit))
    assert label == item.LUTLabel
