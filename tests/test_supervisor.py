"""Claims about the supervisor and the receiver program: started, restarted, stopped, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from peers import free_port, keep_answers, need, wait_for
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage

from node.errors import Broken
from node.ops.health import beat_path, read_board
from node.ops.notify import Manager, State, notify, watchdog_period
from node.roles import delay
from node.store.files import read_arrival, receiver_runs, records_after
from node.supervisor import bind, lock_data

SITE = """
node: {{ae_titles: [PACSNODE], listen: "127.0.0.1:{port}", timezone: UTC, data: {data}, rules: rules,
  durability: process, receivers: {receivers}}}
unknown_senders: accept
disk: {{refuse: 100 %}}
"""

RUN = """
import sys
from pathlib import Path
from node import supervisor
from node.roles import Commands
from node.settings import parse
import os
text, file = Path(sys.argv[1]).read_text(), sys.argv[1]
supervisor.HUNG = float(os.environ.get("TEST_HUNG", supervisor.HUNG))
commands = Commands(conductor=(sys.executable, "-c", sys.argv[2]), upkeep=(sys.executable, "-c", sys.argv[3]))
sys.exit(supervisor.supervise_node(text, file, parse(text, file, os.environ), commands))
"""

UPKEEP = """
import signal, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def stop(*_):
    (Path(options["--file"]).parent / "upkeep.stopped").write_text(str(time.monotonic()))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(10)
"""

CONDUCTOR = """
import os, signal, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
data = Path(options["--file"]).parent
run = data / "data" / "run"
run.mkdir(exist_ok=True)
with (data / "conductor.starts").open("a") as starts:
    starts.write("x")
(data / "conductor.stdin").write_text(sys.stdin.read())
fd = int(options["--wake-fd"])
def stop(*_):
    (data / "conductor.stopped").write_text(str(time.monotonic()))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with (data / "conductor.woken").open("ab", buffering=0) as log:
    while True:
        if not (data / "hang").exists():
            (run / "conductor.beat").touch()
        try:
            log.write(os.read(fd, 100))
        except BlockingIOError:
            time.sleep(0.02)
"""


@dataclass
class Running:
    """A node of supervisor, receivers and a stand-in for the conductor."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    def children(self) -> list[int]:
        """Return the process numbers of its children."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in text.split()]

    def receivers(self) -> list[int]:
        """Return the process numbers of its receivers."""
        return [
            pid for pid in self.children() if b"node.receiver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def ready(self, receivers: int) -> bool:
        """Whether that many receivers hold a run."""
        lines = (self.folder / "log").read_text().count("receiver_ready")
        return lines >= receivers and len(self.receivers()) >= 1

    def sent(self) -> dict[str, bytes]:
        """Return the datasets of all objects, by SOP Instance UID."""
        found = {}
        for run in receiver_runs(self.data):
            for record in records_after(self.data, run, 0):
                if record.is_object:
                    facts, offset = read_arrival(record.path)
                    found[facts.sop_uid] = record.path.read_bytes()[offset:]
        return found


@contextlib.contextmanager
def running(folder: Path, receivers: int = 1, environ: dict[str, str] | None = None) -> Iterator[Running]:
    """Run a node as long as the block lasts."""
    port = free_port()
    (folder / "rules").mkdir(exist_ok=True)
    site = folder / "node.yaml"
    site.write_text(SITE.format(port=port, data="data", receivers=receivers))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(site), textwrap.dedent(CONDUCTOR), UPKEEP],
            stdout=log,
            stderr=log,
            env={**os.environ, **(environ or {})},
            cwd=Path(__file__).resolve().parents[1],
        )
    node = Running(process, folder, port)
    try:
        wait_for(lambda: node.ready(receivers), f"the node: {(folder / 'log').read_text()}")
        yield node
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def send(port: int, uids: list[str], calling: str = "CT01") -> list[int | None]:
    """Send one object per UID on one association; return the statuses, None where no answer came."""
    assoc = AE(ae_title=calling).associate(
        "127.0.0.1", port, contexts=[build_context(CTImageStorage, "1.2.840.10008.1.2")], ae_title="PACSNODE"
    )
    keep_answers(assoc)
    statuses: list[int | None] = []
    for uid in uids:
        request = C_STORE()
        request.MessageID = 1
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, UID(uid)
        request.Priority = 2
        request.DataSet = BytesIO(uid.encode() * 50)
        assoc._reactor_checkpoint.clear()
        if not assoc.is_established:
            statuses.append(None)
            continue
        assoc.dimse.send_msg(request, next(iter(assoc._accepted_cx)))
        _, answer = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()
        statuses.append(None if answer is None else int(answer.Status))
        if answer is None:
            break
    assoc.release()
    return statuses


def test_a_node_receives_wakes_the_conductor_and_stops_in_order(tmp_path: Path) -> None:
    """Every role gets the site file, a C-STORE wakes the conductor, and SIGTERM ends receivers first."""
    with running(tmp_path) as node:
        assert send(node.port, ["1.2.1", "1.2.2"]) == [0, 0]
        wait_for(lambda: len((tmp_path / "conductor.woken").read_bytes()) >= 3, "two objects and an end")
        assert (tmp_path / "conductor.stdin").read_text() == (tmp_path / "node.yaml").read_text()
        (receiver,) = node.receivers()
        node.process.terminate()
        wait_for(lambda: not Path(f"/proc/{receiver}").exists(), "the receiver's end")
        gone = time.monotonic()
        assert node.process.wait(60) == 0
        assert float((tmp_path / "conductor.stopped").read_text()) > gone - 0.3
        assert float((tmp_path / "upkeep.stopped").read_text()) < gone
    log = (tmp_path / "log").read_text()
    assert log.index("receiver_stopped") < log.index("node_stopped")
    assert "died" not in log
    assert "killed" not in log


def test_two_receivers_share_one_socket_and_lose_nothing(tmp_path: Path) -> None:
    """Eight senders at once over two receivers: every acknowledged object is there, in runs of both."""
    with running(tmp_path, receivers=2) as node:
        statuses: list[int | None] = []

        def work(number: int) -> None:
            for i in range(4):
                statuses.extend(send(node.port, [f"1.{number}.{i}.{j}" for j in range(3)]))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 96
        assert set(node.sent()) == {f"1.{n}.{i}.{j}" for n in range(8) for i in range(4) for j in range(3)}
        assert all(data == uid.encode() * 50 for uid, data in node.sent().items())
        assert receiver_runs(node.data) == (1, 2)
        assert all(list(records_after(node.data, run, 0)) for run in (1, 2))


def test_a_killed_receiver_is_restarted_under_a_new_run_and_drops_no_queued_connection(
    tmp_path: Path,
) -> None:
    """After SIGKILL a connection made meanwhile is served by the successor, and the conductor is woken."""
    with running(tmp_path) as node:
        assert send(node.port, ["1.2.1"]) == [0]
        (receiver,) = node.receivers()
        wait_for(lambda: len((tmp_path / "conductor.woken").read_bytes()) == 2, "an object and an end")
        os.kill(receiver, signal.SIGKILL)
        assert send(node.port, ["1.2.2"]) == [0]
        assert set(node.sent()) == {"1.2.1", "1.2.2"}
        assert receiver_runs(node.data) == (1, 2)
        wait_for(lambda: len((tmp_path / "conductor.woken").read_bytes()) >= 5, "a death, an object, an end")


@pytest.mark.parametrize("point", ["before-sync", "after-sync", "after-rename", "after-keep"])
def test_a_receiver_killed_at_each_fault_point_keeps_what_it_acknowledged(tmp_path: Path, point: str) -> None:
    """SIGKILL inside the third C-STORE: what was acknowledged is whole, and trying again completes the rest."""
    fault = {"PACSNODE_FAULT": f"{point}:3", "PACSNODE_FAULT_ONCE": str(tmp_path / "once")}
    with running(tmp_path, environ=fault) as node:
        uids = ["1.1", "1.2", "1.3", "1.4"]
        first = send(node.port, uids)
        assert first == [0, 0, None]
        assert send(node.port, uids[2:]) == [0, 0]
        assert node.sent() == {uid: uid.encode() * 50 for uid in uids}
        assert not list(node.data.rglob("*.part"))


def test_children_of_a_killed_supervisor_let_go_so_that_the_next_can_bind(tmp_path: Path) -> None:
    """SIGKILL of the supervisor ends its receivers; a new node takes the same port and data at once."""
    with running(tmp_path) as node:
        assert send(node.port, ["1.2.1"]) == [0]
        (receiver,) = node.receivers()
        node.process.kill()
        node.process.wait()
        wait_for(lambda: not Path(f"/proc/{receiver}").exists() or zombie(receiver), "the receiver's end")
        bind("127.0.0.1", node.port).close()
        os.close(lock_data(node.data))
        for pid in orphans(tmp_path):
            os.kill(pid, signal.SIGKILL)


def zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be reaped by init."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def orphans(folder: Path) -> list[int]:
    """Return the processes that were told the site file in *folder*: stand-ins of a killed supervisor."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def test_a_second_node_on_the_same_data_is_refused_in_words(tmp_path: Path) -> None:
    """The data folder belongs to one node at a time, and the message names it and what to do."""
    held = lock_data(tmp_path / "data")
    with pytest.raises(Broken, match=r"data is in use by another node; stop that one, or"):
        lock_data(tmp_path / "data")
    os.close(held)
    os.close(lock_data(tmp_path / "data"))


def test_a_port_in_use_and_a_foreign_address_are_refused_in_words() -> None:
    """The message names the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Broken, match=rf"listen on 127.0.0.1:{port}: the port is in use; .*ss -ltnp"):
            bind("127.0.0.1", port, patience=0.0)
    with pytest.raises(Broken, match=r"no such address"):
        bind("192.0.2.1", 11112, patience=0.0)


def test_restarts_wait_longer_and_longer() -> None:
    """From a tenth of a second, doubling, to half a minute."""
    assert [delay(n) for n in (1, 2, 3, 9, 10, 1000)] == [0.1, 0.2, 0.4, 25.6, 30.0, 30.0]


def heard(systemd: socket.socket) -> list[str]:
    """The lines of one datagram."""
    return systemd.recv(4096).decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_hears_of_the_start_the_life_and_the_end(tmp_path: Path, abstract: bool) -> None:
    """sd_notify: READY only once receivers accept and the conductor's loop turns, then WATCHDOG, then STOPPING."""
    name = f"@pacsnode-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(60)
        (tmp_path / "hang").touch()
        with running(tmp_path, environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}):
            first = heard(systemd)
            assert first[0].startswith("EXTEND_TIMEOUT_USEC=")
            assert "the conductor takes in what came before" in first[1] + heard(systemd)[0]
            (tmp_path / "hang").unlink()
            lines = heard(systemd)
            assert lines[0] == "READY=1"
            assert lines[-1] == "WATCHDOG=1"
            assert [heard(systemd) for _ in range(2)] == [["WATCHDOG=1"]] * 2
        lines = heard(systemd)
        while lines == ["WATCHDOG=1"]:
            lines = heard(systemd)
        assert lines[0] == "STOPPING=1"
    assert watchdog_period({"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_period({"WATCHDOG_USEC": "400000"}) == 0.2
    assert watchdog_period({}) is None


def test_systemd_hears_nothing_that_would_keep_a_stuck_node_alive(tmp_path: Path) -> None:
    """WATCHDOG stops while something is stuck and goes on after; a node that is not ready asks for time instead."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
        manager.tell(State(False, True, "starting"), 0.0)
        assert heard(systemd) == ["EXTEND_TIMEOUT_USEC=60000000", "STATUS=starting"]
        manager.tell(State(False, True, "starting"), 9.0)
        manager.tell(State(False, True, "starting"), 10.0)
        assert heard(systemd) == ["EXTEND_TIMEOUT_USEC=60000000"]
        manager.tell(State(True, True, "all is well"), 11.0)
        assert heard(systemd) == ["READY=1", "STATUS=all is well", "WATCHDOG=1"]
        manager.tell(State(True, False, "all is well"), 12.0)
        manager.tell(State(True, True, "all is well"), 13.0)
        assert heard(systemd) == ["WATCHDOG=1"]
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
    manager.tell(State(True, True, "nobody listens any more"), 14.0)
    notify("READY=1", {})


def test_a_conductor_that_hangs_is_replaced_and_reception_goes_on(tmp_path: Path) -> None:
    """Without a turn of its loop for long the conductor is killed and started again; receivers are not touched."""
    with running(tmp_path, environ={"TEST_HUNG": "1.5"}) as node:
        wait_for(lambda: beat_path(node.data).exists(), "the first turn of the loop")
        before = node.receivers()
        (tmp_path / "hang").touch()
        wait_for(lambda: "conductor_hung" in (tmp_path / "log").read_text(), "the end of the conductor")
        (tmp_path / "hang").unlink()
        wait_for(lambda: len((tmp_path / "conductor.starts").read_text()) >= 2, "the next conductor")
        assert node.receivers() == before
        assert send(node.port, ["1.2.1"]) == [0]


def test_the_supervisor_shows_who_runs(tmp_path: Path) -> None:
    """`run/node.json` names every role with its process, and how many receivers accept."""
    with running(tmp_path, receivers=2) as node:
        wait_for(lambda: (found := read_board(node.data / "run" / "node.json")) is not None
                 and found.receiving == 2, "both receivers")  # fmt: skip
        board = read_board(node.data / "run" / "node.json")
        assert board is not None
        assert board.pid == node.process.pid
        assert [role.name for role in board.roles] == ["conductor", "receiver_0", "receiver_1", "upkeep"]
        assert {role.pid for role in board.roles} == set(node.children())


def test_a_receiver_stopped_while_dcmtk_sends_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """SIGTERM to a receiver under load: it ends by itself, and DCMTK's count of successes is kept."""
    from pydicom.data import get_testdata_file

    source = str(get_testdata_file("CT_small.dcm"))
    with running(tmp_path) as node:
        command = [need("storescu"), "-v", "-aec", "PACSNODE", "+II", "--repeat", "500"]
        sender = subprocess.Popen(
            [*command, "127.0.0.1", str(node.port), source],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        wait_for(lambda: len(node.sent()) > 20 or sender.poll() is not None, "some objects")
        (receiver,) = node.receivers()
        os.kill(receiver, signal.SIGTERM)
        output, _ = sender.communicate(timeout=30)
        kept = sum(r.is_object for r in records_after(node.data, 1, 0))
        successes = output.count("(Success)")
        assert 20 < successes < 500
        assert successes <= kept <= successes + 1
        wait_for(lambda: "role_died" in (tmp_path / "log").read_text(), "its end")
