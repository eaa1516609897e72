"""What receives: PACSNode, the peers, and a sink that keeps nothing. Each fresh, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import func, select

from node.bench import peers
from node.bench.peers import MAX_PDU, SENDER
from node.demo import site
from node.errors import Broken
from node.store import schema
from node.store.database import Database, open_database

CALLED = "PACSNODE"
POWER, PROCESS = "PACSNode, power", "PACSNode, process"
STORESCP, FORK, ORTHANC, PYNETDICOM = "storescp", "storescp --fork", "Orthanc", "pynetdicom"
SINK = "(sink that keeps nothing)"

_RECEIVER = "node.receiver"
_POLL = 0.005
_SITE = """\
node:
  ae_titles: [{called}]
  listen: 127.0.0.1:{port}
  timezone: UTC
  data: ./data
  rules: ./rules
  durability: {durability}
peers:
  SCANNER: {{sends_as: [{sender}], seal: {{quiet_for: 1 h}}}}
"""


@dataclass(frozen=True)
class Station:
    """A receiver that runs."""

    port: int
    pid: int
    kept: Callable[[], int]
    """How many objects it holds on the disk."""
    indexed: Callable[[], int] | None = None
    """How many of them it knows about, where it learns that later."""
    lane: str = ""
    """What the command line of the processes that hold the connections says, where others work beside them."""

    def wait_indexed(self, count: int, within: float) -> float:
        """When, in monotonic seconds, all of *count* objects were indexed; now where that needs no wait."""
        while self.indexed is not None and self.indexed() < count:
            if within <= 0:
                raise Broken(f"{self.indexed()} of {count} objects were indexed")
            time.sleep(_POLL)
            within -= _POLL
        return time.monotonic()


Start = Callable[[Path], AbstractContextManager[Station]]


def installed(associations: int, receivers: int = 0) -> tuple[dict[str, Start], list[str]]:
    """Every way to receive that is installed here, and the peers that are not."""
    ways: dict[str, Start] = {
        POWER: lambda folder: node(folder, "power", receivers),
        PROCESS: lambda folder: node(folder, "process", receivers),
    }
    missing = []
    if peers.program("storescp"):
        ways[STORESCP] = lambda folder: storescp(folder, fork=False)
        ways[FORK] = lambda folder: storescp(folder, fork=True)
    else:
        missing.append("DCMTK")
    if peers.program("Orthanc"):
        ways[ORTHANC] = orthanc
    else:
        missing.append(ORTHANC)
    ways[PYNETDICOM] = pynetdicom
    ways[SINK] = lambda folder: sink(folder, associations)
    return ways, missing


def settings() -> dict[str, str]:
    """What each of them is set to."""
    found = {
        "PACSNode": f"pacsnode run {version('pacsnode')}, no rules, SQLite; durability: power or process, all else "
        "as it comes",
        PYNETDICOM: f"python -m pynetdicom storescp of {version('pynetdicom')}, --max-pdu {MAX_PDU}",
        "sink": "recv_into and an answer, in a process per association: what loopback and the generator allow",
    }
    if name := peers.program("storescp"):
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout.split()
        options = (
            f"DCMTK {said[2] if len(said) > 2 else ''}, +B -pdu {MAX_PDU}, TCP_NODELAY=1; it syncs nothing"
        )
        found[STORESCP] = f"{options}; alone where one association comes at a time, --fork where several do"
    if name := peers.program("Orthanc"):
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout.split()
        found[ORTHANC] = (
            f"{said[1] if len(said) > 1 else ''}, SQLite index, MaximumPduLength {MAX_PDU}, SyncStorageArea true (its "
            "default), TCP_NODELAY=1, its own defaults otherwise"
        )
    return found


@contextmanager
def node(folder: Path, durability: str, receivers: int = 0) -> Iterator[Station]:
    """A real `pacsnode run` without rules; *receivers* 0 = as many as it starts by itself."""
    work, port = site.Work(folder), site.free_port()
    text = _SITE.format(called=CALLED, port=port, durability=durability, sender=SENDER)
    if receivers:
        text = text.replace("peers:", f"  receivers: {receivers}\npeers:")
    work.site_file.write_text(text, encoding="utf-8")
    (folder / "rules").mkdir()
    with site.running(work, port) as running:
        site.wait_until_up(running)
        _wait_for_database(running)
        database = open_database("sqlite", work.data, create=False)
        try:
            yield Station(
                port,
                running.process.pid,
                lambda: files(work.data / "objects", ".dcm"),
                lambda: _instances(database),
                _RECEIVER,
            )
        finally:
            database.close()


def _wait_for_database(running: site.Node) -> None:
    """The receiver may be up before the conductor has made the tables."""
    for _ in range(int(site.START_WITHIN / 0.02)):
        if (running.work.data / "database.name").exists():
            return
        running.check()
        time.sleep(0.02)
    raise Broken(f"the node made no database within {site.START_WITHIN:g} s; its log: {running.work.log}")


def _instances(database: Database) -> int:
    """How many objects the node has taken in: one count, on a read-only view, which holds up no writer."""
    with database.read() as tx:
        return int(tx.scalar(select(func.count()).select_from(schema.instance)) or 0)


@contextmanager
def storescp(folder: Path, *, fork: bool, ignore: bool = False) -> Iterator[Station]:
    """DCMTK's storescp, which writes bit for bit what it gets."""
    name, port, log, place = peers.program("storescp"), site.free_port(), folder / "log", folder / "in"
    if name is None:
        raise Broken("DCMTK's storescp is not installed; install dcmtk")
    place.mkdir()
    command = [name, "+B", "-pdu", MAX_PDU, "-aet", CALLED, "-od", str(place), str(port)]
    command[1:1] = ["--fork"] if fork else []
    command[1:1] = ["--ignore"] if ignore else []
    with peers.process(command, log, **peers.NODELAY) as running:
        peers.wait_listening(running, port, log)
        yield Station(port, running.pid, lambda: files(place))


@contextmanager
def orthanc(folder: Path) -> Iterator[Station]:
    """Orthanc with its defaults, but for the longest PDU."""
    with peers.orthanc(folder, 1, MaximumPduLength=int(MAX_PDU)) as running:
        yield Station(
            running.port, running.process.pid, lambda: int(running.get("/statistics")["CountInstances"])
        )
        running.process.kill()  # to end in good order takes it seconds, and what it holds is thrown away


@contextmanager
def pynetdicom(folder: Path) -> Iterator[Station]:
    """The storescp that comes with pynetdicom."""
    port, log, place = site.free_port(), folder / "log", folder / "in"
    command = [
        sys.executable, "-m", "pynetdicom", "storescp", str(port), "-aet", CALLED, "--max-pdu", MAX_PDU,
        "-od", str(place),
    ]  # fmt: skip
    with peers.process(command, log) as running:
        peers.wait_listening(running, port, log)
        yield Station(port, running.pid, lambda: files(place))


@contextmanager
def sink(folder: Path, processes: int) -> Iterator[Station]:
    """The sink; *folder* stays empty."""
    running = subprocess.Popen(
        [sys.executable, "-m", "node.bench.sink", str(processes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=folder, text=True, env=peers.clean(os.environ), start_new_session=True,
    )  # fmt: skip
    assert running.stdin is not None  # noqa: S101 - PIPE was asked for
    assert running.stdout is not None  # noqa: S101 - PIPE was asked for
    try:
        yield Station(int(running.stdout.readline()), running.pid, lambda: -1)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stdin.close()
        running.stdout.close()


def files(folder: Path, suffix: str = "") -> int:
    """How many files there are below *folder* whose names end so."""
    return sum(name.endswith(suffix) for _, _, names in os.walk(folder) for name in names)
