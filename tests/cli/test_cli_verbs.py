"""Claims about the verbs that check, explain, process and talk: what they print, and their exit codes (design §9)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cli_material import CT, MR, RULES, Place, installed, lived_in, pacsnode, place, told
from flow_material import House
from peers import free_port, orthanc
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from node import holding
from node.cli import frame
from node.store.schema import event
from node.testing import Series, write_ct_series, write_mr_series

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT of 8 and an MR of 3 slices, and a file that is no DICOM."""
    folder = tmp_path_factory.mktemp("images")
    write_ct_series(folder / "ct", CT, series=Series("ct", number=3, description="Thorax 5mm"))
    write_mr_series(folder / "mr", MR, series=Series("mr", number=4))
    (folder / "notes.txt").write_text("hello")
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Place:
    """A site with two rules that has never run."""
    return place(tmp_path / "site")


# --- check


def test_the_shipped_site_file_and_rules_are_right() -> None:
    """`config/node.yaml` and `rules/` pass, with their try cases, from any folder."""
    result = pacsnode("--config", ROOT / "config" / "node.yaml", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "0 mistakes" in result.stdout
    assert "warning" not in result.stdout


def test_rules_are_checked_without_a_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is then taken for a peer that can receive, and nothing is said about peers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACSNODE_CONFIG", raising=False)
    assert pacsnode("check", "--rules", ROOT / "rules").exit_code == 0
    rules = place(
        tmp_path / "site", RULES.replace("when: {Modality: CT}", "when: {Modality: CT, from: [A, b]}")
    )
    result = pacsnode("check", "--rules", rules.folder / "rules", "--json")
    found = json.loads(result.stdout)
    assert not any("peer" in sentence for sentence in [*found["errors"], *found["warnings"]])


def test_a_peer_that_is_misspelt_is_named_with_the_nearest(site: Place) -> None:
    """With a site file a wrong name is a mistake, with file, line and the right word."""
    (site.folder / "rules" / "all.yaml").write_text(RULES.replace("to: PACS", "to: PASC"))
    result = site.run("check")
    assert result.exit_code == 2
    assert "rules/all.yaml:6:" in result.stdout
    assert "did you mean PACS?" in result.stdout


TEN = """rule: bad one
purpose: p
owner: o@h.example
colour: red
when: {Modallity: CT, SliceThickness: {at_mots: 1.5 mm}, KVP: {at_least: 3 mm}, from: 5 s}
use: {slices: 3}
do: [{reformatt: {}}, {reformat: {plane: oblique, thickness: thick}, as: thick}]
send: [{what: thikc, to: PASC}, {what: received}]
on_failure: {retry: many}
mode: fast
try: [{given: {Modality: CT}, expect: {runs: maybe}}]
"""


def test_every_mistake_of_a_rule_file_is_named_at_once(site: Place) -> None:
    """Ten mistakes or more in one file, each with its line; exit code 2, no traceback."""
    (site.folder / "rules" / "all.yaml").write_text(TEN)
    result = site.run("check", "--json")
    assert result.exit_code == 2
    errors = json.loads(result.stdout)["errors"]
    assert len(errors) >= 10, errors
    assert all(error.startswith("rules/all.yaml:") for error in errors)
    lines = {int(error.split(":")[1]) for error in errors}
    assert {1, 4, 5, 7, 8, 9, 10} <= lines, sorted(lines)
    text = "\n".join(errors)
    for word in (
        "did you mean Modality?",
        "did you mean at_most?",
        "did you mean reformat?",
        "did you mean thick?",
    ):
        assert word in text, text


def test_a_try_case_that_fails_is_shown_and_fails_the_check(site: Place) -> None:
    """The line, the rule, and what happened instead."""
    (site.folder / "rules" / "all.yaml").write_text(RULES.replace("slices: 5}, expect", "slices: 2}, expect"))
    result = site.run("check")
    assert result.exit_code == 2
    assert "thick: try: expected runs: yes, but it does not run (slices: is 2" in result.stdout


def test_a_mistake_in_the_site_file_is_on_stderr(site: Place) -> None:
    """File, line, key and the nearest right word, exit code 2, for every verb that reads it."""
    site.site.write_text(site.site.read_text().replace("timezone:", "timezome:"))
    for verb in (["check"], ["status"], ["series"], ["run"], ["echo", "PACS"], ["explain", "--series", "1"]):
        result = site.run(*verb)
        assert result.exit_code == 2, verb
        assert "node.yaml:2:" in result.stderr
        assert "did you mean timezone?" in result.stderr
        assert result.stdout == ""


def test_no_site_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any: the places; with a wrong --config: that one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACSNODE_CONFIG", raising=False)
    result = pacsnode("status")
    assert result.exit_code == 2
    assert "config/node.yaml nor /etc/pacsnode/node.yaml" in result.stderr
    assert "gone.yaml: cannot be read" in pacsnode("--config", "gone.yaml", "status").stderr


def test_an_unknown_verb_or_option_is_a_usage_error() -> None:
    """Exit code 2 from every kind of wrong usage."""
    assert pacsnode("serie").exit_code == 2
    assert pacsnode("series", "--lmit", "3").exit_code == 2
    assert pacsnode("explain").exit_code == 2
    assert pacsnode("process", "gone.yaml", "x", "--out", "y").exit_code == 2


# --- explain


def test_explain_shows_every_clause_with_the_value_seen(site: Place, images: Path) -> None:
    """✓ and ✗ per rule and clause, titles without a patient, and files that belong to nothing."""
    result = site.run("explain", images)
    assert result.exit_code == 0
    text = result.stdout
    assert "series 3: CT 'Thorax 5mm', 8 objects" in text
    assert "✓ thick (rules/all.yaml:1): processes and sends" in text
    assert "✓ slices: {at_least: 5}  is 8" in text
    assert "✗ route (rules/all.yaml:9): does not run (Modality: is MR; the rule asks for CT)" in text
    assert "1 file belongs to no series:" in text
    assert "notes.txt: not a DICOM file" in text
    assert "PHANTOM" not in text


def test_explain_takes_files_and_folders_and_another_rule_folder(
    site: Place, images: Path, tmp_path: Path
) -> None:
    """One file is a series of one; `--rules` replaces the site's; `--from` says who would have sent it."""
    other = place(tmp_path / "other", RULES.replace("when: {Modality: CT}", "when: {from: CT01}"))
    file = images / "ct" / "0001.dcm"
    found = site.json("explain", file, "--rules", other.folder / "rules", "--from", "CT01")
    said = {rule["rule"]: rule["runs"] for rule in found["series"][0]["rules"]}
    assert said == {"thick": False, "route": True}
    assert (
        site.json("explain", file, "--rules", other.folder / "rules")["series"][0]["rules"][1]["runs"]
        is False
    )


def test_explain_tells_what_goes_at_once(site: Place, tmp_path: Path) -> None:
    """Where an immediate rule fits some objects only, it says how many would be sent as they arrive."""
    rule = RULES.split("---\n")[1].replace("{Modality: CT}\nsend", "{InstanceNumber: {at_most: 3}}\nsend")
    (site.folder / "rules" / "all.yaml").write_text(rule)
    write_ct_series(tmp_path / "ct", CT, series=Series("ct"))
    text = site.run("explain", tmp_path / "ct").stdout
    assert "as they arrive: 3 of 8 objects are sent" in text


def test_explaining_what_is_not_there_is_wrong_usage(site: Place) -> None:
    """A path that does not exist: exit code 2; both files and --series, too."""
    result = site.run("explain", site.folder / "nothing")
    assert result.exit_code == 2
    assert "there is no such file or folder" in result.stderr
    assert site.run("explain", site.folder, "--series", "1").exit_code == 2


def test_explain_reads_a_zip_file_as_its_folder(site: Place, images: Path, tmp_path: Path) -> None:
    """The same judgements; a zip file that cannot be read is the data's fault, exit code 3."""
    path = Path(shutil.make_archive(str(tmp_path / "images"), "zip", images))
    there, here = site.json("explain", path), site.json("explain", images)
    assert {one["series_uid"]: one["rules"] for one in there["series"]} == {
        one["series_uid"]: one["rules"] for one in here["series"]
    }
    path.write_bytes(path.read_bytes()[:1000])
    result = site.run("explain", path)
    assert result.exit_code == 3
    assert "images.zip: it cannot be read as a zip file" in result.stderr


def decisions(explained: dict[str, Any]) -> dict[str, tuple[bool, bool, str]]:
    """Rule → what it does and why."""
    return {r["rule"]: (r["runs"], r["routes"], r["because"]) for r in explained["rules"]}


def test_files_the_kept_series_and_what_was_routed_agree(tmp_path: Path) -> None:
    """`explain` of the same files, `explain --series`, and the recorded event say the same of every rule."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    from_files = {
        one["series_uid"]: one
        for one in lived.json("explain", lived.folder / "images", "--from", "CT01")["series"]
    }
    house = House(lived.folder, RULES, specs=installed()[0], text=lived.site.read_text())
    recorded = {
        e["series_id"]: json.loads(e["detail"]) for e in house.rows(event) if e["detail"].startswith("[{")
    }
    assert len(recorded) == 2
    for row in house.series():
        (kept,) = lived.json("explain", "--series", str(row["id"]))["series"]
        (by_uid,) = lived.json("explain", "--series", row["series_uid"])["series"]
        assert decisions(kept) == decisions(by_uid) == decisions(from_files[row["series_uid"]])
        assert {d["rule"]: (d["runs"], d["because"]) for d in recorded[row["id"]]} == {
            name: (runs, because) for name, (runs, _, because) in decisions(kept).items()
        }
    house.database.close()


def test_a_series_the_node_does_not_hold_is_refused(tmp_path: Path) -> None:
    """Unknown, or still receiving: exit code 3, in words."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    result = lived.run("explain", "--series", "99")
    assert result.exit_code == 3
    assert "holds no such series" in result.stderr
    house = House(lived.folder, RULES, specs=installed()[0], text=lived.site.read_text())
    house.receive(write_ct_series(tmp_path / "late", CT, series=Series("late")))
    house.database.close()
    assert "it is judged when it is sealed" in lived.run("explain", "--series", "3").stderr


def test_what_a_rule_file_would_have_matched(tmp_path: Path) -> None:
    """`--rules FILE --since`: which of the series of a time each rule takes, and what spoke against the others."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    draft = tmp_path / "draft.yaml"
    draft.write_text(RULES.split("---\n")[0].replace("at_least: 5", "at_least: 9"))
    assert lived.run("explain", "--rules", draft, "--since", "36500 d").stdout.splitlines()[:3] == [
        "thick (draft.yaml:1): 0 of 2 series",
        "  ✗ 1 because of slices",
        "  ✗ 1 because of Modality",
    ]
    draft.write_text(RULES.split("---\n")[0])
    text = lived.run("explain", "--rules", draft, "--since", "36500 d").stdout
    assert "thick (draft.yaml:1): 1 of 2 series\n  ✓ series 1 revision 1: CT, 8 objects, routed, 20" in text
    whole = lived.json("explain", "--rules", draft, "--since", "36500 d")
    assert [[rule["runs"] for rule in one["rules"]] for one in whole["series"]] == [[True], [False]]
    assert lived.run("explain", "--since", "soon").exit_code == 2


def test_a_rule_file_by_itself_has_its_tables_with_it(site: Place, images: Path, tmp_path: Path) -> None:
    """`explain --rules FILE` and `process FILE` read the table that the rule names, and no other."""
    rule = RULES.split("---\n")[0].replace(
        "to: PACS}", "to: PACS, edit: [{map: {BodyPartExamined: parts.csv}}]}"
    )
    (tmp_path / "draft.yaml").write_text(rule)
    (tmp_path / "other.csv").write_text("not,a,table\n")
    told = site.run("explain", images / "ct", "--rules", tmp_path / "draft.yaml")
    assert (told.exit_code, "there is no table parts.csv" in told.stderr) == (2, True)
    (tmp_path / "parts.csv").write_text("CHST,CHEST\n")
    assert site.run("explain", images / "ct", "--rules", tmp_path / "draft.yaml").exit_code == 0
    done = site.run("process", tmp_path / "draft.yaml", images / "ct", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("option", "column"), [("--study", "study_uid"), ("--patient", "patient_id")])
def test_explain_of_a_study_or_a_patient(tmp_path: Path, option: str, column: str) -> None:
    """Every series that it names, clause by clause; none is refused in words."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    house = House(lived.folder, RULES, specs=installed()[0], text=lived.site.read_text())
    (first, *_) = house.series()
    house.database.close()
    told = lived.json("explain", option, first[column])
    assert len(told["series"]) == sum(row[column] == first[column] for row in house.series())
    assert lived.run("explain", option, "9.9.9").exit_code == 3


# --- process


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[Path, Any]:
    """The folder of the results, and what `process --json` said: a rule and files, where no site file is."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "rule.yaml").write_text(RULES.split("---\n")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("PACSNODE_CONFIG", raising=False)
        result = pacsnode("process", "rule.yaml", images, "--out", "out", "--json")
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads(result.stdout)


def test_process_writes_what_the_rule_makes(processed: tuple[Path, Any], images: Path) -> None:
    """Real DICOM in a folder: pydicom reads it, it belongs to the source's study, and has new UIDs."""
    out, made = processed
    done = next(one for one in made if one["rule"] == "thick" and one["state"] == "done")
    files = [Path(f) for f in done["files"]]
    assert len(files) == 4
    source = pydicom.dcmread(images / "ct" / "0001.dcm")
    for path in files:
        assert out in path.parents
        dataset = pydicom.dcmread(path)
        assert (dataset.Modality, dataset.StudyInstanceUID) == ("CT", source.StudyInstanceUID)
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert (int(dataset.SeriesNumber), dataset.pixel_array.shape) == (301, (24, 24))
    refused = next(one for one in made if one["rule"] == "thick" and one["state"] == "not run")
    assert refused["reason"] == "Modality: is MR; the rule asks for CT"


def test_process_works_without_a_site_file(processed: tuple[Path, Any]) -> None:
    """A rule and files are enough: where there is no site file, its results are all that is written."""
    out, _ = processed
    assert len(list(out.rglob("*.dcm"))) == 4
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "rule.yaml"]


def test_process_tells_people_where_the_results_are(
    site: Place, processed: tuple[Path, Any], images: Path
) -> None:
    """A line per series and rule, and the folder; run again, the folder holds one set."""
    out, _ = processed
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    text = site.run("process", site.folder / "rules" / "all.yaml", images / "ct", "--out", out).stdout
    assert "series 3: CT 'Thorax 5mm', 8 objects\n  thick: done" in text
    assert f"thick: 4 image objects in {out / 'thick' / 'series-1'}" in text
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    assert before.keys() == after.keys()
    assert not set(before.items()) & set(after.items()), "they were written anew"


def test_data_that_does_not_suit_is_exit_code_3(site: Place, images: Path, tmp_path: Path) -> None:
    """No rule runs, or there is no DICOM at all: refused, not failed."""
    rules = site.folder / "rules" / "all.yaml"
    result = site.run("process", rules, images / "mr", "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "does not run (Modality: is MR; the rule asks for CT)" in result.stdout
    result = site.run("process", rules, images / "notes.txt", "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (3, "no DICOM series among these files\n")


def test_a_rule_file_that_is_wrong_is_exit_code_2(site: Place, images: Path, tmp_path: Path) -> None:
    """Mistakes on stderr; a DICOM file in its place is said to be no text."""
    (tmp_path / "bad.yaml").write_text(TEN)
    result = site.run("process", tmp_path / "bad.yaml", images / "ct", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "did you mean reformat?" in result.stderr
    result = site.run("process", images / "ct" / "0001.dcm", images / "ct", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "not UTF-8 text" in result.stderr


# --- what is on offer


def test_operators_are_told_with_options_units_and_defaults(site: Place) -> None:
    """All of them, as a worker of its own says; or one; a wrong name gets the nearest."""
    told.cache_clear()
    names = [spec["name"] for spec in json.loads(pacsnode("operators", "--json").stdout)]
    assert {"reformat", "segment_body", "segment_threshold", "statistics"} <= set(names)
    text = pacsnode("operators", "reformat").stdout
    assert "reformat(volume: Volume) → Volume" in text
    assert "thickness: number in mm" in text
    result = pacsnode("operators", "reformt")
    assert result.exit_code == 2
    assert "did you mean reformat?" in result.stderr


def test_the_schema_names_every_operator() -> None:
    """JSON that an editor reads, with the operators installed here."""
    result = pacsnode("schema")
    assert result.exit_code == 0
    assert "reformat" in json.dumps(json.loads(result.stdout))


def test_reindex_of_a_stopped_node(tmp_path: Path) -> None:
    """It counts what it added; a node without a data folder is told so."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    assert lived.run("reindex").stdout == "0 objects added; 0 series held as restored\n"
    for path in (lived.folder / "data").glob("pacsnode.db*"):
        path.unlink()
    refused = lived.run("run")
    assert refused.exit_code == 2
    assert "pacsnode reindex" in refused.stderr
    told = lived.run("reindex").stdout.splitlines()
    assert told[0] == "11 objects added; 2 series held as restored"
    assert "pacsnode release" in told[1]
    empty = place(tmp_path / "empty")
    result = empty.run("reindex")
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr


def test_asking_whether_a_node_runs_never_keeps_one_from_starting(tmp_path: Path) -> None:
    """`status` looks at the lock for a moment; a conductor that starts just then waits for it."""
    asking = holding._lock(tmp_path)
    assert asking is not None
    assert holding.is_running(tmp_path)
    import threading

    threading.Timer(0.2, os.close, [asking]).start()
    held = holding.hold(tmp_path)
    assert holding.is_running(tmp_path)
    os.close(held)
    assert not holding.is_running(tmp_path)


def test_the_program_is_installed_and_survives_a_closed_pipe(tmp_path: Path) -> None:
    """As a process: a version, and `| head` ends it without a traceback."""
    command = [sys.executable, "-m", "node.cli"]
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert "pacsnode, version" in told
    program = subprocess.Popen([*command, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.close()
    assert program.stderr is not None
    error = program.stderr.read()
    program.stderr.close()
    assert program.wait(30) == 0
    assert error == b""


# --- talking to a peer


class Peer:
    """A pynetdicom SCP that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str]] = []
        self.port = free_port()
        ae = AE(ae_title="PACS")
        ae.require_called_aet = True
        ae.add_supported_context(Verification)
        ae.add_supported_context(CTImageStorage)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, lambda _: 0x0000)]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _store(self, event: Any) -> int:
        self.got.append((str(event.request.AffectedSOPInstanceUID), event.assoc.requestor.ae_title,
                         str(event.context.transfer_syntax)))  # fmt: skip
        return 0x0000


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A PACS on loopback that takes CT only."""
    found = Peer()
    yield found
    found.server.shutdown()


def test_echo_says_whether_a_peer_answers(tmp_path: Path, peer: Peer) -> None:
    """It answers: 0. It does not: 1, where and why. It has no address, or is none: 2."""
    site = place(tmp_path / "site", port=peer.port)
    result = site.run("echo", "PACS")
    assert (result.exit_code, result.stdout) == (0, "PACS answers\n")
    result = site.run("echo", "ARCHIVE")
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
    assert "has no address" in site.run("echo", "CT01").stderr
    result = site.run("echo", "PASC")
    assert (result.exit_code, result.stderr) == (2, "PASC is not among the peers; did you mean PACS?\n")


def test_check_connect_says_what_a_peer_would_take(tmp_path: Path, peer: Peer) -> None:
    """Each kind of object that the rules would send there, and in which transfer syntaxes it is accepted."""
    rules = """rule: outline
purpose: p
owner: o@h.example
when: {Modality: CT}
do: [{segment_body: {}, as: body}]
send: [{what: body, to: PACS}, {what: received, to: PACS, mode: sealed}]
"""
    site = place(tmp_path / "site", rules, port=peer.port)
    site.site.write_text("".join(t for t in site.site.read_text().splitlines(True) if "ARCHIVE" not in t))
    result = site.run("check", "--connect", "--json")
    assert result.exit_code == 1
    told = {row["sop_class"]: row for row in json.loads(result.stdout)["contexts"]}
    assert "1.2.840.10008.1.2.1" in told["CT Image Storage"]["accepts"]
    assert told["CT Image Storage"]["problem"] == ""
    assert told["Segmentation Storage"]["accepts"] == []
    assert told["Segmentation Storage"]["problem"].startswith(
        "results of outline are not taken: the SOP class"
    )
    assert told["Enhanced CT Image Storage"]["problem"].startswith("not taken")
    text = site.run("check", "--connect", COLUMNS="300").stdout
    assert "explicit, implicit" in text
    assert peer.got == []
    (site.folder / "rules" / "all.yaml").write_text(
        rules.replace("{what: body, to: PACS}, ", "").replace("do: [{segment_body: {}, as: body}]\n", "")
    )
    assert site.run("check", "--connect").exit_code == 0  # that a PACS takes no enhanced CT is its own affair


def test_orthanc_takes_what_the_rules_make(tmp_path: Path) -> None:
    """A real PACS is asked: it accepts results and received objects, and nothing is stored by asking."""
    rules = """rule: outline
purpose: p
owner: o@h.example
when: {Modality: {one_of: [CT, MR]}}
do: [{segment_body: {}, as: body}, {statistics: {mask: body}, as: numbers}]
send: [{what: body, to: PACS}, {what: numbers, to: PACS}, {what: received, to: PACS, mode: sealed}]
"""
    with orthanc(tmp_path / "orthanc") as pacs:
        site = place(tmp_path / "site", rules, port=pacs.port)
        text = site.site.read_text().replace("ae_title: PACS", "ae_title: ORTHANC")
        site.site.write_text("".join(line for line in text.splitlines(True) if "ARCHIVE" not in line))
        found = site.json("check", "--connect")
        assert pacs.instances() == []
    told = {row["sop_class"]: row for row in found["contexts"]}
    assert {
        "CT Image Storage",
        "MR Image Storage",
        "Segmentation Storage",
        "Comprehensive 3D SR Storage",
    } <= set(told)
    assert all("1.2.840.10008.1.2.1" in row["accepts"] and not row["problem"] for row in told.values())


def test_check_connect_asks_every_peer(tmp_path: Path, peer: Peer) -> None:
    """One that does not answer fails the check (1), though its rules are right."""
    site = place(tmp_path / "site", port=peer.port)
    result = site.run("check", "--connect")
    assert result.exit_code == 1
    assert "PACS answers\n" in result.stdout
    assert "ARCHIVE at 127.0.0.1:1 " in result.stdout
    assert "ARCHIVE: ARCHIVE" not in result.stdout


def test_send_stores_files_as_they_are(tmp_path: Path, peer: Peer, images: Path) -> None:
    """All objects of a folder, in their own transfer syntax, as our AE title."""
    site = place(tmp_path / "site", port=peer.port)
    result = site.run("send", images / "ct", "--to", "PACS")
    assert (result.exit_code, result.stdout) == (0, "8 stored at PACS\n")
    assert {title for _, title, _ in peer.got} == {"PACSNODE"}
    assert {syntax for *_, syntax in peer.got} == {"1.2.840.10008.1.2.1"}
    assert len({uid for uid, *_ in peer.got}) == 8


def test_what_could_not_be_sent_is_named(tmp_path: Path, peer: Peer, images: Path) -> None:
    """Files that are no DICOM and objects the peer does not take: stderr, and exit code 1."""
    site = place(tmp_path / "site", port=peer.port)
    result = site.run("send", images, "--to", "PACS")
    assert result.exit_code == 1
    assert "8 stored at PACS" in result.stdout
    assert "notes.txt: not a DICOM file" in result.stderr
    assert result.stderr.count("/mr/") == 3
    result = site.run("send", images / "ct", "--to", "ARCHIVE")
    assert (result.exit_code, result.stdout) == (1, "0 stored at ARCHIVE\n")
    assert site.run("send", tmp_path / "nothing", "--to", "PACS").exit_code == 2


def test_release_lets_held_series_go(tmp_path: Path) -> None:
    """After a reindex one held series, or all of them, can be let go; one that is not held is said to be none."""
    lived = lived_in(tmp_path)
    for path in (tmp_path / "data").glob("pacsnode.db*"):
        path.unlink()
    lived.run("reindex")
    neither = lived.run("release")
    assert neither.exit_code == 2
    assert neither.stderr.startswith("release needs at least one of --to, ")
    assert neither.stderr.endswith("--all, --object\n")
    assert lived.run("release", "--series", "1").stdout == "1 series released\n"
    again = lived.run("release", "--series", "1")
    assert (again.exit_code, again.stdout) == (
        1,
        "nothing to release among the series; left alone: 1 sealed\n",
    )
    assert lived.run("release", "--all").stdout == "1 series released\n"
    unknown = lived.run("release", "--series", "999")
    assert unknown.exit_code == 3
    assert unknown.stderr.startswith("series 999: the node holds no such series")


def test_the_nodes_own_process_loads_what_it_needs() -> None:
    """`run` is found without the modules of other verbs, and these hold every module of the folder but the frame."""
    program = """
import sys
import click
from node.cli import main
assert main.get_command(click.Context(main), "run") is not None
print(*sorted(name for name in sys.modules if name.startswith("node.cli.") or name == "highdicom"))
main.load()
print(*sorted(name for name in sys.modules if name.startswith("node.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, all_of_them = (line.split() for line in done.stdout.splitlines())
    assert first == ["node.cli.frame", "node.cli.running"]
    files = {path.stem for path in Path(frame.__file__).parent.glob("*.py")} - {"__init__", "__main__"}
    assert {name.removeprefix("node.cli.") for name in all_of_them} == files
