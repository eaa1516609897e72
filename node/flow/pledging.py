"""pledge: what a peer asks us to commit to, and what is answered (PS3.4 J).

We are no archive: success is reported when the peer that `commit_after` names has itself committed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pydicom.uid import UID
from sqlalchemy import Connection

from node import commitment
from node.commitment import (
    CLASS_CONFLICT,
    CLASS_NOT_SUPPORTED,
    DUPLICATE_TRANSACTION,
    NO_SUCH_INSTANCE,
    NOT_ENOUGH_ROOM,
    PROCESSING_FAILURE,
    Dialogue,
    Reference,
)
from node.flow.parts import Parts
from node.flow.securing import tls_of
from node.flow.transcoding import is_another
from node.model import CommitMessage, DeliveryState, InstanceState
from node.send.protocol import Destination
from node.store import pledges
from node.store.database import note
from node.store.pledges import PledgeState
from node.words import counted

MOST_OPEN = 500
"""Requests of one peer that may be open; what it asks beyond is answered with no room."""
GRACE = timedelta(seconds=60)
"""So long an object may be unknown while the index is behind; it may have come over another association."""
_LOOKS = (timedelta(seconds=5), timedelta(seconds=60))
"""Between two looks at a request: a twentieth of its age, within these. A commitment makes us look at once."""
_PAUSES = tuple(timedelta(seconds=s) for s in (2, 5, 10, 30, 60, 300, 900, 1800))
"""Between attempts to report; the last one repeats."""
PATIENCE = timedelta(days=7)
"""After this time a peer that cannot be told is given up."""


@dataclass(frozen=True, slots=True)
class Object:
    """What we know of one SOP Instance UID."""

    sop_class: str
    committed: bool
    """The archive has committed to it."""


@dataclass(frozen=True, slots=True)
class Reporting:
    """What the sender is to report."""

    where: Destination
    said: Dialogue


def judge(one: Reference, known: Object | None, *, settled: bool, late: bool) -> int | None:
    """The Failure Reason of one reference, 0 where it is committed, None while that is open (PS3.3 C.14.1.1).

    *settled*: all that came before the request is indexed. *late*: its time is over.
    """
    if not storable(one.sop_class):
        return CLASS_NOT_SUPPORTED
    if known is None:
        return NO_SUCH_INSTANCE if settled or late or not one.sop_uid else None
    if known.sop_class != one.sop_class:
        return CLASS_CONFLICT
    if known.committed:
        return 0
    return PROCESSING_FAILURE if late else None


@lru_cache(maxsize=1024)
def storable(sop_class: str) -> bool:
    """Whether objects of this class can be stored at all: what nobody knows may be a vendor's own."""
    uid = UID(sop_class)
    if not sop_class or uid.type == sop_class or not uid.type:
        return bool(sop_class)
    named = re.search(r" Storage\b", uid.name) and not uid.name.startswith("Media Storage")
    return uid.type == "SOP Class" and bool(named)


def known_objects(rows: Iterable[Mapping[str, Any]], peer: str) -> dict[str, Object]:
    """What stands behind each UID: the object that is kept, else what was known of it.

    An object of *peer* that contradicts the kept one was never sent on, so nobody can have committed to it; and
    who has committed to a lossy copy has not committed to the object.
    """
    found: dict[str, Object] = {}
    kept: set[str] = set()
    against: set[str] = set()
    for row in rows:
        uid, committed = row["sop_uid"], row["delivery"] == DeliveryState.COMMITTED and not is_another(row)
        if row["state"] == InstanceState.CONFLICT:
            if row["peer"] == peer:
                against.add(uid)
            found.setdefault(uid, Object(row["sop_class"], committed=False))
        elif row["state"] == InstanceState.KEPT or uid not in kept:
            found[uid] = Object(row["sop_class"], committed)
            if row["state"] == InstanceState.KEPT:
                kept.add(uid)
    return {uid: replace(one, committed=one.committed and uid not in against) for uid, one in found.items()}


def pledged(tx: Connection, parts: Parts, message: CommitMessage, said: Dialogue) -> int:
    """A peer asks us to commit: a row that waits, or is decided at once where the request itself is wrong; its id."""
    now, peer = parts.now(), parts.settings.peers.get(message.peer)
    archive = parts.settings.peers.get(peer.commit_after) if peer is not None else None
    within = archive.commit.within if archive is not None and archive.commit else timedelta(0)
    failure = 0
    if pledges.was_used(tx, message.peer, said.transaction_uid):
        failure = DUPLICATE_TRANSACTION
    elif pledges.open_of(tx, message.peer) >= MOST_OPEN:
        failure = NOT_ENOUGH_ROOM
    asked = [[one.sop_class, one.sop_uid, 0] for one in said.references]
    key = pledges.add_pledge(
        tx, transaction_uid=said.transaction_uid, peer=message.peer, called=message.called,
        asked=json.dumps(asked), received_at=message.received_at, due_at=message.received_at + within, next_at=now,
    )  # fmt: skip
    if failure:
        _decide(tx, parts, key, message.peer, [replace(one, failure=failure) for one in said.references])
    return key


def look(tx: Connection, parts: Parts, row: Mapping[str, Any], *, settled: bool) -> Reporting | None:
    """Look at a request that is due: what to report now, or None while something is open or nobody can be told."""
    if row["state"] == PledgeState.WAITING and not _judge_all(tx, parts, row, settled=settled):
        return None
    peer, now = parts.settings.peers.get(row["peer"]), parts.now()
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        why = f"{row['peer']} is no peer with an address: give it ae_title and address under `peers`"
        pledges.finish(tx, row["id"], PledgeState.GIVEN_UP, now, why)
        note(tx, now, "pledge_given_up", why, destination=row["peer"])
        return None
    references = tuple(Reference(*one) for one in json.loads(pledges.text_of(tx, row["id"], "report")))
    where = Destination(
        name=row["peer"], host=peer.host, port=peer.port, ae_title=peer.ae_title,
        calling_ae=row["called"] or parts.settings.node.ae_titles[0], tls=tls_of(parts.settings, peer),
    )  # fmt: skip
    return Reporting(where, Dialogue(row["transaction_uid"], references))


def _judge_all(tx: Connection, parts: Parts, row: Mapping[str, Any], *, settled: bool) -> bool:
    """Decide over every reference; False while one of them is open."""
    now, peer = parts.now(), parts.settings.peers.get(row["peer"])
    to = peer.commit_after if peer is not None else ""
    asked = [Reference(*one) for one in json.loads(pledges.text_of(tx, row["id"], "asked"))]
    uids = list({one.sop_uid for one in asked if one.sop_uid})
    known = known_objects(pledges.objects_of(tx, uids, to), row["peer"])
    late, settled = now >= row["due_at"], settled or now - row["received_at"] > GRACE
    found = [
        (one, judge(one, known.get(one.sop_uid), settled=settled, late=late))
        for one in asked
    ]  # fmt: skip
    if any(failure is None for _, failure in found):
        least, most = _LOOKS
        pause = min(max((now - row["received_at"]) / 20, least), most)
        pledges.look_again(tx, row["id"], min(now + pause, max(row["due_at"], now + timedelta(seconds=1))))
        return False
    _decide(tx, parts, row["id"], row["peer"], [replace(one, failure=failure or 0) for one, failure in found])
    return True


def _decide(tx: Connection, parts: Parts, key: int, peer: str, references: Sequence[Reference]) -> None:
    """What is answered stands fast from here on, whatever happens later."""
    failed = [one for one in references if one.failure]
    why = f"{counted(len(references) - len(failed), 'object')} committed"
    if failed:
        reasons = ", ".join(
            f"{sum(one.failure == code for one in failed)} with {commitment.reason_in_words(code)}"
            for code in sorted({one.failure for one in failed})
        )
        why += f", {len(failed)} not: {reasons}"
    plain = [[one.sop_class, one.sop_uid, one.failure] for one in references]
    pledges.decided(tx, key, json.dumps(plain), parts.now(), why)
    note(tx, parts.now(), "pledge_decided", why, destination=peer)


def reported(tx: Connection, parts: Parts, row: Mapping[str, Any], error: str | None) -> None:
    """The peer was told, or could not be: then it is tried again, for days."""
    now = parts.now()
    if error is None:
        pledges.finish(tx, row["id"], PledgeState.REPORTED, now, row["reason"])
        note(tx, now, "pledge_reported", row["reason"], destination=row["peer"])
        return
    failures = row["failures"] + 1
    if now - row["due_at"] > PATIENCE:
        why = f"it could not be told for {PATIENCE.days} days: {error}"
        pledges.finish(tx, row["id"], PledgeState.GIVEN_UP, now, why)
        note(tx, now, "pledge_given_up", why, destination=row["peer"])
        return
    if failures == 1:
        note(tx, now, "pledge_untold", error, destination=row["peer"])
    pause = _PAUSES[min(failures, len(_PAUSES)) - 1]
    pledges.look_again(tx, row["id"], now + pause, failures=failures)
