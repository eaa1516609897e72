"""Identity, character sets, inherited defects, and the gate that tells ours from theirs."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from derive_material import affine, ct_headers, job, mask, numbers, volume
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.gate import gate
from node.derive.identity import identity, uid
from node.derive.inherit import inherit, text_element
from node.derive.pixels import scale
from node.derive.sources import Sources
from node.derive.standard import CT, MR, PT
from node.derive.write import write
from node.errors import Broken

SHAPE = (3, 6, 5)
PLACE = affine((2.0, 0.7, 0.5))


def reread(headers: list[Dataset]) -> list[Dataset]:
    """The headers as a reader of files has them: raw bytes, nothing converted."""
    found = []
    for header in headers:
        buffer = BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        buffer.seek(0)
        found.append(dcmread(buffer))
    return found


def with_bytes(headers: list[Dataset], **changed: bytes) -> list[Dataset]:
    """Headers in which these attributes hold exactly these bytes."""
    for header in headers:
        for keyword, data in changed.items():
            element = header[keyword]
            header._dict[element.tag] = text_element(element.tag, element.VR, data)
    return headers


def all_kinds(tmp_path: Path, headers: list[Dataset], **attributes: str) -> list[Dataset]:
    """One image, one segmentation, one report of these headers."""
    region = mask(SHAPE, PLACE)
    results = {"thick": volume(SHAPE, PLACE), "body": region, "stats": numbers(region)}
    products = write(
        results, job("thick", "body", "stats", attributes=attributes), Sources(tuple(headers)), tmp_path
    )
    return [dcmread(tmp_path / p.path) for p in products if p.index == 1]


def raw(dataset: Dataset, keyword: str) -> bytes:
    """The value's bytes as they stand in the file, without padding."""
    return dataset.get_item(keyword).value.rstrip(b" ")


def test_identity_ignores_order_and_sees_everything_else() -> None:
    """Source order does not matter; digest, meaning, operator version, node and generation each do."""
    base = identity(["a", "b"], "m", {"x": "1"}, 0, 0)
    assert identity(["b", "a"], "m", {"x": "1"}, 0, 0) == base
    others = [
        identity(["a"], "m", {"x": "1"}, 0, 0), identity(["a", "b"], "n", {"x": "1"}, 0, 0),
        identity(["a", "b"], "m", {"x": "2"}, 0, 0), identity(["a", "b"], "m", {"x": "1"}, 1, 0),
        identity(["a", "b"], "m", {"x": "1"}, 0, 1),
    ]  # fmt: skip
    assert len({base, *others}) == 6


@given(st.text(max_size=30), st.text(max_size=10), st.integers(0, 10**6))
def test_uids_are_legal_and_apart(output: str, role: str, index: int) -> None:
    """A UID has at most 64 digits and dots, begins with 2.25, and differs for the next index."""
    made = uid("ab" * 32, output, role, index)
    assert made.startswith("2.25.")
    assert len(made) <= 64
    assert made != uid("ab" * 32, output, role, index + 1)


@given(
    st.sampled_from([CT, MR, PT]), st.floats(-1e7, 1e7), st.floats(1e-3, 1e7), st.booleans(), st.booleans()
)
def test_any_range_can_be_stored(
    sop_class: str, low: float, extent: float, wholes: bool, padded: bool
) -> None:
    """Both ends of any range come back to a 30000th of it (or to half a whole number), clear of padding."""
    low = float(round(low)) if wholes else low
    high = low + max(1, round(extent)) if wholes else low + extent
    made = scale(sop_class, low, high, wholes=wholes, padded=padded)
    stored = made.store(np.array([low, high]), None).astype(float)
    back = stored * float(made.slope) + float(made.intercept)
    reach = max(abs(low), abs(high)) if sop_class == PT else high - low
    assert (
        np.abs(back - [low, high]).max()
        <= max(reach / 30000, 0.5 if made.slope == "1" else 0) + abs(low) * 1e-9
    )
    assert made.padding is None or made.padding not in stored
    assert sop_class != PT or made.intercept == "0"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen".encode("latin-1")),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        ("ISO_IR 192", "山田^太郎".encode()),
        ("ISO_IR 100", "Иванов".encode("iso8859-5")),
        ("ISO_IR 192", b"M\xfcller"),
        ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
        ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
        ("GB18030", "王^小东".encode("gb18030")),
        ("GBK", "王^小东".encode("gbk")),
        ("ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144", b"M\xfcller=\x1b-L\xb8\xd2\xd0\xdd"),
    ],
)
def test_names_are_copied_byte_for_byte(tmp_path: Path, charset: str, name: bytes) -> None:
    """Patient's Name keeps its bytes in every kind of object, also where its character set is wrong."""
    headers = with_bytes(reread(ct_headers(*SHAPE, PLACE, SpecificCharacterSet=charset.split("\\"),
                                           PatientName="x")), PatientName=name)  # fmt: skip
    for made in all_kinds(tmp_path, headers):
        assert raw(made, "PatientName") == name


def test_text_that_was_read_before_is_copied_all_the_same(tmp_path: Path) -> None:
    """Headers whose values another room has already converted give the same bytes as untouched ones."""
    headers = reread(ct_headers(*SHAPE, PLACE, StudyDescription="Schädel", OtherPatientNames="Jürgen^Ä"))
    for header in headers:
        assert str(header)  # converts every value
    for made in all_kinds(tmp_path, headers):
        assert raw(made, "PatientName") == "Müller^Jürgen".encode("latin-1")
        assert raw(made, "StudyDescription") == "Schädel".encode("latin-1")


def test_what_was_read_before_is_no_other_value() -> None:
    """Sequences and numbers that pydicom converted in one header only are still the same in all, and kept."""
    ordered = Dataset()
    ordered.RequestedProcedureID = "R1"
    headers = ct_headers(*SHAPE, PLACE, RequestAttributesSequence=[ordered], SingleCollimationWidth=0.6)
    read = reread(headers)
    assert read[0].RequestAttributesSequence[0].RequestedProcedureID == "R1"  # converted, in the first only
    assert read[0].SingleCollimationWidth == 0.6
    varying = inherit(read, CT).varying()
    assert {"RequestAttributesSequence", "SingleCollimationWidth"}.isdisjoint(varying)
    assert "XRayTubeCurrent" in varying


def test_what_the_charset_cannot_say_turns_the_object_to_utf8(tmp_path: Path) -> None:
    """A template beyond Latin-1 makes the whole object ISO_IR 192, copied names properly converted."""
    for made in all_kinds(
        tmp_path, reread(ct_headers(*SHAPE, PLACE)), SeriesDescription="厚い {SeriesDescription}"
    ):
        assert made.SpecificCharacterSet == "ISO_IR 192"
        assert raw(made, "PatientName") == "Müller^Jürgen".encode()
        assert made.SeriesDescription.startswith("厚い Thorax")


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 126", b"M\xd2ller"), (None, b"M\xfcller")])
def test_text_that_cannot_be_decoded_is_never_converted(
    tmp_path: Path, charset: str | None, name: bytes
) -> None:
    """Where a copied name is no text in its character set, our own words give way instead of the name."""
    headers = reread(ct_headers(*SHAPE, PLACE, SpecificCharacterSet=charset, PatientName="x"))
    for made in all_kinds(tmp_path, with_bytes(headers, PatientName=name), SeriesDescription="厚い AX"):
        assert raw(made, "PatientName") == name
        assert made.SeriesDescription == "?? AX"


def test_inherited_defects_do_not_block(tmp_path: Path) -> None:
    """A bad optional attribute is dropped, a bad type 2 emptied, and Patient ID stays as it came."""
    long_id = b"P" * 70
    headers = with_bytes(
        reread(ct_headers(*SHAPE, PLACE, PatientAge="045Y", ImageComments="x")),
        PatientAge=b"45", PatientBirthDate=b"1950-01-02", PatientID=long_id, StudyID=b"S" * 20,
    )  # fmt: skip
    for made in all_kinds(tmp_path, headers):
        assert "PatientAge" not in made
        assert raw(made, "PatientBirthDate") == b""
        assert raw(made, "StudyID") == b""
        assert raw(made, "PatientID") == long_id


def test_the_gate_tells_theirs_from_ours(tmp_path: Path) -> None:
    """The overlong Patient ID of the source is inherited; one that we alone have is introduced."""
    headers = with_bytes(reread(ct_headers(*SHAPE, PLACE)), PatientID=b"P" * 70)
    write({"thick": volume(SHAPE, PLACE)}, job("thick"), Sources(tuple(headers)), tmp_path)
    path = tmp_path / "thick" / "00001.dcm"
    assert [(d.keyword, d.introduced) for d in gate(path, headers)] == [("PatientID", False)]
    found = gate(path, reread(ct_headers(*SHAPE, PLACE)))
    assert {(d.keyword, d.introduced) for d in found} == {("PatientID", True)}


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("ImageType", None, "ImageType"), ("KVP", None, "KVP"), ("StudyInstanceUID", "1.2.9", "StudyInstanceUID"),
        ("PixelData", b"\0\0", "PixelData"), ("AccessionNumber", "other", "AccessionNumber"),
        ("SeriesInstanceUID", "1.2.3.4", "SeriesInstanceUID"),
        ("SOPInstanceUID", "1.2.8", "MediaStorageSOPInstanceUID"),
    ],
)  # fmt: skip
def test_the_gate_finds_what_is_wrong(tmp_path: Path, keyword: str, value: object, named: str) -> None:
    """A missing type 1 or 2, a foreign or borrowed UID, short pixels, another order: each is introduced."""
    headers = reread(ct_headers(*SHAPE, PLACE))
    write({"thick": volume(SHAPE, PLACE)}, job("thick"), Sources(tuple(headers)), tmp_path)
    path = tmp_path / "thick" / "00001.dcm"
    assert gate(path, headers) == []
    spoilt = dcmread(path)
    if value is None:
        del spoilt[keyword]
    else:
        setattr(spoilt, keyword, value)
    meta = spoilt.file_meta.MediaStorageSOPInstanceUID
    spoilt.save_as(path, enforce_file_format=True)
    if keyword == "SOPInstanceUID":  # pydicom puts file meta right on saving: put it wrong again
        path.write_bytes(path.read_bytes().replace(b"1.2.8\0", b"1.2.7\0", 1))
        assert meta
    assert named in {defect.keyword for defect in gate(path, headers) if defect.introduced}


def test_an_introduced_defect_names_output_and_attribute(tmp_path: Path) -> None:
    """A code string template with small letters is stopped with a sentence that names it."""
    headers = ct_headers(*SHAPE, PLACE)
    with pytest.raises(Broken, match=r"thick.*BodyPartExamined"):
        write({"thick": volume(SHAPE, PLACE)},
              job("thick", attributes={"BodyPartExamined": "chest"}), Sources(tuple(headers)), tmp_path)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # meant: illegal UIDs
def test_an_illegal_uid_of_the_source_may_be_quoted(tmp_path: Path) -> None:
    """References hold the source's UIDs as they are; one that is no UID is its defect and blocks nothing."""
    headers = with_bytes(reread(ct_headers(*SHAPE, PLACE)), SeriesInstanceUID=b"1.2.abc")
    for number, header in enumerate(headers):
        with_bytes([header], SOPInstanceUID=b"1.2.x.%d" % number)
    made = all_kinds(tmp_path, headers)
    assert len(made) == 3
    found = gate(tmp_path / "body" / "00001.dcm", headers)
    assert {d.introduced for d in found} == {False}
    assert any("ReferencedSOPInstanceUID" in d.keyword for d in found)
