"""An operator's signature is its contract: Python annotations → OperatorSpec, or sentences why not."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

from node.errors import Misconfigured
from node.model import OperatorSpec, Parameter
from node.operator import (
    Document,
    FractionalMask,
    KeyImages,
    Map,
    Mask,
    Measurement,
    Picture,
    Presentation,
    Recording,
    Report,
    Segments,
    Stack,
    Tiles,
    Unit,
    Volume,
)

INPUTS: dict[Any, str] = {
    kind: kind.__name__
    for kind in (
        Volume, Stack, Mask, FractionalMask, Segments, Map, Picture, Recording, Tiles, Document,
    )
}  # fmt: skip
"""What a positional parameter may take."""
RETURNS: dict[Any, str] = {
    **INPUTS,
    KeyImages: "KeyImages",
    Presentation: "Presentation",
    list[Measurement]: "Measurements",
    Report: "Report",
}
"""What an operator may give back, and how a rule calls it."""
OPTIONS: dict[Any, str] = {float: "number", int: "integer", str: "text", bool: "yes/no"}
"""What a keyword-only parameter may take."""


def spec_of(
    name: str, function: Callable[..., Any], distribution: str = "", version: str = ""
) -> OperatorSpec:
    """The spec of *function*. Raises Misconfigured with a sentence for each thing its signature lacks."""
    if not callable(function):
        raise Misconfigured(f"operator {name}: {function!r} is not a function")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise Misconfigured(f"operator {name}: its annotations cannot be read: {error}") from None
    mistakes: list[str] = []
    inputs = tuple(_input(p, hints, mistakes) for p in parameters if p.kind != p.KEYWORD_ONLY)
    options = tuple(_option(p, hints, mistakes) for p in parameters if p.kind == p.KEYWORD_ONLY)
    if not inputs:
        mistakes.append("it takes no input; give it a positional parameter such as `volume: Volume`")
    if "return" not in hints:
        mistakes.append("its return annotation is missing, e.g. `-> Mask`")
    elif hints["return"] not in RETURNS:
        mistakes.append(f"it returns {_shown(hints['return'])}; known are {_known(RETURNS)}")
    if mistakes:
        raise Misconfigured(*(f"operator {name}: {mistake}" for mistake in mistakes))
    summary = (inspect.getdoc(function) or "").strip().split("\n\n")[0].replace("\n", " ")
    return OperatorSpec(name, summary, inputs, options, RETURNS[hints["return"]], version, distribution)


def _shown(kind: Any) -> str:
    plain = isinstance(kind, type) and not typing.get_args(kind)
    return str(kind.__name__) if plain else str(kind).replace("typing.", "").replace("node.operator.", "")


def _known(kinds: dict[Any, str]) -> str:
    return ", ".join(_shown(kind) for kind in kinds)


def _optional(kind: Any) -> tuple[Any, bool]:
    """`T | None` → (T, True); anything else → (it, False)."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        others = [k for k in typing.get_args(kind) if k is not type(None)]
        if len(others) == 1 and len(others) < len(typing.get_args(kind)):
            return others[0], True
    return kind, False


def _input(p: inspect.Parameter, hints: dict[str, Any], mistakes: list[str]) -> Parameter:
    kind, optional = _optional(hints.get(p.name))
    if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
        mistakes.append(f"it takes {p}; name each input and each option instead")
    elif kind is None:
        mistakes.append(f"the annotation of {p.name} is missing, e.g. `{p.name}: Volume`")
    elif kind not in INPUTS:
        hint = "; options come after `*`" if _option_type(kind) else ""
        mistakes.append(f"input {p.name} is {_shown(kind)}; known are {_known(INPUTS)}{hint}")
    elif p.default is not p.empty and not (optional and p.default is None):
        mistakes.append(
            f"input {p.name} has a default; the only one is None, as `{INPUTS[kind]} | None = None`"
        )
    return Parameter(p.name, INPUTS.get(kind, ""), required=p.default is p.empty)


def _option(p: inspect.Parameter, hints: dict[str, Any], mistakes: list[str]) -> Parameter:
    kind, optional = _optional(hints.get(p.name))
    required = p.default is p.empty
    default = None if required else p.default
    found = _option_type(kind)
    if kind is None:
        mistakes.append(f"the annotation of {p.name} is missing, e.g. `{p.name}: float`")
    elif found is None:
        mistakes.append(
            f"option {p.name} is {_shown(kind)}; known are HU, Mm, Annotated[float, Unit(...)], "
            f"{_known(OPTIONS)} and Literal of texts"
        )
    elif not required and not _fits(default, found, optional):
        mistakes.append(f"the default {default!r} of option {p.name} is no {found[0]}")
    else:
        return Parameter(p.name, found[0], found[1], default, required, found[2])
    return Parameter(p.name, "", required=required)


def _option_type(kind: Any) -> tuple[str, str, tuple[str, ...]] | None:
    """(type, unit, choices) of an option's annotation, None for one we do not know."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        units = [extra.ucum for extra in args[1:] if isinstance(extra, Unit)]
        return ("number", units[0], ()) if args[0] is float and len(units) == 1 else None
    if origin is Literal:
        return ("text", "", args) if all(isinstance(a, str) for a in args) else None
    return (OPTIONS[kind], "", ()) if isinstance(kind, type) and kind in OPTIONS else None


def _fits(default: Any, found: tuple[str, str, tuple[str, ...]], optional: bool) -> bool:
    if default is None:
        return optional
    kind, _, choices = found
    if choices:
        return default in choices
    if kind == "yes/no":
        return isinstance(default, bool)
    expected = {"number": (int, float), "integer": (int,), "text": (str,)}[kind]
    return isinstance(default, expected) and not isinstance(default, bool)
