"""What is on offer: the operators that rules may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from node.errors import Misconfigured
from node.model import OperatorSpec, Parameter
from node.process.job import spec_to_json
from node.shape import nearest
from node.words import unit_words


def operator_lines(spec: OperatorSpec) -> Iterator[str]:
    """One operator in full: its sentence, what it takes and gives, each option with unit, default and choices."""
    yield f"{_signature(spec)}    {spec.distribution} {spec.version}"
    yield f"    {spec.summary}"
    for p in spec.options:
        yield f"    {p.name}: {_kind(p)}, {_default(p)}"


def operators_table(specs: Sequence[OperatorSpec]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All operators, a row each with their options in short, and the table's columns."""
    rows = [
        {
            "name": spec.name,
            "takes": ", ".join(p.type for p in spec.inputs),
            "gives": spec.returns,
            "options": ", ".join(p.name for p in spec.options),
            "from": f"{spec.distribution} {spec.version}",
            "summary": spec.summary,
        }
        for spec in specs
    ]
    heads = {"name": "operator", "takes": "takes", "gives": "gives", "options": "options", "from": "from",
             "summary": "what it does"}  # fmt: skip
    return rows, heads


def _signature(spec: OperatorSpec) -> str:
    inputs = ", ".join(f"{p.name}: {p.type}" for p in spec.inputs)
    return f"{spec.name}({inputs}) → {spec.returns}"


def _kind(p: Parameter) -> str:
    if p.choices:
        return " | ".join(p.choices)
    return p.type + (f" in {unit_words(p.unit)}" if p.unit else "")


def _default(p: Parameter) -> str:
    if p.required:
        return "required"
    return "optional" if p.default is None else f"default {p.default}"


def unknown_operator(name: str, specs: Mapping[str, OperatorSpec]) -> Misconfigured:
    """Name the nearest operator there is."""
    return Misconfigured(f"{name} is not an operator{nearest(name, specs)}; `pacsnode operators` lists them")


def operators_json(specs: Sequence[OperatorSpec]) -> list[dict[str, Any]]:
    """Operators for scripts."""
    return [spec_to_json(spec) for spec in specs]
