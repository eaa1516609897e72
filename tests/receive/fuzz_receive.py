"""Tell a receiver broken conversations for a while: `python tests/receive/fuzz_receive.py --seconds 600`.

With atheris installed (`pip install atheris`, Linux) what is tried is led by the branches it reaches; without, it is
chance on the corpus of `conversations.py`. Either way `fuzz_house` judges. Prints one JSON object; what broke the
receiver is left as a file of hexadecimal digits, which belongs into `seeds/` once it is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

LED = ["node.receive", "pynetdicom.pdu", "pynetdicom.pdu_items", "pynetdicom.pdu_primitives",
       "pynetdicom.presentation", "pynetdicom.acse", "pynetdicom.dimse_messages"]  # fmt: skip
CUTS: tuple[tuple[int, ...], ...] = (
    (1 << 20,),
    (1,),
    (6,),
    (7, 1, 3),
    (6, 1000),
    (100, 1),
    (4096,),
    (2, 50_000),
)
ROOMS = (1 << 40, 1 << 40, 1 << 40, 1 << 40, 0, 1000, 5000, 30_000)
"""Bytes that the disk has room for."""
GROWTH = 64 * 1024
"""Kilobytes that the process may have grown by after its first thousand conversations."""


def main(arguments: list[str]) -> int:
    """Fuzz; 1 when something was found."""
    options = _options(arguments)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        if options.engine == "atheris":
            return _led(options, Path(folder))
        return _by_chance(options, Path(folder))


def quiet() -> None:
    """Have nobody print what is sent: thousands of lines a second."""
    import structlog

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> Any:
    import structlog

    raise structlog.DropEvent


class Trial:
    """Tells conversations, judges, and counts."""

    def __init__(self, folder: Path, options: argparse.Namespace, engine: str) -> None:
        from receive import fuzz_house

        self.arena, self._house = fuzz_house.Arena.open(folder), fuzz_house
        self._options, self._engine = options, engine
        self.executions = self.slowest_ms = 0
        self.begun = self._said = time.monotonic()
        self._first: Any = None

    def tell(self, stream: bytes, cuts: tuple[int, ...], room: int) -> None:
        """Tell one; what breaks the receiver is left as a file."""
        try:
            heard = self.arena.tell(stream, cuts, room)
            self.arena.judge(stream, heard)
            self.executions += 1
            self.slowest_ms = max(self.slowest_ms, round(1000 * heard.seconds))
            if self.executions % 1000 == 0:
                self._look()
        except BaseException:
            self._options.found.write_text(stream.hex() + "\n", "ascii")
            print(f"cuts {cuts}, room {room}; the conversation is in {self._options.found}", file=sys.stderr)
            raise

    def _look(self) -> None:
        now = self._house.Size.now()
        self._first = self._first or now
        assert (now.descriptors, now.threads) == (self._first.descriptors, self._first.threads), now
        if self._engine == "chance":  # atheris keeps its corpus in memory
            assert now.kilobytes - self._first.kilobytes < GROWTH, f"grew from {self._first} to {now}"
        if time.monotonic() - self._said > 5:
            self._said = time.monotonic()
            self.report()

    def report(self) -> str:
        """Write down what was done so far, since atheris ends the process itself."""
        seconds = time.monotonic() - self.begun
        figures = {
            "engine": self._engine,
            "executions": self.executions,
            "seconds": round(seconds, 1),
            "per_second": round(self.executions / max(seconds, 1e-9)),
            "slowest_ms": self.slowest_ms,
            "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "now": str(self._house.Size.now()),
        }
        text = json.dumps(figures)
        self._options.report.write_text(text + "\n", "utf-8")
        return text


def corpus() -> list[bytes]:
    """Return what to begin with."""
    from receive.conversations import conversations, findings

    return [*conversations().values(), *findings().values()]


def _by_chance(options: argparse.Namespace, folder: Path) -> int:
    from receive.fuzz_house import mutate

    from node.receive.listener import configure

    configure()
    trial, chance, pool = Trial(folder, options, "chance"), random.Random(options.seed), corpus()
    while time.monotonic() - trial.begun < options.seconds:
        stream = chance.choice(pool)
        for _ in range(chance.choice((1, 1, 2, 4))):
            stream = mutate(stream, pool, chance)
        trial.tell(stream, chance.choice(CUTS), chance.choice(ROOMS))
    print(trial.report())
    trial.arena.close()
    return 0


def _led(options: argparse.Namespace, folder: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=LED):
        from receive import fuzz_house

        import node.receive.listener
    node.receive.listener.configure()
    seeds = folder / "corpus"
    seeds.mkdir()
    pool = corpus()
    for number, stream in enumerate(pool):
        (seeds / f"{number:04d}").write_bytes(bytes([number % len(CUTS)]) + stream)
    trial = Trial(folder / "node", options, "atheris")

    def one(data: bytes) -> None:
        how = data[0] if data else 0
        trial.tell(data[1:], CUTS[how % len(CUTS)], ROOMS[how // len(CUTS) % len(ROOMS)])

    def vary(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        head = (
            bytes([chance.randrange(len(CUTS) * len(ROOMS))]) if chance.random() < 0.2 else data[:1] or b"\0"
        )
        return (head + fuzz_house.mutate(data[1:], pool, chance))[:most]

    limits = [
        f"-max_total_time={options.seconds:.0f}",
        f"-max_len={fuzz_house.LONGEST}",
        "-rss_limit_mb=1024",
    ]
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={folder}/", str(seeds)],
        one,
        custom_mutator=vary,
    )
    atheris.Fuzz()  # never returns
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    led = importlib.util.find_spec("atheris") is not None
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--engine", choices=("chance", "atheris"), default="atheris" if led else "chance")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--found", type=Path, default=Path("fuzz_receive_found.hex"))
    parser.add_argument("--report", type=Path, default=Path("fuzz_receive.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
