"""The phantoms are what they claim, other readers agree, and an operator is called as in a run."""

from __future__ import annotations

from dataclasses import replace
from math import pi
from pathlib import Path

import numpy as np
import peers
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own manual uses

from node import testing
from node.errors import Broken, Misconfigured, Refused
from node.model import Code
from node.operator import HU, NO_UNITS, Mask, Measurement, Volume
from node.testing import Grid, Series

SMALL = Grid((6, 20, 24), (2.5, 1.25, 0.75))
OBLIQUE = Grid.tilted(20.0, (6, 20, 24))
SAGITTAL = Grid((6, 20, 24), (3.0, 1.0, 0.5), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def read(paths: list[Path]) -> tuple[sitk.Image, np.ndarray]:
    """Read a series with GDCM's reader in SimpleITK: the image, and its index (k, j, i) → LPS matrix."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = reader.Execute()
    affine = np.eye(4)
    origin = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    for column, index in enumerate(((0, 0, 1), (0, 1, 0), (1, 0, 0))):
        affine[:3, column] = np.array(image.TransformIndexToPhysicalPoint(index)) - origin
    affine[:3, 3] = origin
    return image, affine


@pytest.mark.parametrize("grid", [SMALL, OBLIQUE, SAGITTAL], ids=["axial", "oblique", "sagittal"])
def test_another_reader_sees_the_same_geometry(grid: Grid, tmp_path: Path) -> None:
    """SimpleITK reads back the affine and the values of an axial, an oblique and a sagittal series."""
    volume = testing.ramp_volume(grid, per_mm=(10.0, -5.0, 7.0))
    image, affine = read(testing.write_ct_series(tmp_path, volume))
    np.testing.assert_allclose(affine, volume.affine, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.rint(volume.array))


def test_slices_advance_along_the_normal() -> None:
    """Slices follow row x column, so that an axial stack runs from feet to head."""
    assert np.linalg.det(OBLIQUE.affine[:3, [2, 1, 0]]) > 0
    np.testing.assert_allclose(SMALL.affine[:3, 0], [0, 0, 2.5])
    np.testing.assert_allclose(SMALL.affine @ [2.5, 9.5, 11.5, 1], [0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("grid", [SMALL, OBLIQUE], ids=["axial", "oblique"])
def test_ct_and_mr_are_valid(grid: Grid, tmp_path: Path) -> None:
    """Both dciodvfy and dcentvfy find no error in a CT and an MR series of one study."""
    ct = testing.write_ct_series(tmp_path / "ct", testing.body_volume(grid), series=Series("ct", "both"))
    mr = testing.write_mr_series(
        tmp_path / "mr", testing.head_volume(grid), series=Series("mr", "both", number=2)
    )
    assert [line for path in (*ct, *mr) for line in peers.dciodvfy(path)] == []
    assert peers.dcentvfy(*ct, *mr) == []


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    """Writing twice gives equal files; another name gives other UIDs, the same study name one study."""
    volume = testing.body_volume(SMALL)
    first, again, other = (
        testing.write_ct_series(tmp_path / folder, volume, series=Series(name, "study"))
        for folder, name in (("1", "a"), ("2", "a"), ("3", "b"))
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    one, two = pydicom.dcmread(first[0]), pydicom.dcmread(other[0])
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in (*first, *other)}) == 12


def test_a_header_can_be_changed(tmp_path: Path) -> None:
    """`changes` puts a value into every object, and None takes the attribute out."""
    series = Series("ct", changes={"BodyPartExamined": "ABDOMEN", "KVP": None})
    for path in testing.write_ct_series(tmp_path, testing.body_volume(SMALL), series=series):
        dataset = pydicom.dcmread(path)
        assert dataset.BodyPartExamined == "ABDOMEN"
        assert "KVP" not in dataset


def test_padding_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    """Where `valid` is False the Pixel Padding Value stands."""
    volume = testing.sphere_volume(SMALL)
    valid = np.ones(volume.array.shape, bool)
    valid[:, :3] = False
    (path, *_) = testing.write_ct_series(tmp_path, Volume(volume.array, volume.affine, volume.unit, valid))
    dataset = pydicom.dcmread(path)
    assert (dataset.pixel_array[:3] == dataset.PixelPaddingValue).all()
    assert peers.dciodvfy(path) == []


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A value that the stored type cannot hold raises instead of wrapping round."""
    with pytest.raises(ValueError, match="-1024"):
        testing.write_ct_series(tmp_path, testing.sphere_volume(SMALL, outside=-2000.0))
    with pytest.raises(ValueError, match="65535"):
        testing.write_mr_series(tmp_path, testing.sphere_volume(SMALL, outside=-1.0))


@pytest.mark.parametrize("grid", [Grid((40, 60, 60), (1.0, 1.0, 1.0)), Grid.tilted(30.0, (24, 40, 40))])
def test_a_sphere_has_its_volume(grid: Grid) -> None:
    """The voxels inside fill 4/3 π r³ within 2 %, whatever the orientation."""
    volume = testing.sphere_volume(grid, radius=15.0)
    inside = np.count_nonzero(volume.array == 100.0) * volume.voxel_volume
    assert inside == pytest.approx(4 / 3 * pi * 15**3, rel=0.02)


def test_the_body_holds_its_nodules() -> None:
    """In the noiseless chest each nodule has its value at its centre and lung around it."""
    volume = testing.body_volume(noise=0.0)
    for blob in testing.nodules():
        k, j, i = np.rint(np.linalg.inv(volume.affine) @ [*blob.centre, 1])[:3].astype(int)
        assert volume.array[k, j, i] == pytest.approx(blob.value, abs=1)
        beside = round((blob.radii[0] + 6) / 2.5)
        assert volume.array[k, j + beside, i] == pytest.approx(-850, abs=1)


def bright(volume: Volume, *, above: HU = 0.0) -> Mask:
    """Return what is brighter than *above*."""
    if above > 1000:
        raise Refused("nothing is that bright")
    tissue = Code("85756007", "SCT", "Tissue")
    return Mask(volume.array > above, volume.affine, "Bright", tissue, tissue)


def size(volume: Volume, mask: Mask) -> list[Measurement]:
    """Return the volume of *mask*."""
    name, unit = Code("118565006", "SCT", "Volume"), Code("mm3", "UCUM", "cubic millimeter")
    return [Measurement(name, float(mask.array.sum() * volume.voxel_volume), unit, region=mask)]


def untyped(volume):  # noqa: D103
    return volume


def liar(volume: Volume) -> Mask:
    """Promise a mask and return the volume."""
    return volume  # type: ignore[return-value]


def test_operators_are_called_as_in_a_run() -> None:
    """A chain of two operators gives the sphere's volume, and the caller's array stays writable."""
    volume = testing.sphere_volume()
    mask = testing.run_operator(bright, volume, above=50.0)
    (measurement,) = testing.run_operator(size, volume, mask)
    assert measurement.value == pytest.approx(4 / 3 * pi * 15**3, rel=0.02)
    assert volume.array.flags.writeable


def test_an_operator_meets_the_checks_of_a_run() -> None:
    """A missing annotation, a broken promise, an unknown option and a refusal end as in the node."""
    volume = testing.sphere_volume(SMALL)
    with pytest.raises(Misconfigured, match="annotation of volume is missing"):
        testing.run_operator(untyped, volume)
    with pytest.raises(Broken, match="promised a Mask"):
        testing.run_operator(liar, volume)
    with pytest.raises(Broken, match="abov"):
        testing.run_operator(bright, volume, abov=1.0)
    with pytest.raises(Refused, match="that bright"):
        testing.run_operator(bright, volume, above=2000.0)
    with pytest.raises(Misconfigured, match="input mask is not given"):
        testing.run_operator(size, volume)


def test_a_golden_result_is_written_once_and_compared_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file it says what to do; then equal results pass and others are told apart in words."""
    file = tmp_path / "golden" / "ball.npz"
    ball = testing.sphere_volume()
    with pytest.raises(AssertionError, match="PACSNODE_GOLDEN=write"):
        testing.assert_golden(ball, file)
    monkeypatch.setenv("PACSNODE_GOLDEN", "write")
    testing.assert_golden(ball, file)
    monkeypatch.delenv("PACSNODE_GOLDEN")
    testing.assert_golden(ball, file)
    other = replace(ball, array=ball.array + np.float32(0.5))
    with pytest.raises(AssertionError, match=r"result.array differs by up to 0.5, allowed is 0.1"):
        testing.assert_golden(other, file, tolerance=0.1)
    testing.assert_golden(other, file, tolerance=0.5)
    with pytest.raises(AssertionError, match=r"result.unit.meaning is no units, not Hounsfield unit"):
        testing.assert_golden(testing.sphere_volume(unit=NO_UNITS), file)
    with pytest.raises(AssertionError, match="has shape"):
        testing.assert_golden(testing.sphere_volume(Grid((8, 8, 8), (2.0, 2.0, 2.0))), file, tolerance=1e6)


def test_a_rule_runs_on_files_as_in_the_node(tmp_path: Path) -> None:
    """`run_rule` gives products and numbers for a series that matches, and the reason for one that does not."""
    rule = tmp_path / "ball.yaml"
    rule.write_text(
        "rule: ball\npurpose: p\nowner: o@h.example\nwhen: {Modality: CT, slices: {at_least: 10}}\n"
        "do:\n  - segment_threshold: {at_least: 0}\n    as: ball\n"
        "  - statistics: {mask: ball}\n    as: numbers\nsend: [{what: ball, to: PACS}]\n"
    )
    grid = Grid((12, 32, 32), (3.0, 3.0, 3.0))
    files = testing.write_ct_series(tmp_path / "in", testing.sphere_volume(grid, radius=12))
    (done,) = testing.run_rule(rule, files, tmp_path / "out")
    assert done.ended is not None
    assert [product.kind for product in done.ended.products] == ["segmentation"]
    (skipped,) = testing.run_rule(rule, files[:5], tmp_path / "out")
    assert skipped.ended is None
    assert "slices" in skipped.judged.because


def test_the_disc_and_the_sines_are_what_they_say() -> None:
    """The disc has the area of its radius, the sines have their frequencies."""
    disc = testing.disc_picture()
    area = (disc.array > 500).sum() * 0.5**2
    assert area == pytest.approx(np.pi * 30**2, rel=0.01)
    (group,) = testing.sine_recording((8.0,)).groups
    spectrum = np.abs(np.fft.rfft(group.array[0]))
    assert np.fft.rfftfreq(group.array.shape[1], 1 / group.frequency)[spectrum.argmax()] == 8.0


def test_uptake_of_the_chest_lies_where_its_outlines_are() -> None:
    """SUVs of the PET phantom in the liver, the largest nodule and the lung are those that it says."""
    from node.testing.pet import activity, chest_uptake

    volume = chest_uptake(noise=0.0, blur=4.0)
    for centre, suv in (((-50.0, -8.0, -85.0), 2.2), ((62.0, -22.0, 40.0), 9.0), ((-62.0, 0.0, 80.0), 0.4)):
        k, j, i = np.rint(np.linalg.solve(volume.affine, [*centre, 1.0])[:3]).astype(int)
        assert volume.array[k, j, i] / activity(1.0) == pytest.approx(suv, rel=0.03)
    assert np.array_equal(chest_uptake().array, chest_uptake().array)
