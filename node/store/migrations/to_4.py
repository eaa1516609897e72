"""Version 3 → 4: pixels hashed once, treated copies, rules over studies, performed procedure steps, priors."""

from __future__ import annotations

from node.store.migrations.step import Rebuilt, Step, on_postgresql, on_sqlite, together

_INSTANCE_4 = """pixel_digest VARCHAR(64) NOT NULL,
	pixels_at INTEGER NOT NULL"""
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
    sqlite=on_sqlite(*_TREATMENTS_4, *_PSEUDONYM_4),
    postgresql=(
        "ALTER TABLE run ADD rank BIGINT NOT NULL DEFAULT 0",
        "UPDATE run SET rank = CAST(EXTRACT(EPOCH FROM date_trunc('second', created_at)) AS BIGINT)",
        "ALTER TABLE run ALTER rank DROP DEFAULT",
        "ALTER TABLE delivery ADD treatment TEXT NOT NULL DEFAULT '', "
        "ADD sent_uid VARCHAR(64) NOT NULL DEFAULT '', ADD \"window\" TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE delivery ALTER treatment DROP DEFAULT, ALTER sent_uid DROP DEFAULT, "
        'ALTER "window" DROP DEFAULT',
        *on_postgresql(*_TREATMENTS_4, *_PSEUDONYM_4),
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
    sqlite=on_sqlite(*_STUDY_TABLES_4),
    postgresql=(
        "ALTER TABLE series ADD prior TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE series ALTER prior DROP DEFAULT",
        "ALTER TABLE run ADD inputs TEXT NOT NULL DEFAULT '', ADD turn INTEGER NOT NULL DEFAULT 0, "
        "ADD slot TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE run ALTER inputs DROP DEFAULT, ALTER turn DROP DEFAULT, ALTER slot DROP DEFAULT",
        "ALTER TABLE run DROP CONSTRAINT run_series_id_rule_replay_withdraws_key, "
        "ADD UNIQUE (series_id, rule, replay, withdraws, inputs, turn)",
        *on_postgresql(*_STUDY_TABLES_4),
    ),
)  # fmt: skip
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
_EVIDENCE_4 = Step(  # performed procedure steps, and what was fetched; after `_STUDY_4`, which it refers to
    rebuilt=(),
    sqlite=on_sqlite(*_STEP_4, *_FETCH_4),
    postgresql=on_postgresql(*_STEP_4, *_FETCH_4),
)

TO_4 = together(_PIXELS_4, _COPY_4, _STUDY_4, _EVIDENCE_4)
