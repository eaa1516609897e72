"""Claims about reading headers: whatever a peer sent, there is an answer, and real headers mean what they say."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from node.model import Arrival, Cell, Header
from node.read.header import arrival_of_file, read_header
from node.read.values import values_of
from node.store.arrival import encode_head, read_arrival
from node.testing import Grid, Series, body_volume, write_ct_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is meant here
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IMPLICIT, LITTLE, BIG, DEFLATED = (
    str(u)
    for u in (
        uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    )
)  # fmt: skip
SYNTAXES = (IMPLICIT, LITTLE, BIG, DEFLATED, str(uid.JPEGBaseline8Bit), "1.2.3.private", "")


def arrival(syntax: str = LITTLE, **changes: str) -> Arrival:
    """How an object came."""
    own = {
        "sop_class": str(uid.CTImageStorage), "sop_uid": "1.2.3", "transfer_syntax": syntax, "calling": "CT01",
        "called": "PACSNODE", "peer": "CT01", "address": "10.1.2.3:104", "local_address": "10.1.2.9:104",
        "association": "1-1", **changes,
    }  # fmt: skip
    return Arrival(**own, received_at=NOON)


def encoded(dataset: Dataset, syntax: str = LITTLE) -> bytes:
    """The dataset's bytes in a transfer syntax."""
    buffer = io.BytesIO()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = uid.UID(syntax), uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta = meta
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    offset = 132 + 12 + struct.unpack("<I", buffer.getvalue()[140:144])[0]
    return buffer.getvalue()[offset:]


def read(path: Path, content: bytes | Dataset, syntax: str = LITTLE, **changes: str) -> Header:
    """The header of an object kept as these bytes, as the reader process reads it."""
    if isinstance(content, Dataset):
        content = encoded(content, syntax)
    file = path / "object.dcm" if path.is_dir() else path
    file.write_bytes(encode_head(arrival(syntax, **changes)) + content)
    return read_header(file, *read_arrival(file))


def image(**changes: Any) -> Dataset:
    """A small CT image."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.9", "1.2.9.1"
    dataset.Modality, dataset.PatientID = "CT", "P1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SliceThickness, dataset.SeriesNumber = "1.5", "3"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 2, 2, 16
    dataset.PixelData = b"\1\0\2\0\3\0\4\0"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One element, explicit little endian, with a 16-bit length."""
    return struct.pack("<HH", group, number) + vr + struct.pack("<H", len(value)) + value


# --- identity and digests


@pytest.mark.parametrize("syntax", [IMPLICIT, LITTLE, BIG, DEFLATED])
def test_the_same_object_says_the_same_in_every_uncompressed_syntax(tmp_path: Path, syntax: str) -> None:
    """Implicit, explicit, big endian and deflated datasets give the same attributes."""
    header = read(tmp_path, image(), syntax)
    assert (header.readable, header.why) == (True, "")
    assert (header.sop_uid, header.study_uid, header.series_uid) == ("1.2.3", "1.2.9", "1.2.9.1")
    assert header.attributes["ImageType"] == (("ORIGINAL", "PRIMARY", "AXIAL"),)
    assert header.attributes["SliceThickness"] == (("1.5",),)
    assert header.attributes["Rows"] == (("2",),)
    assert "PixelData" not in header.attributes


def test_how_it_came_is_a_fact(tmp_path: Path) -> None:
    """The peer's name, the title it called, its SOP class and transfer syntax stand beside the attributes."""
    header = read(tmp_path, image(), peer="CT 1", called="PACSNODE_STAT")
    said = {name: header.attributes[name] for name in ("from", "called", "sop_class", "transfer_syntax")}
    assert said == {
        "from": (("CT 1",),), "called": (("PACSNODE_STAT",),), "sop_class": ((str(uid.CTImageStorage),),),
        "transfer_syntax": ((LITTLE,),),
    }  # fmt: skip
    assert (header.calling, header.association, header.received_at) == ("CT01", "1-1", NOON)


def test_a_peer_cannot_pretend_another_origin(tmp_path: Path) -> None:
    """No element of a dataset is named like a fact of ours."""
    dataset = image()
    block = dataset.private_block(0x0019, "from", create=True)
    block.add_new(0x01, "LO", "PACS")
    assert read(tmp_path, dataset).attributes["from"] == (("CT01",),)


def test_the_digest_covers_syntax_and_dataset_and_not_the_meta(tmp_path: Path) -> None:
    """Another sender, time or association leaves the digest; another byte or transfer syntax changes it."""
    first = read(tmp_path, image())
    same = read(tmp_path, image(), peer="MR01", calling="OTHER", association="9-9", local_address="x:1")
    other_header = read(tmp_path, image(PatientID="P2"))
    other_pixels = read(tmp_path, image(PixelData=b"\1\0\2\0\3\0\5\0"))
    other_syntax = read(tmp_path, encoded(image()), str(uid.JPEGBaseline8Bit))
    assert same.digest == first.digest
    assert len({h.digest for h in (first, other_header, other_pixels, other_syntax)}) == 4
    assert first.pixel_digest == other_header.pixel_digest == same.pixel_digest
    assert len({h.pixel_digest for h in (first, other_pixels, other_syntax)}) == 3


def test_an_object_without_pixels_has_no_pixel_digest(tmp_path: Path) -> None:
    """Reports and the like say nothing about pixels."""
    dataset = image()
    del dataset.PixelData
    header = read(tmp_path, dataset)
    assert (header.readable, header.pixel_digest) == (True, "")


def test_size_is_that_of_the_file(tmp_path: Path) -> None:
    """Bytes on disk, meta included."""
    header = read(tmp_path, image())
    assert header.size == (tmp_path / "object.dcm").stat().st_size


# --- what cannot be grouped


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_without_its_uids_an_object_belongs_to_no_series(tmp_path: Path, keyword: str) -> None:
    """It stays readable and says which UID is missing."""
    dataset = image()
    delattr(dataset, keyword)
    header = read(tmp_path, dataset)
    assert header.readable
    assert header.why == f"{keyword} is missing, so it belongs to no series"


def test_a_uid_of_more_than_64_characters_is_refused_for_grouping(tmp_path: Path) -> None:
    """PS3.5 9.1: such a UID groups nothing, and the object stays readable."""
    long = b"1." + b"2" * 68
    raw = element(0x0008, 0x0018, b"UI", b"1.2.3\0") + element(0x0020, 0x000D, b"UI", b"1.2.9\0")
    header = read(tmp_path, raw + element(0x0020, 0x000E, b"UI", long))
    assert header.readable
    assert header.why == "SeriesInstanceUID is longer than 64 characters, so it belongs to no series"


# --- what is odd, and stays readable


def test_an_unknown_vr_is_passed_over(tmp_path: Path) -> None:
    """An element with a VR that does not exist costs itself only."""
    raw = element(0x0008, 0x0060, b"CS", b"CT") + element(0x0010, 0x0010, b"ZZ", b"ab")
    header = read(tmp_path, raw)
    assert header.readable
    assert header.attributes["Modality"] == (("CT",),)


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        ("ISO_IR 100", b"M\xfcller", "Müller"),
        ("ISO_IR 192", "Müller".encode(), "Müller"),
        ("ISO_IR 192", b"M\xfcller ", None),  # not what it says: some text all the same
        ("", b"M\xfcller", None),
        ("NO SUCH SET", b"M\xfcller", None),
        ("ISO 2022 IR 87\\ISO 2022 IR 6", b"\x1b$Bab", None),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        ("\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3", "Hong=洪"),
        ("\\ISO 2022 IR 58", b"Zhang=\x1b$)A\xd5\xc5", "Zhang=张"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        ("GBK", "王^小东".encode("gbk"), "王^小东"),
    ],
)
def test_a_wrong_charset_never_makes_an_object_unreadable(
    tmp_path: Path, charset: str, raw: bytes, expected: str | None
) -> None:
    """Declared right the name is right; declared wrong, unknown or not at all there still is one."""
    raw += b" " * (len(raw) % 2)
    content = element(0x0008, 0x0005, b"CS", charset.encode() + b" " * (len(charset) % 2))
    content += element(0x0008, 0x0060, b"CS", b"CT") + element(0x0010, 0x0010, b"PN", raw)
    header = read(tmp_path, content)
    assert header.readable
    ((name,),) = header.attributes["PatientName"]
    assert name == expected if expected else name


@pytest.mark.parametrize("text", ["²", "²²²Y", "--5", "1²", "1e99", "-", "5.0"])
@pytest.mark.parametrize(
    "keyword", [(0x0028, 0x0008, b"IS"), (0x0010, 0x1010, b"AS"), (0x0020, 0x0011, b"IS")]
)
def test_numbers_that_are_none_are_no_reason_to_give_up(
    tmp_path: Path, text: str, keyword: tuple[int, int, bytes]
) -> None:
    """Frames, age and series number may hold anything; an object with one frame is then assumed."""
    raw = text.encode("latin-1")
    raw += b" " * (len(raw) % 2)
    parts = sorted([element(0x0008, 0x0060, b"CS", b"CT"), element(*keyword, raw)])
    header = read(tmp_path, b"".join(parts))
    assert header.readable
    assert header.frames == 1


def test_no_value_holds_a_nul(tmp_path: Path) -> None:
    """A NUL inside a text would end it elsewhere, and PostgreSQL takes none."""
    content = element(0x0008, 0x0060, b"CS", b"CT") + element(0x0010, 0x0020, b"LO", b"P\x001\x00")
    for cell in read(tmp_path, content).attributes.values():
        assert not any("\0" in text for value in cell for text in value)


def test_deep_nesting_is_unreadable_at_worst(tmp_path: Path) -> None:
    """Sequences in sequences, without end, come back with a reason instead of ending the reader."""
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    begin += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    header = read(tmp_path, begin * 20_000)
    assert not header.readable
    assert "RecursionError" in header.why


@pytest.mark.parametrize("cut", [1, 7, 20, 60])
def test_a_truncated_dataset_still_says_what_it_holds(tmp_path: Path, cut: int) -> None:
    """What is missing at the end takes nothing from what came before."""
    raw = encoded(image())
    header = read(tmp_path, raw[:-cut])
    assert header.attributes.get("Modality", (("CT",),)) == (("CT",),)
    assert header.sop_uid == "1.2.3"


def test_an_empty_dataset_is_unreadable_in_words(tmp_path: Path) -> None:
    """Nothing is no object, and the command's UID still names it."""
    header = read(tmp_path, b"")
    assert not header.readable
    assert header.why == "the dataset cannot be parsed (ValueError)"
    assert header.sop_uid == "1.2.3"


def test_a_deflated_bomb_is_stopped(tmp_path: Path) -> None:
    """A few hundred kilobytes that inflate to more than 256 MB are refused, not inflated."""
    bomb = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    raw = b"".join(bomb.compress(zeros) for _ in range(258)) + bomb.flush()
    header = read(tmp_path, raw, DEFLATED)
    assert not header.readable
    assert len(raw) < 2 << 20


def test_garbage_in_a_deflated_stream_is_unreadable(tmp_path: Path) -> None:
    """What does not inflate is told by its error's name, never by its content."""
    header = read(tmp_path, b"\xff" * 50, DEFLATED)
    assert not header.readable
    assert header.why == "the dataset cannot be parsed (error)"


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), syntax=st.sampled_from(SYNTAXES))
def test_arbitrary_bytes_never_raise(tmp_path: Path, content: bytes, syntax: str) -> None:
    """Any bytes in any transfer syntax give a header: readable, or with a reason."""
    header = read(tmp_path, content, syntax)
    assert header.readable or header.why
    _is_text(header.attributes)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 200),
    syntax=st.sampled_from([IMPLICIT, LITTLE, BIG]),
)
def test_a_damaged_object_never_raises(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, syntax: str
) -> None:
    """Real structures with flipped bytes and lost ends give a header too."""
    item = image(PatientName="A^B", PatientAge="040Y", NumberOfFrames="1")
    item.SourceImageSequence = Sequence([image(), image()])
    raw = bytearray(encoded(item, syntax))
    for place, value in changes:
        raw[place % len(raw)] = value
    header = read(tmp_path, bytes(raw[: len(raw) - cut]), syntax)
    assert header.readable or header.why
    _is_text(header.attributes)


def _is_text(attributes: Mapping[str, Cell]) -> None:
    for name, cell in attributes.items():
        assert name
        assert cell
        assert all(isinstance(text, str) for value in cell for text in value)


# --- names


def test_items_of_sequences_stand_under_paths(tmp_path: Path) -> None:
    """`Sequence[0].Keyword`, as a rule names it, several levels deep."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "C-111A1", "SRT"
    dose = Dataset()
    dose.RadionuclideTotalDose, dose.RadionuclideCodeSequence = "368000000", Sequence([code])
    header = read(tmp_path, image(RadiopharmaceuticalInformationSequence=Sequence([dose, dose])))
    path = "RadiopharmaceuticalInformationSequence"
    assert header.attributes[f"{path}[0].RadionuclideTotalDose"] == (("368000000",),)
    assert header.attributes[f"{path}[1].RadionuclideCodeSequence[0].CodeValue"] == (("C-111A1",),)
    assert path not in header.attributes


def test_private_elements_stand_under_their_creator(tmp_path: Path) -> None:
    """`(gggg,xxee) CREATOR`, wherever the block lies; without a creator it has its bare number."""
    dataset = image()
    dataset.private_block(0x0019, "OTHER", create=True).add_new(0x0C, "LO", "x")
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "800")
    dataset.add_new(0x00215001, "LO", "orphan")
    header = read(tmp_path, dataset)
    assert header.attributes["(0019,xx0C) SIEMENS MR HEADER"] == (("800",),)
    assert header.attributes["(0019,xx0C) OTHER"] == (("x",),)
    assert header.attributes["(0021,5001)"] == (("orphan",),)
    assert header.attributes["b_value"] == (("800",),)


def test_private_elements_of_unknown_vr_are_typed_by_their_dictionary(tmp_path: Path) -> None:
    """Implicit VR tells no types: a known private block still gives text."""
    dataset = image()
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "800")
    assert read(tmp_path, dataset, IMPLICIT).attributes["b_value"] == (("800",),)


def test_a_present_but_empty_attribute_is_there(tmp_path: Path) -> None:
    """Type 2 without a value is the empty value; an absent attribute is absent."""
    header = read(tmp_path, image(AccessionNumber=""))
    assert header.attributes["AccessionNumber"] == ((),)
    assert "StudyID" not in header.attributes


def test_bulk_is_no_fact(tmp_path: Path) -> None:
    """Values beyond 4 KB are content; the object's other attributes are not touched by them."""
    header = read(tmp_path, image(RedPaletteColorLookupTableData=bytes(10_000), TextValue="x" * 5000))
    assert "TextValue" not in header.attributes
    assert header.attributes["Modality"] == (("CT",),)


# --- the cost of a second header


def test_a_second_header_of_the_series_converts_only_what_differs(tmp_path: Path) -> None:
    """Conversion is remembered by raw bytes: the next slice converts its own UID, number and place, no more."""
    paths = write_ct_series(
        tmp_path / "ct", body_volume(Grid(shape=(3, 8, 8), spacing=(5, 5, 5))), series=Series("memo")
    )
    values_of.cache_clear()
    read_header(paths[0], *arrival_of_file(paths[0]))
    first = values_of.cache_info().misses
    read_header(paths[0], *arrival_of_file(paths[0]))
    assert values_of.cache_info().misses == first
    read_header(paths[1], *arrival_of_file(paths[1]))
    # SOP Instance UID, Instance Number, Image Position, Slice Location
    assert values_of.cache_info().misses <= first + 4
    assert first > 40


# --- files of other origin


def test_a_file_that_is_no_dicom_is_named_so(tmp_path: Path) -> None:
    """A text file or a short one is no Part 10 file."""
    for content in (b"", b"hello", bytes(132) + b"XXXX"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="not a DICOM file"):
            arrival_of_file(tmp_path / "x")


@settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_a_damaged_file_meta_is_told_or_survived(tmp_path: Path, content: bytes) -> None:
    """Behind the prefix anything may stand: either a ValueError says so or the file is read."""
    (tmp_path / "x").write_bytes(bytes(128) + b"DICM" + content)
    try:
        found, offset = arrival_of_file(tmp_path / "x")
    except ValueError:
        return
    read_header(tmp_path / "x", found, offset)


# --- real images


def read_sample(path: Path) -> Header:
    """The header of a file that came over no network."""
    return read_header(path, *arrival_of_file(path))


def test_every_sample_is_read_as_pydicom_reads_it(samples: Path) -> None:
    """Over all real images: UIDs, modality and rows agree with pydicom's own conversion."""
    seen = 0
    for folder in sorted(p for p in samples.glob("*/*") if p.is_dir()):
        for path in sorted(p for p in folder.rglob("*") if p.is_file())[:2]:
            try:
                found, offset = arrival_of_file(path)
            except ValueError:
                continue  # other formats: EDF, JPEG, PNG
            header = read_header(path, found, offset)
            assert header.readable, path
            truth = pydicom.dcmread(path, stop_before_pixels=True)
            assert header.sop_uid == str(truth.SOPInstanceUID), path
            assert header.series_uid == str(truth.SeriesInstanceUID), path
            assert header.attributes["Modality"] == ((str(truth.Modality),),), path
            if "Rows" in truth:
                assert header.attributes["Rows"] == ((str(truth.Rows),),), path
            seen += 1
    assert seen > 30


@pytest.mark.parametrize(
    ("folder", "b_values"),
    [("ge-dti-002", {"0"}), ("siemens-dti-classic", {"0", "1000"}), ("philips-enhanced-dti", {"0", "1300"})],
)
def test_vendors_b_values_are_found(samples: Path, folder: str, b_values: set[str]) -> None:
    """GE keeps it in (0043,1039), Siemens in (0019,100C), both anonymised of their creators; enhanced per frame."""
    found = set()
    for path in sorted(p for p in (samples / "MR" / folder).rglob("*") if p.is_file()):
        header = read_sample(path)
        found |= {value[0] for value in header.attributes.get("b_value", ())}
    assert found == b_values


def test_each_frame_of_an_enhanced_object_is_a_value(samples: Path) -> None:
    """32 frames: their b-values and places stand under plain keywords, each distinct value once, in frame order."""
    (path,) = (samples / "MR" / "philips-enhanced-dti").iterdir()
    header, truth = read_sample(path), pydicom.dcmread(path)
    frames = truth.PerFrameFunctionalGroupsSequence
    places = [tuple(map(str, f.PlanePositionSequence[0].ImagePositionPatient)) for f in frames]
    found = header.attributes["ImagePositionPatient"]
    assert header.frames == len(frames) == 32
    assert [tuple(map(float, p)) for p in found] == [
        tuple(map(float, p)) for p in dict.fromkeys(places)
    ]  # fmt: skip
    diffusion = {str(f.MRDiffusionSequence[0].DiffusionBValue) for f in frames if "MRDiffusionSequence" in f}
    assert {float(v[0]) for v in header.attributes["b_value"]} == {float(b) for b in diffusion}
    assert header.attributes["orientation"][0][0] in ("axial", "oblique", "coronal", "sagittal")
