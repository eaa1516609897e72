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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from node.facts import Facts, gather
from node.model import Value
from node.route.aggregates import Context, narrowed
from node.route.conditions import Outcome
from node.route.inputs import Input
from node.route.match import Clause, Geometries, weigh
from node.route.preferring import Ranked, could_beat, could_fit, ranked
from node.route.rule import Rule
from node.route.when import When


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


@dataclass(frozen=True)
class Moment:
    """When a study is judged, and what is known beside its series."""

    context: Context
    since: datetime | None = None
    """When the rule's first input was there; None: it is there only now."""
    priors: Mapping[str, Asked] = field(default_factory=dict)
    """Input → how far its prior is; not there where it was not asked for yet."""

    def until(self, at_most: timedelta) -> datetime:
        """When the wait ends."""
        return (self.since or self.context.now) + at_most


def decide(rule: Rule, candidates: Sequence[Candidate], moment: Moment) -> StudyJudgement:
    """What *rule* says of a study with these series."""
    study = rule.study
    if study is None:
        return StudyJudgement(rule, Apart(), "the rule is for single series")
    views = tuple(_views(rule, candidates, moment))
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


def _views(rule: Rule, candidates: Sequence[Candidate], moment: Moment) -> Iterator[View]:
    """Each input in turn; what an earlier one took is not there for a later one."""
    assert rule.study is not None  # noqa: S101 - asked by `decide`
    taken: dict[int, str] = {}
    known: dict[int, Geometries] = {}
    for one in rule.study.inputs:
        mine = [c for c in candidates if c.prior_of == (one.name if one.prior is not None else "")]
        looked_at = [_weigh(rule, one, c, moment.context, known.setdefault(c.key, {}), taken) for c in mine]
        view = _view(one, looked_at, moment)
        taken |= {w.candidate.key: one.name for w in view.chosen}
        yield view


def _weigh(
    rule: Rule,
    one: Input,
    candidate: Candidate,
    context: Context,
    known: Geometries,
    taken: Mapping[int, str],
) -> Looked:
    found = weigh((one.use, one.when), candidate.facts, context, known, candidate.given)
    outcome, because = found.outcome, found.because
    against = ""
    if candidate.key in taken:
        against = f"it is {taken[candidate.key]} already"
    elif candidate.ours and not one.ours:
        against = f"ours: {candidate.ours}; such are inputs only with ours: ok"
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
