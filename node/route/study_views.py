"""Each input of a rule over a study: which series were looked at, which was chosen, and what may change that. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from node.route.aggregates import CLOCK, Context
from node.route.conditions import Outcome
from node.route.inputs import Input
from node.route.preferring import Ranked, could_beat, could_fit, ranked
from node.route.rule import Rule
from node.route.study_values import Asked, Candidate, Looked, Moment, View
from node.route.weighing import Geometries, Weighed, weigh

_MOST = 1024
"""Judgements that are remembered; beyond, all are forgotten and made again."""


def views_of(rule: Rule, candidates: Sequence[Candidate], moment: Moment) -> Iterator[View]:
    """Each input in turn; what an earlier one took is not there for a later one."""
    assert rule.study is not None  # noqa: S101 - asked by `decide`
    taken: dict[int, str] = {}
    known: dict[int, Geometries] = {}
    for one in rule.study.inputs:
        mine = [c for c in candidates if c.prior_of == (one.name if one.prior is not None else "")]
        looked_at = [
            _looked(rule, one, c, taken, _weighed(rule, one, c, moment, known.setdefault(c.key, {})))
            for c in mine
        ]
        view = _view(one, looked_at, moment)
        taken |= {w.candidate.key: one.name for w in view.chosen}
        yield view


def _weighed(rule: Rule, one: Input, candidate: Candidate, moment: Moment, known: Geometries) -> Weighed:
    """What the input's conditions say of a series; of a sealed one it is remembered, unless they ask for the clock."""
    context = replace(moment.context, revision=candidate.revision)
    timeless = CLOCK.isdisjoint(one.use.names() | one.when.names())
    if moment.memo is None or not candidate.sealed or not timeless:
        return weigh((one.use, one.when), candidate.facts, context, known, candidate.given)
    key = (rule.name, one.name, candidate.key, candidate.facts.size)
    if key not in moment.memo:
        if len(moment.memo) >= _MOST:
            moment.memo.clear()
        moment.memo[key] = weigh((one.use, one.when), candidate.facts, context, known, candidate.given)
    return moment.memo[key]


def _looked(rule: Rule, one: Input, candidate: Candidate, taken: Mapping[int, str], found: Weighed) -> Looked:
    outcome, because = found.outcome, found.because
    against = ""
    if candidate.key in taken:
        against = f"it is {taken[candidate.key]} already"
    elif candidate.ours and not one.ours:
        against = f"ours: {candidate.ours}; such are inputs only with ours: ok"
    elif candidate.barred:
        against = f"never_process: {candidate.barred}"
    elif candidate.incomplete and candidate.sealed and not rule.incomplete_ok:
        against = f"incomplete: {candidate.incomplete}; the rule does not say incomplete: ok"
    elif not candidate.sealed and candidate.facts.size:
        # A whole series may say less than its first images, never more: what fails now fails then.
        fits, because = could_fit(one, found)
        outcome = Outcome.YES if fits else Outcome.NO
    elif not candidate.sealed:
        outcome, because = Outcome.YES, "none of its images is known yet"
    if against and outcome is not Outcome.NO:
        outcome, because = Outcome.NO, against
    return Looked(candidate, outcome, found.clauses, found.used, because)


def _view(one: Input, looked_at: Sequence[Looked], moment: Moment) -> View:
    fitting = [w for w in looked_at if w.outcome is Outcome.YES]
    sealed = [w for w in fitting if w.candidate.sealed]
    order = [Ranked(w.candidate.facts.only(w.used), w.candidate, w) for w in sealed]
    ranks = ranked(one.prefer, order, moment.context)
    arriving = [w for w in fitting if not w.candidate.sealed]
    if ranks and one.each:
        chosen = tuple(r.of for r in ranks)
        return View(one, tuple(looked_at), chosen, f"{len(chosen)} that fit, a run for each", "")
    if ranks:
        best = ranks[0]
        rival = next((w for w in arriving if _may_win(one, best, w, moment.context)), None)
        waits = f"{_coming(rival.candidate)} and may be preferred" if rival else ""
        return View(one, tuple(looked_at), (best.of,), best.why, waits)
    waits = _coming(arriving[0].candidate) if arriving else ""
    asked = moment.priors.get(one.name)
    if one.prior is not None:
        return View(one, tuple(looked_at), (), *_of_a_prior(one, asked))
    return View(one, tuple(looked_at), (), _none_fits(looked_at), waits)


def _coming(candidate: Candidate) -> str:
    return f"{candidate.title} {'is held' if candidate.held else 'is still arriving'}"


def _may_win(one: Input, best: Ranked[Looked], rival: Looked, context: Context) -> bool:
    if rival.candidate.series_uid == best.candidate.series_uid:
        return True  # a newer revision of it
    return could_beat(one.prefer, best, Ranked(rival.candidate.facts, rival.candidate, rival), context)


def _of_a_prior(one: Input, asked: Asked | None) -> tuple[str, str]:
    """Why a prior is not there, and what may still come."""
    at = one.prior.at if one.prior else ""
    if asked is None:
        return f"{at} is not asked yet", f"{at} is to be asked for an earlier study"
    if asked.open:
        return f"{at} is asked", f"{at} is asked for an earlier study"
    return asked.reason or f"{at} has none", ""


def _none_fits(looked_at: Sequence[Looked]) -> str:
    if not looked_at:
        return "no series of this kind came"
    closest = min(looked_at, key=lambda w: sum(c.outcome is not Outcome.YES for c in w.clauses))
    count = len(looked_at)
    of = "the one series does not fit" if count == 1 else f"none of {count} series fits"
    return f"{of}; {closest.candidate.title}: {closest.because}"
