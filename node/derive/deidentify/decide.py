"""What happens to one attribute: a row of the table and a profile in, one action out. Pure, and the only judge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node.derive.deidentify.profile import SHIFTED_DATES
from node.derive.deidentify.table import Row

KEEP, CLEAN, REMOVE, EMPTY, DUMMY, MAP = "K", "C", "X", "Z", "D", "U"
"""The action codes of PS3.15 Table E.1-1a that stand for one thing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action code, and the option it comes from (empty: the Basic Profile)."""

    code: str
    option: str = ""


UNLISTED_MOMENT = Row("a date or time", "X/Z/D", {"dates": "K", SHIFTED_DATES: "C"})
"""A date or time that the table does not name (PS3.15 E.1.1 note: by their Value Representation)."""
UNLISTED_NAME = Row("a person's name", "X/Z/D", {})


def decide(row: Row, options: Iterable[str]) -> Decision:
    """The action for an attribute of *row* under these *options*; an option overrides the Basic Profile (E.1.1).

    Where options differ, dates that were asked to be shifted are never kept as they are; otherwise what a
    person asked to retain is retained.
    """
    said = {option: row.options[option] for option in sorted(options) if option in row.options}
    if SHIFTED_DATES in said:
        return Decision(said[SHIFTED_DATES], SHIFTED_DATES)
    for wanted in (KEEP, CLEAN):
        for option, code in said.items():
            if code == wanted:
                return Decision(code, option)
    return Decision(row.basic)


def resolve(code: str, kind: str) -> str:
    """One of D, Z, X, U for a compound *code*, by the attribute's Type in its IOD (Table E.1-1a).

    Where the Type is unknown, the action that leaves the object valid whatever it is; so, too, where presence
    depends on a condition that held before.
    """
    if "/" not in code:
        return code
    *_, strictest = choices = [choice.rstrip("*") for choice in code.split("/")]
    if kind == "3":
        return choices[0]
    if kind in ("2", "2C"):
        return EMPTY if EMPTY in choices else strictest
    return strictest
