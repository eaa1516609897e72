"""Reconstructed SPECT and radiotherapy dose: multi-frame objects that state one place and the steps from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import Dataset
from pydicom.uid import NuclearMedicineImageStorage, RTDoseStorage
from volume_phantoms import SPACING, blank, item, mapping, save, texts, turned

from node.errors import Refused
from node.read.volume import load, volumes


def spect(step: float = 3.0, angle: float = 0.0, count: int = 4) -> Dataset:
    """A RECON TOMO whose slice n (from 1) holds 100 n + 0 … 29, *step* mm apart along row x column."""
    stored = np.array([np.arange(30).reshape(5, 6) + 100 * (n + 1) for n in range(count)], np.uint16)
    ds = blank(NuclearMedicineImageStorage, stored)
    turn = turned(angle)
    ds.Modality, ds.ImageType = "NM", ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    ds.PixelSpacing, ds.SpacingBetweenSlices, ds.SliceThickness = list(SPACING), step, abs(step)
    ds.FrameIncrementPointer, ds.SliceVector = 0x00540080, [n + 1 for n in range(count)]
    ds.DetectorInformationSequence = [
        item(
            ImageOrientationPatient=texts((*turn[:, 0], *turn[:, 1])),
            ImagePositionPatient=texts((-30, 12, 7)),
        )
    ]
    return ds


@pytest.mark.parametrize("angle", [0.0, 33.0])
@pytest.mark.parametrize("step", [3.0, -3.0])
def test_spect_slices_lie_along_the_signed_spacing(tmp_path: Path, step: float, angle: float) -> None:
    """Slice n lies (n - 1) x spacing along row x column, against it where negative (PS3.3 C.8.4.15)."""
    loaded = load([save(spect(step, angle), tmp_path / "a.dcm")])
    volume, normal = loaded.value, turned(angle)[:, 2]
    for k, frame in enumerate(loaded.frames):
        at = np.array([-30, 12, 7]) + (frame - 1) * step * normal
        assert np.allclose((volume.affine @ [k, 0, 0, 1])[:3], at, atol=1e-5)
        assert volume.array[k, 2, 3] == 100 * frame + 15
    assert loaded.frames == ((1, 2, 3, 4) if step > 0 else (4, 3, 2, 1))
    assert (volume.unit.value, volume.facts["modality"]) == ("{counts}", "NM")


def test_spect_agrees_with_itk(tmp_path: Path) -> None:
    """SimpleITK's reader has the same values at the same places for an axial SPECT with positive spacing."""
    path = save(spect(), tmp_path / "a.dcm")
    volume, image = load([path]).value, sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert np.allclose(image.TransformIndexToPhysicalPoint((5, 4, 3)), (volume.affine @ [3, 4, 5, 1])[:3])


def test_frames_follow_the_slice_vector(tmp_path: Path) -> None:
    """The vector, not the order of frames, says which frame is which slice (PS3.3 C.8.4.8)."""
    ds = spect()
    ds.SliceVector = [3, 1, 4, 2]
    loaded = load([save(ds, tmp_path / "a.dcm")])
    assert loaded.frames == (2, 4, 1, 3)
    assert [int(h.SliceVector) for h in loaded.headers] == [1, 2, 3, 4]


def test_a_quantified_spect_has_its_unit(tmp_path: Path) -> None:
    """Units, else a Real World Value Mapping, says what the values are; counts only where neither does."""
    ds = spect()
    ds.RealWorldValueMappingSequence = [mapping("Bq/ml", 2.0)]
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert (volume.unit.value, volume.array[0, 0, 1]) == ("Bq/ml", 202)
    ds.Units = "PROPCNTS"
    volume = load([save(ds, tmp_path / "b.dcm")]).value
    assert (volume.unit.value, volume.array[0, 0, 1]) == ("{propcounts}", 101)


def test_gated_spect_is_parts_by_time_slot(tmp_path: Path) -> None:
    """A gated tomography is refused as one volume and read per time slot where the rule splits by it."""
    ds = spect(count=6)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]
    ds.SliceVector, ds.TimeSlotVector = [1, 2, 3] * 2, [1] * 3 + [2] * 3
    path = save(ds, tmp_path / "a.dcm")
    with pytest.raises(Refused, match=r"split: \[TimeSlotVector\]"):
        load([path])
    loaded = [part.load() for part in volumes([path], ["TimeSlotVector"], "run")]
    assert [one.label for one in loaded] == ["TimeSlotVector 1", "TimeSlotVector 2"]
    assert [one.frames for one in loaded] == [(1, 2, 3), (4, 5, 6)]
    assert loaded[1].value.array[:, 0, 0].tolist() == [400, 500, 600]


def dose(offsets: list[float], z: float = 7.0, orientation: str = "1\\0\\0\\0\\1\\0") -> Dataset:
    """An RT Dose grid of 32-bit values, plane n holding 2**25 + n at its first voxel."""
    stored = np.full((len(offsets), 5, 6), 1000, np.uint32)
    stored[:, 0, 0] = 2**25 + 1 + np.arange(len(offsets))
    ds = blank(RTDoseStorage, stored)
    ds.Modality, ds.DoseUnits, ds.DoseType, ds.DoseGridScaling = "RTDOSE", "GY", "PHYSICAL", 0.5
    ds.ImageOrientationPatient = orientation.split("\\")
    ds.ImagePositionPatient, ds.PixelSpacing = [-30, 12, z], list(SPACING)
    ds.FrameIncrementPointer, ds.GridFrameOffsetVector = 0x3004000C, offsets
    return ds


def test_dose_is_in_gray_on_its_grid_without_rounding(tmp_path: Path) -> None:
    """32-bit stored doses times Dose Grid Scaling are exact, at first position plus offset (PS3.3 C.8.8.3.2)."""
    path = save(dose([0, 2.5, 5]), tmp_path / "a.dcm")
    volume = load([path]).value
    assert volume.array.dtype == np.float64
    assert volume.array[:, 0, 0].tolist() == [(2**25 + 1 + n) / 2 for n in range(3)]
    assert (volume.unit.value, volume.facts["dose_type"]) == ("Gy", "PHYSICAL")
    image = sitk.ReadImage(str(path))
    assert np.allclose(image.TransformIndexToPhysicalPoint((5, 4, 2)), (volume.affine @ [2, 4, 5, 1])[:3])


@pytest.mark.parametrize(
    ("offsets", "orientation", "places"),
    [
        ([0, -2, -4], "1\\0\\0\\0\\1\\0", [3, 5, 7]),
        ([7, 9, 11], "1\\0\\0\\0\\1\\0", [7, 9, 11]),
        ([7, 5, 3], "1\\0\\0\\0\\1\\0", [3, 5, 7]),
        ([0, 2, 4], "1\\0\\0\\0\\-1\\0", [7, 5, 3]),
        ([7, 9, 11], "1\\0\\0\\0\\-1\\0", [11, 9, 7]),
    ],
)
def test_dose_planes_lie_where_either_form_says(
    tmp_path: Path, offsets: list[float], orientation: str, places: list[float]
) -> None:
    """Offsets from 0 go along the normal, offsets from the first z are patient coordinates (C.8.8.3.2 a, b)."""
    volume = load([save(dose(offsets, orientation=orientation), tmp_path / "a.dcm")]).value
    assert [(volume.affine @ [k, 0, 0, 1])[2] for k in range(3)] == pytest.approx(places)


Refusal = tuple[Callable[[], Dataset], Callable[[Dataset], Any], str]
REFUSALS: dict[str, Refusal] = {
    "projections": (
        spect,
        lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "TOMO"]),
        "no reconstructed tomography (ImageType value 3 is TOMO)",
    ),
    "no detector": (
        spect,
        lambda ds: delattr(ds, "DetectorInformationSequence"),
        "no usable ImageOrientationPatient",
    ),
    "no spacing": (
        spect,
        lambda ds: delattr(ds, "SpacingBetweenSlices"),
        "no usable SpacingBetweenSlices",
    ),
    "no vector": (spect, lambda ds: delattr(ds, "SliceVector"), "no SliceVector"),
    "short vector": (spect, lambda ds: setattr(ds, "SliceVector", [1, 2]), "has 2 values for 4 frames"),
    "offsets": (
        lambda: dose([0, 1, 2]),
        lambda ds: setattr(ds, "GridFrameOffsetVector", [0, 1]),
        "has 2 usable values for 3 frames",
    ),
    "begin": (lambda: dose([3, 4, 5]), lambda ds: None, "begins with 3: neither 0 nor the z"),
    "dose unit": (lambda: dose([0, 1]), lambda ds: delattr(ds, "DoseUnits"), "DoseUnits is absent"),
    "scaling": (lambda: dose([0, 1]), lambda ds: delattr(ds, "DoseGridScaling"), "DoseGridScaling is absent"),
    "uneven": (lambda: dose([0, 1, 3]), lambda ds: None, "not evenly spaced"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_stated_is_refused(tmp_path: Path, name: str) -> None:
    """Projections, and grids whose place, step or unit is not stated, are refused in words."""
    make, change, words = REFUSALS[name]
    ds = make()
    change(ds)
    with pytest.raises(Refused) as refusal:
        load([save(ds, tmp_path / "a.dcm")])
    assert words in str(refusal.value)
