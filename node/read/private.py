"""One private element's value: by its creator, or where an anonymiser took the creator away (PS3.5 7.8.1)."""

from __future__ import annotations

import struct
from typing import Any

from pydicom import Dataset

_MAKERS = {
    "SIEMENS MR HEADER": "SIEMENS",
    "GEMS_ACQU_01": "GE",
    "GEMS_PARM_01": "GE",
    "Philips MR Imaging DD 001": "PHILIPS",
    "Image Private Header": "UIH",
}
"""How the name of the maker begins whose creator it is, where an anonymiser took the private creator away.

Of creators that are not here nothing is read without them: what an element means is then anybody's guess, and a number
that scales all others, as a factor for SUVs does, must not be one.
"""


def private_element(header: Dataset, group: int, creator: str, element: int, packed: str = "") -> Any:
    """A private element's value; None where it is absent or empty. *packed*: how numbers lie in it where it is UN."""
    try:
        value = header.private_block(group, creator)[element].value
    except KeyError:
        if (group << 16) + 0x10 in header:
            return None  # it is another maker's
        maker = _MAKERS.get(creator)
        if maker is None or not str(header.get("Manufacturer") or "").strip().upper().startswith(maker):
            return None
        found = header.get((group, 0x1000 + element))
        value = found.value if found is not None else None
    if isinstance(value, bytes):
        value = _unpacked(value, packed)
    return None if value in (None, "") else value


def _unpacked(data: bytes, packed: str) -> Any:
    """Numbers or text of an element whose representation was lost (UN), Little Endian as UN is."""
    size = struct.calcsize(packed) if packed else 0
    if size and len(data) and len(data) % size == 0:
        found = struct.unpack(f"<{len(data) // size}{packed}", data)
        return found[0] if len(found) == 1 else list(found)
    return data.decode("ascii", "replace").strip("\0 ")
