"""A judgement of a study for people (✓ ✗ ? with the value seen) and for scripts (`--json`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from node.route.conditions import Outcome
from node.route.explain import MARKS
from node.route.study import Apart, Looked, Over, Ready, StudyJudgement, View, Waiting
from node.route.weighing import Clause

_STATES = {Ready: "runs", Waiting: "waits", Apart: "apart"}


def state(found: StudyJudgement) -> str:
    """runs, waits, skipped, quarantined, refused or apart."""
    return found.verdict.what if isinstance(found.verdict, Over) else _STATES[type(found.verdict)]


def verdict(found: StudyJudgement) -> str:
    """One line: what the rule does with the study."""
    if isinstance(found.verdict, Ready):
        count = len(found.verdict.combinations)
        times = f" {count} times" if count > 1 else ""
        trial = " nothing: it is on trial (mode: shadow)" if found.rule.shadow else ""
        return f"processes and sends{times}{trial} ({found.because})"
    if isinstance(found.verdict, Waiting):
        return f"{found.because}, until {clock(found.verdict.until)}"
    if isinstance(found.verdict, Over):
        return f"does not run: {found.verdict.what} ({found.because})"
    return f"does not run ({found.because})"


def clock(at: datetime) -> str:
    """A moment for people."""
    return at.strftime("%Y-%m-%d %H:%M:%S")


def mark(found: StudyJudgement) -> str:
    """✓ where the rule runs, ? where it waits, else ✗."""
    if found.runs:
        return MARKS[Outcome.YES]
    return MARKS[Outcome.UNDECIDED if isinstance(found.verdict, Waiting) else Outcome.NO]


def lines(found: StudyJudgement) -> Iterator[str]:
    """The rule with its verdict, the study's clauses, then each input with each series that was looked at."""
    yield f"{mark(found)} {found.rule.name} ({found.rule.place.of_line}): {verdict(found)}"
    for clause in found.clauses:
        yield f"    {MARKS[clause.outcome]} {clause.text}  {clause.reason}"
    for view in found.views:
        yield f"    {_mark_of(view)} {view.input.name}{_kind(view)}: {_said(view)}"
        for looked in view.looked_at:
            yield from (f"      {line}" for line in _of_series(looked))


def _mark_of(view: View) -> str:
    if view.waits_for:
        return MARKS[Outcome.UNDECIDED]
    return MARKS[Outcome.YES if view.chosen or view.input.optional else Outcome.NO]


def _kind(view: View) -> str:
    told = ["optional"] if view.input.optional else []
    told += [f"prior from {view.input.prior.at}"] if view.input.prior is not None else []
    return f" ({', '.join(told)})" if told else ""


def _said(view: View) -> str:
    chosen = ", ".join(looked.candidate.title for looked in view.chosen)
    told = f"{chosen}: {view.why}" if chosen else view.why
    return f"{told}; {view.waits_for}" if view.waits_for else told


def _of_series(looked: Looked) -> Iterator[str]:
    yield f"{MARKS[looked.outcome]} {looked.candidate.title}: {looked.because}"
    for clause in looked.clauses:
        if clause.outcome is not Outcome.YES:
            yield f"    {MARKS[clause.outcome]} {clause.text}  {clause.reason}"


def as_json(found: StudyJudgement) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "rule": found.rule.name,
        "place": found.rule.place.of_line,
        "scope": "study",
        "state": state(found),
        "runs": found.runs,
        "because": found.because,
        "decided_by": found.decided_by,
        "until": found.verdict.until.isoformat() if isinstance(found.verdict, Waiting) else None,
        "clauses": [_clause(c) for c in found.clauses],
        "inputs": [_view(view) for view in found.views],
    }


def _view(view: View) -> dict[str, Any]:
    return {
        "input": view.input.name,
        "optional": view.input.optional,
        "chosen": [looked.candidate.title for looked in view.chosen],
        "why": view.why,
        "waits_for": view.waits_for,
        "series": [
            {
                "title": looked.candidate.title,
                "series_uid": looked.candidate.series_uid,
                "outcome": str(looked.outcome),
                "because": looked.because,
                "used": len(looked.used),
                "clauses": [_clause(c) for c in looked.clauses],
            }
            for looked in view.looked_at
        ],
    }


def _clause(clause: Clause) -> dict[str, Any]:
    return {
        "name": clause.name,
        "text": clause.text,
        "outcome": str(clause.outcome),
        "reason": clause.reason,
        "line": clause.line,
    }
