"""Receivers for the tests of this room: in this process, or in one of their own."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog
from peers import wait_for
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage

from node.model import AssociationEnd
from node.ops import log as logging
from node.receive.admission import Policy, Sender
from node.receive.association import Desk
from node.receive.census import Census
from node.receive.limits import Pace, Watermark
from node.receive.listener import Listener, application_entity, configure
from node.store.files import (
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    Disk,
    ObjectFolder,
    read_arrival,
    read_end,
    records_after,
)

SENDERS = (Sender("CT01", ("CT01",)), Sender("FAR", ("FAR",), (ip_network("192.0.2.0/24"),)))


@dataclass
class Node:
    """A receiver in this process."""

    data: Path
    keeper: ObjectFolder
    listener: Listener
    port: int

    def objects(self) -> list[Path]:
        """Return the objects kept so far."""
        return [r.path for r in records_after(self.data, self.keeper.run, 0) if r.is_object]

    def ends(self) -> list[AssociationEnd]:
        """Return the association ends recorded so far."""
        return [read_end(r.path) for r in records_after(self.data, self.keeper.run, 0) if not r.is_object]

    def end(self) -> AssociationEnd:
        """Wait for the one end there shall be."""
        wait_for(lambda: bool(self.ends()), "the end of the association")
        (found,) = self.ends()
        return found

    def idle(self) -> bool:
        """Whether no connection is followed any more and nothing is half-written."""
        return not self.listener.desk.sessions() and not list(self.data.rglob("*.part"))


@dataclass
class Making:
    """Makes nodes and takes them down again."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)

    def __call__(
        self,
        disk: Disk | None = None,
        associations: int = 8,
        pace: Pace | None = None,
        refuse: float = 1.01,
        strangers: bool = False,
        host: str = "127.0.0.1",
    ) -> Node:
        """Start a receiver on a free port; *strangers* may send."""
        data = self.folder / f"node{len(self.nodes)}"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
        keeper = ObjectFolder(data, disk or Disk("process"), lambda: None)
        policy = Policy(("PACSNODE",), SENDERS, unknown_may_send=strangers, associations=associations)
        fd = Census.create(1)
        watermark = Watermark(data, refuse, time.monotonic)
        desk = Desk(keeper.run, keeper, policy, Census(fd, 0), watermark, lambda: datetime.now(UTC))
        os.close(fd)
        ae = application_entity("PACSNODE", (IMPLEMENTATION_UID, IMPLEMENTATION_VERSION))
        listener = Listener(ae, listening, desk, pace or Pace())
        listener.start()
        self.nodes.append(Node(data, keeper, listener, listening.getsockname()[1]))
        return self.nodes[-1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Give a maker of receivers; pynetdicom's switches are put back after the test."""
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"])
    configure()
    making = Making(tmp_path)
    yield making
    for made in making.nodes:
        if not made.listener.desk.stopping.is_set():
            made.listener.drain(0.1)
    _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"] = before


SITE = """\
node:
  {{ae_titles: [PACSNODE], listen: 127.0.0.1:{port}, timezone: UTC, data: {data}, rules: rules, durability: process}}
peers: {{CT01: {{sends_as: [CT01]}}}}
"""


@dataclass
class Process:
    """A receiver in a process of its own."""

    pid: int
    port: int
    data: Path

    def memory(self, line: str) -> int:
        """Return a size in kB: VmRSS is now, VmHWM the most there was."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        found = re.search(rf"{line}:\s+(\d+) kB", status)
        assert found
        return int(found[1])


@pytest.fixture
def process(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    """Run `python -m node.receiver` as the supervisor does; a parameter is more of its site file."""
    listening = socket.create_server(("127.0.0.1", 0))
    port, data = listening.getsockname()[1], tmp_path / "data"
    woken, wake = os.pipe()
    census = Census.create(1, ("CT01",))
    fds = {"--listen-fd": listening.fileno(), "--wake-fd": wake, "--census-fd": census}
    options = [word for name, fd in fds.items() for word in (name, str(fd))]
    options += ["--slot", "0", "--parent", str(os.getpid()), "--file", str(tmp_path / "node.yaml")]
    data.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "node.receiver", *options],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=list(fds.values()),
    ) as receiver:  # fmt: skip
        assert receiver.stdin
        receiver.stdin.write(f"{SITE.format(port=port, data=data)}{getattr(request, 'param', '')}\n".encode())
        receiver.stdin.close()
        yield Process(receiver.pid, port, data)
        receiver.send_signal(signal.SIGTERM)
        code = receiver.wait(30)  # it waits 10 s for an object in hand
        assert code == 0, f"the receiver ended with {code}"
    listening.close()
    for fd in (woken, wake, census):
        os.close(fd)


def kept_dataset(path: Path) -> bytes:
    """Return the dataset bytes of a kept object."""
    return path.read_bytes()[read_arrival(path)[1] :]


def associate(
    node: Node, abstract: str, transfer: str, calling: str = "CT01", called: str = "PACSNODE"
) -> Association:
    """Associate with pynetdicom."""
    ae = AE(ae_title=calling)
    return ae.associate("127.0.0.1", node.port, contexts=[build_context(abstract, transfer)], ae_title=called)


def send_bytes(
    assoc: Association, uid: str | None, dataset: bytes, abstract: str = CTImageStorage, message: int = 1
) -> int | None:
    """Send one C-STORE with these very bytes; return the status of the answer, None without one."""
    request = C_STORE()
    request.MessageID = message
    request._affected_sop_class_uid = UID(abstract)
    request._affected_sop_instance_uid = None if uid is None else UID(uid)
    request.Priority = 2
    request.DataSet = BytesIO(dataset)
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, next(iter(assoc._accepted_cx)))
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return None if answer is None else int(answer.Status)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Give the log as the receiver writes it."""
    stream = io.StringIO()
    logging.configure("receiver", stream)
    yield stream
    structlog.reset_defaults()
