"""What a rule asks of operators: their signatures, its steps, and what leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RECEIVED = "received"
"""How steps and sends call the series itself."""
PART_NAME = re.compile(r"part_[1-9][0-9]{0,1}")
"""How steps call one of several parts that come together, in the order of what splits them."""


def is_received(name: str) -> bool:
    """Whether a step's input is the series itself or a part of it."""
    return name == RECEIVED or bool(PART_NAME.fullmatch(name))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operator, read from its signature."""

    name: str
    type: str
    """Input: Volume, Mask …; option: number, integer, text, yes/no."""
    unit: str = ""
    """UCUM unit of a number; empty when it has none."""
    default: Any = None
    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """What a rule may say about an operator; `route` checks steps against it without loading code."""

    name: str
    summary: str
    inputs: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    returns: str
    """Volume, Mask, Measurements …"""
    version: str
    distribution: str


@dataclass(frozen=True, slots=True)
class Step:
    """One entry under `do:`: an operator, the named inputs it takes, its typed options, its result's name."""

    operator: str
    inputs: Mapping[str, str]
    """Input parameter → name of an earlier result; `received` is the series itself."""
    options: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """A step's result that leaves as DICOM, with the attribute templates its `send` entries ask for."""

    name: str
    """The `as:` name."""
    index: int
    """1-based among the rule's outputs; counts in the series number."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Keyword → template text with `{Keyword}` of the source in braces."""
    picture: bool = False
    """It is also made as a picture, for destinations that do not show what it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All a worker needs of a rule: the steps and what leaves."""

    rule: str
    meaning: str
    """SHA-256 of the rule's normalised meaning (identity of its outputs)."""
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    split: tuple[str, ...] = ()
    """Keywords and facts that tell the parts of a series from each other."""
    each_part: str = "refuse"
    """run: each part by itself · largest · refuse: more than one · together: `part_1`, `part_2` … are inputs."""
    inputs: tuple[str, ...] = ()
    """Of a rule over a study: how steps call the series it takes, in order; the first stands for the study."""
