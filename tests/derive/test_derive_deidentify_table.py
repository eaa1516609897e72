"""Every row of PS3.15 Table E.1-1 and of Table E.3.4-1, under the Basic Profile and each option, at any depth.

The tables are read here by the test itself, and what a code means stands here once more, from Table E.1-1a.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

import node.derive.deidentify as package
from node.derive.deidentify import CLEAN, RETAIN, Profile, Secrets
from node.derive.deidentify.decide import decide, resolve
from node.derive.deidentify.known import known
from node.derive.deidentify.table import attributes, content_items, families
from node.derive.deidentify.walk import Walk

FOLDER = Path(package.__file__).parent
OPTIONS = tuple(option for option in (*RETAIN, *CLEAN) if option != "pixel_data")
SECRETS = Secrets(b"a key of the test, 32 bytes long.", "label")
DAYS = 100
ORIGINAL: dict[str, Any] = {
    "AE": "ORIGINAL_AE", "AS": "045Y", "CS": "ORIGINAL", "DA": "20240310", "DS": "71.5", "DT": "20240310091500.25",
    "IS": "7153", "LO": "Quentin Original", "LT": "Quentin Original", "PN": "Original^Quentin", "SH": "Quentin Q7",
    "ST": "Quentin Original", "TM": "091501", "UC": "Quentin Original", "UI": "1.2.3.4.5.678", "UR": "https://original",
    "UT": "Quentin Original", "OB": b"Original", "OW": b"Original", "UN": b"Original", "US": 7153, "UL": 71530,
    "FD": 71.5, "FL": 71.5, "SS": 7153, "SL": 7153,
}  # fmt: skip
SHIFTED = {"DA": "20231201", "DT": "20231201091500.25", "TM": "091501"}
"""A hundred days before, counted by hand; times of day stay."""
NEW_VRS = {
    0x0040B034: "DT", 0x0040E012: "UR", 0x0040A034: "DT", 0x0040A035: "DT", 0x00102162: "UC", 0x00100045: "UT",
    0x0040B03F: "LO", 0x0040B03B: "LO", 0x00100012: "LT", 0x00100013: "LT", 0x00100016: "LT", 0x0040B036: "DT",
    0x00100042: "UT", 0x00100047: "UR",
}  # fmt: skip
"""Attributes of the table that pydicom's dictionary is too old for; those left out here are sequences."""


def lines(name: str) -> list[dict[str, str]]:
    """The rows of a table, by the heads of its columns."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


ROWS = [line for line in lines("attributes.tsv") if "x" not in line["tag"] and line["tag"] != "odd"]


def walk(*options: str, sop_class: str = "", source: Dataset | None = None) -> Walk:
    """A walk under *options*."""
    profile = Profile(frozenset(options) & set(RETAIN), frozenset(options) & set(CLEAN))
    return Walk(profile, SECRETS, known(source or Dataset()), sop_class, DAYS, frozenset())


def vr_of(tag: int) -> str:
    """The VR of an attribute of the table."""
    if dictionary_has_tag(tag):
        found = dictionary_VR(tag)
        return "US" if found.startswith("US") else "OB" if found.startswith("OB") else found
    return NEW_VRS.get(tag, "SQ")


def made(tag: int) -> DataElement:
    """The attribute with a value that must not be found again."""
    vr = vr_of(tag)
    if vr != "SQ":
        return DataElement(tag, vr, ORIGINAL[vr])
    item = Dataset()
    item.PatientID, item.ReferencedSOPInstanceUID, item.MilitaryRank = (
        "Quentin Q7",
        "1.2.3.4.5.678",
        "Original",
    )
    return DataElement(tag, "SQ", [item])


def holders(element: DataElement) -> Iterator[tuple[Dataset, Any]]:
    """A dataset with the element at its top, and one with it two sequences down, with the way to it."""
    top = Dataset()
    top.add(element)
    yield top, lambda dataset: dataset
    deep, middle, inner = Dataset(), Dataset(), Dataset()
    inner.add(element)
    middle.ReferencedSeriesSequence = [inner]
    deep.SharedFunctionalGroupsSequence = [middle]
    yield deep, lambda dataset: dataset.SharedFunctionalGroupsSequence[0].ReferencedSeriesSequence[0]


def gone(element: DataElement | None, option: str = "") -> bool:
    """Whether nothing of the original value is there; UIDs within a sequence stay where the option says so."""
    said = "" if element is None else str(element.value)
    said = said.replace("1.2.3.4.5.678", "") if option == "uids" and element and element.VR == "SQ" else said
    return not any(
        part in said for part in ("riginal", "RIGINAL", "uentin", "20240310", "1.2.3.4.5.678", "7153", "71.5")
    )


def expect(code: str, option: str, tag: int, element: DataElement | None) -> None:
    """Hold *element* against what the standard's column says."""
    vr = vr_of(tag)
    if code == "X":
        assert element is None
    elif code == "Z":
        assert element is not None and gone(element, option) and (vr != "SQ" or not element.value)
    elif code == "D":
        assert element is not None and not element.is_empty and gone(element, option), element
        assert vr == "SQ" or element.value != ORIGINAL[vr]
    elif code == "U":
        assert element is not None
        found = element.value[0].ReferencedSOPInstanceUID if vr == "SQ" else element.value
        assert found == SECRETS.uid("1.2.3.4.5.678") and found.startswith("2.25.") and len(found) <= 64
    elif code == "K":
        assert element is not None
        if vr == "SQ":  # kept is the sequence, its items are cleaned (Table E.1-1a)
            assert "Quentin" not in str(element.value)
        else:
            assert element.value == ORIGINAL[vr]
    elif code == "C" and option == "shifted_dates":
        assert element is None or gone(element, option) or vr in ("TM", "SH")
        if vr in SHIFTED:
            assert element is not None and element.value == SHIFTED[vr]
    elif code == "C":
        assert element is None or gone(element, option) or (option == "device" and vr == "AE")


def test_the_table_is_whole() -> None:
    """All 656 rows of Table E.1-1 (2026c), all 214 of E.3.4-1 and all 479 of E.3.10-1 are there, each once."""
    assert (len(families()), len(content_items()), len(lines("private.tsv"))) == (656, 214, 479)
    assert len(attributes()) == 652 == len({line["tag"] for line in ROWS})
    codes = {line["basic"] for line in lines("attributes.tsv")}
    assert codes == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}


@pytest.mark.parametrize("option", ["", *OPTIONS])
@pytest.mark.parametrize("depth", [0, 1])
def test_every_row_is_treated_as_its_column_says(option: str, depth: int) -> None:
    """Each attribute, under the Basic Profile and one option, at the top and nested: what the column's code means."""
    for line in ROWS:
        tag = int(line["tag"], 16)
        if tag >> 16 in (0, 2, 4):
            continue  # not of a dataset: tested below
        code = (option and line.get(option)) or line["basic"].split("/")[-1].rstrip("*")
        holder, way = list(holders(made(tag)))[depth]
        element = way(walk(*filter(None, [option])).dataset(holder)).get(Tag(tag))
        try:
            expect(code, option, tag, element)
        except AssertionError as error:
            pytest.fail(
                f"{line['name']} ({line['tag']}), {option or 'basic'} says {code}: {element!r} {error}"
            )


def test_commands_file_headers_and_directories_have_no_place_in_an_object() -> None:
    """Attributes of groups 0000, 0002 and 0004 go whatever an option says (PS3.15 E.1.1)."""
    for line in ROWS:
        tag = int(line["tag"], 16)
        if tag >> 16 in (0, 2, 4):
            source = Dataset()
            source._dict[Tag(tag)] = made(tag)
            assert not walk("uids").dataset(source)


@pytest.mark.parametrize(
    ("code", "kind", "action"),
    [
        *[(code, kind, code) for code in "XZDU" for kind in ("1", "1C", "2", "2C", "3", "")],
        ("Z/D", "1", "D"), ("Z/D", "1C", "D"), ("Z/D", "2", "Z"), ("Z/D", "2C", "Z"), ("Z/D", "3", "Z"),
        ("Z/D", "", "D"),
        ("X/Z", "1", "Z"), ("X/Z", "2", "Z"), ("X/Z", "2C", "Z"), ("X/Z", "3", "X"), ("X/Z", "", "Z"),
        ("X/D", "1", "D"), ("X/D", "1C", "D"), ("X/D", "2", "D"), ("X/D", "3", "X"), ("X/D", "", "D"),
        ("X/Z/D", "1", "D"), ("X/Z/D", "2", "Z"), ("X/Z/D", "2C", "Z"), ("X/Z/D", "3", "X"), ("X/Z/D", "", "D"),
        ("X/Z/U*", "1", "U"), ("X/Z/U*", "2", "Z"), ("X/Z/U*", "3", "X"), ("X/Z/U*", "", "U"),
    ],
)  # fmt: skip
def test_compound_actions_follow_the_type(code: str, kind: str, action: str) -> None:
    """A compound code of Table E.1-1a becomes the one action that keeps an attribute of that Type valid."""
    assert resolve(code, kind) == action


def test_types_come_from_the_iod() -> None:
    """In a CT image (PS3.3 A.3): Series Date (3) goes, Content Date (2C) and Study Date (2) are empty."""
    source = Dataset()
    source.SeriesDate = source.ContentDate = source.StudyDate = source.AcquisitionDateTime = "20240310"
    result = walk(sop_class="1.2.840.10008.5.1.4.1.1.2").dataset(source)
    assert "SeriesDate" not in result and "AcquisitionDateTime" not in result
    assert result["ContentDate"].is_empty and result["StudyDate"].is_empty


def test_shifted_dates_win_over_what_another_option_keeps() -> None:
    """Where the device's identity and shifted dates are retained, a date of the device is shifted, not kept."""
    row = attributes()[0x00181203]
    assert decide(row, {"device", "shifted_dates"}).code == "C"
    assert decide(row, {"device"}).code == decide(row, {"dates"}).code == "K"


def test_what_nobody_can_read_is_not_kept() -> None:
    """An attribute to be kept that came without a VR, and is newer than the dictionary, goes all the same."""
    source = Dataset()
    source._dict[Tag(0x00100043)] = RawDataElement(Tag(0x00100043), "UN", 8, b"Original", 0, False, True)
    assert not walk("patient_characteristics").dataset(source)


@pytest.mark.parametrize("option", ["", "graphics"])
def test_curves_and_overlays_go(option: str) -> None:
    """Curves and drawn overlays go with all of their plane; a region of interest stays where graphics are cleaned."""
    for group, kind in ((0x5000, ""), (0x6000, "G"), (0x6002, "R"), (0x601E, "R")):
        source = Dataset()
        source.add_new((group, 0x0010), "US", 8)
        source.add_new((group, 0x0040), "CS", kind)
        source.add_new((group, 0x3000), "OW", b"Original")
        source.add_new((group, 0x4000), "LT", "Quentin Original")
        result = walk(*filter(None, [option])).dataset(source)
        assert (Tag(group, 0x3000) in result) == (option == "graphics" and kind == "R")
        assert "riginal" not in str(result.get((group, 0x4000), ""))
        assert bool(result) == (option == "graphics" and kind == "R")


def test_private_attributes_go_unless_they_are_known_to_be_safe() -> None:
    """Odd groups go; with the option, what Table E.3.10-1 lists stays with its creator, in whatever block it is."""
    source = Dataset()
    source.add_new((0x7053, 0x0012), "LO", "Philips PET Private Group")
    source.add_new((0x7053, 0x1200), "DS", "1.5")
    source.add_new((0x7053, 0x1277), "LO", "Quentin Original")
    source.add_new((0x0009, 0x0010), "LO", "ACME")
    source.add_new((0x0009, 0x1001), "LO", "Quentin Original")
    assert not walk().dataset(source)
    result = walk("safe_private").dataset(source)
    assert sorted(result.keys()) == [0x70530012, 0x70531200]
    assert result[0x70531200].value == 1.5


VALUES = {
    "TEXT": ("TextValue", "Quentin Original"), "PNAME": ("PersonName", "Original^Quentin"),
    "DATE": ("Date", "20240310"),
    "TIME": ("Time", "091501"), "DATETIME": ("DateTime", "20240310091500.25"), "UIDREF": ("UID", "1.2.3.4.5.678"),
}  # fmt: skip


def item_of(scheme: str, code: str, kind: str) -> Dataset:
    """A content item of that concept."""
    item, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, scheme, "A meaning"
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", kind, [name]
    if kind in VALUES:
        setattr(item, *VALUES[kind])
    elif kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        reference = Dataset()
        reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        reference.ReferencedSOPInstanceUID = "1.2.3.4.5.678"
        item.ReferencedSOPSequence = [reference]
    return item


@pytest.mark.parametrize("option", ["", *OPTIONS])
def test_every_content_item_is_treated_as_its_column_says(option: str) -> None:
    """Each concept of Table E.3.4-1, under cleaned structured content and one option, nested in a container."""
    for line in lines("content_items.tsv"):
        kind = line["type"]
        code = (option and line.get(option)) or line["basic"].split("/")[-1]
        inside = item_of("DCM", "111036", "CONTAINER")
        inside.ContentSequence = [item_of(line["scheme"], line["code"], kind)]
        source = Dataset()
        source.ContentSequence = [inside]
        result = walk("structured_content", *filter(None, [option])).dataset(source).ContentSequence[0]
        found = result.ContentSequence[0] if "ContentSequence" in result else None
        about = f"{line['meaning']} under {option or 'basic'}: {code}"
        if code == "X":
            assert found is None, about
            continue
        assert found is not None, about
        if kind in ("CODE", "CONTAINER", "NUM"):
            assert code == "K", about
        elif kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
            uid = found.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            assert uid == ("1.2.3.4.5.678" if option == "uids" else SECRETS.uid("1.2.3.4.5.678")), about
        else:
            keyword, was = VALUES[kind]
            if code == "K":
                assert found[keyword].value == was, about
            elif code == "C" and option == "shifted_dates":
                assert found[keyword].value == SHIFTED[found[keyword].VR], about
            else:
                assert gone(found[keyword]) and not found[keyword].is_empty, about
                assert kind != "UIDREF" or SECRETS.uid(was) == found.UID, about


def test_a_text_that_its_item_does_not_announce_goes() -> None:
    """A text in an item that says it is a number, or in no content item at all, is not passed on unread."""
    source, odd = Dataset(), item_of("DCM", "125007", "NUM")
    odd.TextValue = "Meyer from Neustadt"
    source.ContentSequence = [odd]
    source.TextValue = "Meyer from Neustadt"
    result = walk("structured_content").dataset(source)
    assert "TextValue" not in result.ContentSequence[0] and "Meyer" not in str(result)


def test_a_rejection_note_still_says_what_it_rejects() -> None:
    """Of a Key Object Selection Document the references stay, to what their objects became; its texts go."""
    source = Dataset()
    source.ContentSequence = [item_of("DCM", "113012", "TEXT"), item_of("DCM", "121112", "IMAGE")]
    result = walk(sop_class="1.2.840.10008.5.1.4.1.1.88.59").dataset(source).ContentSequence
    assert [item.ValueType for item in result] == ["IMAGE"]
    assert result[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == SECRETS.uid("1.2.3.4.5.678")


def test_content_that_is_not_cleaned_is_replaced_whole() -> None:
    """Without the option, a report's Content Sequence is one remark that says nothing."""
    source = Dataset()
    source.ContentSequence = [item_of("DCM", "121071", "TEXT"), item_of("DCM", "121008", "PNAME")]
    result = walk().dataset(source).ContentSequence
    assert len(result) == 1 and result[0].TextValue == "REMOVED"
