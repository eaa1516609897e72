"""What every part of the schema is put together from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Peers = Mapping[str, bool]
"""Peer → whether it can receive; none where no site file says which there are."""
TEXT = {"type": ["string", "number", "boolean"]}
YES_NO = {"enum": ["yes", "no", "on", "off", True, False]}
CONDITION = {"$ref": "#/definitions/condition"}
BLOCK = {"$ref": "#/definitions/when"}
_WINDOW = {"type": "string", "pattern": r"^([a-z]{3}(-[a-z]{3})? +)?\d{1,2}:\d\d *- *\d{1,2}:\d\d$"}
WINDOWS = {"anyOf": [_WINDOW, {"type": "array", "minItems": 1, "items": _WINDOW}]}
_MORE = {
    "when": "`Modality: CT` · `SliceThickness: {at_most: 1.5 mm}` · `ImageType: {has_all: [ORIGINAL]}`",
    "use": "`ImageType: {excludes: LOCALIZER}`",
    "do": "`- reformat: {plane: axial, thickness: 5 mm}` and `as: thick` below it",
    "send": "`- {what: thick, to: PACS}` · `- {what: received, to: PACS}`",
    "try": "`- {given: {Modality: CT, slices: 320}, expect: {runs: yes}}`",
    "on_failure": "`{retry: 3, then: quarantine}`",
    "unless": "`[other-rule]`",
}
"""Key → what it looks like."""


def explained(key: str, text: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """A key's shape with its hover text: plain, and with an example for editors that show Markdown."""
    more = f"\n\n{_MORE[key]}" if key in _MORE else ""
    return {"description": text, "markdownDescription": f"**{key}**: {text}{more}", **shape}


def mapping_of(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mapping with these keys and no others."""
    found = {"type": "object", "additionalProperties": False, "properties": dict(properties)}
    return {**found, "required": list(required)} if required else found


def peer_name(peers: Peers, receiving: bool = False) -> dict[str, Any]:
    """The name of a peer, one of the site file's where there is one."""
    names = sorted(name for name, receives in peers.items() if receives or not receiving)
    return {"enum": names} if names else {"type": "string"}
