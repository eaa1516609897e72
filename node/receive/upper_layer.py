"""Reading PDUs of a peer we do not trust: bounded lengths, deadlines, ordered fragments (PS3.8 9.3, E).

`guard` puts this in the place of pynetdicom's `DULServiceProvider._read_pdu_data`, which buffers whatever
length a peer announces, and waits for ever in the middle of a PDU. It is the loop to replace for speed.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import structlog
from pydicom.uid import UID

from node.receive.limits import Pace

CLOSED, INVALID_PDU = "Evt17", "Evt19"  # PS3.8 Table 9-10
_ASSOCIATE_RQ, _P_DATA = 0x01, 0x04
_SHORT_PDU = 1024  # A-RELEASE and A-ABORT have 4 bytes; answers to requests we never make do not come here
_COMMAND_LIMIT = 64 * 1024
_NO_DATASET = 0x0101  # Command Data Set Type (0000,0800), PS3.7 E.1
_WAITING_MESSAGES = 2
_PATIENCE_AFTER = 1 << 20  # bytes a peer may still have on their way when it is told of the abort

log = structlog.get_logger()


class Fragments:
    """Follows the messages of an association: one command, then perhaps its dataset, on one context."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._context: int | None = None
        self._in_dataset = False

    def fault(self, body: bytes | bytearray | memoryview) -> str:
        """Take the content of one P-DATA-TF; return what is wrong with it, empty when nothing is."""
        offset, end = 0, len(body)
        while offset < end:
            if end - offset < 6:
                return "a fragment without its header"
            length, context, control = struct.unpack_from(">IBB", body, offset)
            if length < 2 or length > end - offset - 4:
                return f"a fragment of {length} bytes in {end - offset - 4}"
            payload = memoryview(body)[offset + 6 : offset + 4 + length]
            fault = self._step(context, bool(control & 1), bool(control & 2), payload)
            if fault:
                return fault
            offset += 4 + length
        return "" if end else "P-DATA without a fragment"

    def _step(self, context: int, is_command: bool, is_last: bool, payload: memoryview) -> str:
        if self._context is not None and context != self._context:
            return "a message on two presentation contexts"
        if not is_command:
            if not self._in_dataset:
                return "a dataset without its command"
            if is_last:
                self._context, self._in_dataset = None, False
            return ""
        if self._in_dataset:
            return "a command inside a dataset"
        self._context = context
        self._command += payload
        if len(self._command) > _COMMAND_LIMIT:
            return "a command longer than 64 KiB"
        return self._end_command() if is_last else ""

    def _end_command(self) -> str:
        kind = data_set_type(self._command)
        self._command = bytearray()
        if kind is None:
            return "a command without Command Data Set Type"
        if kind == _NO_DATASET:
            self._context = None
        else:
            self._in_dataset = True
        return ""


def data_set_type(command: bytes | bytearray) -> int | None:
    """Return Command Data Set Type (0000,0800) of an encoded command set, None where there is none.

    Commands are Implicit VR Little Endian whatever the context's transfer syntax is (PS3.7 6.3.1).
    """
    offset = 0
    while offset + 8 <= len(command):
        group, number, length = struct.unpack_from("<HHI", command, offset)
        if (group, number) == (0x0000, 0x0800):
            if length < 2 or offset + 10 > len(command):
                return None
            return int(struct.unpack_from("<H", command, offset + 8)[0])
        offset += 8 + length
    return None


class Reader:
    """Reads the PDUs of one association for pynetdicom's state machine."""

    def __init__(self, dul: Any, pdu_size: int, pace: Pace) -> None:
        self._dul = dul
        self._fragments = Fragments()
        self._pace = pace
        self._thrown = 0
        self._limits = {_ASSOCIATE_RQ: pace.associate_size, _P_DATA: pdu_size}

    def __call__(self) -> None:
        """Read one PDU and queue its event; called when the socket has something to read."""
        sock = self._dul.socket.socket
        if self._dul.state_machine.current_state == "Sta13":
            self._throw_away(sock)
            return
        if self._dul.assoc.dimse.msg_queue.qsize() >= _WAITING_MESSAGES:
            time.sleep(0.001)  # the peer pipelines; what we do not read, TCP holds back (PS3.7 D.3.3.3)
            return
        deadline = time.monotonic() + self._pace.pdu
        try:
            header = _receive(sock, 6, deadline)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the kernel disarms it by itself
            kind, length = header[0], int(struct.unpack(">I", header[2:])[0])
            if not 1 <= kind <= 7:
                self._refuse(f"unknown PDU type {kind}")
            elif length > self._limits.get(kind, _SHORT_PDU):
                self._refuse(f"PDU type {kind} of {length} bytes")
            else:
                self._take(kind, header, _receive(sock, length, deadline))
        except OSError as error:
            if not isinstance(error, _EndOfStreamError):
                log.warning("peer_silent", error=type(error).__name__)
            self._give_up(CLOSED)

    def _take(self, kind: int, header: bytearray, body: bytearray) -> None:
        fault = self._fragments.fault(body) if kind == _P_DATA else ""
        if fault:
            self._refuse(fault)
            return
        try:
            pdu, event = self._dul._decode_pdu(header + body)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises, the PDU is to blame
            self._refuse(f"PDU type {kind} cannot be decoded: {type(error).__name__}")
            return
        self._dul.event_queue.put(event)
        self._dul._recv_pdu.put(pdu)

    def _refuse(self, why: str) -> None:
        log.warning("pdu_invalid", reason=why)
        self._give_up(INVALID_PDU)

    def _give_up(self, event: str) -> None:
        if self._dul.state_machine.current_state in ("Sta1", "Sta2"):
            self._dul.to_user_queue.put(None)  # the association thread need not wait for a request any longer
        self._dul.event_queue.put(event)

    def _throw_away(self, sock: socket.socket) -> None:
        """Sta13: wait for the peer to close, as long as ARTIM runs and it does not flood us meanwhile."""
        try:
            got = len(sock.recv(65536))
        except OSError:
            got = 0
        self._thrown += got
        if not got or self._thrown > _PATIENCE_AFTER:
            self._dul.event_queue.put(CLOSED)


class _EndOfStreamError(ConnectionError):
    """The peer closed the connection."""


def _receive(sock: socket.socket, size: int, deadline: float) -> bytearray:
    """Receive exactly *size* bytes. Raises OSError where the peer closes, or is slower than *deadline*."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise _EndOfStreamError
        view = view[got:]
        if view and time.monotonic() > deadline:
            raise TimeoutError
    return data


def guard(assoc: Any, pdu_size: int, pace: Pace, serving: Callable[[], AbstractContextManager[None]]) -> None:
    """Make a not yet started pynetdicom association read its peer with suspicion.

    *serving* surrounds each message, from the request to its queued response.

    Replaces three methods of the instances (names held by a contract test): the PDU reader; the DIMSE
    reader, whose exceptions would end the thread without an A-ABORT; and the dispatcher, which leaves a
    request without a mandatory field unanswered. A C-STORE-RQ without SOP UIDs is served all the same; what
    cannot be answered, such as a request without Message ID (PS3.7 9.3), aborts the association.
    """
    receive, serve = assoc.dimse.receive_primitive, assoc._serve_request

    def receive_or_abort(primitive: Any) -> None:
        try:
            receive(primitive)
        except Exception as error:  # noqa: BLE001 - a command set nobody can decode
            log.warning("command_invalid", error=type(error).__name__)
            assoc.dul.event_queue.put(INVALID_PDU)

    def serve_any_store(message: Any, context_id: int) -> None:
        if message.msg_type == "C-STORE" and message.MessageID is not None:
            message._affected_sop_class_uid = message._affected_sop_class_uid or UID("")
            message._affected_sop_instance_uid = message._affected_sop_instance_uid or UID("")
        if not message.is_valid_request:
            why = f"{message.msg_type} is no request, or one without a mandatory field"
            log.warning("command_invalid", error=why)
            assoc.dul.event_queue.put(INVALID_PDU)
            return
        with serving():
            serve(message, context_id)

    assoc.dul._read_pdu_data = Reader(assoc.dul, pdu_size, pace)
    assoc.dimse.receive_primitive = receive_or_abort
    assoc._serve_request = serve_any_store
