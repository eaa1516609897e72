"""Judging a series again, at a person's word: `replay` (design §6, §9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, exists, select, update

from node.model import InstanceState, SeriesState
from node.store import intake
from node.store.acts import BY_HAND, Act
from node.store.database import note, rows
from node.store.schema import series

_JUDGED = (SeriesState.ROUTED, SeriesState.UNROUTED, SeriesState.DISCARDED)


@dataclass(frozen=True, slots=True)
class Replay:
    """How a series is judged again."""

    rule: str = ""
    """Only by this rule; empty for every rule in use."""
    fresh: bool = False
    """With a new generation of UIDs (after a PACS has rejected a result, design §6)."""


def replay_series(tx: Connection, series_id: int, how: Replay, act: Act) -> str:
    """Routed | unrouted | discarded → sealed, to be judged again; empty, or in words why not.

    Only the newest revision is judged again, and only with all its objects.
    """
    (row,) = rows(tx, _without_facts().where(series.c.id == series_id))
    why_not = _not_again(tx, row)
    if why_not or act.dry_run:
        return why_not
    newer = series.alias()
    newest = ~exists().where(
        (newer.c.study_uid == row["study_uid"])
        & (newer.c.series_uid == row["series_uid"])
        & (newer.c.revision > row["revision"])
    )
    free = series.c.held.in_(("", intake.RELEASED)) & series.c.removed_at.is_(None)
    guard = (series.c.id == series_id) & series.c.state.in_(_JUDGED) & (series.c.replay == row["replay"])
    asked = f"replayed {BY_HAND}" + (f" by rule {how.rule}" if how.rule else "")
    values = {"state": SeriesState.SEALED, "replay": row["replay"] + 1, "replay_rule": how.rule,
              "replay_fresh": how.fresh, "reason": asked}  # fmt: skip
    if tx.execute(update(series).where(guard & free & newest).values(**values)).rowcount == 0:
        return "it changed just now; try again"
    uids = ", results get new UIDs" if how.fresh else ""
    detail = asked.removeprefix("replayed ") + uids + (f": {act.why}" if act.why else "")
    note(tx, act.at, "series_replayed", detail, series_id=series_id)
    return ""


def _without_facts() -> Select[Any]:
    return select(*(c for c in series.c if c.name != "facts"))


def _not_again(tx: Connection, row: Mapping[str, Any]) -> str:
    """Why a revision cannot be judged again now; empty when it can."""
    latest = intake.latest(tx, row["study_uid"], row["series_uid"])
    if latest and latest["id"] != row["id"]:
        return f"its revision {latest['revision']} is newer: series {latest['id']}"
    if row["held"] not in ("", intake.RELEASED):
        return f"it is held ({row['held']}): `pacsnode release --series {row['id']}` lets it go"
    if row["removed_at"]:
        return "retention has removed its files"
    if row["state"] not in _JUDGED:
        return _NOT_YET.get(row["state"], f"it is {row['state']}")
    return _incomplete(tx, row["id"])


_NOT_YET = {
    SeriesState.RECEIVING: "it is still receiving; it is judged when it is sealed",
    SeriesState.SEALED: "it is sealed and about to be judged anyway",
}


def _incomplete(tx: Connection, series_id: int) -> str:
    """Which of a revision's objects were replaced or removed since; rejected ones are left out of what is judged."""
    members, _ = intake.members_and_facts(tx, series_id)
    states = Counter(str(i["state"]) for i in intake.instances_of(tx, members))
    if states[InstanceState.KEPT]:
        states.pop(InstanceState.REJECTED, None)
    gone = ", ".join(f"{n} {state}" for state, n in sorted(states.items()) if state != InstanceState.KEPT)
    if not members or gone:
        return f"not all of its {len(members)} objects are kept ({gone or 'none are known'})"
    return ""


def newest_of(tx: Connection, series_id: int) -> int:
    """The id of the newest revision of the series that a revision belongs to."""
    (row,) = rows(tx, _without_facts().where(series.c.id == series_id))
    latest = intake.latest(tx, row["study_uid"], row["series_uid"])
    return int(latest["id"]) if latest else series_id
