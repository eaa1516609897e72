"""Version 1 → 2: replays, retention and alerts."""

from __future__ import annotations

from node.store.migrations.step import Rebuilt, Step, on_postgresql, on_sqlite

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

TO_2 = Step(
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
    sqlite=on_sqlite(_ALERT_2),
    postgresql=(
        "ALTER TABLE series ADD replay INTEGER NOT NULL DEFAULT 0, ADD replay_rule TEXT NOT NULL DEFAULT '', "
        "ADD replay_fresh BOOLEAN NOT NULL DEFAULT false, ADD removed_at TIMESTAMP WITHOUT TIME ZONE",
        "ALTER TABLE series ALTER replay DROP DEFAULT, ALTER replay_rule DROP DEFAULT, "
        "ALTER replay_fresh DROP DEFAULT",
        "ALTER TABLE run ADD replay INTEGER NOT NULL DEFAULT 0, ADD fresh BOOLEAN NOT NULL DEFAULT false",
        "ALTER TABLE run ALTER replay DROP DEFAULT, ALTER fresh DROP DEFAULT",
        "ALTER TABLE run DROP CONSTRAINT run_series_id_rule_key, ADD UNIQUE (series_id, rule, replay)",
        "ALTER TABLE product ADD removed_at TIMESTAMP WITHOUT TIME ZONE",
        *on_postgresql(_ALERT_2),
    ),
)  # fmt: skip
