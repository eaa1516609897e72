"""The README's blocks: which are walked, and what one sees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A fenced block: its kind and its text."""


@dataclass(frozen=True)
class Stop:
    """One shell block of the README, and what the text block after it says one sees."""

    number: int
    script: str
    sees: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its place and its first line."""
        return f"{self.number} {self.script.splitlines()[0]}"


def stops(text: str) -> tuple[Stop, ...]:
    """The shell blocks of *text* in order."""
    blocks = FENCED.findall(text)
    found: list[Stop] = []
    for (kind, lines), (after, seen) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "sh":
            found.append(Stop(len(found) + 1, lines, tuple(seen.splitlines()) if after == "text" else ()))
    return tuple(found)


def script(text: str) -> str:
    """One script of all shell blocks of *text*: it says where it is, and ends at the first command that fails."""
    parts = (f"echo '@@ block {stop.number}'\n{stop.script}" for stop in stops(text))
    return "set -eu -o pipefail\n" + "".join(parts)


def said(log: str) -> dict[int, str]:
    """What that script printed, by block."""
    parts = re.split(r"^@@ block (\d+)\n", log, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}
