"""Rows of what is to be sent: deliveries of received objects and of results, and the destinations.

Every claim adds 1 to `attempt`; every later update names the state and the attempt it expects, so that a
sender that was given up on can never overwrite its successor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite

from node.model import (
    PLAIN,
    REJECTION,
    DeliveryState,
    InstanceState,
    Manner,
    Product,
    RunState,
    Trouble,
)
from node.store.database import add, move, one_of, rows
from node.store.ranks import rank_of
from node.store.schema import delivery, destination, instance, product, run, series

_HELD = (DeliveryState.STORED, DeliveryState.COMMITTED)
_OVER = (*_HELD, DeliveryState.CANCELLED)
WITHDRAWAL = 3
"""The stage of rejection notes: they wait until what takes the place of the rejected is stored, and committed."""
STAGE = {
    "image": 0, "picture": 0, "tiles": 0, "recording": 0, "segmentation": 1, "parametric_map": 1,
    "report": 2, "document": 2, "key_images": 2, "presentation": 2, REJECTION: WITHDRAWAL,
}  # fmt: skip
"""Order within a run and destination: images, then SEG and maps, then what refers to them. Every kind is here."""


_QUEUED = one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING)
"""What the partial index `delivery_queue` holds: queries that say so cost nothing for what is over."""


_NONE: ColumnElement[str] = literal_column("''")
_AWAITS_COPY = (delivery.c.sent_path == _NONE) & or_(
    delivery.c.treatment != _NONE, delivery.c.sent_syntax != _NONE
)
"""It goes as a copy, which is still to be made: its rule changes it, or it is refused as it is."""
NO_COPY = {"sent_path": "", "sent_syntax": "", "sent_uid": ""}
"""The columns of a delivery that is to be decided about anew: a treated one waits for another copy."""

_QUEUE_INSTANCE: dict[str, Insert] = {
    dialect.__name__.rpartition(".")[2]: dialect.insert(delivery)
    .on_conflict_do_nothing(index_elements=["destination", "instance_id"])
    .execution_options(preserve_rowcount=True)
    for dialect in (sqlite, postgresql)
}


def deliver_instance(
    tx: Connection, instance_id: int, to: str, rule: str, now: datetime, how: Manner = PLAIN
) -> bool:
    """Queue a received object for a destination, unless it is or was queued there already."""
    values = {"destination": to, "instance_id": instance_id, "rule": rule, **_queued(now, how)}
    return tx.execute(_QUEUE_INSTANCE[tx.dialect.name], values).rowcount == 1


def _queued(now: datetime, how: Manner) -> dict[str, Any]:
    """The columns of a new delivery that say how and when it goes."""
    return {
        "state": DeliveryState.HELD if how.hold else DeliveryState.WAITING, "reason": how.why,
        "due_at": how.due_at or now, "created_at": now, "rank": rank_of(how.priority, now),
        "lossy": how.lossy, "treatment": how.treatment, "window": how.window,
    }  # fmt: skip


def sent_by_rule(tx: Connection, instances: Sequence[int]) -> dict[str, int]:
    """Rule → how many of these received objects it queued."""
    found: dict[str, int] = {}
    for start in range(0, len(instances), 500):
        where = delivery.c.instance_id.in_(instances[start : start + 500])
        counted = func.count(delivery.c.instance_id.distinct())
        for rule, count in tx.execute(
            select(delivery.c.rule, counted).where(where).group_by(delivery.c.rule)
        ):
            found[rule] = found.get(rule, 0) + count
    return found


def deliver_product(
    tx: Connection, product_id: int, made: Product, to: str, rule: str, now: datetime, how: Manner = PLAIN
) -> bool:
    """Queue a product, unless the same object with the same bytes is or was queued there already.

    One that retention removed meanwhile does not count: its series was sent again, as a whole and as new.
    """
    same = (product.c.sop_uid == made.sop_uid) & (product.c.digest == made.digest)
    same &= product.c.removed_at.is_(None)
    where = (delivery.c.destination == to) & (delivery.c.state != DeliveryState.CANCELLED) & same
    join = delivery.join(product, product.c.id == delivery.c.product_id)
    if tx.scalar(select(delivery.c.id).select_from(join).where(where).limit(1)) is not None:
        return False
    add(
        tx, delivery, destination=to, product_id=product_id, rule=rule, stage=STAGE[made.kind],
        **_queued(now, how),
    )  # fmt: skip
    return True


def treat_anew(
    tx: Connection, to: str, how: Manner, now: datetime, *, instance_id: int = 0, made: Product | None = None
) -> bool:
    """What waits, is held or parked, and goes changed in another way now, waits for a copy of that kind."""
    if made is None:
        what: ColumnElement[bool] = delivery.c.instance_id == instance_id
    else:
        same = (product.c.sop_uid == made.sop_uid) & (product.c.digest == made.digest)
        what = delivery.c.product_id.in_(select(product.c.id).where(same & product.c.removed_at.is_(None)))
    states = (DeliveryState.WAITING, DeliveryState.HELD, DeliveryState.PARKED)
    where = (delivery.c.destination == to) & what & delivery.c.state.in_(states)
    values = {**_queued(now, how), **NO_COPY, "failures": 0, "failing_since": None}
    changed = where & (delivery.c.treatment != how.treatment)
    return tx.execute(update(delivery).where(changed).values(**values)).rowcount > 0


def hand_over(tx: Connection, old: int, new: int) -> None:
    """What waits, or is held, to be sent of a replaced instance sends the newer one."""
    states = (DeliveryState.WAITING, DeliveryState.HELD)
    waiting = (delivery.c.instance_id == old) & delivery.c.state.in_(states)
    tx.execute(update(delivery).where(waiting).values(instance_id=new, **NO_COPY))  # one of the replaced


def went_to(tx: Connection, instance_id: int) -> list[tuple[str, str, Manner]]:
    """Destination, rule and manner of each delivery of an object that was sent, is being sent, or was refused."""
    states = (*_HELD, DeliveryState.SENDING, DeliveryState.PARKED)
    where = (delivery.c.instance_id == instance_id) & delivery.c.state.in_(states)
    columns = [delivery.c[name] for name in ("destination", "rule", "lossy", "treatment", "window")]
    found = tx.execute(select(*columns).where(where).order_by(delivery.c.id))
    return [
        (to, rule, Manner(lossy=lossy, treatment=treatment, window=window))
        for to, rule, lossy, treatment, window in found
    ]


_OLDER = (
    select(instance.c.sop_uid)
    .join(delivery, delivery.c.instance_id == instance.c.id)
    .where(
        (delivery.c.destination == bindparam("to")) & _QUEUED & (delivery.c.state == DeliveryState.SENDING)
    )
    .where(instance.c.state == InstanceState.REPLACED)
)


def older_under_way(tx: Connection, to: str) -> set[str]:
    """The SOP Instance UIDs of objects with an older header that are just being sent to a destination."""
    return set(tx.scalars(_OLDER, {"to": to}))


def cancel_of(tx: Connection, instance_id: int, reason: str, now: datetime) -> None:
    """What waits, is parked or held of one received object is not sent."""
    cancel_deliveries(
        tx, tx.scalars(select(delivery.c.id).where(delivery.c.instance_id == instance_id)), reason, now
    )


def redeliver(tx: Connection, instance_id: int, to: Mapping[str, datetime], now: datetime) -> int:
    """Send again what reached a destination before the moment given for it: the sender asked (design §6)."""
    valid = run.c.state.not_in((RunState.SUPERSEDED, RunState.CANCELLED)) & (run.c.withdraws == 0)
    of_results = (
        select(product.c.id)
        .join(run, run.c.id == product.c.run_id)
        .join(instance, instance.c.series_id == run.c.series_id)
        .where((instance.c.id == instance_id) & valid)
    )
    what = or_(delivery.c.instance_id == instance_id, delivery.c.product_id.in_(of_results))
    again = 0
    for name, before in to.items():
        where = and_(
            what, delivery.c.destination == name, delivery.c.finished_at < before,
            delivery.c.state.in_((DeliveryState.STORED, DeliveryState.COMMITTED)),
        )  # fmt: skip
        values = {
            "state": DeliveryState.WAITING,
            "reason": "sent again: the object was received again",
            "due_at": now,
        }
        fresh = {"failures": 0, "failing_since": None, "commit_due": None, "commit_failures": 0}
        again += tx.execute(update(delivery).where(where).values(**fresh, **values)).rowcount
    return again


@cache
def _waiting() -> Select[Any]:
    """The statement of `waiting_destinations`, which steps from name to name through the index."""
    first = (
        select(delivery.c.destination.label("name")).where(_QUEUED).order_by(delivery.c.destination).limit(1)
    )
    names = select(first.subquery().c.name).cte("names", recursive=True)
    following = (
        select(delivery.c.destination)
        .where(_QUEUED & (delivery.c.destination > names.c.name))
        .order_by(delivery.c.destination)
        .limit(1)
        .correlate(names)
    )
    names = names.union_all(select(following.scalar_subquery()).where(names.c.name.is_not(None)))
    due = select(delivery.c.id).where(
        (delivery.c.destination == names.c.name)
        & _QUEUED
        & (delivery.c.state == DeliveryState.WAITING)
        & (delivery.c.due_at <= bindparam("now"))
    )
    down = (destination.c.name == names.c.name) & destination.c.down
    later = select(destination.c.name).where(down & (destination.c.next_at > bindparam("now")))
    paused = select(destination.c.name).where(down & (destination.c.kind == Trouble.PAUSED))
    return select(names.c.name).where(or_(due.exists(), paused.exists()) & ~later.exists())


def waiting_destinations(tx: Connection, now: datetime) -> list[str]:
    """Destinations for which something is due, but for those that are down and not to be asked yet.

    One that is paused for refusing everything is tried whether something is due or not.

    Costs what there are destinations: reading every row that waits for one that is down for days would cost
    each turn of the conductor what has piled up there.
    """
    return list(tx.scalars(_waiting(), {"now": now}))


def due_deliveries(tx: Connection, to: str, now: datetime, limit: int) -> list[Mapping[str, Any]]:
    """The next objects for a destination: by priority, then age.

    A report waits until everything of an earlier stage of its run is stored there; a rejection note until
    all that takes the place of what it names is stored, and committed where that is asked for.
    """
    return rows(tx, _due(), {"to": to, "now": now, "most": limit})


@cache
def _due() -> Select[Any]:
    """The statement of `due_deliveries`: building it anew costs more than running it.

    It walks `delivery_order` and ends after its rows. As a bare column the date would have SQLite collect and sort
    the whole backlog by `delivery_queue`, for each batch again.
    """
    due = func.coalesce(delivery.c.due_at, delivery.c.due_at) <= bindparam(
        "now", type_=delivery.c.due_at.type
    )
    return (
        _with_objects()
        .where(_sendable() & due)
        .order_by(delivery.c.rank, delivery.c.stage, delivery.c.id)
        .limit(bindparam("most", type_=Integer))
    )


def soonest_delivery(tx: Connection, to: str) -> list[Mapping[str, Any]]:
    """What waits for a destination and comes first of all that are not due yet; none where nothing waits."""
    statement = _with_objects().where(_sendable()).order_by(delivery.c.due_at, delivery.c.id).limit(1)
    return rows(tx, statement, {"to": to})


def _sendable() -> ColumnElement[bool]:
    """It waits for a destination, and for nothing else than its time."""
    return (
        (delivery.c.destination == bindparam("to"))
        & _QUEUED
        & (delivery.c.state == DeliveryState.WAITING)
        & ~_AWAITS_COPY
        & or_(delivery.c.stage == 0, ~_blocked())
        & or_(delivery.c.stage < WITHDRAWAL, ~_replacement_under_way())
    )


def hasten(tx: Connection, to: str, now: datetime) -> None:
    """What failed at a destination that was ill is due now: its pauses were for the destination's sake."""
    waiting = _QUEUED & (delivery.c.state == DeliveryState.WAITING)
    late = (delivery.c.destination == to) & waiting & (delivery.c.due_at > now) & (delivery.c.failures > 0)
    tx.execute(update(delivery).where(late).values(due_at=now))


def _blocked() -> ColumnElement[bool]:
    """Something of an earlier stage of the same run is not there yet; looked up by the run's few products."""
    earlier, of_run = delivery.alias(), product.alias()
    its = select(of_run.c.id).where(of_run.c.run_id == product.c.run_id).correlate(product)
    where = (
        (earlier.c.destination == delivery.c.destination)
        & earlier.c.product_id.in_(its)
        & (earlier.c.stage < delivery.c.stage)
        & earlier.c.state.not_in(_OVER)
    )
    return select(earlier.c.id).where(where).correlate(delivery, product).exists()


def _replacement_under_way() -> ColumnElement[bool]:
    """What the same rule made of the same series, and is valid, is not all at the destination of a note."""
    withdrawing, valid = run.alias(), run.alias()
    its_series, same_series = series.alias(), series.alias()
    newer, made = delivery.alias(), product.alias()
    same = (same_series.c.study_uid == its_series.c.study_uid) & (
        same_series.c.series_uid == its_series.c.series_uid
    )
    made_anew = (
        select(made.c.id)
        .join(valid, valid.c.id == made.c.run_id)
        .join(same_series, same_series.c.id == valid.c.series_id)
        .join(its_series, same)
        .join(withdrawing, withdrawing.c.series_id == its_series.c.id)
        .where((withdrawing.c.id == product.c.run_id) & (valid.c.rule == withdrawing.c.rule))
        .where(valid.c.state == RunState.DONE)
        .correlate(product)
    )
    where = (
        (newer.c.destination == delivery.c.destination)
        & newer.c.product_id.in_(made_anew)
        & (newer.c.stage < WITHDRAWAL)
        & or_(newer.c.state.not_in(_OVER), newer.c.commit_due.is_not(None))
    )
    return select(newer.c.id).where(where).correlate(delivery, product).exists()


def _with_objects() -> Select[Any]:
    """Deliveries with the object they send: its UIDs, transfer syntax and where its file is."""
    return (
        select(
            delivery,
            func.coalesce(instance.c.sop_uid, product.c.sop_uid).label("sop_uid"),
            func.coalesce(instance.c.sop_class, product.c.sop_class).label("sop_class"),
            func.coalesce(instance.c.transfer_syntax, product.c.transfer_syntax).label("transfer_syntax"),
            func.coalesce(instance.c.digest, product.c.digest).label("digest"),
            instance.c.receiver_run,
            instance.c.sequence,
            instance.c.state.label("instance_state"),
            instance.c.series_id.label("of_series"),
            product.c.path,
            product.c.run_id,
            run.c.state.label("run_state"),
            run.c.reason.label("run_reason"),
        )
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .outerjoin(run, run.c.id == product.c.run_id)
    )


def made_anew(tx: Connection, sop_uid: str) -> bool:
    """A run that is valid made this result, too: a replay of the one that first sent it, for example."""
    where = (product.c.sop_uid == sop_uid) & (run.c.state == RunState.DONE)
    statement = select(product.c.id).join(run, run.c.id == product.c.run_id).where(where).limit(1)
    return tx.scalar(statement) is not None


def postpone(tx: Connection, to: str, window: str, now: datetime, until: datetime, reason: str) -> None:
    """All that is due for a destination and may only go in *window* waits until then, and says why."""
    waiting = _QUEUED & (delivery.c.state == DeliveryState.WAITING) & (delivery.c.due_at <= now)
    where = (delivery.c.destination == to) & waiting & (delivery.c.window == window)
    tx.execute(update(delivery).where(where).values(due_at=until, reason=reason))


def claim_deliveries(tx: Connection, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Waiting → sending; those that are ours now, with their new attempt number."""
    expected = {int(row["id"]): int(row["attempt"]) for row in found}
    where = delivery.c.id.in_(expected) & (delivery.c.state == DeliveryState.WAITING)
    values = {"state": DeliveryState.SENDING, "attempt": delivery.c.attempt + 1}
    claimed = update(delivery).where(where).values(**values).returning(delivery.c.id, delivery.c.attempt)
    ours = {int(key): int(attempt) for key, attempt in tx.execute(claimed)} if expected else {}
    return [{**row, "attempt": ours[row["id"]]} for row in found if row["id"] in ours]


def finish_delivery(tx: Connection, key: int, attempt: int, to: DeliveryState, **values: Any) -> bool:
    """Sending → stored | waiting | parked; False when it is not this attempt's any more."""
    return move(tx, delivery, key, to, expected=(DeliveryState.SENDING,), attempt=attempt, **values)


def cancel_deliveries(tx: Connection, chosen: Iterable[int], reason: str, now: datetime) -> None:
    """Waiting | parked | held → cancelled."""
    states = (DeliveryState.WAITING, DeliveryState.PARKED, DeliveryState.HELD)
    values = {"state": DeliveryState.CANCELLED, "reason": reason, "finished_at": now}
    ids = list(chosen)
    for start in range(0, len(ids), 500):
        where = delivery.c.id.in_(ids[start : start + 500]) & delivery.c.state.in_(states)
        tx.execute(update(delivery).where(where).values(**values))


def unclaim_deliveries(tx: Connection, claimed: Iterable[int]) -> None:
    """Sending → waiting: those of a batch that is over which were not reported."""
    where = delivery.c.id.in_(list(claimed)) & (delivery.c.state == DeliveryState.SENDING)
    tx.execute(update(delivery).where(where).values(state=DeliveryState.WAITING))


_DESTINATIONS = select(destination)


def destinations(tx: Connection) -> dict[str, Mapping[str, Any]]:
    """What is known of each destination that was ever tried."""
    return {row["name"]: row for row in rows(tx, _DESTINATIONS)}


def set_destination(tx: Connection, name: str, **values: Any) -> None:
    """Record that a destination is down or up again."""
    if tx.execute(update(destination).where(destination.c.name == name).values(**values)).rowcount == 0:
        tx.execute(insert(destination).values(name=name, **values))


_FAILURES = select(delivery.c.failures, delivery.c.failing_since).where(delivery.c.id == bindparam("key"))


def failures_of(tx: Connection, delivery_id: int) -> tuple[int, datetime | None]:
    """How often an object failed at its destination, and since when."""
    failures, since = tx.execute(_FAILURES, {"key": delivery_id}).one()
    return int(failures), since


def copies_of(tx: Connection, found: Iterable[int]) -> dict[int, Mapping[str, Any]]:
    """Delivery → as what it is sent, and whether a lossy copy may be."""
    names = ("id", "lossy", "treatment", "sent_path", "sent_syntax")
    own = func.coalesce(instance.c.transfer_syntax, product.c.transfer_syntax).label("transfer_syntax")
    statement = (
        select(*(delivery.c[name] for name in names), own)
        .select_from(delivery)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .outerjoin(product, product.c.id == delivery.c.product_id)
    )
    return {row["id"]: row for row in rows(tx, statement.where(delivery.c.id.in_(list(found))))}


def to_transcode(tx: Connection, limit: int, ahead: int) -> list[Mapping[str, Any]]:
    """The next objects of which a copy is to be made, for destinations that are up or tried again.

    No more than about *ahead* copies lie there per destination: they take room on the disk.
    """
    to_be_sent = (delivery.c.sent_path != _NONE) & delivery.c.state.in_(
        (DeliveryState.WAITING, DeliveryState.SENDING)
    )
    made = select(delivery.c.destination).where(to_be_sent)  # `delivery_copied`, not all that waits
    enough = made.group_by(delivery.c.destination).having(func.count() >= ahead)
    down = select(destination.c.name).where(destination.c.down & ~destination.c.trial)
    where = (delivery.c.state == literal_column("'waiting'")) & _AWAITS_COPY  # as `delivery_copy` spells it
    where &= delivery.c.destination.not_in(enough) & delivery.c.destination.not_in(down)
    statement = _with_objects().outerjoin(series, series.c.id == instance.c.series_id)
    statement = statement.add_columns(
        func.coalesce(product.c.series_uid, series.c.series_uid).label("series_uid"),
        instance.c.received_at, instance.c.peer,
    )  # fmt: skip
    return rows(
        tx, statement.where(where).order_by(delivery.c.rank, delivery.c.stage, delivery.c.id).limit(limit)
    )


def end_transcoding(
    tx: Connection, expected: Mapping[str, Any], attempt: int, to: DeliveryState, **values: Any
) -> bool:
    """A copy was made or cannot be; False where nobody waits for it any more.

    *expected* are columns that tell of what, and how, the copy was wanted.
    """
    where = (delivery.c.attempt == attempt) & (delivery.c.state == DeliveryState.WAITING)
    where &= and_(
        *(delivery.c[name] == value for name, value in expected.items()), delivery.c.sent_path == ""
    )
    return tx.execute(update(delivery).where(where).values(state=to, **values)).rowcount == 1


def copies_wanted(tx: Connection, found: Iterable[int]) -> dict[int, tuple[int, str]]:
    """Of these deliveries those that are still to be sent as a copy: their attempt, and the copy if it is made."""
    open_still = delivery.c.state.in_((DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.HELD))
    copied = or_(delivery.c.sent_syntax != "", delivery.c.treatment != "")
    where = delivery.c.id.in_(list(found)) & open_still & copied
    columns = select(delivery.c.id, delivery.c.attempt, delivery.c.sent_path)
    return {int(key): (int(attempt), path) for key, attempt, path in tx.execute(columns.where(where))}


def object_of(tx: Connection, delivery_id: int) -> dict[str, int | None]:
    """The references an event about a delivery carries: its instance, or its run."""
    statement = (
        select(delivery.c.instance_id, product.c.run_id, run.c.series_id, instance.c.series_id)
        .select_from(delivery)
        .outerjoin(product, product.c.id == delivery.c.product_id)
        .outerjoin(run, run.c.id == product.c.run_id)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .where(delivery.c.id == delivery_id)
    )
    instance_id, run_id, of_run, of_instance = tx.execute(statement).one()
    return {"instance_id": instance_id, "run_id": run_id, "series_id": of_run or of_instance}
