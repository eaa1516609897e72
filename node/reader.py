"""The reader: `python -m node.reader`. A path per line in, a header per line out; it decides nothing.

A peer's bytes are parsed here and nowhere else, so a crash, a hang or a memory bomb costs one object
its readability and the node nothing: the conductor starts the next reader and goes on.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from node import faults
from node.model import Header
from node.read.header import read_header
from node.read.pixels import same_pixels
from node.store.arrival import read_arrival

_MOST_MEMORY = 2 << 30
_PR_SET_PDEATHSIG = 1


def header_to_json(header: Header) -> dict[str, Any]:
    """Plain values; `header_from_json` gives back an equal header."""
    return {**asdict(header), "received_at": header.received_at.isoformat()}


def header_from_json(data: Mapping[str, Any]) -> Header:
    """The inverse of `header_to_json`."""
    attributes = {k: tuple(tuple(v) for v in cell) for k, cell in data["attributes"].items()}
    own = {"received_at": datetime.fromisoformat(data["received_at"]), "attributes": attributes}
    return Header(**{**data, **own})


def answer(line: str) -> dict[str, Any]:
    """One request's answer: the last path's header; with two paths, whether both hold the same pixels."""
    request = json.loads(line)
    try:
        *other, path = (Path(p) for p in request["paths"])
        faults.reach("before-header")
        arrival, offset = read_arrival(path)
        found: dict[str, Any] = {"header": header_to_json(read_header(path, arrival, offset))}
        if other:
            found["same"] = same_pixels(other[0], path)
        return found
    except Exception as error:  # noqa: BLE001 - the conductor writes the reason down and goes on
        return {"failed": f"the reader failed ({type(error).__name__})"}


def main() -> None:
    """Answer every line on stdin until it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    warnings.simplefilter("ignore")  # pydicom warns with a peer's values, and they may name a patient
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line), separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
