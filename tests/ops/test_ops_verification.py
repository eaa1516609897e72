"""Claims about `verify`: what is whole passes, and every kind of damage is named with its file and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flow_material import ROUTE, SMOOTH, House
from ops.upkeep_material import complete, ct, objects
from sqlalchemy import delete, update

from node.ops.removing import remove
from node.ops.verification import Problem, Verified, verify
from node.store import schema


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node with one complete series and its result."""
    found = House(tmp_path, ROUTE + SMOOTH)
    complete(found)
    yield found
    found.database.close()


def check(house: House, **since: float) -> Verified:
    """Verify, all or what is so young."""
    after = house.clock.at - timedelta(**since) if since else None
    return verify(house.database, house.parts.settings, after)


def first(house: House) -> Path:
    """One received file."""
    return house.parts.data / objects(house)[0]


def test_what_is_whole_passes(house: House) -> None:
    """Every file is read once, the rows are counted, and nothing is wrong."""
    found = check(house)
    assert (found.objects, found.products, found.problems) == (4, 1, [])
    assert found.bytes == sum((house.parts.data / name).stat().st_size for name in objects(house)) + 4
    assert (found.rows["instance"], found.rows["series"], found.rows["product"]) == (4, 1, 1)


def test_one_changed_bit_is_found(house: House) -> None:
    """A single bit that fell over in the pixels of a received object is named with its file."""
    path = first(house)
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    (problem,) = check(house).problems
    assert problem == Problem(
        "the bytes of a received object are not those that came", objects(house)[0],
        "restore it from a backup, or have the source send it again",
    )  # fmt: skip


def test_a_changed_arrival_is_no_damage_of_the_object(house: House) -> None:
    """The digest covers transfer syntax and dataset: the preamble, which the standard leaves open, does not count."""
    path = first(house)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    assert check(house).problems == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b""), r"cannot be read \(Broken\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "are not those that came"),
    ],
    ids=["gone", "empty", "cut"],
)
def test_a_damaged_object_is_named(house: House, harm: object, words: str) -> None:
    """A file that is gone, empty or cut is one problem, and the others are still checked."""
    name = objects(house)[1]
    harm(house.parts.data / name)  # type: ignore[operator]
    found = check(house)
    (problem,) = found.problems
    assert problem.where == name
    import re

    assert re.search(words, problem.what)
    assert found.objects == 4


def test_a_damaged_result_is_named(house: House) -> None:
    """A result that is gone or changed is named, and what makes it whole again."""
    path = house.parts.data / "runs" / "1" / "1" / "soft" / "0001.dcm"
    path.write_bytes(b"Made")
    (problem,) = check(house).problems
    assert problem.what == "the bytes of a result are not those that were made"
    path.unlink()
    (problem,) = check(house).problems
    assert (problem.what, problem.where) == ("a result is gone", "runs/1/1/soft/0001.dcm")


def test_a_file_without_a_row_is_named(house: House) -> None:
    """A received file that the database lost is a problem with `reindex` as its cure; one that waits is none."""
    with house.tx() as tx:
        tx.execute(delete(schema.delivery))
        tx.execute(delete(schema.instance).where(schema.instance.c.id == 2))
    house.receive(ct(house, "two")[:1], index=False)
    found = check(house)
    assert [(p.what, p.where) for p in found.problems] == [
        ("a received object has no row", "objects/00000001/0000/00000002.dcm")
    ]
    assert "pacsnode reindex" in found.problems[0].do
    assert found.waiting == 1


def test_what_retention_removed_is_no_problem(house: House) -> None:
    """Removed objects and results are not missed, and a file that outlived its removal is only counted."""
    data = first(house).read_bytes()
    name = objects(house)[0]
    house.clock.tick(days=4)
    remove(house.database, house.parts.settings, house.clock.at)
    found = check(house)
    assert (found.objects, found.products, found.problems, found.left_over) == (0, 0, [], 0)
    (house.parts.data / name).write_bytes(data)
    assert (check(house).problems, check(house).left_over) == ([], 1)


def test_since_looks_at_what_is_young(house: House) -> None:
    """With a time only what came or was made since is read."""
    house.clock.tick(days=3)
    complete(house, "two")
    found = check(house, days=1)
    assert (found.objects, found.products) == (4, 1)
    first(house).unlink()
    assert check(house, days=1).problems == []
    assert len(check(house, days=30).problems) == 1


def test_a_row_that_refers_to_nothing_is_named(house: House) -> None:
    """A broken reference, as a disk that lies leaves it, is found in the database."""
    with house.database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("ROLLBACK") if raw.in_transaction else None
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("UPDATE instance SET series_id = 99 WHERE id = 1")
        raw.execute("PRAGMA foreign_keys=ON")
    assert [p.what for p in check(house).problems] == ["a row of table instance refers to nothing"]


def test_an_object_without_digest_must_only_be_there(house: House) -> None:
    """What could not be read when it came has no digest: its file counts, not its bytes."""
    with house.tx() as tx:
        tx.execute(
            update(schema.instance).where(schema.instance.c.id == 1).values(digest="", state="unreadable")
        )
    assert check(house).problems == []
    first(house).unlink()
    assert len(check(house).problems) == 1


def test_progress_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work says how far it is."""
    monkeypatch.setattr("node.ops.verification._TELL", 2)
    told: list[int] = []
    verify(house.database, house.parts.settings, None, told.append)
    assert told == [2, 4]
