"""`deidentify:` in a send entry → its part of the treatment, and what a rule sends where it would be refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from node.model import Destinations
from node.settings.deidentify import read_profile
from node.shape import Node, Shaper

STAGE = "deidentify"
"""Its name in a treatment."""


def parse_deidentify(node: Node, peers: Mapping[str, bool], shaper: Shaper) -> Mapping[str, Any] | None:
    """A profile by name or as a mapping, as the transcoder is told; None, and a mistake, where it is none."""
    named = peers.profiles if isinstance(peers, Destinations) else {}
    return read_profile(shaper, node, named)


def is_deidentified(treatment: str) -> bool:
    """Whether what goes with this treatment is de-identified."""
    return bool(treatment) and STAGE in json.loads(treatment)


def refused_later(to: tuple[str, ...], treatment: str, peers: Mapping[str, bool]) -> Iterator[str]:
    """A sentence for each destination of an entry that queueing will refuse (design, promise 9)."""
    only = peers.deidentified if isinstance(peers, Destinations) else frozenset()
    for name in to if not is_deidentified(treatment) else ():
        if name in only:
            yield (
                f"{name} takes only de-identified data (only: deidentified), so that nothing of this entry goes "
                "there; add deidentify: basic"
            )
