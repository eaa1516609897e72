"""Rows about whole studies: what a rule of `scope: study` waits for or made, and the priors that it wants."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from node.model import InstanceState, RunState, SeriesState
from node.store.database import add, rows
from node.store.schema import instance, product, run, run_input, series, study_rule, wanted_prior

WAITING = "waiting"
RAN = "ran"
IDLE = "idle"
"""States of `study_rule`; the others are what becomes of a wait: skipped, quarantined, refused."""
OPEN = ("wanted", "asking")
"""States of `wanted_prior` in which something may still come."""
_WITHOUT_FACTS = [c for c in series.c if c.name != "facts"]
_COUNTS = (SeriesState.RECEIVING, SeriesState.SEALED, SeriesState.ROUTED, SeriesState.UNROUTED)


def series_of(tx: Connection, study_uid: str) -> list[Mapping[str, Any]]:
    """The revisions of a study's own series that may be inputs or become such, oldest first, without facts.

    Neither what was discarded or rejected nor what was fetched as a prior for other studies.
    """
    where = (series.c.study_uid == study_uid) & series.c.state.in_(_COUNTS) & (series.c.prior == "")
    return rows(tx, select(*_WITHOUT_FACTS).where(where).order_by(series.c.series_uid, series.c.revision))


def revisions(tx: Connection, ids: Collection[int]) -> list[Mapping[str, Any]]:
    """These revisions, without facts."""
    return rows(tx, select(*_WITHOUT_FACTS).where(series.c.id.in_(ids)).order_by(series.c.id))


def not_valid(tx: Connection, study_uid: str) -> dict[int, str]:
    """The objects of a study that were replaced or rejected: id → state."""
    gone = (InstanceState.REPLACED, InstanceState.REJECTED)
    statement = (
        select(instance.c.id, instance.c.state)
        .join(series, series.c.id == instance.c.series_id)
        .where((series.c.study_uid == study_uid) & instance.c.state.in_(gone))
    )
    return {int(key): str(state) for key, state in tx.execute(statement)}


def made_by(tx: Connection, study_uid: str) -> dict[str, set[str]]:
    """Series Instance UID → the rules that made it here, of all that was made of a study."""
    statement = (
        select(product.c.series_uid, run.c.rule)
        .join(run, run.c.id == product.c.run_id)
        .join(series, series.c.id == run.c.series_id)
        .where(series.c.study_uid == study_uid)
        .distinct()
    )
    found: dict[str, set[str]] = {}
    for uid, rule in tx.execute(statement):
        found.setdefault(uid, set()).add(rule)
    return found


# --- what a rule makes of a study


def rule_row(tx: Connection, study_uid: str, rule: str) -> Mapping[str, Any] | None:
    """What is known of one rule and one study."""
    where = (study_rule.c.study_uid == study_uid) & (study_rule.c.rule == rule)
    found = rows(tx, select(study_rule).where(where))
    return found[0] if found else None


def set_rule(tx: Connection, study_uid: str, rule: str, **values: Any) -> None:
    """Write down what a rule makes of a study."""
    where = (study_rule.c.study_uid == study_uid) & (study_rule.c.rule == rule)
    if tx.execute(update(study_rule).where(where).values(**values)).rowcount == 0:
        add(tx, study_rule, study_uid=study_uid, rule=rule, **values)


def rule_rows(tx: Connection, study_uid: str) -> list[Mapping[str, Any]]:
    """What every rule makes of a study."""
    return rows(tx, select(study_rule).where(study_rule.c.study_uid == study_uid).order_by(study_rule.c.id))


def waiting_rules(tx: Connection, limit: int = 1000) -> list[Mapping[str, Any]]:
    """Rules that wait for an input of a study, those first whose wait ends first."""
    where = study_rule.c.due_at.is_not(None) & (study_rule.c.state == WAITING)
    return rows(
        tx, select(study_rule).where(where).order_by(study_rule.c.due_at, study_rule.c.id).limit(limit)
    )


def due_studies(tx: Connection, now: datetime) -> list[str]:
    """Studies that are to be judged again, because a wait ended or something they wait for happened."""
    where = study_rule.c.due_at.is_not(None) & (study_rule.c.due_at <= now)
    return list(tx.scalars(select(study_rule.c.study_uid).where(where).distinct().order_by("study_uid")))


def wake(tx: Connection, study_uid: str, now: datetime) -> None:
    """Something happened that the rules of a study may wait for: they are judged again in the next turn."""
    tx.execute(update(study_rule).where(study_rule.c.study_uid == study_uid).values(due_at=now))


def asleep(tx: Connection, study_uid: str, rules: Collection[str]) -> None:
    """Of rules that are not in use any more nothing is waited for."""
    gone = (study_rule.c.study_uid == study_uid) & study_rule.c.rule.not_in(rules)
    why = "the rule is not in use any more"
    waiting = gone & (study_rule.c.state == WAITING)
    tx.execute(update(study_rule).where(waiting).values(state=IDLE, reason=why))
    tx.execute(update(study_rule).where(gone).values(due_at=None))


# --- its runs


def runs_of(tx: Connection, study_uid: str, rule: str) -> list[Mapping[str, Any]]:
    """The runs of one rule over one study, the newest first, but for those that withdraw."""
    statement = (
        select(run)
        .join(series, series.c.id == run.c.series_id)
        .where((series.c.study_uid == study_uid) & (run.c.rule == rule) & (run.c.inputs != ""))
        .where(run.c.withdraws == 0)
        .order_by(run.c.turn.desc(), run.c.id.desc())
    )
    return rows(tx, statement)


def earlier_results(tx: Connection, row: Mapping[str, Any]) -> int:
    """How many earlier runs of the same rule over the same study, and for the same `each` series, gave results."""
    done = (RunState.DONE, RunState.SUPERSEDED)
    this = select(series.c.study_uid).where(series.c.id == row["series_id"]).scalar_subquery()
    statement = (
        select(run.c.turn)
        .join(series, series.c.id == run.c.series_id)
        .where((series.c.study_uid == this) & (run.c.rule == row["rule"]) & (run.c.slot == row["slot"]))
        .where(
            (run.c.inputs != "") & (run.c.withdraws == 0) & (run.c.turn < row["turn"]) & run.c.state.in_(done)
        )
        .distinct()
    )
    return len(tx.execute(statement).all())


def add_inputs(tx: Connection, run_id: int, series_ids: Iterable[int]) -> None:
    """The revisions that a run takes."""
    tx.execute(insert(run_input), [{"run_id": run_id, "series_id": key} for key in sorted(set(series_ids))])


def inputs_gone(tx: Connection, run_id: int) -> bool:
    """Retention has removed a series that a run took."""
    statement = (
        select(run_input.c.run_id)
        .join(series, series.c.id == run_input.c.series_id)
        .where((run_input.c.run_id == run_id) & series.c.removed_at.is_not(None))
    )
    return tx.execute(statement.limit(1)).first() is not None


# --- priors


def priors_of(tx: Connection, study_uid: str, rule: str = "") -> list[Mapping[str, Any]]:
    """The priors that a study's rules, or one of them, want."""
    where = wanted_prior.c.study_uid == study_uid
    if rule:
        where &= wanted_prior.c.rule == rule
    return rows(tx, select(wanted_prior).where(where).order_by(wanted_prior.c.id))


def want_prior(tx: Connection, **values: Any) -> None:
    """One more prior that is wanted."""
    add(tx, wanted_prior, **values)


def set_prior(tx: Connection, key: int, **values: Any) -> None:
    """Change a wanted prior that nobody is asking for just now."""
    where = (wanted_prior.c.id == key) & (wanted_prior.c.state != "asking")
    tx.execute(update(wanted_prior).where(where).values(**values))
