"""`bench receive`: the same load on PACSNode and on its peers, in turn, with what disk and loopback allow."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.bench import budget, material, peers, stations, tell
from node.bench.budget import BIG, CT, CT4, DISK, EACH, EACH4, MR, MR4, NAGLE
from node.bench.load import Job
from node.bench.loading import Burst, Load, keeping, loading
from node.bench.peers import SENDER, Spent
from node.bench.stations import FORK, ORTHANC, POWER, PROCESS, PYNETDICOM, SINK, STORESCP, Start, Station
from node.bench.tell import Row
from node.errors import Broken
from node.store.database import file_system_of

_LONG = 1.0
"""Seconds that a round should take; fast ways get burst after burst, slow ones fewer objects."""
_BURSTS, _FEW = 6, 10
"""At most, and objects at least."""
_WARM = 20
"""Objects before the clock starts."""
_INDEXED_WITHIN = 120.0
_ROOM = 0.8
"""The share of the free disk that may be used."""
_DISK_CASES = (CT, MR, CT4, MR4)
_ONE_AT_A_TIME = (POWER, PROCESS, STORESCP, ORTHANC, PYNETDICOM, SINK)
_SEVERAL = (POWER, PROCESS, FORK, ORTHANC, PYNETDICOM, SINK)
_BOTH = (POWER, PROCESS, STORESCP, FORK, ORTHANC, PYNETDICOM, SINK)
_STREAMING = (POWER, PROCESS, STORESCP, SINK)
"""Those that are known not to hold a whole object in memory."""


@dataclass(frozen=True)
class Case:
    """What is sent, and how."""

    name: str
    folders: tuple[Path, ...]
    """One for each association."""
    count: int
    """Objects of a burst in all."""
    size: int
    """Bytes of these."""
    ways: Sequence[str]
    nagle: bool = False
    one_each: bool = False
    big: int = 0
    once: Sequence[str] = (PYNETDICOM,)
    """Ways that are asked for one round only."""

    @property
    def few(self) -> bool:
        """No burst as a scanner makes one: the association or the sender is what is looked at."""
        return self.nagle or self.one_each


CASES = {"ct1": CT, "mr1": MR, "ct4": CT4, "mr4": MR4, "nagle": NAGLE, "each1": EACH, "each4": EACH4}


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    ct: int
    mr: int
    only: Sequence[str] = tuple(CASES)
    durability: Sequence[str] = ("power", "process")
    folder: Path | None = None
    """Where everything is written; None = the folder for temporary files."""
    big: int = 0
    """Frames of 512 kB of one more object; 0 = none."""


@dataclass
class _Found:
    """What has been measured so far."""

    settings: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    lags: dict[tuple[str, str], list[float]] = field(default_factory=dict)


def measure(asked: Asked, say: tell.Say) -> tell.Report:
    """Measure every receiver that is installed. Raises Broken where ours fails."""
    ways, missing = stations.installed(associations=4)
    for name in {POWER, PROCESS} - {f"PACSNode, {one}" for one in asked.durability}:
        del ways[name]
    found = _Found(stations.settings())
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-", dir=asked.folder) as name:
        folder = Path(name)
        found.settings["the disk"] = _disk(folder)
        say("writing the objects")
        cases = _cases(folder / "material", asked)
        _check_room(folder, cases, asked.rounds)
        for case in cases:
            _case(case, folder / case.name, ways, asked.rounds, say, found)
        say("removing what was received")
    rates = budget.Rates(found.rows)
    answered = [
        budget.indexed(case, way, _count(found.rows, case), lags) for (case, way), lags in found.lags.items()
    ]
    found.settings["the sender"] = (
        "the bench's own, a process per association, its PDUs made before the clock starts, TCP_NODELAY on; where "
        "Nagle's algorithm is on it writes as DCMTK's storescu does; the last column is how busy it was, 1 = one core"
    )
    how = f"median of {asked.rounds} interleaved rounds"
    return tell.Report(
        "receive", how, STORESCP, found.rows, found.settings, missing, answered, budget.columns(rates),
        budget.verdicts(rates, answered),
    )  # fmt: skip


def _count(rows: Sequence[Row], case: str) -> int:
    return next(row.count for row in rows if row.case == case)


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    return f"{file_system_of(folder)} at {folder.parent}, {free / 1e9:.0f} GB free; all receivers write to it"


def _cases(folder: Path, asked: Asked) -> list[Case]:
    """Write what is sent: for four associations a series each, the first of which is long enough for one."""
    wanted = [CASES[name] for name in asked.only]
    cases = []
    for letter, count, one, four in (("ct", asked.ct, CT, CT4), ("mr", asked.mr, MR, MR4)):
        write = material.write_ct if letter == "ct" else material.write_mr
        mine = [name for name in wanted if name.startswith(one)]
        several = any(name in (four, EACH4) for name in mine)
        folders = []
        for number in range(4 if several else min(1, len(mine))):
            paths = write(
                folder / f"{letter}{number}", -(-count // 4) if number else count, f"{letter}{number}"
            )
            folders.append(paths[0].parent)
            size = sum(path.stat().st_size for path in paths) // len(paths)
        cases += [_of(name, folders, count, size) for name in mine]
    if asked.big:
        size = material.write_big_head(folder / "big", asked.big)
        name = f"{BIG} of {size / 1e9:.2g} GB"
        cases.append(Case(name, (folder / "big",), 1, size, _STREAMING, big=size, once=_STREAMING))
    return cases


def _of(name: str, folders: Sequence[Path], count: int, size: int) -> Case:
    """The case of that name; fewer objects where each needs an association."""
    several, one_each, nagle = name in (CT4, MR4, EACH4), name in (EACH, EACH4), name == NAGLE
    some = max(4, count // 4) if one_each or nagle else count
    ways = _BOTH if name == EACH else _SEVERAL if several else _ONE_AT_A_TIME
    once = (PYNETDICOM, STORESCP, ORTHANC) if nagle else (PYNETDICOM,)
    chosen = tuple(folders) if several else tuple(folders[:1])
    return Case(name, chosen, some, some * size, ways, nagle, one_each, once=once)


def _check_room(folder: Path, cases: Sequence[Case], rounds: int) -> None:
    """Raise Broken where the disk is too small: what earlier rounds wrote is kept to the end.

    ext4 creates files slowly in a tree of which thousands have just been removed, which would be measured.
    """
    need = sum(
        case.size * _rounds(case, way, rounds) * 2
        for case in cases
        for way in (*case.ways, DISK)
        if way != SINK
    )
    free = shutil.disk_usage(folder).free
    if need > free * _ROOM:
        raise Broken(
            f"{free / 1e9:.0f} GB are free at {folder.parent}, and this may need {need / 1e9:.0f} GB; ask for fewer "
            "--rounds or objects (--ct, --mr), or name a folder on another disk with --dir"
        )


def _rounds(case: Case, way: str, rounds: int) -> int:
    return 1 if way in case.once else rounds


def _case(
    case: Case, folder: Path, ways: Mapping[str, Start], rounds: int, say: tell.Say, found: _Found
) -> None:
    """Every way in turn; a peer that fails is said to have, and keeps the rounds it had. Raises Broken for ours."""
    rows = {way: Row(case.name, way, case.count, case.size) for way in case.ways if way in ways}
    if case.name in _DISK_CASES:
        rows[DISK] = Row(case.name, DISK, case.count, case.size)
    over: set[str] = set()
    for number in range(1, rounds + 1):
        for way, row in rows.items():
            if way in over or number > _rounds(case, way, rounds):
                continue
            say(f"{case.name}, round {number} of {rounds}: {way}")
            place = folder / f"{number} {way.replace('/', '')}"
            place.mkdir(parents=True)
            try:
                spent, lags = _one(case, place, ways.get(way))
            except Broken as error:
                if way in (POWER, PROCESS, SINK, DISK):
                    raise
                over.add(way)
                found.settings[f"{way}, {case.name}"] = f"failed in round {number}: {error}"
                continue
            row.spent.append(spent)
            if lags:
                found.lags.setdefault((case.name, way), []).extend(lags)
    found.rows += [row for row in rows.values() if row.spent]


def _one(case: Case, place: Path, start: Start | None) -> tuple[Spent, list[float]]:
    """One round of one way; the bare disk where there is nothing to start."""
    os.sync()  # what others have written is not to be waited for in this round
    if start is None:
        first = min(case.folders[0].iterdir())
        with keeping(str(place / "kept"), str(first), len(case.folders)) as load:
            return _Round(case, load, None).run(), []
    with start(place) as station, loading(_jobs(case, station.port)) as load:
        one = _Round(case, load, station)
        spent = one.run()
        load.end()
        kept = station.kept()
        if kept not in (-1, one.acknowledged):
            raise Broken(f"{one.acknowledged} objects were acknowledged, and {kept} are kept")
        return spent, one.lags


def _jobs(case: Case, port: int) -> list[Job]:
    share = -(-case.count // len(case.folders))
    return [
        Job(port, stations.CALLED, SENDER, str(folder), share, case.nagle, case.one_each, case.big)
        for folder in case.folders
    ]


class _Round:
    """Burst after burst, until there is enough to tell the rate."""

    def __init__(self, case: Case, load: Load, station: Station | None) -> None:
        self._case = case
        self._load = load
        self._station = station
        self._memory = self._lane_memory = 0
        self.acknowledged = 0
        """Of the warm-up, too."""
        self.lags: list[float] = []
        """From the last acknowledgement of each whole burst until all was indexed."""

    def run(self) -> Spent:
        """Warm up, then measure."""
        rate = self._warm_up()
        seconds, sender, objects = 0.0, 0.0, 0
        before = _cpu(self._station)
        for _ in range(_BURSTS):
            burst = self._burst(self._count(rate, seconds))
            seconds, sender, objects = (
                seconds + burst.seconds,
                sender + burst.cpu,
                objects + burst.acknowledged,
            )
            rate = objects / seconds
            if seconds >= _LONG * 0.9 or self._case.big:
                break
        if self._station is None:
            return Spent(seconds, sender, objects=objects)
        cpu, lane = (after - at for after, at in zip(_cpu(self._station), before, strict=True))
        return Spent(seconds, cpu, self._memory, objects, lane, self._lane_memory, sender)

    def _warm_up(self) -> float:
        """Return about how many objects a second it takes."""
        if self._case.big or self._station is None:
            return float("inf")
        self._burst(len(self._case.folders))
        count = min(self._case.count, max(_WARM, 2 * len(self._case.folders)))
        warm = self._burst(count)
        self.lags.clear()
        return count / warm.seconds

    def _burst(self, count: int) -> Burst:
        burst, station = self._load.burst(count), self._station
        self.acknowledged += burst.acknowledged
        if station is not None:
            peaks = _memory(station)
            self._memory, self._lane_memory = max(self._memory, peaks[0]), max(self._lane_memory, peaks[1])
            known = station.wait_indexed(self.acknowledged, _INDEXED_WITHIN)
            if station.indexed is not None and count == self._case.count and not self._case.few:
                self.lags.append(known - burst.ended)
        return burst

    def _count(self, rate: float, seconds: float) -> int:
        """How many objects now: what fits into the rest of the round; a node's bursts are whole where they count."""
        case = self._case
        whole = self._station is not None and self._station.indexed is not None and not case.few
        if case.big or whole or rate == float("inf"):
            return case.count
        return min(case.count, max(_FEW, int(rate * (_LONG - seconds))))


def _cpu(station: Station | None) -> tuple[float, float]:
    """CPU seconds of a receiver's whole tree, and of the processes that hold its connections."""
    if station is None:
        return 0.0, 0.0
    family = peers.family_of(station.pid).values()
    lane = sum(cpu for cpu, words in family if station.lane and station.lane in words)
    return sum(cpu for cpu, _ in family), lane


def _memory(station: Station) -> tuple[int, int]:
    """Peaks of all its living processes added up, and the highest of one that holds connections."""
    family = peers.family_of(station.pid)
    peaks = {pid: peers.memory_of(pid) for pid in family}
    lane = [peaks[pid] for pid, (_, words) in family.items() if station.lane and station.lane in words]
    return sum(peaks.values()), max(lane, default=0)
