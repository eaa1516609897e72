"""The peers themselves: each really runs, and a missing one is never silent in CI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import peers
import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, text

from node.testing import Grid, Series, sphere_volume, write_ct_series


def phantom(folder: Path) -> list[Path]:
    """Three CT slices of a ball."""
    return write_ct_series(
        folder / "sent", sphere_volume(Grid((3, 16, 16)), radius=5), series=Series("peers")
    )


def test_storescp_takes_what_storescu_sends(storescp: Callable[..., peers.Storescp], tmp_path: Path) -> None:
    """DCMTK's storescp writes every object that storescu sends."""
    server = storescp()
    files = phantom(tmp_path)
    peers.storescu(server.port, *files, called=server.ae_title)
    assert len(server.files()) == len(files)


def test_orthanc_can_be_asked(orthanc: peers.Orthanc, tmp_path: Path) -> None:
    """Orthanc names the instance that storescu sent and gives it back."""
    peers.storescu(orthanc.port, phantom(tmp_path)[0], called=orthanc.ae_title)
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


def test_dciodvfy_finds_what_is_wrong(tmp_path: Path) -> None:
    """A file that is no DICOM and an image without its KVP have errors, the image as it was has none."""
    (image, *_) = phantom(tmp_path)
    assert peers.dciodvfy(Path(__file__)) != []
    assert peers.dciodvfy(image) == []
    dataset = dcmread(image)
    del dataset.KVP
    dataset.save_as(image)
    assert any("KVP" in line for line in peers.dciodvfy(image))


def test_pixelmed_finds_what_is_wrong(samples: Path) -> None:
    """PixelMed finds the one wrong code of a published report."""
    (error,) = peers.pixelmed_sr(samples / "OBJECTS" / "tid1500-seg-rwvm" / "sr.dcm")
    assert "(eng,RFC3066" in error


@pytest.mark.long
def test_pixelmed_for_many_files_says_what_it_says_for_one(samples: Path, tmp_path: Path) -> None:
    """Line by line, of a published report and of an image, the second time, too; a file that is gone harms no other."""
    report = samples / "OBJECTS" / "tid1500-seg-rwvm" / "sr.dcm"
    (image, *_) = phantom(tmp_path)
    alone = {path: peers.pixelmed_alone(path) for path in (report, image)}
    assert alone[report][-1] == "IOD validation complete"
    with pytest.raises(AssertionError, match="gone"):
        peers.pixelmed_sr(tmp_path / "gone.dcm")
    for path in (report, image, report):
        assert peers._pixelmed_resident(path) == alone[path]


def test_a_missing_peer_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """`need` skips on a plain machine and fails in CI."""
    monkeypatch.delenv("PACSNODE_CI", raising=False)
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception):
        peers.need("no-such-program")
    monkeypatch.setenv("PACSNODE_CI", "1")
    with pytest.raises(pytest.fail.Exception):
        peers.need("no-such-program")


def test_a_program_of_the_venv_is_no_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a peer is missing, its namesake beside our interpreter does not stand in for it, though on the PATH."""
    beside = Path(sys.executable).parent
    name = next(path.name for path in beside.iterdir() if path.name.startswith("pacsnode"))
    monkeypatch.setenv("PATH", f"{beside}:{tmp_path}")
    monkeypatch.setenv("PACSNODE_CI", "1")
    with pytest.raises(pytest.fail.Exception):
        peers.need(name)
    (tmp_path / name).touch(0o755)
    assert peers.need(name) == str(tmp_path / name)
