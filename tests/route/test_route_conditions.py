"""Conditions: what each operator says of each kind of value."""

from __future__ import annotations

import pytest
from route_cases import images, read, rule, verdict

from node.errors import Misconfigured

CT = ("ORIGINAL", "PRIMARY", "AXIAL")
SCOUT = ("ORIGINAL", "PRIMARY", "LOCALIZER")


@pytest.mark.parametrize(
    ("when", "attributes", "outcome"),
    [
        ("{Modality: ct}", {"Modality": "CT "}, "yes"),
        ("{BodyPartExamined: lower  leg}", {"BodyPartExamined": " LOWER LEG"}, "yes"),
        ("{Modality: {one_of: [CT, MR]}}", {"Modality": "MR"}, "yes"),
        ("{Modality: {one_of: [CT, MR]}}", {"Modality": "PT"}, "no"),
        ("{Modality: {not: CT}}", {"Modality": "MR"}, "yes"),
        ("{Modality: {not: [CT, MR]}}", {"Modality": "MR"}, "no"),
        ("{Modality: {not: CT}}", {}, "no"),
        ("{SeriesDescription: {not: {matches: '*loc*'}}}", {"SeriesDescription": "Localizer"}, "no"),
        ("{SeriesDescription: {matches: '*LUNG*'}}", {"SeriesDescription": "ct lung screening"}, "yes"),
        ("{SeriesDescription: {matches: [LUNG, 'T?']}}", {"SeriesDescription": "t1"}, "yes"),
        ("{SeriesDescription: {matches: 'a.c'}}", {"SeriesDescription": "abc"}, "no"),
        ("{ImageType: {matches: '*localizer*'}}", {"ImageType": SCOUT}, "yes"),
        ("{ImageType: {has_all: [original, PRIMARY]}}", {"ImageType": CT}, "yes"),
        ("{ImageType: {has_all: [ORIGINAL, MPR]}}", {"ImageType": CT}, "no"),
        ("{ImageType: {has_any: [MPR, AXIAL]}}", {"ImageType": CT}, "yes"),
        ("{ImageType: {excludes: LOCALIZER}}", {"ImageType": CT}, "yes"),
        ("{ImageType: {excludes: LOCALIZER}}", {}, "no"),
        ("{ImageType: [ORIGINAL, PRIMARY, AXIAL]}", {"ImageType": CT}, "yes"),
        ("{ImageType: [PRIMARY, ORIGINAL, AXIAL]}", {"ImageType": CT}, "no"),
        ("{ImageType: {has_all: [ORIGINAL], excludes: LOCALIZER}}", {"ImageType": SCOUT}, "no"),
        ("{SliceThickness: 0.3}", {"SliceThickness": "0.30000001"}, "yes"),
        ("{SliceThickness: 0.3}", {"SliceThickness": "0.30001"}, "no"),
        ("{SliceThickness: 1}", {"SliceThickness": "1.000e0 "}, "yes"),
        ("{SliceThickness: {at_most: 1.5 mm}}", {"SliceThickness": "1.50000001"}, "yes"),
        ("{SliceThickness: {at_most: 0.15 cm}}", {"SliceThickness": "1.6"}, "no"),
        ("{SliceThickness: {at_most: 10}}", {"SliceThickness": "9"}, "yes"),
        ("{SliceThickness: {between: [0.5 mm, 2 mm]}}", {"SliceThickness": "2"}, "yes"),
        ("{SliceThickness: {at_least: 1}}", {"SliceThickness": "thin"}, "no"),
        ("{PixelSpacing: {at_most: 0.8}}", {"PixelSpacing": ("0.7", "0.9")}, "no"),
        ("{RepetitionTime: {at_least: 2 s}}", {"RepetitionTime": "2000"}, "yes"),
        ("{PatientWeight: {at_least: 500 g}}", {"PatientWeight": "3.2"}, "yes"),
        (
            "{'RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose': {at_least: 300 MBq}}",
            {"RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose": "310000000"},
            "yes",
        ),
        ("{PatientAge: {at_least: 18 y}}", {"PatientAge": "018Y"}, "yes"),
        ("{PatientAge: {at_most: 6 mo}}", {"PatientAge": "200D"}, "no"),
        ("{age: {at_least: 18}}", {"age": "17.9"}, "no"),
        ("{StudyDate: 2024-01-31}", {"StudyDate": "20240131"}, "yes"),
        ("{StudyDate: {at_least: 2024-02-01}}", {"StudyDate": "2024.01.31"}, "no"),
        ("{ContentTime: {at_most: '14:30'}}", {"ContentTime": "1429"}, "yes"),
        ("{ContentTime: {between: ['22:00', '06:00']}}", {"ContentTime": "233000.5"}, "yes"),
        ("{ContentTime: {between: ['22:00', '06:00']}}", {"ContentTime": "120000"}, "no"),
        (
            "{AcquisitionDateTime: {at_least: '2024-01-31T10:00+01:00'}}",
            {"AcquisitionDateTime": "20240131090000+0000"},
            "yes",
        ),
        ("{ContrastBolusAgent: absent}", {}, "yes"),
        ("{ContrastBolusAgent: absent}", {"ContrastBolusAgent": ""}, "yes"),
        ("{ContrastBolusAgent: present}", {"ContrastBolusAgent": "  "}, "no"),
        ("{ContrastBolusAgent: {present: no}}", {"ContrastBolusAgent": "IOMERON"}, "no"),
        ("{ContrastBolusAgent: 'absent'}", {}, "no"),
        (
            "{RequestAttributesSequence: present}",
            {"RequestAttributesSequence[0].StudyInstanceUID": "1.2"},
            "yes",
        ),
        ("{RequestAttributesSequence: absent}", {}, "yes"),
        ("{sop_class: CTImageStorage}", {"sop_class": "1.2.840.10008.5.1.4.1.1.2"}, "yes"),
        ("{sop_class: {matches: '*SR Storage'}}", {"sop_class": "1.2.840.10008.5.1.4.1.1.88.33"}, "yes"),
        ("{transfer_syntax: 1.2.840.10008.1.2.1}", {"transfer_syntax": "1.2.840.10008.1.2.1\0"}, "yes"),
        ("{from: [CT01, CT02]}", {"from": "CT02"}, "yes"),
        ("{called: PACSNODE_STAT}", {"called": "PACSNODE"}, "no"),
        ("{orientation: axial}", {"orientation": "axial"}, "yes"),
        ("{b_value: {at_least: 800 s/mm2}}", {"b_value": "1000"}, "yes"),
        ('{"(0019,xx0c) SIEMENS MR HEADER": 50}', {"(0019,xx0C) SIEMENS MR HEADER": "50.0"}, "yes"),
        ('{"(0019,xx0C) SIEMENS MR HEADER": {at_least: 60}}', {"(0019,xx0C) SIEMENS MR HEADER": "50"}, "no"),
        ("{SeriesDescription: {any_of: [T1, {matches: 'T2*'}]}}", {"SeriesDescription": "T2 TSE"}, "yes"),
        ("{SeriesDescription: {none_of: [T1, {matches: 'T2*'}]}}", {"SeriesDescription": "T2 TSE"}, "no"),
        ("{SeriesDescription: {none_of: [T1]}}", {}, "yes"),
        ("{StationName: NO}", {"StationName": "NO"}, "yes"),
        ("{StationName: 0012}", {"StationName": "12"}, "no"),
        ("{StationName: 1e3}", {"StationName": "1000"}, "no"),
    ],
)
def test_operator(when: str, attributes: dict[str, object], outcome: str) -> None:
    """Each operator compares in the sense of the attribute's VR, unit and multiplicity."""
    assert verdict(when, images({"Rows": 1, **attributes})).outcome == outcome


def test_some_values_hold_is_undecided_and_counted() -> None:
    """Three scouts among 323 images make the clause undecided, and the reason counts and names them."""
    facts = images(*[{"ImageType": CT}] * 320, *[{"ImageType": SCOUT}] * 3)
    found = verdict("{ImageType: {excludes: LOCALIZER}}", facts)
    assert found.outcome == "undecided"
    assert not found.runs
    assert "ImageType: 3 of 323 say ORIGINAL\\PRIMARY\\LOCALIZER" in found.because


def test_absent_in_some_images_is_undecided() -> None:
    """An attribute that some images lack is neither yes nor no."""
    found = verdict(
        "{SliceThickness: {at_most: 2}}", images({"SliceThickness": 1}, {"SliceThickness": 1}, {"Rows": 1})
    )
    assert found.outcome == "undecided"
    assert "1 of 3 lack it" in found.because


def test_frames_are_judged_each() -> None:
    """Several values over the frames of one object are judged like values over several objects."""
    facts = images({"SliceThickness": ["1", "5"]})
    assert verdict("{SliceThickness: {at_most: 2}}", facts).outcome == "undecided"
    assert verdict("{SliceThickness: {at_most: 5}}", facts).outcome == "yes"
    assert verdict("{SliceThickness: {some: {at_most: 2}}}", facts).outcome == "yes"


def test_some_asks_for_at_least_one() -> None:
    """`some` is yes with one fitting image, and no, not undecided, with none."""
    facts = images({"ImageType": CT}, {"ImageType": SCOUT})
    assert verdict("{ImageType: {some: {has_any: LOCALIZER}}}", facts).outcome == "yes"
    assert verdict("{ImageType: {some: {has_any: MPR}}}", facts).outcome == "no"
    assert verdict("{ImageType: {has_all: ORIGINAL, some: {has_any: LOCALIZER}}}", facts).outcome == "yes"


def test_groups_look_at_each_image() -> None:
    """`any_of` holds when each image fits one of its blocks; `none_of` when no image fits a whole block."""
    facts = images({"ImageType": CT, "SliceThickness": 1}, {"ImageType": SCOUT, "SliceThickness": 5})
    each = "{any_of: [{ImageType: {has_any: LOCALIZER}}, {ImageType: {has_any: AXIAL}}]}"
    assert verdict(each, facts).outcome == "yes"
    both = "{none_of: [{ImageType: {has_any: LOCALIZER}, SliceThickness: 1}]}"
    assert verdict(both, facts).outcome == "yes"
    one = "{none_of: [{ImageType: {has_any: LOCALIZER}}]}"
    assert verdict(one, facts).outcome == "undecided"
    assert verdict("{none_of: [{ContrastBolusAgent: IOMERON}]}", facts).outcome == "yes"


def test_identity_is_not_shown() -> None:
    """A reason never holds a patient's name, ID or birth date, for reasons are logged."""
    found = verdict("{PatientName: {matches: 'TEST*'}}", images({"PatientName": "DOE^JANE"}))
    told = found.because + "".join(clause.reason for clause in found.clauses)
    assert found.outcome == "no"
    assert "DOE" not in told
    assert "TEST" not in found.because


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("{SlicThickness: 1}", ["a.yaml:4", "SlicThickness is not a DICOM keyword", "SliceThickness"]),
        ("{modality: CT}", ["Modality"]),
        ("{slice: {at_least: 3}}", ["slices"]),
        ("{ImageType: {contains: ORIGINAL}}", ["has_all", "has_any", "excludes"]),
        ("{Modality: {has_any: [CT]}}", ["one_of"]),
        ("{Modality: [CT, MR]}", ["one_of: [CT, MR]"]),
        ("{ImageType: ORIGINAL}", ["has_any"]),
        ("{ImageType: {not: LOCALIZER}}", ["excludes"]),
        ("{SliceThickness: {at_most: 3 s}}", ["mm"]),
        ("{SliceThickness: thin}", ["number"]),
        ("{Rows: 512 mm}", ["no unit"]),
        ("{SliceThickness: {at_lest: 3}}", ["at_least"]),
        ("{SliceThickness: {between: [3]}}", ["two values"]),
        ("{SliceThickness: {between: [3, 1]}}", ["larger value first"]),
        ("{BodyPartExamined: {at_least: 3}}", ["no order"]),
        ("{StudyDate: yesterday}", ["2024-01-31"]),
        ("{weekday: funday}", ["weekday"]),
        ("{orientation: axal}", ["axial"]),
        ("{sop_class: CTImageStorag}", ["CTImageStorage"]),
        ("{RequestAttributesSequence: x}", ["present", "absent"]),
        ("{RequestAttributesSequence.StudyInstanceUID: present}", ["[0]"]),
        ("{PixelData: present}", ["bulk data", "sop_class"]),
        ("{'Modality[0].Rows': 1}", ["not a sequence"]),
        ("{'(0018,0050)': 1}", ["SliceThickness"]),
        ("{'(0019,100C)': 1}", ["xx"]),
        ("{Modality: }", ["no value"]),
        ("{Modality: {}}", ["asks for nothing"]),
        ("{not: {Modality: CT}}", ["none_of"]),
        ("{any_of: {Modality: CT}}", ["list"]),
        ("{any_of: [{}]}", ["fits everything"]),
        ("{ImageType: {any_of: [{some: X}]}}", ["directly under ImageType"]),
        ("CT", ["{Modality: CT}"]),
    ],
)
def test_mistakes_name_the_right_word(when: str, words: list[str]) -> None:
    """A wrong condition is refused with a sentence that names what to write instead."""
    with pytest.raises(Misconfigured) as refused:
        rule(when)
    assert len(refused.value.mistakes) == 1
    assert all(word in refused.value.mistakes[0] for word in words), refused.value.mistakes


def test_patterns_are_linear() -> None:
    """A pattern full of stars on a long text is quick: no catastrophic backtracking."""
    stars = "*a" * 30 + "b"
    assert (
        verdict(
            f"{{SeriesDescription: {{matches: '{stars}'}}}}", images({"SeriesDescription": "a" * 5000})
        ).outcome
        == "no"
    )


def test_aliases_do_not_hang_the_reader() -> None:
    """An alias that refers to itself is a mistake with a file, not a crash."""
    with pytest.raises(Misconfigured, match=r"a\.yaml"):
        read("rule: &r [*r]\n")
