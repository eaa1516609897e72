"""Real studies through the whole node: DCMTK sends, DCMTK and Orthanc receive, other readers judge the results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import highdicom
import peers
import pydicom
import pytest
from crash.crash_house import House, house
from pydicom.dataset import Dataset

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
STUDIES = {  # modality → folder, how many of its files (0 = all of them)
    "CT": ("CT/crlm-1004-chest-abdomen", 0),
    "MR": ("MR/siemens-dti-classic", 4),  # oblique; the first of its two volumes
    "PT": ("PET/qin-headneck-0139", 0),
}
WHO = {"PatientName": "WITTGENSTEIN^LUDWIG", "PatientID": "SECRET4711", "PatientBirthDate": "18890426"}
EVENT = re.compile(r"[a-z][a-z0-9_]*")


def study(name: str, folder: Path) -> list[Path]:
    """Copy one series under a name that can be looked for in a log."""
    found = []
    folder.mkdir()
    source, most = STUDIES[name]
    paths = sorted(p for p in peers.need_samples(*source.split("/")).iterdir() if p.is_file())
    for path in paths[: most or None]:
        ds = pydicom.dcmread(path)
        if ds.Modality == name:
            for keyword, value in WHO.items():
                setattr(ds, keyword, value)
            ds.save_as(folder / f"{len(found):04d}.dcm")
            found.append(folder / f"{len(found):04d}.dcm")
    return found


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


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_there_and_back(name: str, tmp_path: Path, storescp, orthanc) -> None:
    """What DCMTK sends comes back bit for bit at two archives, with results that other software finds valid."""
    files = study(name, tmp_path / "in")
    scp = storescp("+B", "+xa", ae_title="ARCHIVE")
    rules = {"back": BACK, "measure": MEASURE}
    others = f"  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{scp.port}}}"
    with house(
        tmp_path / "site", rules, pacs_port=orthanc.port, destinations=others, quiet_for="1500 ms"
    ) as site:
        config = site.folder / "node.yaml"
        config.write_text(config.read_text().replace("ae_title: PACS,", "ae_title: ORTHANC,"))
        site.start()
        peers.storescu(site.port, *files, calling="CT01")
        site.wait_for(lambda: site.instances() == len(files), "the index")
        site.wait_idle(120)
        (run,) = site.table("run")
        assert run["state"] == "done", run["reason"]
        assert {row["state"] for row in site.table("delivery")} == {"stored"}, site.state()

        kept = by_uid((site.data / "objects").glob("*/*/*.dcm"))
        there = by_uid(scp.files())
        made = {row["sop_uid"]: site.data / row["path"] for row in site.table("product")}
        assert set(there) == set(kept) | set(made)
        for uid, path in {**kept, **made}.items():
            assert dataset_bytes(there[uid]) == dataset_bytes(path), f"{uid} changed on the way"
        sources = by_uid(files)
        for uid, path in sources.items():
            assert pydicom.dcmread(there[uid]) == pydicom.dcmread(path), f"{uid} is not what was sent"
        assert {tags["SOPInstanceUID"] for tags in orthanc.instances()} == set(there)

        assert_valid([there[uid] for uid in sources], [there[uid] for uid in made])
        assert_quiet_log(site)
        site.stop()
        assert_quiet_log(site)


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
