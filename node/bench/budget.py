"""What reception must reach, as ratios between rows of one run: every line with what was found."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from node.bench.stations import FORK, ORTHANC, POWER, PROCESS, SINK, STORESCP
from node.bench.tell import Answered, Column, Row, Verdict

DISK = "(disk: write, sync, rename, sync)"
CT, MR, CT4, MR4 = "CT 512 kB", "MR 33 kB", "CT 512 kB, 4 associations", "MR 33 kB, 4 associations"
NAGLE = "MR 33 kB, Nagle's algorithm on"
EACH, EACH4 = "MR 33 kB, an association each", "MR 33 kB, an association each, 4 at once"
BIG = "multi-frame"
"""Cases."""
BURSTS = (CT, MR, CT4, MR4)
"""Those in which everything comes as fast as it is taken."""

_FORKED = (CT4, MR4, EACH, EACH4)
"""Cases in which DCMTK is at its best with a process per association."""


@dataclass(frozen=True)
class Rates:
    """What was found, by case and way."""

    rows: Sequence[Row]

    def of(self, case: str, way: str) -> float | None:
        """Objects per second; None where that was not measured."""
        return next((row.rate for row in self.rows if (row.case, row.way) == (case, way)), None)

    def ratio(self, case: str, way: str, base: str) -> float | None:
        """How often as fast as the base."""
        ours, theirs = self.of(case, way), self.of(case, base)
        return ours / theirs if ours and theirs else None

    def dcmtk(self, row: Row) -> float | None:
        """Beside DCMTK at its best."""
        return self.ratio(row.case, row.way, FORK if row.case in _FORKED else STORESCP)

    def orthanc(self, row: Row) -> float | None:
        """Beside Orthanc."""
        return self.ratio(row.case, row.way, ORTHANC)

    def limit(self, case: str) -> float | None:
        """What the disk leaves to whoever is as fast as we are without it: one after the other, per object."""
        free, disk = self.of(case, PROCESS), self.of(case, DISK)
        return 1 / (1 / free + 1 / disk) if free and disk else None

    def beside_limit(self, row: Row) -> float | None:
        """Beside that limit, where each object is synced."""
        limit = self.limit(row.case) if row.way == POWER else None
        return row.rate / limit if limit else None


def columns(rates: Rates) -> Sequence[Column]:
    """What the table tells of each row."""
    return (
        Column("× DCMTK", "ratio_to_dcmtk", rates.dcmtk),
        Column("× Orthanc", "ratio_to_orthanc", rates.orthanc),
        Column("× limit", "ratio_to_disk_limit", rates.beside_limit),
        Column("× sink", "ratio_to_sink", lambda row: rates.ratio(row.case, row.way, SINK)),
        Column("CPU ms", "cpu_milliseconds_each", lambda row: row.each[0] * 1e3),
        Column("lane", "lane_cpu_milliseconds_each", lambda row: row.each[1] * 1e3 or None),
        Column("MB", "memory_megabytes", lambda row: row.memory / 1e6 or None, 0),
        Column("lane", "lane_memory_megabytes", lambda row: _lane_memory(row) or None, 0),
        Column("sender", "sender_share", lambda row: row.sender or None),
    )


def verdicts(rates: Rates, lags: Mapping[tuple[str, str], Sequence[float]]) -> list[Verdict]:
    """Every line of the budget; *lags* by case and way: seconds until the node knew what it had acknowledged."""
    big = [
        _lane_memory(row) for row in rates.rows if row.case.startswith(BIG) and row.way in (POWER, PROCESS)
    ]
    return [
        Verdict(f"process, {CT}, × {STORESCP}", rates.ratio(CT, PROCESS, STORESCP), 1.0),
        Verdict(f"process, {MR}, × {STORESCP}", rates.ratio(MR, PROCESS, STORESCP), 0.8),
        Verdict(f"process, {CT4}, × {FORK}", rates.ratio(CT4, PROCESS, FORK), 1.0),
        *(Verdict(f"power, {case}, × the limit of the disk", _limit(rates, case), 0.85) for case in (CT, MR, CT4)),
        *(Verdict(f"power, {case}, × Orthanc", rates.ratio(case, POWER, ORTHANC), 3.0) for case in (CT, CT4)),
        Verdict(f"power, {MR}, × Orthanc", rates.ratio(MR, POWER, ORTHANC), 2.0),
        Verdict(f"power, {NAGLE}, × {STORESCP}", rates.ratio(NAGLE, POWER, STORESCP), 40.0),
        *(Verdict(f"power, {case}, × Orthanc", rates.ratio(case, POWER, ORTHANC), 1.0) for case in (EACH, EACH4)),
        *(Verdict(f"power, {case}, × {FORK} (an aim)", rates.ratio(case, POWER, FORK), 1.0) for case in (EACH, EACH4)),
        *(Verdict(f"{way[10:]}, s until the last of a burst is indexed", _slowest(lags, way), most=1.0)
          for way in (POWER, PROCESS)),
        Verdict("MB at most in a receiver, one big object", max(big, default=None), most=200.0),
    ]  # fmt: skip


def _slowest(lags: Mapping[tuple[str, str], Sequence[float]], way: str) -> float | None:
    medians = [
        statistics.median(found) for (case, one), found in lags.items() if one == way and case in BURSTS
    ]
    return max(medians, default=None)


def _limit(rates: Rates, case: str) -> float | None:
    ours, limit = rates.of(case, POWER), rates.limit(case)
    return ours / limit if ours and limit else None


def _lane_memory(row: Row) -> float:
    """MB at most in the largest process that holds connections."""
    return max((one.lane_memory for one in row.spent), default=0) / 1e6


def indexed(case: str, way: str, count: int, seconds: Iterable[float]) -> Answered:
    """How long until the node knew of all that it had acknowledged."""
    return Answered(f"{way}, {count} × {case}: last acknowledgement → all indexed", list(seconds))
