"""The wall clock was set back: nothing waits longer for it than its policy says."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Table, update

from node.flow.committing import cap_commitments
from node.flow.fetching import LONGEST_PAUSE
from node.flow.parts import Parts
from node.flow.running import LONGEST_RETRY
from node.model import DeliveryState, RunState
from node.send import retry
from node.store import fetches
from node.store.database import one_of
from node.store.schema import delivery, destination, run, study_rule

STEP = timedelta(seconds=2)
"""A wall clock that falls behind the monotonic one by more than this was set back."""


def set_back(wall: datetime, monotonic: float, before: tuple[datetime, float] | None) -> bool:
    """Whether the wall clock was set back since *before*, an earlier reading of both clocks."""
    if before is None:
        return False
    return wall - before[0] < timedelta(seconds=monotonic - before[1]) - STEP


def cap_waits(tx: Connection, parts: Parts) -> int:
    """Bring moments that a set-back clock moved too far away to the longest wait of their policy; how many.

    A due time is stored as UTC; one written before the step would otherwise be waited for as long as the step.
    What never failed was due when it was queued: it is due now.
    """
    now = parts.now()
    queued = one_of(delivery.c.state, DeliveryState.WAITING, DeliveryState.SENDING)
    runs = one_of(run.c.state, RunState.WAITING, RunState.RUNNING)
    found = _cap(tx, delivery, queued & (delivery.c.failures == 0), now)
    found += _cap(tx, delivery, queued, now + retry.LONGEST)
    found += _cap(tx, run, runs & (run.c.failures == 0), now)
    found += _cap(tx, run, runs, now + LONGEST_RETRY)
    found += cap_commitments(tx, parts)
    found += fetches.cap(tx, now, now + LONGEST_PAUSE)
    found += _cap(tx, study_rule, study_rule.c.due_at.is_not(None), now)  # judged by how long it waited
    probe_by = now + retry.LONGEST_PROBE
    asked = destination.c.down & (destination.c.next_at > probe_by)
    return found + tx.execute(update(destination).where(asked).values(next_at=probe_by)).rowcount


def _cap(tx: Connection, table: Table, which: ColumnElement[bool], by: datetime) -> int:
    return tx.execute(update(table).where(which & (table.c.due_at > by)).values(due_at=by)).rowcount
