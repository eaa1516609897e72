"""What the node has done so far, read from its database without disturbing it, beside what we sent and got."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from node.demo.studies import Sent
from node.model import DeliveryState, RunState, SeriesState
from node.store import queries, standing
from node.store.choosing import Wanted
from node.store.database import Database
from node.store.schema import delivery, instance, product, run

_DECIDED = (SeriesState.ROUTED, SeriesState.UNROUTED, SeriesState.DISCARDED, SeriesState.REJECTED)


@dataclass(frozen=True, slots=True)
class Row:
    """How far one series is."""

    title: str
    scanner: str
    objects: int
    sent: int
    received: int
    sealed: str
    """Why the node takes it for complete; empty while it does not."""
    decided: bool
    """Every rule has judged it."""
    runs: tuple[tuple[str, str, str], ...]
    """Rule, state and reason of each run."""
    back: int
    """Originals that the PACS holds."""
    results: int
    made: int
    """Results that the PACS holds, and that the runs made for it."""

    @property
    def complete(self) -> bool:
        """All received, judged, and back."""
        return self.decided and self.received == self.objects == self.back and self.results == self.made


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows at one moment."""

    rows: tuple[Row, ...]
    idle: bool
    """Nothing is open, waiting or under way in the node."""
    parked: tuple[str, ...] = ()
    """Why deliveries were given up, in words."""

    @property
    def finished(self) -> bool:
        """Everything was sent and judged, and the node has nothing left to do."""
        return self.idle and all(row.decided and row.received == row.objects for row in self.rows)

    def missing(self) -> list[str]:
        """One sentence for everything that did not happen."""
        found = [sentence for row in self.rows for sentence in _missing(row)]
        found += [f"the node gave up a delivery: {why}" for why in self.parked]
        if not any(state == RunState.DONE for row in self.rows for _, state, _ in row.runs):
            found.append("no rule's pipeline was run to its end")
        return found

    def refused(self) -> tuple[str, ...]:
        """Where a rule's pipeline found that the images do not suit it: an answer, not a failure."""
        return tuple(
            f"{row.title}: {rule}: {reason}"
            for row in self.rows
            for rule, state, reason in row.runs
            if state == RunState.REFUSED
        )


def _missing(row: Row) -> list[str]:
    found = []
    if row.received < row.objects:
        found.append(f"{row.title}: {row.sent} of {row.objects} objects sent, {row.received} received")
    elif not row.decided:
        found.append(
            f"{row.title}: not yet complete for the node" if not row.sealed else f"{row.title}: not routed"
        )
    if row.back < row.received:
        found.append(f"{row.title}: {row.back} of {row.received} received objects are at the PACS")
    for rule, state, reason in row.runs:
        if state not in (RunState.DONE, RunState.REFUSED):
            found.append(f"{row.title}: {rule} is {state}{': ' + reason if reason else ''}")
    if row.results < row.made:
        found.append(f"{row.title}: {row.results} of {row.made} results are at the PACS")
    return found


def look(
    database: Database, series: Sequence[Sent], sent: Mapping[str, int], held: Collection[str]
) -> Snapshot:
    """The state of *series*: *sent* counts what left, *held* names the objects at the PACS."""
    with database.read() as tx:
        parked = select(delivery.c.reason).where(delivery.c.state == DeliveryState.PARKED).distinct()
        return Snapshot(
            rows=tuple(_row(tx, one, sent[one.series_uid], held) for one in series),
            idle=standing.is_idle(tx),
            parked=tuple(tx.scalars(parked)),
        )


def _row(tx: Connection, one: Sent, sent: int, held: Collection[str]) -> Row:
    found = queries.series_by_ref(tx, one.series_uid)
    if found is None:
        return Row(one.title, one.scanner, len(one.files), sent, 0, "", False, (), 0, 0, 0)
    originals = tx.scalars(select(instance.c.sop_uid).where(instance.c.series_id == found["id"])).all()
    made = _results(tx, found["id"])
    runs = queries.list_runs(tx, Wanted(series=one.series_uid))
    return Row(
        title=one.title,
        scanner=one.scanner,
        objects=len(one.files),
        sent=sent,
        received=len(originals),
        sealed=found["reason"].partition(";")[0],
        decided=found["state"] in _DECIDED,
        runs=tuple((r["rule"], r["state"], r["reason"]) for r in reversed(runs)),
        back=sum(uid in held for uid in originals),
        results=sum(uid in held for uid in made),
        made=len(made),
    )


def _results(tx: Connection, series_id: int) -> list[str]:
    """SOP Instance UIDs that one series' runs made for the PACS."""
    of_series = select(run.c.id).where(run.c.series_id == series_id)
    statement = select(product.c.sop_uid).join(delivery, delivery.c.product_id == product.c.id)
    return list(tx.scalars(statement.where(product.c.run_id.in_(of_series))))
