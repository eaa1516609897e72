"""Secondary captures: classes, values, spacing, times and provenance, judged by pydicom, DCMTK and dicom3tools."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import peers
import pytest
from derive_material import affine, complaints, ct_headers, job
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken
from node.model import Code, Output
from node.operator import Measurement, Picture
from node.read.picture import pictures

PLACE = affine((2.0, 0.7, 0.5))
KELVIN = Code("Cel", "UCUM", "degree Celsius")


def captured(
    tmp_path: Path, picture: Picture, headers: list[Dataset] | None = None, frames: tuple[int, ...] = ()
) -> Dataset:
    """Write *picture* as the only output and read the file back."""
    headers = ct_headers(2, 6, 5, PLACE) if headers is None else headers
    (product,) = write({"shot": picture}, job("shot"), Sources(tuple(headers), frames), tmp_path)
    assert (product.kind, product.index) == ("picture", 1)
    assert complaints(tmp_path / product.path) == set()
    return dcmread(tmp_path / product.path)


def ramp(frames: int, dtype: type = np.uint8) -> np.ndarray:
    """Different values in every pixel and frame, 6 rows by 5 columns."""
    return (np.arange(frames * 30).reshape(frames, 6, 5) * 2).astype(dtype)


@pytest.mark.parametrize(
    ("array", "expected", "bits", "samples"),
    [
        (ramp(1), "Secondary Capture Image Storage", 8, 1),
        (ramp(1, np.uint16) * 100, "Secondary Capture Image Storage", 16, 1),
        (np.stack([ramp(1)] * 3, -1), "Secondary Capture Image Storage", 8, 3),
        (ramp(3), "Multi-frame Grayscale Byte Secondary Capture Image Storage", 8, 1),
        (ramp(3, np.int16) - 500, "Multi-frame Grayscale Word Secondary Capture Image Storage", 16, 1),
        (np.stack([ramp(3)] * 3, -1), "Multi-frame True Color Secondary Capture Image Storage", 8, 3),
    ],
)
def test_class_follows_the_picture(
    tmp_path: Path, array: np.ndarray, expected: str, bits: int, samples: int
) -> None:
    """Frames, depth and colour choose the class of PS3.3 A.8, and another reader gets the same values back."""
    made = captured(tmp_path, Picture(array))
    assert (made.SOPClassUID.name, made.BitsAllocated, made.SamplesPerPixel) == (expected, bits, samples)
    values = made.pixel_array if samples == 3 else apply_modality_lut(made.pixel_array, made)
    assert np.array_equal(values.reshape(array.shape), array)


def test_real_values_come_back(tmp_path: Path) -> None:
    """Temperatures are kept to a 65535th of their range, with unit, window and a sentence on the mapping."""
    array = np.linspace(25.95, 62.32, 30).reshape(1, 6, 5)
    made = captured(tmp_path, Picture(array, KELVIN, facts={"window": (40.0, 10.0)}))
    assert np.abs(apply_modality_lut(made.pixel_array, made) - array[0]).max() < 36.37 / 65535
    assert (float(made.WindowCenter), float(made.WindowWidth)) == (40.0, 10.0)
    mapping = made.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "Cel"
    real = made.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    assert np.abs(real - array[0]).max() < 36.37 / 65535
    assert "shown from 35 to 45 Cel" in made.DerivationDescription


def test_unmeasured_pixels_do_not_set_the_range(tmp_path: Path) -> None:
    """NaN where the picture is not valid is stored as 0; NaN elsewhere is the operator's fault."""
    array = np.linspace(0.0, 1.0, 30).reshape(1, 6, 5)
    array[0, 0, 0] = np.nan
    made = captured(tmp_path, Picture(array, valid=np.isfinite(array)))
    assert made.pixel_array[0, 0] == 0
    assert made.pixel_array[5, 4] == 65535
    assert made.VOILUTFunction == "LINEAR_EXACT"
    with pytest.raises(Broken, match="output shot: the picture holds NaN"):
        captured(tmp_path / "x", Picture(array))


def test_inverted_is_shown_inverted(tmp_path: Path) -> None:
    """MONOCHROME1 keeps one frame's values; several frames, which must be MONOCHROME2, are stored as shown."""
    one = captured(tmp_path / "one", Picture(ramp(1), inverted=True))
    assert one.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(one.pixel_array, ramp(1)[0])
    several = captured(tmp_path / "several", Picture(ramp(2), inverted=True))
    assert (several.PhotometricInterpretation, several.PresentationLUTShape) == ("MONOCHROME2", "IDENTITY")
    assert np.array_equal(several.pixel_array, 255 - ramp(2))
    assert "inverted" in several.DerivationDescription


@pytest.mark.parametrize(
    ("times", "keyword", "value"),
    [
        ([0.0, 40.0, 80.0], "FrameTime", 40.0),
        ([0.0, 40.0, 100.0], "FrameTimeVector", [0.0, 40.0, 60.0]),
        (None, "PageNumberVector", [1, 2, 3]),
        ([0.0, 0.0, 40.0], "PageNumberVector", [1, 2, 3]),
    ],
)
def test_frames_follow_their_times(
    tmp_path: Path, times: list[float] | None, keyword: str, value: object
) -> None:
    """Frame Increment Pointer names what is true: an even time, uneven ones, or only an order."""
    made = captured(tmp_path, Picture(ramp(3), times=None if times is None else np.array(times)))
    assert made.FrameIncrementPointer == made[keyword].tag
    assert made[keyword].value == value


def test_times_must_fit_the_frames(tmp_path: Path) -> None:
    """An operator that gives two times for three frames is told so."""
    with pytest.raises(Broken, match="2 times for 3 frames"):
        captured(tmp_path, Picture(ramp(3), times=np.array([0.0, 1.0])))


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ("patient", {"PixelSpacing": [0.2, 0.1]}),
        ("detector", {"ImagerPixelSpacing": [0.2, 0.1], "PixelAspectRatio": [20000, 10000]}),
        ("", {"PixelAspectRatio": [20000, 10000]}),
    ],
)
def test_spacing_claims_no_more_than_is_known(
    tmp_path: Path, plane: str, expected: dict[str, object]
) -> None:
    """Only a calibrated picture gets Pixel Spacing (PS3.3 10.7.1.3); proportions are kept in every case."""
    headers = ct_headers(2, 6, 5, PLACE)
    (product,) = write(
        {"shot": Picture(ramp(1), spacing=(0.2, 0.1), plane=plane)},
        job("shot"),
        Sources(tuple(headers)),
        tmp_path,
    )
    made = dcmread(tmp_path / product.path)
    keywords = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    assert {k: list(made[k].value) for k in keywords if k in made} == expected


def test_provenance_names_frames(tmp_path: Path) -> None:
    """Frames of one source object are one item with their numbers; image geometry is not taken over."""
    headers = ct_headers(
        2,
        6,
        5,
        PLACE,
        SOPInstanceUID="1.2.3.4.9",
        PatientOrientation=["L", "P"],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
    )
    made = captured(tmp_path, Picture(ramp(1), title="Prüfbild"), headers, (3, 7))
    (item,) = made.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == "1.2.3.4.9"
    assert list(item.ReferencedFrameNumber) == [3, 7]
    assert (made.Modality, made.ConversionType, made.ImageType) == ("CT", "WSD", ["DERIVED", "SECONDARY"])
    assert made.PatientOrientation == ["L", "P"]
    assert made.ImageComments == "Prüfbild"
    assert "ImagePositionPatient" not in made
    assert "FrameOfReferenceUID" not in made


@pytest.mark.parametrize(
    ("facts", "changed", "expected"),
    [
        ({}, {}, "NO"),
        ({"burned_in": True}, {}, "YES"),
        ({}, {"BurnedInAnnotation": "YES"}, "YES"),
        ({"burned_in": False}, {"BurnedInAnnotation": "YES"}, "NO"),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "YES"),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "YES"),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4"}, "NO"),
    ],
)
def test_burned_in_annotation_is_not_denied(
    tmp_path: Path, facts: dict[str, object], changed: dict[str, str], expected: str
) -> None:
    """What the operator or the source says counts; an ultrasound screen that says nothing is not called clean."""
    made = captured(tmp_path, Picture(ramp(1), facts=facts), ct_headers(2, 6, 5, PLACE, **changed))
    assert made.BurnedInAnnotation == expected


@pytest.mark.parametrize(
    "file",
    [
        "CR/mono1-chest/gdcm-CR-MONO1-10-chest.dcm",
        "DX/highdicom-dx/dx_image.dcm",
        "US/philips-3regions/no-pixel-spacing.dcm",
    ],
)
def test_real_pictures_look_the_same(tmp_path: Path, file: str) -> None:
    """A received radiograph or ultrasound image passed through looks in DCMTK's renderer as its source does."""
    source = peers.need_samples(*file.split("/"))
    (loaded,) = pictures([source])
    sources = Sources(loaded.headers, loaded.frames, loaded.value)
    (product,) = write({"shot": loaded.value}, job("shot"), sources, tmp_path)
    path = tmp_path / product.path
    assert complaints(path) <= complaints(source)
    made = dcmread(path)
    options = ["+Wi", "1"] if made.SamplesPerPixel == 1 and "WindowCenter" in loaded.headers[0] else []
    shown = []
    for number, one in enumerate((source, path)):
        png = tmp_path / f"{number}.png"
        subprocess.run(
            [peers.need("dcm2pnm"), "+on", *options, str(one), str(png)], check=True, capture_output=True
        )
        shown.append(np.asarray(Image.open(png).convert("RGB"), float))
    assert np.abs(shown[0] - shown[1]).mean() < 1.0


def test_a_second_run_is_the_same_bytes(tmp_path: Path) -> None:
    """The same picture gives the same file."""
    for folder in ("a", "b"):
        captured(tmp_path / folder, Picture(ramp(3), times=np.array([0.0, 40.0, 80.0])))
    assert (tmp_path / "a/shot/00001.dcm").read_bytes() == (tmp_path / "b/shot/00001.dcm").read_bytes()


def test_nothing_is_silent_about_the_side(tmp_path: Path) -> None:
    """Without body part and laterality an empty Laterality (type 2C, C.7.3.1) says that it is unknown."""
    headers = ct_headers(1, 8, 7, affine((2.0, 0.7, 0.5)), BodyPartExamined=None)
    picture = Picture(np.zeros((1, 8, 7), np.uint8))
    (product,) = write({"shot": picture}, job("shot"), Sources(tuple(headers)), tmp_path)
    made = dcmread(tmp_path / product.path)
    assert made["Laterality"].is_empty
    assert not [line for line in peers.dciodvfy(tmp_path / product.path) if "Laterality" in line]


def test_the_picture_of_a_result_says_that_it_is_one(tmp_path: Path) -> None:
    """A result and its picture are told apart by their series description, the revision stays last."""
    headers = tuple(ct_headers(1, 8, 7, affine((2.0, 0.7, 0.5)), SeriesDescription="CHEST"))
    plain = job("shot", series_numbers={"shot": 1, "shot/picture": 2})
    plan = replace(plain.plan, outputs=(Output("shot", 1, {}, picture=True),))
    measured = [Measurement(Code("118565006", "SCT", "Volume"), 5.0, Code("mm3", "UCUM", "mm3"))]
    products = write({"shot": measured}, replace(plain, plan=plan, revision=2), Sources(headers), tmp_path)
    said = {p.kind: dcmread(tmp_path / p.path).SeriesDescription for p in products}
    assert said == {"report": "CHEST shot (rev 2)", "picture": "CHEST shot (picture) (rev 2)"}
