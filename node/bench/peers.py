"""The programs that are measured beside ours: found, started on loopback, and ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.demo.site import free_port
from node.errors import Broken

NODELAY = {"TCP_NODELAY": "1"}
"""DCMTK's variable, and so Orthanc's: 1 turns Nagle's algorithm off (RFC 896)."""
MAX_PDU = "131072"
SENDER, PACS = "BENCH", "PACS"
"""AE titles."""

_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
_START_WITHIN, _END_WITHIN = 20.0, 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
LUA = "function OnStoredInstance(id, tags, metadata, origin)\n  SendToModality(id, 'PACS')\nend\n"
"""Orthanc's own way to forward whatever it receives (its book, "Server-side scripting with Lua")."""


def program(name: str) -> str | None:
    """Where DCMTK's or Orthanc's program *name* is; pynetdicom's ones beside our Python have the same names."""
    ours = str(Path(sys.executable).parent)
    places = [*_PLACES, *(place for place in os.environ.get("PATH", "").split(os.pathsep) if place != ours)]
    return shutil.which(name, path=os.pathsep.join(places))


@dataclass(frozen=True, slots=True)
class Spent:
    """What one way took for one round; *memory* in bytes, 0 where it is not known."""

    seconds: float
    cpu: float
    memory: int = 0
    objects: int = 0
    """Where they are not those of the row: a slow way is given fewer."""
    lane_cpu: float = 0.0
    """Of *cpu*, the processes that hold the connections, where others work beside them."""
    lane_memory: int = 0
    """Of the largest of these."""
    lanes: int = 0
    """How many these are."""
    sender_cpu: float = 0.0
    """What the load generator spent, all its processes together."""


def clean(environ: Mapping[str, str], **more: str) -> dict[str, str]:
    """The environment without what would change what is measured."""
    kept = {k: v for k, v in environ.items() if not k.startswith("PACSNODE") and k != "TCP_NODELAY"}
    return {**kept, **more}


@contextmanager
def process(command: Sequence[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* as long as the block lasts, its output in *log*: then SIGTERM, and SIGKILL if need be."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, env=clean(os.environ, **environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_listening(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when *running* accepts connections at *port*. Raises Broken with the end of its log."""
    end = time.monotonic() + _START_WITHIN
    while time.monotonic() < end and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Broken(f"{running.args!r} did not start: {log.read_text(errors='replace')[-800:]}")


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's storescp that drops what it gets; yields its port. Raises Broken where it is not installed."""
    name = program("storescp")
    if name is None:
        raise Broken("DCMTK's storescp, which receives what is sent, is not installed; install dcmtk")
    port, log = free_port(), folder / "storescp.log"
    command = [name, "--ignore", "-pdu", MAX_PDU, "-aet", PACS, str(port)]
    with process(command, log, **NODELAY) as running:
        wait_listening(running, port, log)
        yield port


def storescu(name: str, port: int, folder: Path, *, called: str = PACS, nodelay: bool = True) -> Spent:
    """Send *folder* over one association with DCMTK's storescu, as a whole process. Raises Broken."""
    command = [
        name, "-R", "--max-send-pdu", MAX_PDU, "-aet", SENDER, "-aec", called, "+sd", "127.0.0.1", str(port),
        str(folder),
    ]  # fmt: skip
    began = time.perf_counter()
    running = subprocess.Popen(
        command, env=clean(os.environ, **(NODELAY if nodelay else {})), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert running.stderr is not None  # noqa: S101 - PIPE was asked for
    try:
        said = running.stderr.read()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if running.returncode is None:
            running.kill()
            running.wait()
        running.stderr.close()
    if running.returncode:
        raise Broken(f"storescu ended with {running.returncode}: {said.decode(errors='replace')[-400:]}")
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    port: int
    http: int
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: bytes) -> Any:
        """POST to its REST interface and return the JSON answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body)
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.load(answer)

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.get("/system")["Version"])

    def get(self, path: str) -> Any:
        """GET from its REST interface and return the JSON answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def orthanc(
    folder: Path, pacs_port: int, *, forward: bool = False, nodelay: bool = True, **more: Any
) -> Iterator[Orthanc]:
    """Orthanc in *folder* that may call PACS, and with *forward* sends on whatever it gets; *more* settings.

    Raises Broken.
    """
    name = program("Orthanc")
    if name is None:
        raise Broken("Orthanc is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port, http = free_port(), free_port()
    script = folder / "forward.lua"
    script.write_text(LUA)
    settings = {
        "Name": "BENCH", "StorageDirectory": str(folder), "IndexDirectory": str(folder), "Plugins": [],
        "DicomAet": "ORTHANC", "DicomPort": port, "DicomCheckModalityHost": False, "DicomAlwaysAllowStore": True,
        "HttpPort": http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "SaveJobs": False,
        "DicomModalities": {"PACS": [PACS, "127.0.0.1", pacs_port]},
        "LuaScripts": [str(script)] if forward else [], **more,
    }  # fmt: skip
    config, log = folder / "orthanc.json", folder / "orthanc.log"
    config.write_text(json.dumps(settings))
    with process([name, str(config)], log, **(NODELAY if nodelay else {})) as running:
        wait_listening(running, http, log)
        wait_listening(running, port, log)
        yield Orthanc(port, http, running)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, its living descendants and those that ended."""
    return sum(cpu for cpu, _ in family_of(pid).values())


def family_of(pid: int) -> dict[int, tuple[float, str]]:
    """A process and its living descendants: CPU seconds, those of reaped children included, and command line."""
    stats = _stats()
    family = {pid}
    while more := {child for child, (parent, _) in stats.items() if parent in family} - family:
        family |= more
    return {one: (stats[one][1], _words(one)) for one in family if one in stats}


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _stats() -> dict[int, tuple[int, float]]:
    """Process → its parent, and its CPU seconds with those of its reaped children (proc(5))."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                found[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)
    return found


def forget_peaks(pid: int) -> None:
    """Let `memory_of` a process and its descendants begin anew (proc(5), clear_refs); nothing where it may not."""
    for one in family_of(pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{one}/clear_refs").write_text("5")


def memory_of(pid: int | str) -> int:
    """Peak resident memory of one process in bytes (VmHWM); 0 where it cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
