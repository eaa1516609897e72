"""Claims about what `check`, `send` and `run` tell when a file, a peer or a folder is not what it should be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cli_material import CT, place
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from node.testing import Series, write_ct_series


@dataclass
class Aborting:
    """A PACS that aborts on some objects, and keeps the others."""

    on: set[str]
    got: list[str] = field(default_factory=list)
    associations: int = 0

    def store(self, event: Any) -> int:
        """Abort, or keep."""
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.on:
            event.assoc.abort()
        else:
            self.got.append(uid)
        return 0x0000

    def accepted(self, _: Any) -> None:
        """Count."""
        self.associations += 1


@pytest.fixture
def peer() -> Iterator[tuple[Aborting, int]]:
    """The PACS and its port."""
    found = Aborting(set())
    ae = AE(ae_title="PACS")
    ae.add_supported_context(CTImageStorage)
    handlers = [(evt.EVT_C_STORE, found.store), (evt.EVT_ACCEPTED, found.accepted)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield found, server.server_address[1]
    server.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The 8 slices of a CT, in the order they are sent."""
    folder = tmp_path / "ct"
    write_ct_series(folder, CT, series=Series("ct"))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def uid_of(path: Path) -> str:
    """SOP Instance UID of a file."""
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def test_what_a_peer_aborts_on_does_not_keep_the_others_from_it(
    tmp_path: Path, peer: tuple[Aborting, int], files: list[Path]
) -> None:
    """It aborts on the third and the sixth of eight: those two are named, the six others are stored, once."""
    pacs, port = peer
    pacs.on = {uid_of(files[2]), uid_of(files[5])}
    result = place(tmp_path / "site", port=port).run("send", tmp_path / "ct", "--to", "PACS")
    assert (result.exit_code, result.stdout) == (1, "6 stored at PACS\n")
    assert sorted(pacs.got) == sorted({uid_of(path) for path in files} - pacs.on)
    assert pacs.associations == 3
    named = [path for path in files if f"{path}: " in result.stderr]
    assert named == [files[2], files[5]]


def test_files_that_were_never_tried_are_named(tmp_path: Path, files: list[Path]) -> None:
    """Where nobody listens every file is named, and why, once."""
    result = place(tmp_path / "site").run("send", tmp_path / "ct", "--to", "ARCHIVE")
    assert (result.exit_code, result.stdout) == (1, "0 stored at ARCHIVE\n")
    assert [f"{path}: " in result.stderr for path in files] == [True] * 8
    assert result.stderr.count("was not tried") == 8
    assert result.stderr.count("ARCHIVE at 127.0.0.1:1 ") == 1


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_rule_file_that_is_no_text_does_not_hide_other_mistakes(
    tmp_path: Path, json: tuple[str, ...]
) -> None:
    """`check` names it beside the mistakes of the readable files, and ends with 2."""
    site = place(tmp_path / "site", rules="rule: a\npurpos: p\nowner: o@h.example\nwhen: {}\ndiscard: yes\n")
    (site.folder / "rules" / "latin.yaml").write_bytes(b"rule: K\xd6LN")
    result = site.run("check", *json)
    assert result.exit_code == 2
    assert "latin.yaml:1:8: not UTF-8 text" in result.stdout
    assert "did you mean purpose?" in result.stdout


def test_a_data_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    """`run` refuses to start and says that it is a file."""
    site = place(tmp_path / "site")
    (site.folder / "data").write_text("")
    result = site.run("run")
    assert result.exit_code == 2
    assert f"node.data: {site.folder / 'data'} is a file, not a folder" in result.stderr


def test_no_python_warning_quotes_a_header(tmp_path: Path, files: list[Path]) -> None:
    """A verb shows no warnings of libraries, which quote what a header holds."""
    image = pydicom.dcmread(files[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.file_meta.MediaStorageSOPInstanceUID = "Secret Name"
        image.save_as(files[0], enforce_file_format=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = place(tmp_path / "site").run("explain", files[0])
    assert result.exit_code == 0
    assert [str(warning.message) for warning in caught] == []


def test_nothing_identified_is_sent_by_hand_to_a_peer_that_takes_nothing_else(
    tmp_path: Path, peer: tuple[Aborting, int], files: list[Path]
) -> None:
    """With `only: deidentified` just the file that says Patient Identity Removed YES goes; the others are named."""
    pacs, port = peer
    ds = pydicom.dcmread(files[0])
    ds.PatientIdentityRemoved = "YES"
    ds.save_as(files[0])
    here = place(tmp_path / "site", port=port)
    file = here.folder / "node.yaml"
    text = file.read_text()
    file.write_text(text.replace(f'"127.0.0.1:{port}"', f'"127.0.0.1:{port}", only: deidentified', 1))
    assert file.read_text() != text
    result = here.run("send", tmp_path / "ct", "--to", "PACS")
    assert result.exit_code == 1 and result.stdout == "1 stored at PACS\n"
    assert pacs.got == [uid_of(files[0])]
    assert result.stderr.count("takes only de-identified data") == len(files) - 1
