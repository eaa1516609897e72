"""A forwarder between a client and the node: it notes what the client wrote, and speaks TLS for one that cannot."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

LAST, COMMAND = 2, 1
"""Bits of a PDV's control header (PS3.8 E.2)."""


class Wire:
    """Passes connections on to the node, by TLS where it is given a context, and notes what each client wrote."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._to, self._context = port, context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._streams: list[bytearray] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take nobody any more."""
        self._listening.close()

    def sent(self) -> list[tuple[str, bytes]]:
        """SOP Instance UID and dataset of each object that was sent over any of the connections."""
        return sorted(found for stream in self._streams for found in objects_in(bytes(stream)))

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._streams.append(bytearray())
                threading.Thread(target=self._follow, args=(client, self._streams[-1]), daemon=True).start()

    def _follow(self, client: socket.socket, note: bytearray) -> None:
        server = socket.create_connection(("127.0.0.1", self._to))
        if self._context is not None:
            server = self._context.wrap_socket(server, server_hostname="localhost")
        with client, server, contextlib.suppress(OSError):
            while True:
                # In one thread: OpenSSL lets nobody read a connection while another writes it.
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 17)
                    if not data:
                        return
                    if source is client:
                        note += data
                    (server if source is client else client).sendall(data)


def objects_in(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """What a recorded stream of PDUs stores (PS3.8 9.3.5, PS3.7 9.3.1.1)."""
    offset, command, dataset = 0, b"", b""
    while offset < len(stream):
        kind, _, length = struct.unpack_from(">BBI", stream, offset)
        body, offset = stream[offset + 6 : offset + 6 + length], offset + 6 + length
        while kind == 4 and body:
            size, _, control = struct.unpack_from(">IBB", body)
            fragment, body = body[6 : 4 + size], body[4 + size :]
            if control & COMMAND:
                command += fragment
                continue
            dataset += fragment
            if control & LAST:
                yield affected_uid(command), dataset
                command = dataset = b""


def affected_uid(command: bytes) -> str:
    """The Affected SOP Instance UID (0000,1000) of a command set."""
    offset = 0
    while True:
        _, element, length = struct.unpack_from("<HHI", command, offset)
        if element == 0x1000:
            return command[offset + 8 : offset + 8 + length].rstrip(b"\0 ").decode()
        offset += 8 + length


@contextlib.contextmanager
def wire(port: int, context: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """A wire that ends with the block."""
    made = Wire(port, context)
    try:
        yield made
    finally:
        made.close()
