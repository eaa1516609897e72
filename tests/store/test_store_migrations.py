"""Claims about upgrading an older database: every row survives, and it ends as a new one begins."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, insert, inspect, select

from node.errors import Broken, Misconfigured
from node.store import migrations, schema
from node.store.database import Database, note, open_database, rows
from node.supervisor import lock_data

TABLES = {kind: Path(__file__).with_name(f"version_1_{kind}.sql") for kind in ("sqlite", "postgresql")}
"""The tables as the program of version 1 made them, frozen."""
AT = "2026-02-03 04:05:06.000007"
ROWS = {
    "meta": ({"key": "name", "value": "abc"}, {"key": "version", "value": "1"}),
    "cursor": ({"receiver_run": 1, "sequence": 7},),
    "series": (
        {"id": 5, "study_uid": "1.2", "series_uid": "1.2.3", "revision": 1, "state": "routed", "reason": "quiet",
         "incomplete": "", "held": "", "ours": False, "patient_id": "P", "issuer": "", "accession": "A",
         "modality": "CT", "series_number": 4, "instances": 2, "opened_at": AT, "last_at": AT, "sealed_at": AT,
         "facts": b"blob\x00"},
        {"id": 6, "study_uid": "1.2", "series_uid": "1.2.3", "revision": 2, "state": "receiving", "reason": "",
         "incomplete": "", "held": "restored", "ours": True, "patient_id": "P", "issuer": "", "accession": "",
         "modality": "", "series_number": None, "instances": 0, "opened_at": AT, "last_at": AT, "sealed_at": None,
         "facts": None},
    ),
    "instance": (
        {"id": 9, "receiver_run": 1, "sequence": 7, "state": "kept", "reason": "", "series_id": 5,
         "sop_uid": "1.2.3.4", "sop_class": "c", "transfer_syntax": "t", "digest": "d", "pixel_digest": "p",
         "size": 12, "peer": "CT01", "association": "1-1", "received_at": AT},
    ),
    "run": (
        {"id": 11, "series_id": 5, "rule": "thick", "state": "done", "reason": "", "attempt": 1, "retries": 3,
         "failures": 0, "plan": "{}", "sends": "{}", "shadow": True, "files": "[9]", "identity": "i", "due_at": AT,
         "created_at": AT, "started_at": AT, "finished_at": None},
    ),
    "product": (
        {"id": 12, "run_id": 11, "output": "soft", "index": 1, "kind": "image", "path": "runs/11/1/x.dcm",
         "sop_uid": "2.25.1", "sop_class": "c", "transfer_syntax": "t", "series_uid": "2.25.2", "digest": "e"},
    ),
    "identity": (
        {"key": "k", "generation": 0, "first_run_at": AT, "revision": 1, "series_numbers": "{}", "digests": "{}"},
    ),
    "delivery": (
        {"id": 13, "destination": "PACS", "state": "stored", "reason": "", "instance_id": 9, "product_id": None,
         "rule": "route", "stage": 0, "attempt": 1, "failures": 0, "status": 0, "due_at": AT, "created_at": AT,
         "finished_at": AT},
        {"id": 14, "destination": "PACS", "state": "waiting", "reason": "", "instance_id": None, "product_id": 12,
         "rule": "thick", "stage": 2, "attempt": 0, "failures": 0, "status": None, "due_at": AT, "created_at": AT,
         "finished_at": None},
    ),
    "destination": (
        {"name": "PACS", "down": True, "reason": "no answer", "since": AT, "failures": 2, "next_at": None},
    ),
    "measurement": (
        {"id": 15, "run_id": 11, "output": "m", "name": "mean", "derivation": "", "region": "", "value": 1.5,
         "unit": "HU"},
    ),
    "event": (
        {"id": 16, "at": AT, "name": "series_routed", "series_id": 5, "run_id": None, "instance_id": None,
         "destination": "", "detail": "x"},
    ),
}  # fmt: skip
"""At least one row of every table of version 1."""


def statements(kind: str) -> list[str]:
    """The statements of version 1, one by one."""
    return [part for part in TABLES[kind].read_text().split(";") if part.strip()]


def insertions(mark: str) -> list[tuple[str, list[object]]]:
    """What puts ROWS into the tables; *mark* is the driver's sign for a parameter."""
    found: list[tuple[str, list[object]]] = []
    for table, kept in ROWS.items():
        for row in kept:
            names = ", ".join(f'"{name}"' for name in row)
            text = f"INSERT INTO {table} ({names}) VALUES ({', '.join([mark] * len(row))})"  # noqa: S608
            found.append((text, list(row.values())))
    return found


def old_sqlite(folder: Path) -> Path:
    """A version 1 database with rows in every table."""
    path = folder / "pacsnode.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements("sqlite"):
            connection.execute(statement)
        for text, values in insertions("?"):
            connection.execute(text, values)
        connection.commit()
    return path


def old_postgresql(url: str) -> None:
    """The same in PostgreSQL."""
    with psycopg.connect(url) as connection:
        for statement in statements("postgresql"):
            connection.execute(statement)
        for text, values in insertions("%s"):
            connection.execute(text, values)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The `state` of a version 1 database in both kinds."""
    if request.param == "sqlite":
        old_sqlite(tmp_path)
        return "sqlite"
    url = str(request.getfixturevalue("postgres"))
    old_postgresql(url)
    return url


def plain(database: Database, table: str) -> list[dict[str, object]]:
    """All rows of a table as the database holds them, times as text."""
    with database.read() as tx:
        found = tx.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2").mappings().all()  # noqa: S608
    return [
        {
            name: value.isoformat(sep=" ") if hasattr(value, "isoformat") else value
            for name, value in row.items()
        }
        for row in found
    ]


def test_every_row_survives(old: str, tmp_path: Path) -> None:
    """Each row of each table is there with each of its values, and new columns hold what a new row would."""
    database = open_database(old, tmp_path)
    new = {"replay": 0, "replay_rule": "", "replay_fresh": False, "removed_at": None, "fresh": False,
           "withdraws": 0, "size": 0, "predecessors": "[]", "rank": 1770091506, "failing_since": None, "lossy": False,
           "sent_path": "",
           "sent_syntax": "", "commit_due": None, "commitment_id": None,
           "commit_failures": 0, "kind": "", "trial": False,
           "waiting_bytes": 0, "pixels_at": 0, "treatment": "", "sent_uid": "", "window": "",
           "prior": "", "inputs": "", "turn": 0, "slot": ""}  # fmt: skip
    kept = {**ROWS, "meta": (ROWS["meta"][0], {"key": "version", "value": str(schema.VERSION)})}
    for table, before in kept.items():
        after = [row for row in plain(database, table) if row.get("name") != "database_upgraded"]
        added = {name: new[name] for name in after[0] if name not in before[0]}
        assert after == [{**added, **row} for row in before], table
    database.close()


def test_the_upgrade_leaves_an_event(old: str, tmp_path: Path) -> None:
    """The events say that the database was upgraded, from which version, and where the old one is."""
    database = open_database(old, tmp_path)
    with database.read() as tx:
        (found,) = rows(tx, select(schema.event).where(schema.event.c.name == "database_upgraded"))
    database.close()
    where = "; the old one is kept as pacsnode-v1.db" if old == "sqlite" else ""
    assert found["detail"] == f"from version 1 to {schema.VERSION}{where}"


def partial(index: Mapping[str, Any]) -> str:
    """The condition of a partial index as text."""
    return "".join(str(value) for key, value in index.get("dialect_options", {}).items() if "where" in key)


def described(database: Database) -> dict[str, object]:
    """Columns, keys and indexes of every table, as SQLAlchemy's inspector reads them."""
    found: dict[str, object] = {}
    with database.read() as tx:
        seen = inspect(tx)
        for table in seen.get_table_names():
            columns = {
                c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in seen.get_columns(table)
            }
            unique = {tuple(u["column_names"]) for u in seen.get_unique_constraints(table)}
            foreign = {(*f["constrained_columns"], f["referred_table"]) for f in seen.get_foreign_keys(table)}
            indexes = {
                (i["name"], *i["column_names"], i["unique"], partial(i)) for i in seen.get_indexes(table)
            }
            primary = seen.get_pk_constraint(table)["constrained_columns"]
            found[table] = (columns, unique, foreign, indexes, primary)
    return found


def test_it_ends_as_a_new_one_begins(old: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An upgraded database has exactly the tables, columns, keys and indexes of one made today."""
    upgraded = open_database(old, tmp_path)
    if old == "sqlite":
        (tmp_path / "new").mkdir()
        fresh = open_database("sqlite", tmp_path / "new")
    else:
        server = request.getfixturevalue("postgres_server")
        server.run("CREATE DATABASE made_today")
        fresh = open_database(server.url("made_today"), tmp_path)
    assert described(upgraded) == described(fresh)
    upgraded.close()
    fresh.close()


def definitions(path: Path) -> set[str]:
    """What sqlite_master says, without quotes and blanks."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {re.sub(r"[\s\"]+", "", text) for (text,) in found}


def test_sqlite_keeps_the_same_definitions(tmp_path: Path) -> None:
    """Column order and every clause of sqlite_master are those of a new database."""
    old_sqlite(tmp_path)
    open_database("sqlite", tmp_path).close()
    (tmp_path / "new").mkdir()
    open_database("sqlite", tmp_path / "new").close()
    assert definitions(tmp_path / "pacsnode.db") == definitions(tmp_path / "new" / "pacsnode.db")


def test_the_old_database_is_kept(tmp_path: Path) -> None:
    """Beside the upgraded one lies a copy of the old one, whole, that version 1 could go on with."""
    old_sqlite(tmp_path)
    open_database("sqlite", tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "pacsnode-v1.db")) as copy:
        assert copy.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() == ("1",)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for table, kept in ROWS.items():
            assert copy.execute(f"SELECT count(*) FROM {table}").fetchone() == (len(kept),)  # noqa: S608
    assert not list(tmp_path.glob("*.part"))


def test_a_kill_in_the_middle_leaves_the_old_version(tmp_path: Path) -> None:
    """SIGKILL with all rebuilt and nothing committed: version 1 is as it was, and the next start upgrades it."""
    path = old_sqlite(tmp_path)
    script = (
        "import sys; from pathlib import Path; from node.store.database import open_database; "
        "open_database('sqlite', Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PACSNODE_FAULT": "before-upgrade-commit"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() == ("1",)
        assert "removed_at" not in str(connection.execute("SELECT sql FROM sqlite_master").fetchall())
    database = open_database("sqlite", tmp_path)
    assert len(plain(database, "run")) == 1
    database.close()


def test_the_upgraded_database_works(old: str, tmp_path: Path) -> None:
    """One rule may have a second run of the same revision now, and ids go on after the old ones."""
    database = open_database(old, tmp_path)
    values = {
        name: value for name, value in ROWS["run"][0].items() if name != "id" and not name.endswith("_at")
    }
    with database.write() as tx:
        due = rows(tx, select(schema.run))[0]["due_at"]
        if old != "sqlite":  # rows that were inserted with their ids did not move the sequence
            tx.exec_driver_sql("SELECT setval('run_id_seq', 11)")
        key = tx.execute(
            insert(schema.run).values(**{**values, "replay": 1}, due_at=due, created_at=due)
        ).inserted_primary_key
    assert key == (12,)
    database.close()


def test_a_question_does_not_upgrade(old: str, tmp_path: Path) -> None:
    """A verb that only asks says that the node must be started once, and changes nothing."""
    with pytest.raises(Misconfigured, match=r"version 1.*pacsnode run.*keeps a copy"):
        open_database(old, tmp_path, create=False)
    with pytest.raises(Misconfigured, match="version 1"):
        open_database(old, tmp_path, create=False)
    assert not list(tmp_path.glob("pacsnode-v1.db"))


def test_nothing_is_upgraded_below_a_running_node(old: str, tmp_path: Path) -> None:
    """While a node of the old version works on the data folder, the new one is told to stop it first."""
    held = lock_data(tmp_path)
    with pytest.raises(Misconfigured, match="stop that node"):
        open_database(old, tmp_path)
    os.close(held)
    open_database(old, tmp_path).close()


def test_a_table_of_another_make_is_refused(tmp_path: Path) -> None:
    """A database whose tables are not ours is left as it is, with a sentence that names the table."""
    path = old_sqlite(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("DROP TABLE product")
        connection.execute("CREATE TABLE product (id INTEGER NOT NULL, PRIMARY KEY (id))")
        connection.commit()
    before = definitions(path)
    with pytest.raises(Broken, match=r"table product.*restore a backup"):
        open_database("sqlite", tmp_path)
    assert definitions(path) == before


def test_without_room_for_the_copy_nothing_is_touched(tmp_path: Path) -> None:
    """Where the copy cannot be written the old database stays, and the sentence says to free space."""
    path = old_sqlite(tmp_path)
    before = definitions(path)
    (tmp_path / "pacsnode-v1.db.part").mkdir()
    with pytest.raises(Broken, match=r"copy pacsnode-v1\.db cannot be written.*free space"):
        open_database("sqlite", tmp_path)
    assert definitions(path) == before


def test_each_version_has_a_step_that_leads_to_the_next() -> None:
    """From every version before ours a chain of steps leads to ours."""
    assert sorted(migrations.STEPS) == list(range(1, schema.VERSION))


def test_two_that_start_at_once_upgrade_once(old: str, tmp_path: Path) -> None:
    """Processes that find the old version together wait for each other: one upgrades, the copy stays the old one."""
    script = (
        "import sys; from pathlib import Path; from node.store.database import open_database; "
        "open_database(sys.argv[1], Path(sys.argv[2])).close()"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, old, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    database = open_database(old, tmp_path)
    names = [row["name"] for row in plain(database, "event")]
    assert names.count("database_upgraded") == 1
    database.close()
    if old == "sqlite":
        with closing(sqlite3.connect(tmp_path / "pacsnode-v1.db")) as copy:
            assert copy.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() == ("1",)


def test_writers_take_turns(old: str, tmp_path: Path) -> None:
    """What a writer has read is still true when it commits, on PostgreSQL as on SQLite: the second one waits."""
    database = open_database(old, tmp_path)
    seen: list[int] = []

    def another() -> None:
        with database.write() as tx:
            seen.append(tx.scalar(select(func.count()).select_from(schema.event)) or 0)

    thread = threading.Thread(target=another)
    with database.write() as tx:
        before = tx.scalar(select(func.count()).select_from(schema.event)) or 0
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        note(tx, datetime(2026, 3, 1, tzinfo=UTC), "first")
    thread.join(20)
    assert seen == [before + 1]
    database.close()
