"""How and where a rule wants something sent, and how a run remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import RECEIVED, Header, Manner, Priority
from node.route.rules import Rule, Send
from node.route.ways import Share
from node.store import queues, shares
from node.store.database import note

AWAY = timedelta(minutes=15)
"""A peer that is down for so long gets no new patients while others share its work."""
_MOST = 4096
"""Patients or studies that are remembered; beyond, all are forgotten and looked up again."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose an object is: what stays together where peers share."""

    patient_id: str
    issuer: str
    study_uid: str

    def key(self, by: str) -> str:
        """What stands for it; a patient without an ID is kept together by study."""
        return f"{self.issuer}\0{self.patient_id}" if by == "patient" and self.patient_id else self.study_uid


def subject_of(row: Mapping[str, Any]) -> Subject:
    """Of a series."""
    return Subject(row["patient_id"], row["issuer"], row["study_uid"])


def subject_of_object(header: Header) -> Subject:
    """Of one object."""

    def first(name: str) -> str:
        cell = header.attributes.get(name)
        return cell[0][0] if cell and cell[0] else ""

    return Subject(first("PatientID"), first("IssuerOfPatientID"), header.study_uid)


def ways(
    tx: Connection, parts: Parts, rule: Rule, send: Send, subject: Subject, sender: str = ""
) -> dict[str, Manner]:
    """Destination → how an entry under `send` sends there what is of this subject and came from *sender*."""
    how = Manner(rule.priority, send.lossy, send.treatment, send.window, send.hold)
    if send.share is None:
        return dict.fromkeys(send.destinations(sender), how)
    peers = tuple(
        name for name in send.share.peers if send.back_to_sender or name != sender or send.what != RECEIVED
    )
    if not peers:
        return {}
    chosen = _shared(tx, parts, rule, replace(send.share, peers=peers), subject)
    return {chosen: replace(how, why=f"goes to {chosen}: {send.share.said()}")}


def _shared(tx: Connection, parts: Parts, rule: Rule, share: Share, subject: Subject) -> str:
    """The peer that has something of this subject already; else the first in its order that is not long away."""
    key = (share.peers, share.by, subject.key(share.by))
    known = parts.shares.get(key)
    if known is not None:
        return known
    has = shares.last_peer(tx, share.peers, subject.study_uid, *(
        (subject.patient_id, subject.issuer) if share.by == "patient" else ("", "")
    ))  # fmt: skip
    chosen = has or _first_there(tx, parts, share, key[2])
    if not has:
        passed = share.ranked(key[2])[0]
        why = f"; {passed} is down for long" if passed != chosen else ""
        note(tx, parts.now(), "delivery_shared", f"{rule.name}: {share.said()}{why}", destination=chosen)
    if len(parts.shares) >= _MOST:
        parts.shares.clear()
    parts.shares[key] = chosen
    return chosen


def _first_there(tx: Connection, parts: Parts, share: Share, key: str) -> str:
    known, ranked = queues.destinations(tx), share.ranked(key)

    def away(name: str) -> bool:
        row = known.get(name)
        return bool(row and row["down"] and row["since"] and parts.now() - row["since"] >= AWAY)

    return next((name for name in ranked if not away(name)), ranked[0])


def manner_to_json(how: Manner) -> dict[str, Any]:
    """What a run keeps of it until its results are queued."""
    return {
        "priority": how.priority, "lossy": how.lossy, "treatment": how.treatment, "window": how.window,
        "hold": how.hold, "why": how.why,
    }  # fmt: skip


def manner_from_json(kept: Mapping[str, Any]) -> Manner:
    """The same again; runs that an older version opened say less."""
    more = {name: kept[name] for name in ("treatment", "window", "hold", "why") if name in kept}
    return Manner(Priority(kept["priority"]), kept["lossy"], **more)
