"""Bringing a database from the version it was found in to ours."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from node import faults
from node.errors import Broken, Misconfigured
from node.store.migrations.step import Rebuilt, Step
from node.store.migrations.steps import STEPS
from node.store.snapshot import copy_sqlite

_NODE_LOCK = ".lock"
"""In the data folder: held by the supervisor of a running node."""


def refuse_while_running(data: Path) -> None:
    """Raise Misconfigured where a node, one of the older version, works on *data*: it would lose its tables."""
    try:
        lock = os.open(data / _NODE_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Misconfigured(
            f"the database is of an older version and a node works on {data}; stop that node, then start this one"
        ) from None
    finally:
        os.close(lock)


def copy_of(path: Path, version: int) -> Path:
    """Where the database at *path* is kept as it was before it was upgraded from *version*."""
    return path.with_name(f"{path.stem}-v{version}{path.suffix}")


def upgrade_sqlite(path: Path, found: int, wanted: int, now: datetime) -> None:
    """Bring the database at *path* from version *found* to *wanted*; a copy of the old one stays beside it.

    Follows https://sqlite.org/lang_altertable.html#otheralter. Raises Broken where it is not as this program
    wrote it, or where there is no room; then the old one is as it was.
    """
    kept = copy_of(path, found)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")  # outside a transaction, or it does nothing
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() != (str(found),):
                return  # another process did it since we looked
            _keep_copy(path, kept)
            for version in range(found, wanted):
                _take_step(connection, STEPS[version])
            connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(wanted),))
            _note_sqlite(connection, now, said(found, wanted, kept.name))
            faults.reach("before-upgrade-commit")
            connection.execute("COMMIT")
        finally:
            connection.rollback()  # nothing after a commit


def _keep_copy(path: Path, kept: Path) -> None:
    try:
        copy_sqlite(path, kept)
    except (OSError, sqlite3.Error) as error:
        raise Broken(
            f"{path} is not upgraded: its copy {kept.name} cannot be written ({error}); free space, then start "
            "the node again"
        ) from error


def _take_step(connection: sqlite3.Connection, step: Step) -> None:
    for rebuilt in step.rebuilt:
        _rebuild(connection, rebuilt)
    for statement in step.sqlite:
        connection.execute(statement)
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise Broken(
            f"the database is not upgraded: a row of table {broken[0]} refers to nothing; restore a backup"
        )


def upgrade_postgresql(tx: Connection, found: int, wanted: int) -> None:
    """Run the steps from version *found* to *wanted* inside *tx*; PostgreSQL takes changes of tables back, too."""
    for version in range(found, wanted):
        for statement in STEPS[version].postgresql:
            tx.exec_driver_sql(statement)


def said(found: int, wanted: int, kept: str = "") -> str:
    """What the event of an upgrade says."""
    where = f"; the old one is kept as {kept}" if kept else ""
    return f"from version {found} to {wanted}{where}"


def _rebuild(connection: sqlite3.Connection, rebuilt: Rebuilt) -> None:
    """Make the table anew under another name, fill it, and give it the old one's name and indexes."""
    table, new = rebuilt.table, f"new_{rebuilt.table}"
    (definition,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone()
    indexes = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
    ).fetchall()
    columns = [f'"{name}"' for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    _, brace, body = definition.partition("(")
    for old, text in rebuilt.edits:
        if body.count(old) != 1:
            raise Broken(f"table {table} is not as this program made it: no `{old}`; restore a backup")
        body = body.replace(old, text)
    connection.execute(f"CREATE TABLE {new} {brace}{body}")
    into = ", ".join([*columns, *rebuilt.fill])
    values = ", ".join([*columns, *rebuilt.fill.values()])
    connection.execute(f"INSERT INTO {new} ({into}) SELECT {values} FROM {table}")  # noqa: S608 - names are ours
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE {new} RENAME TO {table}")
    for (statement,) in indexes:
        connection.execute(statement)


def _note_sqlite(connection: sqlite3.Connection, now: datetime, detail: str) -> None:
    at = now.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    connection.execute(
        "INSERT INTO event (at, name, destination, detail) VALUES (?, 'database_upgraded', '', ?)",
        (at, detail),
    )
