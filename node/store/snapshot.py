"""A consistent copy of an SQLite database that is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from node.store.files import Disk, Folder


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a database that others may be writing; *target* is there whole or not at all.

    Raises OSError or sqlite3.Error.
    """
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=10)) as old:  # noqa: SIM117
            with closing(sqlite3.connect(part)) as new:
                old.backup(new)  # all pages at once: one moment of the database, and no writer has to wait
                new.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        part.chmod(0o640)
        _sync(part)
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    Disk().sync_folder(Folder(target.parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
