"""DICOM files of one series → volumes: geometry, values in their unit, and what was measured.

The way: files → frames, each with the header of a single-frame image → parts → for each part one grid, one
unit and, into an array that is known to fit, the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.operator import Volume
from node.read.ct_facts import ct_facts
from node.read.decay import Scan
from node.read.fill import Filled
from node.read.frames import Frame, sources
from node.read.geometry import Grid, SamePlace, grid
from node.read.kinds import frames_of, kind_of
from node.read.loaded import Loaded, Part
from node.read.scale import Measured, measured
from node.read.sequence import sequence_facts
from node.read.split import advice, choose, part_frames
from node.read.uptake import uptake_facts
from node.read.vendor import frame_facts


def volumes(paths: Sequence[Path], split: Sequence[str], each_part: str) -> Iterator[Part[Volume]]:
    """The parts of a series, each to be loaded at its turn; one without a label where *split* names nothing.

    *each_part* is run or together (all parts), largest, or refuse (more than one). Raises Refused where the
    files hold no slices or another number of parts than asked, Broken where a file cannot be read,
    Misconfigured where *split* names nothing there is. A part that is no volume raises Refused when loaded.
    """
    opened = sources(paths)
    kind = kind_of(opened)
    frames = frames_of(opened)
    parts = [("", frames)]
    if split:
        parts = choose(part_frames(frames, split), each_part, f"`split: [{', '.join(split)}]`")
    scan = Scan([frame.header for frame in frames])
    return iter([Part(label, partial(volume_of, of_part, kind, label, scan)) for label, of_part in parts])


def load(paths: Sequence[Path]) -> Loaded[Volume]:
    """Read all images as one volume, slices ordered along their normal.

    Raises Refused, in words, where the images are no regular stack of one kind or cannot be decoded;
    Broken where a file is gone or is not DICOM.
    """
    return next(volumes(paths, (), "refuse")).load()


def volume_of(frames: Sequence[Frame], kind: str, label: str, scan: Scan | None = None) -> Loaded[Volume]:
    """Read *frames* as one volume; some facts are of the whole *scan*.

    Raises Refused where they are none, Broken where a file is gone.
    """
    try:
        place = grid([f.header for f in frames], [f.name for f in frames])
    except SamePlace as refusal:
        raise advice(frames, refusal) from None
    ordered = tuple(frames[i] for i in place.order)
    headers = tuple(f.header for f in ordered)
    measure = measured(headers, kind)
    filled = Filled(ordered, measure.scales, place)
    facts = _facts(headers, kind, place, measure)
    if kind == "PT":
        facts |= uptake_facts(headers, scan or headers, measure.unit)
    volume = Volume(filled.array, filled.affine, measure.unit, filled.valid, facts)
    return Loaded(volume, headers, tuple(f.number for f in ordered), label)


_FACTS = {
    "slice_thickness": "SliceThickness",
    "body_part": "BodyPartExamined",
    "frame_of_reference": "FrameOfReferenceUID",
    "echo_time": "EchoTime",
    "repetition_time": "RepetitionTime",
    "inversion_time": "InversionTime",
    "flip_angle": "FlipAngle",
    "kvp": "KVP",
    "convolution_kernel": "ConvolutionKernel",
    "dose_type": "DoseType",
    "dose_summation": "DoseSummationType",
}


def _facts(headers: Sequence[Dataset], kind: str, place: Grid, measure: Measured) -> dict[str, Any]:
    """What operators may ask for, by name; only facts that are one for the whole stack."""
    modality = str(headers[0].get("Modality") or "OT") if kind == "PM" else kind
    facts: dict[str, Any] = {"modality": modality}
    for name, keyword in _FACTS.items():
        value = headers[0].get(keyword)
        if value not in (None, "") and all(h.get(keyword) == value for h in headers):
            facts[name] = float(value) if isinstance(value, float) else str(value)
    facts |= _vendor_facts(headers)
    if modality == "MR":
        facts |= sequence_facts(headers)
    if kind == "CT":
        facts |= ct_facts(headers)
    if place.tilt:
        facts["gantry_tilt"] = place.tilt
    if measure.quantity is not None:
        facts["quantity"] = measure.quantity
    return facts


def _vendor_facts(headers: Sequence[Dataset]) -> dict[str, Any]:
    """b_value (s/mm²) and temporal_position, where all slices agree."""
    first = {k: v for k, v in frame_facts(headers[0]).items() if k in ("b_value", "temporal_position")}
    if not first:  # as with nearly all that is no MR: the others need not be asked
        return {}
    others = [frame_facts(header) for header in headers[1:]]
    agreed = {name: text for name, text in first.items() if all(o.get(name) == text for o in others)}
    return {name: float(text) if name == "b_value" else text for name, text in agreed.items()}
