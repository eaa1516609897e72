"""reject: what a received rejection note means for the objects it names (design §6, IHE RAD IOCM)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.flow.withdrawing import withdraw
from node.model import EXPIRED, Header, InstanceState, RunState, SeriesState
from node.store import intake, rejections, studies
from node.store.database import note
from node.words import counted


def reject(tx: Connection, parts: Parts, note_id: int, header: Header) -> None:
    """Nothing of what the note names is processed or sent any more; what was made of it is withdrawn.

    The note itself stays an object like any other: rules route it, because a PACS needs it too.
    """
    code, now = header.rejection, parts.now()
    why = rejections.words(code, note_id)
    uids = [uid for uid in header.rejects if uid != header.sop_uid]
    rejections.remember(tx, uids, code, note_id, now)
    found = rejections.named(tx, uids)
    rejections.reject(tx, [row["id"] for row in found], why, now)
    _tell(tx, parts, found, why)
    for study_uid, series_uid in dict.fromkeys(_uids(row) for row in found if row["series_id"] is not None):
        ids = [row["id"] for row in found if _uids(row) == (study_uid, series_uid)]
        revisions = rejections.revisions_of(tx, study_uid, series_uid)
        _end_runs(tx, parts, [row["id"] for row in revisions], ids, (code, why))
        for row in revisions:
            _leave(tx, parts, row, ids, why)
        studies.wake(tx, study_uid, now)
    results = _reject_results(tx, parts, uids, why)
    said = f"{counted(len(uids), 'object')} named: {len(found)} received here, {results} made here"
    own = intake.instances_of(tx, [note_id])[0]["series_id"]
    note(tx, now, "rejection_note", f"{said}; {why}", series_id=own, instance_id=note_id)


def _uids(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["study_uid"] or "", row["series_uid"] or ""


def _tell(tx: Connection, parts: Parts, found: Sequence[Mapping[str, Any]], why: str) -> None:
    """One event per series; an object that is in none has its own."""
    of_series = Counter(row["series_id"] for row in found)
    for series_id, count in of_series.items():
        if series_id is not None:
            said = f"{counted(count, 'object')} rejected: {why}"
            note(tx, parts.now(), "objects_rejected", said, series_id=series_id)
    for row in found:
        if row["series_id"] is None:
            note(tx, parts.now(), "instance_rejected", why, instance_id=row["id"])


def _end_runs(
    tx: Connection, parts: Parts, revisions: Sequence[int], ids: Sequence[int], said: tuple[str, str]
) -> None:
    """Runs that use these objects end, a worker's too; their numbers go, and their results are withdrawn.

    What merely expired was right: results that are done stay where they are.
    """
    code, why = said
    used = rejections.runs_using(tx, revisions, ids)
    rejections.forget_measurements(tx, [row["id"] for row in used])
    for row in used:
        reason = f"it was made from rejected objects: {why}"
        if row["state"] != RunState.DONE:
            reason = f"it uses rejected objects: {why}"
        if (code == EXPIRED and row["state"] == RunState.DONE) or not rejections.end_run(
            tx, row["id"], reason, parts.now()
        ):
            continue
        note(tx, parts.now(), "run_cancelled", reason, series_id=row["series_id"], run_id=row["id"])
        if row["state"] == RunState.DONE:
            withdraw(tx, parts, row["id"])


def _leave(tx: Connection, parts: Parts, row: Mapping[str, Any], ids: Sequence[int], why: str) -> None:
    """The objects leave one revision of their series; without any other it is rejected as a whole."""
    key = row["id"]
    if key in parts.assembly.series:
        for gone in ids:
            parts.assembly.drop(key, gone)
        if parts.assembly.series[key].members:
            return
        parts.assembly.close(key)
    elif row["state"] == SeriesState.RECEIVING:
        return  # it is still to be rebuilt, from what is kept
    else:
        kept, rejected = rejections.left(tx, intake.members_and_facts(tx, key)[0])
        if kept or not rejected:
            return
    if rejections.reject_series(tx, key, why):
        note(tx, parts.now(), "series_rejected", why, series_id=key)


def _reject_results(tx: Connection, parts: Parts, uids: Sequence[str], why: str) -> int:
    """Results of ours that are rejected are not sent any more, and their runs' numbers go; how many objects."""
    made = rejections.products_named(tx, uids)
    rejections.cancel_products(tx, [row["id"] for row in made], f"rejected: {why}", parts.now())
    of_runs = Counter((row["run_id"], row["series_id"]) for row in made)
    rejections.forget_measurements(tx, [run_id for run_id, _ in of_runs])
    for (run_id, series_id), count in of_runs.items():
        said = f"{counted(count, 'result')} rejected: {why}"
        note(tx, parts.now(), "results_rejected", said, series_id=series_id, run_id=run_id)
    return len(made)


def came_rejected(
    tx: Connection,
    parts: Parts,
    record: tuple[int, int],
    header: Header,
    why: str,
    about: Mapping[str, Any],
) -> None:
    """An object that a note named before it came: kept, visible, and neither processed nor sent.

    *about* are the columns of its series, should nothing of that have come yet.
    """
    series_id = None
    if header.readable and not header.why:
        newest = intake.latest(tx, header.study_uid, header.series_uid)
        series_id = newest["id"] if newest else intake.open_series(tx, header, 1, about, parts.now())
        if not newest and rejections.reject_series(tx, series_id, why):
            note(tx, parts.now(), "series_rejected", why, series_id=series_id)
    found = intake.add_instance(
        tx, header, record, InstanceState.REJECTED, reason=f"rejected: {why}", series_id=series_id
    )
    note(tx, parts.now(), "instance_rejected", why, series_id=series_id, instance_id=found)
