"""Real studies through the whole node: DCMTK sends, DCMTK and Orthanc receive, other readers judge the results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom
import peers
import pydicom
import pytest
from crash.crash_house import House, house
from pydicom.dataset import Dataset

from node.testing import Grid, Series, body_volume, write_ct_series

BACK = """
rule: back
purpose: Everything that is received goes to both archives.
owner: tests@hospital.example
when: {}
send:
  - {what: received, to: [PACS, ARCHIVE]}
"""
MEASURE = """
rule: measure
purpose: The outline of the body, what it measures, and thicker slices.
owner: tests@hospital.example
when: {Modality: {one_of: [CT, MR, PT]}, slices: {at_least: 4}}
do:
  - segment_body: {}
    as: body
  - statistics: {mask: body}
    as: measured
  - reformat: {plane: axial, thickness: 10 mm, every: 10 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: [PACS, ARCHIVE]}
  - {what: body, to: [PACS, ARCHIVE]}
  - {what: measured, to: [PACS, ARCHIVE]}
on_failure: {retry: 0, then: quarantine}
"""
REAL = {  # modality → folder, which of its images in the order of their names, or of their places (z)
    "CT": ("CT/crlm-1004-chest-abdomen", "name", slice(0, 6)),
    "MR": ("MR/siemens-dti-classic", "name", slice(0, 4)),  # oblique; the first of its two volumes
    "PT": ("PET/qin-headneck-0139", "place", slice(30, 42)),  # the border of two bed positions is among them
}
PHANTOM = "phantom"
"""A study of our own: what is left where there are no real images."""
WHO = {"PatientName": "WITTGENSTEIN^LUDWIG", "PatientID": "SECRET4711", "PatientBirthDate": "18890426"}
EVENT = re.compile(r"[a-z][a-z0-9_]*")


def images(name: str, folder: Path) -> list[Dataset]:
    """Read neighbouring slices of one series; none where the real images are absent."""
    if name == PHANTOM:
        volume = body_volume(Grid(shape=(6, 32, 32), spacing=(5.0, 10.0, 10.0)))
        return [pydicom.dcmread(path) for path in write_ct_series(folder, volume, series=Series(PHANTOM))]
    source, order, part = REAL[name]
    try:
        paths = sorted(p for p in peers.need_samples(*source.split("/")).iterdir() if p.is_file())
    except pytest.skip.Exception:
        return []
    found = [ds for ds in map(pydicom.dcmread, paths) if ds.Modality == name]
    if order == "place":
        found.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    return found[part]


def study(name: str, folder: Path) -> list[Path]:
    """Write a study's images under a name that can be looked for in a log."""
    (folder / name).mkdir(parents=True)
    for number, ds in enumerate(images(name, folder / f"{name}-unnamed")):
        for keyword, value in WHO.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / name / f"{number:04d}.dcm")
    return sorted((folder / name).iterdir())


def dataset_bytes(path: Path) -> bytes:
    """The bytes of a Part 10 file behind its file meta."""
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")
    return data[144 + length :]


def by_uid(paths: Iterable[Path]) -> dict[str, Path]:
    """SOP Instance UID → file."""
    return {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in paths}


def assert_quiet_log(site: House) -> None:
    """No role logged anything of the patient, every line is JSON, and its event is a constant name."""
    text = site.log.read_text()
    said = [word for value in WHO.values() for word in value.split("^") if word.lower() in text.lower()]
    assert not said, f"the log names the patient: {said}"
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["role"] for line in lines} >= {"supervisor", "receiver", "conductor"}
    assert not [
        line for line in lines if not EVENT.fullmatch(line["event"]) or line["event"] == "unnamed_event"
    ]
    for log in (site.data / "runs").glob("*/*/*"):
        if log.suffix in (".txt", ".log"):
            assert not [v for v in WHO.values() if v.lower() in log.read_text().lower()], log.name


@dataclass(frozen=True)
class Journey:
    """What was sent to one node, what it kept and made, and what is at the archives."""

    site: House
    sent: dict[str, list[Path]]
    kept: dict[str, Path]
    there: dict[str, Path]
    """SOP Instance UID → file at storescp."""
    in_orthanc: set[str]

    def made(self, name: str) -> dict[str, Path]:
        """What the one run of a study made: SOP Instance UID → file."""
        uid = str(pydicom.dcmread(self.sent[name][0], stop_before_pixels=True).SeriesInstanceUID)
        (series,) = self.site.table("series", series_uid=uid)
        (run,) = self.site.table("run", series_id=series["id"])
        assert run["state"] == "done", run["reason"]
        products = self.site.table("product", run_id=run["id"])
        return {str(row["sop_uid"]): self.site.data / row["path"] for row in products}


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Send all studies at once to one node with two archives, and stop it when it is idle."""
    folder = tmp_path_factory.mktemp("journey")
    studies = {name: study(name, folder / "in") for name in (*REAL, PHANTOM)}
    sent = {name: files for name, files in studies.items() if files}
    with (
        peers.storescp(folder / "archive", "+B", "+xa", ae_title="ARCHIVE") as scp,
        peers.orthanc(folder / "orthanc") as orthanc,
        house(
            folder / "site",
            {"back": BACK, "measure": MEASURE},
            pacs_port=orthanc.port,
            destinations=f"  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{scp.port}}}",
        ) as site,
    ):
        config = site.folder / "node.yaml"
        config.write_text(config.read_text().replace("ae_title: PACS,", "ae_title: ORTHANC,"))
        site.start()
        for files in sent.values():
            peers.storescu(site.port, *files, calling="CT01")
        site.wait_for(lambda: site.instances() == sum(map(len, sent.values())), "the index")
        site.wait_idle(120)
        site.stop()
        kept = by_uid((site.data / "objects").glob("*/*/*.dcm"))
        in_orthanc = {tags["SOPInstanceUID"] for tags in orthanc.instances()}
        yield Journey(site, sent, kept, by_uid(scp.files()), in_orthanc)


def test_studies_come_back_bit_for_bit(journey: Journey) -> None:
    """What DCMTK sends, and what is made of it, is at both archives, all of it and nothing else, bit for bit."""
    made = {uid: path for name in journey.sent for uid, path in journey.made(name).items()}
    assert {row["state"] for row in journey.site.table("delivery")} == {"stored"}, journey.site.state()
    assert set(journey.there) == set(journey.kept) | set(made)
    assert journey.in_orthanc == set(journey.there)
    for uid, path in {**journey.kept, **made}.items():
        assert dataset_bytes(journey.there[uid]) == dataset_bytes(path), f"{uid} changed on the way"
    sources = by_uid(path for files in journey.sent.values() for path in files)
    assert set(sources) == set(journey.kept)
    for uid, path in sources.items():
        assert pydicom.dcmread(journey.there[uid]) == pydicom.dcmread(path), f"{uid} is not what was sent"


@pytest.mark.parametrize("name", [*REAL, PHANTOM])
def test_results_are_valid_to_other_software(name: str, journey: Journey) -> None:
    """The results of a study, as they are at the archive, are valid to dicom3tools, PixelMed and highdicom."""
    if name not in journey.sent:
        peers.need_samples(*REAL[name][0].split("/"))
    sources = [journey.there[uid] for uid in by_uid(journey.sent[name])]
    made = [journey.there[uid] for uid in journey.made(name)]
    assert_valid(sources, made)


def test_the_log_names_no_patient(journey: Journey) -> None:
    """From its start to its end the node logs JSON with constant event names, and nothing of a patient."""
    assert_quiet_log(journey.site)


def assert_valid(sources: list[Path], made: list[Path]) -> None:
    """Nothing is wrong with the results that was not wrong with their sources."""
    inherited = {line for path in sources for line in peers.dciodvfy(path)}
    for path in made:
        new = [line for line in peers.dciodvfy(path) if line not in inherited]
        assert not new, f"{pydicom.dcmread(path, stop_before_pixels=True).Modality}: {new}"
    kinds = {}
    for path in made:
        ds = pydicom.dcmread(path)
        kinds.setdefault(str(ds.Modality), []).append((path, ds))
        assert {k: str(ds[k].value) for k in WHO} == WHO, "a result is of another patient"
    for path, _ in kinds["SR"]:
        assert peers.pixelmed_sr(path) == []
    for path, ds in kinds["SEG"]:
        assert_reads_as_segmentation(path, ds, sources)
    before = set(peers.dcentvfy(*sources))
    assert not [line for line in peers.dcentvfy(*sources, *made) if line not in before]


def assert_reads_as_segmentation(path: Path, ds: Dataset, sources: list[Path]) -> None:
    """Highdicom opens it, finds its source images, and it marks something."""
    seg = highdicom.seg.segread(path)
    assert seg.number_of_segments == 1
    known = set(by_uid(sources))
    assert {uid for _, _, uid in seg.get_source_image_uids()} <= known
    assert ds.PixelData.strip(b"\0")
