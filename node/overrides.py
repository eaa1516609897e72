"""The environment over the site file: `PACSNODE__NODE__LISTEN=0.0.0.0:104` puts its value in that place.

Values are YAML and meet the same shape as the file's; a mistake in one is said with the variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from node import shape
from node.errors import Misconfigured
from node.shape import Node, Shaper, nearest

PREFIX = "PACSNODE__"
_IPV6 = re.compile(
    r"\[[0-9A-Fa-f:.]+(%\w+)?\]:\d+"
)  # in YAML a list, and then a mistake; nobody quotes a variable


@dataclass(frozen=True, slots=True)
class _Variable(shape.Place):
    """The place of a value that came from the environment; prints as the variable's name."""

    def __str__(self) -> str:
        return self.file


def applied(shaper: Shaper, root: Node, environ: Mapping[str, str]) -> Node:
    """Return *root* with every `PACSNODE__A__B=value` put in its place; whole mappings before their parts."""
    for name in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        place = _Variable(name, 1)
        keys = name[len(PREFIX) :].split("__")
        text = environ[name]
        try:
            documents = shape.parse(f"'{text.strip()}'" if _IPV6.fullmatch(text.strip()) else text, name)
        except Misconfigured as error:
            shaper.mistakes.extend(error.mistakes)
            continue
        if len(documents) != 1 or not all(keys):
            shaper.wrong(Node(place, ""), "expected a name such as PACSNODE__NODE__LISTEN and one value")
            continue
        root = _put(shaper, root, keys, _placed(documents[0], place))
    return root


def _put(shaper: Shaper, node: Node, keys: list[str], value: Node, *, peers: bool = False) -> Node:
    """*node* with *value* at the path *keys*, compared in upper case and with any other sign as `_`."""
    if not keys:
        return value
    if not node.is_mapping:
        shaper.wrong(value, f"there is no key {keys[0]} below a list or a single value; set the whole of it")
        return node
    matching = [key for key in node.fields if re.sub(r"[^A-Z0-9]", "_", key.upper()) == keys[0].upper()]
    if len(matching) > 1:
        shaper.wrong(value, f"{keys[0]} fits {' and '.join(matching)}; set it in the site file")
        return node
    if peers and not matching:
        shaper.wrong(value, f"no peer of the site file is named {keys[0]}{nearest(keys[0], node.fields)}")
        return node
    key = matching[0] if matching else keys[0].lower()
    below = node.fields.get(key, Node(value.place, {}))
    entry = _put(shaper, below, keys[1:], value, peers=not peers and keys[0].upper() == "PEERS")
    return replace(node, value={**node.fields, key: entry})


def _placed(node: Node, place: shape.Place) -> Node:
    """*node* and all below it, said to stand at *place*."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(item, place) for key, item in value.items()}
    elif isinstance(value, tuple):
        value = tuple(_placed(item, place) for item in value)
    return Node(place, value, node.quoted)
