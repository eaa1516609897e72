"""A JSON schema of rule files, so that editors complete and explain while a rule is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import keyword_dict

from node.model import KIND_OF, OperatorSpec, Parameter, Priority
from node.route.inputs import AGAIN, INPUT_KEYS, PICKS, WAITS
from node.route.keywords import OURS, lookup
from node.route.rules import KEYS
from node.route.sends import SETTABLE
from node.route.splitting import EACH_PART, FACTS
from node.route.values import unit_name
from node.route.when import OPERATORS

_TEXT = {"type": ["string", "number", "boolean"]}
_YES_NO = {"enum": ["yes", "no", True, False]}
_CONDITION = {"$ref": "#/definitions/condition"}
_BLOCK = {"$ref": "#/definitions/when"}


def schema(specs: Mapping[str, OperatorSpec]) -> dict[str, Any]:
    """JSON Schema (draft 7) of one rule document; the operators are those of *specs*."""
    properties = {key: {"description": text, **_shape(key, specs)} for key, text in KEYS.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "PACSNode rule",
        "type": "object",
        "additionalProperties": False,
        "required": ["rule", "purpose", "owner", "when"],
        "properties": properties,
        "definitions": {"condition": _condition(), "value": _value(), "when": _when(), "given": _given()},
    }


def _shape(key: str, specs: Mapping[str, OperatorSpec]) -> dict[str, Any]:
    fixed: dict[str, dict[str, Any]] = {
        "when": _BLOCK,
        "use": _BLOCK,
        "unless": {"type": "array", "items": {"type": "string"}},
        "fallback": _YES_NO,
        "discard": _YES_NO,
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
        "wait": _object(
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
        "on_failure": _object({"retry": {"type": "integer", "minimum": 0}, "then": {"enum": ["quarantine"]}}),
        "do": {"type": "array", "items": _step(specs)},
        "send": {"type": "array", "items": _send()},
        "try": {"type": "array", "items": _case()},
    }
    found = fixed.get(key, {"type": "string"})
    return {"allOf": [found]} if "$ref" in found else found


def _input_series() -> dict[str, Any]:
    """One entry of `inputs`."""
    shapes: dict[str, dict[str, Any]] = {
        "when": {"allOf": [_BLOCK]},
        "use": {"allOf": [_BLOCK]},
        "prefer": {"type": "array", "items": {"anyOf": [_BLOCK, {"type": "object", "maxProperties": 1}]}},
        "pick": {"enum": list(PICKS)},
        "optional": _YES_NO,
        "prior": _object({"at": {"type": "string"}, "max_age": {"type": "string"}}, ("at", "max_age")),
        "ours": {"enum": ["ok"]},
    }
    return _object({key: {"description": text, **shapes[key]} for key, text in INPUT_KEYS.items()})


def _splitter() -> dict[str, Any]:
    return {"anyOf": [{"enum": list(FACTS)}, {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]*$"}]}


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    found = {"type": "object", "additionalProperties": False, "properties": dict(properties)}
    return {**found, "required": list(required)} if required else found


def _value() -> dict[str, Any]:
    return {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}


def _condition() -> dict[str, Any]:
    operators: dict[str, Any] = {op: {"description": text} for op, text in OPERATORS.items()}
    for op in ("not", "some"):
        operators[op] = {"description": OPERATORS[op], "allOf": [_CONDITION]}
    return {"anyOf": [{"$ref": "#/definitions/value"}, _object(operators)]}


def _names(each: Mapping[str, Any]) -> dict[str, Any]:
    """Every fact of ours and every DICOM keyword, each with its hover text."""
    found: dict[str, Any] = {}
    for name in (*OURS, *sorted(k for k in keyword_dict if k)):
        try:
            attribute = lookup(name)
        except ValueError:  # bulk data: no condition can ask for it
            continue
        unit = f", in {attribute.unit}" if attribute.unit else ""
        found[name] = {"description": f"{attribute.title}{unit}", "allOf": [each]}
    return found


def _when() -> dict[str, Any]:
    groups: dict[str, Any] = {
        op: {"description": OPERATORS[op], "type": "array", "items": _BLOCK} for op in ("any_of", "none_of")
    }
    return {
        "type": "object",
        "properties": {**groups, **_names(_CONDITION)},
        "patternProperties": {r"^\(|[.\[]": _CONDITION},
        "additionalProperties": False,
    }


def _given() -> dict[str, Any]:
    value = {"$ref": "#/definitions/value"}
    return {
        "type": "object",
        "properties": dict.fromkeys(OURS, value),
        "patternProperties": {r"^[A-Z(]": value},
        "additionalProperties": False,
    }


def _step(specs: Mapping[str, OperatorSpec]) -> dict[str, Any]:
    named: dict[str, Any] = {
        "as": {"type": "string", "description": "the result's name, for later steps and send"}
    }
    for name, spec in specs.items():
        parameters = {p.name: _input(p) for p in spec.inputs} | {p.name: _option(p) for p in spec.options}
        needed = [p.name for p in (*spec.inputs[1:], *spec.options) if p.required]
        options = _object(parameters, tuple(needed))
        shape = options if needed else {"anyOf": [options, {"type": "null"}]}
        named[name] = {"description": f"{spec.summary} Makes: {spec.returns}.", **shape}
    return {"type": "object", "additionalProperties": False, "properties": named, "maxProperties": 2}


def _input(parameter: Parameter) -> dict[str, Any]:
    return {
        "type": "string",
        "description": f"{parameter.type}: the as: name of an earlier step, received, or an input of the study",
    }


def _option(parameter: Parameter) -> dict[str, Any]:
    told = [parameter.type + (f" in {unit_name(parameter.unit)}" if parameter.unit else "")]
    told += [f"default {parameter.default}"] if parameter.default is not None else []
    told += ["required"] if parameter.required else []
    about: dict[str, Any] = {"description": ", ".join(told)}
    if parameter.choices:
        return {**about, "enum": list(parameter.choices)}
    kinds: dict[str, Any] = {"yes/no": _YES_NO, "integer": {"type": "integer"}, "text": _TEXT}
    return {**about, **kinds.get(parameter.type, {"type": ["number", "string"]})}


def _send() -> dict[str, Any]:
    templates: dict[str, Any] = {
        key: {**_TEXT, "description": f"{key} of the result; braces hold one DICOM keyword of the source"}
        for key in SETTABLE
    }
    kinds = sorted(set(KIND_OF.values()))
    return _object(
        {
            "what": {"type": "string", "description": "received, or the as: name of a step"},
            "to": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "as": {
                "description": "what it may go as, best first: each destination gets the first that it shows",
                "anyOf": [{"enum": kinds}, {"type": "array", "items": {"enum": kinds}}],
            },
            "mode": {"enum": ["immediate", "sealed"], "description": "received: at once, or when complete"},
            "back_to_sender": {**_YES_NO, "description": "also to the peer an object came from"},
            "lossy": {"enum": ["ok"], "description": "with loss where the peer takes it in no other way"},
            **templates,
        },
        ("what", "to"),
    )


def _case() -> dict[str, Any]:
    given = {
        "anyOf": [
            {"$ref": "#/definitions/given"},
            {"type": "array", "items": {"$ref": "#/definitions/given"}},
        ]
    }
    several = {"type": "object", "additionalProperties": given}
    study = _object(
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
    expect = _object(
        {
            "runs": _YES_NO,
            "because": {"type": "string"},
            "uses": {
                **used,
                "description": "scope: study: input → the series of given that it should be, or none",
            },
        },
        ("runs",),
    )
    return _object({"given": {"anyOf": [study, given]}, "expect": expect}, ("given", "expect"))
