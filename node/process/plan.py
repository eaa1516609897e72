"""A rule's plan as JSON: kept with its run, so that a run ends with the text it began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from node.model import Output, Plan, Step


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain values; `plan_from_json` gives back an equal Plan."""
    return asdict(plan)


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """The inverse of `plan_to_json`. Raises KeyError or TypeError for anything else."""
    return Plan(
        rule=data["rule"],
        meaning=data["meaning"],
        steps=tuple(Step(**step) for step in data["steps"]),
        outputs=tuple(Output(**output) for output in data["outputs"]),
        split=tuple(data.get("split", ())),  # a run that an older version opened has neither
        each_part=data.get("each_part", "refuse"),
        inputs=tuple(data.get("inputs", ())),
    )
