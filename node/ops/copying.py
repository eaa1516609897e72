"""Copying what never changes: received objects and results, once each, durable before it counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from node.store.files import Disk, Folder
from node.store.records import NOTES, OBJECT

_BLOCK = 4 << 20
_TELL = 1000


@dataclass(slots=True)
class Copied:
    """What a backup or a restore did."""

    files: int = 0
    """Copied or linked now."""
    bytes: int = 0
    there: int = 0
    """Already there from an earlier backup."""
    dropped: int = 0
    """Files of the backup that retention has removed from the node since."""
    linked: bool = False
    """The backup is on the node's own disk, which does not protect from a broken one."""
    database: str = "sqlite"
    removed_meanwhile: int = 0
    """Series that retention removed between the copy of the database and the end."""
    missing: list[str] = field(default_factory=list)
    """Files that rows promise and that are not there."""


@dataclass(slots=True)
class Copier:
    """Copies files of one folder to another under the same names; *link* where both are on one disk."""

    source: Path
    target: Path
    link: bool
    tell: Callable[[int], None]
    """Gets the number of files after each thousand."""
    copied: Copied
    _folders: set[Path] = field(default_factory=set)

    def copy(self, name: Path | str) -> None:
        """One file; nothing where it is there already, or gone from the source. Raises OSError."""
        old, new = self.source / name, self.target / name
        try:
            size = old.stat().st_size
            if new.exists() and new.stat().st_size == size:
                self.copied.there += 1
                return
            if not new.parent.is_dir():
                Disk().make_folder(new.parent)
            part = new.with_name(f"{new.name}.part")
            part.unlink(missing_ok=True)
            if self.link:
                part.hardlink_to(old)
            else:
                _write_copy(old, part)
            part.replace(new)
        except FileNotFoundError:  # removed in the meantime, or missing: the rows tell which
            return
        self._folders.add(new.parent)
        self.copied.files += 1
        self.copied.bytes += size
        if self.copied.files % _TELL == 0:
            self.tell(self.copied.files)

    def finish(self) -> None:
        """Make the new names durable. Raises OSError."""
        for folder in sorted(self._folders):
            Disk().sync_folder(Folder(folder))


def _write_copy(source: Path, part: Path) -> None:
    with source.open("rb") as old, part.open("xb") as new:
        os.fchmod(new.fileno(), 0o640)
        shutil.copyfileobj(old, new, _BLOCK)
        new.flush()
        os.fsync(new.fileno())


def files_below(folder: Path) -> Iterator[Path]:
    """Whole records and results, in order; parts, locks and what runs leave beside their results stay out."""
    for place, below, names in os.walk(folder):
        below.sort()
        yield from (Path(place, name) for name in sorted(names) if name.endswith((OBJECT, *NOTES)))
