"""Files of one series → their frames, each with the header a single-frame image of it would have.

What a multi-frame object says in its Shared and Per-frame Functional Groups (PS3.3 C.7.6.16) is lifted
to the top of a frame's header, so that nothing behind this module asks how an image was packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import iter_pixels
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.errors import Broken, Refused
from node.read.lift import lifted

WHOLE = 32 << 20
"""Bytes: larger files are read without their pixels, which are then taken from the file frame by frame."""
ALTOGETHER = 1 << 30
"""The same where a series holds more than this."""
PIXELS = (0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Offset tables, and the three kinds of pixel data: float, double float, integer."""
_DECODER_FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    RuntimeError,
    NotImplementedError,
    EOFError,
)

Stored = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Source:
    """One file of the series and what it holds."""

    path: Path
    dataset: Dataset
    """Its header; with the pixel data of a small file still encoded in it."""

    @property
    def frames(self) -> int:
        """How many frames it says to have; 1 where that is no number."""
        try:
            return max(1, int(self.dataset.get("NumberOfFrames") or 1))
        except (TypeError, ValueError):
            return 1

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"image {self.dataset.get('InstanceNumber') or '?'}"

    @property
    def kind(self) -> str:
        """Its SOP class in words."""
        uid = self.dataset.get("SOPClassUID")
        return str(getattr(uid, "name", uid) or "no SOP Class UID")

    def stored(self, numbers: Sequence[int]) -> Iterator[Stored]:
        """The stored values of the frames *numbers* (from 1, ascending), decoded one after the other.

        Raises Refused where they are missing or cannot be decoded, Broken where the file is gone.
        """
        frames = None if list(numbers) == [*range(1, self.frames + 1)] else [n - 1 for n in numbers]
        try:
            found = 0
            for stored in islice(iter_pixels(self._pixels(), raw=True, indices=frames), len(numbers)):
                found += 1
                yield stored
            if found < len(numbers):
                raise EOFError(f"{found} of {len(numbers)} frames are there")
        except MemoryError:
            raise
        except OSError as error:
            raise Broken(f"{self.path.name} cannot be read: {error.strerror or error}") from error
        except _DECODER_FAILURES as error:
            syntax = self.dataset.file_meta.get("TransferSyntaxUID")
            said = " ".join(str(error).split())[:200]
            raise Refused(
                f"the pixels of {self.name} ({getattr(syntax, 'name', syntax)}) are missing or cannot be "
                f"decoded: {said}"
            ) from error

    def bulk(self) -> bytes:
        """Its Pixel Data as stored, for what is not compressed. Raises Refused where there is none."""
        whole = self.dataset if "PixelData" in self.dataset else dcmread(self.path)
        data = whole.get("PixelData")
        if not data:
            raise Refused(f"{self.name} has no pixels")
        return bytes(data)

    def _pixels(self) -> Any:
        """From where pydicom decodes: the dataset, or the file where its pixels were left there."""
        if any(tag in self.dataset for tag in PIXELS):
            return self.dataset
        if self.dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return dcmread(self.path)
        return self.path

    def release(self) -> None:
        """Forget encoded pixels that are decoded now; a header is kept as long as results are made of it."""
        for tag in PIXELS:
            if tag in self.dataset:
                del self.dataset[tag]


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane, before its pixels are decoded."""

    header: Dataset
    """As a single-frame image would have it, but with the SOP Class and Instance UID of its object."""
    number: int
    """In its object, from 1; 0 in a single-frame object."""
    source: Source
    tile: tuple[int, int] | None = None
    """First row and column in the stored matrix, where a mosaic holds several slices."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"frame {self.number} of {self.source.name}" if self.number else self.source.name


def sources(paths: Sequence[Path]) -> tuple[Source, ...]:
    """Open every file. Raises Refused without one, Broken where one cannot be read or is not DICOM."""
    if not paths:
        raise Refused("there is no image to process")
    sizes = [_size(path) for path in paths]
    few = sum(sizes) <= ALTOGETHER
    return tuple(_open(path, few and size <= WHOLE) for path, size in zip(paths, sizes, strict=True))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error


def _open(path: Path, whole: bool) -> Source:
    try:  # with its pixels, since parsing a header twice is half the time of a load
        return Source(path, dcmread(path, stop_before_pixels=not whole))
    except InvalidDicomError:
        raise Broken(f"{path.name} is not a DICOM file; was it changed after it was received?") from None
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error


def is_enhanced(source: Source) -> bool:
    """Whether its frames are described in functional groups."""
    return "PerFrameFunctionalGroupsSequence" in source.dataset


def single(source: Source) -> tuple[Frame, ...]:
    """The one frame of a single-frame object; its header is the object's own."""
    return (Frame(source.dataset, 0, source),)


def enhanced(source: Source) -> tuple[Frame, ...]:
    """The frames of an object with functional groups. Raises Refused where they do not match its frames."""
    groups = list(source.dataset.PerFrameFunctionalGroupsSequence)
    if len(groups) != source.frames:
        raise Refused(
            f"{source.name} ({source.kind}) says {source.frames} frames and describes {len(groups)}; which is "
            "which is unknown"
        )
    shared = source.dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    base = lifted(without_frames(source.dataset), shared[0])
    return tuple(Frame(lifted(base, group), n, source) for n, group in enumerate(groups, 1))


_OF_ALL_FRAMES = frozenset({
    0x00280008,  # Number of Frames
    0x00280009,  # Frame Increment Pointer
    0x52009229, 0x52009230,  # Shared and Per-frame Functional Groups
    *PIXELS,
})  # fmt: skip


def without_frames(dataset: Dataset) -> Dataset:
    """A shallow copy of *dataset* without what speaks of several frames."""
    return copied(dataset, lambda tag: tag not in _OF_ALL_FRAMES)


def copied(dataset: Dataset, keep: Callable[[BaseTag], bool] | None = None) -> Dataset:
    """A new dataset with the elements of *dataset* that *keep*, or all; the elements themselves are shared."""
    copy = Dataset()
    copy._dict.update({tag: dataset._dict[tag] for tag in dataset._dict if keep is None or keep(tag)})
    copy.set_original_encoding(*dataset.original_encoding, dataset.original_character_set)
    copy.file_meta = dataset.file_meta
    return copy


def plane(stored: Stored, frame: Frame) -> Stored:
    """The part of *stored* that is this frame's. Raises Refused where it has another size than the header says."""
    rows, columns = int(frame.header.Rows), int(frame.header.Columns)
    if frame.tile is not None:
        row, column = frame.tile
        stored = stored[row : row + rows, column : column + columns]
    if stored.shape != (rows, columns):
        raise Refused(f"the pixels of {frame.name} are {stored.shape}, its header says {(rows, columns)}")
    return np.asarray(stored)
