"""copy: what a rule changes on its way, or a destination refuses as it is → a copy, sent in its place.

The received file is never touched. A delivery with a `treatment` waits for its copy from the start; one that is
refused in its transfer syntax waits, from then on, with the syntaxes that its destination takes in
`sent_syntax`, best first. Once the copy is made they hold where it is (`sent_path`), the syntax it is in, and
in `sent_uid` its SOP Instance UID where it is an object of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.uid import UID
from sqlalchemy import Connection

from node.derive.identity import lossy_copy, lossy_series
from node.flow.parts import SOFTWARE, Parts
from node.model import DeliveryState
from node.read.encoding import EXPLICIT, kept_syntax
from node.route.deidentify import STAGE
from node.send.protocol import Result
from node.settings import Peer
from node.settings.syntaxes import LOSSLESS, LOSSY, UNCOMPRESSED
from node.store import copies, deliveries, lookups, pseudonyms
from node.store.database import note
from node.store.intake import object_path

FOLDER = "transcoded"
"""In the data folder: nothing there is more than a copy of what is elsewhere, and a backup leaves it out."""
AHEAD = 200
"""Copies per destination that may wait to be sent."""
AHEAD_IN_NEED = 4
"""The same while the disk is too full to process: what goes only as a copy must go, or nothing is ever freed."""
_BETWEEN = "\\"
_COPY = re.compile(r"([0-9]+)-([0-9]+)\.dcm(\.part)?")
_LOOKUP = re.compile(r"([0-9a-f]{64})\.json(\.part)?")


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that is to be made."""

    delivery: int
    attempt: int
    destination: str
    asked: Mapping[str, Any]
    """Columns of the delivery as they stand while the copy is wanted: of what it is, and how it is to be."""
    source: Path
    out: Path
    request: Mapping[str, Any]
    """What the transcoder is told."""


def alternatives(peer: Peer) -> tuple[str, ...]:
    """The transfer syntaxes in which a peer is offered what it refuses, best first."""
    return peer.transfer_syntaxes or UNCOMPRESSED


def candidates(result: Result, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The syntaxes a refused object is transcoded to, best first: one with loss only where nothing else is taken."""
    if row["sent_path"] and not _as_first_made(
        row
    ):  # a copy already in what the destination had said to take
        return ()
    lossless = [syntax for syntax in result.accepts if syntax in LOSSLESS.values()]
    lossy = [syntax for syntax in result.accepts if syntax in LOSSY.values()] if row["lossy"] else []
    return (*lossless, *lossy)


def _as_first_made(row: Mapping[str, Any]) -> bool:
    """It is a treated copy in a syntax that nobody asked for: its own, or none where its pixels were changed."""
    own = kept_syntax(row["transfer_syntax"])
    return bool(row["treatment"]) and row["sent_syntax"] in (own, EXPLICIT)


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
    return row["sent_path"], stored_as(row), row["sent_syntax"]


def stored_as(row: Mapping[str, Any]) -> str:
    """SOP Instance UID of what a destination has stored: some copies are objects of their own."""
    if row["sent_uid"]:
        return str(row["sent_uid"])
    # What an older version of this program sent with loss has its UID nowhere else.
    return lossy_copy(row["digest"], row["sent_syntax"]) if _loses(row) else row["sop_uid"] or ""


def is_another(row: Mapping[str, Any]) -> bool:
    """Whether what is, or was, sent is another object than the one that was received or made."""
    return bool(row["sent_uid"]) or _loses(row)


def _loses(row: Mapping[str, Any]) -> bool:
    return row["sent_syntax"] in LOSSY.values()


def told_of(row: Mapping[str, Any]) -> str:
    """How a copy that is sent in an object's place differs from it, for the reason of its delivery."""
    if not row["sent_path"]:
        return ""
    changed = ", changed by its rule" if row["treatment"] else ""
    recoded = "" if changed and row["sent_syntax"] == row["transfer_syntax"] else (
        f", as a copy in {UID(row['sent_syntax']).name}"
    )  # fmt: skip
    return changed + recoded


def to_copy(tx: Connection, parts: Parts, limit: int, *, room: bool = True) -> list[Copying]:
    """The next copies to be made; one after the other where the disk has no *room*."""
    if not room:
        return [_copying(tx, parts, row) for row in copies.to_transcode(tx, 1, AHEAD_IN_NEED)]
    return [_copying(tx, parts, row) for row in copies.to_transcode(tx, limit, AHEAD)]


def _copying(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> Copying:
    source = parts.data / row["path"] if row["path"] else (
        object_path(parts.data, row["receiver_run"], row["sequence"])
    )  # fmt: skip
    out = parts.data / FOLDER / f"{row['id']}-{row['attempt']}.dcm"
    to = row["sent_syntax"].split(_BETWEEN) if row["sent_syntax"] else []
    series = row["series_uid"] or row["digest"]
    key = row["digest"]
    if row["treatment"]:  # another treatment makes another image of it, and loses something else
        key = hashlib.sha256(f"{key} {row['treatment']}".encode()).hexdigest()
    request = {
        "source": str(source), "out": str(out), "syntax": row["transfer_syntax"], "to": to,
        "sop_class": row["sop_class"], "sop_uid": row["sop_uid"] or "", "key": key,
        "lossy": {s: (lossy_copy(key, s), lossy_series(series, s)) for s in to if s in LOSSY.values()},
    }  # fmt: skip
    if row["treatment"]:
        treatment = json.loads(row["treatment"])
        request["treatment"] = treatment
        request["lookups"] = {name: _lookup(tx, parts, name) for name in treatment.get("lookups", ())}
        request["about"] = _about(parts, row)
        if STAGE in treatment:
            key = pseudonyms.key_of(tx, parts.data)
            request["deidentify"] = {"key": str(key), "site": parts.settings.deidentify.as_json()}
    asked = {name: row[name] for name in ("id", "instance_id", "product_id", "treatment", "sent_syntax")}
    return Copying(row["id"], row["attempt"], row["destination"], asked, source, out, request)


def _about(parts: Parts, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a treated copy says of who changed it and when: the same whenever it is made again."""
    received = row["received_at"]
    return {
        "received": received is not None,
        "at": received.astimezone(ZoneInfo(parts.settings.node.timezone)).isoformat() if received else "",
        "from": row["peer"] or "",
        "system": f"{SOFTWARE} {parts.settings.node.ae_titles[0]}",
    }


def _lookup(tx: Connection, parts: Parts, digest: str) -> str:
    """Where the transcoder reads a table that values are looked up in; written there once."""
    path = parts.data / FOLDER / f"{digest}.json"
    if not path.exists():
        path.parent.mkdir(mode=0o750, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(lookups.content_of(tx, digest), encoding="utf-8")
        part.chmod(0o640)
        part.rename(path)
    return str(path)


def copied(
    tx: Connection, parts: Parts, copying: Copying, syntax: str, failed: str, sop_uid: str = ""
) -> bool:
    """A copy was made, in *syntax*, or cannot be made; False where nobody waits for it, and it can go.

    *sop_uid* is its own, where it is an object of its own.
    """
    about = (tx, copying.asked, copying.attempt)
    if not failed:
        path = str(copying.out.relative_to(parts.data))
        changed = "treatment" in copying.request
        own = changed and syntax == copying.request["syntax"]
        why = "goes as its rule changes it" if own else f"goes as a copy in {UID(syntax).name}"
        return copies.end_transcoding(
            *about, DeliveryState.WAITING, sent_syntax=syntax, sent_path=path, reason=why,
            sent_uid="" if sop_uid == copying.request["sop_uid"] else sop_uid,
        )  # fmt: skip
    why, now = _cannot(copying, failed), parts.now()
    parked = copies.end_transcoding(*about, DeliveryState.PARKED, reason=why, finished_at=now)
    if parked:
        of = deliveries.object_of(tx, copying.delivery)
        note(tx, now, "delivery_parked", why, **of, destination=copying.destination)
    return False


def _cannot(copying: Copying, failed: str) -> str:
    """Why a delivery is parked for want of its copy."""
    wanted_in = copying.asked["sent_syntax"]
    if not wanted_in:
        return f"it cannot be changed as its rule says, so it does not go to {copying.destination}: {failed}"
    names = " or ".join(UID(s).name for s in wanted_in.split(_BETWEEN))
    own = UID(copying.request["syntax"]).name
    return (
        f"{copying.destination} refuses it in {own} and takes it in {names}, but it cannot be transcoded: "
        f"{failed}; have {copying.destination} accept {own}, or name another under its `transfer_syntaxes`"
    )


def nobodys(tx: Connection, folder: Path, over: Collection[int] = ()) -> Iterator[Path]:
    """What in *folder* no delivery waits for: copies, what was left of making them, tables that are forgotten.

    Deliveries that are *over* are taken for cancelled.
    """
    found = [(path, match) for path in sorted(folder.glob("*")) if (match := _COPY.fullmatch(path.name))]
    for start in range(0, len(found), 500):
        group = found[start : start + 500]
        known = copies.copies_wanted(tx, (int(match[1]) for _, match in group))
        for path, match in group:
            wanted_by = None if int(match[1]) in over else known.get(int(match[1]))
            attempt, made = wanted_by or (-1, "")
            being_made = not made and int(match[2]) == attempt
            if not being_made and made != f"{FOLDER}/{path.name}":
                yield path
    for path in sorted(folder.glob("*.json*")):
        match = _LOOKUP.fullmatch(path.name)
        if match and not lookups.is_known(tx, match[1]):
            yield path
