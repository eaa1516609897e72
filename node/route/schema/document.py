"""The schema of one rule document: each key with its sentence and its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.model import OperatorSpec, Priority
from node.route.inputs import AGAIN, INPUT_KEYS, PICKS, WAITS
from node.route.rule_reading import KEYS
from node.route.schema.conditions import CONDITIONS, condition, given_facts, plain_value, when_block
from node.route.schema.pieces import BLOCK, TEXT, WINDOWS, YES_NO, Peers, explained, mapping_of
from node.route.schema.sends import edit_entries, editable, send_entry
from node.route.schema.steps import step_entry
from node.route.splitting import EACH_PART, FACTS


def schema(specs: Mapping[str, OperatorSpec], peers: Peers | None = None) -> dict[str, Any]:
    """JSON Schema (draft 7) of one rule document: the operators of *specs*, the *peers* of a site file.

    Keys come from the tables that the reader of rules goes by: one that is new there appears here by itself, with
    its sentence, also before its shape is described.
    """
    peers = peers or {}
    properties = {key: explained(key, text, _shape(key, specs, peers)) for key, text in KEYS.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "PACSNode rule",
        "description": "CapitalCase is a DICOM keyword, lower_case is ours. One file may hold several rules.",
        "type": "object",
        "additionalProperties": False,
        "required": ["rule", "purpose", "owner", "when"],
        "properties": properties,
        "definitions": {
            "condition": condition(), "value": plain_value(), "when": when_block(peers), "given": given_facts(),
            "edit": edit_entries(), "editable": editable(),
            **{name: condition(ops) for name, ops in CONDITIONS.items()},
        },
        "defaultSnippets": [_SNIPPET],
    }  # fmt: skip


_TEXTS = ("rule", "purpose", "owner", "group")
_SNIPPET = {
    "label": "rule",
    "description": "a rule",
    "body": {
        "rule": "${1:name}", "purpose": "${2:What it is for.}", "owner": "${3:mail@hospital.example}",
        "mode": "shadow", "when": {"Modality": "${4:CT}"}, "send": [{"what": "received", "to": "${5:PACS}"}],
    },
}  # fmt: skip


def _shape(key: str, specs: Mapping[str, OperatorSpec], peers: Peers) -> dict[str, Any]:
    """What may stand under a key; anything where that is not described yet."""
    fixed: dict[str, dict[str, Any]] = {
        "when": BLOCK,
        "use": BLOCK,
        "unless": {"type": "array", "items": {"type": "string"}},
        "fallback": YES_NO,
        "discard": YES_NO,
        "mode": {"enum": ["shadow"]},
        "incomplete": {"enum": ["ok"]},
        "split": {"type": "array", "items": _splitter()},
        "each_part": {
            "enum": list(EACH_PART),
            "description": "; ".join(f"{k}: {v}" for k, v in EACH_PART.items()),
        },
        "scope": {"enum": ["series", "study"]},
        "inputs": {
            "type": "object",
            "propertyNames": {"pattern": "^[a-z][a-z0-9_-]{0,31}$"},
            "additionalProperties": _input_series(),
        },
        "wait": mapping_of(
            {
                "at_most": {
                    "type": "string",
                    "description": "from the first input that is there, e.g. 30 min",
                },
                "then": {
                    "enum": list(WAITS),
                    "description": "; ".join(f"{k}: {v}" for k, v in WAITS.items()),
                },
            },
            ("at_most", "then"),
        ),
        "again": {"enum": list(AGAIN), "description": "; ".join(f"{k}: {v}" for k, v in AGAIN.items())},
        "priority": {"enum": list(Priority)},
        "on_failure": mapping_of(
            {"retry": {"type": "integer", "minimum": 0}, "then": {"enum": ["quarantine"]}}
        ),
        "do": {"type": "array", "items": step_entry(specs)},
        "send": {"type": "array", "items": send_entry(peers)},
        "edit": {"$ref": "#/definitions/edit"},
        "window": WINDOWS,
        "try": {"type": "array", "items": _case()},
    }
    found = fixed.get(key, TEXT if key in _TEXTS else {})
    return {"allOf": [found]} if "$ref" in found else found


def _input_series() -> dict[str, Any]:
    """One entry of `inputs`."""
    shapes: dict[str, dict[str, Any]] = {
        "when": {"allOf": [BLOCK]},
        "use": {"allOf": [BLOCK]},
        "prefer": {"type": "array", "items": {"anyOf": [BLOCK, {"type": "object", "maxProperties": 1}]}},
        "pick": {"enum": list(PICKS)},
        "optional": YES_NO,
        "prior": mapping_of({"at": {"type": "string"}, "max_age": {"type": "string"}}, ("at", "max_age")),
        "ours": {"enum": ["ok"]},
    }
    return mapping_of({key: {"description": text, **shapes[key]} for key, text in INPUT_KEYS.items()})


def _splitter() -> dict[str, Any]:
    return {"anyOf": [{"enum": list(FACTS)}, {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]*$"}]}


def _case() -> dict[str, Any]:
    given = {
        "anyOf": [
            {"$ref": "#/definitions/given"},
            {"type": "array", "items": {"$ref": "#/definitions/given"}},
        ]
    }
    several = {"type": "object", "additionalProperties": given}
    study = mapping_of(
        {
            "study": {"$ref": "#/definitions/given"},
            "series": {**several, "description": "complete series under names of your choice"},
            "arriving": {**several, "description": "series of which more images may come"},
            "priors": {**several, "description": "input with prior: what was fetched for it"},
            "waited": {"type": "string", "description": "since the first input was there, e.g. 30 min"},
        },
        ("series",),
    )
    used = {"type": "object", "additionalProperties": {"type": "string"}}
    expect = mapping_of(
        {
            "runs": YES_NO,
            "because": {"type": "string"},
            "uses": {
                **used,
                "description": "scope: study: input → the series of given that it should be, or none",
            },
        },
        ("runs",),
    )
    return mapping_of({"given": {"anyOf": [study, given]}, "expect": expect}, ("given", "expect"))
