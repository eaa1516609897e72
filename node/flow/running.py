"""run: a claimed run → the job of a worker, and what its end means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, update

from node import model
from node.derive.identity import identity
from node.flow.parts import NODE_MAJOR, SOFTWARE, Parts
from node.model import Exit, Job, RunState
from node.process.plan import plan_from_json
from node.store import intake, work
from node.store.database import move, note
from node.store.intake import object_path
from node.store.schema import run


@dataclass(frozen=True, slots=True)
class Started:
    """One attempt of a run, ready for a worker."""

    run: int
    attempt: int
    folder: Path
    job: Job


def start_run(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> Started | None:
    """Waiting → running: everything the worker needs, in one value; None when another was quicker."""
    attempt = work.claim_run(tx, row, parts.now())
    if attempt is None:
        return None
    plan = plan_from_json(json.loads(row["plan"]))
    used = intake.instances_of(tx, json.loads(row["files"]))
    provenance, revision = _provenance(tx, parts, row, plan, [str(i["digest"]) for i in used])
    job = Job(
        run=row["id"],
        plan=_saying_revision(plan, revision),
        provenance=provenance,
        files=tuple(str(object_path(parts.data, i["receiver_run"], i["sequence"])) for i in used),
        inherited_timezone=parts.settings.node.timezone,
    )
    return Started(row["id"], attempt, parts.data / "runs" / str(row["id"]) / str(attempt), job)


def _saying_revision(plan: model.Plan, revision: int) -> model.Plan:
    """From the second revision on, the description of every result ends `(rev 2)` (design §6)."""
    if revision == 1:
        return plan
    return replace(plan, outputs=tuple(_described(output, revision) for output in plan.outputs))


def _described(output: model.Output, revision: int) -> model.Output:
    template = output.attributes.get("SeriesDescription", f"{{SeriesDescription}} {output.name}")
    attributes = {**output.attributes, "SeriesDescription": f"{template} (rev {revision})"}
    return replace(output, attributes=attributes)


def _provenance(
    tx: Connection, parts: Parts, row: Mapping[str, Any], plan: model.Plan, digests: Sequence[str]
) -> tuple[model.Provenance, int]:
    """Who makes it and since when, and the revision of the series that it was first made from."""
    versions = {s.operator: parts.specs[s.operator].version for s in plan.steps if s.operator in parts.specs}
    key = identity(digests, plan.meaning, versions, NODE_MAJOR, 0)
    known = work.identity_of(tx, key)
    if known is None:
        numbers, revision = (
            _series_numbers(tx, row["series_id"], plan),
            intake.revision_of(tx, row["series_id"]),
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
    )
    return provenance, int(known["revision"])


def _series_numbers(tx: Connection, series_id: int, plan: model.Plan) -> dict[str, int]:
    """Source × 100 + output index, 9000 + index without one; the next that is free in the study (design §8)."""
    source, taken = work.numbers_in_study(tx, series_id)
    numbers: dict[str, int] = {}
    for output in plan.outputs:
        number = first_number(source) + output.index
        while number in taken:
            number += 1
        taken.add(number)
        numbers[output.name] = number
    return numbers


def first_number(source: int | None) -> int:
    """What output indices are added to; a Series Number is an IS, at most 2³¹ − 1 (PS3.5 6.2)."""
    return source * 100 if source is not None and 0 < source < 2**31 // 100 - 100 else 9000


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
    due = parts.now() + retry_wait(row["failures"] + 1) if ended.state is RunState.WAITING else row["due_at"]
    move(
        tx, run, started.run, ended.state, expected=(RunState.RUNNING,), attempt=started.attempt,
        reason=ended.reason, finished_at=parts.now(), due_at=due,
    )  # fmt: skip
    queued = 0
    if ended.state is RunState.DONE:
        queued = _queue_products(tx, parts, row, started, ended)
        newer = f"the results of run {started.run} over a later revision replace these"
        for older in work.supersede_older_runs(tx, started.run, newer, parts.now()):
            note(tx, parts.now(), "run_superseded", newer, series_id=row["series_id"], run_id=older)
    detail = ended.reason or f"{len(ended.products)} objects made, {queued} deliveries queued"
    note(tx, parts.now(), f"run_{ended.state}", detail, series_id=row["series_id"], run_id=started.run)


def retry_wait(failures: int) -> timedelta:
    """How long a failed run waits: 5 s, doubled each time, at most 10 minutes."""
    return timedelta(seconds=min(5 * 2 ** (failures - 1), 600))


def _queue_products(
    tx: Connection, parts: Parts, row: Mapping[str, Any], started: Started, ended: Exit
) -> int:
    folder = str(started.folder.relative_to(parts.data))
    sends: Mapping[str, Sequence[str]] = json.loads(row["sends"])
    queued = 0
    for product_id, made in work.add_products(tx, started.run, folder, ended):
        for to in () if row["shadow"] else sends.get(made.output, ()):
            if to not in parts.settings.peers:
                note(tx, parts.now(), "delivery_refused", f"{to} is not among the peers any more",
                     run_id=started.run, destination=to)  # fmt: skip
            elif parts.settings.peers[to].only == "deidentified":
                note(tx, parts.now(), "delivery_refused", f"{to} takes only de-identified data",
                     run_id=started.run, destination=to)  # fmt: skip
            else:
                queued += work.deliver_product(tx, product_id, made, to, row["rule"], parts.now())
    return queued
