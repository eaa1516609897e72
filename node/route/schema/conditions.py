"""Conditions, and what of an image they can be asked of: every DICOM keyword and every fact of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from pydicom.datadict import keyword_dict

from node.route.keywords import OURS, Attribute, lookup
from node.route.schema.pieces import BLOCK, CONDITION, TEXT, YES_NO, Peers, explained, mapping_of, peer_name
from node.route.values import ORDERED, Kind
from node.route.when import OPERATORS

_MULTI = ("has_all", "has_any", "excludes")
_ORDERED = ("at_least", "at_most", "between")
CONDITIONS = {
    "of_several": tuple(op for op in OPERATORS if op not in _ORDERED),
    "of_several_ordered": tuple(OPERATORS),
    "of_one": tuple(op for op in OPERATORS if op not in (*_MULTI, *_ORDERED)),
    "of_one_ordered": tuple(op for op in OPERATORS if op not in _MULTI),
    "of_presence": ("present", "absent", "some", "not", "any_of", "none_of"),
}
"""Definition → the operators that an attribute of that sort can be asked with."""


def plain_value() -> dict[str, Any]:
    """A value as it is, or a list of such."""
    return {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}


def condition(ops: Iterable[str] = tuple(OPERATORS)) -> dict[str, Any]:
    """What an attribute is asked with: a value to equal, or *ops*."""
    operators: dict[str, Any] = {op: explained(op, OPERATORS[op], _operand(op)) for op in ops}
    plain = {"$ref": "#/definitions/value"} if "one_of" in operators else {"enum": ["present", "absent"]}
    return {"anyOf": [plain, mapping_of(operators)]}


def _operand(op: str) -> dict[str, Any]:
    if op in ("not", "some"):
        return {"allOf": [CONDITION]}
    if op in ("present", "absent"):
        return YES_NO
    if op == "between":
        return {"type": "array", "minItems": 2, "maxItems": 2, "items": TEXT}
    if op in ("at_least", "at_most"):
        return TEXT
    if op in ("any_of", "none_of"):
        return {"anyOf": [CONDITION, {"type": "array", "items": CONDITION}]}
    several = {"type": "array", "items": {"$ref": "#/definitions/value"}}
    return {"anyOf": [TEXT, several]}


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


def when_block(peers: Peers) -> dict[str, Any]:
    """A block of conditions: of `when`, `use`, and of their groups."""
    groups: dict[str, Any] = {
        op: explained(op, OPERATORS[op], {"type": "array", "items": BLOCK}) for op in ("any_of", "none_of")
    }
    names = {
        a.name: {"description": _hover(a), "allOf": [{"$ref": f"#/definitions/{_sort_of(a)}"}]}
        for a in _attributes()
    }
    if peers:
        one = peer_name(peers)
        some = {"type": "array", "items": one}
        names["from"]["anyOf"] = [one, some, mapping_of({op: {} for op in OPERATORS})]
    return {
        "type": "object",
        "properties": {**groups, **names},
        "patternProperties": {r"^\(|[.\[]": CONDITION},
        "additionalProperties": False,
    }


def given_facts() -> dict[str, Any]:
    """What a case says of an object or series."""
    value = {"$ref": "#/definitions/value"}
    return {
        "type": "object",
        "properties": {a.name: {"description": _hover(a), "allOf": [value]} for a in _attributes()},
        "patternProperties": {r"^\(|[.\[]": value},
        "additionalProperties": False,
    }
