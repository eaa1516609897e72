"""A whole node as processes in a folder of its own, the PACS it sends to, and a sender that never gives up.

The node is started as its user starts it (`pacsnode run`) and killed as an operating system kills: SIGKILL.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import _STORAGE_CLASSES
from sqlalchemy import Connection, select, update

from node.operator import Volume
from node.store import standing
from node.store.database import Database, open_database, rows
from node.store.schema import delivery, destination, event, instance, product, run, series, study_rule
from node.testing import Grid, Series, sphere_volume, write_ct_series

TABLES = {
    "event": event,
    "series": series,
    "run": run,
    "delivery": delivery,
    "instance": instance,
    "product": product,
    "study_rule": study_rule,
}
ROUTE_ALL = """
rule: all
purpose: Everything that is received goes to the PACS at once.
owner: tests@hospital.example
when: {}
send:
  - {what: received, to: PACS}
"""
MEASURE_CT = """
rule: measure
purpose: The ball in the phantom gets an outline and a report, and thick axials.
owner: tests@hospital.example
when: {Modality: CT, slices: {at_least: 4}}
do:
  - segment_threshold: {at_least: 0}
    as: ball
  - statistics: {mask: ball}
    as: measured
  - reformat: {plane: axial, thickness: 6 mm, every: 6 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: PACS}
  - {what: ball, to: PACS}
  - {what: measured, to: PACS}
on_failure: {retry: 3, then: quarantine}
"""
_ROLES = {
    "receiver": "node.receiver", "reader": "node.reader", "conductor": "node.conductor",
    "sender": "node.sender", "worker": "node.worker", "transcoder": "node.transcoder",
}  # fmt: skip
_MOVERS = tuple(_ROLES[role].encode() for role in ("receiver", "reader", "conductor", "sender", "transcoder"))
"""Roles that do the next step of what came; a worker's run is in the tables, and a spare one moves nothing."""
_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5")


def digest_of(dataset: bytes) -> str:
    """SHA-256 of a dataset's bytes as they are on the wire."""
    return hashlib.sha256(dataset).hexdigest()


# --- the PACS


@dataclass
class Pacs:
    """A C-STORE SCP that remembers every dataset it was given, byte for byte, in the order it came."""

    port: int
    ae_title: str = "PACS"
    answer: Callable[[str, int], int] = lambda _uid, _nth: 0x0000
    """SOP Instance UID, how many came before it → the C-STORE status."""
    got: list[tuple[str, str]] = field(default_factory=list)
    """(SOP Instance UID, digest of the dataset) of every object it answered with success."""
    datasets: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """SOP Instance UID → its last bytes and their transfer syntax."""
    asked: int = 0
    syntaxes: tuple[str, ...] = _SYNTAXES
    """Transfer syntaxes it takes."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def held(self) -> dict[str, set[str]]:
        """SOP Instance UID → the different digests that came under it: more than one is a twin."""
        found: dict[str, set[str]] = {}
        for uid, digest in list(self.got):
            found.setdefault(uid, set()).add(digest)
        return found

    def times(self, uid: str) -> int:
        """How often an object came."""
        return sum(1 for other, _ in self.got if other == uid)

    def read(self, uid: str) -> Dataset:
        """One object."""
        data, syntax = self.datasets[uid]
        uid_of = pydicom.uid.UID(syntax)
        found = decode(io.BytesIO(data), uid_of.is_implicit_VR, uid_of.is_little_endian)
        found.file_meta = pydicom.dataset.FileMetaDataset()
        found.file_meta.TransferSyntaxUID = uid_of
        return found

    @contextlib.contextmanager
    def open(self) -> Iterator[Pacs]:
        """Answer as long as the block lasts."""
        ae = AE(self.ae_title)
        ae.require_called_aet = True
        ae.maximum_pdu_size = 131072
        for context in _STORAGE_CLASSES.values():
            ae.add_supported_context(context, list(self.syntaxes))
        ae.add_supported_context("1.2.840.10008.1.1")
        server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, happened: evt.Event) -> int:
        uid = str(happened.request.AffectedSOPInstanceUID)
        data = happened.request.DataSet.getvalue()
        with self._lock:
            status = self.answer(uid, self.asked)
            self.asked += 1
            if status == 0x0000:
                self.got.append((uid, digest_of(data)))
                self.datasets[uid] = (data, str(happened.context.transfer_syntax))
        return status


# --- the sender


@dataclass
class Scanner:
    """A C-STORE SCU: sends again what was not acknowledged, on a new association, as real ones do."""

    port: int
    ae_title: str = "CT01"
    acknowledged: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID → digest of the dataset, for each status 0x0000 that came."""

    def send(self, files: Sequence[Path], seconds: float = 100.0, pause: float = 0.0) -> None:
        """Send all of *files*; fail the test when that takes longer than *seconds*."""
        datasets = [pydicom.dcmread(path) for path in files]
        until = time.monotonic() + seconds
        waiting = list(datasets)
        while waiting:
            if time.monotonic() > until:
                pytest.fail(f"{len(waiting)} objects were not acknowledged within {seconds:g} s")
            waiting = self._once(waiting, pause)
            if waiting:
                time.sleep(0.2)

    def try_once(self, files: Sequence[Path]) -> None:
        """One association, whatever comes of it."""
        self._once([pydicom.dcmread(path) for path in files], 0.0)

    def _once(self, datasets: Sequence[Dataset], pause: float) -> list[Dataset]:
        """One association; what was not acknowledged on it."""
        ae = AE(self.ae_title)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 5, 20, 30, 30
        for sop_class, syntax in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets}:
            ae.add_requested_context(sop_class, syntax)
        assoc = ae.associate("127.0.0.1", self.port, ae_title="PACSNODE")
        peers.keep_answers(assoc)
        left = list(datasets)
        while left and assoc.is_established:
            ds = left[0]
            try:
                status = assoc.send_c_store(ds)
            except (RuntimeError, ValueError):  # the association ended in between
                break
            if "Status" not in status:
                break
            if status.Status == 0x0000:
                syntax = ds.file_meta.TransferSyntaxUID
                data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian)
                assert data is not None
                self.acknowledged[str(ds.SOPInstanceUID)] = digest_of(data)
                left.pop(0)
            elif status.Status & 0xFF00 != 0xA700:
                pytest.fail(f"C-STORE was answered with {status.Status:04X}")
            else:
                break
            if pause:
                time.sleep(pause)
        if assoc.is_established:
            assoc.release()
        return left


# --- the node


@dataclass
class House:
    """A site: a folder with node.yaml and rules, and the processes of the node that serves it."""

    folder: Path
    port: int
    pacs_port: int
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _watched: Database | None = field(default=None, repr=False)
    """The tables of the node that runs, held open: what waits for it looks often."""

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What all roles logged, over all starts."""
        return self.folder / "node.log"

    # --- life

    def start(self, **environ: str) -> None:
        """Start the node; returns when it listens."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "--config", str(self.folder / "node.yaml"), "run"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **self.environ, **environ},
            )  # fmt: skip
        peers.wait_listening(self.process, self.port, self.log)

    def verb(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """`pacsnode --config SITE …`, as a process of its own beside the node."""
        return subprocess.run(
            [sys.executable, "-m", "node.cli", "--config", str(self.folder / "node.yaml"), *arguments],
            capture_output=True, text=True, check=False, env={**os.environ, **self.environ, **environ},
        )  # fmt: skip

    def stop(self) -> None:
        """SIGTERM, and the node must end well by itself."""
        self._look_away()
        if self.process is not None:
            process, self.process = self.process, None
            process.terminate()
            try:
                code = process.wait(90)
            except subprocess.TimeoutExpired:
                self._kill_all(process.pid)
                pytest.fail(f"the node did not stop within 90 s: {self.tail()}")
            assert code == 0, f"the node ended with {code}: {self.tail()}"

    def kill_all(self) -> None:
        """SIGKILL every process of the node in one go, as a power cut would."""
        self._look_away()
        if self.process is not None:
            process, self.process = self.process, None
            self._kill_all(process.pid)
            process.wait()

    @staticmethod
    def _kill_all(pid: int) -> None:
        for found in (pid, *descendants(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found, signal.SIGKILL)

    def pids(self, role: str) -> list[int]:
        """The processes of one role, or [the supervisor]."""
        if self.process is None:
            return []
        if role == "supervisor":
            return [self.process.pid]
        wanted = _ROLES[role].encode()
        return [pid for pid in descendants(self.process.pid) if wanted in _command(pid)]

    def kill(self, role: str) -> bool:
        """SIGKILL one process of *role*; False where there was none."""
        for pid in self.pids(role):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    # --- what it says

    def database(self) -> Database:
        """The node's tables."""
        return open_database("sqlite", self.data, create=False)

    def table(self, name: str, /, **equal: Any) -> list[Mapping[str, Any]]:
        """All rows of a table, those only where the columns equal what is given."""
        statement = select(TABLES[name]).order_by(TABLES[name].c.id)
        for column, value in equal.items():
            statement = statement.where(TABLES[name].c[column] == value)
        with self._read() as tx:
            return rows(tx, statement)

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        """A look into the tables; those of a node that does not run are opened for it alone."""
        if self.process is None:
            database = self.database()
            try:
                with database.read() as tx:
                    yield tx
            finally:
                database.close()
        else:
            self._watched = self._watched or self.database()
            with self._watched.read() as tx:
                yield tx

    def _look_away(self) -> None:
        if self._watched is not None:
            self._watched.close()
            self._watched = None

    def hurry(self, *only: str) -> None:
        """Let every delivery that waits for its next attempt have it now, or those only to these destinations."""
        where = delivery.c.state == "waiting"
        self._set(delivery, where & delivery.c.destination.in_(only) if only else where, "due_at")

    def ask_now(self) -> None:
        """Have every destination that is down asked, or tried, now."""
        self._set(destination, destination.c.down, "next_at")

    def _set(self, table: Any, where: Any, column: str) -> None:
        database = self.database()
        try:
            with database.write() as tx:
                tx.execute(update(table).where(where).values({column: datetime.now(UTC)}))
        finally:
            database.close()

    def overview(self) -> dict[str, Any]:
        """Counts by state and destinations."""
        with self._read() as tx:
            return standing.overview(tx)

    def instances(self) -> int:
        """How many received objects are indexed, whatever became of them."""
        return len(self.table("instance"))

    def idle(self) -> bool:
        """Everything that lies in the folder is indexed, and nothing is under way."""
        with self._read() as tx:
            if not standing.is_idle(tx):
                return False
        known = {(row["receiver_run"], row["sequence"]) for row in self.table("instance")}
        lying = {(int(p.parts[-3]), int(p.stem)) for p in (self.data / "objects").glob("*/*/*.dcm")}
        return lying <= known

    def wait_idle(self, seconds: float = 100.0) -> None:
        """Wait until nothing is left to do and nobody is doing it, twice in a row; fail with what still is.

        One step may have ended in the tables while the next has yet to begin: on a busy machine for long.
        """
        until = time.monotonic() + seconds
        calm = 0
        while calm < 2:
            calm = calm + 1 if self.idle() and not self._at_work() else 0
            if time.monotonic() > until:
                pytest.fail(f"the node was not idle after {seconds:g} s: {self.state()}\n{self.tail()}")
            time.sleep(0.05)

    def _at_work(self) -> bool:
        """Whether a process that moves what is under way runs, wants to, or waits for the disk."""
        below = descendants(self.process.pid) if self.process else []
        return any(_state(pid) in "RD" for pid in below if any(role in _command(pid) for role in _MOVERS))

    def wait_for(self, ready: Callable[[], bool], what: str, seconds: float = 100.0) -> None:
        """Wait until *ready*; fail with *what*, the tables and the log."""
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                pytest.fail(f"{what} took longer than {seconds:g} s: {self.state()}\n{self.tail()}")
            time.sleep(0.05)

    def state(self) -> str:
        """The tables in short."""
        found = self.overview()
        reasons = [row["reason"] for row in self.table("run") if row["state"] != "done"]
        return json.dumps({**found, "reasons": reasons}, default=str)

    def tail(self, most: int = 3000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-most:] if self.log.exists() else ""


@contextlib.contextmanager
def house(
    folder: Path,
    rules: Mapping[str, str],
    *,
    pacs_port: int | None = None,
    port: int | None = None,
    extra: str = "",
    environ: Mapping[str, str] | None = None,
    destinations: str = "",
    quiet_for: str = "",
) -> Iterator[House]:
    """A site in *folder*; what of its node is left at the end of the block is killed.

    *extra* is added to the site file, *destinations* to its peers (indented by two). An association is a series, so
    that a slow machine's pause between two images does not cut it in two; a quiet time ends what came by several
    or by one that broke, or every series where *quiet_for* is given.
    """
    seal = f"quiet_for: {quiet_for}" if quiet_for else "on_release: yes, settle: 300 ms, quiet_for: 2 s"
    folder.mkdir(parents=True, exist_ok=True)
    port, pacs_port = port or peers.free_port(), pacs_port or peers.free_port()
    (folder / "rules").mkdir()
    for name, text in rules.items():
        (folder / "rules" / f"{name}.yaml").write_text(text)
    (folder / "node.yaml").write_text(
        f"""
node:
  ae_titles: [PACSNODE]
  listen: 127.0.0.1:{port}
  timezone: Europe/Berlin
  data: data
  rules: rules
  durability: power
  receivers: 1
peers:
  CT01: {{sends_as: [CT01]}}
  PACS: {{ae_title: PACS, address: 127.0.0.1:{pacs_port}, sends_as: [PACS]}}
{destinations}
seal:
  - {{{seal}}}
disk: {{warn: 97 %, stop_processing: 98 %, refuse: 99 %}}
{extra}
"""
    )
    made = House(folder, port, pacs_port, dict(environ or {}))
    try:
        yield made
    finally:
        made.kill_all()


def descendants(pid: int) -> list[int]:
    """All processes below *pid*, parents first."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                below.setdefault(parent, []).append(int(entry.name))
    found, look = [], [pid]
    while look:
        children = below.get(look.pop(0), [])
        found += children
        look += children
    return found


def _state(pid: int) -> str:
    """Running or runnable (R), asleep (S), waiting for the disk (D) … as proc(5) says it; gone: a blank."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return " "


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# --- what is sent


def ball(folder: Path, name: str = "ball", slices: int = 8) -> list[Path]:
    """A small CT series of a ball of 40 HU in air; same name, same bytes."""
    volume: Volume = sphere_volume(Grid((slices, 24, 24), (3.0, 2.0, 2.0)), radius=9.0, inside=40.0)
    return write_ct_series(folder / name, volume, series=Series(name))


def storm_series(folder: Path, count: int) -> list[list[Path]]:
    """Write *count* small series; same count, same bytes."""
    return [ball(folder, f"ball-{number}", slices=6 + number % 4) for number in range(count)]


def changed(path: Path, target: Path, change: Callable[[Dataset], None]) -> Path:
    """A copy of one object with *change* applied to its dataset."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    target.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(target)
    return target


def fresh_uids(files: Iterable[Path], folder: Path) -> list[Path]:
    """Copies under a new Study, Series and SOP Instance UIDs."""
    study, of_series = generate_uid(), generate_uid()

    def change(ds: Dataset) -> None:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, of_series, generate_uid()

    return [changed(path, folder / path.name, change) for path in files]


# --- the claims


def assert_delivered(scanner: Scanner, pacs: Pacs) -> None:
    """Every acknowledged object is at the PACS, byte-equal, and nothing came as twins."""
    held = pacs.held
    missing = [uid for uid in scanner.acknowledged if uid not in held]
    assert not missing, (
        f"{len(missing)} of {len(scanner.acknowledged)} acknowledged objects are not at the PACS"
    )
    for uid, digest in scanner.acknowledged.items():
        assert held[uid] == {digest}, f"{uid} reached the PACS with other bytes"
    twins = {uid: digests for uid, digests in held.items() if len(digests) > 1}
    assert not twins, f"different bytes came under one SOP Instance UID: {twins}"


def derived(scanner: Scanner, pacs: Pacs) -> set[str]:
    """The SOP Instance UIDs at the PACS that nobody sent to the node."""
    return set(pacs.held) - set(scanner.acknowledged)


def made_undisturbed(folder: Path, sent: Sequence[list[Path]]) -> dict[str, list[str]]:
    """What a node that nobody kills makes of these series: folder of the series → SOP Instance UIDs."""
    rules = {"all": ROUTE_ALL, "measure": MEASURE_CT}
    folders = {str(pydicom.dcmread(files[0]).SeriesInstanceUID): files[0].parent.name for files in sent}
    with house(folder / "site", rules) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        for files in sent:
            scanner.send(files)
        site.wait_idle(100 + 5 * len(folders))
        site.stop()
        assert_delivered(scanner, pacs)
        assert all(pacs.times(uid) == 1 for uid in pacs.held), "an undisturbed node sends each object once"
        found: dict[str, list[str]] = {}
        for row in site.table("run"):
            (of,) = site.table("series", id=row["series_id"])
            products = site.table("product", run_id=row["id"])
            found[folders[of["series_uid"]]] = [product["sop_uid"] for product in products]
        assert derived(scanner, pacs) == {uid for uids in found.values() for uid in uids}
    return found
