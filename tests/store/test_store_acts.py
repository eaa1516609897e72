"""Claims about what a person does to what waits: guarded, counted, recorded; on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import CT, NOON, done, header, product
from sqlalchemy import Connection, select, update
from store_cases import STATES, opened

from node.facts import gather
from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.store import acts, aside, choosing, deliveries, intake, queries, queues, replays, work
from node.store.acts import Act, Acted
from node.store.choosing import Wanted
from node.store.database import Database, open_database, rows
from node.store.replays import Replay
from node.store.schema import delivery, event, instance, run, series

HOUR = timedelta(hours=1)


@pytest.fixture(params=STATES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the node."""
    found = open_database(opened(request), tmp_path)
    yield found
    found.close()


@pytest.fixture
def tx(database: Database) -> Iterator[Connection]:
    """One writing transaction."""
    with database.write() as connection:
        yield connection


def new_series(tx: Connection, uid: str = "1.2.9.1", revision: int = 1, **about: Any) -> int:
    """A receiving revision."""
    return intake.open_series(tx, header(series_uid=uid), revision, about, NOON)


def new_run(tx: Connection, series_id: int, rule: str = "r", state: str = RunState.WAITING) -> int:
    """A run in a state."""
    values = {"rule": rule, "plan": "{}", "sends": "{}", "files": "[]", "due_at": NOON, "created_at": NOON}
    made = work.add_run(tx, series_id=series_id, **values)
    assert made is not None
    tx.execute(update(run).where(run.c.id == made).values(state=state))
    return made


def new_delivery(
    tx: Connection, number: int, state: str, *, to: str = "PACS", series_id: int | None = None, **values: Any
) -> int:
    """A received object that is to go to a destination, in a state."""
    key = intake.add_instance(
        tx, header(number), (1, number), InstanceState.KEPT, reason="", series_id=series_id
    )
    deliveries.deliver_instance(tx, key, to, "route", NOON)
    where = delivery.c.instance_id == key
    tx.execute(update(delivery).where(where).values(state=state, **values))
    return int(tx.execute(select(delivery.c.id).where(where)).scalar_one())


def act(verb: str, why: str = "", *, dry_run: bool = False) -> Act:
    """An act at noon."""
    return Act(verb, NOON, why, dry_run)


def states(tx: Connection, table: Any = delivery) -> list[str]:
    """The states of a table's rows, by id."""
    return [row["state"] for row in rows(tx, select(table).order_by(table.c.id))]


def events(tx: Connection) -> list[tuple[str, str, int | None]]:
    """Name, detail and series of every event."""
    return [(e["name"], e["detail"], e["series_id"]) for e in rows(tx, select(event).order_by(event.c.id))]


def one_of_each(tx: Connection) -> None:
    """A delivery in every state, by id, all to the PACS and of one series."""
    of = new_series(tx)
    for number, state in enumerate(DeliveryState, 1):
        new_delivery(tx, number, state, series_id=of, failures=9, due_at=NOON + HOUR)


# --- deliveries


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("hold", "held sending stored committed held held cancelled"),
        ("release", "waiting sending stored committed parked waiting cancelled"),
        ("cancel", "cancelled sending stored committed cancelled cancelled cancelled"),
        ("retry", "waiting sending stored committed waiting held cancelled"),
    ],
)
def test_an_act_moves_only_what_it_may(tx: Connection, verb: str, expected: str) -> None:
    """What is being sent, or is over, is left alone, and counted; the act leaves one event for the series."""
    one_of_each(tx)
    before = states(tx)
    acted = acts.on_deliveries(tx, act(verb), Wanted(destination="PACS"))
    assert states(tx) == expected.split()
    moved = sum(a != b for a, b in zip(before, states(tx), strict=True))
    assert acted.changed == moved + (verb == "retry")  # the waiting one goes at once
    assert sum(acted.left.values()) == len(before) - acted.changed
    assert acted.left["sending"] == acted.left["stored"] == 1
    ((name, detail, of),) = events(tx)
    word = {"hold": "held", "release": "released", "cancel": "cancelled", "retry": "retried"}[verb]
    assert (name, detail, of) == (f"deliveries_{word}", f"{moved} {word} by hand", 1)


def test_a_dry_run_counts_and_changes_nothing(tx: Connection) -> None:
    """The same numbers as the act itself would give, and no event."""
    one_of_each(tx)
    before = states(tx)
    would = acts.on_deliveries(tx, act("cancel", dry_run=True), Wanted(destination="PACS"))
    assert (states(tx), events(tx)) == (before, [])
    assert acts.on_deliveries(tx, act("cancel"), Wanted(destination="PACS")) == would


def test_who_and_why_are_written_down(tx: Connection) -> None:
    """The reason of the row and the event both tell that it was a person, and why."""
    new_delivery(tx, 1, "parked", reason="refused C000")
    acts.on_deliveries(tx, act("cancel", "sent by CD"), Wanted(state="parked"))
    (row,) = rows(tx, select(delivery))
    assert (row["reason"], row["finished_at"]) == ("cancelled by hand: sent by CD", NOON)
    assert events(tx) == [("deliveries_cancelled", "1 cancelled by hand: sent by CD", None)]


def test_retry_gives_a_clean_slate_and_asks_a_destination_that_is_down(tx: Connection) -> None:
    """Parked ones have no failures any more, waiting ones are due, and the next probe is now."""
    new_delivery(tx, 1, "parked", failures=9, status=0xC000)
    new_delivery(tx, 2, "waiting", failures=4, due_at=NOON + HOUR)
    queues.set_destination(tx, "PACS", down=True, next_at=NOON + HOUR)
    queues.set_destination(tx, "ARCHIVE", down=True, next_at=NOON + HOUR)
    assert acts.on_deliveries(tx, act("retry"), Wanted(destination="PACS")) == Acted(2, {})
    found = rows(tx, select(delivery).order_by(delivery.c.id))
    assert [(row["failures"], row["due_at"]) for row in found] == [(0, NOON), (4, NOON)]
    known = queues.destinations(tx)
    assert (known["PACS"]["next_at"], known["ARCHIVE"]["next_at"]) == (NOON, NOON + HOUR)
    assert acts.on_deliveries(tx, act("retry"), Wanted(destination="PACS")) == Acted(0, {"waiting": 2})


def test_what_a_person_cancelled_can_be_taken_up_and_what_the_node_cancelled_cannot(tx: Connection) -> None:
    """Only with the state asked for; what a newer object replaced never goes again."""
    new_delivery(tx, 1, "cancelled", reason="cancelled by hand: a mistake")
    new_delivery(tx, 2, "cancelled", reason="a newer header of the same object is sent instead")
    assert acts.on_deliveries(tx, act("retry"), Wanted(destination="PACS")).changed == 0
    assert acts.on_deliveries(tx, act("retry"), Wanted(state="cancelled")).changed == 1
    assert states(tx) == ["waiting", "cancelled"]


def test_each_option_narrows_the_group(tx: Connection) -> None:
    """Destination, status, SOP class, rule, series, study, accession, run and time; together all must hold."""
    of = new_series(tx, accession="A1")
    new_delivery(tx, 1, "parked", series_id=of, status=0xC000)
    new_delivery(tx, 2, "parked", to="ARCHIVE", status=0x0122, created_at=NOON - HOUR)
    ((made, row),) = work.add_products(tx, new_run(tx, of, "smooth"), "runs/1/1", done(product(1)))
    deliveries.deliver_product(tx, made, row, "PACS", "smooth", NOON)
    chosen = {
        "destination": Wanted(destination="ARCHIVE"), "status": Wanted(status=0xC000),
        "class": Wanted(sop_class="1.2.3"), "rule": Wanted(rule="smooth"), "series": Wanted(series="1.2.9.1"),
        "study": Wanted(study="1.2.9"), "accession": Wanted(accession="A1"), "run": Wanted(run=1),
        "since": Wanted(since=NOON), "before": Wanted(before=NOON - HOUR),
        "both": Wanted(sop_class=CT, destination="PACS", state="parked"),
    }  # fmt: skip
    found = {
        name: [row["id"] for row in rows(tx, choosing.deliveries_chosen(w))] for name, w in chosen.items()
    }
    assert found == {
        "destination": [2], "status": [1], "class": [], "rule": [3], "series": [1, 3], "study": [1, 3],
        "accession": [1, 3], "run": [3], "since": [1, 3], "before": [2], "both": [1],
    }  # fmt: skip


def test_a_whole_backlog_is_taken_up_at_once(tx: Connection) -> None:
    """After days of a PACS refusing everything one `retry` still reaches each of 70 000 deliveries."""
    moment = (
        "CAST('2026-03-01 12:00:00' AS TIMESTAMP)"
        if tx.dialect.name == "postgresql"
        else "'2026-03-01 12:00:00'"
    )
    tx.exec_driver_sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70000) "  # noqa: S608
        "INSERT INTO delivery (destination, state, reason, rule, stage, attempt, failures, due_at, created_at, "
        'rank, lossy, sent_path, sent_syntax, commit_failures, treatment, sent_uid, "window") '
        f"SELECT 'PACS', 'parked', '', 'r', 0, 0, 0, {moment}, {moment}, 0, false, '', '', 0, '', '', '' FROM n"
    )
    assert acts.on_deliveries(tx, act("retry"), Wanted(destination="PACS")) == Acted(70_000, {})


def test_a_delivery_that_waits_for_a_destination_that_is_down_says_why(tx: Connection) -> None:
    """An empty reason is the destination's; a reason of its own stays, and stored ones have none."""
    queues.set_destination(tx, "PACS", down=True, reason="connection refused")
    new_delivery(tx, 1, "waiting")
    new_delivery(tx, 2, "waiting", reason="failed 0122; next try in 5 s")
    new_delivery(tx, 3, "stored")
    found = {(row["state"], row["reason"]) for row in queries.list_deliveries(tx, Wanted())}
    assert found == {
        ("waiting", "PACS is down: connection refused"), ("waiting", "failed 0122; next try in 5 s"), ("stored", ""),
    }  # fmt: skip


# --- runs


@pytest.mark.parametrize(
    ("verb", "wanted", "expected"),
    [
        ("cancel", Wanted(rule="r"), "cancelled cancelled done refused quarantined cancelled superseded"),
        ("retry", Wanted(rule="r"), "waiting running done waiting waiting cancelled superseded"),
        ("retry", Wanted(state="cancelled"), "waiting running done refused quarantined waiting superseded"),
    ],
)
def test_runs_are_cancelled_and_retried(tx: Connection, verb: str, wanted: Wanted, expected: str) -> None:
    """A group takes up failures only; a cancelled run where its state is asked for; what is done stays done."""
    for number, state in enumerate(RunState):
        new_run(tx, new_series(tx, f"1.2.9.{number}"), "r", state)
    acts.on_runs(tx, act(verb), wanted)
    assert states(tx, run) == expected.split()


def test_one_run_by_its_number(tx: Connection) -> None:
    """Quarantined, refused and cancelled ones wait again, and the event names the run."""
    of = new_series(tx)
    for state in RunState:
        key = new_run(tx, of, state, state)
        may = state in (RunState.QUARANTINED, RunState.REFUSED, RunState.CANCELLED)
        assert acts.on_runs(tx, act("retry"), Wanted(run=key)).changed == may
        assert (work.run_row(tx, key) or {})["state"] == (RunState.WAITING if may else state)
    assert [e["run_id"] for e in rows(tx, select(event).order_by(event.c.id))] == [4, 5, 6]


def test_the_worker_of_a_cancelled_run_is_known(tx: Connection) -> None:
    """Claimed runs that are not running any more, or run another attempt, are those whose worker is to end."""
    one, two = new_run(tx, new_series(tx), "a"), new_run(tx, new_series(tx, "1.2.9.2"), "b")
    for key in (one, two):
        work.claim_run(tx, work.run_row(tx, key) or {}, NOON)
    acts.on_runs(tx, act("cancel"), Wanted(run=one))
    assert work.not_running(tx, [(one, 1), (two, 1), (two, 0)]) == [(one, 1), (two, 0)]
    assert work.not_running(tx, []) == []


# --- series


def test_a_series_is_held_before_it_is_routed_and_released(tx: Connection) -> None:
    """Receiving and sealed ones; a routed one is left; held ones are not routed until they are released."""
    for number, state in enumerate(SeriesState, 1):
        key = new_series(tx, f"1.2.9.{number}")
        tx.execute(update(series).where(series.c.id == key).values(state=state))
    acted = acts.on_series(tx, act("hold"), Wanted(study="1.2.9"))
    assert acted == Acted(2, {"routed": 1, "unrouted": 1, "discarded": 1, "rejected": 1})
    assert intake.in_state(tx, SeriesState.SEALED) == []
    assert intake.to_route(tx, 2) is None
    assert acts.on_series(tx, act("release"), Wanted(series="2")).changed == 1
    assert [row["id"] for row in intake.in_state(tx, SeriesState.SEALED)] == [2]
    assert intake.to_route(tx, 2) is not None
    assert acts.on_series(tx, act("release"), Wanted()).changed == 1
    assert [e[:2] for e in events(tx)] == [("series_held", "by hand")] * 2 + [
        ("series_released", "by hand")
    ] * 2


def sealed(
    tx: Connection, uid: str = "1.2.9.1", revision: int = 1, state: str = "routed", **values: Any
) -> int:
    """A revision of two kept objects that was judged."""
    key = new_series(tx, uid, revision)
    numbers = [100 * key + i for i in (1, 2)]
    members = [
        intake.add_instance(tx, header(n), (1, n), InstanceState.KEPT, reason="", series_id=key)
        for n in numbers
    ]
    facts = gather([header(n).attributes for n in numbers])
    intake.seal_series(tx, key, "quiet", "", members=members, facts=facts, now=NOON)
    tx.execute(update(series).where(series.c.id == key).values(state=state, **values))
    return key


def test_a_series_is_judged_again(tx: Connection) -> None:
    """Sealed once more, with a count that opens new runs, and with what was asked; the event tells it."""
    key = sealed(tx, state="unrouted")
    assert replays.replay_series(tx, key, Replay("thick", fresh=True), act("replay", "C000")) == ""
    (row,) = rows(tx, select(series))
    assert (row["state"], row["replay"], row["replay_rule"], row["replay_fresh"]) == (
        "sealed",
        1,
        "thick",
        True,
    )
    assert row["reason"] == "replayed by hand by rule thick"
    assert events(tx) == [("series_replayed", "by hand by rule thick, results get new UIDs: C000", key)]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"state": "receiving"}, "still receiving"),
        ({"state": "sealed"}, "about to be judged anyway"),
        ({"state": "rejected"}, "it is rejected"),
        ({"held": "restored"}, "pacsnode release --series 1"),
        ({"removed_at": NOON}, "retention has removed its files"),
    ],
)
def test_a_series_that_cannot_be_judged_again_says_why(
    tx: Connection, values: dict[str, Any], says: str
) -> None:
    """Each reason in words, and nothing changes."""
    key = sealed(tx, **values)
    assert says in replays.replay_series(tx, key, Replay(), act("replay"))
    assert rows(tx, select(series.c.replay)) == [{"replay": 0}]


def test_only_the_newest_revision_with_all_its_objects_is_judged_again(tx: Connection) -> None:
    """An older one names the newer; one whose object was replaced since says so."""
    old, new = sealed(tx), sealed(tx, revision=2)
    assert "its revision 2 is newer: series 2" in replays.replay_series(tx, old, Replay(), act("replay"))
    assert replays.newest_of(tx, old) == new
    tx.execute(update(instance).where(instance.c.series_id == new).values(state="replaced"))
    assert "not all of its 2 objects are kept (2 replaced)" in replays.replay_series(
        tx, new, Replay(), act("replay")
    )


# --- objects that are set aside


def test_a_release_is_asked_for_once_and_is_over_when_it_was_done(tx: Connection) -> None:
    """Only for objects in conflict; the question outlives a restart, because it is a row."""
    kept = intake.add_instance(tx, header(1), (1, 1), InstanceState.KEPT, reason="", series_id=None)
    other = intake.add_instance(tx, header(1), (1, 2), InstanceState.CONFLICT, reason="", series_id=None)
    assert not aside.ask_release(tx, kept, NOON)
    assert aside.ask_release(tx, other, NOON)
    assert aside.ask_release(tx, other, NOON)
    assert aside.asked_releases(tx) == [other]
    assert [e[0] for e in events(tx)] == ["instance_released"]
    aside.release_over(tx, other)
    assert aside.asked_releases(tx) == []


def test_an_object_is_sent_by_hand_once(tx: Connection) -> None:
    """A delivery of an unreadable object, by nobody's rule; the second time there is one already."""
    key = intake.add_instance(tx, header(1), (1, 1), InstanceState.UNREADABLE, reason="", series_id=None)
    assert aside.route_by_hand(tx, key, "PACS", NOON)
    assert not aside.route_by_hand(tx, key, "PACS", NOON)
    (row,) = rows(tx, select(delivery))
    assert (row["instance_id"], row["rule"], row["state"]) == (key, "by hand", "waiting")
