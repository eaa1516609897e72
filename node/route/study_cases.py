"""A `try:` case of a rule over a study, run: the made-up series become candidates."""

from __future__ import annotations

from dataclasses import replace

from node.route.aggregates import Context
from node.route.conditions import Outcome
from node.route.rule import Rule
from node.route.study import Asked, Candidate, Moment, StudyJudgement, decide
from node.route.study_tries import MadeUp, StudyTry


def judged(rule: Rule, case: StudyTry, context: Context) -> StudyJudgement:
    """What the rule says of the study of a case."""
    candidates = [_candidate(number, one) for number, one in enumerate(case.series, 1)]
    inputs = rule.study.inputs if rule.study else ()
    fetched = {one.prior for one in case.series}
    priors = {
        one.name: Asked("fetched") if one.name in fetched else Asked("none", "none is given in this case")
        for one in inputs
        if one.prior is not None
    }
    since = context.now
    return decide(rule, candidates, Moment(replace(context, now=since + case.waited), since, priors))


def _candidate(number: int, one: MadeUp) -> Candidate:
    stated = one.facts.cell("SeriesNumber", 0) if one.facts.size else None
    text = stated[0][0] if stated and stated[0] else ""
    return Candidate(
        number, one.name, f"1.{number}", int(text) if text.isdigit() else None, one.facts, one.sealed,
        prior_of=one.prior, given=one.whole,
    )  # fmt: skip


def uses(found: StudyJudgement, name: str) -> tuple[str, ...]:
    """The made-up series that an input is."""
    return tuple(w.candidate.title for v in found.views if v.input.name == name for w in v.chosen)


def against(found: StudyJudgement) -> frozenset[str]:
    """Every input and clause that speaks against running: the first one decides, but each is a true reason."""
    lacking = {v.input.name for v in found.views if v.waits_for or not (v.chosen or v.input.optional)}
    clauses = [
        *found.clauses,
        *(c for v in found.views if not v.chosen for w in v.looked_at for c in w.clauses),
    ]
    return frozenset({found.decided_by, *lacking, *(c.name for c in clauses if c.outcome is not Outcome.YES)})
