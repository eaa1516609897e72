"""What was measured: a table with everything that it rests on below it, or one JSON object; and progress."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.measure import Measurement
from rich.table import Table

from node import show
from node.bench.peers import Spent

Say = Callable[[str], None]
_WIDEST = 400


@dataclass
class Row:
    """One way to do one thing, and what each of its rounds took."""

    case: str
    way: str
    count: int
    """Objects in a round."""
    size: int
    """Bytes of these objects."""
    spent: list[Spent] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median round."""
        return statistics.median(one.seconds for one in self.spent)

    @property
    def rate(self) -> float:
        """Objects per second in the median round."""
        return statistics.median((one.objects or self.count) / one.seconds for one in self.spent)

    @property
    def each(self) -> tuple[float, float]:
        """Median CPU seconds per object: of everything, and of the processes that hold the connections."""
        counts = [one.objects or self.count for one in self.spent]
        return (
            statistics.median(one.cpu / n for one, n in zip(self.spent, counts, strict=True)),
            statistics.median(one.lane_cpu / n for one, n in zip(self.spent, counts, strict=True)),
        )

    @property
    def sender(self) -> float:
        """The share of the time that the load generator was busy, all its processes together."""
        return statistics.median(one.sender_cpu / one.seconds for one in self.spent)

    @property
    def cpu(self) -> float:
        """Median CPU seconds of a round."""
        return statistics.median(one.cpu for one in self.spent)

    @property
    def memory(self) -> int:
        """Most bytes of resident memory in any round; 0 where it is not known."""
        return max(one.memory for one in self.spent)


@dataclass(frozen=True)
class Answered:
    """How long one kind of answer took, each time, in seconds."""

    what: str
    seconds: Sequence[float]


@dataclass(frozen=True)
class Column:
    """One figure of each row."""

    heading: str
    key: str
    """In JSON."""
    of: Callable[[Row], float | None]
    digits: int = 2


@dataclass(frozen=True)
class Verdict:
    """One line of the budget: what must be reached, and what was found."""

    what: str
    found: float | None
    """None = not measured in this run."""
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether it was reached; None where that was not measured."""
        if self.found is None:
            return None
        return (self.least is None or self.found >= self.least) and (
            self.most is None or self.found <= self.most
        )

    @property
    def words(self) -> str:
        """One line."""
        wanted = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        mark = {True: "✓", False: "✗", None: "–"}[self.holds]
        found = "not measured" if self.found is None else f"{self.found:.2f}"
        return f"{mark} {self.what}: {found} ({wanted})"


@dataclass(frozen=True)
class Report:
    """Everything that is said at the end."""

    bench: str
    how: str
    base: str
    """The way that the others are compared with."""
    rows: Sequence[Row]
    settings: Mapping[str, str]
    """Way → what it was set to."""
    missing: Sequence[str]
    """Peers that are not installed."""
    answered: Sequence[Answered] = ()
    columns: Sequence[Column] = ()
    """What is told of each row besides its rate; empty = ratio to the base, CPU and memory."""
    verdicts: Sequence[Verdict] = ()

    def ratio(self, row: Row) -> float | None:
        """How often as fast as the base; None where that is not installed."""
        bases = [one for one in self.rows if one.case == row.case and one.way == self.base]
        return row.rate / bases[0].rate if bases else None


@contextmanager
def progress() -> Iterator[Say]:
    """Say what is being done: one line that changes on a terminal, a line each elsewhere; never on standard output."""
    console = show.console(stderr=True)
    if not console.is_terminal:
        yield console.print
        return
    with console.status("starting") as status:
        yield lambda text: status.update(show.safe(text))


def report(found: Report, as_json: bool) -> None:
    """Print it."""
    if as_json:
        show.as_json(_json(found))
        return
    console = show.console()
    if found.rows:
        _print_table(found)
    else:
        console.print(f"bench {found.bench}: {found.how}")
    for answer in found.answered:
        values = ", ".join(map(_seconds, answer.seconds))
        median = _seconds(statistics.median(answer.seconds))
        console.print(f"{answer.what}: [bold]{median} s[/] (median of {values})")
    if found.verdicts:
        console.print("\nthe budget:")
    for verdict in found.verdicts:
        colour = {True: show.GOOD, False: show.BAD, None: "dim"}[verdict.holds]
        console.print(f"  [{colour}]{show.safe(verdict.words)}[/]")
    for name, text in {**found.settings, "this machine": _machine()}.items():
        console.print(f"[dim]{show.safe(name)}: {show.safe(text)}[/]")
    for name in found.missing:
        console.print(f"[yellow]{show.safe(name)} is not installed: no row[/]")


def _print_table(found: Report) -> None:
    """Figures are never cut off: where there is too little room the terminal folds the lines."""
    console, table = show.console(), _table(found)
    if found.columns:
        whole = console.options.update(width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, whole, table).maximum)
    console.print(table)


def _table(found: Report) -> Table:
    ratio = "" if found.columns else f"; ratio to {found.base}"
    title = f"bench {found.bench}: {found.how}{ratio}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = found.columns or _usual(found)
    if not found.columns:
        table.add_column("objects", no_wrap=True)
    table.add_column("way", no_wrap=True)
    for heading in ("per s", "MB/s", *(column.heading for column in columns), "rounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in found.rows:
        told = f"{row.count} × {row.case}" if row.case != last else ""
        if told and found.columns:  # many columns: the objects stand on a line of their own
            table.add_section()
            table.add_row(f"[bold]{told}[/]")
        figures = (_figure(column.of(row), column.digits) for column in columns)
        table.add_row(
            *(() if found.columns else (told,)), row.way, _rate(row.rate),
            f"{row.rate * row.size / row.count / 1e6:.0f}", *figures, str(len(row.spent)),
        )  # fmt: skip
        last = row.case
    return table


def _usual(found: Report) -> Sequence[Column]:
    columns = [Column("ratio", "ratio", found.ratio), Column("CPU s", "cpu_seconds", lambda row: row.cpu)]
    if any(row.memory for row in found.rows):
        columns.append(Column("MB used", "memory", lambda row: row.memory / 1e6 or None, 0))
    return columns


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}, loopback, {datetime.now(UTC):%Y-%m-%d}"
    )


def _json(found: Report) -> dict[str, Any]:
    return {
        "bench": found.bench,
        "how": found.how,
        "machine": _machine(),
        "base": found.base,
        "rows": [
            {
                "case": row.case,
                "way": row.way,
                "objects": row.count,
                "bytes": row.size,
                "objects_per_second": row.rate,
                "megabytes_per_second": row.rate * row.size / row.count / 1e6,
                "ratio": found.ratio(row),
                "cpu_seconds": row.cpu,
                "memory_bytes": row.memory or None,
                "seconds": [one.seconds for one in row.spent],
                "rounds": [asdict(one) for one in row.spent],
                **{column.key: column.of(row) for column in found.columns},
            }
            for row in found.rows
        ],
        "answers": [
            {"what": one.what, "seconds": list(one.seconds), "median": statistics.median(one.seconds)}
            for one in found.answered
        ],
        "budget": [
            {"what": one.what, "found": one.found, "least": one.least, "most": one.most, "holds": one.holds}
            for one in found.verdicts
        ],
        "settings": dict(found.settings),
        "not_installed": list(found.missing),
    }
