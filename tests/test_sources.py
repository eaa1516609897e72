"""Files that a person names: folders, DICOMDIRs and zip files, read safely or refused in words."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from peers import as_somebody_else
from pydicom import dcmread
from pydicom.data import get_testdata_file

from node.dryrun import Found, find_series
from node.errors import Misconfigured, Refused
from node.sources import Bounds, Sources, opened
from node.testing import Grid, Series, body_volume, write_ct_series

CT = body_volume(Grid(shape=(4, 16, 16), spacing=(5, 12, 12)))


def found(*paths: Path, bounds: Bounds | None = None) -> Found:
    """The series among what paths name."""
    with opened(bounds) as sources:
        return find_series(paths, sources)


def zipped(path: Path, *files: Path | tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip file of files, or of names and bytes."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for file in files:
            if isinstance(file, tuple):
                archive.writestr(*file)
            else:
                archive.write(file, file.name)
    return path


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    """Four slices of a CT."""
    return list(write_ct_series(tmp_path / "ct", CT, series=Series("ct")))


def test_a_zip_file_gives_the_series_that_its_files_are(tmp_path: Path, slices: list[Path]) -> None:
    """The same headers as from the folder; other members are named with the reason, nested ones not opened."""
    inner = zipped(tmp_path / "inner.zip", *slices)
    path = zipped(tmp_path / "study.zip", *slices, ("notes.txt", b"x"), inner)
    there, here = found(path), found(tmp_path / "ct")
    assert [one.headers for one in there.series] == [
        [  # when a file came is when it was written
            replace(h, received_at=t.received_at) for h, t in zip(one.headers, other.headers, strict=True)
        ]
        for one, other in zip(here.series, there.series, strict=True)
    ]
    assert there.passed_over == {
        f"{path}: notes.txt": "not a DICOM file",
        f"{path}: inner.zip": "a zip file inside a zip file is not opened",
    }


def test_names_in_a_zip_file_lead_nowhere(tmp_path: Path, slices: list[Path]) -> None:
    """Members that call themselves `../../x` or `/etc/x`, and links, are files of ours below the spool folder."""
    data = slices[0].read_bytes()
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(("../../out.dcm", "/etc/out.dcm", "C:\\out.dcm", "a\0b.dcm")):
            archive.writestr(name, data + bytes([number]))
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    spool = tmp_path / "spool"
    spool.mkdir()
    read = [source for source in Sources(spool).of([path]) if not source.why_not]
    assert len(read) == 4
    assert {source.path.parent for source in read} == {spool}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ct", "evil.zip", "spool"]


def test_what_is_unpacked_is_gone_afterwards(tmp_path: Path, slices: list[Path]) -> None:
    """The spool folder ends with the reading."""
    with opened() as sources:
        (first, *_) = sources.of([zipped(tmp_path / "a.zip", *slices)])
        assert first.path.exists()
    assert not first.path.parent.exists()


def bomb(path: Path) -> Path:
    """A zip file whose one member is DICOM and then three megabytes of nothing."""
    return zipped(path, ("a.dcm", b"\0" * 128 + b"DICM" + b"\0" * 3_000_000))


def lying(path: Path) -> Path:
    """The same; its directory says that it is ten bytes long."""
    data = bytearray(bomb(path).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    return path


def encrypted(path: Path) -> Path:
    """A zip file whose member says that it is encrypted."""
    data = bytearray(zipped(path, ("a.dcm", b"x")).read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def cut(path: Path) -> Path:
    """Half a zip file."""
    whole = zipped(path, ("a.dcm", os.urandom(10_000)))
    whole.write_bytes(whole.read_bytes()[:5000])
    return whole


def many(path: Path) -> Path:
    """A zip file of too many members."""
    return zipped(path, *((f"{n}.txt", b"") for n in range(60)))


def text(path: Path) -> Path:
    """No zip file but by its name."""
    path.write_text("hello")
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bomb, "it unpacks to more than"),
        (lying, "it cannot be read as a zip file"),
        (encrypted, "it is encrypted; unpack it with its password"),
        (cut, "it cannot be read as a zip file"),
        (many, "60 files are in it, and 50 are the most"),
        (text, "it cannot be read as a zip file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_zip_file_that_will_not_do(tmp_path: Path, slices: list[Path], make: object, words: str) -> None:
    """Named by itself it is refused in words; in a folder it does not keep the other files from being read."""
    bounds = Bounds(members=50, size=1 << 21, ratio=10, free=1 << 20)
    path = make(tmp_path / "ct" / "x.zip")  # type: ignore[operator]
    with pytest.raises(Refused, match=words) as refused:
        found(path, bounds=bounds)
    assert str(refused.value).startswith(f"{path}: ")
    there = found(tmp_path / "ct", bounds=bounds)
    assert [len(one.headers) for one in there.series] == [4]
    assert words in there.passed_over[str(path)]


# --- DICOMDIR


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """The DICOMDIR of a medium: two patients, 31 files."""
    source = Path(str(get_testdata_file("dicomdirtests/DICOMDIR"))).parent
    shutil.copytree(source, tmp_path / "cd")
    return tmp_path / "cd" / "DICOMDIR"


def test_a_dicomdir_names_its_files(medium: Path) -> None:
    """What the medium's directory names is what its folder holds; a file that is missing is told by its name."""
    there = found(medium)
    named = {path.relative_to(medium.parent).parts[0] for one in there.series for path in one.paths}
    assert named == {"77654033", "98892001", "98892003", "TINY_ALPHA"} & named
    assert sum(len(one.headers) for one in there.series) == 31
    gone = there.series[0].paths[0]
    gone.unlink()
    again = found(medium)
    assert sum(len(one.headers) for one in again.series) == 30
    (told,) = again.passed_over
    assert told.endswith("/".join(gone.relative_to(medium.parent).parts))
    assert again.passed_over[told] == "the DICOMDIR names it, and it is not there"


def test_a_medium_whose_names_lost_their_capitals(medium: Path) -> None:
    """Some systems show the files of a CD in small letters: they are found all the same."""
    before = sum(len(one.headers) for one in found(medium).series)
    for path in sorted(medium.parent.rglob("*"), key=lambda p: -len(p.parts)):
        if path != medium:
            path.rename(path.with_name(path.name.lower()))
    assert sum(len(one.headers) for one in found(medium).series) == before


def test_a_dicomdir_that_leads_out_of_its_medium(medium: Path) -> None:
    """`..` in a record's file name, and a link that leads out, are not followed."""
    dataset = dcmread(medium)
    named = [record for record in dataset.DirectoryRecordSequence if record.get("ReferencedFileID")]
    named[0].ReferencedFileID = ["..", "secret"]
    target = medium.parent.joinpath(*named[1].ReferencedFileID)
    shutil.copy(target, medium.parent.parent / "secret")
    target.unlink()
    target.symlink_to(medium.parent.parent / "secret")
    dataset.save_as(medium)
    there = found(medium)
    assert sum(len(one.headers) for one in there.series) == 29
    assert len(there.passed_over) == 2


@pytest.mark.parametrize("harm", ["cut", "text", "records"])
def test_a_broken_dicomdir(medium: Path, harm: str) -> None:
    """It is refused with a way out; its folder can still be read."""
    if harm == "cut":
        medium.write_bytes(medium.read_bytes()[:300])
    elif harm == "text":
        medium.write_bytes(b"\0" * 128 + b"DICMnothing of the kind")
    else:
        dataset = dcmread(medium)
        del dataset.DirectoryRecordSequence
        dataset.save_as(medium)
    with pytest.raises(Refused, match=r"cannot be read as a DICOMDIR.*name the folder"):
        found(medium)
    assert sum(len(one.headers) for one in found(medium.parent).series) >= 31


def test_what_is_not_there(tmp_path: Path) -> None:
    """A wrong path is a usage error with the path."""
    with pytest.raises(Misconfigured, match="nowhere: there is no such file or folder"):
        found(tmp_path / "nowhere")


def test_what_may_not_be_read_is_named_and_hides_nothing_else(tmp_path: Path, slices: list[Path]) -> None:
    """A folder without permission, and a file, each with the reason; the rest is found."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        (top / "open").mkdir()
        (top / "closed").mkdir(mode=0o700)
        for path in slices:
            shutil.copy(path, top / "open" / path.name)
            (top / "open" / path.name).chmod(0o644)
        shutil.copy(slices[0], top / "closed" / "a.dcm")
        last = top / "open" / slices[-1].name
        last.chmod(0o600)
        with as_somebody_else(), opened() as sources:
            told = {source.shown: source.why_not for source in sources.of([top])}
    assert told.pop(str(top / "closed")) == "cannot be read: Permission denied"
    assert told.pop(str(last)) == "cannot be read: Permission denied"
    assert sorted(told) == sorted(str(top / "open" / path.name) for path in slices[:-1])
    assert set(told.values()) == {""}
