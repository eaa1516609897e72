"""Version 2 → 3: order in the queue, transcoded copies, storage commitment, rejection notes."""

from __future__ import annotations

from node.store.migrations.step import Rebuilt, Step, on_postgresql, on_sqlite

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

TO_3 = Step(
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
    sqlite=on_sqlite(*_NEW_3),
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
        *on_postgresql(*_NEW_3),
    ),
)  # fmt: skip
