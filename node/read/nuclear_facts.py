"""What a nuclear medicine image says of each of its frames (PS3.3 C.8.4): head, window, view, and when.

Nothing is inferred: which view a frame shows stands in the view codes of the heads (C.8.4.11), never in names
that people type; when a frame began and how long it took stands in its phase (C.8.4.14) or in the image (C.8.4.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.model import Code
from node.read.objects import code_of, items, number, numbers, text

VECTORS = {
    "energy_windows": ("EnergyWindowVector", "NumberOfEnergyWindows"),
    "detectors": ("DetectorVector", "NumberOfDetectors"),
    "phases": ("PhaseVector", "NumberOfPhases"),
    "rotations": ("RotationVector", "NumberOfRotations"),
    "rr_intervals": ("RRIntervalVector", "NumberOfRRIntervals"),
    "time_slots": ("TimeSlotVector", "NumberOfTimeSlots"),
    "angular_views": ("AngularViewVector", ""),
    "time_slices": ("TimeSliceVector", ""),
}
"""Fact → the vector with one number per frame, from 1, and what says how many there are (PS3.3 C.8.4.8)."""
_SNOMED = {"G-5215": "399321004", "G-5216": "399001007", "R-404CC": "255549009", "R-404CE": "255551008"}
"""Codes of anterior and posterior (PS3.16 CID 26 and plain) in older headers → as SCT has them."""


def nuclear_facts(header: Dataset, count: int) -> dict[str, Any]:
    """Facts of a scintigram of *count* frames, as far as stated.

    Per frame, as tuples: `detectors`, `energy_windows`, `phases`, `time_slices` … (numbers from 1), `views` (text),
    `view_codes` (SCT), `row_directions` and `column_directions` (vectors in LPS along which columns and rows count up),
    `energy_window_names`, `collimators`, `frame_durations` (ms). Of the whole: `frame_kind` (STATIC, WHOLE BODY,
    DYNAMIC, GATED, TOMO … of Image Type), `counts_accumulated`, `image_id`, `field_of_view` (shape, mm …),
    `radionuclides` (text).
    """
    if not _is_nuclear(header):
        return {}
    facts: dict[str, Any] = _vectors(header, count)
    facts |= _by_detector(header, facts.get("detectors", ()))
    facts |= _by_window(header, facts.get("energy_windows", ()))
    facts["frame_kind"] = _kind(header)
    facts["image_id"] = text(header, "ImageID")
    facts["counts_accumulated"] = number(header, "CountsAccumulated")
    facts["radionuclides"] = tuple(
        code.meaning
        for item in items(header, "RadiopharmaceuticalInformationSequence")
        if (code := code_of(item, "RadionuclideCodeSequence"))
    )
    durations = _durations(header, facts, count)
    if durations:
        facts["frame_durations"] = durations
    return facts


def dynamic_times(header: Dataset, count: int) -> NDArray[np.float64] | None:
    """When each frame of a dynamic study began, ms from the first; None where its phases do not say it.

    PS3.3 C.8.4.14: within a phase frames follow each other by Actual Frame Duration and Pause Between Frames;
    Phase Delay passes between the last frame of a phase and the first of the next.
    """
    if not _is_nuclear(header):
        return None
    facts, stated = _vectors(header, count), _phases(header)
    phases, slices = facts.get("phases"), facts.get("time_slices")
    if not phases or not slices or not stated or max(phases) > len(stated):
        return None
    begins, moment = [], 0.0
    for phase, (frames, duration, pause, delay) in enumerate(stated, 1):
        here = sorted({s for p, s in zip(phases, slices, strict=True) if p == phase})
        if len(here) != frames or (here and here[-1] - here[0] != frames - 1):
            return None  # the vectors tell of other frames than the phase does
        moment += delay if phase > 1 else 0.0
        begins.append((moment - here[0] * (duration + pause), duration + pause))
        moment += frames * duration + (frames - 1) * pause
    times = np.array([begins[p - 1][0] + s * begins[p - 1][1] for p, s in zip(phases, slices, strict=True)])
    return np.asarray(times - times.min())


def _is_nuclear(header: Dataset) -> bool:
    """By modality, or a nuclear medicine image whatever it says (ST is retired)."""
    return text(header, "Modality") == "NM" or "DetectorInformationSequence" in header


def _kind(header: Dataset) -> str:
    """Image Type value 3 (PS3.3 C.8.4.9.1.1)."""
    value = header.get("ImageType")
    return str(value[2]).strip().upper() if value is not None and len(value) > 2 else ""


def _vectors(header: Dataset, count: int) -> dict[str, Any]:
    """The vectors with one number per frame; ones where there is but one of a thing and no vector."""
    facts: dict[str, Any] = {}
    for name, (keyword, how_many) in VECTORS.items():
        vector = tuple(int(v) for v in numbers(header, keyword))
        if len(vector) == count and min(vector) > 0:
            facts[name] = vector
        elif not vector and how_many and number(header, how_many) == 1:
            facts[name] = (1,) * count
    return facts


def _by_detector(header: Dataset, detectors: Sequence[int]) -> dict[str, Any]:
    """What the heads say, given to their frames."""
    heads = items(header, "DetectorInformationSequence")
    if not detectors or not heads:
        return {}
    own = [heads[n - 1] if n <= len(heads) else None for n in detectors]
    codes = [code_of(head, "ViewCodeSequence") if head is not None else None for head in own]
    facts: dict[str, Any] = {}
    if any(codes):
        facts["views"] = tuple(code.meaning if code else "" for code in codes)
        facts["view_codes"] = tuple(_sct(code) for code in codes)
    directions = [numbers(head, "ImageOrientationPatient") if head is not None else () for head in own]
    if all(len(cosines) == 6 for cosines in directions):
        facts["row_directions"] = tuple(cosines[:3] for cosines in directions)
        facts["column_directions"] = tuple(cosines[3:] for cosines in directions)
    collimators = tuple(text(head, "CollimatorType") if head is not None else "" for head in own)
    if any(collimators):
        facts["collimators"] = collimators
    fields = {(text(head, "FieldOfViewShape"), numbers(head, "FieldOfViewDimensions")) for head in heads}
    if len(fields) == 1 and (field := fields.pop())[0] and field[1]:
        facts["field_of_view"] = (field[0].upper(), *field[1])
    return facts


def _sct(code: Code | None) -> str:
    return "" if code is None else _SNOMED.get(code.value, code.value)


def _by_window(header: Dataset, windows: Sequence[int]) -> dict[str, Any]:
    stated = [text(item, "EnergyWindowName") for item in items(header, "EnergyWindowInformationSequence")]
    if not windows or not any(stated):
        return {}
    return {"energy_window_names": tuple(stated[n - 1] if n <= len(stated) else "" for n in windows)}


def _phases(header: Dataset) -> list[tuple[int, float, float, float]]:
    """Frames, duration, pause and delay (ms) of each phase; none where one of them does not say all."""
    found = []
    for item in items(header, "PhaseInformationSequence"):
        frames = number(item, "NumberOfFramesInPhase")
        duration = number(item, "ActualFrameDuration")
        pause, delay = number(item, "PauseBetweenFrames"), number(item, "PhaseDelay")
        if not frames or not duration or frames < 1 or duration <= 0 or pause is None or delay is None:
            return []
        found.append((int(frames), duration, pause, delay))
    return found


def _durations(header: Dataset, facts: dict[str, Any], count: int) -> tuple[float, ...]:
    """How long each frame was acquired, ms: by its phase or rotation, else what the image says of all.

    Reconstructed slices were acquired by no frame of their own.
    """
    if facts["frame_kind"].startswith("RECON"):
        return ()
    for vector, keyword in (
        ("phases", "PhaseInformationSequence"),
        ("rotations", "RotationInformationSequence"),
    ):
        stated = [number(item, "ActualFrameDuration") for item in items(header, keyword)]
        numbers_of = facts.get(vector)
        if numbers_of and stated and max(numbers_of) <= len(stated):
            own = [stated[n - 1] for n in numbers_of]
            return tuple(float(d) for d in own if d) if all(d and d > 0 for d in own) else ()
    whole = number(header, "ActualFrameDuration")
    return (float(whole),) * count if whole and whole > 0 else ()
