"""Rules that change objects on their way: what may be edited, and what a person reads where it may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from route_cases import PEERS, SPECS, document

from node.errors import Misconfigured
from node.route.rules import RuleSet, parse_rules, read_folder, scan_folder

TRIES = "try: [{given: {Modality: CT}, expect: {runs: yes}}]"
SEND = "send: [{what: received, to: PACS}]"


def rules(edit: str, rest: str = SEND, **files: str) -> RuleSet:
    """One rule with this `edit:` at its top, beside these tables."""
    text = document(rest=f"{rest}\nedit: {edit}\n{TRIES}")
    return parse_rules({"rules/a.yaml": text} | {f"rules/{k}.csv": v for k, v in files.items()}, SPECS, PEERS)


def changes(edit: str, **files: str) -> list[dict[str, object]]:
    """The changes in the treatment of what it sends."""
    found = json.loads(rules(edit, **files).rules[0].sends[0].treatment)["edit"]["changes"]
    assert isinstance(found, list)
    return found


def mistakes(edit: str, **files: str) -> tuple[str, ...]:
    """Every mistake in it."""
    with pytest.raises(Misconfigured) as refused:
        rules(edit, **files)
    return refused.value.mistakes


def test_edits_keep_their_order() -> None:
    """Each entry is one change, or several of one kind; they are applied as they stand."""
    found = changes("""
  - set: {InstitutionName: "{StationName} West", PatientName.family: Doe}
  - copy: {from: AccessionNumber, to: StudyID}
  - prefix: {PatientID: H2-}
  - map: {BodyPartExamined: {CHST: CHEST}, else: keep}
  - remove: [PatientComments, RequestAttributesSequence]
""")
    assert [(c["op"], c["path"]) for c in found] == [
        ("set", "InstitutionName"), ("set", "PatientName"), ("copy", "StudyID"), ("prefix", "PatientID"),
        ("map", "BodyPartExamined"), ("remove", "PatientComments"), ("remove", "RequestAttributesSequence"),
    ]  # fmt: skip
    assert found[1]["part"] == "family" and found[4]["else"] == "keep"


def test_the_rules_own_edits_come_before_those_of_an_entry() -> None:
    """`edit:` beside `send:` holds for all that the rule sends; an entry adds its own."""
    text = "send: [{what: received, to: PACS}, {what: received, to: RESEARCH, edit: [{remove: [PatientComments]}]}]"
    one, two = rules("[{prefix: {PatientID: A-}}]", text).rules[0].sends
    assert [c["op"] for c in json.loads(one.treatment)["edit"]["changes"]] == ["prefix"]
    assert [c["op"] for c in json.loads(two.treatment)["edit"]["changes"]] == ["prefix", "remove"]


def test_without_edits_there_is_no_treatment() -> None:
    """What is not changed goes as it came: no copy is made of it."""
    text = document(rest=f"{SEND}\n{TRIES}")
    assert parse_rules({"rules/a.yaml": text}, SPECS, PEERS).rules[0].sends[0].treatment == ""


def test_edits_do_not_count_in_the_identity_of_results() -> None:
    """They change the copy that is sent: the result and its UIDs stay as they are."""
    text = "do: [{reformat: {thickness: 5 mm}, as: thick}]\nsend: [{what: thick, to: PACS}]"
    plain = parse_rules({"a.yaml": document(rest=f"{text}\n{TRIES}")}, SPECS, PEERS).rules[0]
    assert rules("[{set: {StudyID: x}}]", text).rules[0].meaning == plain.meaning


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("set: {SOPInstanceUID: 1.2}", "SOPInstanceUID is a UID, which ties objects together"),
        ("set: {SeriesInstanceUID: 1.2}", "ties objects together"),
        ("remove: [StudyInstanceUID]", "ties objects together"),
        ("set: {FrameOfReferenceUID: 1.2}", "ties objects together"),
        ("set: {Rows: 3}", "Rows describes how the pixels or samples are stored"),
        ("remove: [PixelData]", "PixelData describes how the pixels"),
        ("set: {ImagePositionPatient: 1}", "ImagePositionPatient says where the pixels are"),
        ("remove: [PerFrameFunctionalGroupsSequence]", "how the pixels of each frame came about"),
        ("set: {'SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness': 3}", "came about"),
        ("set: {TransferSyntaxUID: 1.2}", "belongs to the file"),
        ("set: {SpecificCharacterSet: ISO_IR 192}", "in which characters all other text is written"),
        ("remove: [OriginalAttributesSequence]", "is the record of such changes"),
        ("set: {'ContentSequence[0].TextValue': x}", "is what the report says"),
        ("set: {'(0019,xx0C) SIEMENS MR HEADER': 3}", "private attributes mean what their maker says"),
        ("set: {EncapsulatedDocument: x}", "holds bulk data"),
        ("set: {RequestAttributesSequence: x}", "is a sequence; name an attribute in it"),
        ("set: {PatientNam: x}", "PatientNam is not a DICOM keyword; did you mean PatientName?"),
        ("set: {PatientName.famly: x}", "a name has no part famly; did you mean family?"),
        ("set: {PatientID.family: x}", "PatientID is not a sequence"),
        ("set: {'PatientID[0]': x}", "PatientID has no items to number"),
        ("set: {StudyDate: 2026-03-01}", "StudyDate cannot hold it"),
        ("set: {StudyDate: '20260230'}", "20260230 is no date, so StudyDate cannot hold it"),
        ("set: {StudyTime: '2561'}", "is no time"),
        ("set: {AccessionNumber: 12345678901234567}", "has 17 characters, SH allows 16"),
        ("set: {'{0}': x}", "is not a DICOM keyword"),
        ("set: {StudyID: '{Modalty}'}", "Modalty is not a DICOM keyword; did you mean Modality?"),
        ("set: {StudyID: '{PixelData}'}", "braces hold a keyword with a value"),
        ("set: {StudyID: '{Modality'}", "braces come in pairs"),
        ("set: {AccessionNumber: 'this is too long: {StudyID}'}", "before anything is filled in"),
        ("set: {Modality: Ü}", "beyond ASCII"),
        ("set: {PatientName.given: a^b}", "which part the name"),
        ("set: {FailureReason: many}", "many is no number that US allows"),
        ("set: [StudyID]", "expected a mapping such as"),
        ("prefix: {StudyDate: '20'}", "is a date or time, which has no prefix"),
        ("prefix: {FailureReason: '20'}", "is a number"),
        ("copy: {from: PixelData, to: StudyID}", "no text or number that could be copied"),
        ("copy: {from: StudyID}", "to is missing"),
        ("map: {Modality: {}, else: keep}", "a table holds texts"),
        ("map: {Modality: {CT: ct}}", "ct has characters a code string may not have"),
        ("map: {Modality: {CT: MR}, else: perhaps}", "perhaps is not one of refuse, keep, empty"),
        ("map: {else: keep}", "map names no attribute"),
        ("map: {Modality: absent.csv}", "there is no table absent.csv beside the rule; did you mean"),
        ("map: {Modality: ../../etc/passwd.csv}", "a .csv file beside the rule"),
        ("remove: {PatientName: yes}", "remove holds a list of keywords"),
        ("reason: WHIM", "WHIM is not one of COERCE, CORRECT"),
        ("st: {StudyID: x}", "unknown key st; did you mean set?"),
        ("{set: {StudyID: x}, remove: [StudyTime]}", "one change for each entry"),
    ],
)  # fmt: skip
def test_what_may_not_be_edited_is_refused_in_words(entry: str, words: str) -> None:
    """A wrong edit is one sentence with file and line, and the right word where there is one."""
    told = mistakes(f"\n  - {entry}", absent2="CT,MR\n")
    assert any(
        words in sentence and sentence.startswith(("rules/a.yaml:7:", "rules/t.csv")) for sentence in told
    ), told


@pytest.mark.parametrize("edit", ["{}", "[]", "x", "[{reason: COERCE}]"])
def test_an_edit_changes_something(edit: str) -> None:
    """An `edit:` that changes nothing is a mistake, not a copy without purpose."""
    assert any("edit holds a list" in t or "changes nothing" in t or "expected" in t for t in mistakes(edit))


def test_a_table_beside_the_rule_belongs_to_the_rule_set() -> None:
    """Its text decides the set's digest; in the treatment stands the digest of what it says, not the file's bytes."""
    entry = "[{map: {BodyPartExamined: parts.csv, else: empty}}]"
    one = rules(entry, parts="from,to\nCHST,CHEST\nABD,ABDOMEN\n")
    two = rules(entry, parts="\ufefffrom;to\r\nABD;ABDOMEN\r\nCHST;CHEST\r\n")
    other = rules(entry, parts="CHST,THORAX\n")
    ((digest, text),) = one.lookups.items()
    assert json.loads(text) == {"CHST": "CHEST", "ABD": "ABDOMEN"}
    assert one.rules[0].sends[0].treatment == two.rules[0].sends[0].treatment and one.digest != two.digest
    assert json.loads(one.rules[0].sends[0].treatment)["lookups"] == [digest]
    assert other.rules[0].sends[0].treatment != one.rules[0].sends[0].treatment


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n", "rules/t.csv:1: expected two columns, found 3"),
        ("CHST,CHEST\nCHST,THORAX\n", "rules/t.csv:2: the first column is the same as in a line above"),
        ("", "rules/t.csv:1: the table is empty"),
        ('a,"b\n', "rules/t.csv:1: not a table of two columns"),
        ("CHST,chest\n", "t.csv: chest has characters a code string may not have"),
    ],
)
def test_a_bad_table_says_where(text: str, words: str) -> None:
    """File and line of the table, and what is wrong there; a value its attribute cannot hold is found at load."""
    assert any(words in told for told in mistakes("[{map: {BodyPartExamined: t.csv}}]", t=text))


def test_a_table_that_nobody_uses_is_pointed_out(tmp_path: Path) -> None:
    """It is read with the rules, and `check` says that no rule asks for it."""
    (tmp_path / "a.yaml").write_text(document(rest=f"{SEND}\n{TRIES}"))
    (tmp_path / "old.csv").write_text("a,b\n")
    files = read_folder(tmp_path)
    found = parse_rules(files, SPECS, PEERS)
    assert f"{tmp_path.name}/old.csv:1: no rule uses this table" in found.warnings


def test_check_says_that_a_patient_is_renamed() -> None:
    """Patient ID and Accession Number may be edited, and whoever checks the rules reads that they are."""
    found = rules("[{prefix: {PatientID: H2-}}, {set: {AccessionNumber: '{StudyID}'}}]").warnings
    assert any("PatientID" in told and "IssuerOfPatientID" in told for told in found)
    assert any("AccessionNumber" in told for told in found)
    quiet = rules("[{prefix: {PatientID: H2-}}, {set: {IssuerOfPatientID: H2}}]").warnings
    assert not any("set IssuerOfPatientID" in told for told in quiet)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("{Modality: CT}", "{Modality: CT, StudyDescription: x}", True),
        ("{Modality: CT}", "{Modality: {one_of: [MR, PT]}}", False),
        ("{from: CT01}", "{Modality: MR}", True),
    ],
)
def test_two_treatments_of_one_object_for_one_destination(first: str, second: str, overlap: bool) -> None:
    """Only one of them would be used: `check` names both rules, unless no object can suit both."""
    texts = [
        f"rule: r{n}\npurpose: p\nowner: o@h\nwhen: {when}\n"
        f"send: [{{what: received, to: PACS, edit: [{{set: {{StudyID: '{n}'}}}}]}}]\n"
        for n, when in enumerate((first, second))
    ]
    found = parse_rules({"a.yaml": "---\n".join(texts)}, SPECS, PEERS).warnings
    assert any("r0" in told and "r1" in told and "PACS" in told for told in found) is overlap


def test_the_same_treatment_twice_is_no_matter() -> None:
    """Two rules that change the same in the same way do not disagree."""
    one = document(rest=f"send: [{{what: received, to: PACS, edit: [{{remove: [StudyID]}}]}}]\n{TRIES}")
    found = parse_rules({"a.yaml": one + "---\n" + one.replace("rule: r", "rule: r2")}, SPECS, PEERS).warnings
    assert not any("differently" in told for told in found)


def test_a_rule_file_alone_finds_the_tables_beside_it(tmp_path: Path) -> None:
    """`check --rules FILE` and `explain --rules FILE` read what `map` names, as the whole folder would."""
    entry = "edit: [{map: {BodyPartExamined: parts.csv}}]"
    (tmp_path / "a.yaml").write_text(document(rest=f"{SEND}\n{entry}\n{TRIES}"))
    (tmp_path / "parts.csv").write_text("CHST,CHEST\n")
    files, unreadable = scan_folder(tmp_path / "a.yaml")
    assert not unreadable and len(parse_rules(files, SPECS, PEERS).lookups) == 1
