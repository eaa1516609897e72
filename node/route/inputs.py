"""What a rule over a study has beside others: named inputs, what to wait for, and when to do it again. Frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

from node.route.keywords import Attribute
from node.route.when import When

INPUT_KEYS = {
    "when": "conditions that a series must fulfil to be this input",
    "use": "which images of that series; the rest is left out and counted",
    "prefer": "which of several that fit: a list of conditions, or {Keyword: smallest} or {Keyword: largest}",
    "pick": "best: the one that is preferred; each: one run for each that fits",
    "optional": "yes: the rule can do without it; steps that need it are then left out",
    "prior": "a series of an earlier study of the same patient: {at: PEER, max_age: 5 y}",
    "ours": "ok: results of a node like this one may be this input",
}
"""Every key of an input, with a sentence for editors."""
WAITS = {
    "run_without": "waits for optional inputs, too, and then runs without those that did not come",
    "skip": "does nothing, and says so",
    "quarantine": "a run that a person looks after: quarantined, with what is missing",
}
"""What becomes of a rule whose wait is over, with a sentence for editors."""
AGAIN = {
    "better_input": "a better or newer input than the one that was used opens a new run; its results supersede",
    "never": "the rule runs once per study; only corrected or rejected images make it run again",
}
"""What later series of a study that was processed bring about, with a sentence for editors."""
PICKS = ("best", "each")
LONGEST_WAIT = timedelta(days=2)
"""Retention must not take what a rule waits with."""

_ANY = When()


@dataclass(frozen=True, slots=True)
class Preference:
    """One entry of `prefer`: a condition, or an order."""

    text: str
    """As the user wrote it."""
    when: When = _ANY
    """Series that fulfil it come first."""
    order: Attribute | None = None
    """Instead of a condition: the series with the smallest or largest value comes first."""
    largest: bool = False


@dataclass(frozen=True, slots=True)
class Prior:
    """Where an earlier study is asked for, and how old it may be."""

    at: str
    max_age: tuple[int, str]
    """A number of days, months or years (`d`, `month`, `y`)."""

    def earliest(self, day: date) -> date:
        """The first study date that is not too old for a study of *day*."""
        number, unit = self.max_age
        if unit == "d":
            return day - timedelta(days=min(number, (day - date.min).days))
        months = day.year * 12 + day.month - 1 - number * (12 if unit == "y" else 1)
        year, month = max(1, months // 12), months % 12 + 1
        return date(year, month, min(day.day, _days_in(year, month)))


def _days_in(year: int, month: int) -> int:
    following = date(year + month // 12, month % 12 + 1, 1)
    return (following - timedelta(days=1)).day


@dataclass(frozen=True, slots=True)
class Input:
    """One named series that a rule takes."""

    name: str
    when: When = _ANY
    use: When = _ANY
    prefer: tuple[Preference, ...] = ()
    each: bool = False
    optional: bool = False
    prior: Prior | None = None
    ours: bool = False
    line: int = 0
    column: int = 0

    def names(self) -> frozenset[str]:
        """Every attribute it asks for."""
        orders = {p.order.name for p in self.prefer if p.order is not None}
        preferred = frozenset[str]().union(*(p.when.names() for p in self.prefer))
        return self.when.names() | self.use.names() | preferred | orders


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a rule waits for inputs after the first of them was there, and what then."""

    at_most: timedelta = timedelta(hours=2)
    then: str = "skip"


@dataclass(frozen=True, slots=True)
class Study:
    """What a rule over a study has beside others."""

    inputs: tuple[Input, ...] = ()
    wait: Wait = field(default_factory=Wait)
    again: str = "better_input"

    @property
    def main(self) -> Input:
        """The first required input: its series stands for the run, and results inherit patient and study from it."""
        return next(one for one in self.inputs if not one.optional and one.prior is None)

    @property
    def order(self) -> tuple[str, ...]:
        """The inputs by name, with the one first that stands for the study."""
        return (self.main.name, *(one.name for one in self.inputs if one is not self.main))

    def place(self, name: str) -> int:
        """Which of the inputs this is, from 1."""
        return 1 + [one.name for one in self.inputs].index(name)

    @property
    def each(self) -> str:
        """The input of which each fitting series gives a run of its own; empty where none does."""
        return next((one.name for one in self.inputs if one.each), "")

    def canonical(self) -> list[str]:
        """What it means for the identity of outputs: which images are used; which series does not count (design §6)."""
        return [one.use.canonical() for one in self.inputs]
