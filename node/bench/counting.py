"""A storage SCP that drops what it gets and notes when: the PACS at the end of what is measured.

pynetdicom's own SCP takes some 200 CT slices a second and would be what is measured. This one reads PDUs whole,
looks at nothing but the command sets, and answers.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from node.bench.peers import MAX_PDU
from node.bench.wire import RELEASE_RP
from node.send import command

_EXPLICIT = "1.2.840.10008.1.2.1"
_ASSOCIATE_RQ, _DATA, _RELEASE_RQ = 1, 4, 5
_COMMAND, _LAST = 1, 2
_RESPONSE, _NO_DATASET = 0x8000, 0x0101


class Counter:
    """What came, in order: (monotonic seconds when it had come whole, SOP Instance UID)."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port = int(listener.getsockname()[1])
        self.came: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()

    def serve(self) -> None:
        """Accept associations until the listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def wait(self, count: int, within: float) -> bool:
        """Wait until *count* objects have come in all; False where they have not *within* seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.came) >= count, within)

    def quiet(self, seconds: float) -> int:
        """Wait until nothing came for so long; return how many came in all."""
        before = -1
        while before != len(self.came):
            before = len(self.came)
            time.sleep(seconds)
        return before

    def close(self) -> None:
        """End every association."""
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError, ValueError, struct.error):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._association(connection)
        self._open.discard(connection)

    def _association(self, connection: socket.socket) -> None:
        pdu = memoryview(bytearray(int(MAX_PDU) + 6))
        asked: dict[int, bytes] = {}
        while True:
            kind, body = _read(connection, pdu)
            if kind == _ASSOCIATE_RQ:
                connection.sendall(_accepted(bytes(body)))
            elif kind == _RELEASE_RQ:
                connection.sendall(RELEASE_RP)
                return
            elif kind != _DATA:
                return
            else:
                self._data(connection, body, asked)

    def _data(self, connection: socket.socket, body: memoryview, asked: dict[int, bytes]) -> None:
        """Answer each request when its last byte is there."""
        position = 0
        while position < len(body):
            length, context, control = struct.unpack_from(">IBB", body, position)
            if control & _COMMAND:  # a command set is far shorter than a PDU: it comes in one piece
                asked.update(command.parse(bytes(body[position + 6 : position + 4 + length])))
            position += 4 + length
            none = command.number(asked, command.COMMAND_DATA_SET_TYPE) == _NO_DATASET
            if control & _LAST and (none or not control & _COMMAND):
                if not none:
                    self._note(asked[command.AFFECTED_SOP_INSTANCE_UID].rstrip(b"\0").decode("latin-1"))
                connection.sendall(_response(context, asked))

    def _note(self, uid: str) -> None:
        with self._changed:
            self.came.append((time.monotonic(), uid))
            self._changed.notify_all()


def _read(connection: socket.socket, into: memoryview) -> tuple[int, memoryview]:
    head = into[:6]
    if connection.recv_into(head, 6, socket.MSG_WAITALL) < 6:
        raise EOFError
    kind, length = struct.unpack(">BxI", head)
    if length > len(into) or connection.recv_into(into, length, socket.MSG_WAITALL) < length:
        raise EOFError
    return kind, into[:length]


def _accepted(body: bytes) -> bytes:
    """A-ASSOCIATE-AC for everything that is proposed."""
    request = A_ASSOCIATE_RQ()
    request.decode(struct.pack(">BxI", _ASSOCIATE_RQ, len(body)) + body)
    answer = request.to_primitive()
    contexts = answer.presentation_context_definition_list
    for context in contexts:
        context.result = 0
        offered = [str(syntax) for syntax in context.transfer_syntax]
        context.transfer_syntax = [_EXPLICIT if _EXPLICIT in offered else offered[0]]
    answer.presentation_context_definition_results_list = contexts
    answer.maximum_length_received = int(MAX_PDU)
    answer.result = 0
    encoded: bytes = A_ASSOCIATE_AC(answer).encode()
    return encoded


def _response(context: int, asked: dict[int, bytes]) -> bytes:
    """Success for the request in hand (PS3.7 9.3.1.2)."""
    field = (command.number(asked, command.COMMAND_FIELD) or 0) | _RESPONSE
    about = command.number(asked, command.MESSAGE_ID) or 0
    values = (
        (command.COMMAND_FIELD, field),
        (command.MESSAGE_ID_BEING_RESPONDED_TO, about),
        (command.COMMAND_DATA_SET_TYPE, _NO_DATASET),
        (command.STATUS, 0),
    )
    elements = b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in values)
    whole = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
    return struct.pack(">BxIIBB", _DATA, len(whole) + 6, len(whole) + 2, context, _COMMAND | _LAST) + whole


@contextmanager
def counting() -> Iterator[Counter]:
    """A counting PACS on a free port of loopback, as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        counter = Counter(listener)
        server = threading.Thread(target=counter.serve, name="PACS", daemon=True)
        server.start()
        try:
            yield counter
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            counter.close()
            server.join(5)
