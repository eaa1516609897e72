"""`bench turnaround`: from the scanner's first byte to the last object, or the result, at the PACS; and operators."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from node.bench import material, operating, peers, tell
from node.bench.counting import Counter, counting
from node.bench.peers import PACS, SENDER, Spent
from node.bench.tell import Answered, Report, Row
from node.demo import site
from node.errors import Broken
from node.send import scu
from node.send.negotiation import configure
from node.send.protocol import Destination, Result

NETWORK = "network"
"""What `only` calls all that is no operator."""
SETTLE = 1.0
"""Seconds after the release in which more may come; not part of what is measured."""
_WARM_UP = 5
_WITHIN = 120.0
"""Seconds for one series; Orthanc forwards some 50 slices a second."""
_ORTHANC, _NAGLE = "Orthanc", "Orthanc, Nagle on"

_SITE = """\
node:
  ae_titles: [{called}]
  listen: 127.0.0.1:{port}
  timezone: UTC
  data: ./data
  rules: ./rules
  durability: {durability}
peers:
  SCANNER: {{sends_as: [{sender}], seal: {{on_release: yes, settle: {settle:g} s, quiet_for: 60 s}}}}
  PACS: {{ae_title: {pacs}, address: 127.0.0.1:{pacs_port}, sends_as: [NOBODY]}}
"""
_ROUTE = """\
rule: bench-route
purpose: Everything goes to the PACS as it comes.
owner: bench@localhost
when: {Modality: {present: yes}}
send:
  - {what: received, to: PACS}
"""
_REFORMAT = """\
rule: bench-reformat
purpose: Thick axials of every MR.
owner: bench@localhost
when: {Modality: MR}
do:
  - reformat: {plane: axial, thickness: 10 mm, every: 10 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: PACS}
"""


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    slices: int
    ct: int = 0
    pet: int = 0
    mr: int = 0
    """Slices that operators work on; 0 leaves them out."""
    only: Sequence[str] = ()
    """Operators' cases, or the network; empty is all."""


@dataclass(frozen=True)
class Station:
    """What receives and forwards: where it listens, and its process."""

    called: str
    port: int
    pid: int


Start = Callable[[Path, int], AbstractContextManager[Station]]


def measure(asked: Asked, say: tell.Say) -> Report:
    """Measure forwarding, the result of a rule, and operators; of these *asked.only*. Raises Broken without DCMTK."""
    if NETWORK in asked.only or not asked.only:
        found = _network(asked, say)
    else:
        found = Report(
            "turnaround", f"operators, the best of {asked.rounds} interleaved rounds", "", [], {}, ()
        )
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        told = operating.measure(
            Path(name), operating.Asked(asked.rounds, asked.ct, asked.pet, asked.mr, asked.only), say
        )
    if not told.answered:
        return found
    settings = {**found.settings, "the operators": operating.HOW}
    answered = [*found.answered, *told.answered]
    return replace(found, answered=answered, verdicts=told.verdicts, settings=settings)


def _network(asked: Asked, say: tell.Say) -> Report:
    """Forwarding by the node and by Orthanc, then the result of a rule."""
    storescu = peers.program("storescu")
    if storescu is None:
        raise Broken(
            "DCMTK's storescu, which sends to the node and to Orthanc, is not installed; install dcmtk"
        )
    ways: dict[str, Start] = {
        "PACSNode, power": lambda folder, port: _node(folder, port, _ROUTE, "power"),
        "PACSNode, process": lambda folder, port: _node(folder, port, _ROUTE, "process"),
    }
    missing = []
    if peers.program("Orthanc"):
        ways[_ORTHANC] = lambda folder, port: _orthanc(folder, port, nodelay=True)
        ways[_NAGLE] = lambda folder, port: _orthanc(folder, port, nodelay=False)
    else:
        missing.append(_ORTHANC)
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        say(f"writing {asked.slices} slices")
        series = material.write_ct(folder / "ct", asked.slices)
        material.write_ct(folder / "warm", _WARM_UP, "warm")
        size = sum(path.stat().st_size for path in series)
        rows = {way: Row("CT 512 kB", way, asked.slices, size) for way in ways}
        for number in range(1, asked.rounds + 1):
            for way, start in ways.items():
                say(f"{asked.slices} CT slices through {way}, round {number} of {asked.rounds}")
                rows[way].spent.append(_forward(folder, start, storescu, asked.slices))
        answered = _results(folder, asked.rounds, say)
    settings = {
        "PACSNode": "pacsnode run, one rule that sends what is received to the PACS; durability: power or process",
        _ORTHANC: "OnStoredInstance → SendToModality in Lua, TCP_NODELAY=1, its own defaults otherwise",
        _NAGLE: "the same without TCP_NODELAY, which is how it comes",
        "the sender": f"DCMTK storescu -R --max-send-pdu {peers.MAX_PDU}, TCP_NODELAY=1; its start is counted",
        "the PACS": "a counting storage SCP of the bench; the clock stops when the last object is there whole",
    }
    if missing:
        settings = {name: text for name, text in settings.items() if name not in (_ORTHANC, _NAGLE)}
    how = f"received and forwarded, median of {asked.rounds} interleaved rounds"
    return Report("turnaround", how, _ORTHANC, list(rows.values()), settings, missing, answered)


def _forward(folder: Path, start: Start, storescu: str, slices: int) -> Spent:
    """One round: a fresh station, a short series to warm it up, then the series that counts."""
    with tempfile.TemporaryDirectory(dir=folder) as place, counting() as pacs:
        with start(Path(place), pacs.port) as station:
            peers.storescu(storescu, station.port, folder / "warm", called=station.called)
            _arrived(pacs, _WARM_UP)
            cpu, began = peers.cpu_of(station.pid), time.monotonic()
            peers.storescu(storescu, station.port, folder / "ct", called=station.called)
            _arrived(pacs, _WARM_UP + slices)
            seconds = max(at for at, _ in pacs.came) - began
            spent = Spent(seconds, peers.cpu_of(station.pid) - cpu)
        came = [uid for _, uid in pacs.came]
        if len(set(came)) != len(came):
            raise Broken(f"the PACS got {len(came) - len(set(came))} objects twice")
        return spent


def _arrived(pacs: Counter, count: int) -> None:
    if not pacs.wait(count, _WITHIN):
        raise Broken(f"{len(pacs.came)} of {count} objects were at the PACS after {_WITHIN:g} s")


@contextmanager
def _node(folder: Path, pacs_port: int, rule: str, durability: str) -> Iterator[Station]:
    """A real `pacsnode run` with one rule."""
    work, port = site.Work(folder), site.free_port()
    text = _SITE.format(
        called=site.AE_TITLE, port=port, durability=durability, sender=SENDER, settle=SETTLE, pacs=PACS,
        pacs_port=pacs_port,
    )  # fmt: skip
    work.site_file.write_text(text, encoding="utf-8")
    (folder / "rules").mkdir()
    (folder / "rules" / "bench.yaml").write_text(rule, encoding="utf-8")
    with site.running(work, port) as node:
        site.wait_until_up(node)
        yield Station(site.AE_TITLE, port, node.process.pid)


@contextmanager
def _orthanc(folder: Path, pacs_port: int, nodelay: bool) -> Iterator[Station]:
    with peers.orthanc(folder, pacs_port, forward=True, nodelay=nodelay) as orthanc:
        yield Station("ORTHANC", orthanc.port, orthanc.process.pid)


def _results(folder: Path, rounds: int, say: tell.Say) -> list[Answered]:
    """From the last object's answer to the rule's last result at the PACS, `settle` taken off."""
    configure()
    found: list[float] = []
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        counting() as pacs,
        _node(Path(place), pacs.port, _REFORMAT, "power") as station,
    ):
        say("a first MR series, which shows how many results there are")
        _scan(folder, 0, station)
        _arrived(pacs, 1)
        expected = pacs.quiet(SETTLE)
        for number in range(1, rounds + 1):
            say(f"result of a 20-slice MR, round {number} of {rounds}")
            before = len(pacs.came)
            answered = _scan(folder, number, station)
            _arrived(pacs, before + expected)
            found.append(pacs.came[before + expected - 1][0] - answered - SETTLE)
            time.sleep(0.5)  # what is still to be written down about this one is not part of the next
    what = f"20-slice MR: last object acknowledged → all {expected} results at the PACS, beside settle ({SETTLE:g} s)"
    return [Answered(what, found)]


def _scan(folder: Path, number: int, station: Station) -> float:
    """Send one examination with the node's own sender; returns when its last object was acknowledged."""
    paths = material.write_examination(folder / f"mr{number}", number)
    items = [scu.item_of(path, index) for index, path in enumerate(paths)]
    at: list[float] = []

    def report(result: Result) -> None:
        if result.status != 0:
            raise Broken(f"the node did not take an object: {result.what}")
        at.append(time.monotonic())

    to = Destination("NODE", "127.0.0.1", station.port, station.called, SENDER)
    if lost := scu.send_objects(to, items, report):
        raise Broken(lost)
    return at[-1]
