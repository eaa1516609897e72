"""The conductor's way out: what waits goes to the sender and the transcoder, and their answers come back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from node import faults, flow
from node.commitments import Commitments
from node.send.protocol import Asked, Finished, Outcomes, Reported
from node.sendings import Sendings, UnderWay
from node.store import deliveries, pseudonyms, queues
from node.transcodings import GROUP, Transcodings

log = structlog.get_logger()


@dataclass
class Dispatch:
    """Claims for each destination by itself: one that hangs holds up no other."""

    parts: flow.Parts
    sendings: Sendings
    transcodings: Transcodings
    commitments: Commitments

    def deliver(self) -> None:
        """A batch, or a question, for each destination that something is due for."""
        with self.parts.database.read() as tx:
            waiting = queues.waiting_destinations(tx, self.parts.now())
        for to in waiting if self.sendings.child.ensure() else ():
            peer = self.parts.settings.peers.get(to)
            if peer and self.sendings.count(to) >= peer.associations:
                continue  # without a transaction: it may hang for long, and the others have their turn
            with self.parts.database.write() as tx:
                found = flow.deliver(tx, self.parts, to, self.sendings.count(to))
            if found is None:
                continue
            faults.reach("after-delivery-claim")
            if found.items:
                self.sendings.send(found.where, found.items)
            else:
                self.sendings.ask(found.where)

    def transcode(self, *, room: bool) -> None:
        """Copies of what a rule changes or a destination refuses as it is; few at a time without *room* on the disk."""
        for made in self.transcodings.made():
            with self.parts.database.write() as tx:
                ours = flow.copied(tx, self.parts, made.copying, made.syntax, made.failed, made.sop_uid)
                if ours and made.pseudonym:
                    pseudonyms.remember(tx, made.pseudonym, self.parts.now())
            faults.reach("after-copied")
            if not ours:
                made.copying.out.unlink(missing_ok=True)
        if self.parts.treated:
            self.parts.treated = False
            self.transcodings.wanted()
        now = time.monotonic()
        if self.transcodings.hungry(now):
            with self.parts.database.read() as tx:
                self.transcodings.feed(flow.to_copy(tx, self.parts, GROUP, room=room), now)
        self.transcodings.work(now)

    def hear(self) -> None:
        """What the sender says of what is under way; what its death left without an answer waits again."""
        found, lost = self.sendings.heard()
        for one, message in found:
            if isinstance(message, Outcomes):
                self._outcomes(one, message)
            elif isinstance(message, Finished):
                self._batch_over(one, message)
            elif isinstance(message, Asked | Reported):
                self.commitments.heard(one, message)
            else:
                with self.parts.database.write() as tx:
                    flow.probed(tx, self.parts, one.to, message.error, message.trouble)
        if lost or self.sendings.child.process is None:
            log.warning("sender_died", count=len(lost))
            with self.parts.database.write() as tx:
                deliveries.unclaim_deliveries(tx, [key for one in lost for key in one.deliveries])
            self.commitments.lost(lost)

    def _outcomes(self, one: UnderWay, message: Outcomes) -> None:
        faults.reach("before-outcomes")
        with self.parts.database.write() as tx:
            heard = flow.delivered(tx, self.parts, one.to, message.results)
        self.sendings.see(one, message.results)
        one.blamed = one.blamed or heard.blamed
        one.taken = one.taken or heard.taken
        if heard.transcode or heard.copies:  # where enough copies lay there, there is room for more
            self.transcodings.wanted()
        faults.reach("after-outcomes")
        for path in heard.copies:
            path.unlink(missing_ok=True)

    def _batch_over(self, one: UnderWay, message: Finished) -> None:
        faults.reach("before-batch-end")
        error, trouble = self.sendings.trouble(one, message)
        with self.parts.database.write() as tx:
            flow.batch_over(
                tx, self.parts, one.to, error, one.deliveries, trouble,
                taken=one.taken or one.blamed,
            )  # fmt: skip
        if error:
            log.warning("destination_down", destination=one.to, reason=error)
