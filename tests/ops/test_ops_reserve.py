"""Claims about the room that is kept for the tables on a disk that fills."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from node.ops.reserve import MOST, is_out_of_room, reserve_path, tend


@pytest.mark.parametrize(
    ("total", "free", "before", "after"),
    [
        (500 << 30, 50 << 30, False, True),  # plenty: taken
        (500 << 30, 50 << 30, True, True),  # kept
        (500 << 30, 100 << 20, False, False),  # nearly full: not taken from those who need it
        (500 << 30, 100 << 20, True, True),  # but not given up before it is needed either
        (500 << 30, 1 << 20, True, False),  # full: given up
        (500 << 30, 1 << 20, False, False),
    ],
)
def test_the_room_is_given_up_only_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, before: bool, after: bool
) -> None:
    """It is taken where there is plenty, kept as long as there is any, and given up when there is next to none."""
    path = reserve_path(tmp_path)
    if before:
        path.parent.mkdir()
        path.touch()
    usage = shutil._ntuple_diskusage(total, total - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    tend(tmp_path)
    assert path.exists() is after
    if after and not before:
        assert path.stat().st_size == MOST
        assert path.stat().st_blocks * 512 >= MOST  # really taken, no hole
        path.unlink()


def test_a_small_disk_gives_a_fiftieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room is no burden where there is little of it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(50 << 20, 0, 50 << 20))
    tend(tmp_path)
    assert reserve_path(tmp_path).stat().st_size == 1 << 20


def test_a_folder_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    """Whoever tends it has better to do than to fail over it."""
    tend(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_database_without_room_is_told_from_one_that_is_broken(tmp_path: Path) -> None:
    """Out of room is a database that may not grow, and a file on a full disk; a missing table is not."""
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as tx:
        tx.execute(text("CREATE TABLE t (x BLOB)"))
        tx.execute(text("PRAGMA max_page_count = 4"))
        with pytest.raises(SQLAlchemyError) as full:
            tx.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
        with pytest.raises(SQLAlchemyError) as broken:
            tx.execute(text("SELECT 1 FROM nothing"))
    assert isinstance(full.value.orig, sqlite3.OperationalError)
    assert is_out_of_room(full.value)
    assert not is_out_of_room(broken.value)
    assert is_out_of_room(OSError(errno.ENOSPC, "no room"))
    assert not is_out_of_room(OSError(errno.EIO, "broken"))
