"""`bench send`: the same objects to the same storescp, sent by us and by others, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.bench import material, peers, tell
from node.bench.peers import Spent
from node.bench.tell import Row
from node.errors import Broken

_SLOW = 4.0
"""Seconds of a round; a way that takes longer is not asked for another one."""
_OURS, _DCMTK, _NAGLE = "PACSNode", "DCMTK", "DCMTK, Nagle on"
_ORTHANC = "Orthanc"


@dataclass(frozen=True)
class Case:
    """Objects of one size, in one folder."""

    name: str
    folder: Path
    count: int
    size: int
    """Bytes of all of them."""


Way = Callable[[Case], Spent]


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    ct: int
    mr: int


def measure(asked: Asked, say: tell.Say) -> tell.Report:
    """Measure every way that is installed. Raises Broken where DCMTK's storescp is not."""
    settings: dict[str, str] = {}
    missing: list[str] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        with peers.storescp(folder) as port:
            say("writing the objects")
            cases = _cases(folder, asked)
            with _ways(folder, port, cases, settings, missing) as ways:
                for case in cases:
                    rows += _case(case, ways, asked.rounds, say, settings)
    settings["the peer"] = f"DCMTK storescp --ignore -pdu {peers.MAX_PDU}, TCP_NODELAY=1, on loopback"
    return tell.Report(
        "send", f"median of {asked.rounds} interleaved rounds", _DCMTK, rows, settings, missing
    )


def _cases(folder: Path, asked: Asked) -> list[Case]:
    written = {
        "CT 512 kB": material.write_ct(folder / "ct", asked.ct),
        "MR 33 kB": material.write_mr(folder / "mr", asked.mr),
    }
    return [
        Case(name, paths[0].parent, len(paths), sum(path.stat().st_size for path in paths))
        for name, paths in written.items()
    ]


def _case(
    case: Case, ways: Mapping[str, Way], rounds: int, say: tell.Say, settings: dict[str, str]
) -> list[Row]:
    """Every way in turn; one that fails is said to have, and keeps the rounds it had. Raises Broken where ours does."""
    rows = {name: Row(case.name, name, case.count, case.size) for name in ways}
    over: set[str] = set()
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            if name in over:
                continue
            say(f"{case.count} × {case.name}, round {number} of {rounds}: {name}")
            try:
                rows[name].spent.append(way(case))
            except Broken as error:
                if name == _OURS:
                    raise
                over.add(name)
                settings[name] += f"; failed in round {number} of {case.name} ({error})"
                continue
            if rows[name].spent[0].seconds > _SLOW:
                over.add(name)
    return [row for row in rows.values() if row.spent]


@contextmanager
def _ways(
    folder: Path, port: int, cases: list[Case], settings: dict[str, str], missing: list[str]
) -> Iterator[Mapping[str, Way]]:
    """Every way to send that is installed here; what each is set to, and what is not there."""
    ways: dict[str, Way] = {_OURS: lambda case: _python("ours", port, case)}
    settings[_OURS] = "send_objects, one association, set-up and release counted, Python already started"
    if storescu := peers.program("storescu"):
        ways[_DCMTK] = lambda case: peers.storescu(storescu, port, case.folder)
        ways[_NAGLE] = lambda case: peers.storescu(storescu, port, case.folder, nodelay=False)
        options = f"storescu as a whole process, -R --max-send-pdu {peers.MAX_PDU}"
        settings[_DCMTK] = f"{options}, TCP_NODELAY=1"
        settings[_NAGLE] = f"{options}, Nagle's algorithm on, as DCMTK has it by default"
    else:
        missing.append(_DCMTK)
    ways["pynetdicom"] = lambda case: _python("pynetdicom", port, case)
    settings["pynetdicom"] = (
        f"send_c_store(path), max_pdu={peers.MAX_PDU}, Nagle's algorithm on, as it has it by default"
    )
    if not peers.program("Orthanc"):
        missing.append(_ORTHANC)
        yield ways
        return
    with peers.orthanc(folder / "orthanc", port) as orthanc:
        held = {case.name: _upload(orthanc, case) for case in cases}
        ways[_ORTHANC] = lambda case: _post(orthanc, held[case.name])
        settings[_ORTHANC] = (
            f"{orthanc.version}, POST /modalities/PACS/store of what it holds, synchronous, TCP_NODELAY=1"
        )
        yield ways


def _python(way: str, port: int, case: Case) -> Spent:
    command = [sys.executable, "-m", "node.bench.senders", way, str(port), str(case.folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None  # noqa: S101 - PIPE was asked for
        ready = child.stdout.readline()
        told, _ = child.communicate("go\n")
    finally:
        child.kill()
        child.wait()
    if not ready or not told:
        raise Broken(f"the sender {way} ended with {child.returncode}; what it said stands above")
    found = json.loads(told)
    if found["wrong"]:
        raise Broken(f"{way}, {case.name}: {found['wrong']}")
    return Spent(found["seconds"], found["cpu"], found["memory"])


def _upload(orthanc: peers.Orthanc, case: Case) -> list[str]:
    """Give Orthanc the objects; returns its names for them."""
    return [orthanc.post("/instances", path.read_bytes())["ID"] for path in sorted(case.folder.iterdir())]


def _post(orthanc: peers.Orthanc, held: list[str]) -> Spent:
    pid = orthanc.process.pid
    began, cpu = time.perf_counter(), peers.cpu_of(pid)
    body = json.dumps({"Resources": held, "Synchronous": True}).encode()
    answer = orthanc.post("/modalities/PACS/store", body)
    seconds = time.perf_counter() - began
    if answer.get("FailedInstancesCount"):
        raise Broken(f"Orthanc could not send {answer['FailedInstancesCount']} of {len(held)} objects")
    return Spent(seconds, peers.cpu_of(pid) - cpu, peers.memory_of(pid))
