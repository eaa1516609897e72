"""Rows of what was received: cursors, instances, and the revisions of series."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal_column, select, update

from node.facts import Facts
from node.model import Header, InstanceState, SeriesState
from node.store.database import add, move, one_of, rows
from node.store.records import OBJECT, bucket_folder
from node.store.schema import cursor, instance, rejection, series

_WITHOUT_FACTS = [c for c in series.c if c.name != "facts"]

# Asked for every object that comes: statements are built once, since building costs several times what running does.
_SET_CURSOR = (
    update(cursor)
    .where(cursor.c.receiver_run == bindparam("receiver"))
    .values(sequence=bindparam("taken", type_=cursor.c.sequence.type))
)
_HAS_FILE = select(instance.c.id).where(
    (instance.c.receiver_run == bindparam("receiver")) & (instance.c.sequence == bindparam("taken"))
)
_WITH_FILES = select(instance.c.receiver_run, instance.c.sequence).where(
    (instance.c.receiver_run == bindparam("receiver"))
    & instance.c.sequence.in_(bindparam("taken", expanding=True))
)
_WITH_UIDS = select(instance.c.sop_uid).where(instance.c.sop_uid.in_(bindparam("uids", expanding=True)))
_REJECTED = select(rejection.c.sop_uid).where(rejection.c.sop_uid.in_(bindparam("uids", expanding=True)))
_KEPT = (
    select(instance, series.c.study_uid, series.c.series_uid)
    .outerjoin(series, series.c.id == instance.c.series_id)
    .where(instance.c.sop_uid == bindparam("uid"))
    .where(instance.c.state == literal_column(f"'{InstanceState.KEPT.value}'"))  # in the index's own words
)
_ADOPT = (
    update(instance)
    .where(instance.c.id == bindparam("key"))
    .values(
        state=InstanceState.KEPT,
        series_id=bindparam("of_series", type_=instance.c.series_id.type),
        reason=bindparam("why", type_=instance.c.reason.type),
    )
)
_LATEST = (
    select(*_WITHOUT_FACTS)
    .where((series.c.study_uid == bindparam("study")) & (series.c.series_uid == bindparam("uid")))
    .where(series.c.prior == "")
    .order_by(series.c.revision.desc())
    .limit(1)
)
_TOUCHED = (
    update(series)
    .where(series.c.id == bindparam("key"))
    .values(
        last_at=bindparam("now", type_=series.c.last_at.type),
        instances=series.c.instances + bindparam("more"),
    )
)


def cursor_of(tx: Connection, receiver_run: int) -> int:
    """The last sequence that was taken in of a receiver run; 0 before the first."""
    found = tx.scalar(select(cursor.c.sequence).where(cursor.c.receiver_run == receiver_run))
    return 0 if found is None else int(found)


def set_cursor(tx: Connection, receiver_run: int, sequence: int) -> None:
    """Everything up to *sequence* is taken in."""
    if tx.execute(_SET_CURSOR, {"receiver": receiver_run, "taken": sequence}).rowcount == 0:
        tx.execute(insert(cursor).values(receiver_run=receiver_run, sequence=sequence))


def has_file(tx: Connection, receiver_run: int, sequence: int) -> bool:
    """This record is already an instance."""
    return tx.scalar(_HAS_FILE, {"receiver": receiver_run, "taken": sequence}) is not None


def strangers(tx: Connection, group: Mapping[tuple[int, int], str]) -> set[str]:
    """The SOP Instance UIDs of a group of records of which no table knows anything: most, where a scanner sends.

    *group* is record → UID. A UID that two of them have is none.
    """
    by_run: dict[int, list[int]] = {}
    for receiver_run, sequence in group:
        by_run.setdefault(receiver_run, []).append(sequence)
    known = {uid for uid, count in Counter(group.values()).items() if count > 1 or not uid}
    for receiver_run, taken in by_run.items():
        found = tx.execute(_WITH_FILES, {"receiver": receiver_run, "taken": taken})
        known.update(group[row.receiver_run, row.sequence] for row in found)
    uids = list(set(group.values()) - known)
    for statement in (_WITH_UIDS, _REJECTED) if uids else ():
        known.update(tx.scalars(statement, {"uids": uids}))
    return set(uids) - known


def kept(tx: Connection, sop_uid: str) -> Mapping[str, Any] | None:
    """The instance that is kept under a SOP Instance UID, with the UIDs of its series."""
    found = rows(tx, _KEPT, {"uid": sop_uid})
    return found[0] if found else None


def add_instance(
    tx: Connection,
    header: Header,
    record: tuple[int, int],
    state: InstanceState,
    *,
    reason: str,
    series_id: int | None,
) -> int:
    """Insert one received object and return its id."""
    return add(
        tx, instance,
        receiver_run=record[0], sequence=record[1], state=state, reason=reason, series_id=series_id,
        sop_uid=header.sop_uid or None, sop_class=header.sop_class, transfer_syntax=header.transfer_syntax,
        digest=header.digest, pixel_digest=header.pixel_digest, pixels_at=header.pixels_at, size=header.size,
        peer=header.peer, association=header.association, received_at=header.received_at,
    )  # fmt: skip


def hold_series(tx: Connection, series_id: int, why: str) -> None:
    """Nothing is routed of this revision until a person releases it."""
    tx.execute(update(series).where(series.c.id == series_id).values(held=why))


def adopt(tx: Connection, instance_id: int, series_id: int | None, why: str) -> None:
    """An instance is kept, in its series; *why* says why it has none."""
    tx.execute(_ADOPT, {"key": instance_id, "of_series": series_id, "why": why})


def explain_instance(tx: Connection, instance_id: int, why: str) -> None:
    """Say better why an instance is in its state."""
    tx.execute(update(instance).where(instance.c.id == instance_id).values(reason=why))


def set_aside(tx: Connection, instance_id: int, to: InstanceState, why: str) -> bool:
    """A kept instance is out of its series; False when it is not kept any more."""
    return move(tx, instance, instance_id, to, expected=(InstanceState.KEPT,), series_id=None, reason=why)


def by_id(tx: Connection, series_id: int) -> Mapping[str, Any]:
    """One revision, without its facts."""
    return rows(tx, select(*_WITHOUT_FACTS).where(series.c.id == series_id))[0]


def revision_of(tx: Connection, series_id: int) -> int:
    """Which revision of its series a row is."""
    return int(tx.execute(select(series.c.revision).where(series.c.id == series_id)).scalar_one())


def study_of(tx: Connection, series_id: int) -> str:
    """The Study Instance UID of a series."""
    return str(tx.execute(select(series.c.study_uid).where(series.c.id == series_id)).scalar_one())


def revision_before(tx: Connection, series_id: int) -> int | None:
    """The id of the previous revision of the same series."""
    this = series.alias()
    where = (
        (this.c.id == series_id)
        & (series.c.study_uid == this.c.study_uid)
        & (series.c.series_uid == this.c.series_uid)
        & (series.c.revision < this.c.revision)
    )
    return tx.scalar(select(series.c.id).where(where).order_by(series.c.revision.desc()).limit(1))


def removed_before(tx: Connection, series_id: int) -> int:
    """How many objects of earlier revisions retention removed that did not come again and nobody rejected."""
    this, again = series.alias(), instance.alias()
    earlier = (
        select(series.c.id)
        .join(this, (series.c.study_uid == this.c.study_uid) & (series.c.series_uid == this.c.series_uid))
        .where((this.c.id == series_id) & (series.c.revision < this.c.revision) & (series.c.prior == ""))
    )
    kept = select(again.c.id).where(
        (again.c.sop_uid == instance.c.sop_uid) & (again.c.state == InstanceState.KEPT)
    )
    rejected = select(rejection.c.sop_uid).where(rejection.c.sop_uid == instance.c.sop_uid)
    gone = instance.c.series_id.in_(earlier) & (instance.c.state == InstanceState.REMOVED)
    counted = select(func.count(instance.c.sop_uid.distinct()))
    return int(tx.execute(counted.where(gone & ~kept.exists() & ~rejected.exists())).scalar_one())


def fresh_duplicates(tx: Connection, most: int) -> list[tuple[int, int]]:
    """The records of duplicates among the last *most* that each receiver run's cursor passed."""
    statement = (
        select(instance.c.receiver_run, instance.c.sequence)
        .join(cursor, cursor.c.receiver_run == instance.c.receiver_run)
        .where(instance.c.sequence > cursor.c.sequence - most)
        .where(instance.c.state == InstanceState.DUPLICATE)
    )
    return [(int(receiver_run), int(sequence)) for receiver_run, sequence in tx.execute(statement)]


def latest(tx: Connection, study_uid: str, series_uid: str) -> Mapping[str, Any] | None:
    """The newest revision of a series that arrived, without its facts; what was fetched as a prior is none."""
    found = rows(tx, _LATEST, {"study": study_uid, "uid": series_uid})
    return found[0] if found else None


def open_series(
    tx: Connection, header: Header, revision: int, about: Mapping[str, Any], now: datetime
) -> int:
    """A new receiving revision; *about* holds the columns that people search by."""
    return add(
        tx, series,
        study_uid=header.study_uid, series_uid=header.series_uid, revision=revision, state=SeriesState.RECEIVING,
        opened_at=now, last_at=now, **about,
    )  # fmt: skip


def seal_series(
    tx: Connection,
    series_id: int,
    reason: str,
    incomplete: str,
    *,
    members: Sequence[int],
    facts: Facts,
    now: datetime,
) -> bool:
    """Receiving → sealed, with its members and facts; False when it is not receiving any more."""
    blob = zlib.compress(json.dumps({"members": list(members), "facts": facts.to_json()}).encode())
    return move(
        tx, series, series_id, SeriesState.SEALED, expected=(SeriesState.RECEIVING,),
        reason=reason, incomplete=incomplete, instances=len(members), sealed_at=now, facts=blob,
    )  # fmt: skip


def members_and_facts(tx: Connection, series_id: int) -> tuple[tuple[int, ...], Facts]:
    """The sealed revision's instance ids and facts, in the same order."""
    blob = tx.scalar(select(series.c.facts).where(series.c.id == series_id))
    if blob is None:
        return (), Facts(0)
    data = json.loads(zlib.decompress(blob))
    return tuple(data["members"]), Facts.from_json(data["facts"])


RELEASED = "released"
"""In `held`: a person let it go, so it is routed as if its objects had just come."""


def release_series(tx: Connection, series_id: int) -> bool:
    """Let a held series go; False when it is not held."""
    where = (series.c.id == series_id) & series.c.held.not_in(("", RELEASED))
    return tx.execute(update(series).where(where).values(held=RELEASED)).rowcount == 1


def held_series(tx: Connection) -> list[int]:
    """The series that wait for a person."""
    where = series.c.held.not_in(("", RELEASED))
    return list(tx.scalars(select(series.c.id).where(where).order_by(series.c.id)))


def to_route(tx: Connection, series_id: int) -> Mapping[str, Any] | None:
    """A sealed revision that nobody holds, without its facts; None when it is neither any more."""
    free = (series.c.state == SeriesState.SEALED) & series.c.held.in_(("", RELEASED))
    found = rows(tx, select(*_WITHOUT_FACTS).where((series.c.id == series_id) & free))
    return found[0] if found else None


def touched(tx: Connection, series_id: int, count: int, now: datetime) -> None:
    """So many more objects came."""
    tx.execute(_TOUCHED, {"key": series_id, "more": count, "now": now})


def in_state(tx: Connection, state: SeriesState, *, held_too: bool = False) -> list[Mapping[str, Any]]:
    """Series revisions in *state* (receiving or sealed), not held unless *held_too*, oldest first, without facts."""
    where = one_of(series.c.state, SeriesState.RECEIVING, SeriesState.SEALED) & (series.c.state == state)
    if not held_too:
        where &= series.c.held.in_(("", RELEASED))
    return rows(tx, select(*_WITHOUT_FACTS).where(where).order_by(series.c.id))


def instances_of(tx: Connection, ids: Iterable[int]) -> list[Mapping[str, Any]]:
    """Instances by id, in the order asked."""
    wanted = list(ids)
    found = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        found.update({row["id"]: row for row in rows(tx, select(instance).where(instance.c.id.in_(part)))})
    return [found[i] for i in wanted if i in found]


def arrived_in(tx: Connection, series_id: int) -> list[Mapping[str, Any]]:
    """The kept instances that came with this revision itself."""
    where = (instance.c.series_id == series_id) & (instance.c.state == InstanceState.KEPT)
    return rows(tx, select(instance).where(where).order_by(instance.c.id))


def to_compare(tx: Connection, reason: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Objects that are in conflict for *reason* until their pixels are compared, each with the kept one."""
    where = (instance.c.state == InstanceState.CONFLICT) & (instance.c.reason == reason)
    aside = rows(tx, select(instance).where(where).order_by(instance.c.id))
    return [(row, known) for row in aside if (known := kept(tx, row["sop_uid"])) is not None]


def series_numbers(tx: Connection, study_uid: str) -> set[int]:
    """The Series Numbers of a study that are known to us."""
    where = (series.c.study_uid == study_uid) & series.c.series_number.is_not(None)
    return set(tx.scalars(select(series.c.series_number).where(where)))


def count_by_state(tx: Connection, table: Any) -> dict[str, int]:
    """State → rows."""
    return {
        str(state): int(n)
        for state, n in tx.execute(select(table.c.state, func.count()).group_by(table.c.state))
    }


def object_path(data: Path, receiver_run: int, sequence: int) -> Path:
    """Where a received object lies, for ever."""
    return bucket_folder(data, receiver_run, sequence) / f"{sequence:08d}{OBJECT}"
