"""What `use` and `when` say of a series: pure, and every clause explains itself. Never raises."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from node.facts import Facts
from node.model import Value
from node.route.aggregates import Context, geometry, narrowed, needs_geometry, with_aggregates
from node.route.conditions import Outcome, all_of, any_of, opposite
from node.route.conditions import judge as judge_values
from node.route.extents import judge_column
from node.route.when import Group, Line, When

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Clause:
    """One line of a rule, its verdict and the value seen."""

    name: str
    """The attribute, or `use`, `any_of`, `none_of`."""
    text: str
    outcome: Outcome
    reason: str
    line: int


@dataclass(frozen=True)
class Weighed:
    """What a `use` and a `when` say of a series."""

    outcome: Outcome
    clauses: tuple[Clause, ...]
    used: tuple[int, ...]
    """The instances that `use` picks, by their index in the facts."""
    because: str
    """The clause that decided, in words."""
    decided_by: str = ""


Geometries = dict[tuple[int, ...], Mapping[str, Value | None]]
"""Used instances → what their places tell; worked out once for all rules that use the same ones."""


def holds(when: When, facts: Facts, context: Context) -> bool:
    """Every line of *when* is yes over all instances."""
    return _block(when, _asked(when, facts, context)) is Outcome.YES


def barred(blocks: Sequence[tuple[When, str]], facts: Facts, context: Context) -> str:
    """The first of the site's `never_process` *blocks* that fits, in words; empty where none does.

    One that holds for some images only bars the series as well: what may be a phantom is not processed.
    """
    for when, place in blocks:
        if _block(when, _asked(when, facts, context)) is not Outcome.NO:
            return f"{place} ({', '.join(line.text for line in when.lines)})"
    return ""


def _asked(when: When, facts: Facts, context: Context) -> Facts:
    """What *when* asks for of all instances, with what follows from them as a whole."""
    needed = narrowed(facts, when.names())
    return with_aggregates(needed, context, geometry(needed) if needs_geometry(when.names()) else {})


def weigh(
    blocks: tuple[When, When],
    facts: Facts,
    context: Context,
    known: Geometries,
    given: Mapping[str, Value] | None = None,
) -> Weighed:
    """Judge `use` and `when` (*blocks*, in this order) over a series. Never raises."""
    use, when = blocks
    names = use.names() | when.names()
    needed = narrowed(facts, names)
    used, clauses = _used(use, needed)
    if len(used) < facts.size:
        needed = needed.only(used)
    if needs_geometry(names) and used not in known:
        known[used] = geometry(needed)
    whole = with_aggregates(needed, context, known.get(used, {}), given)
    if used:
        clauses += tuple(_clause(line, whole) for line in when.lines)
    outcome = all_of([clause.outcome for clause in clauses])
    decided = next(
        (c for wanted in (Outcome.NO, Outcome.UNDECIDED) for c in clauses if c.outcome is wanted), None
    )
    because = (
        f"{decided.name}: {decided.reason}{_wanted(when, decided)}" if decided else "every condition holds"
    )
    return Weighed(outcome, clauses, used, because, decided.name if decided else "")


def _wanted(when: When, clause: Clause) -> str:
    """What the rule asks for, unless it names a person."""
    line = next((line for line in when.lines if line.name == clause.name and line.line == clause.line), None)
    if not isinstance(line, Line) or line.attribute.private:
        return ""
    text = line.text.partition(": ")[2]
    return f"; the rule asks for {text if len(text) <= 80 else text[:79] + '…'}"


def _used(use: When, facts: Facts) -> tuple[tuple[int, ...], tuple[Clause, ...]]:
    """The instances that `use` picks, and a clause that counts and names the rest."""
    if not use.lines:
        if facts.size:
            return _everything(facts.size), ()
        return (), (Clause("use", "use", Outcome.NO, "the series has no images", 0),)
    used, outcome, reason = _of_columns(use.names(), facts, ("use", use.key()), lambda: _picked(use, facts))
    text = "use: {" + ", ".join(line.text for line in use.lines) + "}"
    return used, (Clause("use", text, outcome, reason, use.lines[0].line),)


@lru_cache(maxsize=64)
def _everything(size: int) -> tuple[int, ...]:
    return tuple(range(size))


def _of_columns(names: frozenset[str], facts: Facts, key: Hashable, make: Callable[[], Made]) -> Made:
    """What follows from these columns alone, worked out once for all rules that ask the same of them."""
    columns = tuple([facts.columns.get(name) for name in sorted(names)])
    first = next((column for column in columns if column is not None), None)
    if first is None:
        return make()
    # The columns stand in what is remembered, so that nothing else gets their numbers.
    return first.remember((key, *map(id, columns)), lambda: (columns, make()))[1]


def _picked(use: When, facts: Facts) -> tuple[tuple[int, ...], Outcome, str]:
    verdicts = _per_instance(use.names(), facts, lambda one: _block(use, one))
    used = tuple([i for i, verdict in enumerate(verdicts) if verdict is Outcome.YES])
    unclear = verdicts.count(Outcome.UNDECIDED)
    if unclear:
        reason = f"{unclear} of {facts.size} images have frames that fit and frames that do not"
        return used, Outcome.UNDECIDED, reason
    if len(used) == facts.size:
        return _everything(facts.size), Outcome.YES, f"{len(used)} of {facts.size} images"
    left_out = facts.only([i for i, verdict in enumerate(verdicts) if verdict is not Outcome.YES])
    why = "; ".join(f"{c.name}: {c.reason}" for c in _clauses(use, left_out) if c.outcome is not Outcome.YES)
    if not used:
        return used, Outcome.NO, f"none of {facts.size} images is left ({why})"
    rest = f", {left_out.size} left out ({why})" if left_out.size else ""
    return used, Outcome.YES, f"{len(used)} of {facts.size} images{rest}"


def _per_instance(names: frozenset[str], facts: Facts, verdict: Callable[[Facts], Outcome]) -> list[Outcome]:
    """The verdict on each instance alone; instances that say the same under *names* are judged once."""
    columns = {name: facts.columns[name] for name in sorted(names) if name in facts.columns}
    asked = Facts(facts.size, columns)
    if not columns:
        return [verdict(asked.one(0))] * facts.size if facts.size else []
    keys = list(zip(*(column.rows for column in columns.values()), strict=True))
    known = {key: verdict(asked.one(keys.index(key))) for key in dict.fromkeys(keys)}
    return [known[key] for key in keys]


def _block(when: When, facts: Facts) -> Outcome:
    return all_of([clause.outcome for clause in _clauses(when, facts)])


def _clauses(when: When, facts: Facts) -> Iterator[Clause]:
    for line in when.lines:
        yield _clause(line, facts)


def _clause(line: Line | Group, facts: Facts) -> Clause:
    if isinstance(line, Group):
        outcome, reason = _group(line, facts)
    else:
        outcome, reason = _judged(line, facts)
    return Clause(line.name, line.text, outcome, reason, line.line)


def _judged(line: Line, facts: Facts) -> tuple[Outcome, str]:
    """What one line says; asked once of a column, however many rules ask the same."""
    column = facts.columns.get(line.name)
    if column is None:
        return judge_values(line.condition, line.attribute, facts.seen(line.name), facts.size)
    return column.remember(
        line.condition, lambda: judge_column(line.condition, line.attribute, column, facts.size)
    )


def _group(group: Group, facts: Facts) -> tuple[Outcome, str]:
    told = []
    outcomes = []
    for block in group.blocks:
        clauses = list(_clauses(block, facts))
        outcomes.append(all_of([clause.outcome for clause in clauses]))
        told.append(" and ".join(f"{clause.name} {clause.reason}" for clause in clauses))
    outcome = any_of(outcomes)
    if outcome is Outcome.UNDECIDED:
        names = frozenset(line.name for block in group.blocks for line in block.conditions())
        key = ("refined", group.key())
        outcome = _of_columns(names, facts, key, lambda: _refined(group, facts))
    return (opposite(outcome) if group.name == "none_of" else outcome), "; ".join(told)


def _refined(group: Group, facts: Facts) -> Outcome:
    """Image by image: each may fit another of the blocks, or fit one line of a block but never all of it."""
    asks_some = any(line.condition.some for block in group.blocks for line in block.conditions())
    if facts.size < 2 or asks_some:
        return Outcome.UNDECIDED
    names = frozenset(line.name for block in group.blocks for line in block.conditions())
    distinct = set(_per_instance(names, facts, lambda one: any_of([_block(b, one) for b in group.blocks])))
    return distinct.pop() if len(distinct) == 1 else Outcome.UNDECIDED
