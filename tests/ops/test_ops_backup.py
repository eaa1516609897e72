"""Claims about backup and restore: whole, incremental, safe when it breaks off, and a node goes on from it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_material import ROUTE, SMOOTH, House
from ops.upkeep_material import complete, ct, objects, receive
from sqlalchemy import select

from node.errors import Broken, Misconfigured, Refused
from node.ops import backup as backups
from node.ops.backup import backup
from node.ops.copying import Copied
from node.ops.removing import remove
from node.ops.restore import restore
from node.ops.verification import verify
from node.settings import Settings
from node.store import files, pseudonyms, schema
from node.store.database import adopt_database, open_database, rows


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node with one complete series and its result."""
    found = House(tmp_path / "node", ROUTE + SMOOTH)
    complete(found)
    adopt_database(found.database, found.parts.data)
    (found.parts.data / "rules.json").write_text("{}")
    yield found
    found.database.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    """Make the folder of the node."""
    (tmp_path / "node").mkdir(exist_ok=True)


def save(house: House, target: Path) -> Copied:
    """One backup."""
    return backup(house.parts.settings, house.database, target, house.clock.at)


def elsewhere(house: House, data: Path) -> Settings:
    """The same site with another data folder."""
    settings = house.parts.settings
    return replace(settings, node=replace(settings.node, data=data))


def bring_back(house: House, source: Path, data: Path) -> Settings:
    """Restore into *data*."""
    settings = elsewhere(house, data)
    restore(settings, source, house.clock.at)
    return settings


def tree(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def table(settings: Settings, name: str) -> list[Any]:
    """All rows of a restored database."""
    database = open_database(settings.state, settings.node.data, create=False)
    with closing(database), database.read() as tx:
        return rows(tx, select(schema.metadata.tables[name]))


def test_what_was_saved_comes_back(house: House, tmp_path: Path) -> None:
    """Every received object, result and row is in the restored folder, byte for byte, and it verifies clean."""
    save(house, tmp_path / "backup")
    settings = bring_back(house, tmp_path / "backup", tmp_path / "again")
    for name in (*objects(house), "runs/1/1/soft/0001.dcm", "rules.json", "database.name"):
        assert (tmp_path / "again" / name).read_bytes() == (house.parts.data / name).read_bytes(), name
    for name in ("series", "instance", "run", "product", "delivery", "identity", "cursor"):
        assert table(settings, name) == house.rows(schema.metadata.tables[name]), name
    assert [e["name"] for e in table(settings, "event")][-1] == "restored"
    database = open_database("sqlite", tmp_path / "again", create=False)
    assert verify(database, settings).problems == []
    database.close()


def test_the_key_of_pseudonyms_comes_back_for_the_node_alone(house: House, tmp_path: Path) -> None:
    """Without it every patient would become another one: it is in the backup and in the restored folder, mode 0600."""
    with house.database.read() as tx:
        key = pseudonyms.key_of(tx, house.parts.data)
    save(house, tmp_path / "backup")
    bring_back(house, tmp_path / "backup", tmp_path / "again")
    for folder in ("backup", "again"):
        copy = tmp_path / folder / key.name
        assert copy.read_text() == key.read_text() and copy.stat().st_mode & 0o777 == 0o600


def test_nothing_but_what_counts_is_saved(house: House, tmp_path: Path) -> None:
    """Parts, locks, and what runs leave beside their products stay out; the site file and the rules are in."""
    data = house.parts.data
    (data / "objects" / "00000001" / "0000" / "00000009.part").write_bytes(b"half")
    (data / "runs" / "1" / "1" / "worker.log").write_text("x")
    (house.parts.settings.node.rules).mkdir(exist_ok=True)
    (house.parts.settings.node.rules / "r.yaml").write_text("rule: x")
    save(house, tmp_path / "backup")
    expected = {*objects(house), "runs/1/1/soft/0001.dcm", "pacsnode.db", "rules.json", "database.name",
                "backup.json", ".lock", "site/node.yaml", "site/rules/r.yaml"}  # fmt: skip
    assert tree(tmp_path / "backup") == expected
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_the_second_backup_copies_what_is_new(house: House, tmp_path: Path) -> None:
    """Files never change: only those that came since are copied, and the database is the newer one."""
    first = save(house, tmp_path / "backup")
    assert (first.files, first.there) == (5, 0)
    receive(house, ct(house, "two"))
    second = save(house, tmp_path / "backup")
    assert (second.files, second.there, second.missing) == (4, 5, [])
    with closing(sqlite3.connect(tmp_path / "backup" / "pacsnode.db")) as connection:
        assert connection.execute("SELECT count(*) FROM series").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_on_another_disk_files_are_copied(house: House, tmp_path: Path) -> None:
    """On the node's own disk files are linked, and that is told; on another one copied, byte for byte."""
    places = [place for place in (Path("/dev/shm"), Path(tempfile.gettempdir())) if place.is_dir()]
    other = next((place for place in places if place.stat().st_dev != tmp_path.stat().st_dev), None)
    if other is None:
        pytest.skip("there is no second file system to write to")
    here = save(house, tmp_path / "backup")
    assert here.linked
    name = objects(house)[0]
    assert (tmp_path / "backup" / name).stat().st_ino == (house.parts.data / name).stat().st_ino
    target = other / f"pacsnode-test-{os.getpid()}"
    try:
        assert not save(house, target).linked
        assert (target / name).read_bytes() == (house.parts.data / name).read_bytes()
    finally:
        shutil.rmtree(target)


def test_what_retention_removed_leaves_the_backup(house: House, tmp_path: Path) -> None:
    """A backup does not keep for ever what the node may not: the next one drops what was removed."""
    save(house, tmp_path / "backup")
    complete(house, "two")
    house.clock.tick(days=4)
    remove(house.database, house.parts.settings, house.clock.at)
    copied = save(house, tmp_path / "backup")
    assert (copied.dropped, copied.missing) == (5, [])
    assert not list((tmp_path / "backup").rglob("*.dcm"))


def test_what_is_removed_during_a_backup_is_removed_in_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention between the copy of the database and the end costs nothing: the copy says removed as well."""
    house.clock.tick(days=4)
    whole = backups._copy_files

    def after_retention(taken: Any, copier: Any) -> None:
        remove(house.database, house.parts.settings, house.clock.at)
        whole(taken, copier)

    monkeypatch.setattr(backups, "_copy_files", after_retention)
    copied = save(house, tmp_path / "backup")
    assert (copied.removed_meanwhile, copied.missing, copied.files) == (1, [], 0)
    settings = bring_back(house, tmp_path / "backup", tmp_path / "again")
    assert {row["state"] for row in table(settings, "instance")} == {"removed"}
    database = open_database("sqlite", tmp_path / "again", create=False)
    assert verify(database, settings).problems == []
    database.close()


def test_what_comes_during_a_backup_is_caught_up(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that came after the database was copied is newer than its cursor: the restored node takes it in."""
    whole = backups._copy_files

    def after_reception(taken: Any, copier: Any) -> None:
        receive(house, ct(house, "two"))
        whole(taken, copier)

    monkeypatch.setattr(backups, "_copy_files", after_reception)
    assert save(house, tmp_path / "backup").missing == []
    settings = bring_back(house, tmp_path / "backup", tmp_path / "again")
    assert len(table(settings, "instance")) == 4
    waiting = [r for n in files.receiver_runs(tmp_path / "again")
               for r in files.records_after(tmp_path / "again", n, 4 if n == 1 else 0, catch_up=True)]  # fmt: skip
    assert len(waiting) == 4


def test_a_backup_that_breaks_off_leaves_the_one_before(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the disk of the backup full in the middle, what was saved yesterday can still be restored."""
    save(house, tmp_path / "backup")
    complete(house, "two")

    def full(self: Any, name: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("node.ops.copying.Copier.copy", full)
        with pytest.raises(Broken, match=r"No space left.*run it again"):
            save(house, tmp_path / "backup")
    settings = bring_back(house, tmp_path / "backup", tmp_path / "again")
    assert len(table(settings, "series")) == 1
    assert save(house, tmp_path / "backup").missing == []
    assert not (tmp_path / "backup" / "new").exists()


def test_a_missing_file_is_named(house: House, tmp_path: Path) -> None:
    """A file that a row promises and that is gone is told, not passed over."""
    name = objects(house)[2]
    (house.parts.data / name).unlink()
    assert save(house, tmp_path / "backup").missing == [name]


def test_two_backups_at_once_are_one_too_many(house: House, tmp_path: Path) -> None:
    """The second one into the same folder is refused; the first is not disturbed."""
    with backups._alone(tmp_path / "backup"), pytest.raises(Broken, match="another backup is at work"):
        save(house, tmp_path / "backup")
    assert save(house, tmp_path / "backup").missing == []


def test_a_backup_inside_the_data_folder_is_refused(house: House) -> None:
    """It would be lost with what it protects."""
    with pytest.raises(Misconfigured, match=r"lies in node\.data"):
        save(house, house.parts.data / "backup")


def test_a_folder_with_something_in_it_is_not_restored_over(house: House, tmp_path: Path) -> None:
    """A data folder in use is refused and stays as it is."""
    save(house, tmp_path / "backup")
    (tmp_path / "again" / "objects").mkdir(parents=True)
    with pytest.raises(Refused, match="not empty"):
        bring_back(house, tmp_path / "backup", tmp_path / "again")
    assert [p.name for p in (tmp_path / "again").iterdir()] == ["objects"]


def test_lost_found_of_a_new_disk_is_nothing(house: House, tmp_path: Path) -> None:
    """A freshly made ext4 has a folder of its own in its root."""
    save(house, tmp_path / "backup")
    (tmp_path / "again" / "lost+found").mkdir(parents=True)
    assert bring_back(house, tmp_path / "backup", tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "no whole backup"),
        ({"database": "postgresql"}, "state: postgresql"),
        ({"schema": 99, "software": "PACSNode 9"}, "made by PACSNode 9"),
    ],
)
def test_what_is_no_backup_for_this_site_is_refused(
    house: House, tmp_path: Path, change: dict[str, Any] | None, words: str
) -> None:
    """A folder that is no whole backup, one of another kind or a later version is refused at once."""
    save(house, tmp_path / "backup")
    label = tmp_path / "backup" / "backup.json"
    if change is None:
        label.unlink()
    else:
        label.write_text(json.dumps({**json.loads(label.read_text()), **change}))
    with pytest.raises(Misconfigured, match=words):
        bring_back(house, tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_restore_that_breaks_off_is_no_nodes_data(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before its end it has no database, and a second attempt over it is refused."""
    save(house, tmp_path / "backup")
    with monkeypatch.context() as broken:
        broken.setattr("node.ops.restore.copy_sqlite", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(Broken, match="empty it and restore again"):
            bring_back(house, tmp_path / "backup", tmp_path / "again")
    with pytest.raises(Misconfigured, match="is gone"):
        open_database("sqlite", tmp_path / "again", create=False)


def test_receiver_runs_are_not_numbered_again(house: House, tmp_path: Path) -> None:
    """After a restore the next receiver gets a new number, though all files of the last one were removed before."""
    house.clock.tick(days=4)
    remove(house.database, house.parts.settings, house.clock.at)
    save(house, tmp_path / "backup")
    bring_back(house, tmp_path / "backup", tmp_path / "again")
    keeper = files.ObjectFolder(tmp_path / "again", files.Disk("process"), lambda: None)
    assert keeper.run == 2
    keeper.close()


def test_with_postgresql_the_files_are_saved(tmp_path: Path, postgres: str) -> None:
    """The files and the label are there, and the database is left to pg_dump; another one is refused at restore."""
    house = House(tmp_path / "node", ROUTE + SMOOTH, state=postgres)
    settings = replace(house.parts.settings, state=postgres)
    complete(house)
    adopt_database(house.database, house.parts.data)
    copied = backup(settings, house.database, tmp_path / "backup", house.clock.at)
    assert (copied.files, copied.missing, copied.database) == (5, [], "postgresql")
    assert not (tmp_path / "backup" / "pacsnode.db").exists()
    there = replace(settings, node=replace(settings.node, data=tmp_path / "again"))
    restore(there, tmp_path / "backup", house.clock.at)
    assert verify(house.database, there).problems == []
    (tmp_path / "backup" / "database.name").write_text("another")
    with pytest.raises(Misconfigured, match="pg_restore"):
        restore(
            replace(there, node=replace(there.node, data=tmp_path / "third")),
            tmp_path / "backup",
            house.clock.at,
        )
    house.database.close()
