"""One rule as a frozen value, and what it means for the identity of its outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from node.model import OperatorSpec, Output, Plan, Priority, Step
from node.route import steps as steps_of
from node.route.sends import PICTURE, Send
from node.route.splitting import UNDIVIDED, Split
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
    tries: tuple[Try, ...] = ()
    split: Split = UNDIVIDED
    priority: Priority = Priority.NORMAL
    """How its deliveries rank among those that wait for the same destination."""

    @cached_property
    def attributes(self) -> frozenset[str]:
        """Every attribute and fact the rule asks for."""
        return self.when.names() | self.use.names()

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
            self.name, self.meaning, self.steps, self.outputs(), self.split.names, self.split.each_part
        )


def with_meaning(rule: Rule, specs: Mapping[str, OperatorSpec]) -> Rule:
    """*rule* with the digest of what decides its outputs; where they go does not count (design §6)."""
    outputs = [
        [o.name, sorted(o.attributes.items()), _number(rule, o.name), *([PICTURE] if o.picture else [])]
        for o in rule.outputs()
    ]
    said = {"use": rule.use.canonical(), "do": steps_of.canonical(rule.steps, specs), "outputs": outputs}
    if rule.split.names:
        said["split"] = rule.split.canonical()
    text = json.dumps(said, sort_keys=True, ensure_ascii=True)
    return replace(rule, meaning=hashlib.sha256(text.encode()).hexdigest())


def _number(rule: Rule, name: str) -> int:
    return [step.name for step in rule.steps].index(name) + 1
