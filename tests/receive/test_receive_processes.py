"""Claims about a whole node with three receivers on one socket: limits over all of them, and what stays flat."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crash.crash_house import House, house
from peers import free_port, listening, wait_for
from test_receive_wire import dataset_pdu, read_command, read_pdu, request_pdu, store_pdu

from node.ops.health import Board, board_path, read_board
from node.store.files import read_arrival, receiver_runs, records_after

RECEIVERS = 3
_THREE = {"PACSNODE__NODE__RECEIVERS": str(RECEIVERS)}
ACCEPTED, REJECTED = 2, 3
AT_THE_LIMIT = b"\0\2\3\2"
RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
Making = Callable[..., "Site"]

pytestmark = pytest.mark.long


class Site:
    """A running node of three receivers, and what it says of itself."""

    def __init__(self, made: House, web: int) -> None:
        self.house = made
        self._web = web

    @property
    def board(self) -> Board:
        """What the supervisor says."""
        found = read_board(board_path(self.house.data))
        assert found is not None
        return found

    def is_whole(self) -> bool:
        """Whether all receivers accept."""
        found = read_board(board_path(self.house.data))
        return found is not None and found.receiving == RECEIVERS

    def metric(self, name: str) -> float:
        """One number of `/metrics`, by its name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        (found,) = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name]
        return float(found)

    def waits_for(self, name: str, value: float) -> None:
        """Wait until a metric is *value*."""
        wait_for(lambda: self.metric(name) == value, f"{name} {value}")

    def verb(self, *words: str) -> Any:
        """What `pacsnode … --json` prints."""
        command = [
            sys.executable,
            "-m",
            "node.cli",
            "--config",
            str(self.house.folder / "node.yaml"),
            *words,
            "--json",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **self.house.environ}
        )
        return json.loads(done.stdout)

    def events(self, name: str) -> list[str]:
        """The details of all events of that name, in their order."""
        return [row["detail"] for row in self.house.table("event", name=name)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Making]:
    """Start a node with these limits; it is killed after the test."""
    with contextlib.ExitStack() as stack:

        def start(limits: str, listen: str = "127.0.0.1", destinations: str = "") -> Site:
            web, port = free_port(), free_port()
            made = stack.enter_context(
                house(
                    tmp_path / "site", {}, port=port, destinations=destinations,
                    extra=f"limits: {limits}\nweb: {{listen: 127.0.0.1:{web}}}\n",
                    environ={**_THREE, "PACSNODE__NODE__LISTEN": f"{listen}:{port}"},
                )
            )  # fmt: skip
            made.start()
            found = Site(made, web)
            wait_for(found.is_whole, "the receivers")
            wait_for(lambda: listening(web), "the metrics")
            found.waits_for("pacsnode_connections_open", 0)  # whoever looked whether it listens has gone
            return found

        yield start


class Caller:
    """One association by hand."""

    def __init__(
        self, port: int, calling: str = "CT01", host: str = "127.0.0.1", called: str = "PACSNODE"
    ) -> None:
        self.connection = socket.create_connection((host, port), timeout=20)
        self._request = request_pdu(calling, called)
        self.answer: tuple[int, bytes] = (0, b"")

    def ask(self) -> None:
        """Ask to associate, and read the answer."""
        self.connection.sendall(self._request)
        self.answer = read_pdu(self.connection)

    @property
    def is_in(self) -> bool:
        """Whether it was accepted."""
        return self.answer[0] == ACCEPTED

    def store(self) -> bool:
        """Send an object; whether it was answered with success."""
        self.connection.sendall(store_pdu(b"data") + dataset_pdu(b"!!", last=True))
        return read_command(self.connection)[0x0900] == b"\0\0"

    def leave(self) -> None:
        """Release, and wait for the answer."""
        self.connection.sendall(RELEASE)
        assert read_pdu(self.connection)[0] == 6
        self.connection.close()


def at_once(callers: Sequence[Caller]) -> None:
    """Let all ask in the same moment."""
    barrier = threading.Barrier(len(callers))

    def ask(caller: Caller) -> None:
        barrier.wait()
        caller.ask()

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def crowd(port: int, size: int) -> tuple[list[Caller], list[Caller]]:
    """Let *size* ask at once; those who are in, and those rejected at the limit: nobody is told anything else."""
    callers = [Caller(port) for _ in range(size)]
    at_once(callers)
    rejected = [caller for caller in callers if not caller.is_in]
    assert [caller.answer for caller in rejected] == [(REJECTED, AT_THE_LIMIT)] * len(rejected)
    for caller in rejected:
        caller.connection.close()
    return [caller for caller in callers if caller.is_in], rejected


# --- associations


def test_forty_at_once_meet_one_limit(site: Making) -> None:
    """Of 40 simultaneous requests to three receivers exactly ten are let in, round after round; all are told why."""
    node = site("{associations: 10}")
    for _ in range(5):
        inside, rejected = crowd(node.house.port, 40)
        assert (len(inside), len(rejected)) == (10, 30)
        assert all(caller.store() for caller in inside)
        for caller in inside:
            caller.leave()
    node.waits_for('pacsnode_associations_rejected_total{reason="limit"}', 150)
    node.waits_for("pacsnode_associations_open", 0)
    assert node.metric("pacsnode_associations_accepted_total") == 50
    wait_for(lambda: node.board.refusals["association_rejected"]["limit"] == 150, "the board")
    assert node.verb("status")["refusals"] == {"association_rejected": {"limit": 150}}
    wait_for(lambda: bool(node.events("association_rejected")), "an event")
    told = node.events("association_rejected")
    assert len(told) <= 2
    assert "`limits.associations` are open; last 'CT01' from 127.0.0.1" in told[-1]
    receiving = {
        run for run in receiver_runs(node.house.data) if list(records_after(node.house.data, run, 0))
    }
    assert len(receiving) > 1  # the claim is about more than one of them


def test_who_has_released_may_come_again_at_once(site: Making) -> None:
    """At a limit of one a scanner with one association per image is never turned away, whichever receiver it meets."""
    node = site("{associations: 1}")
    for _ in range(150):
        caller = Caller(node.house.port)
        caller.ask()
        assert caller.is_in, caller.answer
        assert caller.store()
        caller.leave()


def test_a_killed_receivers_places_come_back_and_the_others_go_on(site: Making) -> None:
    """SIGKILL of one of three: its associations' places are free, the others store on, its successor takes part."""
    node = site("{associations: 12}")
    inside, _ = crowd(node.house.port, 30)
    assert len(inside) == 12
    victim = next(pid for pid in node.house.pids("receiver") if connections_of(pid, node.house.port))
    lost = connections_of(victim, node.house.port)
    os.kill(victim, signal.SIGKILL)
    node.waits_for("pacsnode_associations_open", 12 - lost)
    gone = [caller for caller in inside if is_closed(caller.connection)]
    assert len(gone) == lost > 0
    left = [caller for caller in inside if caller not in gone]
    assert all(caller.store() for caller in left)
    again, _ = crowd(node.house.port, 30)
    assert len(again) == lost
    wait_for(lambda: len(node.house.pids("receiver")) == RECEIVERS, "the next receiver")
    for caller in (*left, *again):
        caller.leave()
    node.waits_for("pacsnode_associations_open", 0)
    assert len(crowd(node.house.port, 40)[0]) == 12
    assert victim not in node.house.pids("receiver")
    assert len(node.house.pids("receiver")) == RECEIVERS


def connections_of(pid: int, port: int) -> int:
    """How many established connections to *port* a process holds."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(str(entry.readlink()))
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[3] == "01" and f"socket:[{words[9]}]" in held:
            found += 1
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed or broken the connection."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


# --- connections


def silent(port: int, count: int, source: str) -> list[socket.socket]:
    """Connect from an address and say nothing."""
    return [
        socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
        for _ in range(count)
    ]


def test_connections_are_limited_in_all_and_from_one_address(site: Making) -> None:
    """Silent connections over three receivers: 20 from an address, 30 in all; what is closed makes room."""
    node = site("{associations: 8, connections: 30, connections_per_address: 20, artim: 2 min}")
    port = node.house.port
    first = silent(port, 25, "127.0.0.1")
    node.waits_for('pacsnode_connections_refused_total{reason="connections_per_address"}', 5)
    assert node.metric("pacsnode_connections_open") == 20
    second = silent(port, 13, "127.0.0.2")
    node.waits_for('pacsnode_connections_refused_total{reason="connections"}', 3)
    assert node.metric("pacsnode_connections_open") == 30
    wait_for(lambda: sum(map(is_closed, first)) == 5, "the end of five")
    wait_for(lambda: sum(map(is_closed, second)) == 3, "the end of three")
    for connection in (*first, *second):
        connection.close()
    node.waits_for("pacsnode_connections_open", 0)
    caller = Caller(port)
    caller.ask()
    assert caller.store()
    caller.leave()
    wait_for(lambda: len(node.events("connection_refused")) == 2, "an event for each reason")
    (told,) = [one for one in node.events("connection_refused") if "per_address" in one]
    assert re.match(r"\d connections? refused: .* from one address; last from 127.0.0.1$", told)
    assert node.verb("status")["refusals"]["connection_refused"] == {
        "connections": 3,
        "connections_per_address": 5,
    }


def test_a_killed_receivers_connections_come_back(site: Making) -> None:
    """An address whose connections a dying receiver held may connect as often as before."""
    node = site("{associations: 8, connections: 60, connections_per_address: 30, artim: 2 min}")
    held = silent(node.house.port, 30, "127.0.0.1")
    node.waits_for("pacsnode_connections_open", 30)
    victim = next(pid for pid in node.house.pids("receiver") if connections_of(pid, node.house.port))
    lost = connections_of(victim, node.house.port)
    os.kill(victim, signal.SIGKILL)
    node.waits_for("pacsnode_connections_open", 30 - lost)
    held += silent(node.house.port, lost, "127.0.0.1")
    node.waits_for("pacsnode_connections_open", 30)
    assert node.metric('pacsnode_connections_refused_total{reason="connections_per_address"}') == 0
    held += silent(node.house.port, 1, "127.0.0.1")
    node.waits_for('pacsnode_connections_refused_total{reason="connections_per_address"}', 1)


def test_receivers_that_get_no_descriptor_wait_and_go_on(site: Making) -> None:
    """Where the machine gives no descriptor, connections wait in the kernel; nobody is cut off, all are served."""
    node = site("{associations: 64, connections: 300, connections_per_address: 300, artim: 2 min}")
    inside, _ = crowd(node.house.port, 6)
    for pid in node.house.pids("receiver"):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (sizes(pid)[1] + 10, 1024))
    held = silent(node.house.port, 60, "127.0.0.1")
    late = Caller(node.house.port)
    late.connection.settimeout(1.0)
    with pytest.raises(TimeoutError):
        late.connection.recv(1)
    for connection in held:
        connection.close()
    late.connection.settimeout(10)
    late.ask()
    node.waits_for("pacsnode_connections_open", len(inside) + 1)
    assert all(caller.store() for caller in (*inside, late))
    assert node.verb("status")["refusals"] == {}
    assert node.is_whole()


@pytest.mark.parametrize(
    ("soft", "hard", "connections"), [(100, 4096, 300), (100, 200, 68), (4096, 4096, 300)]
)
def test_a_receiver_takes_as_many_connections_as_it_has_descriptors_for(
    soft: int, hard: int, connections: int
) -> None:
    """The soft limit is raised as far as it may be; each connection leaves one for the object it brings."""
    text = "from node.receiver import allow_descriptors\nprint(allow_descriptors(300))"
    command = [
        "bash",
        "-c",
        f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$0" -c "$1"',
        sys.executable,
        text,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{connections}\n"


# --- reasons


def test_each_end_is_counted_by_its_reason(site: Making) -> None:
    """Titles, an abort, a lost connection, a broken and a slow PDU, and silence each have their number and event."""
    node = site("{associations: 8, artim: 2 s, idle: 1 s, pdu: 1 s}")
    port = node.house.port

    def inside() -> socket.socket:
        caller = Caller(port)
        caller.ask()
        assert caller.is_in
        return caller.connection

    for calling, called in (("CT01", "OTHER"), ("O'NEILL", "PACSNODE")):
        caller = Caller(port, calling, called=called)
        caller.ask()
        assert caller.answer[0] == REJECTED
    aborting, breaking, slow, idle = (inside() for _ in range(4))
    aborting.sendall(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0))
    breaking.sendall(struct.pack(">BBI", 4, 0, 0xFFFFFFFF))
    slow.sendall(b"\4\0")
    inside().close()
    watching = socket.create_connection(("127.0.0.1", port))  # says nothing, and is nobody's loss
    expected = {
        "association_rejected": {"called_title": 1, "calling_title": 1},
        "association_ended": {"broken_protocol": 1, "too_slow": 1, "idle": 1},
        "association_lost": {"aborted": 1, "connection_lost": 1},
    }
    wait_for(lambda: node.verb("status")["refusals"] == expected, f"{expected}")
    node.waits_for("pacsnode_connections_open", 0)
    assert is_closed(watching)
    assert read_pdu(idle)[0] == 7
    assert node.metric('pacsnode_associations_ended_total{reason="idle"}') == 1
    assert node.metric('pacsnode_associations_lost_total{reason="aborted"}') == 1
    wait_for(lambda: len(node.house.table("event")) >= 7, "the events")
    told = {row["name"] for row in node.verb("events")}
    assert told == set(expected)
    words = node.events("association_rejected")
    assert any("last 'CT01' calling 'OTHER' from 127.0.0.1" in one for one in words)
    assert any('last "O\'NEILL" from 127.0.0.1' in one for one in words)
    assert len(node.events("association_ended")) == 3
    assert len(node.events("association_lost")) == 2


def test_a_flood_of_strangers_fills_no_table_and_holds_up_no_scanner(site: Making) -> None:
    """600 rejections under 600 titles, four at a time, are all counted and one or two events; a scanner stores on."""
    node = site("{associations: 8}")
    port = node.house.port
    known = Caller(port)
    known.ask()

    def flood(number: int) -> None:
        for count in range(150):
            caller = Caller(port, f"S{number}_{count}")
            caller.ask()
            assert caller.answer == (REJECTED, b"\0\1\1\3")
            caller.connection.close()

    with ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood, number) for number in range(4)]
        stored = 0
        while not all(one.done() for one in floods):
            assert known.store()
            stored += 1
        for one in floods:
            one.result()
    assert stored > 2
    known.leave()
    node.waits_for('pacsnode_associations_rejected_total{reason="calling_title"}', 600)
    wait_for(lambda: bool(node.events("association_rejected")), "an event")
    told = node.events("association_rejected")
    assert len(told) <= 2
    assert all(detail.count(" from 127.0.0.1") <= 5 for detail in told)


# --- both families


def test_both_families_are_served_and_counted_by_address(site: Making) -> None:
    """`[::]` takes IPv4 and IPv6: a peer's `from_address` and the limit hold for 127.0.0.1 as for ::1."""
    peers = '  V4: {sends_as: [V4], from_address: [127.0.0.1]}\n  V6: {sends_as: [V6], from_address: ["::1"]}'
    node = site("{associations: 8, connections: 50, connections_per_address: 4}", "[::]", peers)
    port = node.house.port
    four, six = Caller(port, "V4", "127.0.0.1"), Caller(port, "V6", "::1")
    for caller in (four, six):
        caller.ask()
        assert caller.store()
    for calling, host in (("V4", "::1"), ("V6", "127.0.0.1")):
        caller = Caller(port, calling, host)
        caller.ask()
        assert caller.answer == (REJECTED, b"\0\1\1\3")
        caller.connection.close()
    node.waits_for("pacsnode_connections_open", 2)
    silents = [
        socket.create_connection((host, port), timeout=10) for host in ("127.0.0.1", "::1") for _ in range(5)
    ]
    node.waits_for('pacsnode_connections_refused_total{reason="connections_per_address"}', 4)
    assert node.metric("pacsnode_connections_open") == 8
    for connection in silents:
        connection.close()
    for caller in (four, six):
        caller.leave()
    node.house.wait_idle()
    data = node.house.data
    kept = [r.path for run in receiver_runs(data) for r in records_after(data, run, 0) if r.is_object]
    addresses = {
        read_arrival(path)[0].peer: read_arrival(path)[0].address.rpartition(":")[0] for path in kept
    }
    assert addresses == {"V4": "127.0.0.1", "V6": "[::1]"}
    assert node.verb("status")["refusals"]["association_rejected"] == {"address": 2}
    assert "::ffff" not in node.house.tail(100_000)


# --- what stays flat


def sizes(pid: int) -> tuple[int, int, int]:
    """Threads, descriptors and resident memory in kB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads, memory = (int(re.search(rf"{line}:\s+(\d+)", status)[1]) for line in ("Threads", "VmRSS"))  # type: ignore[index]
    return threads, len(list(Path(f"/proc/{pid}/fd").iterdir())), memory


def probe(port: int, count: int) -> None:
    """Connect and close at once, as load balancers do."""
    for _ in range(count):
        socket.create_connection(("127.0.0.1", port), timeout=20).close()


def cycle(port: int, count: int, calling: str = "CT01") -> None:
    """Connect, associate, release."""
    for _ in range(count):
        caller = Caller(port, calling)
        caller.ask()
        assert caller.is_in
        caller.leave()


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_thousand_probes_and_a_thousand_associations_leave_everything_flat(
    site: Making, table: Callable[[str, list[str]], None], count: int
) -> None:
    """1 000 connects that close at once and 1 000 empty associations: threads, descriptors and memory stay."""
    node = site("{associations: 16}")
    port, pids = node.house.port, node.house.pids("receiver")

    def settled() -> dict[int, tuple[int, int, int]]:
        node.waits_for("pacsnode_connections_open", 0)
        found: dict[int, tuple[int, int, int]] = {}

        def is_calm() -> bool:
            before, now = dict(found), {pid: sizes(pid) for pid in pids}
            found.update(now)
            return all(before.get(pid, (0, 0, 0))[:2] == now[pid][:2] for pid in pids)

        wait_for(is_calm, "calm receivers")
        time.sleep(1.5)  # until threads that waited for one more connection are gone
        return {pid: sizes(pid) for pid in pids}

    probe(port, 200)
    cycle(port, 200)
    before = settled()
    probe(port, count)
    cycle(port, count)
    after = settled()
    assert sorted(node.house.pids("receiver")) == sorted(pids)
    lines = [f"{old} -> {after[pid]}" for pid, old in before.items()]
    table(f"{count} probes and associations: threads, descriptors, kB of each receiver", lines)
    for pid, (threads, descriptors, memory) in before.items():
        assert after[pid][0] <= threads
        assert after[pid][1] <= descriptors
        assert after[pid][2] - memory < 4096
    assert node.metric("pacsnode_associations_accepted_total") == 200 + count
    assert node.verb("status")["refusals"] == {}
