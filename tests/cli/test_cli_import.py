"""Claims about `import`: files are taken in as if a peer had sent them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli.cli_material import CT, Place, place
from pydicom.fileset import FileSet

from node.store.arrival import read_arrival
from node.store.files import read_end, receiver_runs, records_after
from node.testing import Series, write_ct_series


@pytest.fixture
def site(tmp_path: Path) -> Place:
    """A site whose node was never started."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    return made


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A CT series as files."""
    return write_ct_series(tmp_path / "images", CT, series=Series("ct"))


def _kept(site: Place) -> list[Path]:
    data = site.folder / "data"
    return [one.path for run in receiver_runs(data) for one in records_after(data, run, 0)]


def test_files_are_kept_as_if_a_peer_had_sent_them(site: Place, images: list[Path]) -> None:
    """Each dataset byte for byte, with the sender, its AE title and ours, in one association that is released."""
    said = site.run("import", images[0].parent, "--from", "CT01")
    assert said.exit_code == 0
    assert said.stdout == (
        f"{len(images)} objects taken in, as from CT01\nthe node does not run; it looks at them when it starts\n"
    )
    *objects, end = _kept(site)
    assert len(objects) == len(images)
    for path, source in zip(objects, sorted(images), strict=True):
        (arrival, offset), (given, skipped) = read_arrival(path), read_arrival(source)
        assert path.read_bytes()[offset:] == source.read_bytes()[skipped:]
        assert (arrival.peer, arrival.calling, arrival.called) == ("CT01", "CT01", "PACSNODE")
        assert (arrival.sop_uid, arrival.sop_class, arrival.transfer_syntax) == (
            given.sop_uid, given.sop_class, given.transfer_syntax,
        )  # fmt: skip
        assert arrival.association == read_end(end).association
    assert (read_end(end).objects, read_end(end).aborted) == (len(images), False)


def test_what_lies_beside_the_objects_is_passed_over_and_counted(site: Place, images: list[Path]) -> None:
    """A DICOMDIR and files that are not DICOM are no problem below a folder; one that was named is."""
    medium = FileSet()
    for path in images:
        medium.add(path)
    folder = images[0].parent.with_name("medium")
    medium.write(folder)
    (folder / "AUTORUN.INF").write_text("[autorun]")
    found = site.json("import", folder, "--from", "CT01")
    assert found == {"kept": len(images), "passed_over": 2, "problems": []}
    said = site.run("import", folder / "AUTORUN.INF", "--from", "CT01")
    assert said.exit_code == 1
    assert f"{folder / 'AUTORUN.INF'}: not a DICOM Part 10 file" in said.stderr


def test_a_file_without_transfer_syntax_is_named_and_the_rest_taken_in(
    site: Place, images: list[Path]
) -> None:
    """Its dataset could be read in three ways; nobody guesses, and the others are not held up."""
    data = images[2].read_bytes()
    at = data.index(b"\x02\x00\x10\x00UI")
    images[2].write_bytes(data[:at] + b"\x02\x00\x11\x00" + data[at + 4 :])
    said = site.run("import", *images, "--from", "CT01")
    assert said.exit_code == 1
    assert f"{images[2]}: its File Meta Information names no Transfer Syntax UID" in said.stderr
    assert f"{len(images) - 1} objects taken in" in said.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--from", "CT1"), "CT1 is not among the peers; did you mean CT01?"),
        (("--from", "CT01", "--called", "PACSNOD"), "none of node.ae_titles; did you mean PACSNODE?"),
        ((), "Missing option '--from'"),
    ],
)
def test_misuse_is_refused_before_anything_is_taken_in(
    site: Place, images: list[Path], options: tuple[str, ...], words: str
) -> None:
    """A sender that nobody knows, a title that is not ours, no sender at all."""
    said = site.run("import", *images, *options)
    assert said.exit_code == 2
    assert words in said.stderr
    assert _kept(site) == []


def test_another_user_is_refused(site: Place, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The node could not read what somebody else writes into its folder."""
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    said = site.run("import", *images, "--from", "CT01")
    assert said.exit_code == 2
    assert "run this as the user that the node runs as" in said.stderr
    assert _kept(site) == []


def test_a_disk_that_is_too_full_takes_nothing(site: Place, images: list[Path]) -> None:
    """As for a sender over the network; the association counts as broken off, and the words say what next."""
    text = site.site.read_text()
    site.site.write_text(text + "disk: {warn: 0.001 %, stop_processing: 0.002 %, refuse: 0.003 %}\n")
    said = site.run("import", *images, "--from", "CT01")
    assert said.exit_code == 1
    assert (
        "the disk is above disk.refuse; 0 objects were taken in. Free space, and import the same again"
        in said.stderr
    )
    (end,) = _kept(site)
    assert (read_end(end).objects, read_end(end).aborted) == (0, True)
