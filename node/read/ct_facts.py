"""What operators on CT ask of the headers: contrast agent and convolution kernel.

Contrast is decided by the standard's own logic. The modules that describe it, Contrast/Bolus (PS3.3 C.7.6.4) of
single-frame and Enhanced Contrast/Bolus (C.7.6.4b) of enhanced CT, are required if contrast media was used, so
an image without any of their attributes was made without. Contrast/Bolus Agent is of type 2: present and
empty, with nothing else of its module, it says neither, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

UNNAMED = "an agent that is not named"
_NONE = frozenset({"NO", "NONE", "NO CONTRAST"})
"""What technologists write into Contrast/Bolus Agent where none was given."""
_OTHERS = (
    "ContrastBolusRoute", "ContrastBolusAdministrationRouteSequence", "ContrastBolusVolume",
    "ContrastBolusTotalDose", "ContrastBolusStartTime", "ContrastBolusStopTime", "ContrastFlowRate",
    "ContrastFlowDuration", "ContrastBolusIngredient", "ContrastBolusIngredientConcentration",
)  # fmt: skip
"""The rest of the module (PS3.3 Table C.7-12)."""


def ct_facts(headers: Sequence[Dataset]) -> dict[str, Any]:
    """`contrast`: the agent's name, "" where none was given; absent where the images do not say.

    `convolution_kernel`: its values joined by a backslash, absent where the slices state different ones or none.
    """
    found: dict[str, Any] = {}
    contrast = _contrast(headers)
    if contrast is not None:
        found["contrast"] = contrast
    kernels = {_text(header, "ConvolutionKernel") for header in headers}
    if len(kernels) == 1 and "" not in kernels:
        found["convolution_kernel"] = kernels.pop()
    return found


def _contrast(headers: Sequence[Dataset]) -> str | None:
    """One for all: who has seen an agent anywhere in the stack knows that there was one."""
    said = [_agent(header) for header in headers]
    agents = sorted({agent for agent in said if agent})
    if agents:
        return ", ".join(agents)
    return None if None in said else ""


def _agent(header: Dataset) -> str | None:
    usages = header.get("ContrastBolusUsageSequence") or ()
    if usages and all(_text(item, "ContrastBolusAgentAdministered").upper() == "NO" for item in usages):
        return ""  # of this frame (C.7.6.16.2.12)
    text = _text(header, "ContrastBolusAgent")
    if text.upper() in _NONE:
        return ""
    named = [_text(item, "CodeMeaning") for item in header.get("ContrastBolusAgentSequence") or ()]
    if text or named:
        return text or ", ".join(filter(None, named)) or UNNAMED
    if any(_says(header, keyword) for keyword in _OTHERS):
        return UNNAMED
    return None if "ContrastBolusAgent" in header or "ContrastBolusAgentSequence" in header else ""


def _says(header: Dataset, keyword: str) -> bool:
    """Whether it holds more than nothing: some scanners write a volume of 0 where nothing was injected."""
    text = _text(header, keyword)
    try:
        return bool(text) and float(text) != 0
    except ValueError:
        return True


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    if value is None:
        return ""
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes | Dataset)
    if many and value and isinstance(value[0], Dataset):
        return f"{len(value)} items"
    return "\\".join(str(v).strip() for v in value) if many else str(value).strip()
