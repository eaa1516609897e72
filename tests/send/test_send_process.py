"""The sender as a process: commands in, outcomes out, and how it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue

from pynetdicom import evt
from sending_peers import SHORT, Wire, destination, free_port, make_items, scp, scripted, storescp

from node.send.protocol import (
    Batch,
    Command,
    Echo,
    Echoed,
    Finished,
    Outcome,
    Outcomes,
    Result,
    outcome_from_json,
    to_json,
)


class Sender:
    """A running `python -m node.sender` and the outcomes it has told."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.told: Queue[tuple[float, Outcome]] = Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.told.put((time.monotonic(), outcome_from_json(line)))

    def say(self, *commands: Command) -> None:
        """Give it commands."""
        for command in commands:
            self.process.stdin.write(to_json(command).encode() + b"\n")
        self.process.stdin.flush()

    def next(self, within: float = 20) -> Outcome:
        """Wait for its next outcome."""
        return self.told.get(timeout=within)[1]

    def until_finished(self, batch: int) -> tuple[list[Result], str | None]:
        """Wait for the end of *batch*; its results in order, and the destination error."""
        results: list[Result] = []
        while True:
            told = self.next()
            if isinstance(told, Outcomes) and told.batch == batch:
                assert len(told.results) <= 200
                results += told.results
            elif isinstance(told, Finished) and told.batch == batch:
                return results, told.destination_error


@contextlib.contextmanager
def sender() -> Iterator[Sender]:
    """Run the sender, and kill it at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "node.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Sender(process)
    finally:
        process.kill()
        process.wait()


def test_a_batch_goes_out_and_every_outcome_comes_back(tmp_path: Path) -> None:
    """200 objects reach storescp; each result comes exactly once, before `Finished`."""
    items = make_items(tmp_path, 200)
    with storescp(tmp_path) as (pacs, received), sender() as running:
        running.say(Echo(1, pacs), Batch(2, pacs, tuple(items)))
        assert running.next() == Echoed(1, None)
        results, error = running.until_finished(2)
        assert error is None
        assert [(r.delivery, r.attempt, str(r.kind)) for r in results] == [
            (i.delivery, 1, "stored") for i in items
        ]
        assert len(list(received.iterdir())) == 200


def test_a_destination_that_hangs_does_not_hold_up_another(tmp_path: Path) -> None:
    """While one destination keeps silent, the batch for another is sent and told."""
    items = tuple(make_items(tmp_path, 3))

    def silent(wire: Wire) -> None:
        wire.accept()
        time.sleep(3)

    with scripted(silent) as stuck, scp(lambda event: 0) as pacs, sender() as running:
        running.say(
            Batch(1, replace(stuck, name="STUCK", timeouts=replace(SHORT, answer=2)), items),
            Batch(2, pacs, items),
        )
        told = [running.next(), running.next()]
        assert isinstance(told[0], Outcomes) and told[0].batch == 2
        assert told[1] == Finished(2, None)
        results, error = running.until_finished(1)
        assert [str(r.kind) for r in results] == ["failed", "not_tried", "not_tried"]
        assert error is not None and error.startswith("STUCK at ")


def test_no_more_associations_than_allowed(tmp_path: Path) -> None:
    """Six batches for a destination that allows two associations keep to two, and all are sent."""
    in_hand, most, lock = [], [], threading.Lock()

    def answer(event: evt.Event) -> int:
        with lock:
            in_hand.append(event)
            most.append(len(in_hand))
        time.sleep(0.1)
        with lock:
            in_hand.remove(event)
        return 0

    items = make_items(tmp_path, 12)
    with scp(answer) as pacs, sender() as running:
        allowed = replace(pacs, max_associations=2)
        running.say(*(Batch(n, allowed, tuple(items[2 * n : 2 * n + 2])) for n in range(6)))
        finished: list[Finished] = []
        while len(finished) < 6:
            told = running.next()
            finished += [told] if isinstance(told, Finished) else []
    assert sorted(m.batch for m in finished) == list(range(6))
    assert all(m.destination_error is None for m in finished)
    assert max(most) == 2


def test_results_do_not_wait_for_the_batch(tmp_path: Path) -> None:
    """A result is told within about 100 ms, although the next object takes a second."""
    slow = threading.Event()

    def answer(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID.endswith(".2"):
            slow.wait(60)
        return 0

    with scp(answer) as pacs, sender() as running:
        running.say(Batch(1, pacs, tuple(make_items(tmp_path, 2))))
        first = running.next(within=50)
        assert isinstance(first, Outcomes)
        assert [r.delivery for r in first.results] == [1]
        slow.set()
        assert [r.delivery for r in running.until_finished(1)[0]] == [2]


def test_sigterm_finishes_the_object_in_hand(tmp_path: Path) -> None:
    """On SIGTERM the object in hand is told as stored, the rest as not tried, and we release."""
    reached, go_on, released = threading.Event(), threading.Event(), threading.Event()

    def answer(event: evt.Event) -> int:
        event.assoc.bind(evt.EVT_RELEASED, lambda _: released.set())
        if event.request.AffectedSOPInstanceUID.endswith(".2"):
            reached.set()
            go_on.wait(60)
        return 0

    items = make_items(tmp_path, 4)
    with scp(answer) as pacs, sender() as running:
        running.say(Batch(1, pacs, tuple(items)), Batch(2, pacs, tuple(items)))
        assert reached.wait(60)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        go_on.set()
        results, error = running.until_finished(1)
        assert [str(r.kind) for r in results] == ["stored", "stored", "not_tried", "not_tried"]
        assert error is None
        results, error = running.until_finished(2)
        assert [str(r.kind) for r in results] == ["not_tried"] * 4
        assert running.process.wait(60) == 0
        assert released.wait(60)


def test_the_end_of_stdin_ends_it_at_once(tmp_path: Path) -> None:
    """When the conductor is gone the sender exits at once, in the middle of an object too."""

    def silent(wire: Wire) -> None:
        wire.accept()
        started.set()
        wire.sock.recv(1 << 20)
        over.wait(20)  # longer than it may take

    started, over = threading.Event(), threading.Event()
    with scripted(silent) as pacs, sender() as running:
        running.say(Batch(1, replace(pacs, timeouts=destination(1).timeouts), tuple(make_items(tmp_path, 1))))
        assert started.wait(60)
        begun = time.monotonic()
        running.process.stdin.close()
        assert running.process.wait(60) == 1
        assert time.monotonic() - begun < 15
        over.set()


def test_the_death_of_the_parent_ends_it(tmp_path: Path) -> None:
    """A parent that is killed takes the sender with it, although the pipe is still held open."""
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'node.sender'], stdin=sys.stdin)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    time.sleep(1.5)  # its imports
    assert _alive(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)
    parent.stdin.close()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_line_that_is_no_command_ends_it_in_words() -> None:
    """A foreign line means that two versions run together: exit 1, and a sentence on stderr."""
    with sender() as running:
        running.process.stdin.write(b'{"type":"Nonsense"}\n')
        running.process.stdin.flush()
        assert running.process.wait(60) == 1
        assert b"restart the node" in running.process.stderr.read()


def test_ctrl_c_is_left_to_the_supervisor() -> None:
    """SIGINT, which a terminal gives to the whole group, does not end it."""
    with sender() as running, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = destination(free_port())
        running.say(Echo(1, nobody))
        assert isinstance(running.next(), Echoed)
        os.kill(running.process.pid, signal.SIGINT)
        running.say(Echo(2, nobody))
        assert isinstance(running.next(), Echoed)
