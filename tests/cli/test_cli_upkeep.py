"""Claims about the verbs of upkeep: what they say, and how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.cli_material import Place
from flow_material import ROUTE, SITE, SMOOTH, Clock, House
from ops.upkeep_material import complete, ct, objects, process, receive
from sqlalchemy import update

from node.store import schema
from node.store.database import adopt_database


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A site with one series that is long over and one whose delivery waits; the clock stands in 2001."""
    folder = tmp_path / "site"
    (folder / "rules").mkdir(parents=True)
    (folder / "node.yaml").write_text(SITE)
    found = House(folder, ROUTE + SMOOTH, clock=Clock(datetime(2001, 3, 1, 12, tzinfo=UTC)))
    adopt_database(found.database, found.parts.data)
    complete(found)
    receive(found, ct(found, "two"))
    yield found
    found.database.close()


@pytest.fixture
def place(house: House) -> Place:
    """The command line for it."""
    return Place(house.data)


def test_a_dry_run_shows_and_changes_nothing(house: House, place: Place) -> None:
    """It counts what would go by its line of `keep` and what stays by its reason, in words and as JSON."""
    said = place.run("clean", "--dry-run")
    assert said.exit_code == 0
    assert "delivered" in said.stdout
    assert "a run waits or works" in said.stdout
    found = place.json("clean", "--dry-run")
    (gone,), (kept,) = found["removed"], found["kept"]
    assert (gone["reason"], gone["series"], gone["objects"], gone["results"]) == ("delivered", 1, 4, 1)
    assert (kept["reason"], kept["objects"], kept["until"]) == ("a run waits or works", 4, None)
    assert gone["oldest"] == "2001-03-01T12:00:00+00:00"
    assert len(objects(house)) == 8


def test_clean_removes_and_says_how_much(house: House, place: Place) -> None:
    """The same, done; a second time there is nothing left to do."""
    assert place.json("clean") == {
        "series": 1, "objects": 4, "results": 1, "bytes": pytest.approx(7000, abs=800), "leftovers": 0,
    }  # fmt: skip
    assert len(objects(house)) == 4
    assert place.run("clean").stdout == "0 series removed: 0 objects (0 bytes) and 0 results; 0 leftovers\n"


def test_a_dry_run_counts_the_leftovers_that_clean_then_removes(house: House, place: Place) -> None:
    """Of every kind, with those that come of what goes itself: copies for deliveries that end with their objects."""
    place.site.write_text(SITE + "keep: {undelivered: 14 d}\n")
    receive(house, ct(house, "three"))
    process(house)  # of "two"
    process(house)  # of "three", and nothing of both is delivered
    data = house.parts.data
    waiting = [row["id"] for row in house.rows(schema.delivery) if row["state"] == "waiting"]
    (data / "transcoded").mkdir()
    for number in waiting[:2]:  # they are waited for until their series goes
        name = f"transcoded/{number}-0.dcm"
        (data / name).write_bytes(b"copy")
        with house.tx() as tx:
            values = {"sent_syntax": "1.2.840.10008.1.2.1", "sent_path": name, "attempt": 0}
            tx.execute(update(schema.delivery).where(schema.delivery.c.id == number).values(**values))
    (data / "transcoded" / "999999-1.dcm").write_bytes(b"nobody's")
    run = data / "objects" / "00000001"
    (run / ".alive").touch()
    for number in (98, 99):
        (run / "0000" / f"{number:08d}.part").touch()
    (run / "0000" / "00000001.end").touch()
    for name in ("1/0", "77/1"):  # of a run whose folder goes with its series, and of one that nobody knows
        (data / "runs" / name).mkdir(parents=True)

    found = place.json("clean", "--dry-run")
    assert found["leftover_kinds"] == {"parts": 2, "copies": 3, "records": 1, "attempts": 1}
    assert "Would go as well: 7 leftovers (2 unfinished files" in place.run("clean", "--dry-run").stdout
    told = {
        key: sum(share[key] for share in found["removed"])
        for key in ("series", "objects", "results", "bytes")
    }
    assert told["series"] == 3
    assert place.json("clean") == {**told, "leftovers": 7}
    empty = {"parts": 0, "copies": 0, "records": 0, "attempts": 0}
    assert place.json("clean", "--dry-run") == {
        "removed": [], "kept": [], "leftovers": 0, "leftover_kinds": empty,
    }  # fmt: skip


def test_a_dry_run_leaves_what_only_lies_there(house: House, place: Place) -> None:
    """What is nobody's is counted again each time; and nothing is touched."""
    (house.parts.data / "runs" / "77" / "1").mkdir(parents=True)
    for _ in range(2):
        found = place.json("clean", "--dry-run")
        assert (found["leftovers"], found["leftover_kinds"]["attempts"]) == (1, 1)
    assert place.json("clean")["leftovers"] == 1


def test_verify_ends_with_1_when_something_is_wrong(house: House, place: Place) -> None:
    """Well it ends with 0; a lost file is named with what to do, and the exit code is 1."""
    whole = place.run("verify")
    assert (whole.exit_code, "no problems" in whole.stdout) == (0, True)
    (house.parts.data / objects(house)[5]).unlink()
    said = place.run("verify")
    assert said.exit_code == 1
    assert f"{objects(house)[0].rsplit('/', 3)[0]}/" in said.stdout
    assert "is gone; restore it from a backup" in said.stdout
    assert place.run("verify", "--since", "yesterday").exit_code == 2
    assert place.run("verify", "--since", "1 d").exit_code == 0


def test_there_and_back_again(house: House, place: Place, tmp_path: Path) -> None:
    """Backup, loss and restore by the verbs; over data in use the restore is refused with 3."""
    saved = place.run("backup", tmp_path / "backup")
    assert saved.exit_code == 0, saved.output
    assert "9 files" in saved.stdout
    over = place.run("restore", tmp_path / "backup")
    assert (over.exit_code, "not empty" in over.output) == (3, True)
    before = objects(house)
    house.database.close()
    shutil.rmtree(house.parts.data)
    back = place.run("restore", tmp_path / "backup", "--json")
    assert back.exit_code == 0, back.output
    assert json.loads(back.stdout)["files"] == 9
    assert objects(house) == before
    assert place.run("verify").exit_code == 0


def test_a_database_of_other_data_is_not_cleaned_with(house: House, place: Place) -> None:
    """With a fresh database over old files every result would look like a leftover: refused, nothing is touched."""
    (house.parts.data / "database.name").write_text("another")
    for verb in (["clean"], ["verify"], ["backup", str(house.data / "b")]):
        found = place.run(*verb)
        assert (found.exit_code, "not the one" in found.output) == (2, True)
    assert len(objects(house)) == 8
