"""Reading pictures: true colours, true values, and a scale only where the object states one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    MPEG2MPML,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    NuclearMedicineImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

from node.errors import Refused
from node.operator import NO_UNITS, Picture
from node.read.loaded import Loaded
from node.read.palette import palette
from node.read.picture import pictures
from node.read.series import parts

Change = Callable[[Dataset], Any]
STORED = np.arange(20, dtype=np.uint16).reshape(4, 5)


def picture(folder: Path, stored: np.ndarray = STORED, number: int = 1, **changed: Any) -> Path:
    """A grey capture of *stored*; *changed* attributes are set, None removes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = changed.pop("syntax", ExplicitVRLittleEndian)
    for keyword, value in {
        "SOPClassUID": SecondaryCaptureImageStorage, "SOPInstanceUID": generate_uid(), "InstanceNumber": number,
        "Modality": "OT", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2], "Columns": stored.shape[-1], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 0, **changed,
    }.items():  # fmt: skip
        if value is not None:
            setattr(ds, keyword, value)
    data = stored.astype("<u2").tobytes()
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        ds.PixelData = encapsulate([data])
        ds["PixelData"].VR = "OB"
    else:
        ds.add_new("PixelData", "OW", data)
    path = folder / f"{9 - number}.dcm"  # file order is not instance order
    ds.save_as(path, enforce_file_format=True)
    return path


def read(path: Path) -> Loaded[Picture]:
    """The one picture at *path*."""
    return next(pictures([path]))


def item(**attributes: Any) -> Dataset:
    """A sequence item."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    "name",
    [
        "CR/mono1-chest/gdcm-CR-MONO1-10-chest.dcm", "CR/wg04-rg2-hip/RG2_J2KR", "DX/highdicom-dx/dx_image.dcm",
        "XA/rubo-coronary/jpeg_baseline_8bit.dcm", "NM/bone-scan-wg04/NM1_J2KR",
        "NM/spect-heart/NM-MONO2-16-13x-heart",
    ],
)  # fmt: skip
def test_grey_values_are_what_simpleitk_reads(name: str) -> None:
    """Radiographs, a 96-frame angiogram and scintigrams, J2K and JPEG: every pixel as ITK's GDCM decodes it."""
    path = peers.need_samples(*name.split("/"))
    found = read(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    values = sitk.GetArrayFromImage(reader.Execute())
    if found.value.inverted:  # ITK shows MONOCHROME1 as MONOCHROME2: it counts down from the largest value
        values = (1 << int(found.headers[0].BitsStored)) - 1 - values.astype(int)
    # JPEG decoders may round to either side (ISO/IEC 10918-2); everything else is exact.
    off = 1 if found.headers[0].file_meta.TransferSyntaxUID == JPEGBaseline8Bit else 0
    assert np.abs(found.value.array - values.reshape(found.value.array.shape)).max() <= off
    assert len(found.headers) == len(found.frames) == len(found.value.array)


@pytest.mark.parametrize(
    "name",
    [
        "ES/wg04-endoscopy/VL1_J2KR", "US/ge-power-doppler-wg04/US1_J2KR", "US/esaote-calibrated/YBR_422.dcm",
        "US/echo-cine-palette/US-PAL-8-10x-echo", "US/philips-3regions/no-pixel-spacing.dcm",
    ],
)  # fmt: skip
def test_colours_are_what_simpleitk_reads(name: str) -> None:
    """YBR_RCT, YBR_FULL_422 in JPEG, and palettes become the RGB that ITK's GDCM gives, to rounding."""
    path = peers.need_samples(*name.split("/"))
    found = read(path).value
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    if values.dtype == np.uint16:
        values = values >> 8
    assert found.array.dtype == np.uint8
    assert np.abs(found.array.reshape(values.shape).astype(int) - values).max() <= 3


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_ybr_full_422_uncompressed.dcm",
                                  "SC_rgb_rle_2frame.dcm", "color-pl.dcm", "US1_J2KI.dcm"])  # fmt: skip
def test_colour_encodings_are_those_of_pydicom(name: str) -> None:
    """YBR_FULL, uncompressed 4:2:2, two RLE frames, planes one after the other, YBR_ICT: as pydicom converts."""
    path = Path(str(get_testdata_file(name)))
    found = read(path).value
    dataset = dcmread(path)
    np.testing.assert_array_equal(found.array, dataset.pixel_array.reshape(found.array.shape))


def test_sixteen_bit_colours_keep_their_high_byte() -> None:
    """RGB of 16 bits becomes 8 bits by its high byte (pydicom's sample of the same chart in 8 bits)."""
    long = read(Path(str(get_testdata_file("SC_rgb_16bit.dcm")))).value
    stored = dcmread(str(get_testdata_file("SC_rgb_16bit.dcm"))).pixel_array
    np.testing.assert_array_equal(long.array[0], stored >> 8)


@pytest.mark.parametrize("name", ["gdcm-US-ALOKA-16.dcm", "examples_palette.dcm", "OBXXXX1A_2frame.dcm"])
def test_palettes_are_those_of_pydicom(name: str) -> None:
    """A segmented 16-bit palette and plain ones give pydicom's colours, cut to 8 bits."""
    path = str(get_testdata_file(name))
    dataset = dcmread(path)
    expected = apply_color_lut(dataset.pixel_array, dataset) >> 8
    found = read(Path(path)).value.array
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def _palette(bits: int, segments: list[int]) -> Dataset:
    """A header whose three lookup tables are the same segments, for 8 stored values from 2 on."""
    ds = Dataset()
    ds.set_original_encoding(False, True)
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [8, 2, bits])
        data = np.array(segments, "<u2" if bits == 16 else "u1").tobytes()
        ds.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", data)
    return ds


def test_segments_expand_as_the_standard_says() -> None:
    """Discrete, linear and indirect segments (C.7.9.2), and stored values outside take the table's ends."""
    table = palette(_palette(16, [0, 2, 0, 0x0A00, 1, 2, 0x1400, 2, 1, 2 + 2, 0, 0, 2, 0xFF00, 0]))
    grown = [0x00, 0x0A, 0x0F, 0x14, 0x14, 0x14, 0xFF, 0x00]
    assert table.entries[:, 0].tolist() == grown
    assert table.of(np.array([0, 2, 3, 9, 200]))[:, 2].tolist() == [0, 0, 0x0A, 0, 0]


def test_eight_bit_segments_stay_eight_bits() -> None:
    """A ramp in one linear segment of 8-bit entries is a ramp."""
    table = palette(_palette(8, [0, 1, 10, 1, 7, 80]))
    assert table.entries[:, 1].tolist() == [10, 20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize("segments", [[9, 1, 1, 1], [1, 2, 3, 0], [0, 2, 1, 2]])
def test_a_broken_palette_is_refused(segments: list[int]) -> None:
    """An unknown segment, a line from nowhere, and too few entries are refused."""
    with pytest.raises(Refused, match=r"palette|lookup table"):
        palette(_palette(16, segments))


def test_rescale_and_padding(tmp_path: Path) -> None:
    """Values are rescaled, and padded pixels are told from measured ones."""
    found = read(picture(tmp_path, RescaleSlope="0.5", RescaleIntercept="-2", PixelPaddingValue=3)).value
    np.testing.assert_allclose(found.array[0], STORED * 0.5 - 2)
    assert found.valid is not None
    assert np.argwhere(~found.valid).tolist() == [[0, 0, 3]]
    assert found.unit == NO_UNITS


def test_monochrome1_keeps_its_values(tmp_path: Path) -> None:
    """MONOCHROME1 says how to show, not what was measured: the values stay, the picture says inverted."""
    found = read(picture(tmp_path, PhotometricInterpretation="MONOCHROME1")).value
    np.testing.assert_array_equal(found.array[0], STORED)
    assert found.inverted


def test_a_modality_table_is_applied() -> None:
    """The Modality LUT Sequence of a real object gives what pydicom's apply_modality_lut gives."""
    path = str(get_testdata_file("mlut_18.dcm"))
    dataset = dcmread(path)
    expected = apply_modality_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(read(Path(path)).value.array[0], expected)


def test_a_real_world_mapping_names_the_unit(tmp_path: Path) -> None:
    """A thermogram's mapping (0.1 Cel per step from 20) gives degrees Celsius, where rescale says nothing."""
    unit = item(CodeValue="Cel", CodingSchemeDesignator="UCUM", CodeMeaning="degree Celsius")
    mapping = item(LUTLabel="TEMPERATURE", LUTExplanation="t", MeasurementUnitsCodeSequence=[unit])
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.1, 20.0
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", 18)
    found = read(picture(tmp_path, Modality="TG", RealWorldValueMappingSequence=[mapping])).value
    assert found.unit.value == "Cel"
    np.testing.assert_allclose(found.array[0], STORED * 0.1 + 20, rtol=1e-6)
    assert found.valid is not None
    assert not found.valid[0, 3, 4]  # 19 is beyond what the mapping covers


DX = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
IPS = {"ImagerPixelSpacing": ["0.2", "0.2"]}
SPACINGS: Mapping[str, tuple[dict[str, Any], Any, str]] = {
    "nothing stated": ({**DX}, None, ""),
    "detector only": ({**DX, **IPS}, (0.2, 0.2), "detector"),
    "not corrected": ({**DX, **IPS, "PixelSpacing": ["0.2", "0.2"]}, (0.2, 0.2), "detector"),
    "corrected, nobody says how": ({**DX, **IPS, "PixelSpacing": ["0.15", "0.15"]}, (0.15, 0.15), ""),
    "calibrated": (
        {**DX, **IPS, "PixelSpacing": ["0.16", "0.16"], "PixelSpacingCalibrationType": "FIDUCIAL"},
        (0.16, 0.16), "patient",
    ),
    "magnification known": (
        {**DX, **IPS, "EstimatedRadiographicMagnificationFactor": "1.25"}, (0.16, 0.16), "patient",
    ),
    "old CR": ({"Modality": "CR", "PixelSpacing": ["0.2", "0.2"]}, (0.2, 0.2), ""),
    "film": ({"Modality": "OT", "NominalScannedPixelSpacing": ["0.1", "0.1"]}, (0.1, 0.1), "detector"),
    "scintigram": ({"Modality": "NM", "PixelSpacing": ["2", "3"]}, (2.0, 3.0), "patient"),
    "photograph with a ruler": (
        {"Modality": "XC", "PixelSpacing": ["0.05", "0.05"], "PixelSpacingCalibrationType": "FIDUCIAL"},
        (0.05, 0.05), "patient",
    ),
    "photograph": ({"Modality": "XC"}, None, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SPACINGS)
def test_spacing_is_said_with_its_plane(tmp_path: Path, case: str) -> None:
    """PS3.3 10.7.1.3: in the patient only where calibrated or the magnification is stated, else where it is."""
    attributes, spacing, plane = SPACINGS[case]
    found = read(picture(tmp_path, **attributes)).value
    assert (found.spacing is None) == (spacing is None)
    if spacing is not None:
        np.testing.assert_allclose(found.spacing, spacing, rtol=1e-12)
    assert found.plane == plane


def test_the_shape_of_pixels_is_told_where_their_size_is_not(tmp_path: Path) -> None:
    """A Pixel Aspect Ratio other than 1 stands in the facts: lengths across and down may not be compared."""
    found = read(picture(tmp_path, PixelAspectRatio=["4", "3"])).value
    assert found.facts["pixel_aspect_ratio"] == (4.0, 3.0)
    assert found.spacing is None


def test_a_negative_region_delta_is_kept_and_the_spacing_is_positive() -> None:
    """The Acuson cine's second region has a delta of -0.0525 cm: signed there, 0.525 mm as spacing."""
    path = peers.need_samples("US", "acuson-cine-negative-delta", "DIRW0007")
    found = read(path).value
    other, tissue = found.regions
    assert (other.kind, [u.value for u in other.units]) == ("OTHER", ["1", "1"])
    assert tissue.kind == "2D"
    assert tissue.delta == pytest.approx((0.052478133506629575, -0.052478133506629575))
    assert (tissue.reference, tissue.reference_value) == ((0, 261), pytest.approx((0.0, 13.69679284523032)))
    assert found.spacing == pytest.approx((0.52478, 0.52478), abs=1e-5)
    assert found.plane == "patient"


def test_regions_that_are_no_tissue_do_not_calibrate() -> None:
    """The Philips image calibrates by its one 2D region; its two waveform regions are in seconds."""
    found = read(peers.need_samples("US", "philips-3regions", "no-pixel-spacing.dcm")).value
    assert [r.kind for r in found.regions] == ["2D", "WAVEFORM", "WAVEFORM"]
    assert [u.value for u in found.regions[1].units] == ["1", "s"]
    assert found.spacing == pytest.approx((0.33054, 0.33054), abs=1e-5)
    assert found.regions[0].box == (60, 120, 519, 800)  # written to column 800 of 800: cut to the image


def test_two_regions_of_tissue_have_no_common_scale() -> None:
    """The dual Aloka image has two tissue regions: each its own delta, the picture none."""
    found = read(peers.need_samples("US", "aloka-palette", "gdcm-US-ALOKA-16.dcm")).value
    assert [r.kind for r in found.regions] == ["2D", "2D", "OTHER"]
    assert found.spacing is None


@pytest.mark.parametrize(
    ("attributes", "times"),
    [
        ({"FrameTime": "40"}, [0.0, 40.0, 80.0]),
        ({"FrameTimeVector": ["0", "30", "50"]}, [0.0, 30.0, 80.0]),
        ({"FrameTimeVector": ["33", "30", "50"]}, [0.0, 30.0, 80.0]),  # a first increment is no pause
        ({"CineRate": 25}, [0.0, 40.0, 80.0]),
        ({"RecommendedDisplayFrameRate": 50}, [0.0, 20.0, 40.0]),
        ({}, None),
    ],
)
def test_frames_have_their_times(
    tmp_path: Path, attributes: dict[str, Any], times: list[float] | None
) -> None:
    """Milliseconds from the first frame, by Frame Time (Vector) before display rates; else unknown."""
    found = read(picture(tmp_path, np.stack([STORED] * 3), NumberOfFrames=3, **attributes))
    assert found.frames == (1, 2, 3)
    assert found.headers[0] is found.headers[2]
    stated = found.value.times
    assert times is None if stated is None else stated.tolist() == times


def test_frames_of_a_functional_group_object_have_their_own_headers() -> None:
    """Each frame of an Enhanced CT has its window and mapping lifted to the top, and the object's class."""
    found = read(peers.need_samples("CT", "enhanced-ct", "eCT_Supplemental.dcm"))
    assert found.frames == (1, 2)
    assert found.headers[0] is not found.headers[1]
    assert "ImagePositionPatient" in found.headers[1]
    assert found.headers[1].SOPClassUID.name == "Enhanced CT Image Storage"
    assert found.value.array.shape == (2, 512, 512)
    assert all("PixelData" not in header for header in found.headers)


def test_views_of_a_scintigram_are_told_by_frame(tmp_path: Path) -> None:
    """Anterior and posterior heads of a planar scan are named per frame: the geometric mean needs them."""
    heads = [
        item(ViewCodeSequence=[item(CodeValue=v, CodingSchemeDesignator="SCT", CodeMeaning=m)])
        for v, m in (("255549009", "Anterior"), ("255551008", "Posterior"))
    ]
    path = picture(
        tmp_path, np.stack([STORED] * 2), SOPClassUID=NuclearMedicineImageStorage, Modality="NM",
        NumberOfFrames=2, DetectorVector=[1, 2], DetectorInformationSequence=heads, ActualFrameDuration=60000,
    )  # fmt: skip
    found = read(path).value
    assert found.facts["views"] == ("Anterior", "Posterior")
    assert found.facts["frame_duration"] == 60000
    assert found.unit.value == "{counts}"


def test_facts_of_a_radiograph() -> None:
    """The exposure indices in the DX sample's header (EI 176, EIT 876, DI -7) stand in the facts."""
    facts = read(peers.need_samples("DX", "highdicom-dx", "dx_image.dcm")).value.facts
    names = ("exposure_index", "target_exposure_index", "deviation_index", "window", "lossy", "laterality")
    assert [facts[name] for name in names] == [176.0, 876.0, -7.0, (128.0, 256.0), False, "L"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SOPClassUID": VLWholeSlideMicroscopyImageStorage}, "whole slide"),
        ({"SOPClassUID": ParametricMapStorage}, "parametric map"),
        ({"syntax": MPEG2MPML}, "video"),
        ({"Rows": None}, "holds no image"),
        ({"PhotometricInterpretation": "HSV"}, "HSV in 1 samples"),
        ({"SamplesPerPixel": 4}, "in 4 samples"),
        ({"NumberOfFrames": 7}, "missing or cannot be decoded|7 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "Descriptor is missing"),
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "give no values"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """Slides, maps, videos, unknown colours and missing frames are refused, each with its reason."""
    with pytest.raises(Refused, match=words):
        read(picture(tmp_path, **changed))


def test_a_refused_picture_leaves_the_next_one(tmp_path: Path) -> None:
    """Three pictures, the second a video: it raises at its turn, by Instance Number, the third is read."""
    paths = [picture(tmp_path, STORED + k, k, syntax=MPEG2MPML if k == 2 else ExplicitVRLittleEndian)
             for k in (3, 1, 2)]  # fmt: skip
    found = pictures(paths)
    assert next(found).value.array[0, 0, 0] == 1
    with pytest.raises(Refused, match="video"):
        next(found)
    assert next(found).value.array[0, 0, 0] == 3


def test_each_part_of_a_series_is_loaded_by_itself(tmp_path: Path) -> None:
    """What a worker gets are parts in order; the one that is refused says so when loaded, the others load."""
    paths = [picture(tmp_path, STORED + k, k, syntax=MPEG2MPML if k == 1 else ExplicitVRLittleEndian)
             for k in (2, 1)]  # fmt: skip
    first, second = parts("Picture", paths, (), "run")
    assert (first.label, second.label) == ("", "")
    with pytest.raises(Refused, match="video"):
        first.load()
    assert second.load().value.array[0, 0, 0] == 2
