"""`python -m node.bench.disk FOLDER FILE THREADS`: what this disk allows whoever keeps each object durably.

The bare recipe, in one loop per thread: create a `.part`, write it, sync it, rename it, sync the directory. Says
`ready` when it is warm, then for each line `COUNT` what so many objects took, all threads together, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_WARM = 10


def keep(folder: Path, directory: int, number: int, data: bytes) -> None:
    """Keep one object so that it survives a power cut."""
    part, target = folder / f"{number:08d}.part", folder / f"{number:08d}.dcm"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.fdatasync(file)
    os.close(file)
    os.rename(part, target)  # noqa: PTH104 - the bare system call
    os.fsync(directory)


def loop(folder: Path, numbers: Sequence[int], data: bytes) -> None:
    """Keep one object per number, one after the other."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in numbers:
        keep(folder, directory, number, data)
    os.close(directory)


def main(folder: Path, file: Path, threads: int) -> None:
    """Serve one round."""
    data = file.read_bytes()
    folder.mkdir(parents=True)
    loop(folder, range(_WARM), data)
    done = _WARM
    print(json.dumps({"wrong": ""}), flush=True)
    while line := sys.stdin.readline().strip():
        count = int(line)
        shares = [range(done + first, done + count, threads) for first in range(threads)]
        workers = [threading.Thread(target=loop, args=(folder, share, data)) for share in shares]
        done += count
        began, cpu = time.monotonic(), time.process_time()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took = {"began": began, "ended": time.monotonic(), "acknowledged": count}
        print(json.dumps({**took, "cpu": time.process_time() - cpu, "wrong": ""}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
