"""Pieces that every part of the site file is read with."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from node.shape import Node, Shaper

T = TypeVar("T")

NO_ADDRESS = ("", 0)
"""Stands in for a wrong one until `finish` raises."""
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})")


def fields(
    shaper: Shaper,
    node: Node,
    known: Collection[str],
    later: Collection[str] = (),
    required: Collection[str] = (),
) -> dict[str, Node]:
    """`Shaper.fields`, with a sentence of its own for keys that belong to a later version."""
    for key in later:
        if key in node.fields:
            shaper.wrong(node.fields[key], f"{key} is not available in this version; remove it")
    if node.is_mapping:
        node = replace(node, value={key: value for key, value in node.fields.items() if key not in later})
    return shaper.fields(node, known, required)


def get(given: Mapping[str, Node], key: str, read: Callable[[Node, T], T], default: T) -> T:
    """The value under *key* as *read* gives it, else *default*."""
    return read(given[key], default) if key in given else default


def pick(shaper: Shaper, given: Mapping[str, Node], key: str, choices: tuple[str, ...]) -> str:
    """One of *choices*, the first where *key* is not given."""
    return get(given, key, lambda node, default: shaper.choice(node, choices, default), choices[0])


def count(shaper: Shaper, node: Node | None, automatic: int) -> int:
    """Read a whole number from 1, or `auto`."""
    if node is None or node.text == "auto":
        return automatic
    return shaper.integer(node, automatic, at_least=1)


def ae_title(shaper: Shaper, node: Node) -> str:
    """1 to 16 characters of the default repertoire, no backslash, no control character (PS3.5 6.2, VR AE)."""
    title = node.text.strip(" ")
    if not node.is_text or not title:
        shaper.wrong(node, "an AE title must have 1 to 16 characters that are not all spaces")
    elif len(title) > 16:
        shaper.wrong(node, f"AE title {title} has {len(title)} characters; DICOM allows 16")
    elif "\\" in title or not (title.isascii() and title.isprintable()):
        shaper.wrong(node, "an AE title must be plain ASCII without backslash or control characters")
    return title


def address(shaper: Shaper, node: Node) -> tuple[str, int]:
    """`host:port`, an IPv6 address in brackets (RFC 3986 3.2)."""
    match = _ADDRESS.fullmatch(node.text.strip())
    if match and int(match[3]) > 65535:
        shaper.wrong(node, f"port {int(match[3])} is above 65535")
        return NO_ADDRESS
    if not match or int(match[3]) < 1:
        shaper.wrong(node, f"expected host:port such as 10.1.2.9:4242, found {node.text!r}")
        return NO_ADDRESS
    return match[1] or match[2], int(match[3])
