"""Rows → tables for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from enum import Enum
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from node.words import first_few, is_few

GOOD, BAD, BUSY = "green", "red", "yellow"
_COLOURS = {
    "routed": GOOD, "done": GOOD, "stored": GOOD, "committed": GOOD, "kept": GOOD, "up": GOOD,
    "quarantined": BAD, "parked": BAD, "conflict": BAD, "unreadable": BAD, "down": BAD,
    "receiving": BUSY, "sealed": BUSY, "waiting": BUSY, "running": BUSY, "sending": BUSY,
}  # fmt: skip


def console(stderr: bool = False) -> Console:
    """The terminal, or plain text where there is none."""
    return Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path | Exception):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def printable(text: str) -> str:
    """Without line breaks and control characters: a peer's words never steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def safe(text: object) -> str:
    """As part of a line with colours in brackets: the text's own brackets stay brackets."""
    return escape(printable(str(text)))


def state(text: str) -> str:
    """A state in its colour."""
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else text


def moment(at: datetime | None, zone: tzinfo | None = None) -> str:
    """Local time of *zone* to the second, labelled with it; of the machine where none is given."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z") if at else ""


def when(at: datetime, now: datetime) -> str:
    """In the zone of *now*, as short as it can be told: the time today, day and time this year, else the date."""
    here, today = at.astimezone(now.tzinfo), now
    if here.date() == today.date():
        return here.strftime("%H:%M:%S")
    return here.strftime("%d %b %H:%M" if here.year == today.year else "%Y-%m-%d")


def table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str, zone: tzinfo | None = None
) -> None:
    """Print rows under *columns* (key → heading), times local to *zone*; *empty* is said where there is none.

    The last column takes the words: beside the others where there is room, else below them. Columns
    that hold nothing are left out. Into a file or pipe each row is one line.
    """
    out = console()
    for line in layout(rows, columns, _width(out), datetime.now(zone or UTC)) if rows else [Text(empty)]:
        out.print(line, soft_wrap=True)


def layout(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], width: int, now: datetime
) -> Iterator[Text]:
    """The lines of a table of at most *width* characters, as far as its words can be broken."""
    cells = [{key: cell(key, row.get(key), now) for key in columns} for row in rows]
    *keys, words = columns
    keys = [key for key in keys if any(row[key] for row in cells)]
    widths = {key: max(cell_len(columns[key]), *(cell_len(row[key]) for row in cells)) for key in keys}
    before = sum(widths.values()) + 2 * len(keys)
    beside = width - before >= _LEAST_WORDS
    heading = "  ".join(_padded(columns[key], widths[key]) for key in keys)
    yield Text(f"{heading}  {columns[words]}" if beside else heading.rstrip(), style="bold")
    for row in cells:
        line = Text("  ").join(Text(_padded(row[key], widths[key]), _style(key, row[key])) for key in keys)
        broken = textwrap.wrap(row[words], width - (before if beside else 4)) or [""]
        if beside:
            line.append(f"  {broken[0]}")
        line.rstrip()
        yield line
        for more in broken[1:] if beside else broken:
            if more:
                yield Text(" " * (before if beside else 4) + more)


_LEAST_WORDS = 30
"""Characters: a narrower column of words is put below its row."""


def _width(out: Console) -> int:
    """Of the terminal; without one nothing is broken, so that each row stays one line."""
    return out.width if sys.stdout.isatty() or "COLUMNS" in os.environ else 1_000_000


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _style(key: str, text: str) -> str:
    return _COLOURS.get(text, "") if key == "state" else ""


def cell(key: str, value: Any, now: datetime) -> str:
    """One value as a table shows it."""
    if value is None or value == "" or (key == "replay" and value == 0):
        return ""
    if isinstance(value, datetime):
        return when(value, now)
    if key == "status" and isinstance(value, int):
        return f"{value:04X}"
    if key == "sop_class":
        return printable(UID(value).keyword.removesuffix("Storage") or value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return printable(decisions(value) if key == "detail" else str(value))


def decisions(detail: str) -> str:
    """An event's detail: what routing decided of the rules in words, everything else as it is.

    Of those that do not run the first, which are the nearest: a site has rules by the dozen.
    """
    if not detail.startswith("[{"):
        return detail
    told = json.loads(detail)
    if is_few(told):
        return "; ".join(f"{d['rule']}: {'runs' if d['runs'] else d['because']}" for d in told)
    run = [f"{d['rule']}: runs" for d in told if d["runs"]]
    rest = [f"{d['rule']}: {d['because']}" for d in told if not d["runs"]]
    return "; ".join([*run, *([first_few(rest, "rules do not run")] if rest else [])])
