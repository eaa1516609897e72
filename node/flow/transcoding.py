"""transcode: what a destination refuses as it is → a copy in a transfer syntax that it takes, sent in its place.

The received file is never touched. While its copy is wanted, a delivery waits with the syntaxes that its
destination takes in `sent_syntax`, best first; once it is made, with the one it is in, and its `sent_path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from sqlalchemy import Connection

from node.derive.identity import lossy_copy, lossy_series
from node.flow.parts import Parts
from node.model import DeliveryState
from node.send.protocol import Result
from node.settings import Peer
from node.settings.syntaxes import LOSSLESS, LOSSY, UNCOMPRESSED
from node.store import deliveries
from node.store.database import note
from node.store.intake import object_path

FOLDER = "transcoded"
"""In the data folder: nothing there is more than a copy, and a backup leaves it out."""
AHEAD = 200
"""Copies per destination that may wait to be sent."""
_BETWEEN = "\\"
_COPY = re.compile(r"([0-9]+)-([0-9]+)\.dcm(\.part)?")


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that is to be made."""

    delivery: int
    attempt: int
    destination: str
    asked: str
    """`sent_syntax` as it stands while the copy is wanted."""
    source: Path
    out: Path
    request: Mapping[str, Any]
    """What the transcoder is told."""


def alternatives(peer: Peer) -> tuple[str, ...]:
    """The transfer syntaxes in which a peer is offered what it refuses, best first."""
    return peer.transfer_syntaxes or UNCOMPRESSED


def candidates(result: Result, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The syntaxes a refused object is transcoded to, best first: one with loss only where nothing else is taken."""
    if row["sent_path"]:  # it was a copy already, in what the destination had said to take
        return ()
    lossless = [syntax for syntax in result.accepts if syntax in LOSSLESS.values()]
    lossy = [syntax for syntax in result.accepts if syntax in LOSSY.values()] if row["lossy"] else []
    return (*lossless, *lossy)


def wanted(syntaxes: Sequence[str]) -> dict[str, str]:
    """The columns of a delivery that waits for its copy."""
    return {"sent_syntax": _BETWEEN.join(syntaxes), "sent_path": ""}


def advice(to: str, result: Result) -> str:
    """What a person can set where an object was refused and nothing can be transcoded."""
    loses = [UID(syntax).name for syntax in result.accepts if syntax in LOSSY.values()]
    if loses:
        return f"it takes {' or '.join(loses)}, which loses: `lossy: ok` in the rule's send entry allows it"
    return f"see what {to} takes, and name it under `transfer_syntaxes` of peer {to}"


def sent_as(row: Mapping[str, Any], path: str) -> tuple[str, str, str]:
    """Path below the data folder or as given, SOP Instance UID and transfer syntax of what is sent."""
    if not row["sent_path"]:
        return path, row["sop_uid"] or "", row["transfer_syntax"]
    syntax = row["sent_syntax"]
    sop_uid = lossy_copy(row["digest"], syntax) if syntax in LOSSY.values() else row["sop_uid"] or ""
    return row["sent_path"], sop_uid, syntax


def stored_as(row: Mapping[str, Any]) -> str:
    """SOP Instance UID of what a destination has stored: a lossy copy is an object of its own."""
    loses = is_lossy(row)
    return lossy_copy(row["digest"], row["sent_syntax"]) if loses else row["sop_uid"] or ""


def is_lossy(row: Mapping[str, Any]) -> bool:
    """Whether what is, or was, sent is not the object itself."""
    return row["sent_syntax"] in LOSSY.values()


def to_copy(tx: Connection, parts: Parts, limit: int) -> list[Copying]:
    """The next copies to be made."""
    return [_copying(parts, row) for row in deliveries.to_transcode(tx, limit, AHEAD)]


def _copying(parts: Parts, row: Mapping[str, Any]) -> Copying:
    source = parts.data / row["path"] if row["path"] else (
        object_path(parts.data, row["receiver_run"], row["sequence"])
    )  # fmt: skip
    out = parts.data / FOLDER / f"{row['id']}-{row['attempt']}.dcm"
    to = row["sent_syntax"].split(_BETWEEN)
    series = row["series_uid"] or row["digest"]
    request = {
        "source": str(source), "out": str(out), "syntax": row["transfer_syntax"], "to": to,
        "sop_class": row["sop_class"], "sop_uid": row["sop_uid"] or "",
        "lossy": {s: (lossy_copy(row["digest"], s), lossy_series(series, s)) for s in to if s in LOSSY.values()},
    }  # fmt: skip
    return Copying(row["id"], row["attempt"], row["destination"], row["sent_syntax"], source, out, request)


def copied(tx: Connection, parts: Parts, copying: Copying, syntax: str, failed: str) -> bool:
    """A copy was made, in *syntax*, or cannot be made; False where nobody waits for it, and it can go."""
    about = (tx, copying.delivery, copying.attempt, copying.asked)
    if not failed:
        path = str(copying.out.relative_to(parts.data))
        why = f"goes as a copy in {UID(syntax).name}"
        return deliveries.end_transcoding(
            *about, DeliveryState.WAITING, sent_syntax=syntax, sent_path=path, reason=why
        )
    names = " or ".join(UID(s).name for s in copying.asked.split(_BETWEEN))
    own = UID(copying.request["syntax"]).name
    why = (
        f"{copying.destination} refuses it in {own} and takes it in {names}, but it cannot be transcoded: "
        f"{failed}; have {copying.destination} accept {own}, or name another under its `transfer_syntaxes`"
    )
    now = parts.now()
    parked = deliveries.end_transcoding(*about, DeliveryState.PARKED, reason=why, finished_at=now)
    if parked:
        of = deliveries.object_of(tx, copying.delivery)
        note(tx, now, "delivery_parked", why, **of, destination=copying.destination)
    return False


def nobodys(tx: Connection, folder: Path) -> Iterator[Path]:
    """The copies in *folder* that no delivery waits to send, and what was left of making them."""
    found = [(path, match) for path in sorted(folder.glob("*")) if (match := _COPY.fullmatch(path.name))]
    for start in range(0, len(found), 500):
        group = found[start : start + 500]
        known = deliveries.copies_wanted(tx, (int(match[1]) for _, match in group))
        for path, match in group:
            attempt, made = known.get(int(match[1]), (-1, ""))
            being_made = not made and int(match[2]) == attempt
            if not being_made and made != f"{FOLDER}/{path.name}":
                yield path
