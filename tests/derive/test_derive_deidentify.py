"""De-identification of one object: pixels, dates, words, references, marks, and what it refuses."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from node.derive.deidentify import Made, Pixels, Profile, Secrets, Site, Template, deidentified, plan
from node.derive.deidentify.moments import shifted
from node.derive.deidentify.words import cleaned, vocabulary
from node.errors import Refused

CT, MR, US, SC = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "6.1", "7"))
SEG, PDF, RAW = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.66"
KEY = Secrets(b"a key of these tests, 32 bytes ..", "profile")
BASIC = Profile()
PIXELS = Profile(clean=frozenset({"pixel_data"}))


def image(sop_class: str = CT, modality: str = "CT", **more: object) -> Dataset:
    """A small image of Quentin's."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = sop_class, "1.2.3.4", modality
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    made.PatientName, made.PatientID, made.IssuerOfPatientID = "Original^Quentin", "Q-4711", "HOSP"
    made.StudyDate, made.Manufacturer, made.ManufacturerModelName = "20240310", "ACME", "Scanner One"
    made.Rows, made.Columns, made.SamplesPerPixel, made.BitsAllocated = 4, 6, 1, 16
    made.BitsStored, made.HighBit, made.PixelRepresentation = 12, 11, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def made_of(
    source: Dataset,
    profile: Profile = BASIC,
    site: Site | None = None,
    data: bytes | None = None,
    key: Secrets = KEY,
) -> Made:
    """What becomes of *source*."""
    return deidentified(source, Pixels(data), profile, key, site or Site())


def test_it_says_who_it_is_now_and_how_it_was_made() -> None:
    """Identity removed, method and codes of CID 7050, dates removed, a pseudonym in place of name and ID."""
    profile = Profile(frozenset({"device"}), frozenset({"descriptors"}))
    result = made_of(image(), profile, Site(prefix="STUDY7-"))
    dataset = result.dataset
    assert dataset.PatientIdentityRemoved == "YES"
    codes = [
        (code.CodeValue, code.CodingSchemeDesignator) for code in dataset.DeidentificationMethodCodeSequence
    ]
    assert codes == [("113100", "DCM"), ("113105", "DCM"), ("113109", "DCM")]
    assert all(len(text) <= 64 for text in dataset.DeidentificationMethod)
    assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
    assert dataset.PatientID == dataset.PatientName == result.pseudonym
    assert result.pseudonym.startswith("STUDY7-") and len(result.pseudonym) == len("STUDY7-") + 12
    assert result.patient == ("Q-4711", "HOSP") and "BurnedInAnnotation" not in dataset


@pytest.mark.parametrize(
    ("retain", "said", "date"),
    [((), "REMOVED", ""), (("dates",), "UNMODIFIED", "20240310"), (("shifted_dates",), "MODIFIED", None)],
)
def test_it_says_what_became_of_dates(retain: tuple[str, ...], said: str, date: str | None) -> None:
    """Longitudinal Temporal Information Modified (PS3.15 E.3.6) tells full, modified and removed dates apart."""
    dataset = made_of(image(), Profile(frozenset(retain))).dataset
    assert dataset.LongitudinalTemporalInformationModified == said
    assert (
        (dataset.StudyDate or "") == date if date is not None else dataset.StudyDate not in ("", "20240310")
    )


def test_a_patient_keeps_one_pseudonym_and_one_shift() -> None:
    """The same Patient ID and Issuer: one pseudonym and one shift in every study and profile; others differ."""
    dates = Profile(frozenset({"shifted_dates"}))
    first = made_of(image(), dates)
    later = made_of(
        image(StudyInstanceUID="1.2.99", StudyDate="20240410", PatientName="Original-Meyer^Quentin"), dates
    )
    other = made_of(image(IssuerOfPatientID="ELSEWHERE"), dates)
    assert first.pseudonym == later.pseudonym == made_of(image()).pseudonym != other.pseudonym
    days = [int(np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}", "D").astype(int)) for d in (
        first.dataset.StudyDate, later.dataset.StudyDate)]  # fmt: skip
    assert days[1] - days[0] == 31
    assert (
        made_of(image(), key=Secrets(b"another key, of 32 bytes as well ", "profile")).pseudonym
        != first.pseudonym
    )


def test_without_a_patient_id_a_study_stands_for_its_patient() -> None:
    """Two studies without Patient ID never become one patient."""
    one, two = (made_of(image(PatientID="", StudyInstanceUID=uid)) for uid in ("1.2.3", "1.2.4"))
    assert one.pseudonym != two.pseudonym and one.patient[0] == ""


def test_uids_are_the_same_wherever_they_stand_and_differ_by_profile() -> None:
    """Same key and profile, same UID; another profile, another object; well-known UIDs stay."""
    source = image(FrameOfReferenceUID="1.2.840.10008.1.4.1.1")
    result, again = made_of(source), made_of(source)
    assert result.sop_uid == again.sop_uid == KEY.uid("1.2.3.4") and UID(result.sop_uid).is_valid
    assert result.dataset.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1" and result.dataset.SOPClassUID == CT
    assert result.dataset.to_json() == again.dataset.to_json()
    assert Secrets(KEY.key, "another profile").uid("1.2.3.4") != result.sop_uid
    assert made_of(source, Profile(frozenset({"uids"}))).sop_uid == "1.2.3.4"


def test_references_lead_to_what_their_objects_became() -> None:
    """A segmentation's source image and listed series carry the UIDs that these objects get themselves."""
    source, seg = made_of(image()), image(SEG, "SEG", SOPInstanceUID="1.2.3.5", SeriesInstanceUID="1.2.3.2")
    reference, series, frame, derivation = Dataset(), Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = "1.2.3.1", [reference]
    derivation.SourceImageSequence = [reference]
    frame.DerivationImageSequence = [derivation]
    seg.ReferencedSeriesSequence, seg.PerFrameFunctionalGroupsSequence = [series], [frame]
    made = made_of(seg).dataset
    listed, used = (
        made.ReferencedSeriesSequence[0],
        made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0],
    )
    assert listed.SeriesInstanceUID == source.dataset.SeriesInstanceUID
    assert listed.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.sop_uid
    assert used.SourceImageSequence[0].ReferencedSOPInstanceUID == source.sop_uid
    assert used.SourceImageSequence[0].ReferencedSOPClassUID == CT


# --- pixels


@pytest.mark.parametrize(
    ("source", "held"),
    [
        (image(), ""),
        (image(BurnedInAnnotation="NO"), ""),
        (image(BurnedInAnnotation="YES"), "Burned In Annotation says"),
        (image(MR, "MR"), ""),
        (image(US, "US", BurnedInAnnotation="NO"), "ultrasound"),
        (image(SC, "OT", BurnedInAnnotation="NO"), "secondary captures"),
        (image("1.2.840.10008.5.1.4.1.1.12.1", "XA"), "angiograms"),
        (image("1.2.840.10008.5.1.4.1.1.12.1", "XA", BurnedInAnnotation="NO"), ""),
        (image("1.2.840.10008.5.1.4.1.1.12.2", "RF", BurnedInAnnotation="YES"), "Burned In"),
        (image("1.2.840.10008.5.1.4.1.1.77.1.1", "ES"), "endoscopy"),
        (image("1.2.840.10008.5.1.4.1.1.77.1.1", "ES", BurnedInAnnotation="NO"), ""),
        (image("1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES", BurnedInAnnotation="NO"), "video"),
        (image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "picture of text"),
        (image("1.2.840.10008.5.1.4.1.1.1.1", "DX", ConversionType="DF"), "film"),
        (image("1.2.840.10008.5.1.4.1.1.77.1.6", "SM", SpecimenLabelInImage="YES"), "label of the slide"),
        (image("1.2.840.10008.5.1.4.1.1.77.1.6", "SM", SpecimenLabelInImage="NO"), ""),
        (image(PDF, "DOC"), "PDF"),
        (image(RAW, "MR"), "raw data"),
        (image("1.2.840.10008.5.1.4.1.1.9.4.2", "AU"), "voice"),
        (image("1.3.46.670589.5.0.1", "MR"), "none of the standard's"),
        (image("1.2.840.10008.5.1.4.1.1.1", "OT"), "OT"),
        (image("1.2.840.10008.5.1.4.1.1.30", "OT"), ""),
        (image(SEG, "SEG"), ""),
    ],
)  # fmt: skip
def test_what_may_show_a_name_is_held_back(source: Dataset, held: str) -> None:
    """Kinds of objects that commonly hold text are held, in words, unless the standard's flag may be believed."""
    said = plan(source, BASIC, ()).held
    assert held in said if held else not said
    if held:
        with pytest.raises(Refused, match=held):
            made_of(source)


def test_a_template_lets_through_what_the_site_vouches_for() -> None:
    """Where a template fits and the profile cleans pixels, rectangles are blacked out, and the object says NO."""
    site = Site(templates=(
        Template({"Manufacturer": "ACME", "Rows": "5"}, ((0, 0, 9, 9),)),
        Template({"Manufacturer": "ac?e", "ManufacturerModelName": "scanner*", "Rows": "4", "Columns": "6",
                  "SOPClass": "UltrasoundImageStorage"}, ((0, 0, 3, 2), (5, 3, 9, 9))),
    ))  # fmt: skip
    source, pixels = image(US, "US"), np.arange(1, 25, dtype=np.uint16).reshape(4, 6)
    result = made_of(source, PIXELS, site, pixels.tobytes())
    found = np.frombuffer(result.pixels or b"", np.uint16).reshape(4, 6)
    expected = pixels.copy()
    expected[:2, :3] = 0
    expected[3, 5] = 0
    assert (found == expected).all() and result.dataset.BurnedInAnnotation == "NO"
    assert any(code.CodeValue == "113101" for code in result.dataset.DeidentificationMethodCodeSequence)
    with pytest.raises(Refused, match="clean: \\[pixel_data\\]"):
        made_of(source, BASIC, site, pixels.tobytes())
    with pytest.raises(Refused, match="compressed"):
        deidentified(source, Pixels(fragments=(b"", b"\xff\xd8")), PIXELS, KEY, site)


def test_a_document_goes_as_it_is_only_where_the_site_vouches_for_it() -> None:
    """With `clean: yes` for its class a PDF keeps its pages, and its header loses what the profile takes."""
    source = image(PDF, "DOC", EncapsulatedDocument=b"%PDF-1.7", DocumentTitle="Letter to Quentin")
    del source.Rows, source.Columns
    site = Site(templates=(Template({"SOPClass": "EncapsulatedPDFStorage"}),))
    made = made_of(source, PIXELS, site).dataset
    assert made.EncapsulatedDocument == b"%PDF-1.7" and "Quentin" not in str(made)
    for loose in (Template({"Manufacturer": "ACME"}), Template({"SOPClass": "*"}, ((0, 0, 9, 9),))):
        with pytest.raises(Refused, match="PDF"):
            made_of(source, PIXELS, Site(templates=(loose,)))


@pytest.mark.parametrize(
    ("more", "dtype", "shape", "black"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, np.uint16, (4, 6), 4095),
        ({"PixelRepresentation": 1}, np.int16, (4, 6), -2048),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8,
          "BitsStored": 8, "HighBit": 7}, np.uint8, (4, 6, 3), 0),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 1, "BitsAllocated": 8,
          "BitsStored": 8, "HighBit": 7, "NumberOfFrames": 2}, np.uint8, (2, 3, 4, 6), 0),
        ({"PhotometricInterpretation": "YBR_FULL", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8,
          "BitsStored": 8, "HighBit": 7}, np.uint8, (4, 6, 3), (0, 128, 128)),
    ],
)  # fmt: skip
def test_black_is_black_in_every_kind_of_pixel(more: dict, dtype: type, shape: tuple, black: object) -> None:
    """The rectangle is the darkest that the pixels can say, in all frames and colours; beyond it nothing changes."""
    pixels = np.full(shape, 77, dtype)
    site = Site(templates=(Template({"Manufacturer": "ACME"}, ((1, 1, 2, 2),)),))
    result = made_of(image(US, "US", **more), PIXELS, site, pixels.tobytes())
    found = np.frombuffer(result.pixels or b"", dtype).reshape(shape)
    where = (..., slice(1, 3), slice(1, 3)) if shape[-1] == 6 else (slice(1, 3), slice(1, 3))
    assert (found[where] == black).all()
    assert (found == 77).sum() == found.size - found[where].size


def test_overlays_in_unused_bits_and_bytes_beyond_the_image_go() -> None:
    """An overlay in bit 15 (retired, PS3.5 8.1.2) is cleared, what follows the last pixel is cut, the image stays."""
    source = image()
    source.add_new(0x60000010, "US", 4)
    source.add_new(0x60000011, "US", 6)
    source.add_new(0x60000102, "US", 15)
    pixels = np.arange(24, dtype=np.uint16) | 0x8000
    result = made_of(source, data=pixels.tobytes() + b"Quentin Original")
    assert result.pixels == np.arange(24, dtype=np.uint16).tobytes()
    assert not any(tag.group == 0x6000 for tag in result.dataset.keys())  # noqa: SIM118
    with pytest.raises(Refused, match="compressed pixels"):
        deidentified(source, Pixels(fragments=(b"", b"\xff\xd8")), BASIC, KEY, Site())


def test_a_name_in_the_compressed_bytes_holds_it_back() -> None:
    """A comment of the encoder that says the patient's name cannot be cleaned, so there is no copy."""
    with pytest.raises(Refused, match="holds a text from its header"):
        deidentified(image(), Pixels(fragments=(b"", b"\xff\xd8\xff\xfe\0\x0aOriginal")), BASIC, KEY, Site())


# --- dates and words


@pytest.mark.parametrize(
    ("vr", "text", "moved"),
    [
        ("DA", "20240310", "20240309"), ("DA", "20240301", "20240229"), ("DA", "2024.03.10", "20240309"),
        ("DA", "", ""), ("DA", "2024", None), ("DA", "20240230", None), ("DA", "00010101", None), ("DA", "x", None),
        ("DT", "20240310091500.25+0100", "20240309091500.25+0100"), ("DT", "20240310", "20240309"),
        ("DT", "2024", None), ("DT", "202403", None), ("TM", "091500.25", "091500.25"), ("TM", "09", "09"),
        ("TM", "09:15:00", "09:15:00"), ("TM", "Quentin", None),
    ],
)  # fmt: skip
def test_dates_move_by_whole_days(vr: str, text: str, moved: str | None) -> None:
    """One day earlier by the calendar; time of day and offset stay; what is too vague or odd is not moved at all."""
    assert shifted(vr, text, 1) == moved


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CT chest abdomen pelvis - 55F Dr. Smith", "CT chest abdomen pelvis"),  # PS3.15 E.3.5, its own example
        ("T1 mpr AX 5mm b 800", "T1 mpr AX 5mm b 800"),
        ("Thorax^Routine (Adult) 120kV", "Thorax Routine 120kV"),
        ("born 03.04.1952", ""), ("12 03 52 Thorax", "Thorax"), ("4711 head", "head"), ("Meyer, Quentin", ""),
    ],
)  # fmt: skip
def test_descriptors_keep_words_that_are_known_to_be_safe(text: str, left: str) -> None:
    """Anatomy, protocols and lonely short numbers stay; names, dates, ages and long numbers do not."""
    assert cleaned(text) == left
    assert cleaned("Klinikum buik", {"buik"}) == "buik"


def test_the_vocabulary_holds_no_common_names() -> None:
    """No frequent first or family name, no month and no weekday is a word that stays."""
    names = re.findall(
        r"\w+",
        """
        smith johnson williams jones brown garcia miller davis martinez lopez wilson anderson thomas
        taylor moore jackson martin lee perez thompson harris sanchez clark lewis robinson walker
        young king wright scott torres green adams nelson baker rivera campbell mitchell carter
        roberts mueller schmidt schneider fischer weber meyer wagner becker schulz hoffmann mary
        john anna peter maria michael thomas andreas stefan sabine susanne claudia towne waters
        caldwell january february march april may june july august monday friday
        """,
    )
    assert not set(names) & vocabulary()


def test_a_descriptor_that_names_the_patient_goes_whole() -> None:
    """Where a text says what had to be removed, nothing of it is trusted; also in texts that no table suspects."""
    profile = Profile(clean=frozenset({"descriptors"}))
    source = image(
        StudyDescription="CT chest Quentin",
        SeriesDescription="CT chest Q-4711",
        ProtocolName="CT chest routine",
    )
    source.ContrastBolusAgent, source.FilterType, source.ConvolutionKernel = (
        "Iodine",
        "WEDGE",
        "B30f Original",
    )
    made = made_of(source, profile).dataset
    assert "StudyDescription" not in made and "SeriesDescription" not in made
    assert made.ProtocolName == "CT chest routine" and made.FilterType == "WEDGE"
    assert "Original" not in str(made)


def test_a_code_that_says_the_name_goes_where_it_is_optional() -> None:
    """A name typed into Body Part Examined goes; a code that the object cannot be without stays."""
    made = made_of(image(BodyPartExamined="QUENTIN KNEE", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])).dataset
    assert "BodyPartExamined" not in made and made.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert made_of(image(BodyPartExamined="KNEE")).dataset.BodyPartExamined == "KNEE"


# --- it fails closed


def raw(tag: int, vr: str | None, value: bytes) -> RawDataElement:
    """An element as a file had it."""
    return RawDataElement(Tag(tag), vr, len(value), value, 0, vr is None, True)


@pytest.mark.parametrize(
    ("element", "why"),
    [
        (raw(0x00187FFF, "LO", b"x"), "does not know"),
        (raw(0x00181000, "LO", b"\xff\xfe\x80"), ""),
        (raw(0x00181061, "LO", b"\xff\xfe\x80"), "outside its character set"),
        (raw(0x00082112, "LO", b"no sequence"), ""),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(element: RawDataElement, why: str) -> None:
    """An unknown attribute or an undecodable text that would stay: no copy; one that goes anyway does no harm."""
    source = image(SpecificCharacterSet="ISO_IR 192")
    source._dict[element.tag] = element
    if why:
        with pytest.raises(Refused, match=why):
            made_of(source)
    else:
        assert element.tag not in made_of(source).dataset


TAGS = st.one_of(
    st.sampled_from([0x00100010, 0x00100020, 0x0040A730, 0x00081140, 0x60003000, 0x00280010, 0x00080005, 0x00080016,
                     0x0040A043, 0x00700001, 0x00080060, 0x00280100, 0x00280008, 0x00080008]),
    st.integers(0, 0xFFFFFFFF),
)  # fmt: skip
VRS = st.sampled_from([None, "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "SQ", "ST", "TM",
                       "UI", "UN", "US", "UL", "OB", "OW", "FD", "AT", "UT"])  # fmt: skip


NESTED = st.recursive(
    st.lists(st.tuples(TAGS, VRS, st.binary(max_size=12)), max_size=6),
    lambda inside: st.lists(st.tuples(TAGS, inside), max_size=3),
    max_leaves=8,
)


def nested(plan_of_it: list) -> Dataset:
    """A dataset with elements of any kind, and items within."""
    made = Dataset()
    for tag, *rest in plan_of_it:
        if len(rest) == 2:
            made._dict[Tag(tag)] = raw(tag, *rest)
        else:
            made._dict[Tag(tag)] = DataElement(tag, "SQ", [nested(rest[0])])
    return made


@given(NESTED, st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nor_out_of_what_is_nested_in_it(plan_of_it: list, retains: bool) -> None:
    """The same for sequences within sequences, of any tag."""
    retained = frozenset({"shifted_dates", "safe_private"} if retains else ())
    source = image()
    source._dict |= nested(plan_of_it)._dict
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made_of(source, Profile(retained, frozenset({"structured_content"})))
        except Refused as refused:
            assert str(refused)


@given(
    st.lists(st.tuples(TAGS, VRS, st.binary(max_size=40)), max_size=25),
    st.integers(0, 1),
    st.binary(max_size=60),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_but_refused_comes_out_of_it(elements: list, rich: int, data: bytes) -> None:
    """Whatever a dataset holds, there is a result or a sentence, never another error."""
    retain, clean = (
        {"shifted_dates", "safe_private", "device"},
        {"descriptors", "graphics", "structured_content"},
    )
    profile = Profile(frozenset(retain), frozenset(clean | {"pixel_data"})) if rich else BASIC
    source = image()
    for tag, vr, value in elements:
        source._dict[Tag(tag)] = raw(tag, vr, value)
    site = Site(templates=(Template({"Modality": "*"}, ((0, 0, 2, 2),)),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made_of(source, profile, site, data)
        except Refused as refused:
            assert str(refused)
