"""run: a claimed run → the job of a worker, and what its end means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, update

from node import model
from node.derive.identity import identity
from node.flow.forms import chosen
from node.flow.manners import manner_from_json
from node.flow.numbering import number_series
from node.flow.parts import NODE_MAJOR, SOFTWARE, Parts, Started
from node.flow.queueing import queue_result
from node.flow.study_runs import lacks_inputs
from node.flow.studying import judge_again
from node.flow.withdrawing import predecessors, start_withdrawal, supersede, withdraw
from node.model import PLAIN, Exit, InstanceState, Issued, Job, Manner, RunState
from node.process.plan import plan_from_json
from node.store import intake, issued, studies, work
from node.store.database import move, note
from node.store.intake import object_path
from node.store.schema import run
from node.words import counted

LONGEST_RETRY = timedelta(minutes=10)
"""How long a failed run waits at most before it is tried again."""


_LOOKED_AT = 200
"""Runs that are looked at in one turn, for some that may start."""
_CROWDED_FOR = timedelta(minutes=1)
"""After so long a run that waits for room is looked at again."""


def startable(
    tx: Connection, parts: Parts, room: int, crowded: Mapping[str, float]
) -> list[Mapping[str, Any]]:
    """The next runs, but those all of whose results go where too much waits already: they wait, and say why.

    *crowded* is the share of the disk that what waits for such a destination takes.
    """
    found: list[Mapping[str, Any]] = []
    late: dict[tuple[str, ...], list[int]] = {}
    for row in work.due_runs(tx, parts.now(), _LOOKED_AT):
        to = tuple(sorted({name for names in json.loads(row["sends"]).values() for name in names}))
        if to and not row["shadow"] and all(name in crowded for name in to):
            late.setdefault(to, []).append(row["id"])
        elif len(found) < room:
            found.append(row)
    for names, ids in late.items():
        takes = ", ".join(f"what waits for {name} takes {crowded[name]:.0%} of the disk" for name in names)
        why = f"{takes}: above disk.per_destination ({parts.settings.disk.per_destination:.0%}), so it waits"
        work.postpone_runs(tx, ids, parts.now() + _CROWDED_FOR, why)
    return found


def start_run(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> Started | None:
    """Waiting → running: everything the worker needs, in one value; None when another was quicker."""
    if row["withdraws"]:
        return start_withdrawal(tx, parts, row)
    if lacks_inputs(row):
        judge_again(tx, parts, row, intake.study_of(tx, row["series_id"]))
        return None
    used = intake.instances_of(tx, json.loads(row["files"]))
    if any(i["state"] == InstanceState.REJECTED for i in used):  # a person had it tried again
        why = (
            "it uses objects that a rejection note names; `pacsnode replay` judges what is left of the series"
        )
        move(tx, run, row["id"], RunState.CANCELLED, expected=(RunState.WAITING,), reason=why)
        note(tx, parts.now(), "run_cancelled", why, series_id=row["series_id"], run_id=row["id"])
        return None
    attempt = work.claim_run(tx, row, parts.now())
    if attempt is None:
        return None
    plan = plan_from_json(json.loads(row["plan"]))
    inputs = {name: count for name, _, count in json.loads(row["inputs"])} if row["inputs"] else {}
    digests = _digests(row, inputs, [str(i["digest"]) for i in used])
    provenance, revision, replaced = _provenance(tx, parts, row, plan, digests)
    job = Job(
        run=row["id"],
        plan=plan,
        provenance=provenance,
        files=tuple(str(object_path(parts.data, i["receiver_run"], i["sequence"])) for i in used),
        inherited_timezone=parts.settings.node.timezone,
        revision=revision,
        predecessors=replaced,
        inputs=inputs,
    )
    return Started(row["id"], attempt, parts.data / "runs" / str(row["id"]) / str(attempt), job)


def _digests(row: Mapping[str, Any], inputs: Mapping[str, int], digests: Sequence[str]) -> Sequence[str]:
    """Of a rule over a study, each digest with the place of its input: in another role it gives something else."""
    if not inputs:
        return digests
    names = json.loads(row["plan"])["inputs"]
    roles = [f"{names.index(name)}:" for name, count in inputs.items() for _ in range(count)]
    return [f"{role}{digest}" for role, digest in zip(roles, digests, strict=True)]


def _provenance(
    tx: Connection, parts: Parts, row: Mapping[str, Any], plan: model.Plan, digests: Sequence[str]
) -> tuple[model.Provenance, int, tuple[Issued, ...]]:
    """Who makes it and since when; the revision it was first made from, and the reports it then replaced."""
    versions = {s.operator: parts.specs[s.operator].version for s in plan.steps if s.operator in parts.specs}
    key = identity(digests, plan.meaning, versions, NODE_MAJOR, 0)
    known = work.identity_of(tx, key)
    # Once: after a restart the run finds its own key there.
    if known is not None and row["fresh"] and row["identity"] != key:
        work.raise_generation(tx, key)
        known = work.identity_of(tx, key)
    if known is None:
        numbers = _series_numbers(tx, row["series_id"], plan)
        revision = (
            1 + studies.earlier_results(tx, row)
            if row["inputs"]
            else intake.revision_of(tx, row["series_id"])
        )
        work.remember_identity(tx, key, parts.now(), numbers, revision)
        known = work.identity_of(tx, key)
    assert known is not None  # noqa: S101 - inserted in this transaction
    tx.execute(update(run).where(run.c.id == row["id"]).values(identity=key))
    provenance = model.Provenance(
        identity=identity(digests, plan.meaning, versions, NODE_MAJOR, known["generation"]),
        first_run_at=known["first_run_at"],
        software=SOFTWARE,
        device=parts.settings.node.ae_titles[0],
        series_numbers=json.loads(known["series_numbers"]),
        operators=versions,
        notice=parts.settings.node.notice,
    )
    return provenance, int(known["revision"]), predecessors(tx, {**row, "identity": key}, known)


def _series_numbers(tx: Connection, series_id: int, plan: model.Plan) -> dict[str, int]:
    """Source × 100 + index, 9000 + index without one; the next that is free in the study (design §8)."""
    source, taken = work.numbers_in_study(tx, series_id)
    _, facts = intake.members_and_facts(tx, series_id)
    return number_series(plan, source, taken, facts)


def finish_run(tx: Connection, parts: Parts, started: Started, ended: Exit) -> None:
    """Running → done with its products queued, or refused, quarantined, or waiting to be tried again."""
    row = work.run_row(tx, started.run)
    if row is None or row["state"] != RunState.RUNNING or row["attempt"] != started.attempt:
        return  # we were replaced; the successor's result counts
    if ended.state is RunState.DONE and not work.settle_identity(tx, row["identity"], ended.products):
        ended = replace(
            ended, state=RunState.WAITING, reason="made other bytes than before: done again with new UIDs"
        )
    elif ended.state in (RunState.WAITING, RunState.QUARANTINED) and row["retries"] <= 0:
        ended = replace(ended, state=RunState.QUARANTINED)
    elif ended.state in (RunState.WAITING, RunState.QUARANTINED):
        ended = replace(ended, state=RunState.WAITING)
        left = {"retries": row["retries"] - 1, "failures": row["failures"] + 1}
        tx.execute(update(run).where(run.c.id == started.run).values(**left))
    judged = ended.state is RunState.DONE and not row["withdraws"]
    newer = work.newer_done_run(tx, started.run) if judged else None
    if newer is not None:  # it began before that one, and ended after it
        ended = replace(ended, state=RunState.SUPERSEDED, reason=f"the results of run {newer} are newer")
    due = parts.now() + retry_wait(row["failures"] + 1) if ended.state is RunState.WAITING else row["due_at"]
    move(
        tx, run, started.run, ended.state, expected=(RunState.RUNNING,), attempt=started.attempt,
        reason=ended.reason, finished_at=parts.now(), due_at=due,
    )  # fmt: skip
    queued = 0
    if ended.state is RunState.DONE:
        # First, so that what waits of the older run is cancelled before the same is queued anew.
        replaced = [] if row["shadow"] or row["withdraws"] else _supersede(tx, parts, started.run)
        queued = _queue_products(tx, parts, row, started, ended)
        for older in replaced:
            withdraw(tx, parts, older)
    elif ended.state is RunState.REFUSED:
        _outdate(tx, parts, row)
    detail = ended.reason or (
        f"{counted(len(ended.products), 'object')} made, {counted(queued, 'delivery')} queued"
    )
    note(tx, parts.now(), f"run_{ended.state}", detail, series_id=row["series_id"], run_id=started.run)


def _supersede(tx: Connection, parts: Parts, newer: int) -> list[int]:
    """Earlier revisions' and replays' runs of the same rule are replaced by the results of *newer*; which ones."""
    reason = f"the results of run {newer} over a later revision or replay replace these"
    found = work.supersede_older_runs(tx, newer, reason, parts.now())
    for older, series_id in found:
        note(tx, parts.now(), "run_superseded", reason, series_id=series_id, run_id=older)
    return [older for older, _ in found]


def _outdate(tx: Connection, parts: Parts, refused: Mapping[str, Any]) -> None:
    """Results made from objects that were corrected since, where the corrected ones do not suit the rule."""
    for older in issued.outdated(tx, refused["series_id"]) if not refused["shadow"] else ():
        if older["rule"] == refused["rule"]:
            why = f"objects they were made from were corrected since, and run {refused['id']} refused these"
            supersede(tx, parts, older, why)


def retry_wait(failures: int) -> timedelta:
    """How long a failed run waits: 5 s, doubled each time, at most 10 minutes."""
    return min(timedelta(seconds=5) * 2 ** (min(failures, 20) - 1), LONGEST_RETRY)


def _queue_products(
    tx: Connection, parts: Parts, row: Mapping[str, Any], started: Started, ended: Exit
) -> int:
    folder = str(started.folder.relative_to(parts.data))
    sends = _sends(row)
    # A picture is made after what it shows, so the first object of an output is what the output is.
    native = {made.output: made.kind for made in reversed(ended.products)}
    queued = 0
    for product_id, made in work.add_products(tx, started.run, folder, ended):
        for to, ways in {} if row["shadow"] else sends.get(made.output, {}).items():
            peer = parts.settings.peers.get(to)
            for way in ways:
                if peer is None or made.kind == chosen(way.forms, native[made.output], peer.shows):
                    queued += queue_result(tx, parts, product_id, made, to, way.manner, row)
    return queued


@dataclass(frozen=True, slots=True)
class _Way:
    """One way in which a result goes to one destination."""

    forms: Sequence[str] = ()
    manner: Manner = PLAIN


def _sends(row: Mapping[str, Any]) -> dict[str, dict[str, tuple[_Way, ...]]]:
    """Result → destination → the ways in which it goes there.

    Runs that older versions opened list destinations, or forms only, or have one way for each.
    """
    found: Mapping[str, Any] = json.loads(row["sends"])
    named = {name: dict.fromkeys(to, ()) if isinstance(to, list) else to for name, to in found.items()}
    return {name: {to: _ways(how) for to, how in ways.items()} for name, ways in named.items()}


def _ways(how: Any) -> tuple[_Way, ...]:
    if isinstance(how, dict):
        how = [how]
    if how and isinstance(how[0], dict):
        return tuple(_Way(one["forms"], manner_from_json(one)) for one in how)
    return (_Way(how),)
