"""Rows of what is to be done: runs, what they make, and under which identity.

Every claim adds 1 to `attempt`; every later update names the state and the attempt it expects, so that a
worker that was given up on can never overwrite its successor.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, insert, or_, select, update

from node.model import DeliveryState, Exit, InstanceState, Product, RunState
from node.store import deliveries
from node.store.database import add, move, one_of, rows
from node.store.schema import delivery, identity, instance, measurement, product, run, series


def add_run(tx: Connection, **values: Any) -> int | None:
    """A waiting run; None where this rule already has one for this revision, replay and run to withdraw.

    Over a study: for these inputs in this turn.
    """
    where = (
        (run.c.series_id == values["series_id"])
        & (run.c.rule == values["rule"])
        & (run.c.replay == values.get("replay", 0))
        & (run.c.withdraws == values.get("withdraws", 0))
        & (run.c.inputs == values.get("inputs", ""))
        & (run.c.turn == values.get("turn", 0))
    )
    if tx.scalar(select(run.c.id).where(where)) is not None:
        return None
    return add(tx, run, state=RunState.WAITING, **values)


def due_runs(tx: Connection, now: datetime, limit: int) -> list[Mapping[str, Any]]:
    """Waiting runs whose time has come: by priority, then age."""
    queued = one_of(run.c.state, RunState.WAITING, RunState.RUNNING)
    where = queued & (run.c.state == RunState.WAITING) & (run.c.due_at <= now)
    return rows(tx, select(run).where(where).order_by(run.c.rank, run.c.due_at, run.c.id).limit(limit))


def postpone_runs(tx: Connection, chosen: Collection[int], until: datetime, reason: str) -> None:
    """What waits goes on waiting, and says why; others go first."""
    where = run.c.id.in_(chosen) & (run.c.state == RunState.WAITING)
    tx.execute(update(run).where(where).values(due_at=until, reason=reason))


def claim_run(tx: Connection, row: Mapping[str, Any], now: datetime) -> int | None:
    """Waiting → running; the new attempt number, or None when another was quicker."""
    attempt = int(row["attempt"]) + 1
    claimed = move(
        tx, run, row["id"], RunState.RUNNING, expected=(RunState.WAITING,), attempt=row["attempt"],
    ) and tx.execute(
        update(run).where(run.c.id == row["id"]).values(attempt=attempt, started_at=now, reason="")
    ).rowcount  # fmt: skip
    return attempt if claimed else None


def cancel_older_runs(
    tx: Connection, study_uid: str, series_uid: str, revision: int, reason: str
) -> list[int]:
    """Cancel what still waits of earlier revisions of a series alone; the runs' ids."""
    older = select(series.c.id).where(
        (series.c.study_uid == study_uid)
        & (series.c.series_uid == series_uid)
        & (series.c.revision < revision)
    )
    where = run.c.series_id.in_(older) & (run.c.state == RunState.WAITING) & (run.c.withdraws == 0)
    where &= run.c.inputs == ""
    ids = [int(i) for i in tx.scalars(select(run.c.id).where(where))]
    for key in ids:
        move(tx, run, key, RunState.CANCELLED, expected=(RunState.WAITING,), reason=reason)
    return ids


def cancel_earlier_replays(tx: Connection, row: Mapping[str, Any], reason: str) -> list[int]:
    """Cancel what still waits of a series' earlier judgements, of one rule where the replay names it; run ids."""
    where = (
        (run.c.series_id == row["id"]) & (run.c.replay < row["replay"]) & (run.c.state == RunState.WAITING)
    ) & ((run.c.withdraws == 0) & (run.c.inputs == ""))
    if row["replay_rule"]:
        where &= run.c.rule == row["replay_rule"]
    ids = [int(i) for i in tx.scalars(select(run.c.id).where(where))]
    for key in ids:
        move(tx, run, key, RunState.CANCELLED, expected=(RunState.WAITING,), reason=reason)
    return ids


def _done_of_same_rule(run_id: int, later: bool) -> Select[Any]:
    """Done runs of the rule of *run_id* over the same series, of later revisions and replays, or of earlier ones.

    Over a study: of later turns for the same study, or of earlier ones.
    """
    this, mine = run.alias(), series.alias()
    order, replays, turns = (
        series.c.revision - mine.c.revision,
        run.c.replay - this.c.replay,
        run.c.turn - this.c.turn,
    )
    if later:
        beside, turned = or_(order > 0, and_(order == 0, replays > 0)), turns > 0
    else:
        beside, turned = or_(order < 0, and_(order == 0, replays < 0)), turns < 0
    of_series = (series.c.series_uid == mine.c.series_uid) & (this.c.inputs == "") & (run.c.inputs == "")
    of_study = (this.c.inputs != "") & (run.c.inputs != "") & (run.c.slot == this.c.slot)
    return (
        select(run.c.id, run.c.series_id)
        .join(series, series.c.id == run.c.series_id)
        .join(this, (this.c.id == run_id) & (this.c.rule == run.c.rule))
        .join(mine, mine.c.id == this.c.series_id)
        .where(series.c.study_uid == mine.c.study_uid)
        .where(or_(of_series & beside, of_study & turned))
        .where((run.c.state == RunState.DONE) & (run.c.withdraws == 0))
        .order_by(run.c.id)
    )


def not_running(tx: Connection, claimed: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those among claimed (run, attempt) that are not running any more: a person cancelled them."""
    if not claimed:
        return []
    where = run.c.id.in_([key for key, _ in claimed]) & (run.c.state == RunState.RUNNING)
    running = {
        (int(key), int(attempt)) for key, attempt in tx.execute(select(run.c.id, run.c.attempt).where(where))
    }
    return [one for one in claimed if one not in running]


def newer_done_run(tx: Connection, run_id: int) -> int | None:
    """The run whose results took the place of what *run_id* would give; shadow runs take nobody's place."""
    newer = _done_of_same_rule(run_id, later=True).where(~run.c.shadow).limit(1)
    return tx.scalar(newer)


def supersede_older_runs(tx: Connection, run_id: int, reason: str, now: datetime) -> list[tuple[int, int]]:
    """Done → superseded: the same rule's runs over earlier revisions and, within one, of earlier replays.

    What still waits of theirs is cancelled. The run and the series of each.
    """
    older = _done_of_same_rule(run_id, later=False)
    found = [(int(key), int(of)) for key, of in tx.execute(older)]
    for key, _ in found:
        supersede_run(tx, key, reason, now)
    return found


def supersede_run(tx: Connection, run_id: int, reason: str, now: datetime) -> bool:
    """Done → superseded, and what waits to be sent of it is cancelled; False when it is not done any more."""
    if not move(tx, run, run_id, RunState.SUPERSEDED, expected=(RunState.DONE,), reason=reason):
        return False
    made = select(product.c.id).where(product.c.run_id == run_id)
    waiting = select(delivery.c.id).where(delivery.c.product_id.in_(made))
    deliveries.cancel_deliveries(tx, tx.scalars(waiting), reason, now)
    return True


def identity_of(tx: Connection, key: str) -> Mapping[str, Any] | None:
    """What is remembered of an identity: generation, first run, series numbers, digests."""
    found = rows(tx, select(identity).where(identity.c.key == key))
    return found[0] if found else None


def remember_identity(
    tx: Connection, key: str, first_run_at: datetime, numbers: Mapping[str, int], revision: int = 1
) -> None:
    """A new identity, at its first run, over this revision of its series; what it replaces is still to be said."""
    values = {
        "first_run_at": first_run_at,
        "revision": revision,
        "series_numbers": json.dumps(dict(numbers)),
        "predecessors": "",
    }
    tx.execute(insert(identity).values(key=key, **values))


def raise_generation(tx: Connection, key: str) -> None:
    """From now on this identity stands for fresh UIDs (design §6), of reports that replace others than before."""
    values = {"generation": identity.c.generation + 1, "predecessors": ""}
    tx.execute(update(identity).where(identity.c.key == key).values(**values))


def set_predecessors(tx: Connection, key: str, predecessors: str) -> None:
    """What the reports of this identity say they replace, as JSON: fixed with its UIDs."""
    tx.execute(update(identity).where(identity.c.key == key).values(predecessors=predecessors))


def settle_identity(tx: Connection, key: str, products: Iterable[Product]) -> bool:
    """Remember the digests of what was made; False when the same UIDs already stand for other bytes.

    Then the generation was raised: the run must be done again and will get new UIDs (design §6).
    """
    found = identity_of(tx, key)
    known: dict[str, str] = json.loads(found["digests"]) if found else {}
    made = {p.sop_uid: p.digest for p in products}
    if any(known.get(uid, digest) != digest for uid, digest in made.items()):
        raise_generation(tx, key)
        return False
    tx.execute(update(identity).where(identity.c.key == key).values(digests=json.dumps({**known, **made})))
    return True


def is_ours(tx: Connection, sop_uid: str) -> bool:
    """This object was made here."""
    return tx.scalar(select(product.c.id).where(product.c.sop_uid == sop_uid).limit(1)) is not None


def add_products(tx: Connection, run_id: int, folder: str, ended: Exit) -> list[tuple[int, Product]]:
    """The products of a run that is done, with their row ids; *folder* is relative to the data folder."""
    made = [
        (add(
            tx, product, run_id=run_id, output=p.output, index=p.index, kind=p.kind, path=f"{folder}/{p.path}",
            sop_uid=p.sop_uid, sop_class=p.sop_class, transfer_syntax=p.transfer_syntax,
            series_uid=p.series_uid, digest=p.digest, size=p.size,
        ), p)
        for p in ended.products
    ]  # fmt: skip
    for m in ended.measurements:
        columns = {k: m.get(k, "") for k in ("output", "name", "derivation", "region", "unit")}
        add(tx, measurement, run_id=run_id, value=float(m["value"]), **columns)
    return made


def give_back(tx: Connection) -> tuple[list[int], int]:
    """At start nothing runs and nothing is being sent: all claims return to waiting. (run ids, deliveries)."""
    runs = [int(i) for i in tx.scalars(select(run.c.id).where(run.c.state == RunState.RUNNING))]
    for key in runs:
        move(tx, run, key, RunState.WAITING, expected=(RunState.RUNNING,), reason="the node was restarted")
    sending = delivery.c.state == DeliveryState.SENDING
    count = tx.execute(update(delivery).where(sending).values(state=DeliveryState.WAITING)).rowcount
    return runs, count


def replaced(tx: Connection, instance_id: int, why: str) -> None:
    """Kept → replaced, by a newer header."""
    move(tx, instance, instance_id, InstanceState.REPLACED, expected=(InstanceState.KEPT,), reason=why)


def run_row(tx: Connection, run_id: int) -> Mapping[str, Any] | None:
    """One run."""
    found = rows(tx, select(run).where(run.c.id == run_id))
    return found[0] if found else None


def numbers_in_study(tx: Connection, series_id: int) -> tuple[int | None, set[int]]:
    """The series' own Series Number, and those its study already has: received ones and those of results."""
    study_uid, own = tx.execute(
        select(series.c.study_uid, series.c.series_number).where(series.c.id == series_id)
    ).one()
    in_study = series.c.study_uid == study_uid
    taken = set(
        tx.scalars(select(series.c.series_number).where(in_study & series.c.series_number.is_not(None)))
    )
    made = (
        select(identity.c.series_numbers)
        .join(run, run.c.identity == identity.c.key)
        .join(series, series.c.id == run.c.series_id)
        .where(in_study)
    )
    for numbers in tx.scalars(made):
        taken.update(json.loads(numbers).values())
    return own, taken
