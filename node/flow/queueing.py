"""queue: one object for one destination, in the manner that its rule asks for."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import Manner, Product
from node.store import deliveries, lookups
from node.store.database import note


def queue_received(tx: Connection, parts: Parts, instance_id: int, to: str, rule: str, how: Manner) -> bool:
    """Queue a received object; False, and an event, where it must not go, and where it is or was queued there."""
    if refused := parts.refuses_identified(to, how.treatment):
        note(tx, parts.now(), "delivery_refused", f"{rule}: {refused}",
             instance_id=instance_id, destination=to)  # fmt: skip
        return False
    queued = deliveries.deliver_instance(tx, instance_id, to, rule, parts.now(), how)
    if queued:
        _prepare(tx, parts, how)
    return queued


def queue_result(
    tx: Connection, parts: Parts, product_id: int, made: Product, to: str, how: Manner, about: dict[str, Any]
) -> bool:
    """Queue a result of the run that *about* names; False, and an event, where it must not go, or went there."""
    if refused := parts.refuses_identified(to, how.treatment):
        note(tx, parts.now(), "delivery_refused", refused, run_id=about["run"], destination=to)
        return False
    queued = deliveries.deliver_product(tx, product_id, made, to, about["rule"], parts.now(), how)
    if queued:
        _prepare(tx, parts, how)
    return queued


def remember_lookups(tx: Connection, parts: Parts, treatment: str) -> None:
    """Keep the tables that a treatment names, for as long as it may be needed: the rules may change."""
    named = json.loads(treatment).get("lookups", ()) if treatment else ()
    known = {name: parts.rules.lookups[name] for name in named if name in parts.rules.lookups}
    lookups.remember(tx, known, parts.now())


def _prepare(tx: Connection, parts: Parts, how: Manner) -> None:
    """What it goes as is made from now on."""
    if how.treatment:
        remember_lookups(tx, parts, how.treatment)
        parts.treated = True
