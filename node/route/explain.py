"""A judgement for people (✓ ✗ ? with the value seen) and for scripts (`--json`)."""

from __future__ import annotations

from typing import Any

from node.route.conditions import Outcome
from node.route.match import Judgement

MARKS = {Outcome.YES: "✓", Outcome.NO: "✗", Outcome.UNDECIDED: "?"}


def verdict(judgement: Judgement) -> str:
    """One line: what the rule does with the series."""
    rule = judgement.rule
    if judgement.runs:
        what = "discards the series" if rule.discard else "processes and sends" if rule.steps else "sends"
        return what + (" nothing: it is on trial (mode: shadow)" if rule.shadow else "")
    if judgement.outcome is Outcome.UNDECIDED:
        return f"undecided, so it does not run ({judgement.because})"
    routed = "; received objects still go where the rule says" if judgement.routes else ""
    return f"does not run ({judgement.because}){routed}"


def mark(judgement: Judgement) -> str:
    """✓ where the rule runs, ? where it is undecided, else ✗."""
    if judgement.runs:
        return MARKS[Outcome.YES]
    return MARKS[Outcome.UNDECIDED if judgement.outcome is Outcome.UNDECIDED else Outcome.NO]


def lines(judgement: Judgement) -> list[str]:
    """The rule with its verdict, then each clause with its mark and the value seen."""
    rule = judgement.rule
    found = [f"{mark(judgement)} {rule.name} ({rule.place.of_line}): {verdict(judgement)}"]
    width = min(max((len(c.text) for c in judgement.clauses), default=0), 60)
    found += [f"    {MARKS[c.outcome]} {c.text:<{width}}  {c.reason}" for c in judgement.clauses]
    return found


def as_json(judgement: Judgement) -> dict[str, Any]:
    """The same as plain values."""
    rule = judgement.rule
    return {
        "rule": rule.name,
        "place": rule.place.of_line,
        "outcome": str(judgement.outcome),
        "runs": judgement.runs,
        "routes": judgement.routes,
        "shadow": rule.shadow,
        "discard": rule.discard,
        "because": judgement.because,
        "decided_by": judgement.decided_by,
        "used": len(judgement.used),
        "clauses": [
            {"name": c.name, "text": c.text, "outcome": str(c.outcome), "reason": c.reason, "line": c.line}
            for c in judgement.clauses
        ],
    }
