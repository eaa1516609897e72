"""How fast the node receives, beside DCMTK's storescp: same data, same sender, same machine, one run.

    python tests/bench/receive.py [--rounds 3] [--nagle]

The sender is DCMTK's storescu, its start and its reading of the files included, with Nagle's algorithm off
(TCP_NODELAY=1) unless `--nagle`. Each round starts every receiver anew with an empty folder and takes them in
turn; the median counts. storescp does not sync what it writes; the node does where `durability: power`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peers import free_port, running, wait_listening

from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

NODE = Path(sys.executable).with_name("pacsnode")
SITE = """\
node:
  {{ae_titles: [NODE], listen: 127.0.0.1:{port}, durability: {durability},
   timezone: UTC, data: data, rules: rules}}
peers: {{SENDER: {{sends_as: [SENDER]}}}}
"""


@dataclass(frozen=True)
class Case:
    """What is sent: *folders* with *count* objects in all, one association each."""

    name: str
    folders: tuple[Path, ...]
    count: int


Receiver = Callable[[Path], contextlib.AbstractContextManager[int]]


@contextlib.contextmanager
def node(folder: Path, durability: str) -> Iterator[int]:
    """Run a whole node without rules in *folder*; yield its port."""
    port = free_port()
    (folder / "rules").mkdir(parents=True)
    site = folder / "node.yaml"
    site.write_text(SITE.format(port=port, durability=durability))
    with running([str(NODE), "run"], folder / "log", {"PACSNODE_CONFIG": str(site)}) as process:
        wait_listening(process, port, folder / "log")
        yield port


@contextlib.contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Run DCMTK's storescp, a process per association, writing what it gets bit for bit; yield its port."""
    port = free_port()
    folder.mkdir(parents=True)
    program = shutil.which("storescp", path="/usr/bin:/usr/local/bin")
    if program is None:
        sys.exit("DCMTK's storescp is not installed: apt-get install dcmtk")
    command = [program, "--fork", "+B", "-pdu", "131072", "-aet", "NODE", "-od", str(folder), str(port)]
    with running(command, folder.with_suffix(".log"), {"TCP_NODELAY": "1"}) as process:
        wait_listening(process, port, folder.with_suffix(".log"))
        yield port


def send(case: Case, port: int, nodelay: str) -> float:
    """Send every folder of *case* at once, an association each; return objects per second."""
    sender = shutil.which("storescu", path="/usr/bin:/usr/local/bin") or sys.exit("DCMTK is not installed")
    options = ["-aec", "NODE", "-aet", "SENDER", "-pdu", "131072", "+sd", "127.0.0.1", str(port)]
    began = time.monotonic()
    processes = [
        subprocess.Popen([sender, *options, str(folder)], env={**os.environ, "TCP_NODELAY": nodelay})
        for folder in case.folders
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"{case.name}: the sender failed")
    return case.count / (time.monotonic() - began)


def cases(folder: Path) -> tuple[Case, ...]:
    """Write the data of the performance budget: 512 kB CT and 33 kB MR slices, four series of each size."""
    ct = body_volume(Grid((50, 512, 512), (2.5, 0.625, 0.625)))
    mr = head_volume(Grid((400, 128, 128), (0.4, 1.875, 1.875)))
    cts = tuple(folder / f"ct{n}" for n in range(4))
    for n, path in enumerate(cts):
        write_ct_series(path, ct, series=Series(f"ct{n}", "bench", number=n + 1))
    write_mr_series(folder / "mr", mr, series=Series("mr", "bench", number=9))
    return (
        Case("CT 512 kB, 1 association", cts[:1], 50),
        Case("MR 33 kB, 1 association", (folder / "mr",), 400),
        Case("CT 512 kB, 4 associations", cts, 200),
    )


def measure(case: Case, receivers: dict[str, Receiver], rounds: int, nodelay: str) -> dict[str, float]:
    """Return the median rate of each receiver, taken in turn *rounds* times."""
    rates: dict[str, list[float]] = {name: [] for name in receivers}
    for _ in range(rounds):
        for name, start in receivers.items():
            with (
                tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as place,
                start(Path(place) / "in") as port,
            ):
                time.sleep(1.0)  # start-up work is not what is measured
                rates[name].append(send(case, port, nodelay))
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """Print one line per case: objects per second of each receiver, and the ratios to storescp."""
    parser = argparse.ArgumentParser(description="Measure receiving beside DCMTK's storescp.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nagle", action="store_true", help="leave the sender's Nagle algorithm on")
    options = parser.parse_args()
    nodelay = "0" if options.nagle else "1"
    receivers: dict[str, Receiver] = {
        "process": lambda folder: node(folder, "process"),
        "power": lambda folder: node(folder, "power"),
        "storescp": storescp,
    }
    print(
        f"{os.cpu_count()} cores, loopback, storescu with TCP_NODELAY={nodelay}, median of {options.rounds}"
    )
    print(f"{'objects per second':28}{'process':>10}{'power':>10}{'storescp':>10}{'ratios to storescp':>22}")
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-data-") as data:
        for case in cases(Path(data)):
            rate = measure(case, receivers, options.rounds, nodelay)
            ratios = f"{rate['process'] / rate['storescp']:.2f}  {rate['power'] / rate['storescp']:.2f}"
            print(f"{case.name:28}" + "".join(f"{found:10.0f}" for found in rate.values()) + f"{ratios:>22}")


if __name__ == "__main__":
    main()
