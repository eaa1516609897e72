"""Reading a series as a volume: true geometry, true values, and refusals in words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import Dataset, dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)
from volume_phantoms import Change, series

from node.errors import Broken, Refused
from node.read.volume import load

SAMPLES = Path(os.environ.get("PACSNODE_SAMPLES", Path(__file__).parents[3] / "shared" / "samples"))
with_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample images in {SAMPLES}")


def sample(folder: str) -> list[Path]:
    """Every image of a sample series, in file order."""
    paths = sorted(p for p in (SAMPLES / folder).rglob("*") if p.is_file())
    return [p for p in paths if dcmread(p, specific_tags=["Modality"]).Modality != "SEG"]


@pytest.mark.parametrize("angle", [0.0, 33.0, 140.0])
def test_geometry_and_values_are_those_of_itk(tmp_path: Path, angle: float) -> None:
    """SimpleITK's series reader puts every voxel of an (oblique) stack where we do, to 2e-5 of a voxel."""
    paths = series(tmp_path, angle=angle)
    ours = load(paths).value
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    theirs = sitk.ReadImage(names)
    for index in [(0, 0, 0), (3, 4, 5), (2, 1, 3)]:
        place = ours.affine @ [*index, 1]
        at = theirs.TransformPhysicalPointToContinuousIndex(place[:3].tolist())
        assert np.allclose(at[::-1], index, atol=2e-5)
        assert ours.array[index] == theirs[index[::-1]]


def test_the_affine_follows_the_standard(tmp_path: Path) -> None:
    """Voxel (k, j, i) lies at S + i·Δi·X + j·Δj·Y with the position of its own slice (PS3.3 C.7.6.2.1.1)."""
    loaded = load(series(tmp_path, angle=33))
    for k, header in enumerate(loaded.headers):
        x, y = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = header.PixelSpacing
        expected = (
            np.array(header.ImagePositionPatient, float) + 4 * between_columns * x + 3 * between_rows * y
        )
        assert np.allclose((loaded.value.affine @ [k, 3, 4, 1])[:3], expected, atol=1e-5)


def test_headers_come_in_slice_order_without_pixels(tmp_path: Path) -> None:
    """Header k belongs to slice k, whatever the file names; pixel data is not held twice."""
    loaded = load(series(tmp_path))
    assert [int(h.InstanceNumber) for h in loaded.headers] == [1, 2, 3, 4]
    assert all("PixelData" not in h for h in loaded.headers)
    assert loaded.value.array[:, 0, 0].tolist() == [-1000, -900, -800, -700]


@with_samples
@pytest.mark.parametrize(
    ("folder", "shape", "unit"),
    [
        ("CT/crlm-1004-chest-abdomen", (8, 512, 512), "[hnsf'U]"),
        ("MR/ibsi-sts002-t1", (35, 90, 115), "1"),
        ("PET/qin-headneck-0139", (76, 168, 168), "Bq/ml"),
        ("PET/sts003-gml", (51, 30, 29), "g/ml{SUVbw}"),
        ("PHANTOM/ibsi2-checkerboard", (64, 64, 64), "[hnsf'U]"),
    ],
)
def test_real_series_agree_with_itk(folder: str, shape: tuple[int, ...], unit: str) -> None:
    """Real CT, MR and PET (slope per slice) give ITK's values to float32 accuracy on ITK's grid."""
    paths = sample(folder)
    volume = load(paths).value
    names = sorted(paths, key=lambda p: float(dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]))
    theirs = [sitk.ReadImage(str(name)) for name in names]
    assert volume.array.shape == shape
    assert volume.unit.value == unit
    assert volume.array.dtype == np.float32
    for k, slice_ in enumerate(theirs):
        assert np.allclose(volume.array[k], sitk.GetArrayFromImage(slice_)[0], rtol=1e-6, atol=1e-6)
        assert np.allclose((volume.affine @ [k, 0, 0, 1])[:3], slice_.GetOrigin(), atol=0.02)


@with_samples
def test_padding_outside_the_field_of_view_is_not_valid() -> None:
    """The GE chest CT's padding (-2000 stored, -3024 HU) is invalid; everything else is measured."""
    volume = load(sample("CT/crlm-1004-chest-abdomen")).value
    assert volume.valid is not None
    assert np.array_equal(volume.valid, volume.array > -3024)
    assert volume.array[volume.valid].min() >= -1024


@with_samples
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("CT/slice-increment-error", "mostly 5 mm apart, but 10 mm between slices 3 and 4 of 4"),
        ("MR/ge-dti-002", "lie where another image lies"),
        ("PET/acrin-flt", "frame of reference"),
        ("CR/wg04-rg2-hip", "Computed Radiography Image Storage is no stack of slices"),
        ("US/esaote-calibrated", "is no stack of slices"),
    ],
)
def test_real_series_that_are_no_stack_are_refused(folder: str, words: str) -> None:
    """Gaps, several images at one place, mixed patients' frames, projections: each refused in words."""
    with pytest.raises(Refused) as refusal:
        load(sample(folder))
    assert words in str(refusal.value)


def _position(ds: Dataset, offset: tuple[float, float, float]) -> None:
    ds.ImagePositionPatient = [
        f"{float(p) + o:.6f}" for p, o in zip(ds.ImagePositionPatient, offset, strict=True)
    ]


REFUSALS: dict[str, tuple[Change, str]] = {
    "gap": (
        lambda ds, k: k == 3 and _position(ds, (0, 0, 2)),
        "not evenly spaced: mostly 2 mm apart, but 4 mm",
    ),
    "uneven": (lambda ds, k: k == 1 and _position(ds, (0, 0, 0.3)), "not evenly spaced"),
    "same place": (lambda ds, k: k == 1 and _position(ds, (0, 0, 2)), "2 of 4 images lie where another"),
    "wandering": (lambda ds, k: _position(ds, (0, 0.3 * k * k, 0)), "step sideways, but not evenly"),
    "lying": (lambda ds, k: _position(ds, (0, 3.0 * k, 0)), "step sideways at 56°"),
    "orientation": (
        lambda ds, k: k == 2 and setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
        "different orientations",
    ),
    "skewed": (lambda ds, k: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0]), "perpendicular"),
    "spacing": (lambda ds, k: k == 2 and setattr(ds, "PixelSpacing", [0.8, 0.7]), "different PixelSpacing"),
    "zero spacing": (lambda ds, k: setattr(ds, "PixelSpacing", [0, 0.7]), "not greater than 0"),
    "matrix": (lambda ds, k: k == 2 and setattr(ds, "Rows", 4), "2 different Rows"),
    "no position": (
        lambda ds, k: k == 2 and delattr(ds, "ImagePositionPatient"),
        "no usable ImagePositionPatient",
    ),
    "empty spacing": (lambda ds, k: setattr(ds, "PixelSpacing", None), "no usable PixelSpacing"),
    "frame": (lambda ds, k: k == 2 and setattr(ds, "FrameOfReferenceUID", "1.2"), "one frame of reference"),
    "class": (
        lambda ds, k: k == 2 and setattr(ds, "SOPClassUID", MRImageStorage),
        "different kinds (CT Image",
    ),
    "rescale type": (lambda ds, k: k == 2 and setattr(ds, "RescaleType", "US"), "RescaleType is US, absent"),
    "unknown type": (lambda ds, k: setattr(ds, "RescaleType", "ODD"), "RescaleType is ODD"),
    "slope": (lambda ds, k: setattr(ds, "RescaleSlope", 0), "give no values"),
    "no slope": (lambda ds, k: setattr(ds, "RescaleSlope", None), "present but empty"),
    "pixels": (lambda ds, k: k == 2 and delattr(ds, "PixelData"), "pixels of image 3"),
    "short": (lambda ds, k: k == 2 and setattr(ds, "PixelData", b"\0" * 20), "pixels of image 3"),
    "frames": (
        lambda ds, k: setattr(ds, "NumberOfFrames", 3),
        "multi-frame object (CT Image Storage, 3 frames)",
    ),
    "colour": (lambda ds, k: setattr(ds, "PhotometricInterpretation", "RGB"), "not grey"),
    "palette": (lambda ds, k: setattr(ds, "PhotometricInterpretation", "PALETTE COLOR"), "takes a Picture"),
    "no scale": (
        lambda ds, k: [delattr(ds, k) for k in ("RescaleSlope", "RescaleIntercept")],
        "RescaleSlope and RescaleIntercept are absent",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_regular_stack_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """Each way of not being one even, parallel, grey stack gives its own sentence."""
    change, words = REFUSALS[name]
    with pytest.raises(Refused) as refusal:
        load(series(tmp_path, change))
    assert words in str(refusal.value)


def test_decimal_rounding_is_no_gap(tmp_path: Path) -> None:
    """Positions written with one decimal (off by 0.05 mm) still make an even stack."""
    paths = series(tmp_path, lambda ds, k: k % 2 and _position(ds, (0.05, 0, -0.05)), count=6)
    assert load(paths).value.spacing[0] == pytest.approx(2, abs=0.02)


def test_a_lone_slice_is_as_deep_as_its_thickness(tmp_path: Path) -> None:
    """One image makes a volume of one slice with Slice Thickness as its depth, and is refused without one."""
    assert load(series(tmp_path, count=1)).value.spacing[0] == 2
    with pytest.raises(Refused, match="no SliceThickness"):
        load(series(tmp_path, lambda ds, k: delattr(ds, "SliceThickness"), count=1))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_slices_have_the_same_values(tmp_path: Path, syntax: str) -> None:
    """RLE, JPEG-LS and JPEG 2000 lossless decode to the values of the uncompressed file."""

    def grow(ds: Dataset, k: int) -> None:  # JPEG 2000 needs more than 5 x 6 pixels
        stored = np.frombuffer(ds.PixelData, "<i2").reshape(5, 6)
        ds.PixelData = np.tile(stored, (13, 11)).tobytes()
        ds.Rows, ds.Columns = 65, 66
        ds.PixelRepresentation = int(syntax == RLELossless)

    def compress(ds: Dataset, k: int) -> None:
        grow(ds, k)
        ds.compress(syntax, generate_instance_uid=False)

    plain = load(series(tmp_path, grow)).value.array
    assert plain[2, 64, 65] == 29 + 200 - 1000
    assert np.array_equal(load(series(tmp_path, compress)).value.array, plain)


def test_a_syntax_without_decoder_is_refused_by_name(tmp_path: Path) -> None:
    """Pixels in a syntax that nothing here decodes are refused, naming the syntax."""

    def video(ds: Dataset, k: int) -> None:
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    with pytest.raises(Refused, match=r"MPEG-4 AVC.*cannot be decoded"):
        load(series(tmp_path, video))


@pytest.mark.parametrize(
    ("value", "vr", "signed", "limit"), [(-900, "SS", 1, None), (64636, "US", 1, None), (0, "US", 0, 3)]
)
def test_padding_is_compared_as_the_pixels_are_stored(
    tmp_path: Path, value: int, vr: str, signed: int, limit: int | None
) -> None:
    """A padding value written in the other signedness, and a padding range, mark exactly those pixels."""

    def pad(ds: Dataset, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<i2").copy()
        if signed:
            stored[:4] = -900
        elif k:
            stored += 100
        ds.PixelData, ds.PixelRepresentation = stored.tobytes(), signed
        ds.add_new(0x00280120, vr, value)
        if limit is not None:
            ds.add_new(0x00280121, vr, limit)

    valid = load(series(tmp_path, pad)).value.valid
    assert valid is not None
    slices = 4 if signed else 1
    assert np.count_nonzero(~valid) == 4 * slices
    assert not valid[:slices, 0, :4].any()


def test_pet_uses_the_slope_of_each_slice(tmp_path: Path) -> None:
    """Slice k with slope k + 1 has values in becquerel times k + 1 (PS3.3 C.8.9.4)."""

    def pet(ds: Dataset, k: int) -> None:
        ds.Units, ds.RescaleSlope, ds.RescaleIntercept = "BQML", k + 1, 0

    volume = load(series(tmp_path, pet, sop=PositronEmissionTomographyImageStorage)).value
    assert volume.array[:, 0, 1].tolist() == [1, 202, 603, 1204]
    assert (volume.unit.value, volume.facts["modality"]) == ("Bq/ml", "PT")


def test_a_file_that_is_not_dicom_needs_a_person(tmp_path: Path) -> None:
    """Bytes that changed after reception, or a lost file, are Broken, not Refused."""
    junk = tmp_path / "junk.dcm"
    junk.write_bytes(b"nothing of the kind")
    with pytest.raises(Broken, match="not a DICOM file"):
        load([junk])
    with pytest.raises(Broken, match="cannot be read"):
        load([tmp_path / "gone.dcm"])


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        (
            (0, 2, 4, 8),
            "4 mm between slices 3 and 4 of 4; an image seems to be missing there, send the series",
        ),
        ((0, 2, 4, 12), "8 mm between slices 3 and 4 of 4; 3 images seem to be missing there"),
        ((0, 2, 4, 5), "1 mm between slices 3 and 4 of 4; reconstruct the series with one increment"),
        ((0, 2, 4, 7.2), "3.2 mm between slices 3 and 4 of 4; reconstruct the series with one increment"),
    ],
)
def test_an_uneven_stack_is_told_what_would_mend_it(
    tmp_path: Path, offsets: tuple[float, ...], words: str
) -> None:
    """A step of whole increments is a missing image; any other is an uneven reconstruction. Nothing is bent to fit."""

    def change(ds: Dataset, k: int) -> None:
        _position(ds, (0, 0, offsets[k] - 2 * k))

    with pytest.raises(Refused) as refusal:
        load(series(tmp_path, change))
    assert words in str(refusal.value)
