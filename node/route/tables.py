"""Tables that values are looked up in: a mapping in the rule, or a CSV file beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.shape import Node, Shaper, nearest

SUFFIX = ".csv"
_MOST_ROWS = 200_000
_HEADER = ("from", "to")


@dataclass
class Tables:
    """The CSV files of a rule set, read when a rule asks for one, and those that were asked for."""

    files: Mapping[str, str]
    """Shown name → text."""
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    """Shown name → the table."""

    def read(self, node: Node, shaper: Shaper) -> dict[str, str]:
        """The table of the file that *node* names, in the folder of its rule; mistakes are noted in *shaper*."""
        folder = node.place.file.rpartition("/")[0]
        shown = f"{folder}/{node.text}" if folder else node.text
        if shown not in self.files:
            known = [name.rpartition("/")[2] for name in self.files]
            told = f" (tables there: {', '.join(sorted(known))})" if known else ""
            shaper.wrong(
                node, f"there is no table {node.text} beside the rule{nearest(node.text, known)}{told}"
            )
            return {}
        if shown not in self.used:
            self.used[shown] = _parsed(self.files[shown], shown, shaper)
        return self.used[shown]

    def unused(self) -> list[str]:
        """The files that no rule asked for."""
        return sorted(set(self.files) - set(self.used))


def digest_of(table: Mapping[str, str]) -> tuple[str, str]:
    """The digest under which a table is kept, and its text."""
    text = json.dumps(table, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest(), text


def _parsed(text: str, file: str, shaper: Shaper) -> dict[str, str]:
    """Two columns, with commas or semicolons between; a first line `from,to` is a heading."""
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    rows = csv.reader(
        io.StringIO(text), delimiter=";" if ";" in first and "," not in first else ",", strict=True
    )
    found: dict[str, str] = {}
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (rows.line_num == 1 and tuple(c.lower() for c in cells) == _HEADER):
                continue
            if len(cells) != 2:
                shaper.mistakes.append(f"{file}:{rows.line_num}: expected two columns, found {len(cells)}")
            elif cells[0] in found:
                shaper.mistakes.append(
                    f"{file}:{rows.line_num}: the first column is the same as in a line above"
                )
            elif len(found) >= _MOST_ROWS:
                shaper.mistakes.append(f"{file}:{rows.line_num}: a table has {_MOST_ROWS} lines at most")
                break
            else:
                found[cells[0]] = cells[1]
    except csv.Error as error:
        shaper.mistakes.append(f"{file}:{rows.line_num}: not a table of two columns: {error}")
    if not found:
        shaper.mistakes.append(f"{file}:1: the table is empty")
    return found
