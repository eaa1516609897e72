"""Rows of earlier studies that are wanted and fetched: who is asked, what is under way, and what is here already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, select, update

from node.model import SeriesState
from node.store.database import add, move, one_of, rows
from node.store.intake import RELEASED
from node.store.schema import prior_fetch as fetch
from node.store.schema import series, wanted_prior

_MESSAGES = 65_535
"""Message IDs that C-MOVE can have (PS3.7 9.3.4.1); 0 is left out."""


class WantedState(StrEnum):
    """wanted → asking → fetched | none | failed."""

    WANTED = "wanted"
    ASKING = "asking"
    FETCHED = "fetched"
    NONE = "none"
    FAILED = "failed"


class FetchState(StrEnum):
    """asking → done | failed."""

    ASKING = "asking"
    DONE = "done"
    FAILED = "failed"


_OPEN = (WantedState.WANTED, WantedState.ASKING)
_SEALED = (SeriesState.SEALED, SeriesState.ROUTED, SeriesState.UNROUTED)


def due(tx: Connection, now: datetime, busy: Collection[str]) -> list[Mapping[str, Any]]:
    """Wanted priors to ask for now, of peers that are not *busy*, those first that are due longest."""
    where = one_of(wanted_prior.c.state, *_OPEN) & (wanted_prior.c.state == WantedState.WANTED)
    where &= (wanted_prior.c.due_at <= now) & wanted_prior.c.peer.not_in(busy)
    return rows(
        tx, select(wanted_prior).where(where).order_by(wanted_prior.c.due_at, wanted_prior.c.id).limit(50)
    )


def claim(tx: Connection, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Wanted → asking, as the next attempt; None where it is not wanted any more."""
    mine = {**row, "attempt": row["attempt"] + 1, "state": WantedState.ASKING}
    this = (wanted_prior.c.id == row["id"]) & (wanted_prior.c.state == WantedState.WANTED)
    claimed = update(wanted_prior).where(this & (wanted_prior.c.attempt == row["attempt"]))
    values = {"state": WantedState.ASKING, "attempt": mine["attempt"]}
    return mine if tx.execute(claimed.values(**values)).rowcount == 1 else None


def settle(tx: Connection, mine: Mapping[str, Any], to: WantedState, **values: Any) -> bool:
    """Asking → what became of it; False where another attempt has replaced this one."""
    return move(
        tx, wanted_prior, mine["id"], to, expected=(WantedState.ASKING,), attempt=mine["attempt"], **values
    )


def give_back(tx: Connection, now: datetime, why: str) -> int:
    """After a restart: what was being asked for is wanted again, and what was under way has failed; how many."""
    under_way = fetch.c.state == FetchState.ASKING
    tx.execute(update(fetch).where(under_way).values(state=FetchState.FAILED, reason=why, finished_at=now))
    asking = one_of(wanted_prior.c.state, *_OPEN) & (wanted_prior.c.state == WantedState.ASKING)
    return tx.execute(
        update(wanted_prior).where(asking).values(state=WantedState.WANTED, due_at=now)
    ).rowcount


def held(tx: Connection, study_uid: str, series_uid: str) -> int | None:
    """The newest sealed revision of a series whose files are here, arrived or fetched; None where there is none.

    What arrived counts before what was fetched.
    """
    where = (series.c.study_uid == study_uid) & (series.c.series_uid == series_uid)
    where &= series.c.state.in_(_SEALED) & series.c.removed_at.is_(None) & series.c.held.in_(("", RELEASED))
    where &= (series.c.prior == "") | (series.c.incomplete == "")
    order = (series.c.prior != "", series.c.revision.desc())
    return tx.scalar(select(series.c.id).where(where & series.c.facts.is_not(None)).order_by(*order).limit(1))


def next_revision(tx: Connection, study_uid: str, series_uid: str) -> int:
    """The number of a fetched revision: 0, -1, -2 …, below those of what arrives."""
    where = (series.c.study_uid == study_uid) & (series.c.series_uid == series_uid) & (series.c.revision <= 0)
    lowest = tx.scalar(select(func.min(series.c.revision)).where(where))
    return 0 if lowest is None else int(lowest) - 1


def begin(tx: Connection, **values: Any) -> Mapping[str, Any]:
    """A fetch that begins, under a Message ID of its own."""
    key = add(tx, fetch, state=FetchState.ASKING, message_id=0, **values)
    tx.execute(update(fetch).where(fetch.c.id == key).values(message_id=(key - 1) % _MESSAGES + 1))
    return by_key(tx, key)


def finish(tx: Connection, key: int, to: FetchState, now: datetime, reason: str = "") -> bool:
    """Asking → done | failed."""
    return move(tx, fetch, key, to, expected=(FetchState.ASKING,), reason=reason, finished_at=now)


def came_as(tx: Connection, key: int, series_id: int) -> None:
    """The row of the revision that a fetch fills."""
    tx.execute(update(fetch).where(fetch.c.id == key).values(series_id=series_id))


def by_key(tx: Connection, key: int) -> Mapping[str, Any]:
    """One fetch."""
    return rows(tx, select(fetch).where(fetch.c.id == key))[0]


def by_message(tx: Connection, peer: str, way: str, message_id: int) -> list[Mapping[str, Any]]:
    """The fetches from a peer under this Message ID, the newest first."""
    where = (fetch.c.message_id == message_id) & (fetch.c.peer == peer) & (fetch.c.way == way)
    return rows(tx, select(fetch).where(where).order_by(fetch.c.id.desc()))


def under_way(tx: Connection, peer: str, series_uid: str) -> bool:
    """Whether this series is being fetched from there now."""
    where = (fetch.c.state == FetchState.ASKING) & (fetch.c.peer == peer) & (fetch.c.series_uid == series_uid)
    return tx.scalar(select(fetch.c.id).where(where).limit(1)) is not None


def broken_off(tx: Connection) -> list[Mapping[str, Any]]:
    """Fetched revisions that are still open: at start, what a transfer left."""
    open_still = one_of(series.c.state, SeriesState.RECEIVING, SeriesState.SEALED)
    where = open_still & (series.c.state == SeriesState.RECEIVING) & (series.c.prior != "")
    return rows(tx, select(series.c.id).where(where))


def cap(tx: Connection, now: datetime, by: datetime) -> int:
    """Bring moments that a set-back clock moved too far away to *by*, or to *now* where nothing failed; how many."""
    wanted = one_of(wanted_prior.c.state, *_OPEN) & (wanted_prior.c.state == WantedState.WANTED)
    found = 0
    for where, to in ((wanted_prior.c.failures == 0, now), (wanted_prior.c.failures > 0, by)):
        late = wanted & where & (wanted_prior.c.due_at > to)
        found += tx.execute(update(wanted_prior).where(late).values(due_at=to)).rowcount
    return found
