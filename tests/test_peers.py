"""The peers themselves: each really runs, and a missing one is never silent in CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peers
import pytest
from sqlalchemy import create_engine, text


def test_storescp_takes_what_storescu_sends(storescp: Callable[..., peers.Storescp], samples: Path) -> None:
    """DCMTK's storescp writes every object that storescu sends."""
    server = storescp()
    files = sorted((samples / "MR" / "ge-dti-002").glob("*"))[:3]
    peers.storescu(server.port, *files, called=server.ae_title)
    assert len(server.files()) == len(files)


def test_orthanc_can_be_asked(orthanc: peers.Orthanc, samples: Path) -> None:
    """Orthanc names the instance that storescu sent and gives it back."""
    file = next((samples / "MR" / "ge-dti-002").glob("*"))
    peers.storescu(orthanc.port, file, called=orthanc.ae_title)
    (tags,) = orthanc.instances()
    assert b"DICM" in orthanc.file(tags["SOPInstanceUID"])[128:132]


def test_postgres_gives_each_test_an_empty_database(postgres: str) -> None:
    """A statement runs on a real PostgreSQL whose public schema is empty."""
    engine = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar()
            == 0
        )
    engine.dispose()


def test_validators_find_what_is_wrong(samples: Path) -> None:
    """PixelMed finds the one wrong code of a published report, and dciodvfy a file that is no DICOM."""
    assert peers.dciodvfy(Path(__file__)) != []
    (error,) = peers.pixelmed_sr(samples / "OBJECTS" / "tid1500-seg-rwvm" / "sr.dcm")
    assert "(eng,RFC3066" in error


def test_a_missing_peer_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """`need` skips on a plain machine and fails in CI."""
    monkeypatch.delenv("PACSNODE_CI", raising=False)
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception):
        peers.need("no-such-program")
    monkeypatch.setenv("PACSNODE_CI", "1")
    with pytest.raises(pytest.fail.Exception):
        peers.need("no-such-program")
