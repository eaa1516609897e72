"""Who stands behind a pseudonym, on both databases; and the key that they are made with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from store_cases import STATES, opened

from node.store import pseudonyms
from node.store.database import Database, open_database

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


@pytest.fixture(params=STATES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    found = open_database(opened(request), tmp_path)
    yield found
    found.close()


def said(name: str, patient: str, study: str = "") -> dict[str, str]:
    """What the transcoder says of a copy."""
    return {"pseudonym": name, "patient_id": patient, "issuer": "HOSP", "study_uid": study}


def test_a_pseudonym_is_written_once_and_found_both_ways(database: Database) -> None:
    """The first time counts; a name leads to its patient, a patient to the names, oldest first."""
    with database.write() as tx:
        pseudonyms.remember(tx, said("T7-B", "4711"), NOW)
        pseudonyms.remember(tx, said("T7-B", "4711"), NOW + timedelta(days=1))
        pseudonyms.remember(tx, said("T8-A", "4711"), NOW + timedelta(days=2))
        pseudonyms.remember(tx, said("T7-C", "", "1.2.3"), NOW)
    with database.read() as tx:
        (one,) = pseudonyms.look_up(tx, "T7-B", "")
        assert (one["patient_id"], one["issuer"], one["first_at"]) == ("4711", "HOSP", NOW)
        assert [row["pseudonym"] for row in pseudonyms.look_up(tx, "", "4711")] == ["T7-B", "T8-A"]
        assert pseudonyms.look_up(tx, "T7-C", "")[0]["study_uid"] == "1.2.3"
        assert pseudonyms.look_up(tx, "T7-B", "4712") == []
        assert len(pseudonyms.look_up(tx, "", "")) == 3


def test_the_key_is_made_once_and_never_anew(database: Database, tmp_path: Path) -> None:
    """There is one before anybody has a pseudonym; afterwards a missing one stays missing."""
    with database.write() as tx:
        key = pseudonyms.key_of(tx, tmp_path)
        first = key.read_text()
        assert pseudonyms.key_of(tx, tmp_path).read_text() == first and len(bytes.fromhex(first)) == 32
        assert key.stat().st_mode & 0o777 == 0o600 and not list(tmp_path.glob("*.part"))
        pseudonyms.remember(tx, said("T7-B", "4711"), NOW)
        key.unlink()
        assert not pseudonyms.key_of(tx, tmp_path).exists()
