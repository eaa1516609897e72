"""Which rules apply to a series or an object: what they say of it alone, and what their group says. Never raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from node.facts import Facts
from node.model import RECEIVED, Value
from node.route.aggregates import Context
from node.route.conditions import Outcome
from node.route.rules import Rule
from node.route.weighing import Clause, Geometries, weigh

__all__ = ["Context", "Judgement", "judge", "judge_immediate"]


@dataclass(frozen=True)
class Judgement:
    """What one rule says about one series."""

    rule: Rule
    outcome: Outcome
    """Over `use` and `when` alone."""
    clauses: tuple[Clause, ...]
    used: tuple[int, ...]
    """The instances `use` picked, by their index in the facts."""
    because: str
    """What decided, in words, beginning with `decided_by`."""
    decided_by: str = ""
    """The clause that decided, or `unless`, `fallback`, `incomplete`, `ours` …; empty when it applies."""
    runs: bool = False
    """The rule applies: its `do` runs; without `do`, its sends or its discard count."""
    routes: bool = False
    """Its `received` sends apply: they wait neither for completeness nor for processing."""


def judge(
    rules: Sequence[Rule], facts: Facts, context: Context, given: Mapping[str, Value] | None = None
) -> tuple[Judgement, ...]:
    """Every rule over a sealed series; *given* replaces facts about the whole (for `try:` cases).

    Rules over a study are none of these: `study.decide` judges them.
    """
    known: Geometries = {}
    alone = [
        _own_conditions(_alone(rule, facts, context, known, given), context)
        for rule in rules
        if rule.study is None
    ]
    return _grouped(alone)


def judge_immediate(rules: Sequence[Rule], facts: Facts, context: Context) -> tuple[Judgement, ...]:
    """The rules that send each object as it arrives, over the facts of one object.

    `runs` and `routes` both say whether the object goes out now; a later `judge` decides about `do`.
    """
    known: Geometries = {}
    alone = [_alone(rule, facts, context, known) for rule in rules if rule.study is None]
    found = _grouped([replace(j, runs=j.outcome is Outcome.YES) for j in alone])
    return tuple(replace(j, runs=j.routes) for j in found if any(s.immediate for s in j.rule.sends))


def _alone(
    rule: Rule,
    facts: Facts,
    context: Context,
    known: Geometries,
    given: Mapping[str, Value] | None = None,
) -> Judgement:
    found = weigh((rule.use, rule.when), facts, context, known, given)
    sends = not rule.shadow and any(send.what == RECEIVED for send in rule.sends)
    routes = found.outcome is Outcome.YES and sends
    return Judgement(
        rule, found.outcome, found.clauses, found.used, found.because, found.decided_by, routes=routes
    )


def _own_conditions(judgement: Judgement, context: Context) -> Judgement:
    """Our own outputs and what the site bars are not processed, incomplete series only where the rule says ok."""
    rule = judgement.rule
    if judgement.outcome is not Outcome.YES:
        return judgement
    if context.ours and rule.steps:
        because = f"ours: {context.ours}; our own outputs may be routed but are not processed"
        return replace(judgement, decided_by="ours", because=because)
    if context.barred and rule.steps:
        because = f"never_process: {context.barred}; it may be routed but is not processed"
        return replace(judgement, decided_by="never_process", because=because)
    if context.incomplete and not rule.incomplete_ok and (rule.steps or rule.discard):
        because = f"incomplete: {context.incomplete}; the rule does not say incomplete: ok"
        return replace(judgement, decided_by="incomplete", because=because)
    return replace(judgement, runs=True)


def _grouped(alone: Sequence[Judgement]) -> tuple[Judgement, ...]:
    """`unless` first, then `fallback`: a fallback applies when no other rule of its group does."""
    by_name = {j.rule.name: j for j in alone}
    settled: dict[str, Judgement] = {}
    for judgement in alone:
        if not judgement.rule.fallback:
            _settle(judgement, by_name, settled, ())
    for judgement in alone:
        if judgement.rule.fallback:
            settled[judgement.rule.name] = _fallback(judgement, settled)
    return tuple(settled[j.rule.name] for j in alone)


def _settle(
    judgement: Judgement,
    by_name: Mapping[str, Judgement],
    settled: dict[str, Judgement],
    asking: tuple[str, ...],
) -> Judgement:
    rule = judgement.rule
    if rule.name in settled:
        return settled[rule.name]
    for name in rule.unless:
        other = by_name.get(name)
        if (
            other is None or other.rule.fallback or name in (*asking, rule.name)
        ):  # a circle is refused at load
            continue
        if (
            _stands(_settle(other, by_name, settled, (*asking, rule.name)))
            and judgement.outcome is Outcome.YES
        ):
            judgement = _stopped(judgement, "unless", f"rule {name} applies")
            break
    settled[rule.name] = judgement
    return judgement


def _fallback(judgement: Judgement, settled: Mapping[str, Judgement]) -> Judgement:
    group = judgement.rule.group
    first = next(
        (j for j in settled.values() if j.rule.group == group and not j.rule.fallback and _stands(j)), None
    )
    if first is None or judgement.outcome is not Outcome.YES:
        return judgement
    return _stopped(judgement, "fallback", f"rule {first.rule.name} of group {group} applies")


def _stands(judgement: Judgement) -> bool:
    """It keeps others from running; a rule on trial (`mode: shadow`) never does."""
    return (judgement.runs or judgement.routes) and not judgement.rule.shadow


def _stopped(judgement: Judgement, by: str, why: str) -> Judgement:
    return replace(judgement, runs=False, routes=False, decided_by=by, because=f"{by}: {why}")
