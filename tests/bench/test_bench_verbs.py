"""`pacsnode bench`: every row is there, with what it rests on, and nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from peers import need, wait_for

from node.bench import budget, cases, sending, stations, tell
from node.bench import peers as programs
from node.bench.peers import Spent
from node.bench.tell import Answered, Report, Row
from node.errors import Broken

COMMAND = [sys.executable, "-m", "node.cli", "bench"]
PYTHON = ("PACSNode", "pynetdicom")
OURS = ("PACSNode, power", "PACSNode, process")
SINK, DISK = "(sink that keeps nothing)", "(disk: write, sync, rename, sync)"


def bench(*words: str, within: float = 280) -> dict[str, Any]:
    """Run a bench in a process of its own and read its JSON."""
    done = subprocess.run(
        [*COMMAND, *words, "--json"], capture_output=True, text=True, check=False, timeout=within
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rules_are_measured_without_a_network(place: Path) -> None:
    """Taking in, sealing, matching and routing each have a figure per round, two of them a budget; nothing is left."""
    found = bench("rules", "--rounds", "2", "--rules", "10", "--images", "30")
    assert found["bench"] == "rules"
    assert [len(one["seconds"]) for one in found["answers"]] == [2, 2, 2, 2]
    assert all(second > 0 for one in found["answers"] for second in one["seconds"])
    assert [one["most"] for one in found["budget"]] == [0.05, 0.1]
    assert list(place.iterdir()) == []


def left(folder: Path) -> list[str]:
    """Command lines of processes that work below *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                open_files = [str(link.readlink()) for link in (entry / "fd").iterdir()]
            except OSError:
                continue
            if str(folder) in words or any(str(folder) in name for name in open_files):
                found.append(words)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where benches keep everything, so that what they leave behind can be told from all else."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.long
def test_send_measures_every_way(place: Path) -> None:
    """A row for each way and size with rate, ratio and CPU; every way's settings; folder and processes are gone."""
    need("storescp", "storescu", "Orthanc")
    found = bench("send", "--rounds", "1", "--ct", "3", "--mr", "5")
    ways = {"PACSNode", "DCMTK", "DCMTK, Nagle on", "pynetdicom", "Orthanc"}
    assert {(row["case"], row["way"]) for row in found["rows"]} == {
        (case, way) for case in ("CT 512 kB", "MR 33 kB") for way in ways
    }
    assert {row["objects"] for row in found["rows"]} == {3, 5}
    assert all(row["objects_per_second"] > 0 and row["ratio"] > 0 for row in found["rows"])
    assert all(row["memory_bytes"] > 10e6 for row in found["rows"] if row["way"] in PYTHON)
    assert set(found["settings"]) == ways | {"the peer"}
    assert found["not_installed"] == []
    assert list(place.iterdir()) == []
    assert left(place) == []


@pytest.mark.long
def test_receive_measures_every_way(place: Path) -> None:
    """A row for each way, with what disk and loopback allow; counts are exact; the budget says what it found."""
    need("storescp", "Orthanc")
    found = bench("receive", "--rounds", "1", "--mr", "12", "--only", "mr1", "--big", "0.002")
    assert {(row["case"], row["way"]) for row in found["rows"]} == {
        *(("MR 33 kB", way) for way in {*OURS, "storescp", "Orthanc", "pynetdicom", SINK, DISK}),
        *(("multi-frame of 0.0021 GB", way) for way in {*OURS, "storescp", SINK}),
    }
    for row in found["rows"]:
        assert row["objects_per_second"] > 0, row
        assert row["rounds"][0]["objects"] >= 1, row
        assert (row["lane_memory_megabytes"] is not None) == (row["way"] in OURS), row
        assert (row["ratio_to_disk_limit"] is not None) == (
            (row["case"], row["way"]) == ("MR 33 kB", "PACSNode, power")
        ), row
    held = {line["what"] for line in found["budget"] if line["found"] is not None}
    assert held == {
        "process, MR 33 kB, × storescp", "power, MR 33 kB, × the limit of the disk", "power, MR 33 kB, × Orthanc",
        "power, s until the last of a burst is indexed", "process, s until the last of a burst is indexed",
        "MB at most in a receiver, one big object",
    }  # fmt: skip
    assert all("failed" not in words for words in found["settings"].values())
    assert "GB free" in found["settings"]["the disk"]
    assert list(place.iterdir()) == []
    assert left(place) == []


@pytest.mark.long
def test_receive_measures_every_case(place: Path) -> None:
    """Several associations, Nagle's algorithm, an association each: all have their ways, and none failed."""
    need("storescp", "Orthanc")
    found = bench("receive", "--rounds", "1", "--ct", "4", "--mr", "16", within=400)
    ways: dict[str, set[str]] = {}
    for row in found["rows"]:
        ways.setdefault(row["case"], set()).add(row["way"])
        assert row["objects_per_second"] > 0, row
    usual = {*OURS, "Orthanc", "pynetdicom", SINK}
    assert ways == {
        "CT 512 kB": {*usual, "storescp", DISK},
        "MR 33 kB": {*usual, "storescp", DISK},
        "CT 512 kB, 4 associations": {*usual, "storescp --fork", DISK},
        "MR 33 kB, 4 associations": {*usual, "storescp --fork", DISK},
        "MR 33 kB, Nagle's algorithm on": {*usual, "storescp"},
        "MR 33 kB, an association each": {*usual, "storescp", "storescp --fork"},
        "MR 33 kB, an association each, 4 at once": {*usual, "storescp --fork"},
    }
    assert [line["what"] for line in found["budget"] if line["found"] is None] == [
        "MB at most in a receiver, one big object"
    ]
    assert all("failed" not in words for words in found["settings"].values())
    assert list(place.iterdir()) == []
    assert left(place) == []


def test_receivers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DCMTK and Orthanc the others are measured, and these two are said to be missing."""
    monkeypatch.setattr(programs, "program", lambda _: None)
    ways, missing = stations.installed(associations=1)
    assert set(ways) == {*OURS, "pynetdicom", SINK}
    assert missing == ["DCMTK", "Orthanc"]
    assert set(stations.settings()) == {"PACSNode", "pynetdicom", "sink"}


def test_a_disk_that_is_too_small_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rounds may need is known before the first, and more than that must be free."""
    asked = cases.Asked(1, 2, 4, ("mr1",))
    found = cases.cases_of(tmp_path / "material", asked)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 0, 1 << 30))
    cases.check_room(tmp_path, found, 100)
    with pytest.raises(Broken, match=r"GB are free .* may need .* --rounds"):
        cases.check_room(tmp_path, found, 100_000)


def test_the_budget_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What holds, what does not, and what was not measured; the limit is that of process and disk one by one."""
    spent = {
        "PACSNode, power": 40.0, "PACSNode, process": 100.0, "storescp": 125.0, "Orthanc": 10.0,
        "(disk: write, sync, rename, sync)": 100.0,
    }  # fmt: skip
    rows = [
        Row("MR 33 kB", way, 100, 3_300_000, [Spent(100 / rate, 0.1, objects=100)])
        for way, rate in spent.items()
    ]
    rates = budget.Rates(rows)
    assert rates.limit("MR 33 kB") == pytest.approx(50.0)
    verdicts = budget.verdicts(rates, {("MR 33 kB", "PACSNode, power"): [0.5, 2.0, 1.5]})
    report = Report("receive", "how", "storescp", rows, {}, [], (), budget.columns(rates), verdicts)
    tell.report(report, False)
    text = capsys.readouterr().out
    assert "✓ process, MR 33 kB, × storescp: 0.80 (at least 0.8)" in text
    assert "✗ power, MR 33 kB, × the limit of the disk: 0.80 (at least 0.85)" in text
    assert "✓ power, MR 33 kB, × Orthanc: 4.00 (at least 2)" in text
    assert "✗ power, s until the last of a burst is indexed: 1.50 (at most 1)" in text
    assert "– process, CT 512 kB, × storescp: not measured (at least 1)" in text
    (power,) = [line.split() for line in text.splitlines() if line.strip().startswith("PACSNode, power")]
    assert power[2:7] == ["40", "1", "0.32", "4.00", "0.80"]


@pytest.mark.long
def test_turnaround_measures_forwarding_and_a_result(place: Path) -> None:
    """Both durabilities and both Orthancs forward all slices; the result of a rule comes after the last image."""
    need("storescu", "Orthanc")
    found = bench("turnaround", "--rounds", "1", "--slices", "8", "--ct", "0", "--pet", "0", "--mr", "0")
    assert [row["way"] for row in found["rows"]] == [
        "PACSNode, power", "PACSNode, process", "Orthanc", "Orthanc, Nagle on",
    ]  # fmt: skip
    assert all(row["objects"] == 8 and row["objects_per_second"] > 0 for row in found["rows"])
    (answer,) = found["answers"]
    assert "all 10 results" in answer["what"]
    assert answer["median"] == answer["seconds"][0]
    assert list(place.iterdir()) == []
    assert left(place) == []


@pytest.mark.long
def test_turnaround_measures_operators(place: Path) -> None:
    """Each step beside the bare calls, the memory of the run, and how often a file is read: once; nothing is left."""
    words = ("--rounds", "1", "--ct", "12", "--pet", "8", "--mr", "0")
    chosen = ("statistics", "suv")
    found = bench("turnaround", *words, *(word for name in chosen for word in ("--only", name)))
    told = {one["what"]: one["found"] for one in found["budget"]}
    for name in ("segment_body", "statistics"):
        assert told[f"{name}, 12 slices of a CT, × the bare calls (CPU)"] > 0
    for series in ("12 slices of a CT", "8 slices of a PET"):
        assert told[f"reading, {series}, × the bare calls (CPU)"] > 0
    assert [value for what, value in told.items() if what.endswith("times each file is opened")] == [1.0] * 2
    memory = [value for what, value in told.items() if "most memory × the volume" in what]
    assert len(memory) == 2
    assert min(memory) > 0
    assert all(second > 0 for one in found["answers"] for second in one["seconds"])
    assert list(place.iterdir()) == []


def test_turnaround_measures_lungs_uptake_and_histograms(place: Path) -> None:
    """Each of them runs over a chest, or a PET, and beside its bare calls; nothing is left."""
    words = ("--rounds", "1", "--ct", "40", "--pet", "8", "--mr", "0")
    chosen = ("lungs", "uptake", "histogram")
    found = bench("turnaround", *words, *(word for name in chosen for word in ("--only", name)))
    told = {one["what"]: one["found"] for one in found["budget"]}
    steps = {
        "40 slices of a CHEST": ("segment_lungs", "emphysema"), "8 slices of a PET": ("uptake",),
        "40 slices of a CT": ("histogram",),
    }  # fmt: skip
    for series, names in steps.items():
        assert all(told[f"{name}, {series}, × the bare calls (CPU)"] > 0 for name in names)
    memory = {what.partition(",")[0] for what in told if "most memory × the volume" in what}
    assert memory == set(chosen)
    assert list(place.iterdir()) == []


def test_an_operator_that_is_not_measured_is_no_name() -> None:
    """The message says which are."""
    done = subprocess.run(
        [*COMMAND, "turnaround", "--only", "mipp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "mipp is not measured; known are network, reformat, mip" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("turnaround", "--rounds", "5", "--slices", "20", "--only", "network"), signal.SIGINT),
        pytest.param(
            ("turnaround", "--rounds", "5", "--slices", "20", "--only", "network"),
            signal.SIGTERM,
            marks=pytest.mark.long,
        ),
        (("receive", "--rounds", "9", "--mr", "20", "--only", "mr1"), signal.SIGTERM),
    ],
)
def test_a_bench_that_is_stopped_leaves_nothing(
    place: Path, words: Sequence[str], sent: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end the node, the peers and the folder with the bench."""
    need("storescu")
    command = [*COMMAND, *words]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ},
        # A shell starts what runs in its background with SIGINT ignored, and so would this be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call
    )
    try:
        wait_for(lambda: any("node.conductor" in words for words in left(place)), "starting a node", 120)
        running.send_signal(sent)
        running.communicate(timeout=150)
    finally:
        running.kill()
        running.wait()
    assert running.returncode != 0
    wait_for(lambda: left(place) == [], "ending what was started")
    assert list(place.iterdir()) == []


def test_missing_peers_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only storescp is installed, the other peers are named, and ours and pynetdicom's rows are there."""
    need("storescp")
    known = programs.program
    monkeypatch.setattr(programs, "program", lambda name: known(name) if name == "storescp" else None)
    found = sending.measure(sending.Asked(1, 2, 2), lambda _: None)
    assert found.missing == ["DCMTK", "Orthanc"]
    assert {row.way for row in found.rows} == set(PYTHON)
    assert [found.ratio(row) for row in found.rows] == [None] * 4


def test_the_table_says_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Medians, ratios to the base, settings and what is not installed stand in the table for people."""
    rows = [
        Row("CT", "ours", 100, 50_000_000, [Spent(0.5, 0.1, 90_000_000), Spent(0.1, 0.1), Spent(0.2, 0.3)]),
        Row("CT", "theirs", 100, 50_000_000, [Spent(0.4, 0.2)]),
    ]
    answers = [Answered("result", [0.5, 0.3, 0.4])]
    tell.report(Report("send", "how", "theirs", rows, {"ours": "as set"}, ["Orthanc"], answers), False)
    text = capsys.readouterr().out
    ours = next(line for line in text.splitlines() if "ours" in line and "500" in line)
    assert ours.split()[-6:] == ["500", "250", "2.00", "0.10", "90", "3"]
    assert "result: 0.40 s (median of 0.50, 0.30, 0.40)" in text
    assert "ours: as set" in text
    assert "Orthanc is not installed" in text


def test_the_counting_pacs_answers_what_storescu_sends(tmp_path: Path) -> None:
    """DCMTK's storescu gets success for every object, and each is counted once, under its own UID."""
    from pydicom import dcmread

    from node.bench import material
    from node.bench.counting import counting

    storescu = need("storescu")
    paths = material.write_mr(tmp_path / "mr", 7)
    with counting() as pacs:
        for nodelay in (True, False):
            began = time.monotonic()
            programs.storescu(storescu, pacs.port, tmp_path / "mr", nodelay=nodelay)
            assert pacs.wait(7, 10)
            assert [began <= at <= time.monotonic() for at, _ in pacs.came] == [True] * 7
            uids = sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths)
            assert sorted(uid for _, uid in pacs.came) == uids
            pacs.came.clear()
