"""The values of a study's judgement: what is looked at, what is chosen, and the verdicts. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.facts import Facts
from node.model import Value
from node.route.aggregates import Context
from node.route.conditions import Outcome
from node.route.inputs import Input
from node.route.rule import Rule
from node.route.weighing import Clause, Weighed


@dataclass(frozen=True)
class Candidate:
    """A series of the study as it is known now."""

    key: int
    """Which one: `series.id`."""
    title: str
    """For people, without the patient."""
    series_uid: str
    number: int | None
    facts: Facts
    sealed: bool = True
    """False: it is still arriving, or held; its facts are those of what has come."""
    ours: str = ""
    """Why it counts as our own output."""
    incomplete: str = ""
    """Why it is incomplete."""
    prior_of: str = ""
    """The input for which it was fetched from an earlier study."""
    patient: tuple[str, str] = ("", "")
    """Patient ID and Issuer: whose it is (design §6)."""
    given: Mapping[str, Value] | None = None
    """Facts about it as a whole (`try:` cases)."""
    held: bool = False
    """It is not sealed because a person holds it."""
    barred: str = ""
    """The line of the site's `never_process` that keeps it from being an input."""
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """How far a prior is that an input asks for."""

    state: str
    """wanted, asking, fetched, none or failed."""
    reason: str = ""

    @property
    def open(self) -> bool:
        """It may still come."""
        return self.state in ("wanted", "asking")


@dataclass(frozen=True)
class Looked:
    """One series looked at for one input."""

    candidate: Candidate
    outcome: Outcome
    clauses: tuple[Clause, ...]
    used: tuple[int, ...]
    because: str


@dataclass(frozen=True)
class View:
    """One input: what was looked at, what was chosen, and why."""

    input: Input
    looked_at: tuple[Looked, ...]
    chosen: tuple[Looked, ...] = ()
    """One; with `pick: each` every one that fits."""
    why: str = ""
    waits_for: str = ""
    """What may still come and change that, in words."""


@dataclass(frozen=True)
class Combination:
    """The series of one run: input → what it takes of it, in the order of the rule's inputs."""

    parts: tuple[tuple[str, Looked], ...]
    slot: str = ""
    """With `pick: each` the Series Instance UID that tells this combination from the others."""

    @property
    def taken(self) -> tuple[tuple[str, int, int], ...]:
        """Input, `series.id` and number of images, of each."""
        return tuple((name, one.candidate.key, len(one.used)) for name, one in self.parts)


@dataclass(frozen=True)
class Ready:
    """It runs, once on each of these."""

    combinations: tuple[Combination, ...]


@dataclass(frozen=True)
class Waiting:
    """It does not run yet."""

    missing: tuple[str, ...]
    """What for, in words, an input each."""
    until: datetime


@dataclass(frozen=True)
class Over:
    """It does not run: the wait is over, or the inputs do not belong together."""

    what: str
    """skipped, quarantined or refused."""


@dataclass(frozen=True)
class Apart:
    """It has nothing to do with this study, as far as that is known."""


Verdict = Ready | Waiting | Over | Apart


@dataclass(frozen=True)
class StudyJudgement:
    """What one rule over a study says of one."""

    rule: Rule
    verdict: Verdict
    because: str
    decided_by: str = ""
    """The input that decided, a clause of `when`, or `patient`; empty where it runs."""
    clauses: tuple[Clause, ...] = ()
    """Of `when`."""
    views: tuple[View, ...] = ()
    asks: tuple[str, ...] = ()
    """Inputs whose priors are to be asked for now."""

    @property
    def runs(self) -> bool:
        """It runs now."""
        return isinstance(self.verdict, Ready)


Memo = dict[tuple[str, str, int, int], Weighed]
"""Rule, input, series and number of its images → what the input's conditions say of it."""


@dataclass(frozen=True)
class Moment:
    """When a study is judged, and what is known beside its series."""

    context: Context
    since: datetime | None = None
    """When the rule's first input was there; None: it is there only now."""
    priors: Mapping[str, Asked] = field(default_factory=dict)
    """Input → how far its prior is; not there where it was not asked for yet."""
    memo: Memo | None = None
    """What was said of sealed series before: their facts never change."""

    def until(self, at_most: timedelta) -> datetime:
        """When the wait ends."""
        return (self.since or self.context.now) + at_most
