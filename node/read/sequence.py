"""What kind of magnetic resonance acquisition a stack of slices is, as single-frame and enhanced images say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset

from node.read.diffusion import is_computed


def sequence_facts(headers: Sequence[Dataset]) -> dict[str, Any]:
    """Facts that all slices share: `image_type`, `computed`, `echo`, `spoiled`, `acquisition_type`.

    `image_type`: its values. `computed`: yes where Image Type names a diffusion map (ADC, FA …). `echo`: spin or
    gradient, from Scanning Sequence (0018,0020; PS3.3 C.8.3.1.1.2) or Echo Pulse Sequence (0018,9008; C.8.13.4);
    absent where both or neither are named. `spoiled`: yes or no, from Sequence Variant (0018,0021) or Spoiling
    (0018,9016). `acquisition_type`: 2D or 3D, as MR Acquisition Type says.
    """
    found: dict[str, Any] = {}
    for name, read in _FACTS.items():
        values = {read(header) for header in headers}
        if len(values) == 1 and (value := values.pop()):
            found[name] = value
    return found


def _values(header: Dataset, keyword: str) -> tuple[str, ...]:
    value = header.get(keyword)
    if value in (None, ""):
        return ()
    return tuple(str(v).strip().upper() for v in ([value] if isinstance(value, str) else value))


def _echo(header: Dataset) -> str:
    sequence = _values(header, "ScanningSequence")
    kinds = {"spin" if "SE" in sequence else "", "gradient" if "GR" in sequence else ""} - {""}
    if not sequence:
        kinds = {
            {"SPIN": "spin", "GRADIENT": "gradient"}.get("".join(_values(header, "EchoPulseSequence")), "")
        }
    return kinds.pop() if len(kinds) == 1 else ""


def _spoiled(header: Dataset) -> str:
    variant = _values(header, "SequenceVariant")
    if "SP" in variant:
        return "yes"
    stated = "".join(_values(header, "Spoiling"))
    if stated:
        return "no" if stated == "NONE" else "yes"
    return "no" if "SS" in variant else ""  # steady state and nothing that spoils it


def _computed(header: Dataset) -> str:
    return "yes" if is_computed(header) else ""


_FACTS: dict[str, Callable[[Dataset], Any]] = {
    "image_type": lambda header: _values(header, "ImageType"),
    "computed": _computed,
    "echo": _echo,
    "spoiled": _spoiled,
    "acquisition_type": lambda header: "".join(_values(header, "MRAcquisitionType")),
}
