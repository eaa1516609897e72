"""Claims about the quick way to a header: it says what the long way says, or leaves the object to it."""

from __future__ import annotations

import contextlib
import struct
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.read.header import _BULK, _parse_slowly, arrival_of_file
from node.read.quick import UnusualError, quick_attributes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is meant here
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", str(ImplicitVRLittleEndian)


def both(content: bytes, offset: int, syntax: str) -> bool:
    """Whether the quick way took it; then it must have said the same."""
    try:
        found, at = quick_attributes(memoryview(content), offset, syntax == IMPLICIT, _BULK)
    except UnusualError:
        return False
    slowly = _parse_slowly(BytesIO(content), offset, syntax)
    assert found == slowly.attributes
    assert max(0, at - offset) == slowly.pixels_at
    return True


def taken(paths: list[Path]) -> tuple[int, int]:
    """How many of the files are DICOM in a Little Endian syntax, and how many of these went the quick way."""
    files = quickly = 0
    for path in paths:
        try:
            arrival, offset = arrival_of_file(path)
        except (ValueError, OSError):
            continue
        if arrival.transfer_syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
            continue
        with path.open("rb") as file:
            content = file.read(4 << 20)
        try:
            quickly += both(content, offset, arrival.transfer_syntax)
        except AssertionError:
            raise AssertionError(f"{path.name} reads otherwise") from None
        except Exception:  # noqa: BLE001, S112 - the long way cannot read it either, so nothing is said wrongly
            continue
        files += 1
    return files, quickly


def test_test_data() -> None:
    """Of pydicom's test data nine in ten files go the quick way, and every one of them says what it always said."""
    files, quickly = taken([Path(name) for name in get_testdata_files()])
    assert files > 50
    assert quickly > 0.8 * files


def test_samples() -> None:
    """Real images of every vendor among the samples say the same either way."""
    if not SAMPLES.is_dir():
        pytest.skip("the folder of sample images is not here")
    files, quickly = taken(sorted(path for path in SAMPLES.rglob("*") if path.is_file()))
    assert files
    assert quickly


ELEMENT = st.tuples(
    st.sampled_from([0x0008, 0x0009, 0x0010, 0x0018, 0x0020, 0x0028, 0x0029, 0x0040, 0x7FE0, 0xFFFE]),
    st.sampled_from([0x0000, 0x0005, 0x0010, 0x0016, 0x0018, 0x0060, 0x1010, 0x1140, 0xE000, 0xE00D, 0xE0DD]),
    st.sampled_from(
        [b"CS", b"LO", b"UI", b"DS", b"SQ", b"UN", b"OB", b"US", b"FD", b"PN", b"AT", b"??", b"UT", b"ZZ"]
    ),
    st.one_of(
        st.binary(max_size=40), st.sampled_from([b"ISO_IR 100", b"ISO_IR 192", b"1.2.3\0", b"A\\B ", b""])
    ),
    st.sampled_from([None, None, None, 0, 3, 0xFFFF, 0xFFFFFFFF]),
)
LONG = (b"SQ", b"UN", b"OB", b"UT")


def element(parts: tuple[int, int, bytes, bytes, int | None], implicit: bool) -> bytes:
    """One element, perhaps with a length that is not its own."""
    group, number, vr, value, length = parts
    said = len(value) if length is None else length
    tag = struct.pack("<HH", group, number)
    if implicit:
        return tag + struct.pack("<I", said) + value
    if vr in LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", said) + value
    return tag + vr + struct.pack("<H", said & 0xFFFF) + value


@settings(max_examples=600, deadline=None)
@given(st.lists(ELEMENT, max_size=8), st.booleans(), st.binary(max_size=9))
def test_whatever_stands_there(
    parts: list[tuple[int, int, bytes, bytes, int | None]], implicit: bool, rest: bytes
) -> None:
    """Of any bytes the quick way says what the long way says; where that fails, this one may still go on."""
    content = b"".join(element(part, implicit) for part in parts) + rest
    try:
        both(content, 0, IMPLICIT if implicit else EXPLICIT)
    except AssertionError:
        raise
    except Exception:  # noqa: BLE001 - the long way fails over it
        with contextlib.suppress(UnusualError):
            quick_attributes(memoryview(content), 0, implicit, _BULK)


def nested(*, undefined: bool) -> bytes:
    """A sequence of one item with a sequence in it, both of undefined length or neither."""
    inner = element((0x0008, 0x1150, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0", None), False)
    for group, number in ((0x0008, 0x1140), (0x0008, 0x1115)):
        if undefined:
            item = (
                struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
                + inner
                + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            )
            body, length = item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF
        else:
            body = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            length = len(body)
        inner = struct.pack("<HH2sHI", group, number, b"SQ", 0, length) + body
    return inner


@pytest.mark.parametrize("undefined", [False, True], ids=["explicit", "undefined"])
def test_sequences(undefined: bool) -> None:
    """Nested sequences go the quick way, whether their lengths are given or not."""
    content = nested(undefined=undefined) + element((0x0010, 0x0020, b"LO", b"P1", None), False)
    assert both(content, 0, EXPLICIT)
    found, _ = quick_attributes(memoryview(content), 0, False, _BULK)
    name = "ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPClassUID"
    assert found[name] == (("1.2.840.10008.5.1.4.1.1.2",),)
    assert found["PatientID"] == (("P1",),)


def test_a_private_group_with_its_length() -> None:
    """A private group that begins with its length, as old files do, has a name for each of its elements."""
    content = b"".join(
        element(part, True)
        for part in (
            (0x0029, 0x0000, b"", struct.pack("<I", 26), None),
            (0x0029, 0x0010, b"", b"ACME 1.0", None),
            (0x0029, 0x1010, b"", b"seen", None),
        )
    )
    assert both(content, 0, IMPLICIT)
    assert "(0029,xx10) ACME 1.0" in _parse_slowly(BytesIO(content), 0, IMPLICIT).attributes
