"""What a C-STORE status means, in words (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from node.send.protocol import Kind

_STORED = {
    0xB000: "the destination changed some attributes",
    0xB006: "the destination discarded some attributes",
    0xB007: "the destination says the dataset does not match its SOP class",
}
_FAILED = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0111: "it already holds an object with this SOP Instance UID",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class and instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}
_RANGES = (
    (0xA700, 0xA7FF, "out of resources"),
    (0xA900, 0xA9FF, "dataset does not match its SOP class"),
    (0xB000, 0xBFFF, "a warning that storage does not define, so nobody can say whether it was stored"),
    (0xC000, 0xCFFF, "cannot understand the object"),
    (0xFE00, 0xFE00, "it says it was cancelled"),
    (0xFF00, 0xFFFF, "pending, which is no answer to C-STORE"),
)


def kind_of(status: int) -> Kind:
    """Sort a status: stored, warning or failed."""
    if status == 0x0000:
        return Kind.STORED
    return Kind.WARNING if status in _STORED else Kind.FAILED


def meaning_of(status: int) -> str:
    """`A700 (out of resources)`; a status the standard does not know is called unknown."""
    if status == 0x0000:
        return "stored"
    if status in _STORED:
        return f"stored, with warning {status:04X} ({_STORED[status]})"
    words = _FAILED.get(status) or next(
        (w for low, high, w in _RANGES if low <= status <= high), "unknown status"
    )
    return f"{status:04X} ({words})"
