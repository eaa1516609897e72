"""Derived images: geometry, values, header and provenance, judged by our readers and by peers."""

from pathlib import Path

import numpy as np
import peers
import pytest
from derive_material import HU, affine, complaints, ct_headers, job, sample, volume
from pydicom import dcmread
from pydicom.uid import CTImageStorage, MRImageStorage

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.model import Code
from node.operator import Volume

SHAPE = (6, 8, 7)
PLACE = affine((2.0, 0.7, 0.5))


def thick(place: np.ndarray, array: np.ndarray, unit: Code = HU, valid: np.ndarray | None = None) -> Volume:
    """Pairs of slices averaged: half as many, twice as far apart."""
    pairs = len(array) // 2 * 2
    made = place.copy()
    made[:3, 3] += made[:3, 0] / 2
    made[:3, 0] *= 2
    mean = (array[0:pairs:2] + array[1:pairs:2]) / 2
    return Volume(mean.astype(np.float32), made, unit, valid)


def written(tmp_path: Path, made: Volume, headers: list, attributes: dict | None = None) -> list:
    """The datasets of one image output, in index order."""
    products = write({"thick": made}, job("thick", attributes=attributes), Sources(tuple(headers)), tmp_path)
    return [dcmread(tmp_path / product.path) for product in products]


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_voxels_lie_where_the_volume_says(tmp_path: Path, tilt: float) -> None:
    """The plane attributes of each file put its corner voxels where the affine does, oblique included."""
    place = affine((2.0, 0.7, 0.5), tilt)
    made = volume(SHAPE, place)
    for k, image in enumerate(written(tmp_path, made, ct_headers(*SHAPE, place))):
        row, column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        j, i = SHAPE[1] - 1, SHAPE[2] - 1
        found = np.array(image.ImagePositionPatient, float) + column * image.PixelSpacing[0] * j
        found = found + row * image.PixelSpacing[1] * i
        assert np.allclose(found, (place @ [k, j, i, 1])[:3], atol=1e-6)


def test_ct_values_come_back_to_one_unit(tmp_path: Path) -> None:
    """Rescaled stored values equal the volume to half a Hounsfield unit, and padding lies outside of them."""
    valid = np.ones((3, 8, 7), bool)
    valid[:, 0] = False
    made = thick(PLACE, volume(SHAPE, PLACE).array, valid=valid)
    images = written(tmp_path, made, ct_headers(*SHAPE, PLACE))
    found = np.stack([i.pixel_array * float(i.RescaleSlope) + float(i.RescaleIntercept) for i in images])
    assert np.abs(found - made.array)[valid].max() <= 0.5
    assert (np.stack([i.pixel_array for i in images])[~valid] == images[0].PixelPaddingValue).all()
    assert images[0].PixelPaddingValue < made.array[valid].min()


def test_header_says_derived_and_from_what(tmp_path: Path) -> None:
    """Image Type, derivation, contributing slices, equipment and dates follow PS3.3 and the design."""
    made = thick(PLACE, volume(SHAPE, PLACE).array)
    headers = ct_headers(*SHAPE, PLACE)
    image = written(tmp_path, made, headers)[1]
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "MPR"]
    assert {i.ReferencedSOPInstanceUID for i in image.SourceImageSequence} >= {"1.2.3.4.3", "1.2.3.4.4"}
    assert image.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "reformat 0.1.0" in image.DerivationDescription
    assert image.DerivationCodeSequence[0].CodeValue == "113072"
    last = image.ContributingEquipmentSequence[-1]
    assert (last.Manufacturer, last.StationName) == ("PACSNode", "PACSNODE")
    assert last.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (image.ContentDate, image.ContentTime) == ("20260102", "040405.000678")
    assert image.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    assert image.StudyInstanceUID == "1.2.3"
    assert image.SeriesInstanceUID != "1.2.3.4"
    assert (image.SeriesNumber, image.InstanceNumber) == (301, 2)


def test_only_what_all_contributors_share_is_kept(tmp_path: Path) -> None:
    """A tube current that differs between the contributing slices is dropped, the common exposure stays."""
    image = written(tmp_path, thick(PLACE, volume(SHAPE, PLACE).array), ct_headers(*SHAPE, PLACE))[0]
    assert "XRayTubeCurrent" not in image
    assert image.Exposure == 100
    assert image.AcquisitionTime == "101300"


def test_what_is_void_is_not_copied(tmp_path: Path) -> None:
    """Performed procedure step, pixel statistics and the scanner's own tilt do not reach a new grid."""
    headers = ct_headers(*SHAPE, PLACE, GantryDetectorTilt="5", PerformedProcedureStepID="X",
                         LargestPixelValueInSeries=7)  # fmt: skip
    for header in headers:
        header.private_block(0x0019, "PHANTOM", create=True).add_new(1, "LO", "x")
    image = written(tmp_path, thick(PLACE, volume(SHAPE, PLACE).array), headers)[0]
    for keyword in ("GantryDetectorTilt", "PerformedProcedureStepID", "LargestPixelValueInSeries"):
        assert keyword not in image
    assert not any(tag.group % 2 for tag in image.keys())  # noqa: SIM118


def test_series_description_is_cut_from_the_source_part(tmp_path: Path) -> None:
    """A long source description gives way, the rule's own words never do."""
    headers = ct_headers(*SHAPE, PLACE, SeriesDescription="D" * 64)
    attributes = {"SeriesDescription": "{SeriesDescription} 5mm AX"}
    image = written(tmp_path, thick(PLACE, volume(SHAPE, PLACE).array), headers, attributes)[0]
    assert image.SeriesDescription == "D" * 57 + " 5mm AX"


def test_a_template_cannot_change_the_patient(tmp_path: Path) -> None:
    """A template for Patient ID is refused as broken."""
    with pytest.raises(Broken, match="PatientID"):
        written(tmp_path, volume(SHAPE, PLACE), ct_headers(*SHAPE, PLACE), {"PatientID": "other"})


def test_other_classes_are_refused_in_words(tmp_path: Path) -> None:
    """Derived images of a class we do not write are refused, not mislabelled."""
    headers = ct_headers(*SHAPE, PLACE, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    with pytest.raises(Refused, match="CT, MR, PET and NM"):
        written(tmp_path, volume(SHAPE, PLACE), headers)


def test_two_patients_never_share_an_object(tmp_path: Path) -> None:
    """Sources that differ in Patient ID are refused."""
    headers = ct_headers(*SHAPE, PLACE)
    headers[3].PatientID = "P-2"
    with pytest.raises(Refused, match="PatientID"):
        written(tmp_path, volume(SHAPE, PLACE), headers)


def test_infinite_voxels_are_broken(tmp_path: Path) -> None:
    """NaN in a volume stops the output instead of becoming a number."""
    made = volume(SHAPE, PLACE)
    made.array[0, 0, 0] = np.nan
    with pytest.raises(Broken, match="NaN"):
        written(tmp_path, made, ct_headers(*SHAPE, PLACE))


@pytest.mark.parametrize(
    ("folder", "unit", "count"),
    [
        ("CT/crlm-1004-chest-abdomen", "[hnsf'U]", None),
        ("MR/ibsi-sts002-t1", "1", 8),
        ("PET/qin-headneck-0139", "Bq/ml", 8),
        ("MR/siemens-dti-classic", "1", None),
    ],
)
def test_peers_find_no_fault_that_the_source_has_not(
    tmp_path: Path, folder: str, unit: str, count: int
) -> None:
    """Dciodvfy's errors are a subset of the source's, dcentvfy sees one patient and study, values survive."""
    array, place, headers = sample(folder, count)
    made = thick(place, array, Code(unit, "UCUM", "unit"))
    images = written(tmp_path, made, headers)
    known = complaints(headers[0].filename)
    for image in images[:2]:
        assert complaints(image.filename) <= known
    assert peers.dcentvfy(*(Path(one.filename) for one in [*headers, *images])) == []
    found = np.stack([i.pixel_array * float(i.get("RescaleSlope", 1)) + float(i.get("RescaleIntercept", 0))
                      for i in images])  # fmt: skip
    step = max(1.0, np.abs(made.array).max() / 32767)
    assert np.abs(found - made.array).max() <= step / 2 + 1e-3


def test_pet_keeps_what_decay_correction_rests_on(tmp_path: Path) -> None:
    """Units, series start, earliest acquisition and slice counts of a derived PET series can be computed with."""
    array, place, headers = sample("PET/qin-headneck-0139", 8)
    images = written(tmp_path, thick(place, array, Code("Bq/ml", "UCUM", "Bq/ml")), headers)
    assert images[0].Units == "BQML"
    assert (images[0].SeriesDate, images[0].SeriesTime) == (headers[0].SeriesDate, headers[0].SeriesTime)
    assert min(i.AcquisitionTime for i in images) == min(h.AcquisitionTime for h in headers)
    assert images[0].NumberOfSlices == len(images)
    assert [i.ImageIndex for i in images] == list(range(1, len(images) + 1))
    assert all(i.RescaleIntercept == 0 for i in images)


@pytest.mark.parametrize(
    ("modality", "how", "expected", "code"),
    [
        ("CT", "max", ["DERIVED", "SECONDARY", "AXIAL", "MIP"], "113078"),
        ("CT", "min", ["DERIVED", "SECONDARY", "AXIAL", "MINIP"], "113079"),
        ("CT", "mean", ["DERIVED", "SECONDARY", "AXIAL", "MPR"], "113049"),
        ("MR", "max", ["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "113078"),
    ],
)
def test_a_projection_says_so(
    tmp_path: Path, modality: str, how: str, expected: list[str], code: str
) -> None:
    """A volume whose operator calls it a projection has that flavour and code, and all slices as its sources."""
    sop_class = {"CT": CTImageStorage, "MR": MRImageStorage}[modality]
    sequence = (
        {}
        if modality == "CT"
        else {"ScanningSequence": "GR", "SequenceVariant": "NONE", "RepetitionTime": "500"}
    )
    headers = ct_headers(*SHAPE, PLACE, Modality=modality, SOPClassUID=sop_class, **sequence)
    place = PLACE.copy()
    place[:3, 3] += place[:3, 0] * (SHAPE[0] - 1) / 2
    place[:3, 0] *= SHAPE[0]
    unit = HU if modality == "CT" else Code("1", "UCUM", "no units")
    brightest = volume(SHAPE, PLACE).array.max(axis=0, keepdims=True)
    one = Volume(brightest, place, unit, facts={"projection": how, "slice_thickness": 12.0})
    (image,) = written(tmp_path, one, headers)
    assert list(image.ImageType) == expected
    assert code in {item.CodeValue for item in image.DerivationCodeSequence}
    assert len(image.SourceImageSequence) == SHAPE[0]
    assert complaints(image.filename) == set()
