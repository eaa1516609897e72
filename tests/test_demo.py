"""`pacsnode demo` from outside, and its pure parts: what it verifies, and which way round its pictures are."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset

from node.demo import findings, pictures
from node.demo.pacs import Held
from node.demo.studies import Sent
from node.operator import Volume, affine_of
from node.testing import HOUNSFIELD, Grid, Series, sphere_volume, write_ct_series

CALL = "from node.cli import main; main()"
DEMO = [sys.executable, "-c", CALL, "demo"]
PATIENCE = 560
"""Seconds for one demo; it takes a twentieth of that on two idle cores."""
pytestmark = pytest.mark.timeout(PATIENCE + 20)
STOPPABLE = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {CALL}"
"""Ctrl-C must be heard also where these tests run in the background of a shell, which ignores it."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the demo once, away from the checkout, and return its JSON."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*DEMO, "--json", "--keep", str(folder / "kept")],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["outputs"]) == folder / "kept"
    return found


def _series(played: dict[str, Any], derived: bool, modality: str = "") -> list[dict[str, Any]]:
    return [
        s for s in played["series"] if s["derived"] is derived and (not modality or s["modality"] == modality)
    ]


def _dataset(file: Path) -> bytes:
    return file.read_bytes()[split_dataset(file)[1] :]


def test_every_image_that_was_sent_is_at_the_pacs_byte_for_byte(played: dict[str, Any]) -> None:
    """Each original's dataset, of whatever modality and transfer syntax, arrives unchanged."""
    sent = {
        dcmread(f, stop_before_pixels=True).SOPInstanceUID: f
        for f in Path(played["outputs"]).rglob("sent/*/*.dcm")
    }
    back = {
        dcmread(f, stop_before_pixels=True).SOPInstanceUID: Path(f)
        for series in _series(played, derived=False)
        for f in series["files"]
    }
    assert len(sent) > 200
    assert sent.keys() == back.keys()
    assert [f.name for uid, f in sent.items() if _dataset(f) != _dataset(back[uid])] == []


def test_real_images_of_several_modalities_are_sent(played: dict[str, Any]) -> None:
    """The packages bring real CT, MR, ultrasound and ECG objects, compressed ones among them."""
    assert {"CT", "MR", "US", "ECG"} <= {s["modality"] for s in _series(played, derived=False)}
    files = [Path(f) for s in _series(played, derived=False) for f in s["files"]]
    assert any(dcmread(f, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_compressed for f in files)


@pytest.mark.parametrize("modality", ["CT", "MR", "SEG", "SR"])
def test_results_of_each_kind_come_back(played: dict[str, Any], modality: str) -> None:
    """Derived CT and MR series, a segmentation and a report reach the PACS."""
    assert _series(played, derived=True, modality=modality)


def test_a_real_ct_image_is_processed(played: dict[str, Any]) -> None:
    """The outline of a CT slice of a real patient comes back, not only the phantoms'."""
    sources = {s["source_uid"] for s in _series(played, derived=True, modality="SEG")}
    originals = {s["series_uid"]: s["files"][0] for s in _series(played, derived=False)}
    makers = {
        str(dcmread(originals[uid], stop_before_pixels=True).get("Manufacturer", "")) for uid in sources
    }
    assert makers - {"PACSNode", ""}


def test_the_report_measures_the_phantom(played: dict[str, Any]) -> None:
    """The body's volume is that of the phantom's elliptic cylinder, 140 mm x 95 mm x 144 mm, within 2 %."""
    volumes = [
        m["value"] for m in played["measurements"] if m["name"] == "Volume" and "phantom" in m["source"]
    ]
    assert volumes == [pytest.approx(np.pi * 140 * 95 * 144, rel=0.02)]


def test_pictures_are_not_empty(played: dict[str, Any]) -> None:
    """There is a sheet of everything and a picture per derived image series, each with contents."""
    files = [Path(f) for f in played["pictures"]]
    assert len(files) >= 4
    assert files[0].name == "all-series.png"
    for file in files:
        assert np.asarray(Image.open(file).convert("L")).std() > 10, file.name


def test_the_node_is_gone_at_the_end(played: dict[str, Any]) -> None:
    """Nothing listens any more at the port the demo's node had."""
    assert not _listening(_port(Path(played["outputs"])))


def _port(folder: Path) -> int:
    found = re.search(r"listen: 127\.0\.0\.1:(\d+)", (folder / "node.yaml").read_text(encoding="utf-8"))
    assert found
    return int(found[1])


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_stops_the_node(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the demo with code 1 and leave no node behind."""
    kept = tmp_path / "kept"
    command = [sys.executable, "-c", STOPPABLE, "demo", "--keep", str(kept)]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not ((kept / "node.yaml").exists() and _listening(_port(kept))):
            assert time.monotonic() < end, "the demo's node did not come up"
            time.sleep(0.1)
        demo.send_signal(how)
        assert demo.wait(60) == 1
    finally:
        demo.kill()
    assert not _listening(_port(kept))
    assert '"event": "node_stopped"' in (kept / "node.log").read_text(encoding="utf-8")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """--keep never mixes with what is there: exit code 2, and the sentence says what next."""
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    done = subprocess.run(
        [*DEMO, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


# --- the pure parts


def _held(files: Sequence[Path]) -> dict[str, Held]:
    headers = [dcmread(f, stop_before_pixels=True) for f in files]
    return {
        h.SOPInstanceUID: Held(f, h.SeriesInstanceUID, h.SOPInstanceUID)
        for h, f in zip(headers, files, strict=True)
    }


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    """Two CT slices."""
    volume = sphere_volume(Grid((2, 16, 16), (2.0, 1.0, 1.0)), radius=5)
    files = write_ct_series(tmp_path / "sent", volume, series=Series("test-demo"))
    return Sent("CT test", "CT01", str(dcmread(files[0]).SeriesInstanceUID), tuple(files))


def test_unchanged_originals_are_no_problem(sent: Sent) -> None:
    """What came as it was sent is one original series, and nothing is wrong."""
    rows, problems = findings.returned([sent], _held(sent.files))
    assert problems == []
    assert [(row.title, row.derived, len(row.files)) for row in rows] == [("CT test", False, 2)]


def test_one_changed_byte_is_found(sent: Sent, tmp_path: Path) -> None:
    """An original that differs in one byte of its dataset is named."""
    copies = [Path(shutil.copy(f, tmp_path / f"{n}.dcm")) for n, f in enumerate(sent.files)]
    data = bytearray(copies[1].read_bytes())
    data[-1] ^= 1
    copies[1].write_bytes(data)
    _, problems = findings.returned([sent], _held(copies))
    assert len(problems) == 1
    assert "not byte for byte" in problems[0]


def test_a_lost_original_is_found(sent: Sent) -> None:
    """An original that is not at the PACS is named."""
    _, problems = findings.returned([sent], _held(sent.files[:1]))
    assert problems == ["CT test: 0002.dcm is not at the PACS"]


def test_a_result_without_a_source_is_found(sent: Sent, tmp_path: Path) -> None:
    """An object that refers to nothing that was sent is no honest result."""
    stray = write_ct_series(tmp_path / "stray", sphere_volume(Grid((1, 8, 8))), series=Series("stray"))
    _, problems = findings.returned([sent], _held([*sent.files, *stray]))
    assert len(problems) == 1
    assert "refers to 0 of the series that were sent" in problems[0]


@pytest.mark.parametrize(
    "axes",
    [
        np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float),  # axial
        np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], float),  # axial, turned over
        np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),  # sagittal
        np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float),  # coronal
    ],
    ids=["axial", "turned over", "sagittal", "coronal"],
)
def test_cuts_are_shown_as_radiologists_look(axes: np.ndarray[Any, Any]) -> None:
    """However the slices lie: front or head on top, the patient's left at the right, front left in sagittal cuts."""
    affine = affine_of(np.zeros(3), axes, np.array([3.0, 2.0, 1.0]))
    left, back, head = np.tensordot(affine[:3, :3], np.indices((5, 6, 7)), 1)
    for shown, axis, right, down in (
        (left, 0, 1, 0),
        (left, 1, 1, 0),
        (back, 2, 1, 0),
        (back, 0, 0, 1),
        (head, 1, 0, -1),
        (head, 2, 0, -1),
    ):
        upright = pictures._upright(Volume(shown.astype(np.float32), affine, HOUNSFIELD))
        cut = upright.cut(axis, (shown.min(), shown.max()))[..., 0].astype(int)
        assert set(np.sign(np.diff(cut, axis=1)).flat) == {right}
        assert set(np.sign(np.diff(cut, axis=0)).flat) == {down}
