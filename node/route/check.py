"""What `pacsnode check` says of the rules: mistakes, warnings, and every `try:` case. No network, no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from node.errors import Misconfigured
from node.model import OperatorSpec
from node.route.aggregates import Context
from node.route.match import Judgement, judge
from node.route.rules import Rule, RuleSet, parse_rules, read_rules
from node.route.study_cases import against, judged, uses
from node.route.study_explain import verdict
from node.route.study_tries import StudyTry
from node.route.tries import Try
from node.route.unshown import Shows, unshown
from node.shape import Place

_CLOCK_NOT_GIVEN = Context(now=datetime(2024, 1, 1, 12, tzinfo=UTC), timezone="")
"""A case that needs the time says so in `given`; the clock of the machine must not decide it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One `try:` case and how it went."""

    rule: str
    place: str
    """file:line:column"""
    passed: bool
    message: str
    """What was expected and what happened."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `check` found."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    cases: tuple[Case, ...]
    rules: tuple[str, ...] = ()
    """Names of the rules without mistakes."""

    @property
    def ok(self) -> bool:
        """No mistake, and every case as expected."""
        return not self.errors and all(case.passed for case in self.cases)


def check(
    files: Mapping[str, str],
    specs: Mapping[str, OperatorSpec],
    peers: Mapping[str, bool],
    shows: Shows | None = None,
) -> Report:
    """Read all rules and run their cases; never raises for what stands in a rule."""
    rules, errors, warnings = read_rules(files, specs, peers)
    warnings = (*warnings, *unshown(rules, specs, shows or {}))
    return Report(errors, warnings, tuple(run_cases(rules)), tuple(rule.name for rule in rules))


def prove(files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]) -> RuleSet:
    """The rules, where all of them are right and do what their cases expect. Raises Misconfigured with every reason."""
    rules = parse_rules(files, specs, peers)
    failed = [told(case) for case in run_cases(rules.rules) if not case.passed]
    if failed:
        raise Misconfigured(*failed)
    return rules


def told(case: Case) -> str:
    """A case in a line, with its place."""
    return f"{case.place}: {case.rule}: try: {case.message}"


def run_cases(rules: Sequence[Rule]) -> Iterator[Case]:
    """Every case of every rule, in order."""
    groups: dict[str, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(rule.group, []).append(rule)
    for rule in rules:
        deciding = _deciding(rule, groups[rule.group]) if rule.group and rule.tries else (rule,)
        yield from (_any(rule, case, deciding) for case in rule.tries)


def _any(rule: Rule, case: Try | StudyTry, deciding: Sequence[Rule]) -> Case:
    return _run_study(rule, case) if isinstance(case, StudyTry) else _run(rule, case, deciding)


def _deciding(rule: Rule, group: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rule and those that `unless` and `fallback` make it depend on: most of a large group do not matter."""
    if rule.fallback:
        return (rule, *(other for other in group if other.name != rule.name))
    by_name = {other.name: other for other in group}
    needed, asked = {rule.name: rule}, list(rule.unless)
    while asked:
        name = asked.pop()
        if name in by_name and name not in needed:
            needed[name] = by_name[name]
            asked.extend(by_name[name].unless)
    return tuple(needed.values())


def _run(rule: Rule, case: Try, group: Sequence[Rule]) -> Case:
    found = judge(group, case.facts, _CLOCK_NOT_GIVEN, case.whole)[0]
    place = str(Place(rule.place.file, case.line, case.column))
    happened = f"it {_told(found)}"
    if found.runs != case.runs:
        message = f"expected runs: {_yes(case.runs)}, but {happened}"
        return Case(rule.name, place, False, message)
    if case.because and case.because not in _against(found):
        message = f"expected because: {case.because}, but {happened}"
        return Case(rule.name, place, False, message)
    return Case(rule.name, place, True, happened)


def _run_study(rule: Rule, case: StudyTry) -> Case:
    found = judged(rule, case, _CLOCK_NOT_GIVEN)
    place = str(Place(rule.place.file, case.line, case.column))
    happened = f"it {verdict(found)}"
    if found.runs != case.runs:
        return Case(rule.name, place, False, f"expected runs: {_yes(case.runs)}, but {happened}")
    if case.because and case.because not in against(found):
        return Case(rule.name, place, False, f"expected because: {case.because}, but {happened}")
    for name, wanted in case.uses.items():
        used = uses(found, name) or ("none",)
        if wanted not in used:
            said = f"expected {name}: {wanted}, but it is {', '.join(used)}; {happened}"
            return Case(rule.name, place, False, said)
    return Case(rule.name, place, True, happened)


def _yes(expected: bool) -> str:
    return "yes" if expected else "no"


def _told(found: Judgement) -> str:
    if found.runs:
        return "runs"
    return f"{'is undecided' if found.outcome == 'undecided' else 'does not run'} ({found.because})"


def _against(found: Judgement) -> frozenset[str]:
    """Every clause that speaks against running: the first one decides, but each is a true reason."""
    return frozenset({found.decided_by, *(c.name for c in found.clauses if c.outcome != "yes")})
