"""A dataset encoded anew keeps every value's bytes, whatever they are; only the way they are written changes."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import peers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from send.sending_peers import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, dataset_of, element

from node.errors import Broken
from node.read.encoding import Tree, chunks, find, read_tree

FILES = (
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm",
    "priv_SQ.dcm", "rtplan.dcm", "rtdose.dcm", "test-SR.dcm", "reportsi.dcm", "waveform_ecg.dcm",
    "examples_palette.dcm", "liver_1frame.dcm", "badVR.dcm", "examples_overlay.dcm",
)  # fmt: skip


def encoded(tree: Tree, *, implicit: bool) -> bytes:
    """The dataset in one piece."""
    return b"".join(chunks(tree, implicit=implicit))


def tree_of(name: str) -> Tree:
    """One of pydicom's test files."""
    path = Path(str(get_testdata_file(name)))
    return read_tree(
        dataset_of(path), str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    )


def dumped(program: str, path: Path, *options: str) -> list[str]:
    """What DCMTK's dcmdump reads, a line per element, without lengths and what it says of them."""
    done = subprocess.run([program, "-q", "+L", "-M", *options, str(path)], check=True, capture_output=True)
    lines = done.stdout.decode("latin-1").splitlines()
    told = [line for line in lines if "," in line and "fffe,e0" not in line and not line.startswith("(0002")]
    return [re.sub(r"\s*#.*$", "", re.sub(r" with (explicit|undefined) length.*", "", line)) for line in told]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("option", "syntax"), [("+te", EXPLICIT), ("+ti", IMPLICIT)])
def test_dcmtk_reads_the_same(name: str, option: str, syntax: str, tmp_path: Path) -> None:
    """What DCMTK makes of a file with dcmconv, and what it reads of ours, is the same element for element."""
    if name in ("badVR.dcm", "nested_priv_SQ.dcm"):
        pytest.skip("DCMTK does not convert it")
    source, theirs, ours = Path(str(get_testdata_file(name))), tmp_path / "theirs.dcm", tmp_path / "ours.dcm"
    subprocess.run([peers.need("dcmconv"), "-q", option, str(source), str(theirs)], check=True)
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = element(0x00020010, "UI", uid)
    head = b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(body))) + body
    ours.write_bytes(head + encoded(tree_of(name), implicit=syntax == IMPLICIT))
    program = peers.need("dcmdump")
    without_groups = [
        line for line in dumped(program, theirs) if not re.match(r"\s*\([0-9a-f]{4},0000\)", line)
    ]
    assert dumped(program, ours) == without_groups


@pytest.mark.parametrize("name", FILES)
def test_there_and_back(name: str) -> None:
    """Explicit, implicit and explicit again: the same values, byte for byte, and the same nesting."""
    first = encoded(tree_of(name), implicit=True)
    again = encoded(read_tree(first, IMPLICIT), implicit=False)
    assert encoded(read_tree(again, EXPLICIT), implicit=True) == first


def test_illegal_values_are_passed_on_as_they_are() -> None:
    """No charset, number or date is decoded, so none that is wrong is changed or stops the object."""
    wrong = element(0x00080005, "CS", b"NO SUCH ") + element(0x00080020, "DA", b"\xff\xfe??")
    wrong += element(0x00100010, "PN", b"M\xfcller") + element(0x00280010, "US", b"1")  # odd: padded
    wrong += element(0x00290010, "LO", b"ACME") + element(0x00291001, "ZZ", b"\x01\x02")
    found = read_tree(encoded(read_tree(wrong, EXPLICIT), implicit=True), IMPLICIT)
    values = [(e.tag, bytes(e.value)) for e in found]
    assert values == [
        (0x00080005, b"NO SUCH "), (0x00080020, b"\xff\xfe??"), (0x00100010, b"M\xfcller"), (0x00280010, b"1 "),
        (0x00290010, b"ACME"), (0x00291001, b"\x01\x02"),
    ]  # fmt: skip


def test_a_sequence_of_unknown_vr_is_one() -> None:
    """UN of undefined length holds Implicit VR items (PS3.5 6.2.2), and is written as what it is."""
    item = struct.pack("<HHI4s", 0x0008, 0x0100, 4, b"CODE")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + items
    (found,) = read_tree(encoded(read_tree(data, EXPLICIT), implicit=False), EXPLICIT)
    assert found.vr == b"SQ" and found.items is not None
    (inner,) = found.items[0].elements
    assert (inner.tag, inner.vr, bytes(inner.value)) == (0x00080100, b"SH", b"CODE")


def test_a_value_too_long_for_its_length_field_is_unknown() -> None:
    """An implicit value of 64 kB whose VR has a length of 16 bits becomes UN (PS3.5 6.2.2)."""
    data = (
        struct.pack("<HHI", 0x0028, 0x3006, 2)
        + b"\1\0"
        + struct.pack("<HHI", 0x3006, 0x0050, 70000)
        + b"1" * 70000
    )
    found = read_tree(encoded(read_tree(data, IMPLICIT), implicit=False), EXPLICIT)
    assert [(e.vr, len(e.value)) for e in found] == [(b"OW", 2), (b"UN", 70000)]


@pytest.mark.parametrize(("signed", "vr"), [(0, b"US"), (1, b"SS")])
def test_what_may_be_signed_follows_the_pixels(signed: int, vr: bytes) -> None:
    """Smallest Image Pixel Value takes the sign of the pixels, in an item that of the object around it."""
    inner = struct.pack("<HHIH", 0x0028, 0x0106, 2, 9)
    data = struct.pack("<HHIH", 0x0028, 0x0103, 2, signed) + struct.pack("<HHIH", 0x0028, 0x0106, 2, 7)
    data += struct.pack("<HHIHHI", 0x0088, 0x0200, 8 + len(inner), 0xFFFE, 0xE000, len(inner)) + inner
    found = read_tree(encoded(read_tree(data, IMPLICIT), implicit=False), EXPLICIT)
    least, icon = find(found, 0x00280106), find(found, 0x00880200)
    assert least is not None and icon is not None and icon.items is not None
    assert least.vr == icon.items[0].elements[0].vr == vr


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@given(st.binary(max_size=300))
def test_anything_else_is_refused_in_words(syntax: str, data: bytes) -> None:
    """Whatever the bytes are: a tree, or Broken; nothing else is raised, and no time is lost."""
    try:
        read_tree(data, syntax)
    except Broken:
        return


def test_nesting_has_an_end() -> None:
    """A hundred thousand sequences in one another are refused, not followed."""
    data = struct.pack("<HHIHHI", 0x0088, 0x0200, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 100_000
    with pytest.raises(Broken, match="nested deeper"):
        read_tree(data, IMPLICIT)
