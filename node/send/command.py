"""The few command sets that we speak when we call: Implicit VR Little Endian, always (PS3.7 6.3.1, 9.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_ECHO_RQ, C_ECHO_RSP = 0x0030, 0x8030
C_GET_RQ, C_GET_RSP = 0x0010, 0x8010
C_FIND_RQ, C_FIND_RSP = 0x0020, 0x8020
C_MOVE_RQ, C_MOVE_RSP = 0x0021, 0x8021
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
N_ACTION_RQ, N_ACTION_RSP = 0x0130, 0x8130
_NO_DATASET, _DATASET = 0x0101, 0x0001

AFFECTED_SOP_CLASS_UID, REQUESTED_SOP_CLASS_UID, COMMAND_FIELD = 0x0002, 0x0003, 0x0100
MOVE_DESTINATION = 0x0600
COMPLETED, FAILED, WARNED = 0x1021, 0x1022, 0x1023
"""Numbers of sub-operations."""
MESSAGE_ID, MESSAGE_ID_BEING_RESPONDED_TO = 0x0110, 0x0120
PRIORITY, COMMAND_DATA_SET_TYPE, STATUS = 0x0700, 0x0800, 0x0900
OFFENDING_ELEMENT, ERROR_COMMENT = 0x0901, 0x0902
AFFECTED_SOP_INSTANCE_UID, REQUESTED_SOP_INSTANCE_UID = 0x1000, 0x1001
EVENT_TYPE_ID, ACTION_TYPE_ID = 0x1002, 0x1008


def store_request(message_id: int, sop_class: str, sop_uid: str) -> bytes:
    """C-STORE-RQ with Priority MEDIUM (PS3.7 9.3.1.1)."""
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, sop_class),
        _us(COMMAND_FIELD, C_STORE_RQ),
        _us(MESSAGE_ID, message_id),
        _us(PRIORITY, 0),
        _us(COMMAND_DATA_SET_TYPE, _DATASET),
        _uid(AFFECTED_SOP_INSTANCE_UID, sop_uid),
    )


def echo_request(message_id: int) -> bytes:
    """C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, "1.2.840.10008.1.1"),
        _us(COMMAND_FIELD, C_ECHO_RQ),
        _us(MESSAGE_ID, message_id),
        _us(COMMAND_DATA_SET_TYPE, _NO_DATASET),
    )


def query_request(message_id: int, field: int, sop_class: str, move_to: str = "") -> bytes:
    """C-FIND-RQ, C-GET-RQ, or with *move_to*, an AE title, C-MOVE-RQ; with a dataset (PS3.7 9.3.2 to 9.3.4)."""
    title = move_to.encode("ascii", "replace")
    title += b" " * (len(title) % 2)
    destination = struct.pack("<HHI", 0, MOVE_DESTINATION, len(title)) + title
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, sop_class),
        _us(COMMAND_FIELD, field),
        _us(MESSAGE_ID, message_id),
        *([destination] if move_to else []),
        _us(PRIORITY, 0),
        _us(COMMAND_DATA_SET_TYPE, _DATASET),
    )


def cancel_request(message_id: int) -> bytes:
    """C-CANCEL-RQ of the request *message_id* (PS3.7 9.3.2.3)."""
    return _command(
        _us(COMMAND_FIELD, C_CANCEL_RQ),
        _us(MESSAGE_ID_BEING_RESPONDED_TO, message_id),
        _us(COMMAND_DATA_SET_TYPE, _NO_DATASET),
    )


def store_response(request: Mapping[int, bytes], status: int) -> bytes:
    """C-STORE-RSP, where a C-GET has the peer store to us (PS3.7 9.3.1.2)."""
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, text(request, AFFECTED_SOP_CLASS_UID)),
        _us(COMMAND_FIELD, C_STORE_RSP),
        _us(MESSAGE_ID_BEING_RESPONDED_TO, number(request, MESSAGE_ID) or 0),
        _us(COMMAND_DATA_SET_TYPE, _NO_DATASET),
        _us(STATUS, status),
        _uid(AFFECTED_SOP_INSTANCE_UID, text(request, AFFECTED_SOP_INSTANCE_UID)),
    )


def action_request(message_id: int, sop_class: str, sop_uid: str, action: int) -> bytes:
    """N-ACTION-RQ with a dataset (PS3.7 10.3.4.1)."""
    return _command(
        _uid(REQUESTED_SOP_CLASS_UID, sop_class),
        _us(COMMAND_FIELD, N_ACTION_RQ),
        _us(MESSAGE_ID, message_id),
        _us(COMMAND_DATA_SET_TYPE, _DATASET),
        _uid(REQUESTED_SOP_INSTANCE_UID, sop_uid),
        _us(ACTION_TYPE_ID, action),
    )


def event_report(message_id: int, sop_class: str, sop_uid: str, event: int) -> bytes:
    """N-EVENT-REPORT-RQ with a dataset (PS3.7 10.3.1.1)."""
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, sop_class),
        _us(COMMAND_FIELD, N_EVENT_REPORT_RQ),
        _us(MESSAGE_ID, message_id),
        _us(COMMAND_DATA_SET_TYPE, _DATASET),
        _uid(AFFECTED_SOP_INSTANCE_UID, sop_uid),
        _us(EVENT_TYPE_ID, event),
    )


def event_report_response(request: Mapping[int, bytes], status: int) -> bytes:
    """N-EVENT-REPORT-RSP without a dataset (PS3.7 10.3.1.2)."""
    return _command(
        _uid(AFFECTED_SOP_CLASS_UID, text(request, AFFECTED_SOP_CLASS_UID)),
        _us(COMMAND_FIELD, N_EVENT_REPORT_RSP),
        _us(MESSAGE_ID_BEING_RESPONDED_TO, number(request, MESSAGE_ID) or 0),
        _us(COMMAND_DATA_SET_TYPE, _NO_DATASET),
        _us(STATUS, status),
        _uid(AFFECTED_SOP_INSTANCE_UID, text(request, AFFECTED_SOP_INSTANCE_UID)),
        _us(EVENT_TYPE_ID, number(request, EVENT_TYPE_ID) or 0),
    )


def has_dataset(elements: Mapping[int, bytes]) -> bool:
    """Whether a dataset follows (PS3.7 E.1, Command Data Set Type)."""
    return number(elements, COMMAND_DATA_SET_TYPE) != _NO_DATASET


def parse(data: bytes) -> Mapping[int, bytes]:
    """Element number → raw value of a command set. Raises ValueError when it is cut short."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError("a command set ends inside an element")
        group, element, length = struct.unpack_from("<HHI", data, position)
        value = data[position + 8 : position + 8 + length]
        if group != 0 or len(value) != length:
            raise ValueError("a command set holds something that is no command element")
        elements[element] = value
        position += 8 + length
    return elements


def number(elements: Mapping[int, bytes], element: int) -> int | None:
    """Read a US value, None where it is absent or no US."""
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def text(elements: Mapping[int, bytes], element: int) -> str:
    """Read a text value: printable characters only, without padding."""
    raw = elements.get(element, b"").decode("ascii", "replace")
    return "".join(c for c in raw if c.isprintable()).strip()


def offending(elements: Mapping[int, bytes]) -> str:
    """Show the Offending Elements as `(0010,0010), (0028,0010)`."""
    value = elements.get(OFFENDING_ELEMENT, b"")
    pairs = struct.iter_unpack("<HH", value[: len(value) // 4 * 4])
    return ", ".join(f"({group:04X},{element:04X})" for group, element in pairs)


def _command(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _us(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _uid(element: int, uid: str) -> bytes:
    raw = uid.encode("latin-1", "replace")
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HHI", 0, element, len(raw)) + raw
