"""queue: one object for one destination, in the manner that its rule asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import RECEIVED, Manner, Product
from node.settings import is_open
from node.settings.windows import next_opening, windows_of
from node.store import deliveries, lookups
from node.store.database import note

_NEVER = timedelta(days=1)
"""How long until it is looked again whether windows that never open together have changed."""


def queue_received(
    tx: Connection, parts: Parts, instance_id: int, to: str, rule: str, how: Manner, *, anew: bool = False
) -> bool:
    """Queue a received object; False, and an event, where it must not go, and where it is or was queued there.

    *anew*: the rules are asked again, and what they change differently now is changed differently.
    """
    if refused := parts.refuses_identified(to, how.treatment):
        note(tx, parts.now(), "delivery_refused", f"{rule}: {refused}",
             instance_id=instance_id, destination=to)  # fmt: skip
        return False
    timed = _timed(parts, to, how)
    queued = deliveries.deliver_instance(tx, instance_id, to, rule, parts.now(), timed)
    if not queued and anew:
        queued = deliveries.treat_anew(tx, to, timed, parts.now(), instance_id=instance_id)
    if queued:
        _prepare(tx, parts, how)
    return queued


def queue_result(
    tx: Connection, parts: Parts, product_id: int, made: Product, to: str, how: Manner, row: Mapping[str, Any]
) -> bool:
    """Queue a result of the run *row*; False, and an event, where it must not go, and where it is or went already."""
    if refused := parts.refuses_identified(to, how.treatment):
        note(tx, parts.now(), "delivery_refused", refused, run_id=row["id"], destination=to)
        return False
    timed = _timed(parts, to, how)
    queued = deliveries.deliver_product(tx, product_id, made, to, row["rule"], parts.now(), timed)
    if not queued and row["replay"]:
        queued = deliveries.treat_anew(tx, to, timed, parts.now(), made=made)
    if queued:
        _prepare(tx, parts, how)
    return queued


def holds_for(parts: Parts, rule: str, to: str) -> bool:
    """Whether a person is to release what *rule*, as it is now, sends of received objects to *to*."""
    sends = (send for one in parts.rules.rules if one.name == rule for send in one.sends)
    return any(send.hold and to in send.to for send in sends if send.what == RECEIVED)


def remember_lookups(tx: Connection, parts: Parts, treatment: str) -> None:
    """Keep the tables that a treatment names, for as long as it may be needed: the rules may change."""
    named = json.loads(treatment).get("lookups", ()) if treatment else ()
    known = {name: parts.rules.lookups[name] for name in named if name in parts.rules.lookups}
    lookups.remember(tx, known, parts.now())


def _timed(parts: Parts, to: str, how: Manner) -> Manner:
    """*how*, with what it waits for and until when."""
    if how.hold:
        return replace(how, why=_and(how.why, f"held by its rule; `pacsnode release --to {to}` lets it go"))
    waits = waits_for(parts, to, how.window)
    return how if waits is None else replace(how, due_at=waits[0], why=_and(how.why, waits[1]))


def waits_for(parts: Parts, to: str, window: str) -> tuple[datetime, str] | None:
    """Until when what may only go in *window* waits, and that in words; None where it is open.

    It must be open together with the window of the destination itself.
    """
    if not window:
        return None
    peer, zone, now = parts.settings.peers.get(to), parts.settings.node.timezone, parts.now()
    mine = windows_of(window)
    if is_open(mine, now.astimezone(ZoneInfo(zone))):
        return None
    opens = next_opening((mine, peer.window if peer else ()), now, zone)
    if opens is None:
        return now + _NEVER, f"waits for its window {window}, which never opens together with that of {to}"
    local = opens.astimezone(ZoneInfo(zone))
    return opens, f"waits for its window {window}: until {local:%a %d %b %H:%M}"


def _and(why: str, more: str) -> str:
    return f"{why}; {more}" if why else more


def _prepare(tx: Connection, parts: Parts, how: Manner) -> None:
    """What it goes as is made from now on."""
    if how.treatment:
        remember_lookups(tx, parts, how.treatment)
        parts.treated = True
