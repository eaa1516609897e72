"""`transfer_syntaxes` of a peer: what objects are transcoded to where it refuses them as they are (PS3.5 A)."""

from __future__ import annotations

from node.shape import Node, Shaper, nearest

LOSSLESS = {
    "ExplicitVRLittleEndian": "1.2.840.10008.1.2.1",
    "ImplicitVRLittleEndian": "1.2.840.10008.1.2",
    "RLELossless": "1.2.840.10008.1.2.5",
    "JPEGLSLossless": "1.2.840.10008.1.2.4.80",
    "JPEG2000Lossless": "1.2.840.10008.1.2.4.90",
}
"""pydicom's names → UIDs of those that change no pixel."""
LOSSY = {
    "JPEGLSNearLossless": "1.2.840.10008.1.2.4.81",
    "JPEG2000": "1.2.840.10008.1.2.4.91",
}
"""Those that do: taken only where a rule says `lossy: ok`."""
_KNOWN = {**LOSSLESS, **LOSSY}
UNCOMPRESSED = (LOSSLESS["ExplicitVRLittleEndian"], LOSSLESS["ImplicitVRLittleEndian"])
"""What is tried where a peer has no `transfer_syntaxes`."""


def read_syntaxes(shaper: Shaper, node: Node) -> tuple[str, ...]:
    """Names or UIDs, best first."""
    found: list[str] = []
    if not node.items:
        shaper.wrong(node, "transfer_syntaxes is empty; leave it out for the uncompressed ones")
    for item in node.items:
        text = shaper.text(item)
        uid = _KNOWN.get(text, text)
        if uid not in _KNOWN.values():
            names = ", ".join(_KNOWN)
            shaper.wrong(item, f"{text} is none that can be written{nearest(text, _KNOWN)} (can be: {names})")
        elif uid in found:
            shaper.wrong(item, f"{text} is named twice")
        found.append(uid)
    return tuple(found)
