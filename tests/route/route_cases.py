"""Operator specs and small builders shared by the tests of the route room."""

from __future__ import annotations

from datetime import UTC, datetime

from node.facts import Facts, gather
from node.model import OperatorSpec, Parameter
from node.route.aggregates import Context
from node.route.match import Judgement, judge
from node.route.rules import Rule, RuleSet, parse_rules

VOLUME = Parameter("volume", "Volume")
MASK = Parameter("mask", "Mask")


def _option(
    name: str, kind: str = "number", unit: str = "", default: object = None, **more: object
) -> Parameter:
    return Parameter(name, kind, unit, default, **{"required": False, **more})  # type: ignore[arg-type]


SPECS = {
    spec.name: spec
    for spec in (
        OperatorSpec(
            "reformat",
            "Slabs in a standard plane.",
            (VOLUME,),
            (
                _option("plane", "text", default="axial", choices=("axial",)),
                _option("thickness", unit="mm", required=True),
                _option("every", unit="mm"),
                _option("combine", "text", default="mean", choices=("mean", "max", "min")),
            ),
            "Volume",
            "1.0",
            "pacsnode",
        ),
        OperatorSpec(
            "segment_threshold",
            "Everything between two values.",
            (VOLUME,),
            (_option("at_least", required=True), _option("at_most"),
             _option("label", "text", default="Threshold")),
            "Mask",
            "1.0",
            "pacsnode",
        ),
        OperatorSpec(
            "segment_body", "The outline.", (VOLUME,), (_option("above"),), "Mask", "1.0", "pacsnode",
        ),
        OperatorSpec(
            "fuse", "The one over the other.", (VOLUME, Parameter("other", "Volume")), (), "Picture", "1", "p"
        ),
        OperatorSpec(
            "subtract", "The difference.", (VOLUME, Parameter("other", "Volume")), (), "Volume", "1", "p"
        ),
        OperatorSpec(
            "compare", "Beside an earlier one.", (VOLUME, Parameter("earlier", "Volume", required=False)), (),
            "Measurements", "1", "p",
        ),
        OperatorSpec("crop", "A part.", (Parameter("picture", "Picture"),), (), "Picture", "1", "p"),
        OperatorSpec("statistics", "What it measures.", (VOLUME, MASK), (), "Measurements", "1", "p"),
        OperatorSpec(
            "acme.emphysema_index",
            "Share of dark lung.",
            (VOLUME, MASK),
            (_option("below", unit="[hnsf'U]", default=-950.0), _option("strict", "yes/no", default=False),
             _option("count", "integer", default=1)),
            "Measurements",
            "1.0",
            "acme",
        ),
    )
}  # fmt: skip
PEERS = {"CT01": False, "CT02": False, "PACS": True, "RESEARCH": True}
NOW = Context(now=datetime(2024, 5, 6, 22, 30, tzinfo=UTC), timezone="Europe/Berlin")
"""A Tuesday in Berlin, half past midnight."""


def read(text: str, **files: str) -> RuleSet:
    """The rules in *text* and in further files."""
    return parse_rules({"a.yaml": text, **{f"{k}.yaml": v for k, v in files.items()}}, SPECS, PEERS)


def rule(
    when: str = "{}", rest: str = "send: [{what: received, to: PACS, mode: sealed}]", name: str = "r"
) -> Rule:
    """One rule with these conditions."""
    return read(document(when, rest, name)).rules[0]


def document(
    when: str = "{}", rest: str = "send: [{what: received, to: PACS, mode: sealed}]", name: str = "r"
) -> str:
    """The text of one rule."""
    return f"rule: {name}\npurpose: p\nowner: o@h.example\nwhen: {when}\n{rest}\n"


def images(*each: dict[str, object]) -> Facts:
    """Facts from plain values: a text, a tuple of several values, a list over frames, None for absent."""
    return gather(
        {
            k: tuple(_value(f) for f in (v if isinstance(v, list) else [v]))
            for k, v in one.items()
            if v is not None
        }
        for one in each
    )


def _value(value: object) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, tuple) else (str(value),) if value != "" else ()


def verdict(when: str, facts: Facts, context: Context = NOW) -> Judgement:
    """What a rule with these conditions says of these images."""
    return judge([rule(when)], facts, context)[0]
