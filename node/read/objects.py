"""Opening the objects of a series one by one: in their own order, as headers, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.errors import Broken, Refused
from node.model import Code
from node.read.loaded import Loaded, Part

DECODER_FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    NotImplementedError,
    EOFError,
)
"""What decoders and parsers raise on bytes that are not what their header says."""

_ORDER = ("SeriesNumber", "InstanceNumber", "SOPInstanceUID")


def in_order(paths: Sequence[Path]) -> list[Path]:
    """*paths* by Instance Number and UID, so that the same objects are always the same parts.

    Raises Refused where there is none, Broken where a file is gone or is not DICOM.
    """
    if not paths:
        raise Refused("there is no object to process")
    if len(paths) == 1:
        return list(paths)
    return sorted(paths, key=lambda path: _place(identity(path, *_ORDER)))


def _place(header: Dataset) -> tuple[float, float, str]:
    return (
        number(header, "SeriesNumber") or 0.0,
        number(header, "InstanceNumber") or 0.0,
        str(header.get("SOPInstanceUID", "")),
    )


def identity(path: Path, *keywords: str) -> Dataset:
    """A few attributes of the object at *path*, the rest unread. Raises Broken."""
    return _read(path, specific_tags=list(keywords))


def loaded(part: Part[Any]) -> Loaded[Any]:
    """*part*, read."""
    return part.load()


def whole(path: Path) -> Dataset:
    """The object at *path* with its bulk data, large values read when used. Raises Broken."""
    return _read(path, stop_before_pixels=False, defer_size=32 << 20)


def _read(path: Path, *, stop_before_pixels: bool = True, **options: Any) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=stop_before_pixels, **options)
    except InvalidDicomError:
        raise Broken(f"{path.name} is not a DICOM file; was it changed after it was received?") from None
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error


def kind_of(header: Dataset) -> str:
    """How people call the object's class."""
    uid = header.get("SOPClassUID")
    return str(getattr(uid, "name", uid) or "no SOP Class UID")


def number(header: Dataset, keyword: str) -> float | None:
    """The first value of *keyword* as a number, None where it is absent, empty or none."""
    try:
        value = header.get(keyword)
        first = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value
        return float(first)
    except (ValueError, TypeError, IndexError):
        return None


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of *keyword* as numbers, `()` where it is absent or any is none."""
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return ()
        many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return tuple(float(v) for v in many)
    except (ValueError, TypeError):
        return ()


def text(header: Dataset, keyword: str) -> str:
    """The value of *keyword* as text, empty where it is absent."""
    try:
        value = header.get(keyword)
    except (ValueError, NotImplementedError, TypeError):
        return ""
    return "" if value is None else str(value).strip()


def items(header: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence, none where it is absent or is no sequence."""
    value = header.get(keyword)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def code_of(header: Dataset, keyword: str) -> Code | None:
    """The first coded concept of a code sequence, None where there is none."""
    for item in items(header, keyword):
        value = text(item, "CodeValue") or text(item, "LongCodeValue")
        if value:
            return Code(value, text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))
    return None


def frames_of(header: Dataset) -> int:
    """How many frames the object has; 1 where it does not say. Raises Refused where it says nonsense."""
    if text(header, "NumberOfFrames") == "":
        return 1
    count = number(header, "NumberOfFrames")
    if count is None or count < 1 or count != int(count):
        raise Refused(f"NumberOfFrames of this {kind_of(header)} is no number of frames")
    return int(count)


def refused_pixels(path: Path, header: Dataset, error: Exception) -> Broken | Refused:
    """What to raise for a decoder's failure: Broken for the disk, else Refused naming the syntax."""
    if isinstance(error, OSError):
        return Broken(f"{path.name} cannot be read: {error.strerror or error}")
    syntax = getattr(header.file_meta.get("TransferSyntaxUID"), "name", "unknown transfer syntax")
    said = " ".join(str(error).split())[:200]
    which = f"image {text(header, 'InstanceNumber') or '?'} ({syntax})"
    return Refused(f"the pixels of {which} are missing or cannot be decoded: {said}")
