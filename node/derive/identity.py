"""Deterministic identity: the same input, meaning and versions give the same UIDs for ever."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_NAMESPACE = uuid.UUID("a0f3c1de-52d4-5b58-9d4c-3f0f0e6f2b61")
"""Root of every UID we make; changing it would make twins of all that was ever sent."""


def identity(
    sources: Iterable[str], meaning: str, operators: Mapping[str, str], node_major: int, generation: int
) -> str:
    """Hex SHA-256 over everything that decides an output's bytes.

    *sources* are the SHA-256 digests of the used objects in any order, *meaning* the digest of the
    rule's normalised meaning, *operators* name → version; *generation* counts the fresh starts asked for.
    """
    said = {
        "sources": sorted(sources),
        "meaning": meaning,
        "operators": sorted(operators.items()),
        "node": node_major,
        "generation": generation,
    }
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


def uid(identity: str, output: str, role: str, index: int) -> str:
    """Make a UID under 2.25 (PS3.5 B.2) for one *role* (series, instance, tracking …) of one output."""
    name = json.dumps([identity, output, role, index], separators=(",", ":"))
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


CREATOR = f"2.25.{uuid.uuid5(_NAMESPACE, 'instance-creator').int}"
"""Instance Creator UID (0008,0014): the same in everything this software makes."""
IMPLEMENTATION = f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}"
"""Implementation Class UID (0002,0012) of the files we make."""


LOSSY_QUALITY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "1.2.840.10008.1.2.4.81": ("maximum error 2", {"jls_error": 2}),
    "1.2.840.10008.1.2.4.91": ("target ratio 10:1", {"j2k_cr": [10]}),
}
"""Lossy transfer syntax → its one quality, in words and as the encoder takes it: part of a copy's identity."""


def lossy_copy(digest: str, syntax: str) -> str:
    """The SOP Instance UID of the copy, in a lossy *syntax*, of the object with this *digest*."""
    return uid(digest, f"lossy {syntax} {LOSSY_QUALITY[syntax][0]}", "instance", 0)


def lossy_series(series_uid: str, syntax: str) -> str:
    """The Series Instance UID of the copies of a series: they are a series of their own."""
    return uid(series_uid, f"lossy {syntax} {LOSSY_QUALITY[syntax][0]}", "series", 0)
