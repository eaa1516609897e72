"""Fractional segmentations, parametric maps and NM images: values, place, and what peers make of them."""

import json
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import peers
import pytest
import SimpleITK
from derive_material import LUNG, affine, complaints, ct_headers, job, nm_headers, volume
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.model import Code
from node.operator import FractionalMask, Map, Volume
from node.read.volume import load

SHAPE = (6, 8, 7)
ADC = Code("113041", "DCM", "Apparent Diffusion Coefficient")
UNIT = Code("mm2/s", "UCUM", "mm2/s")


def ramp(place: np.ndarray, *, holes: bool = False) -> Map:
    """Every voxel another value between 0 and 2e-3; a corner is not valid where there are *holes*."""
    array = np.linspace(0, 2e-3, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)
    valid = np.ones(SHAPE, bool)
    valid[:2, :3, :2] = not holes
    return Map(array, place, ADC, UNIT, valid, "ADC")


def made(tmp_path: Path, result: object, headers: list[Dataset], name: str = "thick") -> Path:
    """Write the only output of a run and return its only file."""
    (product,) = write({name: result}, job(name), Sources(tuple(headers)), tmp_path)
    return tmp_path / product.path


def world(array: np.ndarray, place: np.ndarray) -> dict[tuple[float, ...], float]:
    """Value by patient coordinates rounded to 0.01 mm."""
    return {
        tuple(float(v) + 0.0 for v in np.round((place @ [*index, 1])[:3], 2)): float(array[tuple(index)])
        for index in np.ndindex(*array.shape)
    }


@pytest.mark.parametrize("finer", [1.0, 0.5])
@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_a_map_keeps_every_value_at_its_place(tmp_path: Path, tilt: float, finer: float) -> None:
    """Highdicom reads float values and patient coordinates of each voxel back, on the source's and an own grid."""
    place = affine((2.0, 0.7, 0.5), tilt)
    own = place.copy()
    own[:3, 0] *= finer
    quantity = ramp(own)
    path = made(tmp_path, quantity, ct_headers(*SHAPE, place))
    assert complaints(path) == set()
    back = hd.imread(path).get_volume()
    found, expected = world(back.array, back.affine), world(quantity.array, own)
    assert found.keys() == expected.keys()
    assert all(found[place] == pytest.approx(expected[place], rel=1e-6) for place in found)


def test_a_map_says_what_it_is(tmp_path: Path) -> None:
    """Quantity, unit, range and label stand in the Real World Value Mapping; holes are NaN."""
    quantity = ramp(affine((2.0, 0.7, 0.5)), holes=True)
    path = made(tmp_path, quantity, ct_headers(*SHAPE, quantity.affine))
    image = dcmread(path)
    (mapping,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "mm2/s"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "113041"
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == pytest.approx(2e-3)
    assert (image.ContentLabel, list(image.ImageType)) == (
        "ADC",
        ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"],
    )
    stored = np.frombuffer(image.FloatPixelData, "<f4").reshape(SHAPE)
    assert np.array_equal(np.isnan(stored), ~quantity.valid)
    assert complaints(path) == set()


def test_dcmqi_reads_a_map(tmp_path: Path) -> None:
    """Its image has our values at our coordinates, and its description our quantity, unit and region."""
    program = peers.dcmqi("paramap2itkimage")
    quantity = ramp(affine((2.0, 0.7, 0.5)))
    path = made(tmp_path, quantity, ct_headers(*SHAPE, quantity.affine))
    subprocess.run([program, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path)], check=True,
                   capture_output=True)  # fmt: skip
    image = SimpleITK.ReadImage(str(next(tmp_path.glob("*.nrrd"))))
    for index in ((0, 0, 0), (5, 7, 6), (2, 3, 1)):
        point = (quantity.affine @ [*index, 1])[:3]
        seen = image.TransformPhysicalPointToIndex([float(v) for v in point])
        assert image[seen] == pytest.approx(float(quantity.array[index]), rel=1e-6)
    said = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert said["QuantityValueCode"]["CodeValue"] == "113041"
    assert said["MeasurementUnitsCode"]["CodeValue"] == "mm2/s"
    assert said["AnatomicRegionSequence"]["CodeValue"] == "51185008"


def test_a_map_with_unmarked_nan_is_broken(tmp_path: Path) -> None:
    """NaN among voxels that are called valid stops the output."""
    quantity = ramp(affine((2.0, 0.7, 0.5)))
    quantity.array[0, 0, 0] = np.nan
    with pytest.raises(Broken, match="NaN"):
        made(tmp_path, quantity, ct_headers(*SHAPE, quantity.affine))


def test_a_map_without_planes_is_refused(tmp_path: Path) -> None:
    """Sources that state no position give no map."""
    quantity = ramp(affine((2.0, 0.7, 0.5)))
    with pytest.raises(Refused, match="Image Position"):
        made(tmp_path, quantity, ct_headers(*SHAPE, quantity.affine, ImagePositionPatient=None))


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("finer", [1.0, 0.5])
def test_fractions_come_back_to_one_in_255(tmp_path: Path, kind: str, finer: float) -> None:
    """Highdicom reads the fractions back to half a step at their coordinates, and what kind they are."""
    place = affine((2.0, 0.7, 0.5), 0.35)
    own = place.copy()
    own[:3, 0] *= finer
    array = np.linspace(0, 1, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)
    path = made(tmp_path, FractionalMask(array, own, "Lung", *LUNG, kind=kind), ct_headers(*SHAPE, place))
    assert complaints(path) == set()
    seg = hd.seg.segread(path)
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", kind)
    assert seg.MaximumFractionalValue == 255
    back = seg.get_volume(combine_segments=False).squeeze_channel()
    found, expected = world(back.array, back.affine), world(array, own)
    assert all(found.get(point, 0) == pytest.approx(value, abs=0.5 / 255 + 1e-6)
               for point, value in expected.items())  # fmt: skip


def test_a_fraction_above_one_is_broken(tmp_path: Path) -> None:
    """Percent instead of fractions stop the output in words."""
    place = affine((2.0, 0.7, 0.5))
    percent = FractionalMask(np.full(SHAPE, 40.0, np.float32), place, "Lung", *LUNG)
    with pytest.raises(Broken, match="0 to 1"):
        made(tmp_path, percent, ct_headers(*SHAPE, place))


@pytest.mark.parametrize("flipped", [False, True])
def test_nm_slices_lie_where_the_volume_says(tmp_path: Path, flipped: bool) -> None:
    """One NM object; detector, spacing and its sign put each frame where the volume has it (C.8.4.15), values kept."""
    place = affine((2.0, 0.7, 0.5), 0.35)
    headers, frames = nm_headers(*SHAPE, place)
    own = place.copy()
    if flipped:
        own[:3, 3] += own[:3, 0] * (SHAPE[0] - 1)
        own[:3, 0] *= -1
    counts = Volume((np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7).astype(np.float32), own,
                    Code("{counts}", "UCUM", "counts"))  # fmt: skip
    (product,) = write({"thick": counts}, job("thick"), Sources(headers, frames), tmp_path)
    path = tmp_path / product.path
    image = dcmread(path)
    assert complaints(path) == set()
    assert list(image.ImageType) == ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    assert (image.NumberOfFrames, image.NumberOfSlices, list(image.SliceVector)) == (6, 6, [1, 2, 3, 4, 5, 6])
    (detector,) = image.DetectorInformationSequence
    row, column = np.array(detector.ImageOrientationPatient, float).reshape(2, 3)
    last = np.array(detector.ImagePositionPatient, float)
    last = last + np.cross(row, column) * float(image.SpacingBetweenSlices) * 5
    assert np.allclose(last, (own @ [5, 0, 0, 1])[:3], atol=1e-5)
    assert np.array_equal(image.pixel_array, counts.array)
    (item,) = image.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == "1.2.3.4.1"
    assert image.RadiopharmaceuticalInformationSequence[0].Radiopharmaceutical == "FDG"


def test_nm_without_windows_is_refused(tmp_path: Path) -> None:
    """A source that does not count its energy windows gives no NM image, in words."""
    place = affine((2.0, 0.7, 0.5))
    headers, frames = nm_headers(*SHAPE, place)
    for header in headers:
        del header.NumberOfEnergyWindows
    with pytest.raises(Refused, match="0054,0011"):
        write({"thick": volume(SHAPE, place)}, job("thick"), Sources(headers, frames), tmp_path)


def test_our_own_reader_finds_nm_slices_again(tmp_path: Path) -> None:
    """What we write as NM is read back voxel for voxel in the same place, oblique and stacked either way."""
    place = affine((2.0, 0.7, 0.5), 0.35)
    headers, frames = nm_headers(*SHAPE, place)
    counts = Volume((np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7).astype(np.float32), place,
                    Code("{counts}", "UCUM", "counts"))  # fmt: skip
    (product,) = write({"thick": counts}, job("thick"), Sources(headers, frames), tmp_path)
    again = load([tmp_path / product.path]).value
    assert again.same_grid(counts)
    assert np.array_equal(again.array, counts.array)


def test_a_body_part_without_sides_needs_no_laterality(tmp_path: Path) -> None:
    """Laterality is sent for what may be one of a pair only (type 2C, C.7.3.1); dciodvfy finds nothing wrong."""
    quantity = ramp(affine((2.0, 0.7, 0.5)))
    path = made(tmp_path, quantity, ct_headers(*SHAPE, quantity.affine, BodyPartExamined="HEADNECK"))
    assert "Laterality" not in dcmread(path)
    assert complaints(path) == set()
