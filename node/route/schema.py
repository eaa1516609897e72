"""A JSON schema of rule files, so that editors complete and explain while a rule is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydicom.datadict import keyword_dict

from node.model import KIND_OF, OperatorSpec, Parameter, Priority
from node.route.editable import refusal, target_of
from node.route.edits import ELSE, OPERATIONS, REASONS
from node.route.inputs import AGAIN, INPUT_KEYS, PICKS, WAITS
from node.route.keywords import OURS, Attribute, lookup
from node.route.rule_reading import KEYS
from node.route.sends import KEYS as SEND_KEYS
from node.route.sends import SETTABLE
from node.route.splitting import EACH_PART, FACTS
from node.route.values import ORDERED, Kind, unit_name
from node.route.ways import BY
from node.route.when import OPERATORS
from node.settings.deidentify import CLEAN, RETAIN

_TEXT = {"type": ["string", "number", "boolean"]}
_YES_NO = {"enum": ["yes", "no", "on", "off", True, False]}
_CONDITION = {"$ref": "#/definitions/condition"}
_WINDOW = {"type": "string", "pattern": r"^([a-z]{3}(-[a-z]{3})? +)?\d{1,2}:\d\d *- *\d{1,2}:\d\d$"}
_WINDOWS = {"anyOf": [_WINDOW, {"type": "array", "minItems": 1, "items": _WINDOW}]}
_BLOCK = {"$ref": "#/definitions/when"}


Peers = Mapping[str, bool]
"""Peer → whether it can receive; none where no site file says which there are."""


def schema(specs: Mapping[str, OperatorSpec], peers: Peers | None = None) -> dict[str, Any]:
    """JSON Schema (draft 7) of one rule document: the operators of *specs*, the *peers* of a site file.

    Keys come from the tables that the reader of rules goes by: one that is new there appears here by itself, with
    its sentence, also before its shape is described.
    """
    peers = peers or {}
    properties = {key: _explained(key, text, _shape(key, specs, peers)) for key, text in KEYS.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "PACSNode rule",
        "description": "CapitalCase is a DICOM keyword, lower_case is ours. One file may hold several rules.",
        "type": "object",
        "additionalProperties": False,
        "required": ["rule", "purpose", "owner", "when"],
        "properties": properties,
        "definitions": {
            "condition": _condition(), "value": _value(), "when": _when(peers), "given": _given(),
            "edit": _edit(), "editable": _editable(),
            **{name: _condition(ops) for name, ops in _CONDITIONS.items()},
        },
        "defaultSnippets": [_SNIPPET],
    }  # fmt: skip


def _edit() -> dict[str, Any]:
    """The entries of `edit:`, each with the keywords that may be changed."""
    keywords = {"$ref": "#/definitions/editable"}
    table = {
        "anyOf": [{"type": "string", "pattern": r"\.csv$"}, {"type": "object", "additionalProperties": _TEXT}]
    }
    inner = {"type": "object", "properties": {"else": {"enum": list(ELSE)}}}
    shapes: dict[str, dict[str, Any]] = {
        "set": {"allOf": [keywords]},
        "prefix": {"allOf": [keywords]},
        "copy": _object({"from": {"type": "string"}, "to": {"type": "string"}}, ("from", "to")),
        "map": {**inner, "additionalProperties": table},
        "remove": {"type": "array", "items": {"type": "string"}},
        "reason": {"enum": list(REASONS)},
    }
    entries = {key: {"description": text, **shapes[key]} for key, text in OPERATIONS.items()}
    return {"type": "array", "minItems": 1, "items": {**_object(entries), "maxProperties": 1}}


def _editable() -> dict[str, Any]:
    """Every keyword that `edit:` may set, with its hover text."""
    found: dict[str, Any] = {}
    for name in sorted(k for k in keyword_dict if k):
        if not refusal(target_of(name)):
            found[name] = {**_TEXT, "description": lookup(name).title}
    return {
        "type": "object",
        "properties": found,
        "patternProperties": {r"[.\[]": _TEXT},
        "additionalProperties": False,
    }


_TEXTS = ("rule", "purpose", "owner", "group")
_MORE = {
    "when": "`Modality: CT` · `SliceThickness: {at_most: 1.5 mm}` · `ImageType: {has_all: [ORIGINAL]}`",
    "use": "`ImageType: {excludes: LOCALIZER}`",
    "do": "`- reformat: {plane: axial, thickness: 5 mm}` and `as: thick` below it",
    "send": "`- {what: thick, to: PACS}` · `- {what: received, to: PACS}`",
    "try": "`- {given: {Modality: CT, slices: 320}, expect: {runs: yes}}`",
    "on_failure": "`{retry: 3, then: quarantine}`",
    "unless": "`[other-rule]`",
}
"""Key → what it looks like."""
_SNIPPET = {
    "label": "rule",
    "description": "a rule",
    "body": {
        "rule": "${1:name}", "purpose": "${2:What it is for.}", "owner": "${3:mail@hospital.example}",
        "mode": "shadow", "when": {"Modality": "${4:CT}"}, "send": [{"what": "received", "to": "${5:PACS}"}],
    },
}  # fmt: skip


def _explained(key: str, text: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """A key's shape with its hover text: plain, and with an example for editors that show Markdown."""
    more = f"\n\n{_MORE[key]}" if key in _MORE else ""
    return {"description": text, "markdownDescription": f"**{key}**: {text}{more}", **shape}


def _peer(peers: Peers, receiving: bool = False) -> dict[str, Any]:
    """The name of a peer, one of the site file's where there is one."""
    names = sorted(name for name, receives in peers.items() if receives or not receiving)
    return {"enum": names} if names else {"type": "string"}


def _shape(key: str, specs: Mapping[str, OperatorSpec], peers: Peers) -> dict[str, Any]:
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
        "send": {"type": "array", "items": _send(peers)},
        "edit": {"$ref": "#/definitions/edit"},
        "window": _WINDOWS,
        "try": {"type": "array", "items": _case()},
    }
    found = fixed.get(key, _TEXT if key in _TEXTS else {})
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


_MULTI = ("has_all", "has_any", "excludes")
_ORDERED = ("at_least", "at_most", "between")
_CONDITIONS = {
    "of_several": tuple(op for op in OPERATORS if op not in _ORDERED),
    "of_several_ordered": tuple(OPERATORS),
    "of_one": tuple(op for op in OPERATORS if op not in (*_MULTI, *_ORDERED)),
    "of_one_ordered": tuple(op for op in OPERATORS if op not in _MULTI),
    "of_presence": ("present", "absent", "some", "not", "any_of", "none_of"),
}
"""Definition → the operators that an attribute of that sort can be asked with."""


def _condition(ops: Iterable[str] = tuple(OPERATORS)) -> dict[str, Any]:
    operators: dict[str, Any] = {op: _explained(op, OPERATORS[op], _operand(op)) for op in ops}
    plain = {"$ref": "#/definitions/value"} if "one_of" in operators else {"enum": ["present", "absent"]}
    return {"anyOf": [plain, _object(operators)]}


def _operand(op: str) -> dict[str, Any]:
    if op in ("not", "some"):
        return {"allOf": [_CONDITION]}
    if op in ("present", "absent"):
        return _YES_NO
    if op == "between":
        return {"type": "array", "minItems": 2, "maxItems": 2, "items": _TEXT}
    if op in ("at_least", "at_most"):
        return _TEXT
    if op in ("any_of", "none_of"):
        return {"anyOf": [_CONDITION, {"type": "array", "items": _CONDITION}]}
    several = {"type": "array", "items": {"$ref": "#/definitions/value"}}
    return {"anyOf": [_TEXT, several]}


def _sort_of(attribute: Attribute) -> str:
    """The definition that says how an attribute can be asked."""
    if attribute.kind is Kind.OPAQUE:
        return "of_presence"
    return ("of_several" if attribute.several else "of_one") + (
        "_ordered" if attribute.kind in ORDERED else ""
    )


def _hover(attribute: Attribute) -> str:
    unit = f", in {attribute.unit}" if attribute.unit else ""
    choices = f": {', '.join(attribute.choices)}" if attribute.choices else ""
    return f"{attribute.title}{unit}{choices}"


def _attributes() -> Iterator[Attribute]:
    """Every fact of ours and every DICOM keyword that a rule can ask for."""
    for name in (*OURS, *sorted(k for k in keyword_dict if k)):
        with suppress(ValueError):  # bulk data: no condition can ask for it
            yield lookup(name)


def _when(peers: Peers) -> dict[str, Any]:
    groups: dict[str, Any] = {
        op: _explained(op, OPERATORS[op], {"type": "array", "items": _BLOCK}) for op in ("any_of", "none_of")
    }
    names = {
        a.name: {"description": _hover(a), "allOf": [{"$ref": f"#/definitions/{_sort_of(a)}"}]}
        for a in _attributes()
    }
    if peers:
        one = _peer(peers)
        some = {"type": "array", "items": one}
        names["from"]["anyOf"] = [one, some, _object({op: {} for op in OPERATORS})]
    return {
        "type": "object",
        "properties": {**groups, **names},
        "patternProperties": {r"^\(|[.\[]": _CONDITION},
        "additionalProperties": False,
    }


def _given() -> dict[str, Any]:
    value = {"$ref": "#/definitions/value"}
    return {
        "type": "object",
        "properties": {a.name: {"description": _hover(a), "allOf": [value]} for a in _attributes()},
        "patternProperties": {r"^\(|[.\[]": value},
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
        named[name] = {
            "description": f"{spec.summary} Makes: {spec.returns}.",
            "markdownDescription": f"**{name}** ({spec.distribution} {spec.version}): {spec.summary}\n\n"
            f"{' · '.join(f'`{p.name}: {p.type}`' for p in spec.inputs)} → `{spec.returns}`",
            **shape,
        }
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


def _send(peers: Peers) -> dict[str, Any]:
    kinds = sorted(set(KIND_OF.values()))
    to = _peer(peers, receiving=True)
    several = [to, {"type": "array", "items": to}]
    shapes: dict[str, dict[str, Any]] = {
        "what": {"type": "string"},
        "to": {"anyOf": [*several, _object({"share": {"anyOf": several}, "by": _by()}, ("share",))]},
        "window": _WINDOWS,
        "hold": _YES_NO,
        "as": {"anyOf": [{"enum": kinds}, {"type": "array", "items": {"enum": kinds}}]},
        "mode": {"enum": ["immediate", "sealed"]},
        "back_to_sender": _YES_NO,
        "lossy": {"enum": ["ok"]},
        "edit": {"allOf": [{"$ref": "#/definitions/edit"}]},
        "deidentify": _deidentify(),
        **dict.fromkeys(SETTABLE, _TEXT),
    }
    return _object(
        {key: _explained(key, text, shapes.get(key, {})) for key, text in SEND_KEYS.items()}, ("what", "to")
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
    return {"anyOf": [name, _object({"profile": name, **lists}, ("profile",))]}


def _by() -> dict[str, Any]:
    return {"enum": list(BY), "description": "; ".join(f"{word}: {says}" for word, says in BY.items())}


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
