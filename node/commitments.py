"""Storage commitment in the conductor: what it asks, what it is asked, and what is on its way to the sender."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from node import faults, flow
from node.readings import Reading
from node.send.protocol import Ask, Asked, Report, Reported
from node.sendings import Sendings, UnderWay
from node.store import commitments, pledges
from node.store.database import note
from node.store.records import Record, read_commit

log = structlog.get_logger()

_REPORTS = 8
"""Reports that are under way at a time, over all peers."""
_FEW = 20
_SECONDS = 0.3
"""Requests of peers that are looked at in one turn, and how long: each may name thousands of objects."""
_REMEMBERED = timedelta(days=90)
"""So long a request that is over is kept: its transaction UID is refused, its late answer understood."""
_DAY = 86400.0


@dataclass
class Commitments:
    """Storage commitment, both roles; `turn` is called about once a second."""

    parts: flow.Parts
    sendings: Sendings
    reporting: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Command of the sender → the request of a peer that it answers."""
    fresh: set[int] = field(default_factory=set)
    """Requests taken in since the last turn: what was acknowledged before them may not be listed yet."""

    forget_at: float = 0.0
    """Monotonic seconds from which rows that are over for long are removed again."""

    def recover(self, tx: Connection) -> None:
        """At start: what was on its way is asked again; deliveries follow what the site file says now."""
        flow.nobody_knows(tx, self.parts)
        committing = [peer.name for peer in self.parts.settings.peers.values() if peer.commit is not None]
        commitments.follow_settings(tx, committing, self.parts.now())

    def take(self, tx: Connection, record: Record, reading: Reading) -> None:
        """A message that a receiver kept: a request of a peer, or the answer to one of ours."""
        message, _ = read_commit(record.path)
        if reading.said is None:
            why = f"{message.command} of {message.peer}: {reading.failed}"
            note(tx, self.parts.now(), "commitment_unreadable", why, destination=message.peer)
            log.warning("commitment_unreadable", peer=message.peer, reason=reading.failed)
        elif message.command == "N-ACTION":
            self.fresh.add(flow.pledged(tx, self.parts, message, reading.said))
        elif not flow.answered(tx, self.parts, reading.said):
            log.warning("commitment_unknown", peer=message.peer, count=len(reading.said.references))

    def turn(self, *, settled: bool) -> None:
        """Ask destinations, and answer peers. *settled*: all that was received is indexed."""
        self._ask()
        self._answer(settled)
        if time.monotonic() >= self.forget_at:
            self.forget_at = time.monotonic() + _DAY
            with self.parts.database.write() as tx:
                commitments.forget(tx, self.parts.now() - _REMEMBERED)
                pledges.forget(tx, self.parts.now() - _REMEMBERED)

    def _ask(self) -> None:
        asking = {one.to for one in self.sendings.talks(Ask)}
        with self.parts.database.read() as tx:
            overdue = commitments.overdue(tx, self.parts.now())
        if overdue:
            with self.parts.database.write() as tx:
                flow.unanswered(tx, self.parts)
        for to in self._waiting(asking):
            if not self.sendings.child.ensure():
                return
            with self.parts.database.write() as tx:
                found = flow.ask_to_commit(tx, self.parts, to, self.sendings.count(to))
            if found is not None:
                faults.reach("after-commit-claim")
                self.sendings.ask_to_commit(found.where, found.said)

    def _waiting(self, asking: set[str]) -> list[str]:
        """Destinations that something is to be asked of, and that are not being asked."""
        now = self.parts.now()
        committing = [p.name for p in self.parts.settings.peers.values() if p.commit and p.name not in asking]
        with self.parts.database.read() as tx:
            return [to for to in committing if commitments.waits(tx, to, now, 1)[0]]

    def _answer(self, settled: bool) -> None:
        waiting = {int(row["id"]) for row in self.reporting.values()} | self.fresh
        self.fresh.clear()
        with self.parts.database.read() as tx:
            due = pledges.due(tx, self.parts.now(), _FEW + len(waiting))
        until = time.monotonic() + _SECONDS
        for row in due:
            if time.monotonic() > until:
                return
            if row["id"] in waiting:
                continue
            if len(self.reporting) >= _REPORTS or not self.sendings.child.ensure():
                return
            with self.parts.database.write() as tx:
                found = flow.look(tx, self.parts, row, settled=settled)
            if found is not None:
                command = self.sendings.report(found.where, found.said)
                self.reporting[command] = dict(row)

    def heard(self, one: UnderWay, message: Asked | Reported) -> None:
        """What came of an `Ask` or a `Report`."""
        if isinstance(message, Asked) and isinstance(one.command, Ask):
            faults.reach("before-commit-answer")
            with self.parts.database.write() as tx:
                flow.asked(tx, self.parts, one.command.said.transaction_uid, message.error)
                if message.answer is not None:
                    flow.answered(tx, self.parts, message.answer)
            if message.error:
                log.warning("commitment_refused", destination=one.to, reason=message.error)
        elif isinstance(message, Reported):
            row = self.reporting.pop(message.id, None)
            if row is not None:
                with self.parts.database.write() as tx:
                    flow.reported(tx, self.parts, row, message.error)

    def lost(self, gone: list[UnderWay]) -> None:
        """The sender died: what was on its way to it is asked, or reported, again."""
        for one in gone:
            self.reporting.pop(one.command.id, None)
        if any(isinstance(one.command, Ask | Report) for one in gone):
            with self.parts.database.write() as tx:
                flow.nobody_knows(tx, self.parts)
