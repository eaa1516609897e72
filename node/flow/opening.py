"""Where the results of a rule go, as a run keeps it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from node.flow.manners import Subject, manner_to_json, ways
from node.flow.parts import Parts
from node.flow.queueing import remember_lookups
from node.model import RECEIVED
from node.route.rules import Rule


def sends_of(tx: Connection, parts: Parts, rule: Rule, subject: Subject) -> str:
    """Result → destination → the ways in which it goes there, as JSON; the tables that its changes look up are kept."""
    sends: dict[str, dict[str, list[Any]]] = {}
    for send in rule.sends:
        if send.what != RECEIVED:
            remember_lookups(tx, parts, send.treatment)
            for to, how in ways(tx, parts, rule, send, subject).items():
                ways_there = sends.setdefault(send.what, {}).setdefault(to, [])
                ways_there.append({"forms": send.forms, **manner_to_json(how)})
    return json.dumps(sends)
