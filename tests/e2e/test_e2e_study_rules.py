"""Rules over a study through the whole node: DCMTK sends series by series, results are judged at the PACS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pydicom
import pytest
from crash.crash_house import House, Pacs, house
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.testing import (
    Grid,
    Series,
    body_volume,
    head_volume,
    run_rule,
    sphere_volume,
    write_ct_series,
    write_mr_series,
    write_pet_series,
)

EXAMPLES = Path(__file__).parents[2] / "config" / "examples" / "rules"
CT_GRID = Grid(shape=(24, 40, 40), spacing=(4.0, 8.0, 8.0))
PET_GRID = Grid(shape=(24, 32, 32), spacing=(4.0, 8.0, 8.0))
MR_GRID = Grid(shape=(6, 48, 48), spacing=(6.0, 4.0, 4.0))


def example(name: str) -> str:
    """The text of an example rule."""
    return (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")


def ct(folder: Path) -> list[Path]:
    """An axial CT of the study."""
    return write_ct_series(folder, body_volume(CT_GRID), series=Series("ct", study="pet-ct", number=2))


def pet(folder: Path, grid: Grid = PET_GRID) -> list[Path]:
    """Its PET: a hot ball."""
    hot = sphere_volume(grid, radius=30.0, inside=20000.0, outside=500.0)
    return write_pet_series(folder, hot, series=Series("pet", study="pet-ct", number=3))


@dataclass(frozen=True)
class Site:
    """A node, its PACS, and what was sent."""

    node: House
    pacs: Pacs

    def send(self, files: list[Path]) -> None:
        """By DCMTK, on one association."""
        peers.storescu(self.node.port, *files, calling="CT01")

    def made(self, run: int) -> list[Dataset]:
        """What a run made, as it is at the PACS."""
        return [self.pacs.read(row["sop_uid"]) for row in self.node.table("product", run_id=run)]

    def files(self, run: int) -> list[Path]:
        """The same, as files of the node."""
        return [self.node.data / row["path"] for row in self.node.table("product", run_id=run)]

    def states(self) -> list[str]:
        """Of the runs."""
        return [row["state"] for row in self.node.table("run")]

    def says(self, *verb: str) -> str:
        """What a verb of the command line tells."""
        done = self.node.verb(*verb, COLUMNS="500")
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A node with the example rule that the test names."""
    rules = {name: example(name) for name in request.param}
    with house(tmp_path / "site", rules) as node, Pacs(node.pacs_port).open() as pacs:
        node.start()
        yield Site(node, pacs)
        node.stop()


def values(ds: Dataset) -> np.ndarray[Any, Any]:
    """What its pixels say; without a rescale they are the values."""
    return ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))


def referenced(made: Dataset) -> set[str]:
    """The SOP Instance UIDs that it says it was made from."""
    return {str(item.ReferencedSOPInstanceUID) for item in made.SourceImageSequence}


def uids(files: list[Path]) -> set[str]:
    """SOP Instance UIDs of files."""
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}


@pytest.mark.parametrize("site", [["pet-ct-fusion"]], indirect=True)
def test_pet_ct_fusion(site: Site, tmp_path: Path) -> None:
    """CT first: the rule waits and says for what. With the PET: one picture series of both, valid, in their study.

    A late PET slice: it is made anew of all, says `(rev 2)`, and the old one is superseded.
    """
    one, other = ct(tmp_path / "ct"), pet(tmp_path / "pet")
    site.send(one)
    site.node.wait_for(
        lambda: [r["state"] for r in site.node.table("series")] == ["routed"], "routing the CT"
    )
    assert site.states() == []
    told = json.loads(site.says("status", "--json"))
    (waiting,) = told["waiting_studies"]
    assert (waiting["rule"], waiting["state"]) == ("pet-ct-fusion", "waiting")
    assert "pet-ct-fusion waits for pet until " in site.says("status")
    assert "? pet-ct-fusion" in site.says("explain", "--series", "1")
    site.send(other[:-1])
    site.node.wait_for(lambda: site.states() == ["done"], "the fusion")
    site.node.wait_idle()
    (made,) = site.made(1)
    source = pydicom.dcmread(one[0])
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
        assert made[keyword].value == source[keyword].value
    assert made.SeriesDescription == "Phantom PET/CT SUV 0-7"
    assert referenced(made) == uids(one) | uids(other[:-1])
    assert [peers.dciodvfy(path) for path in site.files(1)] == [[]]
    assert made.NumberOfFrames == 24
    site.send(other[-1:])
    site.node.wait_for(lambda: site.states() == ["superseded", "done"], "the second fusion")
    site.node.wait_idle()
    (newer,) = site.made(2)
    assert newer.SeriesDescription == "Phantom PET/CT SUV 0-7 (rev 2)"
    assert referenced(newer) == uids(one) | uids(other)
    assert newer.SOPInstanceUID != made.SOPInstanceUID


def agent(series: Series, name: str | None) -> Series:
    """The same series with this contrast agent."""
    return replace(series, changes={"ContrastBolusAgent": name, "RepetitionTime": "500", "EchoTime": "12"})


@pytest.mark.parametrize("site", [["mr-contrast-subtraction"]], indirect=True)
def test_mr_subtraction(site: Site, tmp_path: Path) -> None:
    """After minus before is the ball that took up contrast, and nothing else; PET, SR and the like are left alone."""
    before = head_volume(MR_GRID)
    ball = sphere_volume(MR_GRID, radius=25.0, inside=300.0, outside=0.0)
    after = replace(before, array=before.array + ball.array)
    native = write_mr_series(tmp_path / "a", before, series=agent(Series("native", "mr", number=4), None))
    late = write_mr_series(tmp_path / "b", after, series=agent(Series("late", "mr", number=5), "Gadobutrol"))
    site.send([*native, *late])
    site.node.wait_for(lambda: site.states() == ["done"], "the subtraction")
    site.node.wait_idle()
    made = sorted(site.made(1), key=lambda ds: float(ds.ImagePositionPatient[2]))
    stored = np.stack([values(ds) for ds in made])
    assert np.abs(stored - np.rint(after.array) + np.rint(before.array)).max() <= 1
    assert {ds.SeriesDescription for ds in made} == {"Phantom minus native"}
    assert {str(ds.ContrastBolusAgent) for ds in made} == {"Gadobutrol"}
    for k, ds in enumerate(made):  # each slice names the two it was made of
        assert referenced(ds) == {
            str(pydicom.dcmread(files[k], stop_before_pixels=True).SOPInstanceUID) for files in (native, late)
        }
    inherited = {line for path in late for line in peers.dciodvfy(path)}
    assert [line for path in site.files(1) for line in peers.dciodvfy(path) if line not in inherited] == []


def time_points(folder: Path) -> list[list[Path]]:
    """The real DCE study, each time point as a series of its own, as many scanners export them."""
    by_place: dict[tuple[float, ...], list[Dataset]] = {}
    for ds in map(pydicom.dcmread, sorted(peers.need_samples("MR", "dce-ucsf-br-06").iterdir())):
        by_place.setdefault(tuple(map(float, ds.ImagePositionPatient)), []).append(ds)
    assert sorted(map(len, by_place.values())) == [3, 3, 3, 3]
    made = []
    for number in range(3):
        uid = generate_uid(entropy_srcs=[str(number)])
        folder_of = folder / str(number)
        folder_of.mkdir(parents=True)
        for k, place in enumerate(sorted(by_place)):
            ds = sorted(by_place[place], key=lambda ds: int(ds.InstanceNumber))[number]
            ds.SeriesInstanceUID, ds.SeriesNumber = uid, 20 + number
            ds.ContrastBolusAgent = "NONE" if number == 0 else "Gadolinium"
            ds.save_as(folder_of / f"{k}.dcm")
        made.append(sorted(folder_of.iterdir()))
    return made


def test_real_breast_mr(tmp_path: Path) -> None:
    """On real images the late minus the native time point is what their pixels say, in a valid object."""
    native, _, late = time_points(tmp_path / "in")
    rule = tmp_path / "rule.yaml"
    rule.write_text(
        example("mr-contrast-subtraction").replace("SeriesTime: largest", "SeriesNumber: largest")
    )
    (made,) = run_rule(rule, [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None, made.judged.because
    assert made.ended.state == "done", made.ended.reason
    results = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(results) == 4
    first, last = ([pydicom.dcmread(p) for p in files] for files in (native, late))
    for path in results:
        ds = pydicom.dcmread(path)
        place = [float(v) for v in ds.ImagePositionPatient]
        pair = [
            next(d for d in each if np.allclose([float(v) for v in d.ImagePositionPatient], place, atol=1e-3))
            for each in (last, first)
        ]
        wanted = np.clip(pair[0].pixel_array.astype(float) - pair[1].pixel_array, 0, None)
        assert np.abs(values(ds) - wanted).max() <= 1
        inherited = {line for p in (*native, *late) for line in peers.dciodvfy(p)}
        assert [line for line in peers.dciodvfy(path) if line not in inherited] == []


def test_a_result_that_resembles_the_second_input(tmp_path: Path) -> None:
    """PET on the CT's grid is a PET: its own attributes, the study and the name of the first input."""
    one = ct(tmp_path / "in" / "ct")
    hot = sphere_volume(PET_GRID, radius=30.0, inside=20000.0, outside=500.0)
    changes: Mapping[str, object] = {"PatientName": "Phantom^Analytic^Spelled", "ReferringPhysicianName": "X"}
    other = write_pet_series(
        tmp_path / "in" / "pet", hot, series=Series("pet", study="pet-ct", number=3, changes=changes)
    )
    rule = tmp_path / "rule.yaml"
    rule.write_text(
        "rule: pet-there\npurpose: p\nowner: o\nscope: study\nwhen: {}\ninputs:\n"
        "  ct: {when: {Modality: CT}}\n  pet: {when: {Modality: PT}}\n"
        "do:\n  - resample: {volume: pet, like: ct}\n    as: there\nsend: [{what: there, to: PACS}]\n"
    )
    (made,) = run_rule(rule, [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "done", made.ended.reason
    results = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(results) == len(one)
    ds = pydicom.dcmread(results[12])
    assert (ds.Modality, ds.Units, ds.PatientName) == ("PT", "BQML", "Phantom^Analytic")
    assert ds.RadiopharmaceuticalInformationSequence[0].Radiopharmaceutical == "FDG"
    assert referenced(ds) & uids(other)
    assert referenced(ds) & uids(one)
    assert peers.dciodvfy(results[12]) == []


REPORT = """
rule: pet-in-body
purpose: What the PET measures inside the outline that the CT gives.
owner: tests@hospital.example
scope: study
when: {}
inputs:
  ct: {when: {Modality: CT}}
  pet: {when: {Modality: PT}}
do:
  - segment_body: {volume: ct}
    as: body
  - resample: {volume: pet, like: ct}
    as: there
  - statistics: {volume: there, mask: body}
    as: measured
send:
  - {what: body, to: PACS}
  - {what: measured, to: PACS}
"""


def test_a_report_over_two_series(tmp_path: Path) -> None:
    """PET measured in a region of the CT: SEG and SR are of one patient and study, name both series, and are valid."""
    one, other = ct(tmp_path / "in" / "ct"), pet(tmp_path / "in" / "pet")
    rule = tmp_path / "rule.yaml"
    rule.write_text(REPORT)
    (made,) = run_rule(rule, [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "done", made.ended.reason
    results = sorted((tmp_path / "out").rglob("*.dcm"))
    by_modality = {str(pydicom.dcmread(path).Modality): path for path in results}
    assert set(by_modality) == {"SEG", "SR"}
    assert peers.pixelmed_sr(by_modality["SR"]) == []
    assert peers.dciodvfy(by_modality["SEG"]) == []
    before = set(peers.dcentvfy(*one, *other))
    assert [line for line in peers.dcentvfy(*one, *other, *results) if line not in before] == []
    report = pydicom.dcmread(by_modality["SR"])
    named = {
        str(item.SeriesInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for item in study.ReferencedSeriesSequence
    }
    assert named >= {str(pydicom.dcmread(files[0]).SeriesInstanceUID) for files in (one, other)}
    assert any(m["unit"].startswith("Bq/ml") for m in made.ended.measurements)


MOVED = """
rule: moved
purpose: The second laid on the first, and what differs.
owner: tests@hospital.example
scope: study
when: {}
inputs:
  a: {when: {Modality: CT, SeriesNumber: 1}}
  b: {when: {Modality: CT, SeriesNumber: 2}}
do:
  - register_rigid: {volume: a, other: b, start: centers, metric: mean_squares}
    as: there
  - subtract: {volume: a, other: there}
    as: change
send: [{what: there, to: PACS}, {what: change, to: PACS}]
"""


def test_inputs_in_two_frames_of_reference(tmp_path: Path) -> None:
    """What was moved lies in the frame it was moved to, keeps how it was acquired, and names all it was made of.

    Text in another character set than that of the study it is put into would be misread: it is left out.
    """
    volume = body_volume(CT_GRID)
    changes = {
        "FrameOfReferenceUID": "1.2.3.4",
        "KVP": "100",
        "SpecificCharacterSet": "ISO_IR 100",
        "ProtocolName": "Köln",
    }
    one = write_ct_series(tmp_path / "in" / "a", volume, series=Series("a", study="s", number=1))
    other = write_ct_series(
        tmp_path / "in" / "b", volume, series=Series("b", study="s", number=2, changes=changes)
    )
    rule = tmp_path / "rule.yaml"
    rule.write_text(MOVED)
    (made,) = run_rule(rule, [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "done", made.ended.reason
    there, change = (
        [pydicom.dcmread(p) for p in sorted((tmp_path / "out").rglob(f"{name}/*.dcm"))][10]
        for name in ("there", "change")
    )
    frame = pydicom.dcmread(one[0]).FrameOfReferenceUID
    assert (there.FrameOfReferenceUID, change.FrameOfReferenceUID) == (frame, frame)
    assert (float(there.KVP), float(change.KVP)) == (100, 120)
    assert (there.SpecificCharacterSet, "ProtocolName" in there, change.ProtocolName) == (
        "ISO_IR 192",
        False,
        "Phantom",
    )
    assert referenced(there) >= uids(other)
    assert referenced(change) >= uids(other)
    assert len(referenced(change) & uids(one)) < len(one)
    for path in sorted((tmp_path / "out").rglob("00011.dcm")):
        assert peers.dciodvfy(path) == []


def test_inputs_that_do_not_suit_are_refused_by_name(tmp_path: Path) -> None:
    """A CT in another frame of reference: the operator refuses, and the words say which step and what to do."""
    ct(tmp_path / "in" / "ct")
    hot = sphere_volume(PET_GRID, radius=30.0, inside=20000.0, outside=500.0)
    apart = Series("pet", study="pet-ct", number=3, changes={"FrameOfReferenceUID": "1.2.3.4"})
    write_pet_series(tmp_path / "in" / "pet", hot, series=apart)
    (made,) = run_rule(EXAMPLES / "pet-ct-fusion.yaml", [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "refused"
    assert "register them first" in made.ended.reason
