"""Segmentation and statistics against analytic phantoms and a real chest CT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.sr.codedict import codes
from scipy import ndimage

from node.model import Code
from node.operator import Mask, Refused, Volume, affine_of
from node.operators.segment import _opened, segment_body, segment_threshold
from node.operators.statistics import statistics

SAMPLES = Path(os.environ.get("PACSNODE_SAMPLES", Path(__file__).parents[3] / "shared" / "samples"))
HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
ONE = Code("1", "UCUM", "no units")
AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])


def volume(
    array: Any, spacing: tuple[float, float, float] = (1, 1, 1), unit: Code = HU, **more: Any
) -> Volume:
    """*array* as an axial volume at the origin."""
    facts = {"modality": "CT" if unit == HU else "MR"}
    affine = affine_of(np.zeros(3), AXIAL, np.array(spacing))
    return Volume(np.asarray(array, np.float32), affine, unit, facts=facts, **more)


def ball(
    shape: tuple[int, int, int], centre: tuple[float, ...], radius: float, spacing: Any = (1, 1, 1)
) -> Any:
    """Voxels whose centre lies within *radius* mm of *centre* (voxel indices)."""
    grid = np.indices(shape).T * np.array(spacing) - np.array(centre) * np.array(spacing)
    return (np.linalg.norm(grid, axis=-1) <= radius).T


def test_a_ball_has_the_volume_of_a_ball() -> None:
    """A ball of 20 mm radius measures 4/3·π·r³ within 0.5 %.

    Counting centres errs by the voxels at the surface at random: about sqrt(4πr²/v²ᐟ³) of them, 2e-3 of
    the volume on this grid (1.5 x 0.8 x 0.8 mm).
    """
    spacing = (1.5, 0.8, 0.8)
    inside = ball((31, 61, 61), (15, 30, 30), 20, spacing)
    source = volume(np.where(inside, 60, -1000), spacing)
    mask = segment_threshold(source, at_least=0)
    found = {(m.derivation or m.name).meaning: m.value for m in statistics(source, mask).measurements}
    assert found["Volume"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=5e-3)
    assert found["Mean"] == found["Minimum"] == found["Maximum"] == found["Median"] == 60
    assert found["Standard Deviation"] == 0


ADC = Code("113041", "DCM", "Apparent Diffusion Coefficient")
PERFUSION = Code("ml/(100.ml).s-1", "UCUM", "ml/100ml/s")


@pytest.mark.parametrize(
    ("unit", "facts", "name"),
    [
        (HU, {"modality": "CT"}, "112031"),
        (ONE, {"modality": "MR"}, "110852"),
        (Code("um2/s", "UCUM", "um2/s"), {"modality": "MR", "quantity": ADC}, "113041"),
        (Code("um2/s", "UCUM", "um2/s"), {"modality": "MR"}, "VOXELVALUE"),
        (PERFUSION, {"modality": "CT"}, "VOXELVALUE"),
        (Code("%", "UCUM", "percent"), {"modality": "PT"}, "VOXELVALUE"),
    ],
)
def test_a_mean_is_named_for_what_it_is(unit: Code, facts: dict[str, Any], name: str) -> None:
    """The maker's quantity first; a diffusion or perfusion value is never called a signal intensity."""
    plain = volume(np.ones((1, 2, 2)))
    source = Volume(plain.array, plain.affine, unit, facts=facts)
    found = statistics(source, segment_threshold(source, at_least=1)).measurements
    assert {m.name.value for m in found if m.derivation} == {name}
    assert {m.unit for m in found if m.derivation} == {unit}


def test_threshold_bounds_belong_to_it() -> None:
    """Both bounds are included; one voxel beyond either is out, and padding never counts."""
    valid = np.ones((1, 1, 5), bool)
    valid[0, 0, 3] = False
    source = volume([[[-11, -10, 0, 5, 10]]], valid=valid)
    mask = segment_threshold(source, at_least=-10, at_most=10, label="Fat")
    assert mask.array.tolist() == [[[False, True, True, False, True]]]
    assert (mask.label, mask.description) == ("Fat", "Threshold: at least -10 and at most 10 [hnsf'U]")


def test_an_empty_threshold_is_refused() -> None:
    """A range that no voxel is in gives a sentence, not an empty segmentation."""
    with pytest.raises(Refused, match=r"no measured voxel is at least 500 \[hnsf'U\]"):
        segment_threshold(volume(np.zeros((2, 2, 2))), at_least=500)


def torso(shape: tuple[int, int, int] = (6, 120, 140)) -> tuple[Any, Any]:
    """An elliptic body with two lungs, and a curved table 3 mm thick that touches it; (HU, truth)."""
    j, i = np.mgrid[: shape[1], : shape[2]]
    body = ((i - 70) / 55) ** 2 + ((j - 55) / 35) ** 2 <= 1
    lungs = (((i - 45) / 16) ** 2 + ((j - 55) / 22) ** 2 <= 1) | (
        ((i - 95) / 16) ** 2 + ((j - 55) / 22) ** 2 <= 1
    )
    table = (j >= 91) & (j < 94) & (i > 5) & (i < 135)
    hu = np.full(shape[1:], -1000.0)
    hu[table], hu[body], hu[lungs] = 200, 40, -850
    return np.repeat(hu[None], shape[0], axis=0), np.repeat(body[None], shape[0], axis=0)


def test_the_body_has_its_lungs_and_not_the_table() -> None:
    """The ellipse with both lungs is found; of the touching table only what is within 4 mm of the skin."""
    hu, truth = torso()
    mask = segment_body(volume(hu))
    overlap = 2 * np.count_nonzero(mask.array & truth) / (mask.array.sum() + truth.sum())
    assert overlap > 0.99
    assert mask.array[:, 55, 45].all()
    assert not mask.array[:, 92, 20].any()


def test_thin_ears_stay_on_the_body() -> None:
    """A 3 mm fold on the skin, lost to the opening, is given back as far as the opening's radius."""
    hu, _ = torso()
    hu[:, 17:20, 69:72] = 40
    assert segment_body(volume(hu)).array[:, 18, 70].all()


def test_mr_finds_its_own_level() -> None:
    """Without a unit the level is Otsu's, between background noise and tissue, a bright vessel aside."""
    rng = np.random.default_rng(7)
    _, truth = torso()
    signal = np.where(truth, 400, 10) + rng.normal(0, 8, truth.shape)
    signal[:, 50:53, 60:63] = 9000
    mask = segment_body(volume(signal, unit=ONE))
    assert np.count_nonzero(mask.array ^ truth) / truth.sum() < 0.01
    assert "Otsu" in mask.description


@pytest.mark.parametrize(("unit", "value"), [(HU, -1000), (ONE, 5)])
def test_no_body_is_refused(unit: Code, value: float) -> None:
    """Air alone, or one value throughout, is refused in words."""
    with pytest.raises(Refused):
        segment_body(volume(np.full((3, 20, 20), value), unit=unit))


def test_category_and_type_are_in_their_context_groups() -> None:
    """Segment codes are those of CID 7150 (category) and CID 7151 (type), meaning included."""
    for mask in (segment_threshold(volume(torso()[0]), at_least=0), segment_body(volume(torso()[0]))):
        categories = {(c.value, c.meaning) for c in map(codes.cid7150.__getattr__, codes.cid7150.dir())}
        types = {(c.value, c.meaning) for c in map(codes.cid7151.__getattr__, codes.cid7151.dir())}
        assert (mask.category.value, mask.category.meaning) in categories
        assert (mask.type.value, mask.type.meaning) in types


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample images in {SAMPLES}")
def test_a_real_chest_is_about_as_large_as_a_chest() -> None:
    """On the real CT the body fills 25-40 % of every slice, holds lung (-900 HU) and not the table."""
    from node.read.volume import load

    folder = SAMPLES / "CT/crlm-1004-chest-abdomen"
    source = load(sorted(p for p in folder.rglob("*") if p.is_file())).value
    mask = segment_body(source)
    share = mask.array.mean(axis=(1, 2))
    assert share.min() > 0.25
    assert share.max() < 0.40
    assert source.array[mask.array].min() < -900
    assert not mask.array[:, 450:, :].any()  # the table


def test_statistics_of_known_numbers() -> None:
    """1, 2, 3, 6 have mean 3, median 2.5, population deviation sqrt(3.5), with TID 1419's codes and units."""
    source = volume([[[1, 2], [3, 6]]], (2, 0.5, 0.5))
    mask = Mask(np.ones((1, 2, 2), bool), source.affine, "All", *[Code("1", "99T", "t")] * 2)
    found = {(m.derivation or m.name).value: m for m in statistics(source, mask).measurements}
    expected = {"118565006": 2, "373098007": 3, "386136009": 3.5**0.5, "255605001": 1, "56851009": 6}
    assert {k: found[k].value for k in expected} == pytest.approx(expected)
    assert found["373099004"].value == 2.5
    assert found["118565006"].unit.value == "mm3"
    assert found["373098007"].name.value == "112031"
    assert found["373098007"].unit.value == "[hnsf'U]"
    assert all(m.region is mask for m in found.values())
    assert len(found) == 6


def test_derivations_and_quantities_are_in_their_context_groups() -> None:
    """Derivation codes are those of CID 7464, quantities those of CID 7180, meaning included."""
    derivations = {(c.value, c.meaning) for c in map(codes.cid7464.__getattr__, codes.cid7464.dir())}
    quantities = {(c.value, c.meaning) for c in map(codes.cid7180.__getattr__, codes.cid7180.dir())}
    units = [
        HU,
        ONE,
        *(Code(c.value, "UCUM", c.meaning) for c in map(codes.cid85.__getattr__, codes.cid85.dir())),
    ]
    for unit in units:
        source = volume(np.ones((1, 2, 2)), unit=unit)
        mask = Mask(np.ones((1, 2, 2), bool), source.affine, "All", *[Code("1", "99T", "t")] * 2)
        for m in statistics(source, mask).measurements[1:]:
            assert m.derivation is not None
            assert (m.derivation.value, m.derivation.meaning) in derivations
            assert (m.name.value, m.name.meaning) in quantities
            if unit.value.startswith(("g/ml", "cm2/ml")):
                assert m.name.meaning == unit.value.split("{")[1][:-1]


def test_padding_is_left_out_and_counted() -> None:
    """Two of four voxels are padding: the mean is that of the others, and their number is told."""
    valid = np.array([[[True, False], [False, True]]])
    source = volume([[[10, -3024], [-3024, 20]]], valid=valid)
    mask = Mask(np.ones((1, 2, 2), bool), source.affine, "All", *[Code("1", "99T", "t")] * 2)
    found = statistics(source, mask).measurements
    assert found[0].value == 4
    assert found[1].value == 15
    assert (found[-1].name.value, found[-1].value) == ("NOTMEASURED", 2)


@pytest.mark.parametrize("case", ["empty", "other grid", "other shape", "all padding"])
def test_a_region_that_cannot_be_measured_is_refused(case: str) -> None:
    """An empty region, another grid, or padding only: refused in words, never NaN."""
    padding = np.zeros((1, 2, 2), bool) if case == "all padding" else None
    source = volume(np.ones((1, 2, 2)), valid=padding)
    affine = source.affine.copy()
    affine[0, 3] += 0.5 * (case == "other grid")
    array = np.ones((1, 2, 3 if case == "other shape" else 2), bool) & (case != "empty")
    with pytest.raises(
        Refused, match={"empty": "is empty", "all padding": "all are padding"}.get(case, "grid")
    ):
        statistics(source, Mask(array, affine, "All", *[Code("1", "99T", "t")] * 2))


@pytest.mark.parametrize("radius", [(5.0, 5.0), (4.2, 3.1), (1.0, 1.0), (0.4, 0.7), (7.5, 2.0)])
def test_the_opening_is_that_of_a_disk(radius: tuple[float, float]) -> None:
    """Eroding by whole rows gives what scipy's opening gives with the disk tried voxel by voxel."""
    noise = np.random.default_rng(0).random((3, 80, 90))
    mask = ndimage.uniform_filter(noise, (0, 5, 5)) > 0.47
    tall, wide = (int(r) for r in radius)
    rows, columns = np.ogrid[-tall : tall + 1, -wide : wide + 1]
    disk = (rows / radius[0]) ** 2 + (columns / radius[1]) ** 2 <= 1 + 1e-9
    pad = 2 * max(tall, wide) + 1
    padded = np.pad(mask, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    expected = np.stack([ndimage.binary_opening(layer, disk) for layer in padded])
    inner = slice(pad, -pad)
    assert np.array_equal(expected[:, inner, inner], _opened(mask, np.array(radius)))
