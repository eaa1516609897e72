"""How the conductor and a process that speaks DIMSE for it write to each other: a frozen value per line of JSON.

A line is an object whose `type` names the class; everything else is its fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from node.errors import Broken


def fields(value: Any) -> dict[str, Any]:
    """The fields of a frozen value as they are: `asdict` copies each of them, for every object that is sent."""
    return {name: getattr(value, name) for name in value.__slots__}


def whole(message: Any) -> dict[str, Any]:
    """The fields, and the class that they are of."""
    return {"type": type(message).__name__, **fields(message)}


def line(whole: Mapping[str, Any]) -> str:
    """One line, without its newline."""
    return json.dumps(whole, default=fields, separators=(",", ":"))


def read(text: str | bytes, kinds: Mapping[str, Any], other: str) -> Any:
    """One of *kinds* (class name → what makes it of its fields), as conductor or *other* wrote it.

    Raises Broken where it is none of them: the two processes are not of one version.
    """
    try:
        data = json.loads(text)
        return kinds[data.pop("type")](data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(
            f"the {other}'s pipe carried a line that is none of {', '.join(kinds)} ({error!r}); "
            f"conductor and {other} must be of one version: restart the node"
        ) from error
