"""Uptake, foci and reference tissue against spheres and cylinders whose values are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from node.errors import Refused
from node.operator import Code, Mask, Measurement, Report, Segments, Volume
from node.operators.pet.lesions import segment_uptake
from node.operators.pet.reference import reference_uptake
from node.operators.pet.spheres import PEAK_RADIUS, peak, weights
from node.operators.pet.suv import KINDS, suv
from node.operators.pet.uptake import uptake, uptake_segments
from node.testing import Grid, run_operator
from node.testing.pet import DIAMETERS, Sphere, nema_spheres, nema_volume, with_dose

GRID = Grid((40, 96, 96), (3.0, 3.0, 3.0))
HALF_VOXEL = 3.0 * math.sqrt(3) / 2
"""mm from a voxel's centre to its corner."""
SUV = KINDS["bw"].unit
BECQUEREL = Code("Bq/ml", "UCUM", "Becquerels/milliliter")
LIVER = Code("10200004", "SCT", "Liver")


def region(array: Any, affine: Any, label: str = "Lesion") -> Mask:
    """A mask of any shape."""
    return Mask(
        np.asarray(array, bool), affine, label, Code("91723000", "SCT", "Anatomical Structure"), LIVER
    )


def ball(grid: Grid, centre: tuple[float, float, float], radius: float, label: str = "Lesion") -> Mask:
    """A sphere as mask, by voxel centres."""
    away = grid.coordinates() - np.array(centre).reshape(3, 1, 1, 1)
    return region((away**2).sum(axis=0) <= radius**2, grid.affine, label)


def value(report: Report, code: str, nth: int = 0) -> Measurement:
    """The *nth* measurement whose derivation, or else name, has this code."""
    return [
        m for m in report.measurements if code in (m.derivation.value if m.derivation else m.name.value,)
    ][nth]


@pytest.fixture(scope="module")
def phantom() -> Volume:
    """Six spheres of SUV 8 in a body of SUV 2, as SUV."""
    return run_operator(suv, with_dose(nema_volume(GRID)))


def test_a_large_sphere_has_its_values_exactly(phantom: Volume) -> None:
    """The 37 mm sphere of SUV 8: maximum and peak 8, metabolic volume and glycolysis those of the sphere to 1.5 %."""
    sphere = nema_spheres()[5]
    report = run_operator(uptake, phantom, ball(GRID, sphere.centre, 25), threshold=4.9)
    assert value(report, "56851009").value == pytest.approx(8, rel=1e-5)
    assert value(report, "126031").value == pytest.approx(8, rel=1e-5)
    truth = 4 / 3 * math.pi * sphere.radius**3 / 1000
    for nth, (code, meaning) in enumerate(
        (
            ("PCTOFMAX41", "Voxels of at least 41 % of the region's maximum"),
            ("ATLEAST4.9SUVBW", "Voxels of at least 4.9 g/ml{SUVbw}"),
        )
    ):  # a threshold of 4.9 is halfway between 2 and 8, one of 3.28 takes more of the rim
        volume = value(report, "126032", nth)
        assert (volume.method.value, volume.method.meaning, volume.unit.value) == (code, meaning, "ml")
        assert volume.value == pytest.approx(truth, rel=0.015) if nth else truth < volume.value < 1.16 * truth
        total = value(report, "126033", nth)
        assert total.unit.value == "g"
        inside = phantom.array[ball(GRID, sphere.centre, 25).array]
        above = inside[inside > (4.9 if nth else 0.41 * 8)]
        assert total.value == pytest.approx(float(above.astype(float).mean()) * volume.value, rel=1e-6)


def test_numbers_say_how_their_suv_was_made(phantom: Volume) -> None:
    """Maximum, mean and peak are SUVbw in g/ml{SUVbw}, by the body weight method, of the region; the dose is said."""
    mask = ball(GRID, nema_spheres()[5].centre, 15)
    report = run_operator(uptake, phantom, mask)
    for measurement in report.measurements[:3]:
        assert (measurement.name.value, measurement.unit.value, measurement.method.value) == (
            "126401", "g/ml{SUVbw}", "126410",
        )  # fmt: skip
        assert measurement.region.label == "Lesion"
    said = " ".join(remark.text for remark in report.remarks)
    assert "SUVbw from 370.0 MBq, given 60.0 min before" in said
    assert "patient weight 70 kg" in said


def test_small_spheres_lose_their_peak() -> None:
    """A 10 mm sphere is smaller than 1 cm3: its peak is the mean of 8 and 2 by volume; larger ones have more."""
    found = []
    for diameter in DIAMETERS:
        sphere = Sphere((1.5, 1.5, 1.5), diameter / 2, 8.0)  # around the centre of a voxel
        volume = run_operator(
            suv, with_dose(nema_volume(Grid((20, 20, 20), (3.0, 3.0, 3.0)), spheres=(sphere,)))
        )
        mask = ball(Grid((20, 20, 20), (3.0, 3.0, 3.0)), sphere.centre, sphere.radius)
        found.append(value(run_operator(uptake, volume, mask), "126031").value)
    share = (DIAMETERS[0] / 2 / PEAK_RADIUS) ** 3
    assert found[0] == pytest.approx(8 * share + 2 * (1 - share), rel=0.05)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(8, rel=1e-5)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (2.0, 4.0, 4.0), (5.0, 1.5, 1.5), (20.0, 20.0, 20.0)])
def test_a_sphere_weighs_one_cubic_centimetre(spacing: tuple[float, float, float]) -> None:
    """The weights add to 1, are symmetric, and second moments are those of a ball: r2/5 per axis, plus the voxel's."""
    kernel = weights(np.array(spacing), PEAK_RADIUS)
    assert kernel.sum() == pytest.approx(1)
    assert np.array_equal(kernel, kernel[::-1, ::-1, ::-1])
    for axis, step in enumerate(spacing):
        places = (np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2) * step
        marginal = kernel.sum(axis=tuple(a for a in range(3) if a != axis))
        # each weight stands for the mass in a voxel, whose own spread is at most step²/12
        assert abs((marginal * places**2).sum() - PEAK_RADIUS**2 / 5) <= step**2 / 4 + 1e-9


def test_the_peak_is_where_the_mean_is_highest() -> None:
    """On a ramp, the peak is at the region's brightest end, and equals the ramp's value at the sphere's centre."""
    grid = Grid((20, 24, 28), (3.0, 2.0, 2.0))
    ramp = Volume((grid.coordinates()[0] + 100).astype(np.float32), grid.affine, SUV)
    inside = np.zeros(grid.shape, bool)
    inside[8:12, 8:16, 6:18] = True
    best = peak(ramp, region(inside, grid.affine))
    assert best is not None
    assert best.index == (8, 8, 17)
    assert best.value == pytest.approx(float(ramp.array[8, 8, 17]), abs=1e-4)
    assert best.position == pytest.approx((grid.affine @ [8, 8, 17, 1])[:3])


@pytest.mark.parametrize("seed", range(6))
def test_the_peak_is_that_of_a_filter_over_the_whole_volume(seed: int) -> None:
    """SciPy's correlation with the sphere, to the bit, at the first of its highest voxels that lie in the region."""
    rng = np.random.default_rng(seed)
    grid = Grid((12, 14, 16), (3.0, 2.5, 4.0))
    volume = Volume(np.rint(rng.normal(5, 2, grid.shape)).astype(np.float32), grid.affine, SUV)
    inside = rng.random(grid.shape) > (0.3, 0.9)[seed % 2]
    kernel = weights(volume.spacing, PEAK_RADIUS)
    means = ndimage.correlate(volume.array.astype(np.float64), kernel, mode="constant")
    whole = ndimage.binary_erosion(np.ones(grid.shape, bool), kernel > 0)
    at = np.unravel_index(np.where(inside & whole, means, -np.inf).argmax(), grid.shape)
    best = peak(volume, region(inside, grid.affine))
    assert best is not None
    assert (best.index, best.value) == (tuple(int(n) for n in at), means[at])


def test_a_peak_is_not_made_up_at_the_edge_of_what_was_measured() -> None:
    """A region in the last slice has no sphere of 1 cm3 within the image: a remark says so, the rest is measured."""
    grid = Grid((6, 20, 20), (3.0, 3.0, 3.0))
    volume = Volume(np.full(grid.shape, 3.0, np.float32), grid.affine, SUV)
    inside = np.zeros(grid.shape, bool)
    inside[0, 8:12, 8:12] = True
    report = run_operator(uptake, volume, region(inside, grid.affine))
    assert all(m.derivation is None or m.derivation.value != "126031" for m in report.measurements)
    assert any("no peak, since a sphere of 1 cm³ reaches out of the image" in r.text for r in report.remarks)
    valid = np.ones(grid.shape, bool)
    valid[3] = False
    inside[:] = False
    inside[2, 8:12, 8:12] = True
    unmeasured = replace(volume, valid=valid)
    report = run_operator(uptake, unmeasured, region(inside, grid.affine))
    assert any("no peak" in r.text for r in report.remarks)


def test_activities_have_no_glycolysis(phantom: Volume) -> None:
    """In Bq/ml maximum, mean, peak and volume are measured, and a remark says why there is no glycolysis."""
    activity = with_dose(nema_volume(GRID))
    report = run_operator(uptake, activity, ball(GRID, nema_spheres()[5].centre, 15))
    assert {m.name.value for m in report.measurements} == {"110821", "126032"}
    assert any("no total lesion glycolysis, which is of SUV" in r.text for r in report.remarks)


def test_each_sentence_says_for_itself_whether_a_number_is_missing() -> None:
    """No peak and no glycolysis are missing numbers, whichever else is there; a peak above the maximum is none."""
    grid = Grid((12, 20, 20), (3.0, 3.0, 3.0))
    array = np.full(grid.shape, 3.0, np.float32)
    array[:, :, 10:] = 9.0
    for unit, first, expected in (
        (SUV, 0, {"no peak": True}),
        (SUV, 5, {"the peak exceeds": False}),
        (BECQUEREL, 0, {"no peak": True, "no total lesion": True}),
        (BECQUEREL, 5, {"the peak exceeds": False, "no total lesion": True}),
    ):
        inside = np.zeros(grid.shape, bool)
        inside[first, 8:12, 8:10] = True
        report = run_operator(uptake, Volume(array, grid.affine, unit), region(inside, grid.affine))
        assert {
            words: remark.missing
            for remark in report.remarks
            for words in ("no peak", "the peak exceeds", "no total lesion")
            if words in remark.text
        } == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fraction": 100.0}, "fraction 100 % is out of range"),
        ({"unit": Code("[hnsf'U]", "UCUM", "HU")}, "uptake is measured in SUV or Bq/ml"),
        ({"empty": True}, "the region Lesion is empty"),
        ({"grid": True}, "lies on another grid"),
        ({"valid": np.zeros(GRID.shape, bool)}, "nothing in the region Lesion was measured"),
    ],
)
def test_what_cannot_be_measured_is_refused(phantom: Volume, change: dict[str, Any], words: str) -> None:
    """Each refusal names what is wrong."""
    mask = ball(GRID, nema_spheres()[5].centre, 15)
    if "empty" in change:
        mask = replace(mask, array=np.zeros(GRID.shape, bool))
    if "grid" in change:
        mask = replace(mask, array=mask.array[:-1])
    volume = replace(phantom, **{k: v for k, v in change.items() if k in ("unit", "valid")})
    options = {k: v for k, v in change.items() if k == "fraction"}
    with pytest.raises(Refused, match=words):
        run_operator(uptake, volume, mask, **options)


def test_every_sphere_is_a_focus_the_hottest_first() -> None:
    """Spheres of SUV 4 to 9 in SUV 1: six foci by 41 % of their own maximum, ordered, apart, of the right size."""
    spheres = tuple(replace(s, suv=9.0 - n) for n, s in enumerate(nema_spheres()))
    volume = run_operator(suv, with_dose(nema_volume(GRID, background=1.0, spheres=spheres)))
    segments = run_operator(segment_uptake, volume, at_least=2.5, smallest=0.3)
    assert [m.label for m in segments.masks] == [f"Uptake {n}" for n in range(1, 7)]
    maxima = [float(volume.array[m.array].max()) for m in segments.masks]
    assert maxima == sorted(maxima, reverse=True)
    assert int(sum(m.array.astype(int) for m in segments.masks).max()) == 1
    for mask, sphere in zip(segments.masks, spheres, strict=True):
        core, hull = (
            ball(GRID, sphere.centre, sphere.radius + reach).array for reach in (-HALF_VOXEL, HALF_VOXEL)
        )
        assert not (core & ~mask.array).any()
        assert not (mask.array & ~hull).any()
    assert segments.masks[0].description == "Voxels of at least 41 % of its maximum and 2.5 g/ml{SUVbw}"


def test_a_focus_ends_at_its_share_or_at_the_level_whichever_is_higher() -> None:
    """A cube of 6 in one of 4.5 in one of 3: at 41 % of 6 all of it, but not what is below 4; at 80 % the core."""
    grid = Grid((30, 30, 30), (4.0, 4.0, 4.0))
    array = np.zeros(grid.shape, np.float32)
    for edge, suv_ in ((5, 3.0), (9, 4.5), (12, 6.0)):
        array[edge:-edge, edge:-edge, edge:-edge] = suv_
    volume = Volume(array, grid.affine, SUV)
    options = {"at_least": 4.0, "smallest": 0.05}
    assert run_operator(segment_uptake, volume, **options).masks[0].array.sum() == 12**3
    assert run_operator(segment_uptake, volume, **options, fraction=80.0).masks[0].array.sum() == 6**3
    fixed = run_operator(segment_uptake, volume, **options, fraction=80.0, method="fixed").masks[0]
    assert (fixed.array.sum(), fixed.description) == (12**3, "Voxels of at least 4 g/ml{SUVbw}")
    box = np.zeros(grid.shape, bool)
    box[10:20] = True
    held = run_operator(segment_uptake, volume, region(box, grid.affine), **options)
    assert held.masks[0].array.sum() == 10 * 12 * 12


def test_the_rim_of_a_hot_focus_is_no_part_of_a_weak_one() -> None:
    """Beside a blurred sphere of 20 one of 6: the weak one stays around its own centre, and so does the hot one."""
    strong, weak = Sphere((-25.0, 0.0, 0.0), 12.0, 20.0), Sphere((15.0, 0.0, 0.0), 10.0, 6.0)
    grid = Grid((30, 40, 40), (3.0, 3.0, 3.0))
    volume = run_operator(suv, with_dose(nema_volume(grid, background=0.5, spheres=(strong, weak), blur=8.0)))
    first, second = run_operator(segment_uptake, volume, at_least=3.0, smallest=0.2).masks
    for mask, sphere in ((first, strong), (second, weak)):
        assert mask.array[ball(grid, sphere.centre, sphere.radius - 4).array].all()
        assert not (mask.array & ~ball(grid, sphere.centre, sphere.radius + 4).array).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_foci_never_overlap_and_hold_their_maximum(seed: int) -> None:
    """On noise: disjoint, each above 41 % of its maximum, and found the same twice."""
    grid = Grid((8, 10, 10), (4.0, 4.0, 4.0))
    array = np.random.default_rng(seed).gamma(2.0, 1.0, grid.shape).astype(np.float32)
    volume = Volume(array, grid.affine, SUV)
    try:
        first = run_operator(segment_uptake, volume, at_least=6.0, smallest=0.06)
    except Refused as refusal:
        assert "foci" in str(refusal) or "no focus" in str(refusal)
        return
    assert int(sum(m.array.astype(int) for m in first.masks).max()) == 1
    for mask in first.masks:
        inside = array[mask.array]
        assert inside.min() >= np.float32(0.41) * inside.max() * (1 - 1e-6)
    second = run_operator(segment_uptake, volume, at_least=6.0, smallest=0.06)
    assert all(np.array_equal(a.array, b.array) for a, b in zip(first.masks, second.masks, strict=True))


def test_no_focus_is_a_refusal(phantom: Volume) -> None:
    """Where nothing reaches the level, that is said with level and unit."""
    with pytest.raises(Refused, match=r"no focus of at least 50 g/ml\{SUVbw\} and 1 ml"):
        run_operator(segment_uptake, phantom, at_least=50.0)


def test_the_liver_is_measured_in_a_sphere_of_three_centimetres() -> None:
    """A liver of lean-mass SUV 1.6 with noise: mean, SD and PERCIST's least peak 1.5 x mean + 2 SD, in 3 cm."""
    grid = Grid((40, 60, 60), (3.0, 3.0, 3.0))
    noise = np.random.default_rng(1).normal(1.6, 0.2, grid.shape).astype(np.float32)
    volume = Volume(noise, grid.affine, KINDS["lbm_janma"].unit)
    report = run_operator(reference_uptake, volume, ball(grid, (5.0, 0.0, 0.0), 40, "Liver"))
    mean, deviation, least = report.measurements
    sphere = mean.region.array
    assert sphere.sum() * 27 == pytest.approx(4 / 3 * math.pi * 15**3, rel=0.05)
    assert mean.value == pytest.approx(float(noise[sphere].astype(float).mean()), rel=1e-12)
    assert deviation.value == pytest.approx(float(noise[sphere].astype(float).std()), rel=1e-12)
    assert least.value == pytest.approx(1.5 * mean.value + 2 * deviation.value)
    assert mean.name.value == "126405"
    assert "centred at x 4.5" in report.remarks[0].text or "centred at x 7.5" in report.remarks[0].text


def test_blood_pool_is_measured_in_a_cylinder() -> None:
    """An aorta 24 mm wide of SUV 1.5, tapering: 1 cm x 2 cm where it is widest, mean 1.5; a thin one has a remark."""
    grid = Grid((30, 40, 40), (2.0, 2.0, 2.0))
    x, y, z = grid.coordinates()
    radius = 12 - np.abs(z - 10) / 8
    aorta = np.hypot(x - 6, y) <= radius
    volume = Volume(np.where(aorta, 1.5, 0.5).astype(np.float32), grid.affine, SUV)
    report = run_operator(reference_uptake, volume, region(aorta, grid.affine, "Aorta"), tissue="blood_pool")
    mean, deviation = report.measurements
    assert (mean.value, deviation.value) == (1.5, 0)
    cylinder = mean.region.array
    assert cylinder.any(axis=(1, 2)).sum() == 10
    assert cylinder.sum() * 8 == pytest.approx(math.pi * 25 * 20, rel=0.1)
    thin = np.hypot(x - 6, y) <= 4
    report = run_operator(reference_uptake, volume, region(thin, grid.affine, "Aorta"), tissue="blood_pool")
    assert not report.measurements
    assert "a cylinder of 1 x 2 cm does not fit into the region" in report.remarks[0].text


def test_a_liver_that_is_too_small_has_a_remark() -> None:
    """No sphere of 3 cm fits into a region of 2 cm, so there is no number."""
    grid = Grid((20, 30, 30), (3.0, 3.0, 3.0))
    volume = Volume(np.ones(grid.shape, np.float32), grid.affine, SUV)
    report = run_operator(reference_uptake, volume, ball(grid, (0, 0, 0), 10, "Liver"))
    assert report.measurements == ()
    assert "a sphere of 3 cm diameter does not fit into the region" in report.remarks[0].text


@pytest.mark.parametrize(
    ("spacing", "box", "tissue", "words"),
    [
        ((4.0, 4.0, 4.0), (2, 30, 30), "liver", "around its deepest voxel there is room for 4 mm"),
        ((4.0, 4.0, 4.0), (1, 1, 1), "liver", "around its deepest voxel there is room for 4 mm"),
        ((20.0, 4.0, 4.0), (1, 30, 30), "liver", "around its deepest voxel there is room for 20 mm"),
        ((4.0, 4.0, 4.0), (30, 30, 2), "blood_pool", "widest over 20 mm there is room for 4 mm"),
        ((4.0, 5.3, 5.3), (30, 1, 1), "blood_pool", "widest over 20 mm there is room for 5 mm"),
        ((15.0, 2.0, 2.0), (1, 30, 30), "blood_pool", "it is 15 mm long"),
    ],
)
def test_a_shape_that_hangs_out_of_the_region_is_no_reference(
    spacing: tuple[float, float, float], box: tuple[int, int, int], tissue: str, words: str
) -> None:
    """Neither a slab thinner than 3 cm nor a single voxel holds the sphere, however the region is cut out."""
    grid = Grid((32, 32, 32), spacing)
    inside = np.zeros(grid.shape, bool)
    inside[tuple(slice(1, 1 + n) for n in box)] = True
    volume = Volume(np.full(grid.shape, 8, np.float32), grid.affine, SUV)
    report = run_operator(reference_uptake, volume, region(inside, grid.affine, "Liver"), tissue=tissue)
    assert report.measurements == ()
    assert words in report.remarks[0].text


def test_what_just_holds_the_shape_is_a_reference() -> None:
    """Fifteen voxels of 2 mm hold the sphere of 3 cm, also at the image's edge; one layer less does not."""
    grid = Grid((15, 15, 15), (2.0, 2.0, 2.0))
    volume = Volume(np.ones(grid.shape, np.float32), grid.affine, SUV)
    whole = np.ones(grid.shape, bool)
    assert run_operator(reference_uptake, volume, region(whole, grid.affine, "Liver")).measurements
    whole[-1] = False
    assert not run_operator(reference_uptake, volume, region(whole, grid.affine, "Liver")).measurements


def test_a_sphere_of_its_own_has_its_own_value() -> None:
    """The phantom's spheres may be given: one of SUV 20 in nothing has a maximum of 20."""
    volume = run_operator(
        suv, with_dose(nema_volume(GRID, background=0.0, spheres=(Sphere((0, 0, 0), 20, 20.0),)))
    )
    assert float(volume.array.max()) == pytest.approx(20, rel=1e-6)


def test_every_segment_is_measured_under_its_own_name(phantom: Volume) -> None:
    """Of three segments two have one label: they are told apart by number; one outside the image is named."""
    spheres, away = nema_spheres(), GRID.affine.copy()
    away[2, 3] += 900
    masks = (
        ball(GRID, spheres[5].centre, 15, "Node"),
        ball(GRID, spheres[4].centre, 12, "Node"),
        replace(ball(GRID, spheres[3].centre, 9, "Far"), affine=away),
        ball(GRID, spheres[3].centre, 9, "Tumour"),
    )
    volume = replace(phantom, facts={**phantom.facts, "frame_of_reference": "1"})
    segments = Segments(masks, {"frame_of_reference": "1"})
    report = run_operator(uptake_segments, volume, segments, threshold=4.0)
    assert list(dict.fromkeys(m.region.label for m in report.measurements)) == ["Node 1", "Node 2", "Tumour"]
    assert report.measurements[-1].region is not None
    assert np.shares_memory(report.measurements[-1].region.array, masks[3].array)  # a report points at it
    said = [remark.text for remark in report.remarks]
    assert any(
        text.startswith("Far: not measured, since nothing of the segment Far lies in the image")
        for text in said
    )
    assert sum("Centres of the spheres" in text for text in said) == 1
    alone = Segments((masks[2],), {"frame_of_reference": "1"})
    with pytest.raises(Refused, match="no segment can be measured: Far"):
        run_operator(uptake_segments, volume, alone)
