"""How full the disk of `node.data` is, and what the node does not do for that."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from node.settings import Settings


def disk_used(data: Path) -> float:
    """Share of the disk that is used, 0 to 1."""
    usage = shutil.disk_usage(data)
    return usage.used / (usage.used + usage.free)


def disk_bytes(data: Path) -> int:
    """How many bytes the disk of *data* holds for us: what is used and what is free."""
    usage = shutil.disk_usage(data)
    return usage.used + usage.free


def crowding(settings: Settings, waiting: Mapping[str, int]) -> dict[str, float]:
    """Destination → share of the disk that what waits for it takes, where that is `disk.per_destination` or more.

    100 % is no limit.
    """
    limit, whole = settings.disk.per_destination, disk_bytes(settings.node.data)
    if limit >= 1:
        return {}
    return {name: size / whole for name, size in waiting.items() if size >= limit * whole}


def disk_problem(settings: Settings) -> str:
    """What the node does not do because the disk is too full, and what to do; empty when all is well."""
    share, disk = disk_used(settings.node.data), settings.disk
    if share >= disk.refuse:
        what, key = "senders are answered A700 (out of resources)", f"disk.refuse ({disk.refuse:.0%})"
    elif share >= disk.stop_processing:
        what, key = (
            "processing waits",
            f"disk.stop_processing ({disk.stop_processing:.0%})",
        )
    elif share >= disk.warn:
        what, key = "it fills up", f"disk.warn ({disk.warn:.0%})"
    else:
        return ""
    return f"the disk of node.data is {share:.0%} full, above {key}: {what}; free space or raise the limit"
