"""Claims about what `edit:` makes of a dataset: the right text in the right form, the old values kept, or nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from node.derive.edit import Edited, edited
from node.derive.inherit import opened, put, text_element, writable
from node.derive.original import Coercion
from node.errors import Refused
from node.person import COMPONENTS, PARTS, part_of, with_part

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
WHY = Coercion(AT, "PACSNode 0.4 PACSNODE", "CT01")


def change(op: str, path: str, **more: Any) -> dict[str, Any]:
    """One edit as the rules give it; a part of a name stands behind a colon."""
    keyword, _, part = path.partition(":")
    return {"op": op, "path": keyword, **({"part": part} if part else {}), **more}


def ct(**more: Any) -> Dataset:
    """A real CT header, with these values."""
    found = dcmread(str(get_testdata_file("CT_small.dcm")), stop_before_pixels=True)
    for keyword, value in more.items():
        setattr(found, keyword, value)
    return read_back(found)


def encoded(dataset: Dataset) -> bytes:
    """Its bytes in Explicit VR Little Endian, raw values untouched."""
    with DicomBytesIO() as buffer:
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, writable(opened(dataset)))
        return bytes(buffer.getvalue())


def read_back(dataset: Dataset) -> Dataset:
    """The same as it comes out of a file."""
    return dcmread(BytesIO(encoded(dataset)), force=True)


def made(
    source: Dataset, *edits: dict[str, Any], why: Coercion | None = WHY, **tables: dict[str, str]
) -> Dataset:
    """What comes of it, as it is read by whoever gets it."""
    found: Edited = edited(source, edits, tables, why)
    return read_back(found.dataset)


def original(dataset: Dataset, item: int = -1) -> Dataset:
    """What the last item says that was there before."""
    (found,) = dataset.OriginalAttributesSequence[item].ModifiedAttributesSequence
    return found  # type: ignore[no-any-return]


def test_a_text_is_set_and_the_old_one_kept() -> None:
    """The new value stands in place, with braces filled in; the old one in the Original Attributes Sequence."""
    found = made(ct(), change("set", "InstitutionName", value="City {Modality} {PatientName.family}"))
    assert found.InstitutionName == "City CT CompressedSamples"
    assert original(found).InstitutionName == "JFK IMAGING CENTER"
    item = found.OriginalAttributesSequence[-1]
    assert item.ReasonForTheAttributeModification == "COERCE"
    assert item.ModifyingSystem == "PACSNode 0.4 PACSNODE" and item.SourceOfPreviousValues == "CT01"
    assert (
        item.AttributeModificationDateTime == "20260301120000.000005+0000" == found.InstanceCoercionDateTime
    )


def test_only_what_is_named_is_touched() -> None:
    """Every other element has the very bytes it had."""
    source = ct()
    found = edited(source, [change("set", "StudyDescription", value="x")], {}, WHY)
    for tag in source.keys():  # noqa: SIM118 - no conversion
        assert tag in found.changed or found.dataset.get_item(tag) is source.get_item(tag)
    assert {Tag("StudyDescription"), Tag("OriginalAttributesSequence")} <= found.changed
    assert source.StudyDescription == "e+1"


def test_what_changes_nothing_leaves_no_trace() -> None:
    """A value that is set to what it was, and a prefix for an empty one: no item, no changed element."""
    source = ct(PatientComments="")
    found = edited(
        source,
        [change("set", "Modality", value="CT"), change("prefix", "PatientComments", text="x")],
        {}, None,
    )  # fmt: skip
    assert not found.changed
    assert "OriginalAttributesSequence" not in edited(source, [], {}, WHY).dataset


def test_earlier_items_stay() -> None:
    """Whoever changed the object before us is still recorded, first."""
    once = made(ct(), change("set", "StudyID", value="1"))
    twice = made(once, change("set", "StudyID", value="2"))
    assert len(twice.OriginalAttributesSequence) == 2 and original(twice).StudyID == "1"
    assert original(twice, 0).StudyID == original(once).StudyID


def test_the_issuer_goes_with_the_patient_id() -> None:
    """Who changes the number says whose number it was, also where that did not change (C.12.1.1.9)."""
    found = made(ct(IssuerOfPatientID="OLD"), change("prefix", "PatientID", text="H2-"))
    assert (found.PatientID, original(found).PatientID, original(found).IssuerOfPatientID) == (
        "H2-1CT1", "1CT1", "OLD",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "part", "text", "expected"),
    [
        ("Doe^John", "family", "Roe", "Roe^John"),
        ("Doe^John", "suffix", "Jr", "Doe^John^^^Jr"),
        ("Doe^John^^^Jr", "suffix", "", "Doe^John"),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "ideographic.given",
            "次郎",
            "Yamada^Tarou=山田^次郎=やまだ^たろう",
        ),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "phonetic", "", "Yamada^Tarou=山田^太郎"),
        ("Yamada^Tarou", "phonetic.family", "やまだ", "Yamada^Tarou==やまだ"),
        ("", "given", "Jo", "^Jo"),
    ],
)
def test_a_part_of_a_name(name: str, part: str, text: str, expected: str) -> None:
    """One component is set and the others stay, carets and groups as PS3.5 6.2.1 has them."""
    assert with_part(name, part, text) == expected
    assert part_of(expected, part) == text
    found = made(
        ct(PatientName=name, SpecificCharacterSet="ISO_IR 192"),
        change("set", f"PatientName:{part}", value=text),
    )
    assert str(found.PatientName) == expected


_WORD = st.text(st.characters(exclude_characters="^=\\", exclude_categories=("C", "Z")), max_size=8)


@given(
    st.lists(st.lists(_WORD, min_size=1, max_size=5), min_size=1, max_size=3), st.sampled_from(PARTS), _WORD
)
def test_a_part_changes_no_other_part(groups: list[list[str]], part: str, text: str) -> None:
    """Whatever the name, setting one component leaves each other as it was."""
    name = "=".join("^".join(components) for components in groups)
    after = with_part(name, part, text)
    inside = [p for p in PARTS if p.count(".") == 1 or p in COMPONENTS]
    mine = {part, f"alphabetic.{part}", part.removeprefix("alphabetic.")}
    if part in ("alphabetic", "ideographic", "phonetic"):
        mine |= {p for p in inside if p.startswith(part) or (part == "alphabetic" and "." not in p)}
    assert all(part_of(after, p) == part_of(name, p).strip() for p in inside if p not in mine)
    assert after.count("=") <= 2 and all(group.count("^") <= 4 for group in after.split("="))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change("set", "StudyDate", value="2026-03-01"), "StudyDate is no date"),
        (change("set", "StudyTime", value="25"), "StudyTime is no time"),
        (change("set", "PatientAge", value="42"), "PatientAge is no age"),
        (change("set", "SeriesNumber", value="{PatientID}"), "SeriesNumber is no whole number"),
        (change("prefix", "PatientID", text="x" * 64), "PatientID has 68 characters, LO allows 64"),
        (change("set", "AccessionNumber", value="x" * 17), "AccessionNumber has 17 characters, SH allows 16"),
        (change("set", "Modality", value="ct"), "Modality has characters a code string may not have"),
        (change("set", "StudyDescription", value="a\\b"), "StudyDescription has 2 values"),
        (change("set", "StationName", value="a\x07"), "control characters"),
        (change("set", "PatientName:family", value="A^B"), "one part of a name"),
        (change("set", "Modality", value="Ü"), "beyond ASCII"),
        (change("remove", "Modality"), "Modality would be empty"),
        (change("set", "Modality", value=""), "Modality would be empty"),
        (change("map", "BodyPartExamined", table={"a": "b"}, name="t.csv", **{"else": "refuse"}),
         "BodyPartExamined is empty, and that is not in the table t.csv"),
        (change("map", "Modality", table={"a": "b"}, name="t.csv", **{"else": "refuse"}),
         "the value of Modality is not in the table t.csv"),
    ],
)  # fmt: skip
def test_what_does_not_fit_refuses_the_whole(edit: dict[str, Any], says: str) -> None:
    """A date that is none, a text too long, a value the table lacks: in words, without the patient's data."""
    with pytest.raises(Refused, match=re.escape(says)) as refused:
        made(ct(), edit)
    assert "CompressedSamples" not in str(refused.value) and "1CT1" not in str(refused.value)


def test_what_the_standard_demands_is_emptied_not_removed() -> None:
    """Patient's Name is type 2: it stays, empty; a type 3 attribute goes."""
    found = made(ct(), change("remove", "PatientName"), change("remove", "StudyDescription"))
    assert found.PatientName == "" and "StudyDescription" not in found
    assert (
        str(original(found).PatientName) == "CompressedSamples^CT1"
        and original(found).StudyDescription == "e+1"
    )


def test_copies_and_maps_take_what_earlier_edits_left() -> None:
    """Edits go in their order: a prefix is copied with the value it is put before; each of several values is mapped."""
    source = ct(OtherPatientNames="", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    found = made(
        source,
        change("prefix", "PatientID", text="A-"),
        change("copy", "StudyID", **{"from": "PatientID"}),
        change("copy", "PatientComments", **{"from": "PatientName", "from_part": "given"}),
        change("copy", "StudyDescription", **{"from": "OtherPatientNames"}),
        change("map", "ImageType", lookup="d", name="t.csv", **{"else": "keep"}),
        d={"ORIGINAL": "DERIVED"},
    )
    assert (found.StudyID, found.PatientComments, found.StudyDescription) == ("A-1CT1", "CT1", "e+1")
    assert list(found.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]


def test_a_map_may_empty_what_it_does_not_know() -> None:
    """`else: empty` leaves nothing of a value that the table does not name."""
    edit = change("map", "StudyDescription", table={"x": "y"}, name="t", **{"else": "empty"})
    assert made(ct(), edit).StudyDescription == ""


def test_paths_lead_into_sequences() -> None:
    """An item by its number, or every item; what is not there is not made; the whole old sequence is kept."""
    items = []
    for code in ("A", "B"):
        item = Dataset()
        item.ScheduledProcedureStepID, item.RequestedProcedureID = code, code
        items.append(item)
    source = ct(RequestAttributesSequence=Sequence(items))
    found = made(
        source,
        change("set", "RequestAttributesSequence[1].ScheduledProcedureStepID", value="C"),
        change("prefix", "RequestAttributesSequence.RequestedProcedureID", text="R"),
        change("set", "RequestAttributesSequence[7].ScheduledProcedureStepID", value="D"),
        change("set", "ReferencedStudySequence[0].StudyID", value="E"),
    )
    said = [(i.ScheduledProcedureStepID, i.RequestedProcedureID) for i in found.RequestAttributesSequence]
    assert said == [("A", "RA"), ("C", "RB")] and "ReferencedStudySequence" not in found
    before = original(found).RequestAttributesSequence
    assert [i.ScheduledProcedureStepID for i in before] == ["A", "B"]
    assert [i.ScheduledProcedureStepID for i in source.RequestAttributesSequence] == ["A", "B"]
    assert "RequestAttributesSequence" not in made(source, change("remove", "RequestAttributesSequence"))


def test_numbers_stay_numbers() -> None:
    """Binary numbers are set from text, and refused where they do not fit their VR."""
    assert made(ct(), change("set", "FailureReason", value="3")).FailureReason == 3
    found = made(ct(), change("set", "RecommendedDisplayFrameRateInFloat", value="2.5"))
    assert found.RecommendedDisplayFrameRateInFloat == 2.5
    with pytest.raises(Refused, match="FailureReason would hold what is no number that US allows"):
        made(ct(), change("set", "FailureReason", value="70000"))


@pytest.mark.parametrize(
    ("charset", "name", "new", "expected"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "Café", "ISO_IR 100"),
        ("ISO_IR 100", "Müller^Jürgen", "北", "ISO_IR 192"),
        (None, "Doe^Jane", "Ärzte", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "山", ["", "ISO 2022 IR 87"]),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "ß", "ISO_IR 192"),
    ],
)
def test_new_text_is_said_in_the_objects_characters(charset: Any, name: str, new: str, expected: Any) -> None:
    """Where its character set has them it stays; else the whole object becomes UTF-8, and no name changes."""
    source = dcmread(str(get_testdata_file("CT_small.dcm")), stop_before_pixels=True)
    if charset is None:
        del source.SpecificCharacterSet
    else:
        source.SpecificCharacterSet = charset
    source.PatientName = name
    found = made(read_back(source), change("set", "InstitutionName", value=new))
    assert found.get("SpecificCharacterSet") == expected
    assert (str(found.PatientName), found.InstitutionName) == (name, new)
    assert str(original(found).InstitutionName) == "JFK IMAGING CENTER"


def test_text_that_cannot_be_read_is_not_guessed_at() -> None:
    """Bytes outside the declared character set stay as they are; an edit that needs to read them is refused."""
    source = ct()
    put(source, "PatientName", text_element(Tag("PatientName"), "PN", b"M\xfcller"))
    put(source, "SpecificCharacterSet", text_element(Tag("SpecificCharacterSet"), "CS", b"ISO_IR 192"))
    kept = edited(source, [change("set", "StudyID", value="7")], {}, WHY).dataset
    assert kept.get_item("PatientName").value == b"M\xfcller"
    for edit in (
        change("prefix", "PatientName:family", text="x"),
        change("set", "StudyID", value="{PatientName}"),
    ):
        with pytest.raises(Refused, match="PatientName has bytes that are no text"):
            edited(source, [edit], {}, WHY)


def test_a_defective_old_value_is_recorded_as_empty() -> None:
    """What was no value of its VR stands in the record with zero length (C.12.1.1.9)."""
    source = ct()
    put(source, "StudyDate", text_element(Tag("StudyDate"), "DA", b"yesterday"))
    found = made(source, change("set", "StudyDate", value="20260301"))
    assert found.StudyDate == "20260301" and original(found).StudyDate == ""


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "prefix", "remove", "copy"]),
            st.sampled_from(["PatientID", "PatientName", "StudyDescription", "StudyDate", "SeriesNumber"]),
            st.text(max_size=20),
        ),
        max_size=5,
    )
)
def test_any_text_is_put_in_place_or_refused(asked: list[tuple[str, str, str]]) -> None:
    """Whatever the edits say, the outcome is valid DICOM or a sentence, and the same each time."""
    edits = [
        change(op, keyword, value=text.replace("{", "").replace("}", ""), text=text, **{"from": "StudyID"})
        for op, keyword, text in asked
    ]
    source = ct()
    try:
        first = edited(source, edits, {}, WHY)
    except Refused:
        return
    again = edited(ct(), edits, {}, WHY)
    assert encoded(first.dataset) == encoded(again.dataset)
    assert read_back(first.dataset).SOPInstanceUID == source.SOPInstanceUID
