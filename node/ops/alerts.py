"""Alerts: each thing that needs a person is told once, and its end as well.

`conditions` and `merged` decide and touch nothing; `check` asks the tables, tells, and remembers who was told.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection

from node.flow import securing
from node.ops import health
from node.ops.channels import Channel, Message, News, channels
from node.ops.conditions import Condition, Snapshot, conditions
from node.settings import Settings
from node.store import watch
from node.store.database import Database, note

AGAIN = timedelta(days=1)
"""After this time a condition whose words have changed is told again."""
_CHANNEL_DOWN = "channel_down"  # in the table `alert`: a channel that took nothing when it was last tried

log = structlog.get_logger()


@dataclass(frozen=True)
class Alert:
    """One row: what is wrong, or has ended without everyone knowing."""

    what: str
    key: str
    since: datetime
    detail: str
    told_at: datetime | None = None
    over_at: datetime | None = None
    told: frozenset[str] = frozenset()
    """The channels that believe that it lasts."""
    due: bool = True

    def news_for(self, channel: str) -> News | None:
        """What this channel does not know yet."""
        if (self.over_at is None) == (channel in self.told) or not (self.due or self.over_at):
            return None
        return News(self.what, self.key, self.since, self.detail, self.over_at)

    def heard(self, channel: str, now: datetime) -> Alert:
        """The same once *channel* took it."""
        if self.over_at is not None:
            return replace(self, told=self.told - {channel})
        return replace(self, told=self.told | {channel}, told_at=now)


def merged(
    before: Iterable[Alert], present: Iterable[Condition], now: datetime, names: Iterable[str]
) -> list[Alert]:
    """The rows as they are now: what began, what lasts, what is over; *names* are the channels there are.

    What ended before anyone heard of it is forgotten.
    """
    here = {(c.what, c.key): c for c in present}
    known = {(a.what, a.key): replace(a, told=a.told & frozenset(names)) for a in before}
    found = [_lasting(known.get(key), condition, now) for key, condition in here.items()]
    over = (replace(a, over_at=a.over_at or now) for key, a in known.items() if key not in here)
    return [*found, *(a for a in over if a.told)]


def _lasting(known: Alert | None, condition: Condition, now: datetime) -> Alert:
    if known is None:
        return Alert(condition.what, condition.key, condition.since, condition.detail, due=condition.due)
    again = known.told_at is not None and now - known.told_at >= AGAIN and condition.detail != known.detail
    if again or not known.told:
        known = replace(known, told=frozenset(), detail=condition.detail)
    return replace(known, since=min(known.since, condition.since), over_at=None, due=condition.due)


# --- doing it


def check(settings: Settings, database: Database, now: datetime) -> None:
    """Look, tell what is new, remember who heard. Never raises; what a channel did not take is tried again.

    It waits for a channel no longer than `channels.PATIENCE` per step of its dialogue.
    """
    ways = channels(settings.alerts)
    if not ways:
        return
    try:
        _check(settings, database, now, ways)
    except Exception as error:  # noqa: BLE001 - whoever calls this does other things that must go on
        log.error("alerts_failed", error=error)  # noqa: TRY400 - with the error's kind and no text of others


def _check(settings: Settings, database: Database, now: datetime, ways: Sequence[Channel]) -> None:
    with database.read() as tx:
        kept = watch.alerts(tx)
        before = [_row(values) for values in kept if values["what"] != _CHANNEL_DOWN]
        snapshot = look(tx, settings, before)
    broken = {str(values["key"]): values for values in kept if values["what"] == _CHANNEL_DOWN}
    present = conditions(snapshot, settings.alerts.when, now)
    rows = merged(before, present, now, [way.name for way in ways])
    # Who cannot remember what was told would tell it for ever: see first whether the tables can be written.
    telling = any(row.news_for(way.name) for row in rows for way in ways)
    _remember(database, now, (before, rows), (broken, broken), always=telling)
    told, failed = rows, dict[str, Any]()
    for way in ways:
        told = _told(way, told, now, failed, settings)
    told = [row for row in told if row.over_at is None or row.told]
    _remember(database, now, (rows, told), (broken, failed))


def _told(
    way: Channel, rows: list[Alert], now: datetime, failed: dict[str, Any], settings: Settings
) -> list[Alert]:
    """The rows after one channel was told what it did not know; its failure goes into *failed*."""
    news = tuple(one for row in rows if (one := row.news_for(way.name)) is not None)
    if not news:
        return rows
    name, zone = f"{settings.node.ae_titles[0]} on {socket.gethostname()}", ZoneInfo(settings.node.timezone)
    try:
        way.tell(Message(name, now, tuple(one.at_home(zone) for one in news)))
    except OSError as error:
        failed[way.name] = {"since": now, "detail": error.strerror or str(error)}
        log.warning("alert_untold", channel=way.name, count=len(news), reason=failed[way.name]["detail"])
        return rows
    log.info("alert_told", channel=way.name, count=len(news))
    return [row.heard(way.name, now) if row.news_for(way.name) else row for row in rows]


def look(tx: Connection, settings: Settings, before: Iterable[Alert]) -> Snapshot:
    """Ask for what the site file wants to know, and no more."""
    wanted = {alarm.what for alarm in settings.alerts.when}
    usage = shutil.disk_usage(settings.node.data)
    beaten = health.beaten_at(health.beat_path(settings.node.data))
    return Snapshot(
        known={(alert.what, alert.key): alert.since for alert in before if alert.over_at is None},
        down=watch.destinations_down(tx) if "destination_down" in wanted else (),
        strangers=watch.strangers(tx),
        parked=watch.parked(tx) if "parked" in wanted else {},
        quarantined=watch.quarantined(tx) if "quarantined" in wanted else {},
        aside=watch.set_aside(tx) if "set_aside" in wanted else 0,
        used=usage.used / (usage.used + usage.free),
        disk=settings.disk,
        waiting={name: size / (usage.used + usage.free) for name, size in watch.waiting_bytes(tx).items()}
        if "disk" in wanted
        else {},
        rules=watch.rules_problem(tx),
        certificates=_certificates(settings) if "tls_certificate" in wanted else (),
        beaten=datetime.fromtimestamp(beaten, UTC) if beaten is not None else None,
        opened=watch.oldest_open(tx),
        received=watch.last_received(tx),
    )


def _certificates(settings: Settings) -> Sequence[str]:
    now = datetime.now(UTC)
    return (*securing.untimely_files(settings, now), *securing.ending_files(settings, now))


def _row(values: Mapping[str, Any]) -> Alert:
    told = frozenset(str(values["told"]).split())
    return Alert(
        values["what"], values["key"], values["since"], values["detail"], values["told_at"], values["over_at"], told
    )  # fmt: skip


_Broken = Mapping[str, Mapping[str, Any]]  # channel → since, detail


def _remember(
    database: Database,
    now: datetime,
    alerts: tuple[Sequence[Alert], Sequence[Alert]],
    ways: tuple[_Broken, _Broken],
    *,
    always: bool = False,
) -> None:
    """Write down what changed, with an event for each thing that was told and each channel that fell silent.

    *always*: also where nothing did, to see that the tables can be written at all.
    """
    (before, rows), (broken, failed) = alerts, ways
    silent = {name: broken.get(name, said) for name, said in failed.items()}
    plain = [_values(row) for row in rows]
    if plain == [_values(row) for row in before] and silent == broken and not always:
        return
    plain += [
        {"what": _CHANNEL_DOWN, "key": name, "since": said["since"], "told_at": None, "over_at": None,
         "told": "", "detail": said["detail"]}
        for name, said in silent.items()
    ]  # fmt: skip
    with database.write() as tx:
        watch.replace_alerts(tx, plain)
        for row in _newly_told(before, rows):
            note(tx, now, "alert_told", _said(row))
        for row in _all_know_the_end(before, rows):
            note(tx, now, "alert_over", _said(row))
        for name in silent.keys() - broken.keys():
            note(tx, now, "alert_untold", f"{name}: {silent[name]['detail']}")


def _newly_told(before: Sequence[Alert], rows: Sequence[Alert]) -> list[Alert]:
    """What nobody had heard of, and now somebody has."""
    heard = {(alert.what, alert.key) for alert in before if alert.told}
    return [row for row in rows if row.told and row.over_at is None and (row.what, row.key) not in heard]


def _all_know_the_end(before: Sequence[Alert], rows: Sequence[Alert]) -> list[Alert]:
    """What was told, and now is gone."""
    left = {(row.what, row.key) for row in rows}
    return [alert for alert in before if alert.told and (alert.what, alert.key) not in left]


def _said(alert: Alert) -> str:
    return f"{alert.what} {alert.key}".strip() + f": {alert.detail}"


def _values(alert: Alert) -> dict[str, Any]:
    return {
        "what": alert.what, "key": alert.key, "since": alert.since, "told_at": alert.told_at,
        "over_at": alert.over_at, "told": " ".join(sorted(alert.told)), "detail": alert.detail,
    }  # fmt: skip
