"""DICOM files of one series → one Volume: geometry, values in their unit, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from node.errors import Broken, Refused
from node.operator import Volume
from node.read.geometry import grid
from node.read.scale import STACKS, padded, rescale_of, unit_of

_DECODER_FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    EOFError,
)


DEFER = 32 << 20
"""Larger elements stay on disk until used: a multi-frame object is refused, not read into memory first."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a run works on: the volume, and the headers that its results descend from."""

    volume: Volume
    headers: tuple[Dataset, ...]
    """One per slice, in slice order, without pixel data, each with its file meta."""


def load(paths: Sequence[Path]) -> Loaded:
    """Read single-frame CT, MR or PET images as one volume, float32, slices ordered along their normal.

    Raises Refused, in words, where the images are no regular stack of one kind or cannot be decoded;
    Broken where a file is gone or is not DICOM.
    """
    if not paths:
        raise Refused("there is no image to process")
    found = [_header(path) for path in paths]
    modality = _check(found)
    place = grid(found)
    headers = tuple(found[i] for i in place.order)
    unit = unit_of(headers, modality)
    array, valid = _values([paths[i] for i in place.order], headers)
    return Loaded(Volume(array, place.affine, unit, valid, _facts(headers, modality)), headers)


def _header(path: Path) -> Dataset:
    """One object with its pixels still encoded, or on disk where they are too large for one slice."""
    try:
        return dcmread(path, defer_size=DEFER)  # read once: parsing a header twice is half the time of a load
    except InvalidDicomError:
        raise Broken(f"{path.name} is not a DICOM file; was it changed after it was received?") from None
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error


def _check(headers: Sequence[Dataset]) -> str:
    """The modality of *headers*; refuses all that is not a set of grey single-frame slices of one class."""
    classes = {h.get("SOPClassUID") for h in headers}
    if len(classes) > 1:
        names = ", ".join(sorted(_name(c) for c in classes))
        raise Refused(f"the images are of different kinds ({names}); narrow the rule with `use`")
    for header in headers:
        frames = int(header.get("NumberOfFrames") or 1)
        if frames > 1 or "PerFrameFunctionalGroupsSequence" in header:
            name = _name(header.get("SOPClassUID"))
            raise Refused(f"a multi-frame object ({name}, {frames} frames) is not supported in this version")
    kind = classes.pop()
    if kind not in STACKS:
        raise Refused(f"{_name(kind)} is no stack of slices; this version processes CT, MR and PET images")
    for header in headers:
        colour = str(header.get("PhotometricInterpretation", ""))
        if int(header.get("SamplesPerPixel") or 1) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
            raise Refused(f"the images are not grey (PhotometricInterpretation {colour or 'absent'})")
    return STACKS[kind]


def _name(uid: Any) -> str:
    return str(getattr(uid, "name", uid) or "no SOP Class UID")


def _values(
    paths: Sequence[Path], headers: Sequence[Dataset]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Rescaled values and the mask of measured voxels; takes each slice's pixel data out of its header.

    float32 holds every 16-bit stored value exactly under slope 1, and any rescaled one to 2e-7.
    """
    shape = (len(paths), int(headers[0].Rows), int(headers[0].Columns))
    array = np.empty(shape, np.float32)
    valid: NDArray[np.bool_] | None = None
    for k, (path, header) in enumerate(zip(paths, headers, strict=True)):
        stored = _decode(path, header, shape[1:])
        slope, intercept = rescale_of(header)
        array[k] = stored
        if slope != 1:
            array[k] *= np.float32(slope)
        array[k] += np.float32(intercept)
        padding = padded(stored, header)
        if padding is not None:
            valid = np.ones(shape, bool) if valid is None else valid
            valid[k] = ~padding
    return array, valid


def _decode(path: Path, header: Dataset, shape: tuple[int, ...]) -> NDArray[Any]:
    """Stored values of one image, whatever its transfer syntax."""
    number = header.get("InstanceNumber", "?")
    try:
        stored = pixel_array(header, raw=True)
        del header.PixelData
    except MemoryError:
        raise
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error
    except _DECODER_FAILURES as error:
        syntax = header.file_meta.TransferSyntaxUID.name
        said = " ".join(str(error).split())[:200]
        raise Refused(
            f"the pixels of image {number} ({syntax}) are missing or cannot be decoded: {said}"
        ) from error
    if stored.shape != shape:
        raise Refused(f"the pixels of image {number} are {stored.shape}, its header says {shape}")
    return stored


_FACTS = {
    "slice_thickness": "SliceThickness",
    "body_part": "BodyPartExamined",
    "b_value": "DiffusionBValue",
    "echo_time": "EchoTime",
    "repetition_time": "RepetitionTime",
    "kvp": "KVP",
    "convolution_kernel": "ConvolutionKernel",
    "decay_correction": "DecayCorrection",
}


def _facts(headers: Sequence[Dataset], modality: str) -> dict[str, Any]:
    """What operators may ask for, by name; only facts that are one for the whole stack."""
    facts: dict[str, Any] = {"modality": modality}
    for name, keyword in _FACTS.items():
        values = {str(h.get(keyword)) for h in headers}
        value = headers[0].get(keyword)
        if len(values) == 1 and value not in (None, ""):
            facts[name] = float(value) if isinstance(value, float) else str(value)
    return facts
