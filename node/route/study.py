"""What a rule over a study takes, waits for, or gives up: pure, and every clause explains itself. Never raises.

A rule runs as soon as nothing that is known could change what it runs on: every required input has a sealed
series; no series that is still arriving (or is held) could be an input that is missing, or be preferred over the
one that was chosen; and no earlier study is being asked for. With `then: run_without` optional inputs are
waited for even where nothing of them has come yet. When the wait is over, counted from the first input that was
there, the rule runs on what there is, if that is all it requires; else `then` says what becomes of it.

Inputs choose in the order in which the rule names them, and no series is two inputs. Of several that fit, `prefer`
decides, then the Series Number, then the Series Instance UID. What a node like this one made, incomplete series
(without `incomplete: ok`) and series of earlier studies are no inputs unless the rule says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from node.facts import Facts, gather
from node.route.aggregates import Context, narrowed
from node.route.conditions import Outcome
from node.route.rule import Rule
from node.route.study_values import (
    Apart,
    Asked,
    Candidate,
    Combination,
    Looked,
    Moment,
    Over,
    Ready,
    StudyJudgement,
    View,
    Waiting,
)
from node.route.study_views import views_of
from node.route.weighing import Clause, weigh
from node.route.when import When

__all__ = [
    "Apart",
    "Asked",
    "Candidate",
    "Combination",
    "Looked",
    "Moment",
    "Over",
    "Ready",
    "StudyJudgement",
    "View",
    "Waiting",
    "decide",
    "joined",
    "said",
]


def decide(rule: Rule, candidates: Sequence[Candidate], moment: Moment) -> StudyJudgement:
    """What *rule* says of a study with these series."""
    study = rule.study
    if study is None:
        return StudyJudgement(rule, Apart(), "the rule is for single series")
    views = tuple(views_of(rule, candidates, moment))
    apart = _nothing_there(views)
    if apart:
        return StudyJudgement(rule, Apart(), apart, _decider(views), (), views)
    outcome, clauses = _of_the_study(rule, views, moment.context)
    if outcome is not Outcome.YES:
        first = next(c for c in clauses if c.outcome is outcome)
        return StudyJudgement(rule, Apart(), f"{first.name}: {first.reason}", first.name, clauses, views)
    return _settled(rule, views, clauses, moment)


def _settled(
    rule: Rule, views: tuple[View, ...], clauses: tuple[Clause, ...], moment: Moment
) -> StudyJudgement:
    """Run, wait, or give up: some input is there, and the study is the rule's."""
    assert rule.study is not None  # noqa: S101 - asked by `decide`
    wait = rule.study.wait
    lacking = [v for v in views if not v.input.optional and not v.chosen]
    asks = _to_ask(views, moment) if all(v.input.prior is not None for v in lacking) else ()
    strangers = _strangers(views)
    if strangers:
        return StudyJudgement(rule, Over("refused"), f"patient: {strangers}", "patient", clauses, views)
    open_ones = [v for v in views if v.waits_for or (not v.chosen and _is_missed(v, rule))]
    until = moment.until(wait.at_most)
    certain = [v for v in lacking if _never_comes(v, moment)]
    if not open_ones and not lacking:
        verdict, because = Ready(_combinations(rule, views)), _on_what(views)
        return StudyJudgement(rule, verdict, because, "", clauses, views, asks)
    deciding = (lacking or open_ones)[0]
    if moment.context.now < until and not certain:
        missing = tuple(f"{v.input.name}: {v.waits_for or v.why}" for v in (*lacking, *open_ones) if v)
        missing = tuple(dict.fromkeys(missing))
        because = f"waits for {'; '.join(missing)}"
        return StudyJudgement(
            rule, Waiting(missing, until), because, deciding.input.name, clauses, views, asks
        )
    if not lacking:
        gone = ", ".join(v.input.name for v in open_ones)
        because = f"{_on_what(views)}; waited {said(wait.at_most)} for {gone}"
        return StudyJudgement(rule, Ready(_combinations(rule, views)), because, "", clauses, views, asks)
    what = "quarantined" if wait.then == "quarantine" else "skipped"
    told = "; ".join(f"{v.input.name}: {v.why}" for v in (certain or lacking))
    waited = "" if certain else f"after {said(wait.at_most)} of waiting, "
    return StudyJudgement(
        rule, Over(what), f"{waited}{told}", (certain or lacking)[0].input.name, clauses, views, asks
    )


def said(time: timedelta) -> str:
    """A duration as rules write it."""
    seconds = time.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _is_missed(view: View, rule: Rule) -> bool:
    """A missing optional input that is waited for although nothing of it has come."""
    assert rule.study is not None  # noqa: S101 - asked by `decide`
    if not view.input.optional or rule.study.wait.then != "run_without":
        return False
    return view.input.prior is None  # whether one comes of a prior is known once it was asked for


def _never_comes(view: View, moment: Moment) -> bool:
    """A prior that was asked for and is not there: waiting brings nothing."""
    asked = moment.priors.get(view.input.name)
    return view.input.prior is not None and asked is not None and not asked.open and asked.state != "fetched"


def _to_ask(views: Sequence[View], moment: Moment) -> tuple[str, ...]:
    return tuple(
        v.input.name for v in views if v.input.prior is not None and v.input.name not in moment.priors
    )


def _nothing_there(views: Sequence[View]) -> str:
    """Why the rule has nothing to do with the study: none of its own series is an input."""
    if any(v.chosen for v in views if v.input.prior is None):
        return ""
    required = [v for v in views if v.input.prior is None]
    return "no input is there: " + "; ".join(f"{v.input.name}: {v.why}" for v in required)


def _decider(views: Sequence[View]) -> str:
    return next((v.input.name for v in views if v.input.prior is None), "")


def _of_the_study(rule: Rule, views: Sequence[View], context: Context) -> tuple[Outcome, tuple[Clause, ...]]:
    """The rule's own `when` over all that was chosen of the study."""
    if not rule.when.lines:
        return Outcome.YES, ()
    chosen = [w for v in views if v.input.prior is None for w in v.chosen]
    facts = joined([narrowed(w.candidate.facts, rule.when.names()) for w in chosen])
    given = {k: v for w in chosen for k, v in (w.candidate.given or {}).items()}
    some_given = any(w.candidate.given is not None for w in chosen)
    found = weigh((When(), rule.when), facts, context, {}, given if some_given else None)
    return found.outcome, found.clauses


def joined(facts: Sequence[Facts]) -> Facts:
    """The images of several series as one."""
    return gather(
        {name: cell for name in one.columns if (cell := one.cell(name, i)) is not None}
        for one in facts
        for i in range(one.size)
    )


def _strangers(views: Sequence[View]) -> str:
    """Why the chosen series are not of one patient; empty where they are. Of priors more than this is asked before."""
    chosen = [(v.input.name, w.candidate) for v in views for w in v.chosen]
    for (name, one), (other_name, other) in pairwise(chosen):
        if one.patient != other.patient:
            what = "Patient ID" if one.patient[0] != other.patient[0] else "Issuer of Patient ID"
            return f"{name} and {other_name} differ in {what}, though they belong to one study; correct the wrong one"
    for name, one in chosen:
        if len(one.facts.seen("PatientID")) > 1:
            return f"{name}: its own images differ in Patient ID"
    return ""


def _combinations(rule: Rule, views: Sequence[View]) -> tuple[Combination, ...]:
    assert rule.study is not None  # noqa: S101 - asked by `decide`
    several = rule.study.each
    count = max((len(v.chosen) for v in views if v.input.name == several), default=1)
    found = []
    for i in range(count):
        parts = tuple(
            (v.input.name, v.chosen[i if v.input.name == several else 0]) for v in views if v.chosen
        )
        slot = next((w.candidate.series_uid for name, w in parts if name == several), "")
        found.append(Combination(parts, slot))
    return tuple(found)


def _on_what(views: Sequence[View]) -> str:
    told = []
    for view in views:
        if view.chosen:
            names = ", ".join(w.candidate.title + _left_out(w) for w in view.chosen)
            told.append(f"{view.input.name} is {names} ({view.why})")
        else:
            told.append(f"without {view.input.name} ({view.why})")
    return "; ".join(told)


def _left_out(looked: Looked) -> str:
    """Which images `use` did not take, counted and named."""
    used = next((c.reason for c in looked.clauses if c.name == "use"), "")
    return f", {used}" if "left out" in used else ""
