"""Entries under `send:`, and what `edit:` may change."""

from __future__ import annotations

from typing import Any

from pydicom.datadict import keyword_dict

from node.model import KIND_OF
from node.route.editable import refusal, target_of
from node.route.edits import ELSE, OPERATIONS, REASONS
from node.route.keywords import lookup
from node.route.schema.pieces import TEXT, WINDOWS, YES_NO, Peers, explained, mapping_of, peer_name
from node.route.sends import KEYS as SEND_KEYS
from node.route.sends import SETTABLE
from node.route.ways import BY
from node.settings.deidentify import CLEAN, RETAIN


def send_entry(peers: Peers) -> dict[str, Any]:
    """One entry of `send:`."""
    kinds = sorted(set(KIND_OF.values()))
    to = peer_name(peers, receiving=True)
    several = [to, {"type": "array", "items": to}]
    shapes: dict[str, dict[str, Any]] = {
        "what": {"type": "string"},
        "to": {"anyOf": [*several, mapping_of({"share": {"anyOf": several}, "by": _by()}, ("share",))]},
        "window": WINDOWS,
        "hold": YES_NO,
        "as": {"anyOf": [{"enum": kinds}, {"type": "array", "items": {"enum": kinds}}]},
        "mode": {"enum": ["immediate", "sealed"]},
        "back_to_sender": YES_NO,
        "lossy": {"enum": ["ok"]},
        "edit": {"allOf": [{"$ref": "#/definitions/edit"}]},
        "deidentify": _deidentify(),
        **dict.fromkeys(SETTABLE, TEXT),
    }
    return mapping_of(
        {key: explained(key, text, shapes.get(key, {})) for key, text in SEND_KEYS.items()}, ("what", "to")
    )


def _deidentify() -> dict[str, Any]:
    name = {"type": "string", "description": "basic, or a profile of the site file"}
    lists = {
        key: {"type": "array", "items": {"enum": list(options)}, "description": told}
        for key, options, told in (
            ("retain", RETAIN, "options of PS3.15 E.3 that leave more in the object"),
            ("clean", CLEAN, "options of PS3.15 E.3 that clean what basic removes whole, or pixels"),
        )
    }
    return {"anyOf": [name, mapping_of({"profile": name, **lists}, ("profile",))]}


def _by() -> dict[str, Any]:
    return {"enum": list(BY), "description": "; ".join(f"{word}: {says}" for word, says in BY.items())}


def edit_entries() -> dict[str, Any]:
    """The entries of `edit:`, each with the keywords that may be changed."""
    keywords = {"$ref": "#/definitions/editable"}
    table = {
        "anyOf": [{"type": "string", "pattern": r"\.csv$"}, {"type": "object", "additionalProperties": TEXT}]
    }
    inner = {"type": "object", "properties": {"else": {"enum": list(ELSE)}}}
    shapes: dict[str, dict[str, Any]] = {
        "set": {"allOf": [keywords]},
        "prefix": {"allOf": [keywords]},
        "copy": mapping_of({"from": {"type": "string"}, "to": {"type": "string"}}, ("from", "to")),
        "map": {**inner, "additionalProperties": table},
        "remove": {"type": "array", "items": {"type": "string"}},
        "reason": {"enum": list(REASONS)},
    }
    entries = {key: {"description": text, **shapes[key]} for key, text in OPERATIONS.items()}
    return {"type": "array", "minItems": 1, "items": {**mapping_of(entries), "maxProperties": 1}}


def editable() -> dict[str, Any]:
    """Every keyword that `edit:` may set, with its hover text."""
    found: dict[str, Any] = {}
    for name in sorted(k for k in keyword_dict if k):
        if not refusal(target_of(name)):
            found[name] = {**TEXT, "description": lookup(name).title}
    return {
        "type": "object",
        "properties": found,
        "patternProperties": {r"[.\[]": TEXT},
        "additionalProperties": False,
    }
