"""The querier as the conductor sees it: which peers are being asked what, and what they answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import structlog

from node import flow
from node.child import LineChild
from node.send.queries import Count, Question, answer_from_json, to_json
from node.store import intake

log = structlog.get_logger()


@dataclass(frozen=True)
class _Asked:
    """One question under way, and the series that it is about."""

    question: Question
    series_id: int


@dataclass
class Queryings:
    """The querier, and what it was asked."""

    parts: flow.Parts
    child: LineChild = field(default_factory=lambda: LineChild("node.querier"))
    open: dict[int, _Asked] = field(default_factory=dict)
    _next: int = 1

    def turn(self, now: float) -> None:
        """Ask what is due."""
        busy = {one.question.destination.name for one in self.open.values()}
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
            self._say(Count(self._next, where, row["study_uid"], row["series_uid"]), series_id)

    def _say(self, question: Question, series_id: int) -> None:
        self.open[question.id] = _Asked(question, series_id)
        self._next += 1
        self.child.say(to_json(question))

    def listen(self) -> None:
        """Take the answers that came; what the querier's death leaves open is asked again."""
        lines, alive = self.child.lines()
        now = time.monotonic()
        for line in lines:
            answer = answer_from_json(line)
            asked = self.open.pop(answer.id, None)
            if asked is None:
                continue
            news = flow.counted_there(self.parts, asked.series_id, now, answer.objects, answer.error)
            if answer.error and news:
                log.warning("count_failed", peer=asked.question.destination.name, reason=answer.error)
        if not alive and self.open:
            log.warning("querier_died", count=len(self.open))
            for asked in self.open.values():
                why = f"{asked.question.destination.name} could not be asked: the querier ended"
                flow.counted_there(self.parts, asked.series_id, now, None, why)
            self.open.clear()
