"""The querier as the conductor sees it: which peers are being asked what, and what they answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from node import faults, flow
from node.child import LineChild
from node.flow.fetching import LONGEST, Question, Request
from node.route.priors import Offer
from node.send import queries
from node.send.queries import Count, Counted, Fetch, Fetched, Found, Search, answer_from_json, to_json
from node.store import fetches, intake

log = structlog.get_logger()

_ENDED = "could not be asked: the querier ended"


@dataclass(frozen=True)
class _Asked:
    """One question under way, and what it is about."""

    question: queries.Question
    series_id: int = 0
    """Of a count."""
    fetch: int = 0
    """Of a fetch."""
    mine: Mapping[str, Any] = field(default_factory=dict)
    """The claimed row of a prior."""

    @property
    def peer(self) -> str:
        """Who is asked."""
        return self.question.destination.name


@dataclass
class Queryings:
    """The querier, and what it was asked."""

    parts: flow.Parts
    child: LineChild = field(default_factory=lambda: LineChild("node.querier"))
    open: dict[int, _Asked] = field(default_factory=dict)
    sent: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Fetch whose objects are to be indexed → the claimed row of its prior."""
    _next: int = 1

    def turn(self, now: float) -> None:
        """Ask for the counts that are due."""
        busy = {one.peer for one in self.open.values() if isinstance(one.question, Count)}
        for series_id, peer in list(flow.to_count(self.parts, now, busy)):
            where = flow.callable_peer(self.parts, peer)
            if where is None:
                flow.counted_there(self.parts, series_id, now, None, f"{peer} has no address any more")
                continue
            if not self.child.ensure():
                return
            with self.parts.database.read() as tx:
                row = intake.by_id(tx, series_id)
            self.parts.assembly.series[series_id].claims.ask(now)
            asked = Count(self._next, where, row["study_uid"], row["series_uid"])
            self._say(_Asked(asked, series_id=series_id))

    def fetch(self, caught_up: float, *, room: bool) -> None:
        """End the transfers of which all is indexed, and ask for the priors that are due, where there is *room*."""
        for key, mine in list(self.sent.items()):
            if self.parts.transfers[key].sent < caught_up:
                del self.sent[key]
                with self.parts.database.write() as tx:
                    flow.finish_fetch(tx, self.parts, key, mine)
                faults.reach("after-fetch-finish")
        busy = {one.peer for one in self.open.values() if not isinstance(one.question, Count)}
        if not room:
            return
        with self.parts.database.read() as tx:
            due = fetches.due(tx, self.parts.now(), busy)
        for row in due:
            if row["peer"] in busy:
                continue
            if not self.child.ensure():
                return
            with self.parts.database.write() as tx:
                claimed = fetches.claim(tx, row)
                asked = flow.ask_for_prior(tx, self.parts, claimed) if claimed is not None else None
            if asked is not None and claimed is not None:
                busy.add(row["peer"])
                self._search(asked, claimed)

    def _search(self, asked: Question, mine: Mapping[str, Any]) -> None:
        question = Search(
            self._next, asked.where, asked.patient_id, asked.issuer, asked.dates, asked.not_study, asked.modalities,
            asked.study_keys, asked.series_keys,
        )  # fmt: skip
        self._say(_Asked(question, mine=mine))

    def _retrieve(self, asked: Request, mine: Mapping[str, Any]) -> None:
        settings = self.parts.settings
        question = Fetch(
            self._next, asked.where, asked.way, asked.study_uid, asked.series_uid, asked.message_id, asked.move_to,
            LONGEST.total_seconds(), settings.limits.object_size, str(self.parts.data.absolute()),
            settings.disk.refuse,
        )  # fmt: skip
        self._say(_Asked(question, fetch=asked.fetch, mine=mine))

    def _say(self, asked: _Asked) -> None:
        self.open[asked.question.id] = asked
        self._next += 1
        self.child.say(to_json(asked.question))

    def listen(self) -> None:
        """Take the answers that came; what the querier's death leaves open is asked again."""
        lines, alive = self.child.lines()
        for line in lines:
            answer = answer_from_json(line)
            asked = self.open.pop(answer.id, None)
            if asked is not None:
                self._heard(asked, answer)
        if not alive and self.open:
            log.warning("querier_died", count=len(self.open))
            left, self.open = list(self.open.values()), {}
            for asked in left:
                self._heard(asked, _without(asked, f"{asked.peer} {_ENDED}"))

    def _heard(self, asked: _Asked, answer: queries.Answer) -> None:
        now = time.monotonic()
        match answer:
            case Counted():
                news = flow.counted_there(self.parts, asked.series_id, now, answer.objects, answer.error)
                if answer.error and news:
                    log.warning("count_failed", peer=asked.peer, reason=answer.error)
            case Found():
                self._offered(asked, answer)
            case Fetched():
                with self.parts.database.write() as tx:
                    flow.sent(tx, self.parts, asked.fetch, asked.mine, answer.objects, answer.error)
                if not answer.error:
                    self.sent[asked.fetch] = asked.mine
        if answer.error and not isinstance(answer, Counted):
            log.warning("prior_failed", peer=asked.peer, reason=answer.error)

    def _offered(self, asked: _Asked, answer: Found) -> None:
        offers = [Offer(study, series, flow.cells(said)) for study, series, said in answer.offers]
        with self.parts.database.write() as tx:
            request = flow.offered(tx, self.parts, asked.mine, offers, answer.error)
        faults.reach("after-fetch-claim")
        if request is not None:
            self._retrieve(request, asked.mine)


def _without(asked: _Asked, why: str) -> queries.Answer:
    match asked.question:
        case Count():
            return Counted(asked.question.id, None, why)
        case Search():
            return Found(asked.question.id, (), why)
        case Fetch():
            return Fetched(asked.question.id, (), why)
