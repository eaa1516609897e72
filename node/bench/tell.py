"""What was measured: a table with everything that it rests on below it, or one JSON object; and progress."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from node import show
from node.bench.peers import Spent

Say = Callable[[str], None]


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
        return self.count / self.seconds

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
    console.print(_table(found))
    for answer in found.answered:
        values = ", ".join(f"{s:.2f}" for s in answer.seconds)
        console.print(
            f"{answer.what}: [bold]{statistics.median(answer.seconds):.2f} s[/] (median of {values})"
        )
    for name, text in {**found.settings, "this machine": _machine()}.items():
        console.print(f"[dim]{show.safe(name)}: {show.safe(text)}[/]")
    for name in found.missing:
        console.print(f"[yellow]{show.safe(name)} is not installed: no row[/]")


def _table(found: Report) -> Table:
    title = f"bench {found.bench}: {found.how}; ratio to {found.base}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("objects", no_wrap=True)
    table.add_column("way", no_wrap=True)
    remembered = any(row.memory for row in found.rows)
    for heading in ("per s", "MB/s", "ratio", "CPU s", *(["MB used"] if remembered else []), "rounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in found.rows:
        ratio = found.ratio(row)
        table.add_row(
            f"{row.count} × {row.case}" if row.case != last else "", row.way, f"{row.rate:.0f}",
            f"{row.rate * row.size / row.count / 1e6:.0f}", "" if ratio is None else f"{ratio:.2f}",
            f"{row.cpu:.2f}", *([f"{row.memory / 1e6:.0f}" if row.memory else ""] if remembered else []),
            str(len(row.spent)),
        )  # fmt: skip
        last = row.case
    return table


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, loopback"


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
            }
            for row in found.rows
        ],
        "answers": [
            {"what": one.what, "seconds": list(one.seconds), "median": statistics.median(one.seconds)}
            for one in found.answered
        ],
        "settings": dict(found.settings),
        "not_installed": list(found.missing),
    }
