"""Retention at work: facts from the tables, what goes is recorded first, and only then are files unlinked.

A kill between the two leaves files whose rows say `removed`; the next pass finds them (`leftovers`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, select, update

from node import faults
from node.model import DeliveryState, InstanceState
from node.ops.retention import Kept, Removal, removable
from node.ops.subjects import GROUP, WITH_FILE, Subject, loose_before, series_before, subjects_of
from node.settings import Settings
from node.store.database import Database, note
from node.store.intake import object_path
from node.store.schema import delivery, instance, product, run, series

PAUSE = 0.002
"""Seconds between two transactions, so that the node gets its turn."""
_OPEN = (DeliveryState.WAITING, DeliveryState.PARKED)
"""Deliveries that are cancelled when what they would send goes."""


@dataclass(slots=True)
class Removed:
    """What a pass removed."""

    series: int = 0
    objects: int = 0
    results: int = 0
    bytes: int = 0
    files: list[Path] = field(default_factory=list)
    """Files and folders to unlink, of the group that was committed last."""


def survey(database: Database, settings: Settings, now: datetime) -> Iterator[tuple[Subject, Removal | Kept]]:
    """Everything whose files are kept, newest first, with what is decided about it at *now*."""
    gone: set[int] = set()
    for ask in (series_before, loose_before):
        before = None
        while True:
            with database.read() as tx:
                ids = ask(tx, before)
                found = subjects_of(tx, ids, settings, of_series=ask is series_before)
            if not ids:
                break
            yield from judged(found, settings, now, gone)
            before = ids[-1]


def judged(
    subjects: Iterable[Subject], settings: Settings, now: datetime, gone: set[int]
) -> Iterator[tuple[Subject, Removal | Kept]]:
    """Decide in the order given, later revisions first; *gone* holds series that go, and is added to."""
    for subject in subjects:
        facts = replace(subject.facts, newer=not gone.issuperset(subject.newer))
        decision = removable(facts, settings.keep, now)
        if subject.of_series and isinstance(decision, Removal):
            gone.add(subject.id)
        yield subject, decision


def remove(
    database: Database, settings: Settings, now: datetime, stop: Callable[[], bool] = lambda: False
) -> Removed:
    """Remove what is past its time, in small groups; ends early when *stop* says so.

    Each decision is taken again inside the transaction that records it: what came in between counts.
    """
    removed = Removed()
    going = (subject for subject, d in survey(database, settings, now) if isinstance(d, Removal))
    for group in _groups(going):
        if stop():
            break
        with database.write() as tx:
            _record(tx, settings, group, now, removed)
        faults.reach("after-removal")
        for path in removed.files:
            unlink(path)
        removed.files.clear()
        time.sleep(PAUSE)
    return removed


def unlink(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where it is gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _groups(subjects: Iterable[Subject]) -> Iterator[list[Subject]]:
    group: list[Subject] = []
    for subject in subjects:
        group.append(subject)
        if sum(s.objects + s.results for s in group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def _record(
    tx: Connection, settings: Settings, group: Sequence[Subject], now: datetime, removed: Removed
) -> None:
    """Look again, and write down what goes of *group*."""
    for of_series in (True, False):
        ids = [s.id for s in group if s.of_series is of_series]
        again = subjects_of(tx, ids, settings, of_series=of_series)
        for subject, decision in judged(again, settings, now, set()):
            if not isinstance(decision, Removal):
                continue
            why = _said(decision)
            removed.files += files_of(tx, settings.node.data, subject.id, of_series=of_series)
            mark(tx, subject.id, why, now, of_series=of_series)
            counts = f"{subject.objects} objects ({subject.bytes} bytes) and {subject.results} results"
            about = {"series_id": subject.id} if of_series else {"instance_id": subject.id}
            note(tx, now, "series_removed" if of_series else "instance_removed", f"{counts}: {why}", **about)
            removed.series += of_series
            removed.objects += subject.objects
            removed.results += subject.results
            removed.bytes += subject.bytes


def _said(decision: Removal) -> str:
    return f"past `keep.{decision.kind}`, last change {decision.since:%Y-%m-%d %H:%M} UTC"


def files_of(tx: Connection, data: Path, key: int, *, of_series: bool) -> list[Path]:
    """Where the received objects lie, and the folders of the runs."""
    own = (instance.c.series_id if of_series else instance.c.id) == key
    where = own & instance.c.state.in_(WITH_FILE)
    found = tx.execute(select(instance.c.receiver_run, instance.c.sequence).where(where))
    paths = [object_path(data, receiver_run, sequence) for receiver_run, sequence in found]
    if of_series:
        paths += [data / "runs" / str(i) for i in tx.scalars(select(run.c.id).where(run.c.series_id == key))]
    return paths


def ended_with(tx: Connection, ids: Sequence[int], *, of_series: bool) -> set[int]:
    """The deliveries that are cancelled once these revisions or loose objects go."""
    received = select(instance.c.id).where((instance.c.series_id if of_series else instance.c.id).in_(ids))
    runs = select(run.c.id).where(run.c.series_id.in_(ids if of_series else ()))
    made = select(product.c.id).where(product.c.run_id.in_(runs))
    owned = delivery.c.instance_id.in_(received) | delivery.c.product_id.in_(made)
    return set(tx.scalars(select(delivery.c.id).where(owned & delivery.c.state.in_(_OPEN))))


def mark(tx: Connection, key: int, why: str, now: datetime, *, of_series: bool) -> None:
    """The rows say that the files are gone; what still waited to be sent is cancelled."""
    objects = (instance.c.series_id if of_series else instance.c.id) == key
    ids = select(instance.c.id).where(objects)
    open_still = delivery.c.state.in_(_OPEN)
    cancelled = {"state": DeliveryState.CANCELLED, "reason": f"removed: {why}", "finished_at": now}
    tx.execute(update(delivery).where(delivery.c.instance_id.in_(ids) & open_still).values(**cancelled))
    uncommitted = delivery.c.commit_due.is_not(None)  # asked about no more: it could not be sent again
    tx.execute(update(delivery).where(delivery.c.instance_id.in_(ids) & uncommitted).values(commit_due=None))
    values = {"state": InstanceState.REMOVED, "reason": why}
    tx.execute(update(instance).where(objects & instance.c.state.in_(WITH_FILE)).values(**values))
    if not of_series:
        return
    made = product.c.run_id.in_(select(run.c.id).where(run.c.series_id == key))
    of_made = delivery.c.product_id.in_(select(product.c.id).where(made))
    tx.execute(update(delivery).where(of_made & open_still).values(**cancelled))
    tx.execute(update(delivery).where(of_made & uncommitted).values(commit_due=None))
    tx.execute(update(product).where(made & product.c.removed_at.is_(None)).values(removed_at=now))
    tx.execute(update(series).where(series.c.id == key).values(removed_at=now))
