"""What kind of magnetic resonance acquisition a stack of slices is, as single-frame and enhanced images say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset

from node.read.diffusion import is_computed


def sequence_facts(headers: Sequence[Dataset]) -> dict[str, Any]:
    """Facts that all slices share: `image_type`, `component`, `computed`, `echo`, `spoiled`, `acquisition_type`.

    `image_type`: its values. `component`: M, P, R or I (magnitude, phase, real, imaginary) as Complex Image Component
    (0008,9208; PS3.3 C.8.13.3.1.2) says or, in classic images, a value of Image Type. `computed`: yes where Image
    Type names a diffusion map (ADC, FA …). `echo`: spin or gradient, from Scanning Sequence (0018,0020; PS3.3
    C.8.3.1.1.2) or Echo Pulse Sequence (0018,9008; C.8.13.4); absent where both or neither are named. `spoiled`: yes
    or no, from Sequence Variant (0018,0021) or Spoiling (0018,9016). `acquisition_type`: 2D or 3D, as MR Acquisition
    Type says.
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


def _component(header: Dataset) -> str:
    stated = "".join(_values(header, "ComplexImageComponent"))
    if stated:
        return _COMPLEX.get(stated, "")  # MIXED is none of them
    values = _values(header, "ImageType")[2:]
    for told in (_LETTERS, _WORDS):
        found = {told[value] for value in values if value in told}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


_COMPLEX = {"MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I"}
_LETTERS = {letter: letter for letter in "MPRI"}
"""As Siemens and Philips write it among the later values of Image Type."""
_WORDS = {
    **_COMPLEX,
    "PHASE MAP": "P",
    **{f"{letter}_{scan}": letter for letter in "MRI" for scan in ("SE", "FFE", "IR", "PCA", "B0")},
}
"""The same in words, where no letter is there."""


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
    "component": _component,
    "computed": _computed,
    "echo": _echo,
    "spoiled": _spoiled,
    "acquisition_type": lambda header: "".join(_values(header, "MRAcquisitionType")),
}
