"""`python -m node.bench.sink PROCESSES`: a Storage SCP that reads, answers and keeps nothing.

What it takes is the most that loopback and the load generator give. It says its port, then waits for the end of
standard input. Each process accepts on the same socket and serves one association at a time.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from contextlib import suppress

from node.bench.wire import RELEASE_RP, associate_accept, store_response

_WINDOW = 512 * 1024
_MESSAGE_ID = struct.pack("<HHI", 0, 0x0110, 2)


def serve(listener: socket.socket) -> None:
    """Serve one association after the other until the process ends."""
    buffer = memoryview(bytearray(_WINDOW))
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError, EOFError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _association(connection, buffer)


def _association(connection: socket.socket, buffer: memoryview) -> None:
    start = end = 0
    message_id, amid = b"\0\0", False
    while True:
        while end - start < 6 or end - start < 6 + int.from_bytes(buffer[start + 2 : start + 6], "big"):
            start, end = _more(connection, buffer, start, end, amid or start != end)
        kind, length = struct.unpack_from(">BxI", buffer, start)
        body = buffer[start + 6 : start + 6 + length]
        start += 6 + length
        if kind == 4:
            context, control = body[4], body[5]
            if control & 1:
                command = bytes(body)
                at = command.index(_MESSAGE_ID) + 8
                message_id, amid = command[at : at + 2], True
            elif control & 2:
                amid = False
                connection.sendall(store_response(context, message_id))
        elif kind == 1:
            connection.sendall(associate_accept(body))
        else:
            if kind == 5:
                connection.sendall(RELEASE_RP)
            return


def _more(connection: socket.socket, buffer: memoryview, start: int, end: int, amid: bool) -> tuple[int, int]:
    """Read once; what is there moves to the front where there is little room behind it."""
    if start == end:
        start = end = 0
    elif _WINDOW - start < 160 * 1024:
        buffer[: end - start] = bytes(buffer[start:end])
        start, end = 0, end - start
    if amid:  # a sender with Nagle's algorithm on keeps its last bytes back until then
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    got = connection.recv_into(buffer[end:])
    if not got:
        raise EOFError
    return start, end + got


def main(processes: int) -> None:
    """Serve in so many processes until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            os.close(0)
            serve(listener)
        children.append(child)
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
