"""Where the results of a rule go, as a run keeps it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from node.flow.manners import manner_of, manner_to_json
from node.flow.parts import Parts
from node.flow.queueing import remember_lookups
from node.model import RECEIVED
from node.route.rules import Rule


def sends_of(tx: Connection, parts: Parts, rule: Rule) -> str:
    """Result → destination → how it goes there, as JSON; the tables that its changes look up are kept."""
    sends: dict[str, dict[str, Any]] = {}
    for send in rule.sends:
        if send.what != RECEIVED:
            remember_lookups(tx, parts, send.treatment)
            how = {"forms": send.forms, **manner_to_json(manner_of(rule, send))}
            sends.setdefault(send.what, {}).update(dict.fromkeys(send.to, how))
    return json.dumps(sends)
