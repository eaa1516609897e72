"""Claims about a lost or older database: the files give the rows back, and nothing is sent or processed by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from flow_material import ROUTE, SMOOTH, House
from read.test_read_rejection import note, read
from sqlalchemy import update

from node import app, holding
from node.errors import Misconfigured
from node.model import SeriesState
from node.reindex import reindex
from node.store import intake
from node.store.schema import delivery, instance, run, series
from node.testing import Grid, Series, body_volume, write_ct_series

SMALL = body_volume(Grid(shape=(4, 8, 8), spacing=(5, 20, 20)))


def ct(folder: Path, name: str) -> list[Path]:
    """Four small CT slices."""
    return write_ct_series(folder / name, SMALL, series=Series(name))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node that routes and processes, with two series received and done."""
    found = House(tmp_path, ROUTE + SMOOTH)
    for name in ("one", "two"):
        found.receive(ct(tmp_path, name))
    for series_id in list(found.parts.assembly.series):
        found.seal(series_id)
    found.route()
    yield found
    found.database.close()


def without_database(house: House) -> House:
    """The same node after its database was lost."""
    app.belongs(house.database, house.parts.data)
    house.database.close()
    for path in house.parts.data.glob("pacsnode.db*"):
        path.unlink()
    return House(house.data, house.rules)


def test_files_without_rows_become_held_series(house: House) -> None:
    """Every object and series is found again, all held as restored, with the facts they had."""
    before = [(row["study_uid"], row["series_uid"], row["instances"]) for row in house.series()]
    lost = without_database(house)
    told: list[int] = []
    assert reindex(lost.parts, told.append) == (8, 2)
    assert told == [8]
    rows = lost.series()
    assert [(row["study_uid"], row["series_uid"], row["instances"]) for row in rows] == before
    assert {(row["state"], row["held"], row["reason"]) for row in rows} == {
        ("sealed", "restored", "found by reindex")
    }  # fmt: skip
    with lost.database.read() as tx:
        members, facts = intake.members_and_facts(tx, 1)
        assert (len(members), facts.seen("Modality")[0].value) == (4, ("CT",))
        assert intake.cursor_of(tx, 1) == 4
    lost.database.close()


def test_nothing_is_routed_or_processed(house: House) -> None:
    """What was done is not known, so nothing is done again: no delivery, no run, also when routing is asked for."""
    lost = without_database(house)
    reindex(lost.parts, lambda _: None)
    lost.route()
    assert lost.rows(delivery) == []
    assert lost.rows(run) == []
    assert {row["state"] for row in lost.series()} == {"sealed"}
    lost.database.close()


def test_rejections_come_back_from_the_notes(house: House, tmp_path: Path) -> None:
    """What a rejection note named is rejected after a lost database, too: the note is one of the files."""
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in ct(tmp_path, "one")]
    dataset = note(uids)
    read(tmp_path, dataset)  # leaves note.dcm there
    house.receive([tmp_path / "note.dcm"])
    before = [row["state"] for row in house.rows(instance)]
    assert before == ["rejected"] * 4 + ["kept"] * 5
    lost = without_database(house)
    assert reindex(lost.parts, lambda _: None) == (9, 2)
    assert [row["state"] for row in lost.rows(instance)] == before
    assert [row["state"] for row in lost.series()] == ["rejected", "sealed", "sealed"]
    assert lost.rows(delivery) == [] and lost.rows(run) == []
    lost.database.close()


def test_a_second_reindex_finds_nothing(house: House) -> None:
    """Asked again, it adds nothing and tells so."""
    lost = without_database(house)
    reindex(lost.parts, lambda _: None)
    again = House(house.data, house.rules)
    assert reindex(again.parts, lambda _: None) == (0, 0)
    assert len(again.rows(instance)) == 8
    for one in (lost, again):
        one.database.close()


def test_rows_that_are_there_are_not_touched(house: House) -> None:
    """A complete database stays as it is: states, deliveries and runs."""
    before = (house.series(), house.rows(delivery), house.rows(run))
    assert reindex(house.parts, lambda _: None) == (0, 0)
    assert (house.series(), house.rows(delivery), house.rows(run)) == before


def test_a_lost_database_is_noticed_at_start(house: House) -> None:
    """A fresh database over old files refuses the start and says what to do; after a reindex it starts."""
    lost = without_database(house)
    lost.database.close()
    with pytest.raises(Misconfigured, match=r"restore the backup.*pacsnode reindex"):
        app.build(lost.parts.settings)
    assert app.reindexed(lost.parts.settings, lambda _: None) == (8, 2)
    app.build(lost.parts.settings).database.close()


def test_a_running_node_is_not_reindexed(house: House) -> None:
    """Two that write the same tables would undo each other: the second is told to stop the first."""
    lock = holding.hold(house.parts.data)
    with pytest.raises(Misconfigured, match="stop it first"):
        app.reindexed(house.parts.settings, lambda _: None)
    import os

    os.close(lock)


def test_a_damaged_file_is_one_unreadable_object(house: House) -> None:
    """An empty file among the received ones does not stop the others from being found."""
    path = house.parts.data / "objects" / "00000001" / "0000" / "00000002.dcm"
    path.write_bytes(b"")
    lost = without_database(house)
    assert reindex(lost.parts, lambda _: None) == (8, 2)
    states = [row["state"] for row in lost.rows(instance)]
    assert states.count("unreadable") == 1
    assert [row["instances"] for row in lost.series()] == [3, 4]
    lost.database.close()


def test_a_series_that_was_still_open_goes_on_where_nothing_is_added(house: House) -> None:
    """A stopped node's open series is the node's: a reindex that finds nothing for it leaves it receiving."""
    house.receive(ct(house.data, "three"))
    stopped = House(house.data, house.rules)
    assert reindex(stopped.parts, lambda _: None) == (0, 0)
    assert (stopped.series()[2]["state"], stopped.series()[2]["held"]) == ("receiving", "")
    stopped.database.close()


def test_an_open_series_that_gets_objects_is_whole_and_held(house: House) -> None:
    """Objects that were never indexed join the open series' own, and the whole waits for a person."""
    files = ct(house.data, "three")
    house.receive(files[:2])
    house.receive(files[2:], index=False)
    stopped = House(house.data, house.rules)
    assert reindex(stopped.parts, lambda _: None) == (2, 1)
    row = stopped.series()[2]
    assert (row["state"], row["held"], row["instances"]) == ("sealed", "restored", 4)
    stopped.database.close()


def test_a_reindex_that_was_broken_off_can_be_taken_up(house: House) -> None:
    """Series it had opened are sealed and held by the next one, with all their objects."""
    house.receive(ct(house.data, "three"))
    with house.tx() as tx:  # as an interrupted reindex leaves it
        tx.execute(update(series).where(series.c.id == 3).values(held="restored"))
        assert [row["id"] for row in intake.in_state(tx, SeriesState.RECEIVING, held_too=True)] == [3]
    again = House(house.data, house.rules)
    assert reindex(again.parts, lambda _: None) == (0, 1)
    row = again.series()[2]
    assert (row["state"], row["held"], row["instances"]) == ("sealed", "restored", 4)
    again.database.close()


def test_duplicates_that_were_never_indexed_are_not_delivered_again(house: House) -> None:
    """A copy the database does not know is no request by a sender to have it sent once more."""
    with house.tx() as tx:
        tx.execute(update(delivery).values(state="stored", finished_at=house.clock.at))
    house.clock.tick(days=1)
    house.receive(ct(house.data, "one"), index=False)
    reindex(house.parts, lambda _: None)
    assert {row["state"] for row in house.rows(delivery)} == {"stored"}
