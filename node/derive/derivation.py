"""How an output was made, in words and codes (PS3.3 C.12.4, CID 7203)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from node.model import Code, Plan, Step

_MPR = Code("113072", "DCM", "Multiplanar reformatting")
_COMBINED = {
    "max": ("MIP", Code("113078", "DCM", "Maximum intensity projection")),
    "min": ("MINIP", Code("113079", "DCM", "Minimum intensity projection")),
    "mea": ("MPR", Code("113049", "DCM", "Pixel by pixel mean")),
}
_LONGEST = 1024
"""Characters of an ST (PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """What Derivation Description and Derivation Code Sequence say."""

    description: str
    codes: tuple[Code, ...]
    flavour: str
    """MPR, MIP, MINIP, or OTHER where the grid is the source's own and nothing was projected."""

    def told(self, more: str) -> Derivation:
        """The same with what an operator itself says of its result, e.g. which of several images it used."""
        return replace(self, description="; ".join(filter(None, (self.description, more)))[:_LONGEST])

    def projected(self, how: str) -> Derivation:
        """The same of a volume that its operator calls a projection: `max`, `min` or `mean`; else unchanged."""
        flavour, code = _COMBINED.get(how[:3].lower(), ("", None))
        if code is None:
            return self
        return replace(self, flavour=flavour, codes=tuple(dict.fromkeys((*self.codes, code))))


def step_of(plan: Plan, name: str) -> Step | None:
    """Find the step whose result is called *name*."""
    return next((step for step in plan.steps if step.name == name), None)


def derivation(plan: Plan, name: str, operators: Mapping[str, str], *, reshaped: bool) -> Derivation:
    """How the result *name* came about; *reshaped* says that its grid is not the source's."""
    chain = _chain(plan, name)
    said = "; ".join(_said(step, operators) for step in chain)
    combine = str(chain[-1].options.get("combine", "")) if chain else ""
    flavour, code = _COMBINED.get(combine[:3].lower(), ("MPR" if reshaped else "OTHER", None))
    codes = ((_MPR,) if reshaped else ()) + ((code,) if code else ())
    return Derivation(said[:_LONGEST], codes, flavour if reshaped or code else "OTHER")


def _chain(plan: Plan, name: str) -> list[Step]:
    step = step_of(plan, name)
    if step is None:
        return []
    found: list[Step] = []
    for source in step.inputs.values():
        found.extend(earlier for earlier in _chain(plan, source) if earlier not in found)
    return [*found, step]


def _said(step: Step, operators: Mapping[str, str]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in sorted(step.options.items()))
    version = operators.get(step.operator, "")
    return f"{step.operator} {version}".strip() + (f" ({options})" if options else "")
