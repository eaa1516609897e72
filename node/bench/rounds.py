"""One round of one way: started, warmed up, given bursts until its rate can be told, and counted."""

from __future__ import annotations

import os
from pathlib import Path

from node.bench import peers, stations
from node.bench.cases import BURSTS, Case
from node.bench.load import Job
from node.bench.loading import Burst, Load, keeping, loading
from node.bench.peers import SENDER, Spent
from node.bench.stations import Station
from node.errors import Broken

_LONG = 1.0
"""Seconds that a round should take; fast ways get burst after burst, slow ones fewer objects."""
_FEW, _WARM = 10, 20
"""Objects: of a burst at least, and before the clock starts."""
_PATIENT = 6.0
"""Seconds that one whole burst may take, where its length matters."""
_INDEXED_WITHIN = 120.0


def one_round(case: Case, station: Station) -> tuple[Spent, list[float]]:
    """One round of one receiver, and how long it took to index each burst. Raises Broken where anything is amiss."""
    os.sync()  # what others have written is not to be waited for in this round
    held = station.kept()
    peers.forget_peaks(station.pid)
    with loading(_jobs(case, station.port)) as load:
        one = _Round(case, load, station)
        spent = one.run()
        load.end()
    kept = station.kept() - held
    if held >= 0 and kept != one.acknowledged:
        raise Broken(f"{one.acknowledged} objects were acknowledged, and {kept} are kept")
    return spent, one.lags


def disk_round(case: Case, place: Path) -> Spent:
    """One round of the bare disk in *place*, which must not exist."""
    os.sync()
    with keeping(str(place), str(min(case.folders[0].iterdir())), len(case.folders)) as load:
        return _Round(case, load, None).run()


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
        self._memory = self._lane_memory = self._lanes = 0
        self._indexed = station.indexed() if station is not None and station.indexed is not None else 0
        self.acknowledged = 0
        """Of the warm-up, too."""
        self.lags: list[float] = []
        """From the last acknowledgement of each whole burst until all was indexed."""

    def run(self) -> Spent:
        """Warm up, then measure."""
        rate = self._warm_up()
        seconds, sender, objects = 0.0, 0.0, 0
        before = _cpu(self._station)
        for _ in range(BURSTS):
            burst = self._burst(self._count(rate, seconds))
            seconds += burst.seconds
            sender += burst.cpu
            objects += burst.acknowledged
            rate = objects / seconds
            if seconds >= _LONG * 0.9 or self._case.big:
                break
        if self._station is None:
            return Spent(seconds, sender, objects=objects)
        cpu, lane = (after - at for after, at in zip(_cpu(self._station), before, strict=True))
        return Spent(seconds, cpu, self._memory, objects, lane, self._lane_memory, self._lanes, sender)

    def _warm_up(self) -> float:
        """Return about how many objects a second it takes."""
        if self._case.big:
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
            self._look(station)
            known = station.wait_indexed(self._indexed + self.acknowledged, _INDEXED_WITHIN)
            if station.indexed is not None and count == self._case.count and not self._case.few:
                self.lags.append(known - burst.ended)
        return burst

    def _look(self, station: Station) -> None:
        """Note the peaks of all living processes added up, and the highest of those that hold connections."""
        family = peers.family_of(station.pid)
        peaks = {pid: peers.memory_of(pid) for pid in family}
        lane = [peaks[pid] for pid, (_, words) in family.items() if station.lane and station.lane in words]
        self._memory = max(self._memory, sum(peaks.values()))
        self._lane_memory, self._lanes = max(self._lane_memory, *lane, 0), max(self._lanes, len(lane))

    def _count(self, rate: float, seconds: float) -> int:
        """How many objects now: what fits into the rest of the round; a node's bursts are whole where they count."""
        case = self._case
        whole = self._station is not None and self._station.indexed is not None and not case.few
        if case.big or (whole and case.count <= rate * _PATIENT):
            return case.count
        return min(case.count, max(_FEW, int(rate * (_LONG - seconds))))


def _cpu(station: Station | None) -> tuple[float, float]:
    """CPU seconds of a receiver's whole tree, and of the processes that hold its connections."""
    if station is None:
        return 0.0, 0.0
    family = peers.family_of(station.pid).values()
    lane = sum(cpu for cpu, words in family if station.lane and station.lane in words)
    return sum(cpu for cpu, _ in family), lane
