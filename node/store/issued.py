"""Which results left, and where they are: for what replaces them and for what takes them back (design §6).

A result is known by its SOP Instance UID: a replay makes the same once more and sends it nowhere twice, so the
delivery may belong to another run than the one that is asked about.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from node.model import REJECTION, DeliveryState, InstanceState, Issued, RunState
from node.store.database import rows
from node.store.intake import instances_of
from node.store.schema import delivery, product, run, series

HELD = (DeliveryState.STORED, DeliveryState.COMMITTED)
ON_ITS_WAY = (*HELD, DeliveryState.SENDING)


def _sent(run_id: int) -> tuple[Any, Select[Any]]:
    """The results of a run, each with every delivery under its UID that may count."""
    mine, same = product.alias(), product.alias()
    statement = (
        select(mine, delivery.c.destination)
        .join(same, (same.c.sop_uid == mine.c.sop_uid) & (same.c.digest == mine.c.digest))
        .join(delivery, delivery.c.product_id == same.c.id)
        .where((mine.c.run_id == run_id) & (mine.c.kind != REJECTION))
        .order_by(mine.c.id)
    )
    return mine, statement


def held(
    tx: Connection, run_id: int, peers: Collection[str], states: Collection[str] = HELD
) -> dict[str, list[Mapping[str, Any]]]:
    """Destination → the run's results that it has (by *states*) and that no valid run stands for as well."""
    mine, statement = _sent(run_id)
    other, of = product.alias(), run.alias()
    valid = (
        select(other.c.id)
        .join(of, of.c.id == other.c.run_id)
        .where((other.c.sop_uid == mine.c.sop_uid) & (of.c.id != run_id) & (of.c.state == RunState.DONE))
        .exists()
    )
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    where = delivery.c.state.in_(states) & delivery.c.destination.in_(peers) & ~valid
    for row in rows(tx, statement.where(where)):
        found.setdefault(row["destination"], {}).setdefault(row["sop_uid"], row)
    return {to: list(made.values()) for to, made in sorted(found.items())}


def unsettled(tx: Connection, run_id: int, peers: Collection[str]) -> bool:
    """Some of its results are just being sent, or another attempt to make the same is under way."""
    _, statement = _sent(run_id)
    sending = (delivery.c.state == DeliveryState.SENDING) & delivery.c.destination.in_(peers)
    if tx.execute(statement.where(sending).limit(1)).first() is not None:
        return True
    twin = run.alias()
    same = select(twin.c.id).join(run, (run.c.identity == twin.c.identity) & (run.c.identity != ""))
    where = (run.c.id == run_id) & (twin.c.id != run_id) & (twin.c.state == RunState.RUNNING)
    return tx.execute(same.where(where).limit(1)).first() is not None


def stands(tx: Connection, key: str) -> bool:
    """A valid run has this identity, so that its UIDs are those in use."""
    where = (run.c.identity == key) & run.c.state.in_((RunState.DONE, RunState.RUNNING))
    return tx.scalar(select(run.c.id).where(where).limit(1)) is not None


def earlier_reports(tx: Connection, row: Mapping[str, Any]) -> list[Issued]:
    """The reports that left of the newest earlier run of the same rule over the same series (PS3.3 C.17.2).

    Of a rule over a study: over the same study, and for the same `each` series.
    """
    this = series.alias()
    uids = series.c.study_uid == this.c.study_uid
    if row["inputs"]:
        uids &= (run.c.inputs != "") & (run.c.slot == row["slot"])
        before = run.c.id < row["id"]
    else:
        uids &= (series.c.series_uid == this.c.series_uid) & (run.c.inputs == "")
        before = or_(series.c.revision < this.c.revision, run.c.id < row["id"])
    earlier = (
        select(run.c.id, series.c.study_uid)
        .join(series, series.c.id == run.c.series_id)
        .join(this, (this.c.id == row["series_id"]) & uids)
        .where((run.c.rule == row["rule"]) & (run.c.withdraws == 0) & (run.c.id != row["id"]))
        .where(before)
        .order_by(run.c.turn.desc(), series.c.revision.desc(), run.c.replay.desc(), run.c.id.desc())
    )
    for run_id, study_uid in tx.execute(earlier).all():
        mine, statement = _sent(run_id)
        reports = statement.where((mine.c.kind == "report") & delivery.c.state.in_(ON_ITS_WAY))
        if found := {made["sop_uid"]: made for made in rows(tx, reports)}:
            return [issued(made, study_uid) for made in found.values()]
    return []


def issued(made: Mapping[str, Any], study_uid: str, output: str = "") -> Issued:
    """A row of `product` as others refer to it."""
    return Issued(
        output or made["output"],
        made["kind"],
        made["sop_uid"],
        made["sop_class"],
        made["series_uid"],
        study_uid,
    )


def outdated(tx: Connection, series_id: int) -> list[Mapping[str, Any]]:
    """Valid runs over earlier revisions of this series that used an object which a newer one replaced."""
    this = series.alias()
    uids = (series.c.study_uid == this.c.study_uid) & (series.c.series_uid == this.c.series_uid)
    earlier = (
        select(run)
        .join(series, series.c.id == run.c.series_id)
        .join(this, (this.c.id == series_id) & uids & (series.c.revision < this.c.revision))
        .where((run.c.state == RunState.DONE) & (run.c.withdraws == 0) & ~run.c.shadow & (run.c.inputs == ""))
        .order_by(run.c.id)
    )
    return [row for row in rows(tx, earlier) if _replaced(tx, row)]


def _replaced(tx: Connection, row: Mapping[str, Any]) -> bool:
    return any(i["state"] == InstanceState.REPLACED for i in instances_of(tx, json.loads(row["files"])))
