"""Multi-frame objects from before functional groups: reconstructed SPECT and radiotherapy dose.

Both state the position of the first frame and how the others follow it (PS3.3 C.8.4.15, C.8.8.3.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from node.errors import Refused
from node.read.frames import Frame, Source, copied, without_frames
from node.read.geometry import directions_of, orientation_of, position_of
from node.read.lift import say

_VECTORS = {
    "EnergyWindowVector": "energy windows",
    "DetectorVector": "detectors",
    "PhaseVector": "phases",
    "RotationVector": "rotations",
    "RRIntervalVector": "R-R intervals",
    "TimeSlotVector": "time slots",
    "AngularViewVector": "angular views",
    "SliceVector": "slices",
    "TimeSliceVector": "time slices",
}
"""What tells the frames of an NM object from each other, one number per frame (PS3.3 C.8.4.8)."""
_VECTOR_TAGS = frozenset(tag_for_keyword(keyword) for keyword in _VECTORS)


def nuclear(source: Source) -> tuple[Frame, ...]:
    """The slices of a reconstructed tomography; each frame has its number in every vector of the object.

    Raises Refused for all other NM images, and where position, direction or spacing is not stated.
    """
    kind = source.dataset.get("ImageType")
    kind = str(kind[2]).upper() if kind is not None and len(kind) > 2 else "absent"
    if kind not in ("RECON TOMO", "RECON GATED TOMO", "GATED RECON TOMO"):
        raise Refused(
            f"{source.name} is a nuclear medicine image that is no reconstructed tomography (ImageType value "
            f"3 is {kind}): its frames are projections, not slices; use a step that takes a Picture"
        )
    detector = _detector(source)
    orientation, first = orientation_of(detector, source.name), position_of(detector, source.name)
    step = _spacing(source) * directions_of(orientation)[2]
    vectors = {keyword: _vector(source, keyword) for keyword in _VECTORS if keyword in source.dataset}
    slices = vectors.get("SliceVector")
    if slices is None:
        raise Refused(f"{source.name} has no SliceVector, so which frame is which slice is unknown")
    base = copied(without_frames(source.dataset), lambda tag: tag not in _VECTOR_TAGS)
    say(base, "ImageOrientationPatient", _decimals(orientation))
    frames = []
    for n in range(source.frames):
        header = copied(base)
        say(header, "ImagePositionPatient", _decimals(first + (slices[n] - 1) * step))
        for keyword, vector in vectors.items():
            say(header, keyword, vector[n])
        frames.append(Frame(header, n + 1, source))
    return tuple(frames)


def _detector(source: Source) -> Dataset:
    """What says where the first slice lies: the one detector (PS3.3 C.8.4.11), else the object itself."""
    stated = [
        item
        for item in source.dataset.get("DetectorInformationSequence") or ()
        if item.get("ImagePositionPatient") and item.get("ImageOrientationPatient")
    ]
    places = {str((i.ImagePositionPatient, i.ImageOrientationPatient)) for i in stated}
    if len(places) > 1:
        raise Refused(f"{source.name} gives {len(places)} different positions for its first slice")
    return stated[0] if stated else source.dataset


def _spacing(source: Source) -> float:
    """Signed: negative stacks against the normal (PS3.3 C.8.4.15)."""
    try:
        spacing = float(source.dataset.get("SpacingBetweenSlices"))
    except (TypeError, ValueError):
        spacing = 0.0
    if not np.isfinite(spacing) or (spacing == 0 and source.frames > 1):
        raise Refused(f"{source.name} has no usable SpacingBetweenSlices, so where its slices lie is unknown")
    return spacing


def _vector(source: Source, keyword: str) -> list[int]:
    values = np.atleast_1d(source.dataset.get(keyword)).tolist()
    if len(values) != source.frames or not all(isinstance(v, int) for v in values):
        raise Refused(f"{keyword} of {source.name} has {len(values)} values for {source.frames} frames")
    return values


def dose(source: Source) -> tuple[Frame, ...]:
    """The planes of an RT Dose grid. Raises Refused where their offsets are not stated for each frame."""
    orientation = orientation_of(source.dataset, source.name)
    first = position_of(source.dataset, source.name)
    normal = directions_of(orientation)[2]
    offsets = np.zeros(1) if source.frames == 1 else _offsets(source, first, normal)
    base = without_frames(source.dataset)
    frames = []
    for n, offset in enumerate(offsets, 1):
        header = copied(base)
        say(header, "ImagePositionPatient", _decimals(first + offset * normal))
        frames.append(Frame(header, n if "NumberOfFrames" in source.dataset else 0, source))
    return tuple(frames)


def _offsets(source: Source, first: NDArray[Any], normal: NDArray[Any]) -> NDArray[np.float64]:
    """Millimetres of each frame from the first, along the normal.

    Either they begin with 0, or they are the patient's z where the planes are axial (C.8.8.3.2, a and b).
    """
    try:
        offsets = np.atleast_1d(np.asarray(source.dataset.get("GridFrameOffsetVector"), float))
    except (TypeError, ValueError):
        offsets = np.zeros(0)
    if len(offsets) != source.frames or not np.isfinite(offsets).all():
        raise Refused(
            f"GridFrameOffsetVector of {source.name} has {offsets.size} usable values for {source.frames} "
            "frames, so where its planes lie is unknown"
        )
    if offsets[0] == 0:
        return offsets
    if abs(normal[2]) < 1 - 1e-6 or abs(offsets[0] - first[2]) > 0.01:
        raise Refused(
            f"GridFrameOffsetVector of {source.name} begins with {offsets[0]:g}: neither 0 nor the z of an "
            "axial first plane (PS3.3 C.8.8.3.2)"
        )
    return np.asarray((offsets - first[2]) * np.sign(normal[2]))


def _decimals(numbers: NDArray[Any]) -> list[str]:
    return [format(float(number), ".10g") for number in numbers]
