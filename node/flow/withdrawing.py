"""withdraw: results that are not valid any more are taken back where a rejection note is understood (design §6).

The note is made by a worker, in a run of its own (`run.withdraws`), and goes through the gate like a result. It is
made once nothing of the old is being sent any more, so that it names exactly what each peer holds; and it is
sent once everything that takes the place of the old is there (`store.queues`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, update

from node.derive.identity import identity
from node.facts import Facts
from node.flow.manners import manner_to_json
from node.flow.numbering import number_series
from node.flow.parts import NODE_MAJOR, SOFTWARE, Parts, Started
from node.model import Issued, Job, Manner, Output, Plan, Priority, Provenance, RunState
from node.process.plan import plan_to_json
from node.store import intake, issued, work
from node.store.database import move, note
from node.store.intake import object_path
from node.store.ranks import rank_of
from node.store.schema import run

_RETRIES = 3
_LATER = timedelta(seconds=2)


def withdraw(tx: Connection, parts: Parts, older: int) -> None:
    """Open the run that takes back what run *older* made, if a peer that says `iocm` has some of it."""
    found = issued.held(tx, older, _peers(parts), issued.ON_ITS_WAY)
    row = work.run_row(tx, older)
    if not found or row is None:
        return
    run_id = work.add_run(
        tx, series_id=row["series_id"], replay=row["replay"], rule=row["rule"], plan=row["plan"], sends="{}",
        files=row["files"], retries=_RETRIES, withdraws=older, due_at=parts.now(), created_at=parts.now(),
        rank=rank_of(Priority.NORMAL, parts.now()),
    )  # fmt: skip
    if run_id is not None:
        where = ", ".join(found)
        said = f"the results of run {older} at {where} are withdrawn once what replaces them is there"
        note(tx, parts.now(), "withdrawal_opened", said, series_id=row["series_id"], run_id=run_id)


def _peers(parts: Parts) -> list[str]:
    return [name for name, peer in parts.settings.peers.items() if peer.iocm]


def start_withdrawal(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> Started | None:
    """Waiting → running: what each peer holds is known now; None while it is not, or where nothing is left."""
    older = work.run_row(tx, row["withdraws"])
    if older is None or issued.unsettled(tx, older["id"], _peers(parts)):
        tx.execute(update(run).where(run.c.id == row["id"]).values(due_at=parts.now() + _LATER))
        return None
    found = issued.held(tx, older["id"], _peers(parts))
    if not found:
        why = "no peer holds any of these results"
        move(tx, run, row["id"], RunState.CANCELLED, expected=(RunState.WAITING,), reason=why,
             finished_at=parts.now())  # fmt: skip
        note(tx, parts.now(), "run_cancelled", why, series_id=row["series_id"], run_id=row["id"])
        return None
    attempt = work.claim_run(tx, row, parts.now())
    if attempt is None:
        return None
    folder = parts.data / "runs" / str(row["id"]) / str(attempt)
    return Started(row["id"], attempt, folder, _job(tx, parts, row, older, _notes(found)))


_Notes = list[tuple[list[Mapping[str, Any]], list[str]]]


def _notes(found: Mapping[str, list[Mapping[str, Any]]]) -> _Notes:
    """One note for all peers that hold the same: the results it names, and the peers."""
    notes: dict[tuple[str, ...], tuple[list[Mapping[str, Any]], list[str]]] = {}
    for to, made in found.items():
        uids = tuple(sorted(product["sop_uid"] for product in made))
        notes.setdefault(uids, (made, []))[1].append(to)
    return [notes[uids] for uids in sorted(notes)]


def _job(
    tx: Connection, parts: Parts, row: Mapping[str, Any], older: Mapping[str, Any], notes: _Notes
) -> Job:
    """All a worker needs; the same results give the same notes, however often this is tried."""
    outputs = tuple(
        Output(f"note_{i}", i, {"SeriesDescription": "Rejection Note"}) for i in range(1, len(notes) + 1)
    )
    named = [sorted(product["sop_uid"] for product in made) for made, _ in notes]
    meaning = hashlib.sha256(json.dumps(["withdrawal", named]).encode()).hexdigest()
    plan = Plan(row["rule"], meaning, (), outputs)
    key = identity([product["digest"] for made, _ in notes for product in made], meaning, {}, NODE_MAJOR, 0)
    if row["identity"] != key:
        _retire(tx, older)
    known = work.identity_of(tx, key)
    if known is None:
        _, taken = work.numbers_in_study(tx, row["series_id"])
        numbers = number_series(plan, None, taken, Facts(0))
        work.remember_identity(tx, key, parts.now(), numbers, intake.revision_of(tx, row["series_id"]))
        known = work.identity_of(tx, key)
    assert known is not None  # noqa: S101 - inserted in this transaction
    sends = {
        output.name: {name: _changed_alike(tx, uids, name) for name in to}
        for output, uids, (_, to) in zip(outputs, named, notes, strict=True)
    }
    values = {"identity": key, "plan": json.dumps(plan_to_json(plan)), "sends": json.dumps(sends)}
    tx.execute(update(run).where(run.c.id == row["id"]).values(**values))
    return Job(
        run=row["id"], plan=plan, files=_files(tx, parts, notes, older),
        inherited_timezone=parts.settings.node.timezone,
        provenance=Provenance(
            identity=identity([key], meaning, {}, NODE_MAJOR, known["generation"]),
            first_run_at=known["first_run_at"], software=SOFTWARE, device=parts.settings.node.ae_titles[0],
            series_numbers=json.loads(known["series_numbers"]),
        ),
        withdraws=_named(tx, row["series_id"], outputs, notes), why=older["reason"],
    )  # fmt: skip


def _changed_alike(tx: Connection, uids: Sequence[str], to: str) -> dict[str, Any]:
    """A note goes with the patient's number that the results it names have at that peer."""
    how = Manner(treatment=issued.treatment_of(tx, uids, to))
    return {"forms": (), **manner_to_json(how)}


def _retire(tx: Connection, older: Mapping[str, Any]) -> None:
    """UIDs that a peer was told to reject are not used again: what they stood for gets new ones (design §6)."""
    if older["identity"] and not issued.stands(tx, older["identity"]):
        work.raise_generation(tx, older["identity"])


def _named(tx: Connection, series_id: int, outputs: Sequence[Output], notes: _Notes) -> tuple[Issued, ...]:
    study_uid = intake.study_of(tx, series_id)
    return tuple(
        issued.issued(product, study_uid, output.name)
        for output, (made, _) in zip(outputs, notes, strict=True)
        for product in made
    )


def _files(tx: Connection, parts: Parts, notes: _Notes, older: Mapping[str, Any]) -> tuple[str, ...]:
    """Where patient and study of the results stand: in these, else in what they were made from."""
    made = [parts.data / p["path"] for products, _ in notes for p in products if p["removed_at"] is None]
    used = intake.instances_of(tx, json.loads(older["files"])[:20])
    return tuple(
        str(path)
        for path in (*made, *(object_path(parts.data, i["receiver_run"], i["sequence"]) for i in used))
    )


def predecessors(tx: Connection, row: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[Issued, ...]:
    """The reports that those of a run replace: looked up when its identity gets its UIDs, and fixed with these."""
    text = known["predecessors"]
    if not text:
        text = json.dumps([asdict(one) for one in issued.earlier_reports(tx, row)])
        work.set_predecessors(tx, row["identity"], text)
    return tuple(Issued(**one) for one in json.loads(text))


def supersede(tx: Connection, parts: Parts, older: Mapping[str, Any], reason: str) -> None:
    """Done → superseded though nothing newer takes the place: what waits is cancelled, the rest withdrawn."""
    if not work.supersede_run(tx, older["id"], reason, parts.now()):
        return
    note(tx, parts.now(), "run_superseded", reason, series_id=older["series_id"], run_id=older["id"])
    withdraw(tx, parts, older["id"])
