"""Upgrading an older database, one version after the other, in one transaction: all of it or nothing.

The steps are frozen: what a step once did it does for ever, whatever the tables look like today. A change of
`schema.py` raises its VERSION and adds the step that leads there.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from node import faults
from node.errors import Broken, Misconfigured
from node.store.files import Disk, Folder

_NODE_LOCK = ".lock"
"""In the data folder: held by the supervisor of a running node."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A table of SQLite whose definition changes in ways that ALTER TABLE does not know.

    *edits* are pairs of text in its CREATE TABLE, *fill* the SQL values of its new columns.
    """

    table: str
    edits: tuple[tuple[str, str], ...]
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """From one version to the next: on SQLite tables are rebuilt, then statements run; on PostgreSQL those only."""

    rebuilt: tuple[Rebuilt, ...]
    sqlite: tuple[str, ...]
    postgresql: tuple[str, ...]


_SERIES_2 = """facts BLOB,
	replay INTEGER NOT NULL,
	replay_rule TEXT NOT NULL,
	replay_fresh BOOLEAN NOT NULL,
	removed_at DATETIME"""
_RUN_2 = """replay INTEGER NOT NULL,
	fresh BOOLEAN NOT NULL,
	files TEXT NOT NULL"""
_PRODUCT_2 = """digest VARCHAR(64) NOT NULL,
	removed_at DATETIME"""
_ALERT_2 = """CREATE TABLE alert (
	what VARCHAR(32) NOT NULL,
	"key" TEXT NOT NULL,
	since {moment} NOT NULL,
	told_at {moment},
	over_at {moment},
	told TEXT NOT NULL,
	detail TEXT NOT NULL,
	PRIMARY KEY (what, "key")
)"""

_DELIVERY_3 = """finished_at DATETIME,
	failing_since DATETIME,
	rank INTEGER NOT NULL,
	lossy BOOLEAN NOT NULL,
	sent_path TEXT NOT NULL,
	sent_syntax TEXT NOT NULL,
	commit_due DATETIME,
	commitment_id INTEGER,
	commit_failures INTEGER NOT NULL"""
_DESTINATION_3 = """next_at DATETIME,
	kind VARCHAR(16) NOT NULL,
	trial BOOLEAN NOT NULL,
	waiting_bytes INTEGER NOT NULL"""
_NEW_3 = (
    """CREATE TABLE commitment (
	id {id} NOT NULL,
	transaction_uid VARCHAR(64) NOT NULL,
	destination TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	objects INTEGER NOT NULL,
	asked_at {moment} NOT NULL,
	due_at {moment} NOT NULL,
	finished_at {moment},
	PRIMARY KEY (id),
	UNIQUE (transaction_uid)
)""",
    """CREATE TABLE pledge (
	id {id} NOT NULL,
	transaction_uid TEXT NOT NULL,
	peer TEXT NOT NULL,
	called TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	asked TEXT NOT NULL,
	report TEXT NOT NULL,
	received_at {moment} NOT NULL,
	due_at {moment} NOT NULL,
	next_at {moment} NOT NULL,
	failures INTEGER NOT NULL,
	finished_at {moment},
	PRIMARY KEY (id)
)""",
    """CREATE TABLE rejection (
	sop_uid TEXT NOT NULL,
	code VARCHAR(16) NOT NULL,
	instance_id {reference} NOT NULL,
	at {moment} NOT NULL,
	PRIMARY KEY (sop_uid),
	FOREIGN KEY(instance_id) REFERENCES instance (id)
)""",
    "CREATE INDEX commitment_open ON commitment (due_at) WHERE state IN ('asking', 'asked')",
    "CREATE INDEX pledge_open ON pledge (next_at) WHERE state IN ('waiting', 'reporting')",
    "CREATE INDEX pledge_transaction ON pledge (peer, transaction_uid)",
    "CREATE INDEX delivery_order ON delivery (destination, rank, id) WHERE state IN ('waiting', 'sending')",
    "CREATE INDEX delivery_commit ON delivery (destination, commit_due) WHERE commit_due IS NOT NULL",
)
_INSTANCE_4 = """pixel_digest VARCHAR(64) NOT NULL,
	pixels_at INTEGER NOT NULL"""
_STEP_4 = (
    """CREATE TABLE step (
	id {id} NOT NULL,
	peer TEXT NOT NULL,
	sop_uid TEXT NOT NULL,
	study_uid TEXT NOT NULL,
	station TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	begun_at {moment} NOT NULL,
	changed_at {moment} NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (peer, sop_uid)
)""",
    """CREATE TABLE step_series (
	id {id} NOT NULL,
	step_id {reference} NOT NULL,
	series_uid TEXT NOT NULL,
	objects INTEGER NOT NULL,
	named {bytes} NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (step_id, series_uid),
	FOREIGN KEY(step_id) REFERENCES step (id)
)""",
    "CREATE INDEX step_series_uid ON step_series (series_uid)",
)
_FETCH_4 = (
    """CREATE TABLE prior_fetch (
	id {id} NOT NULL,
	wanted_id {reference} NOT NULL,
	peer TEXT NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	series_uid VARCHAR(64) NOT NULL,
	way VARCHAR(8) NOT NULL,
	calling VARCHAR(16) NOT NULL,
	message_id INTEGER NOT NULL,
	patient TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	series_id {reference},
	asked_at {moment} NOT NULL,
	finished_at {moment},
	PRIMARY KEY (id),
	FOREIGN KEY(wanted_id) REFERENCES wanted_prior (id),
	FOREIGN KEY(series_id) REFERENCES series (id)
)""",
    "CREATE INDEX prior_fetch_message ON prior_fetch (message_id)",
)
_SQLITE = {"id": "INTEGER", "reference": "INTEGER", "moment": "DATETIME", "bytes": "BLOB"}
_POSTGRESQL = {
    "id": "BIGSERIAL", "reference": "BIGINT", "moment": "TIMESTAMP WITHOUT TIME ZONE", "bytes": "BYTEA",
}  # fmt: skip

_RUN_RANK_4 = """withdraws INTEGER NOT NULL,
	rank INTEGER NOT NULL"""
_DELIVERY_4 = """commit_failures INTEGER NOT NULL,
	treatment TEXT NOT NULL,
	sent_uid VARCHAR(64) NOT NULL,
	"window" TEXT NOT NULL"""
_TREATMENTS_4 = (
    """CREATE TABLE lookup (
	digest VARCHAR(64) NOT NULL,
	content TEXT NOT NULL,
	used_at {moment} NOT NULL,
	PRIMARY KEY (digest)
)""",
    "CREATE INDEX delivery_copy ON delivery (rank, stage, id) "
    "WHERE state = 'waiting' AND sent_path = '' AND (treatment <> '' OR sent_syntax <> '')",
    "CREATE INDEX delivery_copied ON delivery (destination) WHERE sent_path <> ''",
)
_PSEUDONYM_4 = (
    """CREATE TABLE pseudonym (
	pseudonym VARCHAR(64) NOT NULL,
	patient_id TEXT NOT NULL,
	issuer TEXT NOT NULL,
	study_uid TEXT NOT NULL,
	first_at {moment} NOT NULL,
	PRIMARY KEY (pseudonym)
)""",
    "CREATE INDEX pseudonym_patient ON pseudonym (patient_id)",
)
_COPY_4 = Step(  # treated copies, windows and priorities; pseudonyms
    rebuilt=(
        Rebuilt(
            "run",
            (("withdraws INTEGER NOT NULL", _RUN_RANK_4),),
            {"rank": "CAST(strftime('%s', created_at) AS INTEGER)"},
        ),
        Rebuilt(
            "delivery",
            (("commit_failures INTEGER NOT NULL", _DELIVERY_4),),
            {"treatment": "''", "sent_uid": "''", '"window"': "''"},
        ),
    ),
    sqlite=tuple(statement.format(**_SQLITE) for statement in (*_TREATMENTS_4, *_PSEUDONYM_4)),
    postgresql=(
        "ALTER TABLE run ADD rank BIGINT NOT NULL DEFAULT 0",
        "UPDATE run SET rank = CAST(EXTRACT(EPOCH FROM date_trunc('second', created_at)) AS BIGINT)",
        "ALTER TABLE run ALTER rank DROP DEFAULT",
        "ALTER TABLE delivery ADD treatment TEXT NOT NULL DEFAULT '', "
        "ADD sent_uid VARCHAR(64) NOT NULL DEFAULT '', ADD \"window\" TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE delivery ALTER treatment DROP DEFAULT, ALTER sent_uid DROP DEFAULT, "
        'ALTER "window" DROP DEFAULT',
        *(statement.format(**_POSTGRESQL) for statement in (*_TREATMENTS_4, *_PSEUDONYM_4)),
    ),
)
_STUDY_RUN_4 = """rank INTEGER NOT NULL,
	inputs TEXT NOT NULL,
	turn INTEGER NOT NULL,
	slot TEXT NOT NULL"""
_STUDY_TABLES_4 = (
    """CREATE TABLE run_input (
	run_id {reference} NOT NULL,
	series_id {reference} NOT NULL,
	PRIMARY KEY (run_id, series_id),
	FOREIGN KEY(run_id) REFERENCES run (id),
	FOREIGN KEY(series_id) REFERENCES series (id)
)""",
    "CREATE INDEX run_input_series ON run_input (series_id)",
    """CREATE TABLE study_rule (
	id {id} NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	rule TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	since {moment} NOT NULL,
	until {moment},
	due_at {moment},
	PRIMARY KEY (id),
	UNIQUE (study_uid, rule)
)""",
    """CREATE TABLE wanted_prior (
	id {id} NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	rule TEXT NOT NULL,
	input TEXT NOT NULL,
	peer TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	patient TEXT NOT NULL,
	study_date VARCHAR(8) NOT NULL,
	study_time VARCHAR(16) NOT NULL,
	from_date VARCHAR(8) NOT NULL,
	tried TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	series_id {reference},
	due_at {moment} NOT NULL,
	created_at {moment} NOT NULL,
	finished_at {moment},
	PRIMARY KEY (id),
	UNIQUE (study_uid, rule, input),
	FOREIGN KEY(series_id) REFERENCES series (id)
)""",
    "CREATE INDEX study_rule_due ON study_rule (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX wanted_prior_open ON wanted_prior (due_at) WHERE state IN ('wanted', 'asking')",
)
_PIXELS_4 = Step(  # pixels hashed once
    rebuilt=(
        Rebuilt(
            "instance", (("pixel_digest VARCHAR(64) NOT NULL", _INSTANCE_4),), {"pixels_at": "0"},
        ),
    ),
    sqlite=(),
    postgresql=(
        "ALTER TABLE instance ADD pixels_at BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE instance ALTER pixels_at DROP DEFAULT",
    ),
)  # fmt: skip
_STUDY_4 = Step(  # rules of scope: study, and priors
    rebuilt=(
        Rebuilt("series", (("removed_at DATETIME", "removed_at DATETIME,\n\tprior TEXT NOT NULL"),), {"prior": "''"}),
        Rebuilt(
            "run",
            (
                ("rank INTEGER NOT NULL", _STUDY_RUN_4),
                ("(series_id, rule, replay, withdraws)", "(series_id, rule, replay, withdraws, inputs, turn)"),
            ),
            {"inputs": "''", "turn": "0", "slot": "''"},
        ),
    ),
    sqlite=tuple(statement.format(**_SQLITE) for statement in _STUDY_TABLES_4),
    postgresql=(
        "ALTER TABLE series ADD prior TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE series ALTER prior DROP DEFAULT",
        "ALTER TABLE run ADD inputs TEXT NOT NULL DEFAULT '', ADD turn INTEGER NOT NULL DEFAULT 0, "
        "ADD slot TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE run ALTER inputs DROP DEFAULT, ALTER turn DROP DEFAULT, ALTER slot DROP DEFAULT",
        "ALTER TABLE run DROP CONSTRAINT run_series_id_rule_replay_withdraws_key, "
        "ADD UNIQUE (series_id, rule, replay, withdraws, inputs, turn)",
        *(statement.format(**_POSTGRESQL) for statement in _STUDY_TABLES_4),
    ),
)  # fmt: skip

_EVIDENCE_4 = Step(  # performed procedure steps, and what was fetched; after `_STUDY_4`, which it refers to
    rebuilt=(),
    sqlite=tuple(statement.format(**_SQLITE) for statement in (*_STEP_4, *_FETCH_4)),
    postgresql=tuple(statement.format(**_POSTGRESQL) for statement in (*_STEP_4, *_FETCH_4)),
)


def _together(*steps: Step) -> Step:
    """One step of several that do not know of each other, in this order."""
    return Step(
        tuple(rebuilt for step in steps for rebuilt in step.rebuilt),
        tuple(statement for step in steps for statement in step.sqlite),
        tuple(statement for step in steps for statement in step.postgresql),
    )


STEPS: Mapping[int, Step] = {
    1: Step(  # replays, retention and alerts
        rebuilt=(
            Rebuilt(
                "series", (("facts BLOB", _SERIES_2),), {"replay": "0", "replay_rule": "''", "replay_fresh": "0"}
            ),
            Rebuilt(
                "run",
                (("files TEXT NOT NULL", _RUN_2), ("(series_id, rule)", "(series_id, rule, replay)")),
                {"replay": "0", "fresh": "0"},
            ),
            Rebuilt("product", (("digest VARCHAR(64) NOT NULL", _PRODUCT_2),)),
        ),
        sqlite=(_ALERT_2.format(moment="DATETIME"),),
        postgresql=(
            "ALTER TABLE series ADD replay INTEGER NOT NULL DEFAULT 0, ADD replay_rule TEXT NOT NULL DEFAULT '', "
            "ADD replay_fresh BOOLEAN NOT NULL DEFAULT false, ADD removed_at TIMESTAMP WITHOUT TIME ZONE",
            "ALTER TABLE series ALTER replay DROP DEFAULT, ALTER replay_rule DROP DEFAULT, "
            "ALTER replay_fresh DROP DEFAULT",
            "ALTER TABLE run ADD replay INTEGER NOT NULL DEFAULT 0, ADD fresh BOOLEAN NOT NULL DEFAULT false",
            "ALTER TABLE run ALTER replay DROP DEFAULT, ALTER fresh DROP DEFAULT",
            "ALTER TABLE run DROP CONSTRAINT run_series_id_rule_key, ADD UNIQUE (series_id, rule, replay)",
            "ALTER TABLE product ADD removed_at TIMESTAMP WITHOUT TIME ZONE",
            _ALERT_2.format(moment="TIMESTAMP WITHOUT TIME ZONE"),
        ),
    ),
    2: Step(  # order in the queue, transcoded copies, storage commitment, rejection notes
        rebuilt=(
            Rebuilt(
                "run",
                (
                    ("finished_at DATETIME", "finished_at DATETIME,\n\twithdraws INTEGER NOT NULL"),
                    ("(series_id, rule, replay)", "(series_id, rule, replay, withdraws)"),
                ),
                {"withdraws": "0"},
            ),
            Rebuilt(
                "product",
                (("removed_at DATETIME", "removed_at DATETIME,\n\tsize INTEGER NOT NULL"),),
                {"size": "0"},
            ),
            Rebuilt(
                "identity",
                (("digests TEXT NOT NULL", "digests TEXT NOT NULL,\n\tpredecessors TEXT NOT NULL"),),
                {"predecessors": "'[]'"},
            ),
            Rebuilt(
                "delivery",
                (("finished_at DATETIME", _DELIVERY_3),),
                {"rank": "CAST(strftime('%s', created_at) AS INTEGER)", "lossy": "0", "sent_path": "''",
                 "sent_syntax": "''", "commit_failures": "0"},
            ),
            Rebuilt(
                "destination",
                (("next_at DATETIME", _DESTINATION_3),),
                {"kind": "''", "trial": "0", "waiting_bytes": "0"},
            ),
        ),
        sqlite=tuple(statement.format(**_SQLITE) for statement in _NEW_3),
        postgresql=(
            "ALTER TABLE run ADD withdraws BIGINT NOT NULL DEFAULT 0",
            "ALTER TABLE run ALTER withdraws DROP DEFAULT",
            "ALTER TABLE run DROP CONSTRAINT run_series_id_rule_replay_key, "
            "ADD UNIQUE (series_id, rule, replay, withdraws)",
            "ALTER TABLE product ADD size BIGINT NOT NULL DEFAULT 0",
            "ALTER TABLE product ALTER size DROP DEFAULT",
            "ALTER TABLE identity ADD predecessors TEXT NOT NULL DEFAULT '[]'",
            "ALTER TABLE identity ALTER predecessors DROP DEFAULT",
            "ALTER TABLE delivery ADD failing_since TIMESTAMP WITHOUT TIME ZONE",
            "ALTER TABLE delivery ADD rank BIGINT NOT NULL DEFAULT 0, ADD lossy BOOLEAN NOT NULL DEFAULT false, "
            "ADD sent_path TEXT NOT NULL DEFAULT '', ADD sent_syntax TEXT NOT NULL DEFAULT '', "
            "ADD commit_due TIMESTAMP WITHOUT TIME ZONE, ADD commitment_id BIGINT, "
            "ADD commit_failures INTEGER NOT NULL DEFAULT 0",
            "UPDATE delivery SET rank = CAST(EXTRACT(EPOCH FROM date_trunc('second', created_at)) AS BIGINT)",
            "ALTER TABLE delivery ALTER rank DROP DEFAULT, ALTER lossy DROP DEFAULT, "
            "ALTER sent_path DROP DEFAULT, ALTER sent_syntax DROP DEFAULT, ALTER commit_failures DROP DEFAULT",
            "ALTER TABLE destination ADD kind VARCHAR(16) NOT NULL DEFAULT '', "
            "ADD trial BOOLEAN NOT NULL DEFAULT false, ADD waiting_bytes BIGINT NOT NULL DEFAULT 0",
            "ALTER TABLE destination ALTER kind DROP DEFAULT, ALTER trial DROP DEFAULT, "
            "ALTER waiting_bytes DROP DEFAULT",
            *(statement.format(**_POSTGRESQL) for statement in _NEW_3),
        ),
    ),
    3: _together(_PIXELS_4, _COPY_4, _STUDY_4, _EVIDENCE_4),
}  # fmt: skip
"""Version → what leads from it to the next."""


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


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a database that others may be writing; *target* is there whole or not at all.

    Raises OSError or sqlite3.Error.
    """
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=10)) as old:  # noqa: SIM117
            with closing(sqlite3.connect(part)) as new:
                old.backup(new)  # all pages at once: one moment of the database, and no writer has to wait
                new.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        part.chmod(0o640)
        _sync(part)
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    Disk().sync_folder(Folder(target.parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
