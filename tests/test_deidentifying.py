"""De-identified files: an independent search for what had to go, and strict readers, over every sample there is.

The search shares nothing with the engine but the table: it walks the source with pydicom, notes each value of an
attribute that the profile's columns do not keep, and looks for its bytes in the whole file that came out.
"""

from __future__ import annotations

import csv
import json
import os
import re
import warnings
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from peers import dciodvfy
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info

import node.derive.deidentify as package
from node import transcoder
from node.deidentifying import deidentified_tree
from node.derive.deidentify import Profile, Site, Template
from node.errors import Broken, Refused
from node.read import encoding
from node.route.rules import parse_rules
from node.send.part10 import dataset_extent
from node.settings.deidentify import Deidentify

KEY = b"a key of these tests, 32 bytes .."
BASIC = Profile()
RICH = Profile(
    frozenset({"shifted_dates", "device", "patient_characteristics", "safe_private", "institution"}),
    frozenset({"descriptors", "graphics", "structured_content", "pixel_data"}),
)
VOUCHED = Site(templates=(Template({"Rows": "*"}),))
"""A site that says of every image that nothing is written in it, so that the headers of all samples are searched."""
OURS = {b"REMOVED", b"19000101", b"19000101000000", b"000D", b"NO", b"YES"}
"""Dummies, which a source may have from another de-identifier."""
TEXT = {"AE", "AS", "DA", "DS", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
STANDARD_UIDS = "1.2.840.10008."


@cache
def files() -> list[Path]:
    """Every file of pydicom's test data and of the shared samples that is a DICOM file with a file header."""
    found = [Path(path) for path in get_testdata_files()]
    samples = Path(
        os.environ.get("PACSNODE_SAMPLES", Path(__file__).resolve().parents[2] / "shared" / "samples")
    )
    found += [path for path in samples.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.is_file() and path.open("rb").read(132)[128:] == b"DICM")


@cache
def table() -> dict[int, dict[str, str]]:
    """Table E.1-1 as it stands in its file."""
    with (Path(package.__file__).parent / "attributes.tsv").open(encoding="utf-8") as file:
        lines = [
            line for line in csv.DictReader(file, delimiter="\t") if re.fullmatch("[0-9A-F]{8}", line["tag"])
        ]
    return {int(line["tag"], 16): line for line in lines}


def copy_of(path: Path, profile: Profile, site: Site = VOUCHED) -> tuple[bytes, str]:
    """The de-identified dataset of a file, Explicit VR Little Endian around its pixels, and its transfer syntax."""
    with path.open("rb") as file:
        offset, length = dataset_extent(file)
        file.seek(offset)
        data = file.read(length)
    syntax = str(dcmread(path, specific_tags=[]).file_meta.TransferSyntaxUID)
    copy = deidentified_tree(encoding.read_tree(data, syntax), syntax, profile, KEY, site)
    after = encoding.EXPLICIT if copy.syntax in encoding.NATIVE else copy.syntax
    return b"".join(encoding.chunks(copy.tree, implicit=False)), after


def removed(dataset: Dataset, profile: Profile, kept: list[bytes], inside: bool = False) -> Iterator[bytes]:
    """The values that the profile does not let through; *kept* gets what the standard lets everyone say."""
    for tag in dataset.keys():  # noqa: SIM118
        line = table().get(int(tag))
        keeps = line is not None and any(line.get(option) == "K" for option in profile.options)
        goes = inside or tag.is_private or (line is not None and not keeps) or tag.group >> 8 in (0x50, 0x60)
        if tag.is_private and "safe_private" in profile.retain:
            continue
        try:
            element = dataset[tag]
        except Exception:  # noqa: BLE001 - of no VR: its bytes as they are
            yield dataset._dict[tag].value or b""
            continue
        if element.VR == "SQ":
            whole = line is not None and line["basic"] == "X" and set(line.values()).isdisjoint("KC")
            for item in element.value or ():
                yield from removed(item, profile, kept, inside or whole)
        elif goes:
            yield from values_of(element)
        else:
            kept += values_of(element)


def values_of(element: DataElement) -> Iterator[bytes]:
    """The values of an element as a file holds them, without padding."""
    value = element.value
    for one in value if isinstance(value, list) or hasattr(value, "append") else [value]:
        original = getattr(one, "original_string", None)
        if isinstance(one, bytes):
            yield one.strip(b" \0") if len(set(one)) > 3 else b""
        elif element.VR in TEXT:
            yield (
                original if isinstance(original, bytes) else str(original or one).encode("utf-8", "replace")
            ).strip()


def values_in(dataset: Dataset) -> Iterator[bytes]:
    """Every value of what was made, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                yield from values_in(item)
        else:
            yield from values_of(element)


def leaks(path: Path, profile: Profile, made: bytes) -> list[bytes]:
    """The removed values of a file that stand in what was made of it, and nowhere that the standard keeps.

    Long ones are looked for in all bytes; short ones and short numbers, which occur by chance in any UID and among
    any pixels, as the whole value of an element.
    """
    source, kept = dcmread(path), []
    wanted = set(removed(source, profile, kept))
    wanted = {data for data in wanted if len(data) >= 3 and set(data) - set(b"0.^ ") and data not in OURS}
    wanted = {data for data in wanted if not data.startswith(STANDARD_UIDS.encode())}
    if profile.retain:
        wanted = {data for data in wanted if not harmless(data)}
    said, whole = b"\\".join(kept), set(values_in(dcmread(BytesIO(made), force=True)))
    long = {
        data
        for data in wanted
        if len(data) >= 9 or (len(data) >= 5 and not data.replace(b".", b"").isdigit())
    }
    found = {data for data in long if data in made} | {data for data in wanted - long if data in whole}
    return sorted(data for data in found if data not in said)


@cache
def harmless(data: bytes) -> bool:
    """Words of the vocabulary and times of day, which the options leave as they are."""
    from node.derive.deidentify.words import cleaned

    text = data.decode("latin-1")
    return (
        cleaned(text).split() == text.split()
        or re.fullmatch(r"\d\d:?\d\d(:?\d\d(\.\d+)?)?|[+-]\d{4}", text) is not None
    )


@pytest.mark.parametrize("profile", [BASIC, RICH], ids=["basic", "rich"])
def test_nothing_that_had_to_go_is_in_the_file(profile: Profile) -> None:
    """No value of a removed or replaced attribute, at any depth, is in any byte of the copy of any sample."""
    found, made = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files():
            try:
                data, _ = copy_of(path, profile)
            except (Refused, Broken, AttributeError):
                continue
            made += 1
            if said := leaks(path, profile, data):
                found[path.name] = said[:4]
    assert not found
    assert made > 100


def variety() -> list[Path]:
    """One small file of each object class, and of each transfer syntax, in a fixed order."""
    seen, found = set(), []
    for path in sorted(files(), key=lambda path: (path.stat().st_size, path.name)):
        header = dcmread(path, specific_tags=["SOPClassUID", "SeriesInstanceUID"])
        kind = (header.get("SOPClassUID"), header.file_meta.get("TransferSyntaxUID"))
        if path.stat().st_size < 3e6 and kind not in seen:
            seen.add(kind)
            found.append(path)
    return found


def told(path: Path) -> set[str]:
    """What dciodvfy finds wrong, without the numbers of items and values."""
    return {re.sub(r"<[^>]*>|[\d.]+", "", line) for line in dciodvfy(path)}


@pytest.mark.parametrize("profile", [BASIC, RICH], ids=["basic", "rich"])
def test_a_strict_reader_finds_nothing_new(profile: Profile, tmp_path: Path) -> None:
    """In a copy dciodvfy finds no error that the source does not have, whatever the object class."""
    assert judged(variety(), profile, tmp_path) > 15


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", [BASIC, RICH], ids=["basic", "rich"])
def test_a_strict_reader_finds_nothing_new_in_any_sample(profile: Profile, tmp_path: Path) -> None:
    """The same for every file there is."""
    assert judged(files(), profile, tmp_path) > 100


def judged(paths: list[Path], profile: Profile, folder: Path) -> int:
    """How many copies were made of these files; fails where dciodvfy finds what it does not find in the source."""
    found, made = {}, 0
    for path in paths:
        try:
            data, syntax = copy_of(path, profile)
        except (Refused, Broken, AttributeError):
            continue
        made += 1
        source = dcmread(path, specific_tags=["SOPClassUID"])
        before = told(path)
        new = told(written(folder / "copy.dcm", data, source.SOPClassUID, syntax)) - before
        if new and "Error - Dicom dataset read failed" not in before:
            found[str(path)] = new
    assert not found
    return made


def written(path: Path, data: bytes, sop_class: str, syntax: str) -> Path:
    """A Part 10 file of a dataset."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, syntax
    meta.MediaStorageSOPInstanceUID = dcmread(
        BytesIO(data), force=True, specific_tags=["SOPInstanceUID"]
    ).SOPInstanceUID
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, meta, enforce_standard=True)
        file.write(data)
    return path


def request_for(path: Path, tmp_path: Path, profile: Profile) -> dict[str, object]:
    """What the conductor tells the transcoder about a file."""
    header = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    (tmp_path / "deidentify.key").write_text(KEY.hex())
    return {
        "source": str(path), "out": str(tmp_path / "copy.dcm"), "syntax": str(header.file_meta.TransferSyntaxUID),
        "to": [], "sop_class": str(header.SOPClassUID), "sop_uid": str(header.SOPInstanceUID), "key": "k", "lossy": {},
        "treatment": {"deidentify": dict(profile.meaning)}, "lookups": {},
        "about": {"received": True, "at": "2026-03-01T10:00:00+01:00", "from": "CT01", "system": "N"},
        "deidentify": {"key": str(tmp_path / "deidentify.key"), "site": Deidentify().as_json()},
    }  # fmt: skip


def test_the_transcoder_writes_a_file_that_says_nothing_else(tmp_path: Path) -> None:
    """Preamble and file header are ours (PS3.15 E.1.1), the bytes are the same each time, and it says who it was."""
    source = dcmread(str(get_testdata_file("CT_small.dcm")))
    source.file_meta.SourceApplicationEntityTitle = "QUENTINS_ROOM"
    source.preamble = b"Quentin".ljust(128)
    path = tmp_path / "source.dcm"
    source.save_as(path)
    request = request_for(path, tmp_path, BASIC)
    told = transcoder.answer(json.dumps(request))
    made = (tmp_path / "copy.dcm").read_bytes()
    assert b"uentin" not in made and b"QUENTIN" not in made and made[:128] == b"\0" * 128
    assert told["sop_uid"] == str(dcmread(tmp_path / "copy.dcm").SOPInstanceUID) != source.SOPInstanceUID
    assert told["pseudonym"]["patient_id"] == source.PatientID
    assert transcoder.answer(json.dumps(request)) == told and (tmp_path / "copy.dcm").read_bytes() == made


def test_what_an_edit_writes_down_goes_as_well(tmp_path: Path) -> None:
    """After `edit:` the old number stands in Original Attributes Sequence; in the de-identified copy neither does."""
    path = Path(str(get_testdata_file("CT_small.dcm")))
    request = request_for(path, tmp_path, BASIC)
    changes = [{"prefix": {"PatientID": "NEWPREFIX-"}}]
    rule = parse_rules(
        {"a.yaml": "rule: r\npurpose: p\nowner: o\nwhen: {}\nsend:\n  - what: received\n    to: PACS\n"
         f"    edit: {json.dumps(changes)}\n    deidentify: basic\n"}, {}, {"PACS": True}
    ).rules[0]  # fmt: skip
    request["treatment"] = json.loads(rule.sends[0].treatment)
    told = transcoder.answer(json.dumps(request))
    made = (tmp_path / "copy.dcm").read_bytes()
    old = str(dcmread(path).PatientID)
    assert told["pseudonym"]["patient_id"] == f"NEWPREFIX-{old}"
    assert b"NEWPREFIX" not in made and old.encode() not in made
    assert "OriginalAttributesSequence" not in dcmread(tmp_path / "copy.dcm")


@pytest.mark.parametrize("missing", ["key", "short", "header", "pixels"])
def test_what_goes_wrong_leaves_no_copy(missing: str, tmp_path: Path) -> None:
    """Without a key, with a damaged header or text in the pixels: a sentence for the delivery, and no file."""
    name = {"header": "UN_sequence.dcm", "pixels": "examples_rgb_color.dcm"}.get(missing, "CT_small.dcm")
    request = request_for_any(Path(str(get_testdata_file(name))), tmp_path)
    if missing == "key":
        (tmp_path / "deidentify.key").unlink()
    if missing == "short":
        (tmp_path / "deidentify.key").write_text("abcd")
    told = transcoder.answer(json.dumps(request))
    assert set(told) == {"failed"} and told["failed"], told
    assert not (tmp_path / "copy.dcm").exists()


def request_for_any(path: Path, tmp_path: Path) -> dict[str, object]:
    """The same for a file whose header may say nothing."""
    try:
        return request_for(path, tmp_path, BASIC)
    except AttributeError:
        return {**request_for(Path(str(get_testdata_file("CT_small.dcm"))), tmp_path, BASIC), "source": str(path),
                "syntax": str(dcmread(path).file_meta.TransferSyntaxUID)}  # fmt: skip
