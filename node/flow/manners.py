"""How a rule wants something sent, and how a run remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.model import Manner, Priority
from node.route.rules import Rule, Send


def manner_of(rule: Rule, send: Send) -> Manner:
    """The manner of one `send` entry."""
    return Manner(rule.priority, send.lossy, send.treatment)


def manner_to_json(how: Manner) -> dict[str, Any]:
    """What a run keeps of it until its results are queued."""
    return {"priority": how.priority, "lossy": how.lossy, "treatment": how.treatment}


def manner_from_json(kept: Mapping[str, Any]) -> Manner:
    """The same again; runs that an older version opened say less."""
    return Manner(Priority(kept["priority"]), kept["lossy"], kept.get("treatment", ""))
