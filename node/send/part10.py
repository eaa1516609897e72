"""Where the dataset begins in a Part 10 file, found without believing anything the file meta says."""

from __future__ import annotations

import os
from typing import BinaryIO

from node.errors import Broken

_LONG_LENGTH = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_USUAL_META, _MOST_META = 4096, 1 << 20


def dataset_extent(file: BinaryIO) -> tuple[int, int]:
    """Offset and length in bytes of the dataset in *file* (PS3.10 7.1).

    Only lengths are read, so illegal values cannot stop the sending. Raises Broken when the file is
    no Part 10 file or holds no dataset, OSError when it cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    for most in (_USUAL_META, _MOST_META):
        file.seek(0)
        head = file.read(most)
        if head[128:132] != b"DICM":
            raise Broken("it is not a DICOM Part 10 file: the prefix DICM is missing; import it again")
        offset = _end_of_meta(head)
        if offset + 16 < len(head):  # the walk ended at the dataset, not where we stopped reading
            break
    if offset >= size:
        raise Broken("it ends before its dataset begins; import or make it again")
    return offset, size - offset


def _end_of_meta(head: bytes) -> int:
    position, announced = 132, -1
    while head[position : position + 2] == b"\x02\x00":  # group 0002, little endian: PS3.10 7.1
        if position == announced:
            return position  # the dataset itself begins with group 0002: the group length is the truth
        start, length = _value_of(head, position)
        if head[position + 2 : position + 4] == b"\x00\x00" and length == 4:
            told = int.from_bytes(head[start : start + 4], "little")
            announced = start + 4 + told if told else -1  # 0 is what a careless writer leaves there
        position = start + length
    return position


def _value_of(head: bytes, position: int) -> tuple[int, int]:
    """Where an element's value starts and how long it is; Explicit VR, or Implicit where there is no VR."""
    vr = head[position + 4 : position + 6]
    if not (vr.isalpha() and vr.isupper()):
        return position + 8, _length(head[position + 4 : position + 8])
    if vr in _LONG_LENGTH:
        return position + 12, _length(head[position + 8 : position + 12])
    return position + 8, _length(head[position + 6 : position + 8])


def _length(field: bytes) -> int:
    length = int.from_bytes(field, "little")
    if length > _MOST_META:
        raise Broken("its file meta information is damaged; import or make it again")
    return length
