"""Claims about what a receiver counts when it refuses an object or an association ends otherwise than by release."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import wait_for
from pynetdicom.sop_class import CTImageStorage
from test_receive_wire import EXPLICIT, Node, associate, node, raw, rejection, send_bytes, store_pdu

from node.receive.census import Census, LastWords
from node.receive.limits import Pace
from node.receive.reasons import Kind, Reason, markdown
from node.store.files import Disk

__all__ = ["node"]


def counted(receiver: Node) -> dict[Reason, int]:
    """The reasons that occurred."""
    found = Census.tally(receiver.listener.desk.census._fd).reasons
    return {reason: count for reason, count in found.items() if count}


def words(receiver: Node, reason: Reason) -> LastWords:
    """Who it was last."""
    (found,) = Census.last_words(receiver.listener.desk.census._fd, reason)
    return found


class Failing(Disk):
    """Fails with what it is given, until that is None."""

    error: Exception | None = None

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write, or not."""
        if self.error is not None:
            raise self.error
        super().write(fd, *data)


@pytest.mark.parametrize(
    ("error", "reason", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Reason.DISK_FULL, "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), Reason.DISK_FULL, "Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied"), Reason.DISK_FULL, "Permission denied"),
        (ZeroDivisionError("Doe^John"), Reason.OBJECT_BY_FAULT, ""),
    ],
)
def test_an_object_that_is_not_kept_is_counted_once_with_its_sender(
    node: Callable[..., Node], error: Exception, reason: Reason, why: str
) -> None:
    """However many fragments follow it is one refusal that says what the disk said; one kept afterwards is none."""
    disk = Failing("process")
    disk.error = error
    receiver = node(disk)
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", bytes(400_000)) not in (None, 0)
    assert counted(receiver) == {reason: 1}
    disk.error = None
    assert send_bytes(assoc, "1.2.4", b"data") == 0
    assoc.release()
    wait_for(receiver.idle, "the end")
    assert counted(receiver) == {reason: 1}
    last = words(receiver, reason)
    assert (last.calling, last.called, last.host) == ("CT01", "PACSNODE", "127.0.0.1")
    assert last.why == why


def test_the_watermark_is_told_from_a_disk_that_fails(node: Callable[..., Node]) -> None:
    """What `disk.refuse` refuses is counted as such."""
    receiver = node(refuse=0.0)
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0xA700
    assoc.release()
    assert counted(receiver) == {Reason.WATERMARK: 1}


def test_an_object_that_is_too_long_is_counted_once(node: Callable[..., Node]) -> None:
    """However far beyond `limits.object_size` it goes on, it is one refusal; one that fits is none."""
    receiver = node(pace=Pace(object_size=100_000))
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", bytes(500_000)) == 0xA700
    assert send_bytes(assoc, "1.2.4", bytes(100_000)) == 0
    assoc.release()
    assert counted(receiver) == {Reason.TOO_LONG: 1}


def test_a_title_that_steers_a_terminal_is_kept_as_it_came(node: Callable[..., Node]) -> None:
    """Escape sequences in a title reach the page whole; whoever tells of them escapes them."""
    receiver = node()
    assert rejection(receiver, "\x1b[2J\n", "PACSNODE") == (1, 1, 3)
    assert words(receiver, Reason.CALLING_TITLE).calling == "\x1b[2J\n"


def test_rejections_are_counted_by_why_with_the_titles_that_came(node: Callable[..., Node]) -> None:
    """Wrong called title, unknown calling title and wrong address are three reasons."""
    receiver = node(associations=1)
    for calling, called in (("CT01", "OTHER"), ("STRANGER", "PACSNODE"), ("FAR", "PACSNODE")):
        rejection(receiver, calling, called)
    assert counted(receiver) == {Reason.CALLED_TITLE: 1, Reason.CALLING_TITLE: 1, Reason.ADDRESS: 1}
    assert words(receiver, Reason.CALLED_TITLE).called == "OTHER"
    assert words(receiver, Reason.CALLING_TITLE).calling == "STRANGER"
    inside = raw(receiver)
    assert rejection(receiver, "CT01", "PACSNODE") == (2, 3, 2)
    assert counted(receiver)[Reason.LIMIT] == 1
    inside.close()


def abort(connection: socket.socket) -> None:
    """Send A-ABORT."""
    connection.sendall(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0))


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (abort, Reason.ABORTED),
        (lambda c: c.close(), Reason.CONNECTION_LOST),
        (reset, Reason.CONNECTION_LOST),
        (lambda c: c.sendall(struct.pack(">BBI", 9, 0, 4)), Reason.BROKEN_PROTOCOL),
        (lambda c: c.sendall(b"\4\0\0"), Reason.TOO_SLOW),
        (lambda _: None, Reason.IDLE),
        (lambda c: c.sendall(store_pdu(b"half")), Reason.TOO_SLOW),
    ],
    ids=["abort", "close", "reset", "broken", "half a header", "silence", "half an object"],
)
def test_each_end_but_a_release_is_counted_by_why(
    node: Callable[..., Node], ending: Callable[[socket.socket], object], reason: Reason
) -> None:
    """By whom and why it ended is told apart, and each end is counted once."""
    receiver = node(pace=Pace(idle=0.7, pdu=0.7, linger=0.1))
    connection = raw(receiver)
    ending(connection)
    wait_for(lambda: bool(counted(receiver)), "the end")
    wait_for(receiver.idle, "the connection's end")
    assert counted(receiver) == {reason: 1}
    assert receiver.listener.desk.census.total() == 0
    connection.close()


@pytest.mark.parametrize(
    ("ending", "reason", "why"),
    [
        (lambda c: c.sendall(struct.pack(">BBI", 9, 0, 4)), Reason.BROKEN_PROTOCOL, "unknown PDU type 9"),
        (lambda c: c.sendall(b"\4\0\0"), Reason.TOO_SLOW, "a PDU took longer than `limits.pdu`"),
        (
            lambda c: c.sendall(store_pdu(b"half")),
            Reason.TOO_SLOW,
            "nothing came for `limits.pdu` within a message",
        ),
        (lambda _: None, Reason.IDLE, ""),
        (abort, Reason.ABORTED, ""),
    ],
    ids=["broken", "half a header", "half an object", "silence", "abort"],
)
def test_what_the_last_one_did_is_kept_where_the_reason_does_not_say_it(
    node: Callable[..., Node],
    capsys: pytest.CaptureFixture[str],
    ending: Callable[[socket.socket], object],
    reason: Reason,
    why: str,
) -> None:
    """Which rule was broken and which limit passed is in the page, and so in the event, as it is in the log."""
    receiver = node(pace=Pace(idle=0.7, pdu=0.7, linger=0.1))
    connection = raw(receiver)
    ending(connection)
    wait_for(lambda: bool(counted(receiver)), "the end")
    assert words(receiver, reason).why == why
    wait_for(receiver.idle, "the connection's end")
    assert why in capsys.readouterr().out
    connection.close()


def test_what_speaks_another_protocol_is_told_by_name(node: Callable[..., Node]) -> None:
    """TLS and HTTP at the port without TLS are more than a broken protocol: the event says which port to mend."""
    receiver = node(pace=Pace(linger=0.1))
    for number, (sent, found) in enumerate(
        ((b"GET / HTTP/1.1\r\n\r\n", "HTTP"), (b"\x16\3\1\2\0\1", "TLS")), 1
    ):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.sendall(sent)
            wait_for(lambda number=number: counted(receiver).get(Reason.BROKEN_PROTOCOL) == number, found)
        assert found in words(receiver, Reason.BROKEN_PROTOCOL).why


def test_a_rejection_says_what_was_asked_for_unless_its_reason_does(node: Callable[..., Node]) -> None:
    """From which address a known title came is not enough: the event names the peer that may not."""
    receiver = node()
    rejection(receiver, "FAR", "PACSNODE")
    rejection(receiver, "STRANGER", "PACSNODE")
    assert "see its from_address" in words(receiver, Reason.ADDRESS).why
    assert words(receiver, Reason.CALLING_TITLE).why == ""


def test_whoever_watches_the_port_is_counted_nowhere(node: Callable[..., Node]) -> None:
    """Connect and close, connect and say nothing, a reset: no refusal, no loss."""
    receiver = node(pace=Pace(negotiate=0.3, linger=0.1))
    for ending in (lambda c: c.close(), reset, lambda _: None):
        connection = socket.create_connection(("127.0.0.1", receiver.port))
        ending(connection)
        wait_for(receiver.idle, "the end")
    assert counted(receiver) == {}


def test_rubbish_before_an_association_is_counted(node: Callable[..., Node]) -> None:
    """A browser on the port, and an A-ASSOCIATE-RQ that stops half-way, are ended by us."""
    receiver = node(pace=Pace(pdu=0.3, linger=0.1))
    for sent, reason in ((b"GET / HTTP/1.1\r\n\r\n", Reason.BROKEN_PROTOCOL), (b"\1\0\0", Reason.TOO_SLOW)):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.sendall(sent)
            wait_for(lambda reason=reason: counted(receiver).get(reason) == 1, reason.label)


def test_a_stop_of_ours_is_no_loss(node: Callable[..., Node]) -> None:
    """Associations that end because the receiver does are neither the peer's fault nor ours."""
    receiver = node()
    connection = raw(receiver)
    receiver.listener.drain(1.0)
    connection.close()
    assert counted(receiver) == {}


def test_the_documentation_lists_every_reason() -> None:
    """`docs/operation.md` holds the table of reasons word for word."""
    table = markdown()
    assert all(reason.label in table and reason.kind.event in table for reason in Reason)
    assert len({kind.event for kind in Kind}) == len(Kind)
    assert table in (Path(__file__).resolve().parents[2] / "docs" / "operation.md").read_text("utf-8")
