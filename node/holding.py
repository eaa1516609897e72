"""The one conductor of a data folder: it holds a lock as long as it lives."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from node.errors import Misconfigured


def hold(data: Path) -> int:
    """Be the only one that works on this data folder until the process ends; the kernel frees it at death.

    Raises Misconfigured when another one does, or where there is no such folder.
    """
    for _ in range(20):  # `is_running` takes the lock for a moment, too
        descriptor = _lock(data)
        if descriptor is not None:
            return descriptor
        time.sleep(0.05)
    raise Misconfigured(f"a node works on {data}; stop it first, or give this one its own node.data")


def is_running(data: Path) -> bool:
    """Whether a conductor works on this data folder."""
    descriptor = _lock(data)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _lock(data: Path) -> int | None:
    try:
        descriptor = os.open(data / "conductor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"node.data: {data} cannot be used ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
