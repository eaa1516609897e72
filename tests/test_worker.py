"""A worker process from end to end, under its supervisor: what ends well, and every way to end badly."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from node.model import Job, Output, Plan, Provenance, RunState, Step
from node.process.job import ERROR_FILE, JOB_FILE, job_to_json, spec_from_json
from node.process.supervise import Limits, Spares, supervise

PLUGIN = '''
import os, signal, subprocess, sys, time
import numpy as np
from node.operator import Mask, Measurement, Refused, Volume

def crash(volume: Volume) -> Volume:
    """Crash."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return volume

def hang(volume: Volume) -> Volume:
    """Hang, with a grandchild."""
    print("grandchild", subprocess.Popen(["sleep", "600"]).pid, flush=True)
    time.sleep(600)
    return volume

def eat(volume: Volume) -> Volume:
    """Eat memory."""
    held = []
    while True:
        held.append(np.ones(64 << 20, np.uint8))

def eat_in_itk(volume: Volume) -> Volume:
    """Eat memory where ITK allocates it."""
    import SimpleITK as sitk
    sitk.Image([4000, 4000, 400], sitk.sitkFloat32)
    return volume

def fail(volume: Volume) -> Volume:
    """Fail."""
    raise ValueError("seven is no colour")

def leave(volume: Volume) -> Volume:
    """Leave without a word."""
    os._exit(3)

def killed(volume: Volume) -> Volume:
    """Be killed, as by the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)
    return volume

def refuse(volume: Volume) -> Volume:
    """Refuse."""
    raise Refused("there is no liver in it")

def lie(volume: Volume) -> Mask:
    """Promise a mask and return a volume."""
    return volume
'''
NAMES = ("crash", "hang", "eat", "eat_in_itk", "fail", "leave", "killed", "refuse", "lie")
FIRST = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed distribution `acme` whose operators misbehave, seen by every child."""
    site = tmp_path_factory.mktemp("site")
    (site / "acme_ops.py").write_text(PLUGIN)
    info = site / "acme-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    lines = [f"acme.{name} = acme_ops:{name}" for name in NAMES]
    (info / "entry_points.txt").write_text(
        "\n".join(["[node.operators]", *lines, "acme.gone = acme_ops:gone", ""])
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), before]))
    yield site
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def spares(plugin: Path) -> Iterator[Spares]:
    """Warm children with half a minute and 1.5 GiB each."""
    made = Spares(Limits(seconds=30, memory=3 << 29, threads=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Six CT slices of 2 mm with a ball of 40 HU, radius 8 mm, in air."""
    folder, series, study, frame = (
        tmp_path_factory.mktemp("ct"),
        generate_uid(),
        generate_uid(),
        generate_uid(),
    )
    j, i = np.mgrid[:32, :32]
    paths = []
    for k in range(6):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom", "P1", "", ""
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = (
            "20260101",
            "080000",
            "",
            "",
        )
        ds.StudyID, ds.PositionReferenceIndicator, ds.Manufacturer = "1", "", "Phantoms"
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "CT", 1, k + 1, 1
        ds.ImageType, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], "120"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-16, -16, 2 * k]
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 2
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 16, 16, 15
        ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 1, -1024, "HU"
        ball = (i - 16) ** 2 + (j - 16) ** 2 + (2 * k - 5) ** 2 < 64
        ds.PixelData = np.where(ball, 1064, 24).astype("<i2").tobytes()
        path = folder / f"{k}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(str(path))
    return tuple(reversed(paths))


def job_in(folder: Path, files: tuple[str, ...], *steps: Step, outputs: tuple[str, ...] = ()) -> Path:
    """Write a job of *steps* into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan("test-rule", "0" * 64, steps, tuple(Output(name, n) for n, name in enumerate(outputs, 1)))
    provenance = Provenance(
        hashlib.sha256(b"test").hexdigest(), FIRST, "PACSNode 0", "PACSNODE", dict.fromkeys(outputs, 100)
    )
    job = Job(1, plan, provenance, files, "Europe/Berlin")
    (folder / JOB_FILE).write_text(json.dumps(job_to_json(job)))
    return folder


def one(operator: str, **options: object) -> Step:
    """A step on the received series."""
    return Step(operator, {"volume": "received"}, options, operator.replace("acme.", ""))


def test_specs_list_what_works_and_name_what_does_not(plugin: Path) -> None:
    """`--specs` prints each usable operator as JSON, and one sentence for the broken entry point."""
    out = subprocess.run(
        [sys.executable, "-m", "node.worker", "--specs"], capture_output=True, check=True, text=True
    )
    said = json.loads(out.stdout)
    specs = {name: spec_from_json(data) for name, data in said["operators"].items()}
    assert {"reformat", "segment_threshold", "segment_body", "statistics", "acme.crash"} <= set(specs)
    assert specs["acme.crash"].distribution == "acme"
    assert specs["acme.crash"].version == "1.2"
    assert specs["statistics"].returns == "Report"
    assert [m for m in said["mistakes"] if "acme.gone" in m and "gone" in m]


def test_a_good_run_leaves_gated_products_and_numbers(
    tmp_path: Path, files: tuple[str, ...], spares: Spares
) -> None:
    """Reformat, segment and measure: images, SEG and SR are on disk with the digests that Exit tells."""
    steps = (
        one("reformat", plane="axial", thickness=4.0),
        Step("segment_threshold", {"volume": "received"}, {"at_least": 0.0, "label": "Ball"}, "ball"),
        Step("statistics", {"volume": "received", "mask": "ball"}, {}, "numbers"),
    )
    run = job_in(tmp_path / "run", files, *steps, outputs=("reformat", "ball", "numbers"))
    ended = supervise(run, spares)
    assert ended.state is RunState.DONE, ended.reason
    assert [p.output for p in ended.products].count("reformat") == 3
    assert {p.kind for p in ended.products} == {"image", "segmentation", "report"}
    for product in ended.products:
        assert hashlib.sha256((run / product.path).read_bytes()).hexdigest() == product.digest
    mean = next(m for m in ended.measurements if m["derivation"].endswith("^Mean"))
    assert mean["value"] == 40.0
    assert mean["unit"].startswith("[hnsf'U]^UCUM")
    assert mean["region"] == "Ball"
    assert mean["output"] == "numbers"
    thick = pydicom.dcmread(run / next(p.path for p in ended.products if p.output == "reformat"))
    assert thick.SliceThickness == 4


@pytest.mark.parametrize(
    ("operator", "state", "words"),
    [
        ("acme.crash", RunState.QUARANTINED, ["step 1, acme.crash crashed (SIGSEGV)"]),
        ("acme.eat", RunState.QUARANTINED, ["step 1, acme.eat ran out of memory", "1.5 GiB"]),
        ("acme.eat_in_itk", RunState.QUARANTINED, ["step 1, acme.eat_in_itk ran out of memory", "1.5 GiB"]),
        (
            "acme.fail",
            RunState.QUARANTINED,
            ["step 1, acme.fail: ValueError: seven is no colour (acme_ops.py:"],
        ),
        ("acme.leave", RunState.QUARANTINED, ["step 1, acme.leave ended the worker (exit code 3)"]),
        ("acme.killed", RunState.WAITING, ["step 1, acme.killed was killed from outside (SIGKILL)"]),
        ("acme.refuse", RunState.REFUSED, ["step 1, acme.refuse: there is no liver in it"]),
        ("n4", RunState.REFUSED, ["step 1, n4: the values are in HU: shading"]),
        ("acme.lie", RunState.QUARANTINED, ["step 1, acme.lie: it promised a Mask and returned Volume"]),
        ("acme.gone", RunState.QUARANTINED, ["step 1, acme.gone: operator acme.gone", "cannot be imported"]),
        ("segment_bodi", RunState.QUARANTINED, ["no operator segment_bodi", "did you mean segment_body"]),
    ],
)
def test_each_bad_end_is_told_in_words(
    tmp_path: Path,
    files: tuple[str, ...],
    spares: Spares,
    *,
    operator: str,
    state: RunState,
    words: list[str],
) -> None:
    """A crash, hunger, an exception, an exit, a kill, a refusal and a broken promise each name the step."""
    ended = supervise(job_in(tmp_path / "run", files, one(operator)), spares)
    assert ended.state is state, ended.reason
    assert [w for w in words if w not in ended.reason] == [], ended.reason
    assert ended.products == ()


def test_what_every_image_is_refused_for_is_said_once(
    tmp_path: Path, files: tuple[str, ...], spares: Spares
) -> None:
    """Six pictures without counts are one sentence, with the unit as people write it."""
    ended = supervise(
        job_in(tmp_path / "run", files, Step("count_qa", {"picture": "received"}, {}, "qa")), spares
    )
    assert ended.state is RunState.REFUSED
    assert ended.reason.count("step 1, count_qa") == 1, ended.reason
    assert "its unit is HU" in ended.reason


def test_an_exception_keeps_its_traceback(tmp_path: Path, files: tuple[str, ...], spares: Spares) -> None:
    """The operator's own line is in error.txt, for whoever mends it."""
    run = job_in(tmp_path / "run", files, one("acme.fail"))
    supervise(run, spares)
    assert 'raise ValueError("seven is no colour")' in (run / ERROR_FILE).read_text()


def test_a_hanging_step_is_killed_with_all_it_started(tmp_path: Path, files: tuple[str, ...]) -> None:
    """After the time limit the run is quarantined and neither child nor grandchild lives on."""
    spares = Spares(Limits(seconds=4), size=0)
    try:
        run = job_in(tmp_path / "run", files, one("acme.hang"))
        began = time.monotonic()
        ended = supervise(run, spares)
        assert time.monotonic() - began < 20
    finally:
        spares.close()
    assert ended.state is RunState.QUARANTINED
    assert ended.reason == "step 1, acme.hang did not end within 4 s"
    grandchild = int((run / "worker.log").read_text().split()[-1])
    for _ in range(100):  # the kernel reaps an orphan a moment after the kill
        if not Path(f"/proc/{grandchild}").exists():
            return
        time.sleep(0.02)
    assert "State:\tZ" in Path(f"/proc/{grandchild}/status").read_text()


def test_stopping_the_node_returns_the_run(tmp_path: Path, files: tuple[str, ...]) -> None:
    """Closing the spares kills a running child; its run waits to be tried again, and says why."""
    spares = Spares(Limits(seconds=60), size=0)
    run = job_in(tmp_path / "run", files, one("acme.hang"))
    ends = []
    thread = threading.Thread(target=lambda: ends.append(supervise(run, spares)))
    thread.start()
    while not (run / "progress.txt").exists() or "hang" not in (run / "progress.txt").read_text():
        time.sleep(0.02)
    spares.close()
    thread.join(10)
    assert ends[0].state is RunState.WAITING
    assert ends[0].reason == "the node was stopped during the run"
    assert supervise(run, spares).state is RunState.WAITING


def test_a_spare_that_died_is_replaced(tmp_path: Path, files: tuple[str, ...], plugin: Path) -> None:
    """Killing the waiting child does not fail the next run."""
    spares = Spares(Limits(seconds=30))
    try:
        while not spares._ready:
            time.sleep(0.02)
        dead = spares._ready[0]
        dead.kill()
        dead.wait()
        ended = supervise(job_in(tmp_path / "run", files, one("acme.refuse")), spares)
    finally:
        spares.close()
    assert ended.state is RunState.REFUSED


def test_a_worker_dies_with_its_parent(plugin: Path) -> None:
    """A conductor killed with SIGKILL leaves no worker behind."""
    code = (
        "import time\nfrom node.process.supervise import Limits, Spares\nspares = Spares(Limits())\n"
        "while not spares._ready: time.sleep(0.02)\n"
        "print(spares._ready[0].pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        while Path(f"/proc/{worker}/oom_score_adj").read_text().strip() != "1000":
            time.sleep(0.02)
        parent.kill()
    for _ in range(250):
        status = Path(f"/proc/{worker}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.02)
    pytest.fail("the worker lives on")


def test_the_child_is_confined(plugin: Path) -> None:
    """A worker runs in its own session, nice, first to die and limited in memory."""
    spares = Spares(Limits(memory=2 << 30))
    try:
        while not spares._ready:
            time.sleep(0.02)
        pid = spares._ready[0].pid
        for _ in range(500):
            if Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000":
                break
            time.sleep(0.02)
        assert os.getsid(pid) == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert str(2 << 30) in next(line for line in limits.splitlines() if line.startswith("Max data size"))
    finally:
        spares.close()
    assert not Path(f"/proc/{pid}").exists()
