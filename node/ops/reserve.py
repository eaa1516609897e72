"""A file that holds some room of the disk, given up when the disk is full.

Without it a full disk stays full: rows cannot be written, so nothing is delivered, so retention may remove nothing.
The room is the tables' to use: receivers refuse, and runs wait, as long as the disk is nearly full.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

MOST = 64 << 20
"""Bytes; of a small disk a fiftieth."""


def reserve_path(data: Path) -> Path:
    """Where the room is kept: beside the signs of life, of which a backup takes nothing."""
    return data / "run" / "reserve"


def tend(data: Path) -> None:
    """Give the room up where the disk has next to none, take it where the disk has plenty. Never raises."""
    path = reserve_path(data)
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(data)
        size = min(MOST, usage.total // 50)
        if usage.free < size // 4:
            path.unlink(missing_ok=True)
        elif usage.free > 4 * size and not path.exists():
            _take(path, size)


def is_out_of_room(error: BaseException) -> bool:
    """Whether *error*, of a file or of the database, says that the disk takes nothing more."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    told = getattr(error, "orig", None)
    name = str(getattr(told, "sqlite_errorname", ""))
    return (
        name == "SQLITE_FULL"
        or name.startswith("SQLITE_IOERR_SHM")
        or getattr(told, "sqlstate", "") == "53100"
    )


def _take(path: Path, size: int) -> None:
    path.parent.mkdir(mode=0o750, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
