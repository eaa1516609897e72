"""Storage Commitment Push Model (PS3.4 J): what both sides say to each other, as values and as datasets.

Written as bytes, since what scanners call a UID is passed on as it is; read with pydicom, never in the conductor.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""The SOP class (PS3.4 J.3)."""
INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known instance."""
REQUEST = 1
"""Action Type ID (PS3.4 Table J.3-1)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs (PS3.4 Table J.3-2)."""
MOST_REFERENCES = 30_000
"""In one message; beyond it is taken for an attack."""

PROCESSING_FAILURE, NO_SUCH_INSTANCE, NOT_ENOUGH_ROOM = 0x0110, 0x0112, 0x0213
CLASS_NOT_SUPPORTED, CLASS_CONFLICT, DUPLICATE_TRANSACTION = 0x0122, 0x0119, 0x0131
REASONS: Mapping[int, str] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "it has no such object",
    NOT_ENOUGH_ROOM: "it has no room",
    CLASS_NOT_SUPPORTED: "it does not support this SOP class",
    CLASS_CONFLICT: "it has the object under another SOP class",
    DUPLICATE_TRANSACTION: "the transaction UID was used before",
}
"""Failure Reason (0008,1197) in words (PS3.3 C.14.1.1)."""

_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199
_CLASS, _INSTANCE, _REASON = 0x00081150, 0x00081155, 0x00081197


@dataclass(frozen=True, slots=True)
class Reference:
    """One object; *failure* is why it is not committed, 0 where nothing is wrong with it."""

    sop_class: str
    sop_uid: str
    failure: int = 0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What an N-ACTION asks, or an N-EVENT-REPORT answers: the same attributes (PS3.4 Tables J.3-1, J.3-2)."""

    transaction_uid: str
    references: tuple[Reference, ...]

    @property
    def event_type(self) -> int:
        """Of the report that this is."""
        return SOME_FAILED if any(one.failure for one in self.references) else ALL_COMMITTED


def new_transaction() -> str:
    """A UID that nobody used before and nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid4().int}"


def reason_in_words(failure: int) -> str:
    """`0112H, it has no such object`."""
    words = REASONS.get(failure)
    return f"{failure:04X}H, {words}" if words else f"{failure:04X}H"


def encode(said: Dialogue) -> bytes:
    """The dataset, Implicit VR Little Endian; a sequence without items is left out."""
    done = [_item(one) for one in said.references if not one.failure]
    failed = [_item(one) for one in said.references if one.failure]
    return b"".join(
        (
            _element(_TRANSACTION, _uid(said.transaction_uid)),
            _element(_FAILED, b"".join(failed)) if failed else b"",
            _element(_REFERENCED, b"".join(done)) if done else b"",
        )
    )


def _item(one: Reference) -> bytes:
    content = _element(_CLASS, _uid(one.sop_class)) + _element(_INSTANCE, _uid(one.sop_uid))
    if one.failure:
        content += _element(_REASON, struct.pack("<H", one.failure))
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _uid(text: str) -> bytes:
    raw = text.encode("latin-1", "replace")
    return raw + b"\0" * (len(raw) % 2)


def decode(dataset: bytes, transfer_syntax: str) -> Dialogue:
    """Read a peer's dataset; what it lacks reads as empty. Raises ValueError where it cannot be read."""
    implicit, little = transfer_syntax == ImplicitVRLittleEndian, transfer_syntax != ExplicitVRBigEndian
    try:
        found = read_dataset(BytesIO(dataset), is_implicit_VR=implicit, is_little_endian=little)
        found.set_original_encoding(implicit, little)
        done = [_reference(item, little) for item in _items(found, _REFERENCED)]
        failed = [_reference(item, little, PROCESSING_FAILURE) for item in _items(found, _FAILED)]
    except Exception as error:  # pydicom raises whatever a peer's bytes lead it to
        raise ValueError(f"the dataset cannot be parsed ({type(error).__name__})") from error
    if len(done) + len(failed) > MOST_REFERENCES:
        raise ValueError(f"it names more than {MOST_REFERENCES} objects")
    return Dialogue(_text(found, _TRANSACTION), (*done, *failed))


def _items(found: Dataset, tag: int) -> Sequence[Dataset]:
    return found[tag].value or () if tag in found else ()


def _reference(item: Dataset, little: bool, failure: int = 0) -> Reference:
    if failure:
        raw = _raw(item, _REASON)
        failure = int.from_bytes(raw[:2], "little" if little else "big") or failure
    return Reference(_text(item, _CLASS), _text(item, _INSTANCE), failure)


def _text(found: Dataset, tag: int) -> str:
    return _raw(found, tag).decode("latin-1").strip("\0 ")


def _raw(found: Dataset, tag: int) -> bytes:
    """The bytes of a value, not converted: pydicom's warnings would quote them."""
    element: Any = found.get_item(tag) if tag in found else None
    value = getattr(element, "value", None)
    return value if isinstance(value, bytes) else b""


def to_json(said: Dialogue) -> list[Any]:
    """Plain values, short: there may be ten thousand of them."""
    return [said.transaction_uid, [[one.sop_class, one.sop_uid, one.failure] for one in said.references]]


def from_json(data: Iterable[Any]) -> Dialogue:
    """The inverse of `to_json`."""
    transaction_uid, references = data
    return Dialogue(str(transaction_uid), tuple(Reference(*one) for one in references))
