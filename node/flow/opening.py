"""Where the results of a rule go, as a run keeps it."""

from __future__ import annotations

import json
from typing import Any

from node.model import RECEIVED
from node.route.rules import Rule


def sends_of(rule: Rule) -> str:
    """Result → destination → how it goes there, as JSON."""
    sends: dict[str, dict[str, Any]] = {}
    for send in rule.sends:
        if send.what != RECEIVED:
            how = {"forms": send.forms, "lossy": send.lossy, "priority": rule.priority}
            sends.setdefault(send.what, {}).update(dict.fromkeys(send.to, how))
    return json.dumps(sends)
