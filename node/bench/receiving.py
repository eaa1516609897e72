"""`bench receive`: the same load on PACSNode and on its peers, in turn, with what disk and loopback allow."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from node.bench import budget, peers, stations, tell
from node.bench.budget import DISK
from node.bench.cases import Asked, Case, cases_of, check_room
from node.bench.rounds import disk_round, one_round
from node.bench.stations import POWER, PROCESS, SINK, STORESCP, Start, Station
from node.bench.tell import Row
from node.errors import Broken
from node.store.database import file_system_of

_CALM, _CALM_WITHIN = 0.05, 30.0
"""CPU seconds within half a second that count as nothing to do; and how long to wait for that."""


@dataclass
class _Found:
    """What has been measured so far, by case and way."""

    settings: dict[str, str]
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    lags: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    over: set[tuple[str, str]] = field(default_factory=set)
    """What is not asked again, since it failed."""

    def fail(self, case: str, way: str, number: int, error: Exception) -> None:
        """Say so. Raises the error again where it is one of ours."""
        if way in (POWER, PROCESS, SINK, DISK):
            raise error
        self.over.add((case, way))
        self.settings[f"{way}, {case}"] = f"failed in round {number}: {error}"


def measure(asked: Asked, say: tell.Say) -> tell.Report:
    """Measure every receiver that is installed. Raises Broken where ours fails."""
    ways, missing = stations.installed(associations=4, receivers=asked.receivers)
    for name in {POWER, PROCESS} - {f"PACSNode, {one}" for one in asked.durability}:
        del ways[name]
    found = _Found(stations.settings())
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-", dir=asked.folder) as name:
        folder = Path(name)
        found.settings["the disk"] = _disk(folder)
        say("writing the objects")
        cases = cases_of(folder / "material", asked)
        check_room(folder, cases, asked.rounds)
        for case in cases:
            for way in (*case.ways, *([DISK] if case.durable else [])):
                found.rows[case.name, way] = Row(case.name, way, case.count, case.size)
        for number in range(1, asked.rounds + 1):
            _round(cases, ways, folder / str(number), (number, asked.rounds), say, found)
        say("removing what was received")
    rows = [row for row in found.rows.values() if row.spent]
    rates = budget.Rates(rows)
    answered = [
        budget.indexed(case, way, found.rows[case, way].count, lags)
        for (case, way), lags in found.lags.items()
    ]
    found.settings.update(_explained(rows))
    how = f"median of {asked.rounds} interleaved rounds"
    return tell.Report(
        "receive", how, STORESCP, rows, found.settings, missing, answered, budget.columns(rates),
        budget.verdicts(rates, found.lags),
    )  # fmt: skip


def _round(
    cases: Sequence[Case], ways: Mapping[str, Start], folder: Path, number: tuple[int, int], say: tell.Say,
    found: _Found,
) -> None:  # fmt: skip
    """Start every receiver, then take them in turn, case by case: what is compared lies seconds apart."""
    said = "round {} of {}".format(*number)
    turns = [
        (case, way)
        for case in cases
        for way in (*case.ways, DISK)
        if (case.name, way) in found.rows and number[0] <= case.rounds_of(way, number[1])
    ]
    with ExitStack() as stack:
        say(f"{said}: starting the receivers")
        running: dict[str, Station] = {}
        for way in {way: None for _, way in turns if way in ways}:
            place = folder / way
            place.mkdir(parents=True)
            try:
                running[way] = stack.enter_context(ways[way](place))
            except (Broken, OSError) as error:
                found.fail("start", way, number[0], error)
        _wait_until_calm(running.values())
        for case, way in turns:
            if (way in running or way == DISK) and (case.name, way) not in found.over:
                say(f"{said}, {case.name}: {way}")
                _turn(case, way, running.get(way), folder, number[0], found)


def _turn(
    case: Case, way: str, station: Station | None, folder: Path, number: int, found: _Found
) -> None:  # fmt: skip
    lags: list[float] = []
    try:
        if station is None:
            spent = disk_round(case, folder / f"{way} {case.name}")
        else:
            spent, lags = one_round(case, station)
    except (Broken, OSError) as error:
        found.fail(case.name, way, number, error)
        return
    found.rows[case.name, way].spent.append(spent)
    if lags:
        found.lags.setdefault((case.name, way), []).extend(lags)


def _wait_until_calm(running: Iterable[Station]) -> None:
    """A receiver that listens may still be starting what it needs later; that is not what is measured."""
    pids = [station.pid for station in running]
    end, before = time.monotonic() + _CALM_WITHIN, -1.0
    while (now := sum(map(peers.cpu_of, pids))) - before > _CALM and time.monotonic() < end:
        before = now
        time.sleep(0.5)


def _explained(rows: Sequence[Row]) -> dict[str, str]:
    lanes = max((one.lanes for row in rows for one in row.spent), default=0)
    return {
        "the sender": "the bench's own, a process per association, its PDUs made before the clock starts, TCP_NODELAY "
        "on; where Nagle's algorithm is on it writes as DCMTK's storescu does, each header by itself; its column is "
        "how busy it was, 1 = one core",
        "× DCMTK": "storescp where one association comes, storescp --fork where four do, or one for each object",
        "× limit": "the rate beside 1/(1/process + 1/disk): as fast as without syncs, and the bare syncs added",
        "CPU ms, MB": "for each object, until it is indexed; peaks of all living processes added up, shared pages "
        f"counted in each; lane: the receiver alone, of which PACSNode had {lanes}, and the largest one's peak",
    }


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    return f"{file_system_of(folder)} at {folder.parent}, {free / 1e9:.0f} GB free; all receivers write to it"
