"""What `bench receive` sends, and to whom."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.bench import budget, material
from node.bench.budget import BIG, CT, CT4, DISK, EACH, EACH4, MR, MR4, NAGLE
from node.bench.stations import FORK, ORTHANC, POWER, PROCESS, PYNETDICOM, SINK, STORESCP
from node.errors import Broken

BURSTS = 6
"""Of one round, at most."""
_ROOM = 0.8
"""The share of the free disk that may be used."""
_ONE_AT_A_TIME = (POWER, PROCESS, STORESCP, ORTHANC, PYNETDICOM, SINK)
_SEVERAL = (POWER, PROCESS, FORK, ORTHANC, PYNETDICOM, SINK)
_BOTH = (POWER, PROCESS, STORESCP, FORK, ORTHANC, PYNETDICOM, SINK)
_STREAMING = (POWER, PROCESS, STORESCP, SINK)
"""Those that are known not to hold a whole object in memory."""


@dataclass(frozen=True)
class Case:
    """What is sent, and how."""

    name: str
    folders: tuple[Path, ...]
    """One for each association."""
    count: int
    """Objects of a burst in all."""
    size: int
    """Bytes of these."""
    ways: Sequence[str]
    nagle: bool = False
    one_each: bool = False
    big: int = 0
    once: Sequence[str] = (PYNETDICOM,)
    """Ways that are asked for one round only."""

    def rounds_of(self, way: str, rounds: int) -> int:
        """How many of *rounds* a way takes part in."""
        return 1 if way in self.once else rounds

    @property
    def durable(self) -> bool:
        """The bare disk takes part."""
        return self.name in budget.BURSTS

    @property
    def few(self) -> bool:
        """No burst as a scanner makes one: the association or the sender is what is looked at."""
        return self.nagle or self.one_each


CASES = {"ct1": CT, "mr1": MR, "ct4": CT4, "mr4": MR4, "nagle": NAGLE, "each1": EACH, "each4": EACH4}


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    ct: int
    mr: int
    only: Sequence[str] = tuple(CASES)
    durability: Sequence[str] = ("power", "process")
    folder: Path | None = None
    """Where everything is written; None = the folder for temporary files."""
    big: int = 0
    """Frames of 512 kB of one more object; 0 = none."""
    receivers: int = 0
    """Receiver processes of the node; 0 = as many as it has by itself."""


def cases_of(folder: Path, asked: Asked) -> list[Case]:
    """Write what is sent: for four associations a series each, the first of which is long enough for one."""
    wanted = [CASES[name] for name in asked.only]
    found = []
    for letter, count, one, four in (("ct", asked.ct, CT, CT4), ("mr", asked.mr, MR, MR4)):
        write = material.write_ct if letter == "ct" else material.write_mr
        mine = [name for name in wanted if name.startswith(one)]
        several = any(name in (four, EACH4) for name in mine)
        folders = []
        for number in range(4 if several else min(1, len(mine))):
            paths = write(
                folder / f"{letter}{number}", -(-count // 4) if number else count, f"{letter}{number}"
            )
            folders.append(paths[0].parent)
            size = sum(path.stat().st_size for path in paths) // len(paths)
        found += [_of(name, folders, count, size) for name in mine]
    if asked.big:
        size = material.write_big_head(folder / "big", asked.big)
        name = f"{BIG} of {size / 1e9:.2g} GB"
        found.append(Case(name, (folder / "big",), 1, size, _STREAMING, big=size, once=_STREAMING))
    return found


def _of(name: str, folders: Sequence[Path], count: int, size: int) -> Case:
    """The case of that name; fewer objects where each needs an association."""
    several, one_each, nagle = name in (CT4, MR4, EACH4), name in (EACH, EACH4), name == NAGLE
    some = max(4, count // 4) if one_each or nagle else count
    ways = _BOTH if name == EACH else _SEVERAL if several else _ONE_AT_A_TIME
    once = (PYNETDICOM, STORESCP, ORTHANC) if nagle else (PYNETDICOM,)
    chosen = tuple(folders) if several else tuple(folders[:1])
    return Case(name, chosen, some, some * size, ways, nagle, one_each, once=once)


def check_room(folder: Path, cases: Sequence[Case], rounds: int) -> None:
    """Raise Broken where the disk is too small: what earlier rounds wrote is kept to the end.

    ext4 creates files slowly in a tree of which thousands have just been removed, which would be measured.
    """
    need = sum(
        case.size * case.rounds_of(way, rounds) * 2
        for case in cases
        for way in (*case.ways, DISK)
        if way != SINK
    )
    free = shutil.disk_usage(folder).free
    if need > free * _ROOM:
        raise Broken(
            f"{free / 1e9:.0f} GB are free at {folder.parent}, and this may need {need / 1e9:.0f} GB; ask for fewer "
            "--rounds or objects (--ct, --mr), or name a folder on another disk with --dir"
        )
