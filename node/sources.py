"""Files that a person names, for `explain`, `process` and `rule new`: folders, single files, DICOMDIRs, zip files.

Members of a zip file are unpacked one by one under names of ours into a folder that is removed afterwards: what a
zip file says about names, sizes and links decides nothing. What it may cost is bounded.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from node.errors import Misconfigured, Refused
from node.read.dicomdir import files_of, is_dicomdir

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_BLOCK = 1 << 20
_PREAMBLE = 132
ENCRYPTED = 0x1
"""General purpose bit 0 (APPNOTE.TXT 4.4.4)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one zip file may cost."""

    members: int = 100_000
    size: int = 16 << 30
    """Bytes, unpacked."""
    ratio: int = 100
    """Unpacked to packed, counted once `free` is passed: black images pack very well, but not all of a study."""
    free: int = 1 << 30

    def may_unpack(self, packed: int) -> int:
        """How many bytes a file of *packed* bytes may become."""
        return min(self.size, max(self.free, self.ratio * packed))


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read."""

    path: Path
    shown: str
    """How people know it: for a member, the zip file and the name in it."""
    why_not: str = ""
    """Why it is not read."""


@dataclass
class Sources:
    """Reads what paths name; members of zip files go to *spool*."""

    spool: Path
    bounds: Bounds = field(default_factory=Bounds)
    _unpacked: int = 0

    def of(self, paths: Iterable[Path]) -> Iterator[Source]:
        """Every file named, and all below the folders named, in order.

        Raises Misconfigured for what is not there, Refused for a zip file or DICOMDIR that was named and cannot
        be read; one that only lies in a folder is passed over with the reason.
        """
        for path in paths:
            if not path.exists():
                raise Misconfigured(f"{path}: there is no such file or folder")
            if path.is_dir():
                yield from self._folder(path)
            elif is_zip(path):
                yield from self._members(path)
            elif is_dicomdir(path):
                yield from _of_medium(path)
            else:
                yield Source(path, str(path))

    def _folder(self, path: Path) -> Iterator[Source]:
        """All files below it, in order; a folder that may not be listed is one source that is not read."""
        closed: list[OSError] = []
        files = [Path(at) / name for at, _, names in os.walk(path, onerror=closed.append) for name in names]
        for below in sorted(p for p in files if p.is_file()):
            yield from self._below(below)
        for error in closed:
            yield Source(Path(error.filename), str(error.filename), f"cannot be read: {error.strerror}")

    def _below(self, path: Path) -> Iterator[Source]:
        if not os.access(path, os.R_OK, effective_ids=True):
            yield Source(path, str(path), "cannot be read: Permission denied")
        elif is_zip(path):
            try:
                yield from self._members(path)
            except Refused as error:
                yield Source(path, str(path), str(error).removeprefix(f"{path}: "))
        elif path.name.upper().startswith("DICOMDIR") and is_dicomdir(path):
            yield Source(path, str(path), "the directory of a medium; the files themselves are looked at")
        else:
            yield Source(path, str(path))

    def _members(self, path: Path) -> Iterator[Source]:
        """The DICOM files in a zip file, unpacked; a reason for each other member."""
        left = self.bounds.may_unpack(path.stat().st_size)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info for info in archive.infolist() if not info.is_dir()]
                self._refuse(path, members)
                for info in members:
                    source, used = self._member(path, archive, info, left)
                    left -= used
                    yield source
        except (
            zipfile.BadZipFile,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zlib.error,
            OSError,
        ) as error:
            raise Refused(f"{path}: it cannot be read as a zip file ({error}); is it whole?") from None

    def _refuse(self, path: Path, members: list[zipfile.ZipInfo]) -> None:
        if any(info.flag_bits & ENCRYPTED for info in members):
            raise Refused(f"{path}: it is encrypted; unpack it with its password, and name the folder")
        if len(members) > self.bounds.members:
            raise Refused(f"{path}: {len(members)} files are in it, and {self.bounds.members} are the most")

    def _member(
        self, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int
    ) -> tuple[Source, int]:
        shown = f"{path}: {info.filename}"
        with archive.open(info) as member:
            head = member.read(_PREAMBLE)
            if head.startswith((_ZIP, _EMPTY_ZIP)):
                return Source(path, shown, "a zip file inside a zip file is not opened"), len(head)
            if head[128:] != b"DICM":
                return Source(path, shown, "not a DICOM file"), len(head)
            self._unpacked += 1
            target = self.spool / f"{self._unpacked:08d}.dcm"
            return Source(target, shown), self._unpack(path, head, member, target, left)

    def _unpack(self, path: Path, head: bytes, member: IO[bytes], target: Path, left: int) -> int:
        """Write *head* and the rest of a member; how much that was. Raises Refused where it is more than *left*."""
        size = len(head)
        with target.open("wb") as file:
            file.write(head)
            while block := member.read(_BLOCK):
                size += len(block)
                if size > left:
                    raise Refused(
                        f"{path}: it unpacks to more than {self.bounds.may_unpack(path.stat().st_size) / 1e9:.1f} "
                        "GB, which no study of its size does; unpack it elsewhere, and name the folder"
                    )
                file.write(block)
        return size


def is_zip(path: Path) -> bool:
    """Whether a file is, or calls itself, a zip file."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return head in (_ZIP, _EMPTY_ZIP) or path.suffix.lower() == ".zip"


def _of_medium(path: Path) -> Iterator[Source]:
    """The files that a DICOMDIR names."""
    for named in files_of(path):
        if named.path is None:
            yield Source(path, f"{path}: {named.name}", "the DICOMDIR names it, and it is not there")
        else:
            yield Source(named.path, str(named.path))


@contextmanager
def opened(bounds: Bounds | None = None) -> Iterator[Sources]:
    """A reader of sources; what it unpacks is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pacsnode-") as spool:
        yield Sources(Path(spool), bounds or Bounds())
