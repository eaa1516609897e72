"""Open series as the conductor sees them: sealed when complete, then routed, and judged with their study."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from node import faults, flow
from node.assemble.completeness import Sealed, verdict
from node.model import SeriesState
from node.store import intake, studies
from node.store.database import note

log = structlog.get_logger()


@dataclass
class Sealings:
    """The open series, and what was said of them."""

    parts: flow.Parts
    attended: set[int] = field(default_factory=set)
    """Open series that were shown for being open so long."""

    def seal(self, now: float, until: float, most: float) -> tuple[bool, float]:
        """Seal what is complete; whether anything was, and how long until the next series may be, at *most*.

        *until*: the monotonic time up to which all that came is known.
        """
        sealed, wait = False, most
        for series_id in list(self.parts.assembly.series):
            policy = flow.seal_policy(self.parts, series_id)
            found = verdict(self.parts.assembly.evidence(series_id, until), policy)
            self._attend(series_id, now)
            if isinstance(found, Sealed):
                with self.parts.database.write() as tx:
                    flow.seal(tx, self.parts, series_id, found.reason, found.incomplete)
                faults.reach("after-seal")
                sealed = True
            else:
                if found.short:
                    self._tell_short(series_id, found.short)
                wait = min(wait, found.wait.total_seconds() + now - until)
        return sealed, wait

    def _tell_short(self, series_id: int, short: str) -> None:
        """Say once that a series would be sealed by now, but for what others miss in it."""
        remarks = self.parts.assembly.series[series_id].told
        if short not in remarks:
            remarks.add(short)
            with self.parts.database.write() as tx:
                note(tx, self.parts.now(), "series_short", short, series_id=series_id)

    def _attend(self, series_id: int, now: float) -> None:
        """Show a series that has been open for very long; it is never cut."""
        if series_id in self.attended or now < flow.attention_at(self.parts, series_id):
            return
        self.attended.add(series_id)
        with self.parts.database.write() as tx:
            note(
                tx,
                self.parts.now(),
                "series_attention",
                "still open after attention_after",
                series_id=series_id,
            )
        log.warning("series_attention", series=series_id)

    def route(self) -> None:
        """Judge every sealed series by the rules."""
        with self.parts.database.read() as tx:
            sealed = intake.in_state(tx, SeriesState.SEALED)
        for row in sealed:
            with self.parts.database.write() as tx:
                flow.route(tx, self.parts, row)
            faults.reach("after-route")
            log.info("series_routed", series=row["id"])

    def judge_studies(self) -> None:
        """Rules over studies whose wait has ended, or for which something came that is no series of the study."""
        with self.parts.database.read() as tx:
            due = studies.due_studies(tx, self.parts.now())
        for study_uid in due:
            with self.parts.database.write() as tx:
                flow.judge_study(tx, self.parts, study_uid)
                faults.reach("before-study-commit")
            faults.reach("after-study")
            log.info("study_judged")
