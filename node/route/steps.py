"""`do:` lists → typed steps, each checked against the operator's signature."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from node.model import PART_NAME, RECEIVED, OperatorSpec, Parameter, Step, is_received
from node.route.values import measured, unit_name
from node.shape import Node, Shaper, nearest

_FROM_FILES = frozenset({"Volume", "Stack", "Picture", "Recording", "Tiles", "Document", "Segments"})
"""What a received series can be read as."""
NO_OPERATOR = "there is no operator"
"""How the mistake begins that a package installed since the node's start explains."""
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def parse_steps(
    node: Node,
    specs: Mapping[str, OperatorSpec],
    shaper: Shaper,
    *,
    together: bool = False,
    inputs: Collection[str] = (),
) -> tuple[Step, ...]:
    """The steps under `do:`, in order; mistakes are noted in *shaper*.

    *together*: parts may be named. *inputs*: the series that a rule over a study takes; then nothing is `received`.
    """
    if not node.is_list or not node.items:
        shaper.wrong(node, "do holds a list of steps, for example do: [reformat: {plane: axial}]")
        return ()
    reader = _Steps(specs, shaper, together, tuple(inputs))
    for item in node.items:
        reader.read(item)
    for name, kinds in reader.taken_as.items():
        if len(kinds) > 1:
            said = ", ".join(f"{operator} takes a {kind}" for kind, operator in kinds.items())
            what = f"the input {name}" if inputs else "the received series"
            shaper.wrong(node, f"{what} cannot be read in several ways ({said}); make a rule of each")
    return tuple(reader.steps)


def left_without(
    steps: tuple[Step, ...], missing: Collection[str], specs: Mapping[str, OperatorSpec]
) -> tuple[Step, ...]:
    """The steps that can be done without these inputs; an operator's optional input is then not given."""
    gone, kept = set(missing), []
    for step in steps:
        spec = specs.get(step.operator)
        needed = {p.name for p in spec.inputs if p.required} if spec else set(step.inputs)
        if any(source in gone for name, source in step.inputs.items() if name in needed):
            gone.add(step.name)
            continue
        taken = {name: source for name, source in step.inputs.items() if source not in gone}
        kept.append(step if len(taken) == len(step.inputs) else replace(step, inputs=taken))
    return tuple(kept)


def canonical(
    steps: tuple[Step, ...], specs: Mapping[str, OperatorSpec], inputs: Collection[str] = ()
) -> list[Any]:
    """What the steps mean: defaults filled in, earlier results and a study's inputs by number instead of by name."""
    numbers: dict[str, Any] = {RECEIVED: 0} | {step.name: number for number, step in enumerate(steps, 1)}
    numbers |= {name: f"input {number}" for number, name in enumerate(inputs, 1)}
    found = []
    for step in steps:
        spec = specs[step.operator]
        defaults = {p.name: p.default for p in spec.options if p.default is not None}
        options = {name: _plain(value) for name, value in {**defaults, **step.options}.items()}
        taken: dict[str, Any] = {
            name: numbers.get(source, source if is_received(source) else -1)
            for name, source in step.inputs.items()
        }
        found.append([step.operator, taken, options])
    return found


def _plain(value: Any) -> Any:
    return f"{value:.12g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Steps:
    """Reads one step after the other and remembers what they make."""

    def __init__(
        self, specs: Mapping[str, OperatorSpec], shaper: Shaper, together: bool, sources: tuple[str, ...] = ()
    ) -> None:
        self.specs = specs
        self.shaper = shaper
        self.together = together
        self.sources = sources
        """The inputs of a rule over a study; none where there is one received series."""
        self.taken_as: dict[str, dict[str, str]] = {}
        """Series → type as which it is taken → the operator that does; parts are one series."""
        self.steps: list[Step] = []
        self.made: dict[str, str] = {}
        """Result's name → its type; empty where the step is wrong."""

    def read(self, item: Node) -> None:
        """One entry: `- operator: {options}`, with `as:` beside it."""
        fields = dict(item.fields) if item.is_mapping else {item.text: Node(item.place, {})}
        given_name = fields.pop("as", None)
        if not item.is_mapping and not item.text:
            self.shaper.wrong(item, "expected a step such as reformat: {plane: axial}")
            return
        if len(fields) != 1:
            self.shaper.wrong(
                item,
                f"a step has one operator, and as: for its name; found {', '.join(fields) or 'none'}; "
                "start each step on a line of its own with -",
            )
            return
        (operator, options), *_ = fields.items()
        name = self._name(given_name, operator, item)
        spec = self.specs.get(operator)
        if spec is None:
            self.shaper.wrong(options, f"{NO_OPERATOR} {operator}{nearest(operator, self.specs)}")
            self.made.setdefault(name, "")
            return
        self.steps.append(self._step(spec, options, name))
        self.made.setdefault(name, spec.returns)

    def _name(self, node: Node | None, operator: str, item: Node) -> str:
        """The `as:` name, else the operator's own name without its package."""
        name = self.shaper.text(node) if node is not None else operator.rpartition(".")[2]
        at = node or item
        if node is not None and name in self.sources:
            self.shaper.wrong(at, f"as: {name} is the name of an input; choose another")
        elif node is not None and name and (not _NAME.fullmatch(name) or is_received(name)):
            self.shaper.wrong(
                at, f"as: {name} is not a free name; use a lower-case word other than received or part_1"
            )
        elif name in self.made:
            self.shaper.wrong(at, f"an earlier step is already called {name}; give this one its own as: name")
        return name

    def _step(self, spec: OperatorSpec, node: Node, name: str) -> Step:
        inputs = {p.name: p for p in spec.inputs}
        options = {p.name: p for p in spec.options}
        if node.is_text and not node.text:  # `- segment_body:` with nothing behind it
            node = Node(node.place, {})
        if not node.is_mapping:
            self.shaper.wrong(node, f"{spec.name}: expected options such as {{{_example(spec)}}}")
            node = Node(node.place, {})
        taken: dict[str, str] = {}
        values: dict[str, Any] = {}
        for key, value in node.fields.items():
            if key in inputs:
                taken[key] = self._input(spec, inputs[key], value)
            elif key in options:
                values[key] = self._option(spec, options[key], value)
            else:
                known = (*inputs, *options)
                self.shaper.wrong(
                    value,
                    f"{spec.name} has no option {key}{nearest(key, known)}; it takes {', '.join(known)}",
                )
        self._defaults(spec, node, taken)
        for taking, source in taken.items():
            if self._comes_from_files(source):
                series = source if self.sources else RECEIVED
                self.taken_as.setdefault(series, {}).setdefault(inputs[taking].type, spec.name)
        for parameter in spec.options:
            if parameter.required and parameter.name not in node.fields:
                self.shaper.wrong(node, f"{spec.name} needs the option {parameter.name}")
        return Step(spec.name, taken, values, name)

    def _comes_from_files(self, source: str) -> bool:
        return source in self.sources if self.sources else is_received(source)

    def _defaults(self, spec: OperatorSpec, node: Node, taken: dict[str, str]) -> None:
        """The first input is the received series unless the rule says otherwise; the others are named."""
        for position, parameter in enumerate(spec.inputs):
            if parameter.name in taken:
                continue
            if position == 0 and parameter.type in _FROM_FILES and len(self.sources) < 2:
                taken[parameter.name] = self.sources[0] if self.sources else RECEIVED
            elif parameter.required:
                fitting = [name for name, kind in self.made.items() if kind == parameter.type]
                fitting += ["part_2"] if self.together and parameter.type in _FROM_FILES else []
                if parameter.type in _FROM_FILES:
                    fitting += [name for name in self.sources[::-1] if name not in taken.values()]
                hint = (
                    f"{parameter.name}: {fitting[-1]}"
                    if fitting
                    else f"a step before it that makes a {parameter.type}"
                )
                self.shaper.wrong(node, f"{spec.name} needs {parameter.name}, a {parameter.type}; add {hint}")

    def _input(self, spec: OperatorSpec, parameter: Parameter, node: Node) -> str:
        source = self.shaper.text(node)
        what = f"{spec.name}: {parameter.name}"
        if self.sources and is_received(source):
            self.shaper.wrong(
                node, f"{what}: a rule over a study takes inputs by their names: {', '.join(self.sources)}"
            )
        elif PART_NAME.fullmatch(source) and not self.together:
            self.shaper.wrong(
                node, f"{what}: {source} is there only with split: and each_part: together in the rule"
            )
        elif self._comes_from_files(source):
            if parameter.type not in _FROM_FILES:
                self.shaper.wrong(
                    node, f"{what} must be a {parameter.type}, and {source} is the series itself"
                )
        elif source and source not in self.made:
            hint = nearest(source, (*self.made, *(self.sources or (RECEIVED,))))
            self.shaper.wrong(node, f"{what}: no earlier step is called {source} by its as: name{hint}")
        elif source and self.made[source] not in ("", parameter.type):
            self.shaper.wrong(
                node, f"{what} must be a {parameter.type}, but {source} is a {self.made[source]}"
            )
        return source

    def _option(self, spec: OperatorSpec, parameter: Parameter, node: Node) -> Any:
        if parameter.choices:
            return self.shaper.choice(node, parameter.choices)
        readers: dict[str, Callable[[Node], Any]] = {
            "yes/no": self.shaper.yes_no,
            "integer": self.shaper.integer,
            "text": self.shaper.text,
        }
        if parameter.type in readers:
            return readers[parameter.type](node)
        if not node.is_text:
            self.shaper.wrong(node, f"{spec.name}: {parameter.name} expects one number")
            return 0.0
        try:
            value = float(measured(node.text, unit_name(parameter.unit), parameter.name))
        except ValueError as error:
            self.shaper.wrong(node, f"{spec.name}: {error}")
            return 0.0
        if not math.isfinite(value):
            self.shaper.wrong(node, f"{spec.name}: {parameter.name} is too large a number")
        return value


def _example(spec: OperatorSpec) -> str:
    return ", ".join(f"{p.name}: …" for p in (*spec.inputs[1:], *spec.options)[:2])
