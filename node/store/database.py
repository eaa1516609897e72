"""One database, SQLite or PostgreSQL: opening it, transactions, and guarded moves between states."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    Update,
    bindparam,
    create_engine,
    event,
    insert,
    inspect,
    literal_column,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError

from node.errors import Misconfigured
from node.store import migrations, schema
from node.store.files import Disk

_LOG_PAGES = 8000
"""Of 4 kB: so long the write-ahead log grows within a burst before whoever writes next empties it."""
OF_A_NODE = "database.name"
"""File in the data folder: the name of the database it was written with."""
_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(1346454355)")  # "PACS"
_SYNC_LATER = text("SET LOCAL synchronous_commit TO OFF")
_NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs")
)


class Database:
    """Transactions on the node's tables."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """One transaction that takes the writer's place at once: what it reads stays true until it commits.

        BEGIN IMMEDIATE on SQLite; on PostgreSQL a lock that every writer of this database asks for. A power cut
        may undo one that is not *durable*, and all such ones since the last that was: it is for what the files
        say again, and spares the disk a sync for which the receivers would wait.
        """
        with self.engine.execution_options(writer=True, durable=durable).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(_TAKE_TURNS)
                if not durable:
                    connection.execute(_SYNC_LATER)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A short consistent view; never blocks a writer."""
        with self.engine.connect() as connection:
            yield connection

    def empty_log(self) -> None:
        """SQLite: bring what the write-ahead log holds into the database, as far as readers let us; never waits.

        It makes the disk write out all that was just received as well, so that its moment is chosen: between bursts,
        not every 1000 pages. PostgreSQL sees to its own.
        """
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None  # noqa: S101 - a connection that is checked out has one
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(state: str, data: Path, *, create: bool = True) -> Database:
    """The database that *state* names: `sqlite` in *data*, or a `postgresql://` URL.

    With *create*, by the node itself, missing tables are made and an older version is upgraded. Raises
    Misconfigured where it cannot be opened, is of another version, or would lie on a network file system
    (SQLite's locks do not hold there).
    """
    if state == "sqlite":
        engine = _sqlite(data / "pacsnode.db", create)
    else:
        engine = create_engine(make_url(state).set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    database = Database(engine)
    try:
        if create:
            _upgrade(database, data)
            _create(database)
        _check_version(database)
    except OperationalError as error:
        where = (
            data / "pacsnode.db"
            if state == "sqlite"
            else make_url(state).render_as_string(hide_password=True)
        )
        raise Misconfigured(f"the database {where} cannot be opened: {error.orig}") from None
    return database


def _refuse_another_user(path: Path) -> None:
    """Raises Misconfigured where who asks may not use the database: readers write to its -shm file, too."""
    folder = path.parent
    try:
        closed = path.exists() and not all(
            os.access(one, os.R_OK | os.W_OK, effective_ids=True) for one in (path, folder)
        )
    except PermissionError:
        closed = True
    if closed:
        raise Misconfigured(
            f"{folder}: no permission to use the database there; run this as the user that the node runs as"
        )


def _sqlite(path: Path, create: bool) -> Engine:
    _refuse_another_user(path)
    kind = file_system_of(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise Misconfigured(
            f"`state: sqlite` cannot keep its database on a network file system ({kind} at {path.parent}); "
            "put `node.data` on a local disk or use `state: postgresql://…`"
        )
    if not create and not path.exists():
        if (path.parent / "objects").exists():
            raise Misconfigured(
                f"{path} is gone, but received objects lie beside it; restore the backup, or stop the node and "
                "run `pacsnode reindex`"
            )
        raise Misconfigured(
            f"there is no node's data in {path.parent}; start the node once with `pacsnode run`"
        )
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None, "timeout": 10})
    event.listen(engine, "connect", _pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _pragmas(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON",
                   f"wal_autocheckpoint={_LOG_PAGES}"):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """A deferred transaction that reads and then writes fails at once when another wrote in between."""
    options = connection.get_execution_options()
    if not options.get("writer", False):
        connection.exec_driver_sql("BEGIN")
        return
    # In WAL mode NORMAL syncs only when the log is emptied, and never damages what was committed before.
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('durable', True) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(database: Database, data: Path) -> None:
    """Bring an older database to our version; nothing where there is none yet. Raises Misconfigured, Broken."""
    found = _version(database)
    if found is None or not found.isdigit() or not 0 < int(found) < schema.VERSION:
        return
    migrations.refuse_while_running(data)
    old, now = int(found), datetime.now(UTC)
    if database.engine.dialect.name == "sqlite":
        database.close()  # a connection of ours would see the tables of before
        migrations.upgrade_sqlite(Path(str(database.engine.url.database)), old, schema.VERSION, now)
        return
    with database.write() as tx:
        if tx.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "version")) != found:
            return  # another process did it since we looked
        migrations.upgrade_postgresql(tx, old, schema.VERSION)
        tx.execute(
            update(schema.meta).where(schema.meta.c.key == "version").values(value=str(schema.VERSION))
        )
        note(tx, now, "database_upgraded", migrations.said(old, schema.VERSION))


def _version(database: Database) -> str | None:
    """What the database says of itself; None where it has no tables yet."""
    with database.read() as tx:
        if not inspect(tx).has_table(schema.meta.name):
            return None
        return tx.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "version"))


def _create(database: Database) -> None:
    with database.write() as tx:
        schema.metadata.create_all(tx)
        if tx.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "version")) is None:
            tx.execute(insert(schema.meta).values(key="version", value=str(schema.VERSION)))
            tx.execute(insert(schema.meta).values(key="name", value=uuid4().hex))


def adopt_database(database: Database, data: Path) -> None:
    """From now on this database is the one that belongs to *data*."""
    Disk().replace_file(data / OF_A_NODE, _name_of(database).encode())


def belongs(database: Database, data: Path) -> bool:
    """Whether *data* was written with this database; a fresh one over old files would do everything again."""
    mark = data / OF_A_NODE
    if not mark.exists():
        adopt_database(database, data)
    return mark.read_text(encoding="ascii") == _name_of(database)


def _name_of(database: Database) -> str:
    with database.read() as tx:
        return tx.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "name")) or ""


def _check_version(database: Database) -> None:
    found = _version(database)
    if found == str(schema.VERSION):
        return
    if found is None:
        raise Misconfigured(
            "the database holds no node's tables; start the node once with `pacsnode run`, or restore a backup"
        )
    what = f"the database is of version {found}, this program needs {schema.VERSION}; "
    if found.isdigit() and int(found) < schema.VERSION:
        raise Misconfigured(what + "start the node with `pacsnode run`: it upgrades it and keeps a copy")
    raise Misconfigured(what + "install the version of PACSNode that wrote it, or restore a backup")


def file_system_of(path: Path) -> str:
    """The type of the file system that holds *path* (Linux), empty where it cannot be told."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = {fields[1]: fields[2] for line in lines if len(fields := line.split()) > 2}
    here = os.path.realpath(path)
    while here not in mounts and here != "/":
        here = str(Path(here).parent)
    return mounts.get(here, "")


def move(
    tx: Connection, table: Table, key: int, to: str, *, expected: tuple[str, ...], attempt: int | None = None,
    **values: Any,
) -> bool:  # fmt: skip
    """Move one row to another state if it is still where we think; False when it is not ours any more."""
    statement = _move(table, tuple(expected), attempt is not None, tuple(values))
    given = {f"to_{name}": value for name, value in values.items()}
    return tx.execute(statement, {**given, "to_state": to, "key": key, "mine": attempt}).rowcount == 1


@lru_cache(maxsize=256)
def _move(table: Table, expected: tuple[str, ...], attempted: bool, names: tuple[str, ...]) -> Update:
    """The statement of `move`: building one anew costs several times what running it does."""
    where = (table.c.id == bindparam("key")) & table.c.state.in_(expected)
    if attempted:
        where &= table.c.attempt == bindparam("mine")
    values = {name: bindparam(f"to_{name}", type_=table.c[name].type) for name in ("state", *names)}
    return update(table).where(where).values(values)


def one_of(column: Column[Any], *states: StrEnum) -> ColumnElement[bool]:
    """`state IN ('waiting', 'sending')` spelt out: SQLite takes a partial index only for its own words."""
    return column.in_([literal_column(f"'{state.value}'") for state in states])


@lru_cache(maxsize=32)
def _insert(table: Table) -> Insert:
    return insert(table)


def add(tx: Connection, table: Table, **values: Any) -> int:
    """Insert one row and return its id."""
    key = tx.execute(_insert(table), values).inserted_primary_key
    assert key is not None  # noqa: S101 - every table here has one
    return int(key[0])


def note(tx: Connection, at: datetime, name: str, detail: str = "", **about: Any) -> None:
    """Leave an event; *about* names series_id, run_id, instance_id or destination."""
    tx.execute(_insert(schema.event), {"at": at, "name": name, "detail": detail, **about})


def rows(tx: Connection, statement: Any, values: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """All rows of a statement as mappings; *values* are those of its bound parameters."""
    return [dict(row) for row in tx.execute(statement, values).mappings()]
