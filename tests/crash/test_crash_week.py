"""A week of a busy department in compressed time: exact counts, an empty queue, and no study dearer than the first."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import peers
import pydicom
import pytest
from crash.crash_house import House, descendants, digest_of, house
from crash.rogues import Peer
from sqlalchemy import func, select, text

from node.send.protocol import Destination, Item, Kind, Result
from node.send.scu import send_objects
from node.store import standing
from node.store.database import Database
from node.store.schema import delivery, instance, run
from node.testing import Grid, Series, sphere_volume, write_ct_series

DAYS = 7
WEEK = 10_500
"""Studies: 1 500 a day."""
DOWN = 3
"""The day (from 0) on which the research archive is down."""
PROCESSED = 50
"""One study in so many is processed: four slices instead of two or three, smoothed and sent to the PACS."""
SENDERS = ("CT01", "CT02", "CT03")
RULES = {
    "all": """
rule: all
purpose: Everything that is received goes to three systems at once.
owner: tests@hospital.example
when: {}
send:
  - {what: received, to: [PACS, ARCHIVE, RESEARCH]}
""",
    "smooth": """
rule: smooth
purpose: Some are processed.
owner: tests@hospital.example
when: {Modality: CT, slices: {at_least: 4}}
do:
  - smooth: {width: 4 mm}
    as: soft
send:
  - {what: soft, to: PACS}
""",
}
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_OFFSET = 128 + 4
_ROLES = ("conductor", "sender", "receiver", "reader", "upkeep", "worker", "other")


@dataclass
class Mint:
    """Makes studies without end: every object is a template's bytes with UIDs of one length put in."""

    folder: Path

    def __post_init__(self) -> None:
        volume = sphere_volume(Grid((4, 16, 16), (3.0, 2.0, 2.0)), radius=9.0, inside=40.0)
        files = write_ct_series(self.folder / "template", volume, series=Series("week"))
        self.templates = []
        for number, path in enumerate(files):
            ds = pydicom.dcmread(path)
            ds.StudyInstanceUID, ds.SeriesInstanceUID = self._uid(0, 1), self._uid(0, 2)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = self._uid(0, 3 + number)
            ds.PatientID, ds.AccessionNumber = "PAT000000000", "ACC000000000"
            ds.save_as(path)
            self.templates.append(path.read_bytes())

    @staticmethod
    def _uid(study: int, what: int) -> str:
        return f"1.2.826.0.1.3680043.10.9999.1{study:09d}.1{what}"

    def study(self, number: int) -> list[tuple[Path, str, str]]:
        """Write study *number* (from 1); each object's file, SOP Instance UID and digest of its dataset."""
        slices = 4 if number % PROCESSED == 0 else 2 + number % 2
        made = []
        for k, template in enumerate(self.templates[:slices]):
            data = template
            for what in (1, 2, 3 + k):
                data = data.replace(self._uid(0, what).encode(), self._uid(number, what).encode())
            for kind in (b"PAT", b"ACC"):
                data = data.replace(kind + b"000000000", kind + b"%09d" % number)
            path = self.folder / f"{number}-{k}.dcm"
            path.write_bytes(data)
            length = int.from_bytes(data[_OFFSET + 8 : _OFFSET + 12], "little")  # (0002,0000)
            made.append((path, self._uid(number, 3 + k), digest_of(data[_OFFSET + 12 + length :])))
        return made


@dataclass
class Department:
    """The senders, and what the node acknowledged to them."""

    mint: Mint
    port: int
    acknowledged: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID → digest of its dataset."""
    faults: list[BaseException] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, first: int, last: int) -> None:
        """Send studies *first* to *last*, an association each, shared out among the senders."""
        threads = [
            threading.Thread(target=self._guarded, args=(name, range(first + nth, last + 1, len(SENDERS))))
            for nth, name in enumerate(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.faults, self.faults

    def _guarded(self, name: str, numbers: Sequence[int]) -> None:
        try:
            self._send(name, numbers)
        except BaseException as fault:  # noqa: BLE001 - the test fails with it
            self.faults.append(fault)

    def _send(self, name: str, numbers: Sequence[int]) -> None:
        to = Destination("NODE", "127.0.0.1", self.port, "PACSNODE", name)
        for number in numbers:
            made = self.mint.study(number)
            items = [Item(k, 1, str(path), _CLASS, uid, _SYNTAX) for k, (path, uid, _) in enumerate(made)]
            results: list[Result] = []
            error = send_objects(to, items, results.append)
            with self._lock:
                for result in results:
                    if result.kind is Kind.STORED:
                        _, uid, digest = made[result.delivery]
                        self.acknowledged[uid] = digest
            assert error is None and len(results) == len(made), error
            other = [result for result in results if result.kind is not Kind.STORED]
            assert not other, other
            for path, _, _ in made:
                path.unlink()


@dataclass(frozen=True)
class Day:
    """What the node had used, and how large it was, at the end of a day."""

    studies: int
    objects: int
    seconds: float
    cpu: Mapping[str, float]
    """Role → seconds of processor time."""
    memory: Mapping[str, int]
    database: int
    wal: int

    def row(self, before: Day) -> str:
        """One line of the table."""
        objects, studies = max(1, self.objects - before.objects), max(1, self.studies - before.studies)
        spent = {role: 1000 * (self.cpu[role] - before.cpu[role]) / objects for role in self.cpu}
        return (
            f"{studies:7} {objects:7} {objects / (self.seconds - before.seconds):6.0f} {sum(spent.values()):7.2f} "
            + " ".join(f"{spent[role]:5.2f}/{self.memory.get(role, 0) / 1e6:3.0f}" for role in _ROLES)
            + f" {(self.database - before.database) / studies / 1000:8.2f} {self.wal / 1e6:6.1f}"
        )


HEAD = (
    f"studies objects  obj/s      ms {' '.join(f'{role:>9}' for role in _ROLES)} kB/study WAL MB\n"
    "ms: processor time per object, of all processes; of each role beside its memory in MB; kB/study: the tables"
)


def _words(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def used(site: House) -> tuple[dict[str, float], dict[str, int]]:
    """Role → seconds of processor time, also of those of its kind that have ended; role → bytes of memory."""
    assert site.process is not None
    spent, memory = dict.fromkeys(_ROLES, 0.0), dict.fromkeys(_ROLES, 0)
    for pid in (site.process.pid, *descendants(site.process.pid)):
        with contextlib.suppress(OSError):
            words = _words(pid)
            role = next((role for role in _ROLES if f"node.{role} " in words), "other")
            ticks = [int(t) for t in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
            spent[role] += sum(ticks[:2]) / os.sysconf("SC_CLK_TCK")
            spent["worker" if role == "conductor" else "other"] += sum(ticks[2:]) / os.sysconf("SC_CLK_TCK")
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            memory[role] = max(memory[role], size * os.sysconf("SC_PAGE_SIZE"))
    return spent, memory


def measured(site: House, studies: int, objects: int) -> Day:
    """The end of a day."""
    size = {
        name: path.stat().st_size if (path := site.data / name).exists() else 0
        for name in ("pacsnode.db", "pacsnode.db-wal")
    }
    return Day(studies, objects, time.monotonic(), *used(site), size["pacsnode.db"], size["pacsnode.db-wal"])


def done(database: Database, objects: int, but_for: str) -> bool:
    """Everything is taken in, and nothing is under way but to the destination *but_for*."""
    with database.read() as tx:
        if tx.scalar(select(func.count()).select_from(instance)) != objects:
            return False
        if but_for:
            open_runs = run.c.state.in_(("waiting", "running"))
            queued = delivery.c.state.in_(("waiting", "sending")) & (delivery.c.destination != but_for)
            series_open = text("SELECT count(*) FROM series WHERE state IN ('receiving', 'sealed')")
            counts = [tx.scalar(select(func.count()).where(where)) for where in (open_runs, queued)]
            return sum(counts) + tx.scalar(series_open) == 0
        return standing.is_idle(tx)


@contextlib.contextmanager
def three(ports: Sequence[int]) -> Iterator[list[Peer]]:
    """The PACS, the archive and, not open yet, the research archive."""
    made = [Peer(port) for port in ports]
    with made[0].open(), made[1].open():
        yield made


def week(folder: Path, studies: int) -> tuple[list[Day], list[str]]:
    """Send so many studies in seven days; the days, with the state at the start in front, and the table's lines."""
    ports = [peers.free_port() for _ in range(3)]
    others = f"""
  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{ports[1]}, associations: 2}}
  RESEARCH: {{ae_title: RESEARCH, address: 127.0.0.1:{ports[2]}}}
  CT02: {{sends_as: [CT02]}}
  CT03: {{sends_as: [CT03]}}
"""
    a_day = studies // DAYS
    with house(folder / "site", RULES, pacs_port=ports[0], destinations=others) as site, three(ports) as to:
        site.start()
        pacs, archive, research = to
        department = Department(Mint(folder), site.port)
        database = site.database()
        days = [measured(site, 0, 0)]
        try:
            for day in range(DAYS):
                with research.open() if day != DOWN else contextlib.nullcontext():
                    department.work(day * a_day + 1, (day + 1) * a_day)
                    objects, but_for = len(department.acknowledged), "RESEARCH" if day == DOWN else ""
                    what = f"day {day + 1} of {objects} objects"
                    site.wait_for(lambda o=objects, b=but_for: done(database, o, b), what, 120 + a_day)
                days.append(measured(site, (day + 1) * a_day, len(department.acknowledged)))
            with database.read() as tx:
                states = set(tx.scalars(select(delivery.c.state).distinct()))
                results = set(tx.execute(text("SELECT sop_uid FROM product")).scalars())
                runs = dict(tx.execute(select(run.c.state, func.count()).group_by(run.c.state)).all())
        finally:
            database.close()
        assert states == {"stored"}, states
        expected = {uid: {digest} for uid, digest in department.acknowledged.items()}
        for peer in (archive, research):
            assert peer.held == expected
        assert {uid: digests for uid, digests in pacs.held.items() if uid in expected} == expected
        assert set(pacs.held) - set(expected) == results
        assert runs == ({"done": studies // PROCESSED} if studies >= PROCESSED else {}), runs
        again = sum(len(peer.got) - len(peer.held) for peer in to)
        site.stop()
    lines = [HEAD, *(after.row(before) for before, after in itertools.pairwise(days))]
    lines.append(f"{len(department.acknowledged)} objects to three destinations, {again} of them sent twice")
    return days, lines


def cost(days: Sequence[Day], day: int) -> float:
    """Processor seconds per object on a day (from 1)."""
    before, after = days[day - 1], days[day]
    return sum(after.cpu[role] - before.cpu[role] for role in after.cpu) / (after.objects - before.objects)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_small_week(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """350 studies in seven days, three systems, one of them down for a day: every object is where it belongs."""
    _, lines = week(tmp_path, 350)
    table("a small week", lines)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_busy_week(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """10 500 studies (PACSNODE_STUDIES) in seven days: exact, drained, and the last day costs what the first did."""
    days, lines = week(tmp_path, int(os.environ.get("PACSNODE_STUDIES", WEEK)))
    first, last = cost(days, 1), cost(days, DAYS)
    lines.append(f"processor time per object: last day {last / first:.2f} x the first")
    table("a busy week", lines)
    assert last <= 1.2 * first, lines
