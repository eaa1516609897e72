"""Claims about single values: bytes to text by VR, and the facts in which vendors differ."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from node.model import Cell, Header
from node.read.header import arrival_of_file, read_header
from node.read.pixels import same_pixels
from node.read.values import encodings_of, values_of
from node.read.vendor import own_facts
from node.reader import header_from_json, header_to_json
from node.testing import Grid, Series, body_volume, write_ct_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is meant here
LATIN = ("iso8859",)


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("CS", b"CT", ("CT",)),
        ("CS", b"ORIGINAL\\PRIMARY \\ AXIAL", ("ORIGINAL", "PRIMARY", "AXIAL")),
        ("CS", b"A\\\\B", ("A", "", "B")),  # an empty value in the middle keeps its place
        ("UI", b"1.2.3\0", ("1.2.3",)),
        ("UI", b"1.2\\1.3\0", ("1.2", "1.3")),
        ("LO", b"  ", ()),
        ("LO", b"", ()),
        ("LO", b"\0\0", ()),
        ("LT", b" two\\words ", (" two\\words",)),  # a backslash is part of such a text (PS3.5 6.2)
        ("DS", b"1.5 \\-2", ("1.5", "-2")),
        ("US", struct.pack("<2H", 1, 65535), ("1", "65535")),
        ("SS", struct.pack("<h", -3), ("-3",)),
        ("FL", struct.pack("<f", 0.1), ("0.1",)),
        ("FD", struct.pack("<d", 0.1), ("0.1",)),
        ("US", b"\1", ()),  # half a number is none
        ("AT", struct.pack("<4H", 0x18, 0x9087, 0x28, 0x10), ("00189087", "00280010")),
        ("UN", b"1000 ", ("1000",)),
        ("UN", b"\1\2\3\4", None),
        ("OB", b"abc", None),
        ("ZZ", b"abc", None),
    ],
)
def test_bytes_become_the_text_a_rule_compares(vr: str, raw: bytes, expected: tuple[str, ...] | None) -> None:
    """Values in order, padding gone, numbers as people write them; bulk and unknown types say nothing."""
    assert values_of(vr, raw, LATIN, True) == expected


def test_big_endian_numbers_are_read_as_such() -> None:
    """The byte order is the transfer syntax's."""
    assert values_of("US", b"\1\0", LATIN, False) == ("256",)
    assert values_of("US", b"\1\0", LATIN, True) == ("1",)


vrs = st.sampled_from(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "OB",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "SV",
        "TM",
        "UC",
        "UI",
        "UL",
        "UN",
        "UR",
        "US",
        "UT",
        "UV",
        "ZZ",
    ]
)
charsets = st.lists(
    st.sampled_from(
        ["", "ISO_IR 100", "ISO_IR 192", "GB18030", "ISO 2022 IR 87", "ISO 2022 IR 149", "\\", "x"]
    ),
    max_size=3,
)


@given(vrs, st.binary(max_size=60), charsets, st.booleans())
def test_no_bytes_raise(vr: str, raw: bytes, declared: list[str], little: bool) -> None:
    """Any bytes under any VR and character set give values or None."""
    values = values_of(vr, raw, encodings_of(tuple(declared)), little)
    assert values is None or all("\0" not in value for value in values)


def facts(**attributes: object) -> Mapping[str, Cell]:
    """Facts of ours about an object with these values."""
    return own_facts({k: ((v,),) if isinstance(v, str) else v for k, v in attributes.items()})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ("1 0 0 0 1 0", "axial"),
        ("1 0 0 0 0.9455 0.3256", "axial"),  # 19°
        ("1 0 0 0 0.85 0.53", "oblique"),  # 32°
        ("1 0 0 0 0 -1", "coronal"),
        ("0 1 0 0 0 -1", "sagittal"),
        ("1 0 0", None),
        ("a b c d e f", None),
        ("nan 0 0 0 nan 0", "oblique"),
    ],
)
def test_planes_are_called_as_radiologists_call_them(orientation: str, expected: str | None) -> None:
    """Within 20° of a main plane it has that plane's name."""
    found = facts(ImageOrientationPatient=(tuple(orientation.split()),))
    assert found.get("orientation") == (((expected,),) if expected else None)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"DiffusionBValue": "800"}, "800"),
        ({"(0043,xx39) GEMS_PARM_01": (("1000000800", "8", "0", "0"),)}, "800"),  # GE adds 10⁹
        ({"(0043,xx39) GEMS_PARM_01": (("50", "8"),)}, "50"),
        ({"(0019,xx0C) SIEMENS MR HEADER": "1000"}, "1000"),
        ({"(2001,xx03) Philips Imaging DD 001": "1300"}, "1300"),
        ({"DiffusionBValue": "0", "(0019,xx0C) SIEMENS MR HEADER": "5"}, "0"),  # the standard's first
        ({"Manufacturer": "GE MEDICAL SYSTEMS", "(0043,1039)": (("700", "8"),)}, "700"),
        ({"Manufacturer": "SIEMENS", "(0043,1039)": (("700", "8"),)}, None),  # not theirs
        ({"(0019,100C)": "700"}, None),  # nobody's
        ({"DiffusionBValue": "much"}, None),
        ({}, None),
    ],
)
def test_the_b_value_is_found_where_each_vendor_keeps_it(
    attributes: dict[str, object], expected: str | None
) -> None:
    """DICOM's own place first, then the vendors' private ones."""
    found = facts(**attributes).get("b_value", ())
    assert found == (((expected,),) if expected is not None else ())


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PatientAge": "040Y"}, "40"),
        ({"PatientAge": "006M"}, "0.5"),
        ({"PatientAge": "014D"}, "0.03833"),
        ({"PatientAge": "40"}, None),
        ({"PatientAge": "²²²Y"}, None),
        ({"PatientBirthDate": "19700101", "StudyDate": "20240101"}, "54"),
        ({"PatientBirthDate": "20250101", "StudyDate": "20240101"}, None),
        ({"PatientBirthDate": "1970", "StudyDate": "20240101"}, None),
        ({"PatientAge": "x", "PatientBirthDate": "20000101", "StudyDate": "20200101"}, "20"),
    ],
)
def test_age_is_in_years(attributes: dict[str, object], expected: str | None) -> None:
    """From Patient's Age, else from the birth and study dates; nonsense is no age."""
    found = facts(**attributes).get("age")
    assert found == (((expected,),) if expected else None)


def test_frames_and_time_positions() -> None:
    """One frame where nothing is said; the temporal position under either of its names."""
    assert facts()["frames"] == (("1",),)
    assert facts(NumberOfFrames="32")["frames"] == (("32",),)
    assert facts(TemporalPositionIdentifier="2")["temporal_position"] == (("2",),)
    assert facts(TemporalPositionIndex=(("1",), ("2",)))["temporal_position"] == (("1",), ("2",))


# --- the reader's own


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    """Two CT slices."""
    return write_ct_series(
        tmp_path, body_volume(Grid(shape=(2, 16, 16), spacing=(5, 15, 15))), series=Series("v")
    )


def test_a_header_survives_the_pipe(slices: list[Path]) -> None:
    """What the reader process says is what the conductor has."""
    header: Header = read_header(slices[0], *arrival_of_file(slices[0]))
    assert header_from_json(header_to_json(header)) == header


def test_pixels_are_compared_as_values_whatever_the_compression(slices: list[Path], tmp_path: Path) -> None:
    """RLE of the same image is the same; one other pixel, another photometric interpretation or shape is not."""
    original = pydicom.dcmread(slices[0])
    original.compress(RLELossless)
    original.save_as(tmp_path / "rle.dcm")
    assert same_pixels(slices[0], tmp_path / "rle.dcm")
    changed = pydicom.dcmread(slices[0])
    changed.PixelData = b"\7" + changed.PixelData[1:]
    changed.save_as(tmp_path / "changed.dcm")
    assert not same_pixels(slices[0], tmp_path / "changed.dcm")
    changed = pydicom.dcmread(slices[0])
    changed.PhotometricInterpretation = "MONOCHROME1"
    changed.save_as(tmp_path / "mono1.dcm")
    assert not same_pixels(slices[0], tmp_path / "mono1.dcm")
