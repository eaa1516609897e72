"""The reader: `python -m node.reader`. A path per line in, a header per line out; it decides nothing.

A peer's bytes are parsed here and nowhere else, so a crash, a hang or a memory bomb costs one object
its readability and the node nothing: the conductor starts the next reader and goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from node import commitment, faults, performed
from node.collecting import collect_less
from node.model import Cell, Header
from node.read.header import ROOM, read_header
from node.read.pixels import same_pixels
from node.store.arrival import read_arrival
from node.store.records import COMMIT, MPPS, read_commit, read_step

_MOST_MEMORY = 2 << 30
_NICE = 10
"""While a scanner sends, the processor belongs to the receivers first."""
IN_GAPS = "--in-gaps"
"""The argument of a reader that takes only what of the processor nobody else wants."""
_PR_SET_PDEATHSIG = 1


_FIELDS = [field.name for field in fields(Header)]
_NONE: Mapping[str, Cell] = {}


def header_to_json(header: Header, before: Mapping[str, Cell] = _NONE) -> dict[str, Any]:
    """Plain values; of the attributes only what differs from those *before*: slices of a series say much the same."""
    changed = {name: cell for name, cell in header.attributes.items() if before.get(name) != cell}
    gone = [name for name in before if name not in header.attributes]
    plain = {name: getattr(header, name) for name in _FIELDS}
    return {
        **plain,
        "received_at": header.received_at.isoformat(),
        "attributes": changed,
        **({"gone": gone} if gone else {}),
    }


def header_from_json(data: Mapping[str, Any], before: Mapping[str, Cell] = _NONE) -> Header:
    """The inverse of `header_to_json`, an equal header with the same attributes *before*."""
    given = dict(data)
    attributes = dict(before)
    for name in given.pop("gone", ()):
        del attributes[name]
    for name, cell in given["attributes"].items():
        attributes[name] = tuple(tuple(value) for value in cell)
    given |= {"received_at": datetime.fromisoformat(given["received_at"]), "attributes": attributes}
    return Header(**{**given, "rejects": tuple(given["rejects"])})


class Reader:
    """Answers requests, one after the other; each header is told by what differs from the one told before it."""

    def __init__(self) -> None:
        self._before: Mapping[str, Cell] = _NONE
        self._room = bytearray(ROOM)

    def answer(self, line: str) -> dict[str, Any]:
        """One request's answer: the last path's header; with two paths, whether both hold the same pixels."""
        request = json.loads(line)
        try:
            *other, path = (Path(p) for p in request["paths"])
            if path.suffix == COMMIT:
                return _commitment(path)
            if path.suffix == MPPS:
                return _step(path)
            faults.reach("before-header")
            arrival, offset = read_arrival(path)
            header = read_header(path, arrival, offset, self._room)
            found: dict[str, Any] = {"header": header_to_json(header, self._before)}
            if other:
                found["same"] = same_pixels(other[0], path)
        except Exception as error:  # noqa: BLE001 - the conductor writes the reason down and goes on
            return {"failed": f"the reader failed ({type(error).__name__})"}
        self._before = header.attributes
        return found


def _commitment(path: Path) -> dict[str, Any]:
    """The answer for a message about storage commitment: what it asks or answers."""
    message, dataset = read_commit(path)
    try:
        return {"said": commitment.to_json(commitment.decode(dataset, message.transfer_syntax))}
    except ValueError as error:
        return {"failed": str(error)}


def _step(path: Path) -> dict[str, Any]:
    """The answer for a message about a performed procedure step: what it says."""
    message, dataset = read_step(path)
    try:
        return {"performed": performed.to_json(performed.decode(dataset, message.transfer_syntax))}
    except ValueError as error:
        return {"failed": str(error)}


def main() -> None:
    """Answer every line on stdin until it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    if IN_GAPS in sys.argv:
        with contextlib.suppress(OSError):  # a sandbox may forbid it; then it is an ordinary reader
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    warnings.simplefilter("ignore")  # pydicom warns with a peer's values, and they may name a patient
    reader = Reader()
    collect_less()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reader.answer(line), separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
