"""Steps under `do:`: every operator there is, with its inputs and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.model import OperatorSpec, Parameter
from node.route.schema.pieces import TEXT, YES_NO, mapping_of
from node.route.values import unit_name


def step_entry(specs: Mapping[str, OperatorSpec]) -> dict[str, Any]:
    """One entry of `do:`: an operator with its parameters, and the name of what it makes."""
    named: dict[str, Any] = {
        "as": {"type": "string", "description": "the result's name, for later steps and send"}
    }
    for name, spec in specs.items():
        parameters = {p.name: _input(p) for p in spec.inputs} | {p.name: _option(p) for p in spec.options}
        needed = [p.name for p in (*spec.inputs[1:], *spec.options) if p.required]
        options = mapping_of(parameters, tuple(needed))
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
    kinds: dict[str, Any] = {"yes/no": YES_NO, "integer": {"type": "integer"}, "text": TEXT}
    return {**about, **kinds.get(parameter.type, {"type": ["number", "string"]})}
