"""One rule as a frozen value, and what it means for the identity of its outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from node.model import OperatorSpec, Output, Plan, Priority, Step
from node.route import steps as steps_of
from node.route.inputs import Study
from node.route.sends import PICTURE, Send
from node.route.splitting import UNDIVIDED, Split
from node.route.study_tries import StudyTry
from node.route.tries import Try
from node.route.when import When
from node.shape import Place


@dataclass(frozen=True)
class Rule:
    """One rule, checked."""

    name: str
    purpose: str
    owner: str
    group: str
    unless: tuple[str, ...]
    fallback: bool
    when: When
    use: When
    steps: tuple[Step, ...]
    sends: tuple[Send, ...]
    retry: int
    """How often a failed run is tried again before it is quarantined."""
    meaning: str
    """SHA-256 over what decides the outputs: `use`, `do`, and of `send` what changes an object."""
    place: Place
    shadow: bool = False
    discard: bool = False
    incomplete_ok: bool = False
    tries: tuple[Try | StudyTry, ...] = ()
    split: Split = UNDIVIDED
    priority: Priority = Priority.NORMAL
    """How its deliveries rank among those that wait for the same destination."""
    study: Study | None = None
    """Of a rule over a study: its inputs, and how it waits for them; None for a rule over single series."""

    @cached_property
    def attributes(self) -> frozenset[str]:
        """Every attribute and fact the rule asks for."""
        inputs = self.study.inputs if self.study else ()
        return (self.when.names() | self.use.names()).union(*(one.names() for one in inputs))

    @property
    def input_names(self) -> tuple[str, ...]:
        """How steps call the series that a rule over a study takes; none for a rule over single series."""
        return tuple(one.name for one in self.study.inputs) if self.study else ()

    def outputs(self) -> tuple[Output, ...]:
        """The steps' results that some send names, in the steps' order."""
        sent: dict[str, dict[str, str]] = {}
        for send in self.sends:
            sent.setdefault(send.what, {}).update(send.attributes)
        drawn = {send.what for send in self.sends if PICTURE in send.forms}
        names = [step.name for step in self.steps if step.name in sent]
        return tuple(Output(name, i, sent[name], name in drawn) for i, name in enumerate(names, 1))

    def plan(self) -> Plan | None:
        """What a worker needs; None for a rule without `do`."""
        if not self.steps:
            return None
        return Plan(
            self.name, self.meaning, self.steps, self.outputs(), self.split.names, self.split.each_part,
            self.study.order if self.study else (),
        )  # fmt: skip

    def plan_without(self, missing: Collection[str], specs: Mapping[str, OperatorSpec]) -> Plan | None:
        """The plan without what needs these inputs; None where nothing that is sent is left."""
        left = steps_of.left_without(self.steps, missing, specs)
        made = {step.name for step in left}
        outputs = tuple(output for output in self.outputs() if output.name in made)
        names = tuple(name for name in (self.study.order if self.study else ()) if name not in missing)
        return Plan(self.name, self.meaning, left, outputs, inputs=names) if outputs else None


def with_meaning(rule: Rule, specs: Mapping[str, OperatorSpec]) -> Rule:
    """*rule* with the digest of what decides its outputs; where they go does not count (design §6)."""
    outputs = [
        [o.name, sorted(o.attributes.items()), _number(rule, o.name), *([PICTURE] if o.picture else [])]
        for o in rule.outputs()
    ]
    steps = steps_of.canonical(rule.steps, specs, rule.input_names)
    said: dict[str, Any] = {"use": rule.use.canonical(), "do": steps, "outputs": outputs}
    if rule.study is not None:
        said["inputs"] = rule.study.canonical()
    if rule.split.names:
        said["split"] = rule.split.canonical()
    text = json.dumps(said, sort_keys=True, ensure_ascii=True)
    return replace(rule, meaning=hashlib.sha256(text.encode()).hexdigest())


def _number(rule: Rule, name: str) -> int:
    return [step.name for step in rule.steps].index(name) + 1
