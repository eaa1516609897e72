"""How the demo speaks: a live table on a terminal, plain lines elsewhere, and a summary or one JSON object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from node import show
from node.demo.findings import Number, Returned
from node.demo.site import Work
from node.demo.watch import Row, Snapshot
from node.words import legible


@dataclass(frozen=True)
class Ended:
    """All there is to say at the end."""

    work: Work
    series: tuple[Returned, ...]
    numbers: tuple[Number, ...]
    pictures: tuple[Path, ...]
    refused: tuple[str, ...]
    problems: tuple[str, ...]
    seconds: float


@dataclass
class Screen(AbstractContextManager["Screen"]):
    """Where progress is shown while the node works."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    _live: Live | None = None
    _said: dict[str, set[str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {text}")

    def show(self, snapshot: Snapshot) -> None:
        """The table anew, or a line for every series that has moved on."""
        if self._live:
            self._live.update(_progress(snapshot))
            return
        for row in snapshot.rows:
            said = self._said.setdefault(row.title, set())
            news = [step for step in _steps(row) if step not in said]
            said.update(news)
            if news:
                self.say(f"{row.title}: {', '.join(news)}")


def screen(as_json: bool) -> Screen:
    """The terminal; standard error where standard output is for JSON."""
    return Screen(show.console(stderr=as_json))


def _steps(row: Row) -> list[str]:
    """What a series has reached: a few steps, not one per object."""
    if row.received < row.objects:
        return []
    steps = [f"{row.received} received"]
    if row.sealed:
        steps.append(f"complete ({row.sealed})")
    steps += [f"{rule} {state}" for rule, state, _ in row.runs]
    if row.back == row.objects:
        steps.append("back at the PACS")
    if row.made and row.results == row.made:
        steps.append(f"{row.results} results at the PACS")
    return steps


def _progress(snapshot: Snapshot) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("series", min_width=14)  # this and the rules give way on a narrow terminal
    table.add_column("sent", justify="right", min_width=7)
    table.add_column("got", justify="right", min_width=3)
    table.add_column("complete", min_width=8)
    table.add_column("rules", min_width=15)
    table.add_column("back", justify="right", min_width=7)
    table.add_column("results", justify="right", min_width=7)
    for row in snapshot.rows:
        rules = "\n".join(f"{rule} {show.state(state)}" for rule, state, _ in row.runs)
        if row.decided and not rules:
            rules = "[dim]only routed[/]"
        sealed = row.sealed.removeprefix("association ").partition(" after ")[0]  # one line per series
        table.add_row(
            row.title, f"{row.sent}/{row.objects}", str(row.received or ""), sealed, rules,
            _of(row.back, row.objects), _of(row.results, row.made),
        )  # fmt: skip
    return table


def _of(count: int, whole: int) -> str:
    if not whole:
        return ""
    return f"[green]{count}/{whole}[/]" if count == whole else f"{count}/{whole}"


def result(ended: Ended, as_json: bool) -> None:
    """The summary, for people or for scripts."""
    if as_json:
        show.as_json(_json(ended))
        return
    console = show.console()
    console.print()
    console.print(_series_table(ended.series))
    if ended.numbers:
        console.print(_numbers_table(ended.numbers))
    for refusal in ended.refused:
        console.print(f"[yellow]refused:[/] {escape(refusal)}")
    for problem in ended.problems:
        console.print(f"[red]wrong:[/] {escape(problem)}")
    originals = sum(len(one.files) for one in ended.series if not one.derived)
    results = sum(len(one.files) for one in ended.series if one.derived)
    if ended.problems:
        told = f"{originals} originals and {results} results at the PACS: [red]not everything is as it must be[/]"
    else:
        told = (
            f"{originals} originals at the PACS, [green]byte for byte as sent[/]; "
            f"{results} results, [green]each refers to its source[/]"
        )
    console.print(f"{told} ({ended.seconds:.0f} s)")
    for label, path in _places(ended):
        console.print(f"{label:9} {path}", soft_wrap=True)


def _places(ended: Ended) -> list[tuple[str, Path]]:
    work = ended.work
    found = [("pictures", work.pictures)] if ended.pictures else []
    return [
        *found,
        ("PACS", work.pacs),
        ("sent", work.sent),
        ("log", work.log),
        ("site file", work.site_file),
    ]


def _series_table(series: Sequence[Returned]) -> Table:
    table = Table(title="Series at the PACS", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "modality", "description", "class", "objects", "sent as / made from"):
        table.add_column(heading, justify="right" if heading == "objects" else "left")
    for one in series:
        kind = "[cyan]derived[/]" if one.derived else "original"
        origin = f"from {one.title}" if one.derived else one.title
        table.add_row(
            kind, *map(escape, (one.modality, one.description, one.sop_class, str(len(one.files)), origin))
        )
    return table


def _numbers_table(numbers: Sequence[Number]) -> Table:
    table = Table(
        title="Measurements in the reports", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in ("of", "region", "name", "value", "unit"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for one in numbers:
        table.add_row(*map(escape, (one.source, one.region, one.name, legible(float(one.value)), one.unit)))
    return table


def _json(ended: Ended) -> dict[str, Any]:
    return {
        "outputs": str(ended.work.folder),
        "ok": not ended.problems,
        "problems": list(ended.problems),
        "refused": list(ended.refused),
        "seconds": round(ended.seconds, 1),
        "pictures": [str(path) for path in ended.pictures],
        "series": [
            {
                "series_uid": one.series_uid,
                "modality": one.modality,
                "description": one.description,
                "sop_class": one.sop_class,
                "objects": len(one.files),
                "derived": one.derived,
                "source": one.title,
                "source_uid": one.source_uid,
                "files": [str(path) for path in one.files],
            }
            for one in ended.series
        ],
        "measurements": [
            {"source": n.source, "region": n.region, "name": n.name, "value": float(n.value), "unit": n.unit}
            for n in ended.numbers
        ],
    }
