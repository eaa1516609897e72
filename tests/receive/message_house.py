"""A receiver in this process for messages that are no objects: durable before they are answered."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pynetdicom import _config

from node.receive.admission import Policy, Sender
from node.receive.association import Desk
from node.receive.census import Census
from node.receive.limits import Pace, Watermark
from node.receive.listener import Listener, application_entity, configure
from node.store.files import Disk, ObjectFolder, records_after


class FailingDisk(Disk):
    """Says that it is full when *full* is set."""

    full = False

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write, or do not."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(fd, *data)


class Receiver:
    """A receiver with these peers, each sending under its own name; *heard* says which of them may say what."""

    def __init__(
        self,
        data: Path,
        peers: tuple[str, ...],
        read: Callable[[Path], Any],
        *,
        strangers: bool,
        **heard: Any,
    ) -> None:
        self.data, self.disk, self._read = data, FailingDisk("process"), read
        self.keeper = ObjectFolder(data, self.disk, lambda: None)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        senders = tuple(Sender(name, (name,)) for name in peers)
        policy = Policy(("PACSNODE",), senders, unknown_may_send=strangers, associations=8)
        page = Census.create(1)
        self.desk = Desk(
            self.keeper.run, self.keeper, policy, Census(page, 0), Watermark(data, 1.01, time.monotonic),
            lambda: datetime.now(UTC), **heard,
        )  # fmt: skip
        os.close(page)
        self.listener = Listener(
            application_entity("PACSNODE", ("2.25.1", "TEST")), listening, self.desk, Pace()
        )
        self.listener.start()

    def messages(self) -> list[tuple[Any, bytes]]:
        """What was kept so far."""
        return [self._read(record.path) for record in records_after(self.data, self.keeper.run, 0)]


@contextmanager
def started(*arguments: Any, **heard: Any) -> Iterator[Receiver]:
    """Run a `Receiver`; pynetdicom's switches are put back after the test."""
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"])
    configure()
    made = Receiver(*arguments, **heard)
    try:
        yield made
    finally:
        made.listener.drain(0.1)
        _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"] = before
