"""Claims about the database itself, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from store_cases import STATES, opened

from node.errors import Misconfigured
from node.store import database as databases
from node.store import schema
from node.store.database import (
    Database,
    add,
    adopt_database,
    belongs,
    file_system_of,
    move,
    note,
    open_database,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> str:
    """`sqlite`, then the URL of an empty PostgreSQL database."""
    return opened(request)


@pytest.fixture
def database(state: str, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the node."""
    found = open_database(state, tmp_path)
    yield found
    found.close()


def test_opening_again_keeps_what_is_there(state: str, tmp_path: Path, database: Database) -> None:
    """A second opening finds the rows of the first and does not create anything anew."""
    with database.write() as tx:
        note(tx, NOON, "kept")
    again = open_database(state, tmp_path)
    with again.read() as tx:
        assert tx.scalar(select(schema.event.c.name)) == "kept"
        assert tx.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "version")) == str(
            schema.VERSION
        )
    again.close()


def test_a_database_of_a_later_version_is_refused(state: str, tmp_path: Path, database: Database) -> None:
    """An older program says which version it met and what to do, and touches nothing."""
    with database.write() as tx:
        tx.execute(update(schema.meta).where(schema.meta.c.key == "version").values(value="99"))
    with pytest.raises(Misconfigured, match=r"version 99.*restore a backup"):
        open_database(state, tmp_path)


def test_moments_come_back_aware_and_in_utc(database: Database) -> None:
    """A time given in any offset is the same moment when it is read."""
    at = datetime(2026, 3, 1, 13, 30, 15, 250, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with database.write() as tx:
        note(tx, at, "now")
    with database.read() as tx:
        found = tx.scalar(select(schema.event.c.at))
    assert found == at
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_a_move_needs_the_expected_state_and_attempt(database: Database) -> None:
    """A guarded update changes the row it expects and no other, and says which it was."""
    with database.write() as tx:
        key = add(
            tx, schema.delivery, destination="PACS", state="waiting", rule="r", attempt=3,
            due_at=NOON, created_at=NOON,
        )  # fmt: skip
        assert not move(tx, schema.delivery, key, "stored", expected=("sending",))
        assert not move(tx, schema.delivery, key, "sending", expected=("waiting",), attempt=2)
        assert not move(tx, schema.delivery, key + 1, "sending", expected=("waiting",))
        assert move(tx, schema.delivery, key, "sending", expected=("held", "waiting"), attempt=3, reason="x")
        assert not move(tx, schema.delivery, key, "sending", expected=("waiting",), attempt=3)
        assert tx.execute(select(schema.delivery.c.state, schema.delivery.c.reason)).one() == ("sending", "x")


def test_what_fails_inside_a_transaction_leaves_nothing(database: Database) -> None:
    """A transaction that raises is rolled back whole."""
    with pytest.raises(ZeroDivisionError), database.write() as tx:
        note(tx, NOON, "gone")
        raise ZeroDivisionError
    with database.read() as tx:
        assert tx.scalar(select(schema.event.c.id)) is None


def test_two_kept_instances_never_share_a_sop_instance_uid(database: Database) -> None:
    """The unique index holds for kept objects only: duplicates and conflicts may carry the same UID."""
    values = {
        "receiver_run": 1, "reason": "", "sop_uid": "1.2.3", "sop_class": "c", "transfer_syntax": "t",
        "digest": "d", "pixel_digest": "p", "size": 1, "peer": "CT01", "association": "1", "received_at": NOON,
    }  # fmt: skip
    with database.write() as tx:
        tx.execute(insert(schema.instance).values(sequence=1, state="kept", **values))
        tx.execute(insert(schema.instance).values(sequence=2, state="duplicate", **values))
        tx.execute(insert(schema.instance).values(sequence=3, state="conflict", **values))
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.execute(insert(schema.instance).values(sequence=4, state="kept", **values))


def test_the_database_of_other_data_is_noticed(state: str, tmp_path: Path, database: Database) -> None:
    """A data folder remembers its database: a fresh one over old files does not belong until it is adopted."""
    assert belongs(database, tmp_path)  # the first database takes the folder
    assert belongs(database, tmp_path)
    (tmp_path / "database.name").write_text("another")
    assert not belongs(database, tmp_path)
    adopt_database(database, tmp_path)
    assert belongs(database, tmp_path)


WRITER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy import func, select
from node.store import schema
from node.store.database import note, open_database
database = open_database("sqlite", Path(sys.argv[1]), create=False)
for i in range(60):
    with database.write() as tx:
        tx.scalar(select(func.count()).select_from(schema.event))
        time.sleep(0.001)
        note(tx, datetime.now(UTC), sys.argv[2])
"""


def test_two_writers_take_turns_on_sqlite(tmp_path: Path) -> None:
    """Two processes that read and then write in each transaction wait for each other and never get BUSY."""
    open_database("sqlite", tmp_path).close()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for writer in writers:
        _, error = writer.communicate(timeout=60)
        assert writer.returncode == 0, error.decode()
    database = open_database("sqlite", tmp_path, create=False)
    with database.read() as tx:
        names = list(tx.scalars(select(schema.event.c.name)))
    database.close()
    assert sorted(names) == ["one"] * 60 + ["two"] * 60


def test_a_reader_sees_one_moment_and_stops_nobody(tmp_path: Path) -> None:
    """While a reader's view is open a writer commits, and the view stays what it was."""
    database = open_database("sqlite", tmp_path)
    with database.write() as tx:
        note(tx, NOON, "before")
    with database.read() as view:
        assert len(list(view.scalars(select(schema.event.c.id)))) == 1
        with database.write() as tx:
            note(tx, NOON, "after")
        assert len(list(view.scalars(select(schema.event.c.id)))) == 1
    with database.read() as view:
        assert len(list(view.scalars(select(schema.event.c.id)))) == 2
    database.close()


def test_sqlite_is_durable_and_keeps_its_references(tmp_path: Path) -> None:
    """Each connection has WAL, synchronous=FULL (2) and foreign keys, as the promises need them."""
    database = open_database("sqlite", tmp_path)
    with database.read() as tx:
        asked = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}


def test_asking_a_node_that_never_ran_says_so(tmp_path: Path) -> None:
    """Without `create` a missing database is a sentence about starting the node, and no file appears."""
    with pytest.raises(Misconfigured, match="pacsnode run"):
        open_database("sqlite", tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    """The sentence for a wrong database URL holds host and database, never the password."""
    with pytest.raises(Misconfigured, match=r"127\.0\.0\.1:1/pacs") as caught:
        open_database("postgresql://me:s3cret@127.0.0.1:1/pacs", tmp_path)
    assert "s3cret" not in str(caught.value)


def test_the_file_system_below_a_folder_is_told(tmp_path: Path) -> None:
    """The type is that of the nearest mount above the folder, whether it exists or not."""
    assert file_system_of(Path("/proc/self")) == "proc"
    here = file_system_of(tmp_path)
    assert here
    assert file_system_of(tmp_path / "not" / "there" / "yet") == here


def test_network_file_systems_are_the_ones_whose_locks_do_not_hold() -> None:
    """NFS, SMB and the like are refused; local ones are not."""
    refused = databases._NETWORK_FILE_SYSTEMS
    assert {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"} <= refused
    assert not refused & {"ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay"}


def test_the_log_is_emptied_when_asked(tmp_path: Path) -> None:
    """What was committed is in the database file itself afterwards, without anybody closing it."""
    here = open_database("sqlite", tmp_path)
    with here.write(durable=False) as tx:
        note(tx, datetime(2026, 3, 1, tzinfo=UTC), "tried", "x" * 20_000)
    assert b"x" * 4000 not in (tmp_path / "pacsnode.db").read_bytes()
    here.empty_log()
    assert b"x" * 4000 in (tmp_path / "pacsnode.db").read_bytes()
    here.close()
