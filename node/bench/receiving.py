"""`bench receive`: the same load on PACSNode and on its peers, in turn, with what disk and loopback allow."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.bench import budget, stations, tell
from node.bench.budget import DISK
from node.bench.cases import Asked, Case, cases_of, check_room
from node.bench.rounds import one_round
from node.bench.stations import POWER, PROCESS, SINK, STORESCP, Start
from node.bench.tell import Row
from node.errors import Broken
from node.store.database import file_system_of


@dataclass
class _Found:
    """What has been measured so far."""

    settings: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    lags: dict[tuple[str, str], list[float]] = field(default_factory=dict)


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
            _case(case, folder / case.name, ways, asked.rounds, say, found)
        say("removing what was received")
    rates = budget.Rates(found.rows)
    answered = [
        budget.indexed(case, way, _count(found.rows, case), lags) for (case, way), lags in found.lags.items()
    ]
    found.settings.update(_explained(found.rows))
    how = f"median of {asked.rounds} interleaved rounds"
    return tell.Report(
        "receive", how, STORESCP, found.rows, found.settings, missing, answered, budget.columns(rates),
        budget.verdicts(rates, found.lags),
    )  # fmt: skip


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


def _count(rows: Sequence[Row], case: str) -> int:
    return next(row.count for row in rows if row.case == case)


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    return f"{file_system_of(folder)} at {folder.parent}, {free / 1e9:.0f} GB free; all receivers write to it"


def _case(
    case: Case, folder: Path, ways: Mapping[str, Start], rounds: int, say: tell.Say, found: _Found
) -> None:
    """Every way in turn; a peer that fails is said to have, and keeps the rounds it had. Raises Broken for ours."""
    rows = {way: Row(case.name, way, case.count, case.size) for way in case.ways if way in ways}
    if case.durable:
        rows[DISK] = Row(case.name, DISK, case.count, case.size)
    over: set[str] = set()
    for number in range(1, rounds + 1):
        for way, row in rows.items():
            if way in over or number > case.rounds_of(way, rounds):
                continue
            say(f"{case.name}, round {number} of {rounds}: {way}")
            place = folder / f"{number} {way.replace('/', '')}"
            place.mkdir(parents=True)
            try:
                spent, lags = one_round(case, place, ways.get(way))
            except (Broken, OSError) as error:
                if way in (POWER, PROCESS, SINK, DISK):
                    raise
                over.add(way)
                found.settings[f"{way}, {case.name}"] = f"failed in round {number}: {error}"
                continue
            row.spent.append(spent)
            if lags:
                found.lags.setdefault((case.name, way), []).extend(lags)
    found.rows += [row for row in rows.values() if row.spent]
