"""The frames of one large object, decoded one at a time from its file: never the whole object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, get_frame, parse_basic_offsets, parse_fragments
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.errors import Broken, Refused
from node.read.objects import DECODER_FAILURES, frames_of

_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"


@dataclass(frozen=True, eq=False)
class FrameFile:
    """An object whose frames are found by their offsets."""

    path: Path
    header: Dataset
    start: int
    """Where in the file the first frame begins: its item, or for native pixels its first byte."""
    offsets: tuple[int, ...]
    """Of each frame's first item from *start*; empty for native pixels, and where no table tells them."""
    table: int = 0
    """Where the Basic Offset Table item begins."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Frame *index* (from 0), RGB where it is coloured. Raises Broken where file or frame are damaged."""
        try:
            with self.path.open("rb") as file:
                encoded = self._encoded(file, index)
            return np.asarray(pixel_array(_alone(self.header, encoded)))
        except MemoryError:
            raise
        except OSError as error:
            raise Broken(f"{self.path.name} cannot be read: {error.strerror or error}") from error
        except DECODER_FAILURES as error:
            said = " ".join(str(error).split())[:200]
            raise Broken(f"frame {index + 1} of {self.path.name} cannot be decoded: {said}") from error

    def _encoded(self, file: BinaryIO, index: int) -> bytes:
        if not self.header.file_meta.TransferSyntaxUID.is_encapsulated:
            size = _frame_size(self.header)
            file.seek(self.start + index * size)
            return _exactly(file, size)
        if not self.offsets:  # several fragments per frame and no table: pydicom looks for their ends
            file.seek(self.table)
            return get_frame(file, index, number_of_frames=frames_of(self.header))
        file.seek(self.start + self.offsets[index])
        end = self.start + self.offsets[index + 1] if index + 1 < len(self.offsets) else None
        return b"".join(_fragments(file, end))


def _fragments(file: BinaryIO, end: int | None) -> Any:
    """The item values from here to *end*, or to the delimiter of the sequence (PS3.5 A.4)."""
    while end is None or file.tell() < end:
        head = _exactly(file, 8)
        if head[:4] != _ITEM:
            return
        yield _exactly(file, int.from_bytes(head[4:], "little"))


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"the file ends {size - len(data)} bytes early")
    return data


def _frame_size(header: Dataset) -> int:
    return (
        int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel) * int(header.BitsAllocated) // 8
    )


def _alone(header: Dataset, encoded: bytes) -> Dataset:
    """A dataset with this one frame, for the decoder."""
    one = header.group_dataset(0x0028)
    one.file_meta = header.file_meta
    one.set_original_encoding(*header.original_encoding)
    one.NumberOfFrames = 1
    packed = header.file_meta.TransferSyntaxUID.is_encapsulated
    one.add_new("PixelData", "OB", encapsulate([encoded]) if packed else encoded)
    one["PixelData"].is_undefined_length = packed
    return one


def open_frames(path: Path) -> FrameFile:
    """The header of the object at *path*, and where its frames are: its pixels are not read.

    Raises Broken where it cannot be read, Refused where it has no frames that can be found.
    """
    try:
        with path.open("rb") as file:
            header = dcmread(file, stop_before_pixels=True)
            return _located(path, header, file)
    except InvalidDicomError:
        raise Broken(f"{path.name} is not a DICOM file; was it changed after it was received?") from None
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror or error}") from error


def _located(path: Path, header: Dataset, file: BinaryIO) -> FrameFile:
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian or not syntax.is_little_endian:
        raise Refused(f"a slide in {syntax.name} cannot be read tile by tile")
    head = file.read(12)
    if head[:4] != _PIXEL_DATA:
        raise Refused("the object holds no pixels")
    if syntax.is_implicit_VR:
        file.seek(-4, 1)
    start = file.tell()
    if not syntax.is_encapsulated:
        return FrameFile(path, header, start, ())
    try:
        return _indexed(FrameFile(path, header, start, (), start), file)
    except DECODER_FAILURES as error:
        raise Refused(f"where the frames of the object begin cannot be told: {error}") from error


def _indexed(found: FrameFile, file: BinaryIO) -> FrameFile:
    """*found* with the offsets of its frames: from a table (PS3.5 A.4), else by walking over the fragments."""
    frames = frames_of(found.header)
    basic = parse_basic_offsets(file)
    first = file.tell()
    extended = found.header.get("ExtendedOffsetTable")
    offsets: list[int] = np.frombuffer(extended, "<u8").tolist() if extended else basic
    if len(offsets) != frames:
        count, places = parse_fragments(file)
        # `places` are in the file; one fragment per frame, or all fragments one frame, needs no table
        offsets = [place - first for place in places] if count == frames else [0] if frames == 1 else []
    return FrameFile(found.path, found.header, first, tuple(int(v) for v in offsets), found.table)
