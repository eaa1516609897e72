"""YAML nodes → typed values, with file, line and column in every message.

YAML's own typing is never used: `NO`, `0012` and `1e3` stay the text the user wrote until a field
asks for a number, a duration or yes/no. Mistakes are collected, so that one reading names them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from node.errors import Misconfigured
from node.yamltext import Node, Place, load, parse, read, walk

__all__ = ["Node", "Place", "Shaper", "duration", "load", "nearest", "parse", "quantity", "read", "walk"]

T = TypeVar("T")

_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")
_YES = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)` for a word close to a known one, else an empty text."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


class Shaper:
    """Reads typed values out of nodes and collects a sentence for everything that is wrong."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []

    def wrong(self, node: Node, what: str) -> None:
        """Note a mistake at *node*."""
        self.mistakes.append(f"{node.place}: {what}")

    def finish(self) -> None:
        """Raise Misconfigured with every mistake, if there is one."""
        if self.mistakes:
            raise Misconfigured(*self.mistakes)

    def fields(self, node: Node, known: Collection[str], required: Collection[str] = ()) -> dict[str, Node]:
        """The entries of a mapping whose keys must be *known*; unknown and missing ones are mistakes."""
        if not node.is_mapping:
            self.wrong(node, f"expected a mapping with {', '.join(known)}")
            return {}
        for key, value in node.fields.items():
            if key not in known:
                self.wrong(value, f"unknown key {key}{nearest(key, known)}")
        for key in required:
            if key not in node.fields:
                self.wrong(node, f"{key} is missing")
        return {key: value for key, value in node.fields.items() if key in known}

    def _try(self, node: Node, read: Callable[[str], T | None], expected: str, default: T) -> T:
        value = read(node.text) if node.is_text else None
        if value is None:
            self.wrong(node, f"expected {expected}, found {_shown(node)}")
            return default
        return value

    def text(self, node: Node, default: str = "") -> str:
        """Any scalar that is not empty."""
        return self._try(node, lambda t: t if t.strip() else None, "a text", default)

    def texts(self, node: Node) -> tuple[str, ...]:
        """One text or a list of them."""
        return tuple(self.text(item) for item in node.items)

    def choice(self, node: Node, choices: Collection[str], default: str = "") -> str:
        """One of *choices*."""
        found = self._try(node, lambda t: t, f"one of {', '.join(choices)}", default)
        if found not in choices and node.is_text:
            self.wrong(node, f"{found} is not one of {', '.join(choices)}{nearest(found, choices)}")
            return default
        return found

    def yes_no(self, node: Node, default: bool = False) -> bool:
        """Yes or no (also true/false, on/off)."""
        return self._try(node, lambda t: _YES.get(t.lower()), "yes or no", default)

    def integer(self, node: Node, default: int = 0, at_least: int | None = None) -> int:
        """A whole number."""
        value = self._try(node, _integer, "a whole number", default)
        if at_least is not None and value < at_least and _integer(node.text) is not None:
            self.wrong(node, f"{value} is too small; the least is {at_least}")
        return value

    def duration(self, node: Node, default: timedelta = timedelta()) -> timedelta:
        """A number with ms, s, min, h, d or w."""
        return self._try(node, duration, "a duration such as 45 s or 10 min", default)

    def size(self, node: Node, default: int = 0) -> int:
        """Bytes: a number with B, kB, MB, GB, TB or KiB, MiB, GiB."""
        return self._try(node, lambda t: _scaled(t, _BYTES, int), "a size such as 500 MB", default)

    def percent(self, node: Node, default: float = 0.0) -> float:
        """A share as `80 %`, returned as 0.8; 0 to 100."""
        return self._try(node, _percent, "a percentage such as 80 %", default)


def _shown(node: Node) -> str:
    if node.is_text:
        return repr(node.text) if node.text else "nothing"
    return "a list" if node.is_list else "a mapping"


def _integer(text: str) -> int | None:
    try:
        return int(text.strip(), 10)
    except ValueError:
        return None


def quantity(text: str) -> tuple[float, str] | None:
    """A number and whatever unit follows it, None where the text does not begin with a number."""
    match = _NUMBER.fullmatch(text)
    return (float(match[1]), match[2]) if match else None


def _scaled(text: str, units: dict[str, Any], kind: Callable[[float], T]) -> T | None:
    found = quantity(text)
    if found is None or found[1] not in units or found[0] < 0:
        return None
    try:
        return kind(found[0] * units[found[1]])
    except OverflowError:
        return None


def duration(text: str) -> timedelta | None:
    """`45 s` → timedelta; None where the text is no duration."""
    return _scaled(text, _SECONDS, lambda seconds: timedelta(seconds=seconds))


def _percent(text: str) -> float | None:
    found = quantity(text)
    if found is None or found[1] != "%" or not 0 <= found[0] <= 100:
        return None
    return found[0] / 100
