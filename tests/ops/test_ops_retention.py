"""Claims about retention: what is not over stays whatever its age, what goes is recorded, and nothing comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import NOON, ROUTE, SMOOTH, House, header, rule
from ops.upkeep_material import complete, ct, deliver, objects, process, receive
from sqlalchemy import select, update

from node.engine import write_job
from node.flow import judge_study
from node.model import DeliveryState, Exit, InstanceState, OperatorSpec, Parameter, RunState, SeriesState
from node.ops.leftovers import sweep
from node.ops.removing import Removed, remove, survey
from node.ops.retention import Facts, Kept, Removal, removable
from node.reindex import reindex
from node.send.protocol import Kind
from node.settings import Commit, Keep, Peer
from node.store import files, schema, studies

DAY = timedelta(days=1)
KEEP = Keep()
DELIVERED = Facts(NOON, SeriesState.ROUTED, deliveries=frozenset({DeliveryState.STORED}))


def facts(**changes: Any) -> Facts:
    """A delivered series with changes."""
    return replace(DELIVERED, **changes)


def states(*names: DeliveryState) -> frozenset[DeliveryState]:
    """Several at once."""
    return frozenset(names)


# --- the decision


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (facts(state=SeriesState.RECEIVING), "still being received"),
        (facts(state=SeriesState.SEALED), "waits to be routed"),
        (facts(state=SeriesState.SEALED, held="restored"), "held: restored"),
        (facts(held="by hand"), "held: by hand"),
        (facts(runs=frozenset({RunState.WAITING})), "a run waits"),
        (facts(runs=frozenset({RunState.RUNNING, RunState.DONE})), "a run waits"),
        (facts(deliveries=states(DeliveryState.STORED, DeliveryState.WAITING)), "not delivered yet"),
        (facts(deliveries=states(DeliveryState.STORED, DeliveryState.PARKED)), "not delivered yet"),
        (facts(deliveries=states(DeliveryState.HELD)), "held for a person"),
        (facts(deliveries=states(DeliveryState.SENDING)), "being sent"),
        (facts(uncommitted=True), "not committed"),
        (facts(newer=True), "later revision"),
    ],
)
def test_what_is_not_over_stays_for_ever(found: Facts, words: str) -> None:
    """Whatever its age, a series that something still needs stays, and the reason says what."""
    decision = removable(found, KEEP, NOON + 9999 * DAY)
    assert isinstance(decision, Kept)
    assert words in decision.reason
    assert decision.until is None


@pytest.mark.parametrize(
    ("found", "kind", "days"),
    [
        (DELIVERED, "delivered", 3),
        (facts(deliveries=states(DeliveryState.COMMITTED, DeliveryState.CANCELLED)), "delivered", 3),
        (facts(deliveries=states(DeliveryState.CANCELLED)), "unrouted", 7),
        (Facts(NOON, SeriesState.UNROUTED), "unrouted", 7),
        (Facts(NOON, SeriesState.DISCARDED), "unrouted", 7),
        (Facts(NOON, SeriesState.REJECTED), "unrouted", 7),
        (facts(runs=frozenset({RunState.DONE, RunState.REFUSED})), "refused", 30),
        (facts(runs=frozenset({RunState.REFUSED, RunState.QUARANTINED})), "quarantined", 90),
        (Facts(NOON, aside=True), "quarantined", 90),
        (Facts(NOON), "unrouted", 7),
        (Facts(NOON, SeriesState.ROUTED, runs=frozenset({RunState.SUPERSEDED})), "unrouted", 7),
    ],
)
def test_the_longest_line_of_keep_that_applies_counts(found: Facts, kind: str, days: int) -> None:
    """One second before its time a series stays and the reason says until when; at its time it goes."""
    over = NOON + days * DAY
    before = removable(found, KEEP, over - timedelta(seconds=1))
    assert before == Kept(f"{kind}: its time in `keep` is not over", over)
    assert removable(found, KEEP, over) == Removal(kind, NOON)


def test_undelivered_goes_only_where_the_site_says_so() -> None:
    """With a duration for `undelivered` the time runs from the queueing, and failed attempts do not lengthen it."""
    keep = replace(KEEP, undelivered=timedelta(days=14))
    waiting = facts(deliveries=states(DeliveryState.WAITING), waiting_since=NOON, changed_at=NOON + 13 * DAY)
    assert isinstance(removable(waiting, keep, NOON + 13.9 * DAY), Kept)
    assert removable(waiting, keep, NOON + 14 * DAY) == Removal("undelivered", NOON)
    parked = replace(waiting, deliveries=states(DeliveryState.STORED, DeliveryState.PARKED))
    assert removable(parked, keep, NOON + 16 * DAY) == Removal("delivered", NOON + 13 * DAY)
    sending = replace(waiting, deliveries=states(DeliveryState.SENDING))
    assert isinstance(removable(sending, keep, NOON + 99 * DAY), Kept)


# --- over the tables and the disk


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node that routes everything and processes CT."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """The same over both databases."""
    state = "sqlite" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))
    found = House(tmp_path, ROUTE + SMOOTH, state=state)
    yield found
    found.database.close()


def clean(house: House) -> Removed:
    """One pass of retention at the house's time."""
    return remove(house.database, house.parts.settings, house.clock.at)


def reasons(house: House) -> list[str]:
    """Why what stays stays."""
    found = survey(house.database, house.parts.settings, house.clock.at)
    return [decision.reason if isinstance(decision, Kept) else decision.kind for _, decision in found]


def test_a_delivered_series_goes_after_its_time(either: House) -> None:
    """Three days after the last delivery the files, results and run folder go; rows, identity and event stay."""
    house = either
    folder = complete(house)
    house.clock.tick(days=2.9)
    assert clean(house).series == 0
    assert len(objects(house)) == 4
    house.clock.tick(days=0.2)
    removed = clean(house)
    assert (removed.series, removed.objects, removed.results) == (1, 4, 1)
    assert removed.bytes > 4 * 128
    assert objects(house) == []
    assert not folder.parent.exists()
    assert {row["state"] for row in house.rows(schema.instance)} == {"removed"}
    assert house.series()[0]["removed_at"] == house.clock.at
    assert house.rows(schema.product)[0]["removed_at"] == house.clock.at
    assert len(house.rows(schema.identity)) == 1
    (said,) = house.events("series_removed")
    assert said["series_id"] == 1
    assert said["detail"].startswith("4 objects (")
    assert "past `keep.delivered`" in said["detail"]
    assert clean(house).series == 0


def test_one_undelivered_result_keeps_everything(house: House) -> None:
    """While one result waits or is parked, the originals stay for as long as it takes."""
    receive(house, ct(house))
    process(house)
    items = house.claim()
    house.answer(items[:-1])
    house.answer(items[-1:], Kind.FAILED, 0xA900)
    for _ in range(3):
        house.clock.tick(days=400)
        assert clean(house).series == 0
    assert reasons(house) == ["it is not delivered yet"]
    assert len(objects(house)) == 4


def test_undelivered_with_a_duration_cancels_what_waits(tmp_path: Path) -> None:
    """A site may bound the wait: then the deliveries are cancelled with the reason, and nothing tries them again."""
    house = House(tmp_path, ROUTE)
    house.parts.settings = replace(house.parts.settings, keep=Keep(undelivered=timedelta(days=14)))
    receive(house, ct(house))
    house.clock.tick(days=15)
    assert clean(house).series == 1
    assert {(row["state"], row["reason"].split(",")[0]) for row in house.rows(schema.delivery)} == {
        ("cancelled", "removed: past `keep.undelivered`")
    }
    assert house.claim() == ()
    house.database.close()


def test_what_is_removed_is_not_asked_about(house: House) -> None:
    """Where a site bounds the wait, what is removed before its destination committed is asked about no more."""
    complete(house)
    pacs = Peer("PACS", commit=Commit("PACS", "127.0.0.1", 4242))
    settings = replace(house.parts.settings, peers={**house.parts.settings.peers, "PACS": pacs})
    settings = replace(settings, keep=Keep(undelivered=timedelta(days=14)))
    with house.tx() as tx:
        tx.execute(update(schema.delivery).values(commit_due=house.clock.at))
    house.clock.tick(days=15)
    assert remove(house.database, settings, house.clock.at).series == 1
    assert {row["commit_due"] for row in house.rows(schema.delivery)} == {None}


def test_a_delivery_that_is_not_committed_is_not_delivered(house: House) -> None:
    """Where the destination commits, stored is not enough: the objects stay until it has committed (PS3.4 J)."""
    complete(house)
    pacs = Peer("PACS", commit=Commit("PACS", "127.0.0.1", 4242))
    settings = replace(house.parts.settings, peers={**house.parts.settings.peers, "PACS": pacs})
    house.clock.tick(days=99)
    assert remove(house.database, settings, house.clock.at).series == 0
    with house.tx() as tx:
        tx.execute(update(schema.delivery).values(state="committed"))
    assert remove(house.database, settings, house.clock.at).series == 1


@pytest.mark.parametrize(
    ("state", "days"), [(RunState.REFUSED, 30), (RunState.QUARANTINED, 90)], ids=["refused", "quarantined"]
)
def test_what_could_not_be_processed_stays_longer(house: House, state: RunState, days: int) -> None:
    """Originals and logs of a refused or quarantined run stay as long as `keep` says, though all is delivered."""
    receive(house, ct(house))
    with house.tx() as tx:
        tx.execute(update(schema.run).values(retries=0))
    folder = process(house, Exit(state, "why"))
    deliver(house)
    house.clock.tick(days=days - 0.1)
    assert clean(house).series == 0
    assert folder.exists()
    house.clock.tick(days=0.2)
    assert clean(house).series == 1
    assert not folder.exists()


def test_nothing_is_removed_while_a_run_waits(house: House) -> None:
    """A run that could not start for weeks, because the disk was full, still finds its objects."""
    receive(house, ct(house))
    deliver(house)
    house.clock.tick(days=400)
    assert reasons(house) == ["a run waits or works"]
    assert clean(house).objects == 0


def test_a_held_series_stays(house: House) -> None:
    """What a person holds, or has not released after a reindex, stays; once released its time runs."""
    complete(house)
    with house.tx() as tx:
        tx.execute(update(schema.series).values(held="restored"))
    house.clock.tick(days=400)
    assert reasons(house) == ["held: restored"]
    with house.tx() as tx:
        tx.execute(update(schema.series).values(held="released"))
    assert clean(house).series == 1


def test_a_revision_that_a_later_one_begins_with_stays(either: House) -> None:
    """The members of a later revision stay with it: an earlier one goes when the later one does, in one pass."""
    house = either
    late = ct(house)
    receive(house, late[:3])
    process(house)
    deliver(house)
    house.clock.tick(days=2)
    receive(house, late[3:])
    process(house)
    deliver(house)
    house.clock.tick(days=2)
    assert reasons(house) == [
        "delivered: its time in `keep` is not over", "a later revision begins with its objects",
    ]  # fmt: skip
    assert clean(house).series == 0
    assert len(objects(house)) == 4
    house.clock.tick(days=1.5)
    assert (clean(house).series, objects(house)) == (2, [])


def test_an_open_revision_keeps_what_it_begins_with(house: House) -> None:
    """A late image opens a revision: what it begins with is not removed while more may come."""
    late = ct(house)
    receive(house, late[:3])
    process(house)
    deliver(house)
    house.clock.tick(days=400)
    house.receive(late[3:])
    assert clean(house).series == 0
    assert len(objects(house)) == 4
    house.seal(2)
    with house.tx() as tx:
        from node.store import intake

        assert len(intake.members_and_facts(tx, 2)[0]) == 4


def test_what_comes_between_the_look_and_the_deed_counts(house: House) -> None:
    """The decision is taken again in the transaction that records it: a late image in between saves the series."""
    late = ct(house)
    receive(house, late[:3])
    process(house)
    deliver(house)
    house.clock.tick(days=4)

    def one_more() -> bool:
        house.receive(late[3:])
        return False

    removed = remove(house.database, house.parts.settings, house.clock.at, one_more)
    assert (removed.series, removed.objects) == (0, 0)
    assert len(objects(house)) == 4


def test_a_removed_object_that_comes_again_is_new(house: House) -> None:
    """Sent again after its removal, a series is kept, routed, processed and delivered as new."""
    sent = ct(house)
    receive(house, sent)
    process(house)
    deliver(house)
    house.clock.tick(days=4)
    clean(house)
    receive(house, sent)
    assert len(objects(house)) == 4
    assert [row["state"] for row in house.rows(schema.instance)] == ["removed"] * 4 + ["kept"] * 4
    assert [(row["revision"], row["state"], row["instances"]) for row in house.series()] == [
        (1, "routed", 4), (2, "routed", 4),
    ]  # fmt: skip
    process(house)
    assert len(house.claim()) >= 4
    assert len(house.rows(schema.run)) == 2


def test_objects_outside_any_series_have_their_time_too(either: House) -> None:
    """What cannot be read or is in conflict stays as long as a quarantined run; a plain one as long as an unrouted."""
    house = either
    house.take(header(1), header(1, digest="f" * 64, pixel_digest="e" * 64))  # the second in conflict
    house.take(header(7, readable=False, why="broken", study_uid="", series_uid=""))
    with house.tx() as tx:
        tx.execute(update(schema.delivery).values(state="cancelled", finished_at=house.clock.at))
    house.clock.tick(days=89)
    assert clean(house).objects == 0
    house.clock.tick(days=2)
    assert clean(house).objects == 2
    assert [row["state"] for row in house.rows(schema.instance)] == ["kept", "removed", "removed"]
    assert [row["instance_id"] for row in house.events("instance_removed")] == [3, 2]


def test_a_run_over_several_series_keeps_them_all(either: House) -> None:
    """A run that takes objects of another series of its study keeps that series as well, for as long as itself."""
    house = either
    receive(house, ct(house))
    with house.tx() as tx:
        key = tx.execute(
            schema.series.insert().values(
                study_uid=tx.scalar(select(schema.series.c.study_uid)),
                series_uid="1.2.3",
                revision=1,
                state="routed",
                opened_at=NOON,
                last_at=NOON,
            )
        ).inserted_primary_key
        assert key is not None
        members = list(tx.scalars(select(schema.instance.c.id)))
        tx.execute(update(schema.run).values(series_id=key[0], files=str(members)))
        tx.execute(update(schema.delivery).values(state="stored", finished_at=NOON))
    house.clock.tick(days=400)
    assert reasons(house) == ["a run waits or works", "a run waits or works"]
    with house.tx() as tx:
        tx.execute(update(schema.run).values(state="cancelled"))
    assert clean(house).series == 2


def test_a_study_that_a_rule_waits_with_stays(tmp_path: Path) -> None:
    """What a rule over a study waits with is kept until the wait is over, however long ago it was delivered."""
    other = Parameter("other", "Volume")
    fuse = OperatorSpec("fuse", "Both.", (Parameter("volume", "Volume"), other), (), "Picture", "1", "p")
    text = (
        "---\nrule: fusion\npurpose: p\nowner: o\nscope: study\nwhen: {}\ninputs:\n  ct: {when: {Modality: CT}}\n"
        "  pet: {when: {Modality: PT}}\nwait: {at_most: 2 d, then: skip}\n"
        "do: [{fuse: {volume: ct, other: pet}}]\nsend: [{what: fuse, to: PACS}]\n"
    )
    house = House(tmp_path, ROUTE + text, specs={"fuse": fuse})
    receive(house, ct(house))
    with house.tx() as tx:
        tx.execute(update(schema.delivery).values(state="stored", finished_at=NOON))
    house.clock.tick(days=400)
    assert reasons(house) == ["a run waits or works"]
    with house.tx() as tx:
        for study in studies.due_studies(tx, house.clock.at):
            judge_study(tx, house.parts, study)
    house.clock.tick(days=400)
    assert reasons(house) == ["delivered"]
    assert clean(house).series == 1
    house.database.close()


def test_small_groups_one_after_the_other(tmp_path: Path) -> None:
    """A pass commits in groups, and ends between two of them when it is asked to stop."""
    house = House(tmp_path, ROUTE)
    for number in range(250):
        house.take(header(number, series_uid=f"1.2.9.{number}"))
    for series_id in list(house.parts.assembly.series):
        house.seal(series_id)
    house.route()
    deliver(house)
    house.clock.tick(days=4)
    asked: list[int] = []
    removed = remove(
        house.database, house.parts.settings, house.clock.at, lambda: bool(asked.append(1)) or len(asked) > 1
    )
    assert removed.series == 200
    assert clean(house).series == 50
    house.database.close()


# --- leftovers


KILLED = """
import sys
from datetime import datetime
from pathlib import Path
from flow_material import House, ROUTE, SMOOTH
from node.ops.removing import remove
house = House(Path(sys.argv[1]), ROUTE + SMOOTH)
remove(house.database, house.parts.settings, datetime.fromisoformat(sys.argv[2]))
"""


def test_a_kill_between_record_and_deed_is_made_good(house: House) -> None:
    """Killed after the commit, the files lie there; the next pass removes them, and a reindex does not revive them."""
    folder = complete(house)
    house.clock.tick(days=4)
    done_ = subprocess.run(
        [sys.executable, "-c", KILLED, str(house.data), house.clock.at.isoformat()], check=False,
        env={**os.environ, "PACSNODE_FAULT": "after-removal", "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done_.returncode == -signal.SIGKILL
    assert len(objects(house)) == 4
    assert {row["state"] for row in house.rows(schema.instance)} == {"removed"}
    assert reindex(house.parts, lambda _: None) == (0, 0)
    assert sweep(house.database, house.parts.data).count == 5
    assert objects(house) == []
    assert not folder.parent.exists()
    assert sweep(house.database, house.parts.data).count == 0


def test_empty_buckets_go_and_numbers_do_not_come_again(house: House) -> None:
    """Empty folders of dead runs go, the highest run stays, so that no number is given twice, and so do living ones."""
    complete(house, "one")
    complete(house, "two")
    house.clock.tick(days=4)
    clean(house)
    sweep(house.database, house.parts.data)
    left = sorted(str(p.relative_to(house.parts.data)) for p in (house.parts.data / "objects").rglob("*"))
    assert left == ["objects/00000002", "objects/00000002/0000"]
    living = files.ObjectFolder(house.parts.data, files.Disk("process"), lambda: None)
    assert living.run == 3
    sweep(house.database, house.parts.data)
    assert files.receiver_runs(house.parts.data) == (3,)
    assert (house.parts.data / "objects" / "00000003" / "0000").is_dir()
    house.receive(ct(house, "three"))
    assert len(objects(house)) == 4
    living.close()
    (house.parts.data / "objects" / "00000007").mkdir()
    (house.parts.data / "objects" / "00000008").mkdir()
    sweep(house.database, house.parts.data)
    assert {7, 8} <= set(files.receiver_runs(house.parts.data)), (
        "a run that is being born was taken for an empty one"
    )


def test_read_ends_of_associations_go_and_unread_ones_stay(either: House) -> None:
    """An `.end` record at or below the cursor was taken in; one past it waits for the conductor."""
    house = either
    from node.model import AssociationEnd
    from node.store import intake

    folder = files.ObjectFolder(house.parts.data, files.Disk("process"), lambda: None)
    for number in (1, 2):
        folder.end(AssociationEnd(f"1-{number}", "CT01", 0, False, NOON))
    with house.tx() as tx:
        intake.set_cursor(tx, folder.run, 1)
    assert sweep(house.database, house.parts.data).count == 1
    assert [p.name for p in (house.parts.data / "objects").rglob("*.end")] == ["00000002.end"]
    folder.close()


def test_attempts_that_were_given_up_go(either: House) -> None:
    """Earlier attempts and folders of unknown runs go; the last attempt and the one with products stay."""
    house = either
    receive(house, ct(house))
    folder = process(house, Exit(RunState.WAITING, "again"))
    house.clock.tick(days=1)
    second = process(house)
    (house.parts.data / "runs" / "77" / "1").mkdir(parents=True)
    assert (folder.name, second.name) == ("1", "2")
    assert sweep(house.database, house.parts.data).count == 2
    assert sorted(str(p.relative_to(house.parts.data)) for p in (house.parts.data / "runs").glob("*/*")) == [
        "runs/1/2"
    ]
    assert (second / "soft" / "0001.dcm").exists()


def test_an_attempt_begins_in_an_empty_folder(house: House) -> None:
    """Where a lost database gave the same numbers before, what lies there is not taken for the new run's result."""
    receive(house, ct(house))
    started = house.start()
    assert started is not None
    started.folder.mkdir(parents=True)
    (started.folder / "products.json").write_text("[]")
    write_job(started)
    assert [path.name for path in started.folder.iterdir()] == ["job.json"]


def test_a_rule_that_discards_is_kept_as_unrouted(tmp_path: Path) -> None:
    """A discarded series stays for `keep.unrouted`, and its removal is recorded."""
    house = House(tmp_path, rule("gone", "discard: true"))
    receive(house, ct(house))
    assert house.series()[0]["state"] == "discarded"
    house.clock.tick(days=6.9)
    assert clean(house).series == 0
    house.clock.tick(days=0.2)
    assert clean(house).series == 1
    assert house.rows(schema.instance)[0]["state"] == InstanceState.REMOVED
    house.database.close()
