"""Sending to peers that do what polite ones never do: each ends in words, within its timeout."""

import select
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import evt
from sending_peers import (
    CT,
    EXPLICIT,
    JPEG_2000,
    PATIENT_TIMEOUTS,
    SHORT,
    Reports,
    Wire,
    dataset_of,
    destination,
    free_port,
    item_of,
    make_items,
    part10,
    plain_dataset,
    scp,
    scripted,
)

from node.send.negotiation import IMPLEMENTATION_CLASS_UID
from node.send.protocol import Kind
from node.send.scu import echo, send_objects

STATUSES = [
    (0x0000, "stored", "stored"),
    (0xB000, "warning", "stored, with warning B000 (the destination changed some attributes)"),
    (0xB006, "warning", "stored, with warning B006 (the destination discarded some attributes)"),
    (0xB007, "warning", "stored, with warning B007"),
    (0xA700, "failed", "PACS answered A700 (out of resources)"),
    (0xA900, "failed", "PACS answered A900 (dataset does not match its SOP class)"),
    (0xC000, "failed", "PACS answered C000 (cannot understand the object)"),
    (0x0110, "failed", "PACS answered 0110 (processing failure)"),
    (0x0122, "failed", "PACS answered 0122 (SOP class not supported)"),
    (0x0124, "failed", "PACS answered 0124 (not authorised)"),
    (0xFF00, "failed", "PACS answered FF00 (pending, which is no answer to C-STORE)"),
    (0x1234, "failed", "PACS answered 1234 (unknown status)"),
]


def test_each_status_is_reported_for_its_object(tmp_path: Path) -> None:
    """One object per status: each gets its own kind, code and words, and none stops the rest."""
    items, reports = make_items(tmp_path, len(STATUSES)), Reports()

    def answer(event: evt.Event) -> int:
        return STATUSES[int(event.request.AffectedSOPInstanceUID.rsplit(".", 1)[1]) - 1][0]

    with scp(answer) as pacs:
        assert send_objects(pacs, items, reports.append) is None
    assert [(r.status, str(r.kind)) for r in reports] == [(status, kind) for status, kind, _ in STATUSES]
    for result, (_, _, words) in zip(reports, STATUSES, strict=True):
        assert result.what.startswith(words)


def test_the_bytes_of_an_odd_dataset_leave_unchanged(tmp_path: Path) -> None:
    """A dataset with an odd number of bytes is neither padded nor cut."""
    path, seen, reports = tmp_path / "odd.dcm", [], Reports()
    path.write_bytes(part10(plain_dataset("1.2.3", extra=b"\x09\x00\x10\x00LO\x03\x00odd")))
    assert len(dataset_of(path)) % 2 == 1
    with scp(lambda event: seen.append(event.request.DataSet.getvalue()) or 0) as pacs:
        assert send_objects(pacs, [item_of(path, 1, "1.2.3")], reports.append) is None
    assert seen == [dataset_of(path)]


def test_a_refused_context_stops_only_its_objects(tmp_path: Path) -> None:
    """Where one transfer syntax is refused the others are stored, and the words name class and syntax."""
    items, reports = make_items(tmp_path, 3), Reports()
    items[1] = replace(items[1], transfer_syntax=JPEG_2000)
    with scp(lambda event: 0) as pacs:
        assert send_objects(pacs, items, reports.append) is None
    assert reports.kinds() == ["stored", "refused_context", "stored"]
    assert reports[1].status is None
    assert reports[1].what.startswith("PACS does not accept CT Image Storage in JPEG 2000 Image Compression")


def test_an_illegal_sop_class_stops_only_its_object(tmp_path: Path) -> None:
    """A SOP class that no association can name is refused alone, without a word to the destination."""
    items, reports = make_items(tmp_path, 2), Reports()
    items[0] = replace(items[0], sop_class="1." * 40 + "1")
    with scp(lambda event: 0) as pacs:
        assert send_objects(pacs, items, reports.append) is None
    assert reports.kinds() == ["refused_context", "stored"]
    assert send_objects(destination(free_port()), items[:1], reports.append) is None


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # meant: illegal UIDs
@pytest.mark.parametrize("uid", ["not..a/uid", "1.2.840.10008.1.2 ", "\\", "ä", "", "x" * 64])
def test_a_strange_uid_never_stops_the_others(tmp_path: Path, uid: str) -> None:
    """Whatever a scanner wrote as SOP class or instance UID, the other objects are stored."""
    items, reports = make_items(tmp_path, 3), Reports()
    items[0] = replace(items[0], sop_class=uid)
    items[1] = replace(items[1], sop_uid=uid)
    with scp(lambda event: 0) as pacs:
        error = send_objects(pacs, items[:1] + items[2:], reports.append)
        assert (error, reports.kinds()) == (None, ["refused_context", "stored"])
        send_objects(
            replace(pacs, timeouts=SHORT), items[1:2], reports.append
        )  # this peer ends the association on some of them
    assert len(reports) == 3 and (uid or reports.kinds()[2] == "refused_context")


def test_a_slow_peer_is_not_a_dead_one(tmp_path: Path) -> None:
    """A peer that takes its time is waited for as long as bytes move, whatever the object's size."""
    (item,) = make_items(tmp_path, 1, size=12_000_000)

    def script(wire: Wire) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.accept(most=131072)
        wire.sock = Slow(wire.sock)
        wire.message()
        wire.respond(1)
        wire.pdu()

    reports = Reports()
    with scripted(script) as pacs:
        begun = time.monotonic()
        given = replace(PATIENT_TIMEOUTS, transfer=3.0)
        assert send_objects(replace(pacs, timeouts=given), [item], reports.append) is None
        assert time.monotonic() - begun > 3, "the peer was not slow enough to show anything"
    assert reports.kinds() == ["stored"]


class Slow:
    """A socket that rests before each larger read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sendall = sock.sendall

    def recv(self, size: int) -> bytes:
        """Read, after a pause where much is wanted."""
        if size > 100_000:
            time.sleep(0.05)
        return self._sock.recv(size)


def test_a_file_that_cannot_be_read_stops_only_its_object(tmp_path: Path) -> None:
    """A missing, empty, cut or foreign file is reported as ours, and the others are stored."""
    items, reports = make_items(tmp_path, 6), Reports()
    Path(items[0].path).unlink()
    Path(items[1].path).write_bytes(b"")
    Path(items[2].path).write_bytes(b"GIF89a" * 40)
    Path(items[3].path).write_bytes(part10(b""))
    (tmp_path / "folder").mkdir()
    items[4] = replace(items[4], path=str(tmp_path / "folder"))
    with scp(lambda event: 0) as pacs:
        assert send_objects(pacs, items, reports.append) is None
    assert reports.kinds() == ["unreadable_file"] * 5 + ["stored"]


def test_a_file_cut_while_it_is_sent_spoils_only_itself(tmp_path: Path) -> None:
    """When a file shrinks under our hands the association is aborted and the rest goes over a new one."""
    first, cut, last = make_items(tmp_path, 3)
    (big,) = make_items(tmp_path, 1, size=60_000_000)
    Path(big.path).rename(cut.path)
    make_items(tmp_path, 1)
    seen = []

    def script(wire: Wire) -> None:
        wire.accept()
        seen.append(wire.message()[0])
        wire.respond(1)
        if len(seen) == 1:
            wire.pdu()
            with Path(cut.path).open("r+b") as file:  # most of it cannot have been read: buffers are small
                file.truncate(50_000_000)
            while True:
                wire.pdu()

    reports = Reports()
    with scripted(script) as pacs:
        assert send_objects(pacs, [first, cut, last], reports.append) is None
    assert reports.kinds() == ["stored", "unreadable_file", "stored"]
    assert last.sop_uid.encode() in seen[1]


def test_rejections_say_what_to_change(tmp_path: Path) -> None:
    """Called or calling AE title not recognised, local limit: each names the reason and the next step."""
    items, reports = make_items(tmp_path, 2), Reports()
    with scp(lambda event: 0, require_called_aet=True) as pacs:
        error = send_objects(replace(pacs, ae_title="OTHER"), items, reports.append)
        assert error == (
            f"PACS at 127.0.0.1:{pacs.port} rejected the association: called AE title not recognised; "
            "check ae_title of peer PACS (now OTHER)"
        )
    assert reports.kinds() == ["not_tried", "not_tried"]
    with scp(lambda event: 0, require_calling_aet=["FRIEND"]) as pacs:
        error = send_objects(pacs, items, reports.append)
        assert error is not None and "calling AE title not recognised; ask its administrator" in error


@pytest.mark.parametrize(
    ("result", "source", "reason", "words"),
    [
        (1, 1, 1, "rejected the association: no reason given; check that it admits AE title PACSNODE"),
        (1, 1, 2, "rejected the association: application context not supported"),
        (1, 2, 2, "rejected the association: protocol version not supported"),
        (2, 3, 1, "rejected the association for now: temporary congestion; it will be tried again"),
        (2, 3, 2, "for now: its limit of associations is reached; lower associations of peer PACS"),
        (9, 9, 9, "rejected the association: no reason given"),
    ],
)
def test_every_rejection_has_words(result: int, source: int, reason: int, words: str) -> None:
    """Each reason of PS3.8 Table 9-21 is told in words; one outside the table is told too."""

    def script(wire: Wire) -> None:
        wire.pdu()
        wire.sock.sendall(struct.pack(">BxIxBBB", 3, 4, result, source, reason))
        wire.sock.recv(1)

    with scripted(script) as pacs:
        assert words in (echo(pacs) or ""), echo(pacs)


def test_nobody_listens(tmp_path: Path) -> None:
    """A closed port and an unknown host are told in words, and nothing was tried."""
    reports = Reports()
    pacs = destination(free_port())
    error = send_objects(pacs, make_items(tmp_path, 1), reports.append)
    assert error == (
        f"{pacs.where} refused the connection: nothing listens there; start it, or check address of peer PACS"
    )
    assert reports.kinds() == ["not_tried"]
    assert "host name is unknown" in (echo(replace(pacs, host="no-such-host.invalid")) or "")


def _silent(wire: Wire) -> None:
    while wire.sock.recv(4096):
        pass


def _half_answer(wire: Wire) -> None:
    wire.pdu()
    wire.sock.sendall(b"\x02\x00\x00")
    _silent(wire)


def _web_server(wire: Wire) -> None:
    wire.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    wire.pdu()


def _abort_at_once(wire: Wire) -> None:
    wire.pdu()
    wire.sock.sendall(struct.pack(">BxIxxBB", 7, 4, 2, 6))
    time.sleep(0.2)


def _garbled(wire: Wire) -> None:
    wire.pdu()
    wire.sock.sendall(struct.pack(">BxI", 2, 90) + b"\xff" * 90)
    time.sleep(0.2)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda wire: None, "closed the connection"),
        (_silent, "did not answer within 1 s"),
        (_half_answer, "did not answer within 1 s"),
        (_web_server, "does not speak DICOM there; check its address and port"),
        (_abort_at_once, "aborted the association: invalid PDU parameter value"),
        (_garbled, "malformed PDU"),
        (lambda wire: wire.accept(most=6), "maximum PDU length of 6"),
    ],
)
def test_no_association(tmp_path: Path, script: object, words: str) -> None:
    """A peer that closes, keeps silent or talks nonsense gives a sentence, soon; nothing was tried."""
    reports = Reports()
    with scripted(script) as pacs:
        begun = time.monotonic()
        error = send_objects(pacs, make_items(tmp_path, 2), reports.append)
        assert time.monotonic() - begun < 20
        assert error is not None and error.startswith(pacs.where) and words in error
    assert reports.kinds() == ["not_tried", "not_tried"]


def _one_then(wire: Wire, script: object) -> None:
    wire.accept()
    wire.message()
    wire.respond(1)
    script(wire)


def _never_answers(wire: Wire) -> None:
    wire.message()
    kind, raw = wire.pdu()
    assert kind == 7, "after a timeout the association must be aborted"
    assert raw[8] == 0


def _no_reading(wire: Wire) -> None:
    hung_up = select.poll()
    hung_up.register(wire.sock, 0)  # POLLHUP and POLLERR are always told
    assert hung_up.poll(15_000), "the sender must hang up on a peer that does not read"


def _reset(wire: Wire) -> None:
    wire.pdu()
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _aborts(wire: Wire) -> None:
    wire.pdu()
    wire.sock.sendall(struct.pack(">BxIxxBB", 7, 4, 0, 0))
    time.sleep(0.3)


def _wrong_message(wire: Wire) -> None:
    wire.message()
    wire.respond(77)
    wire.pdu()


def _no_status(wire: Wire) -> None:
    wire.message()
    body = struct.pack("<HHIHHHIH", 0, 0x100, 2, 0x8001, 0, 0x120, 2, 2)
    wire.sock.sendall(struct.pack(">BxIIBB", 4, len(body) + 6, len(body) + 2, 1, 3) + body)
    wire.pdu()


def _releases(wire: Wire) -> None:
    wire.message()
    wire.sock.sendall(struct.pack(">BxIxxxx", 5, 4))
    assert wire.pdu()[0] == 6


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (_never_answers, "did not answer within 1 s"),
        (_no_reading, "took no data for 1 s"),
        (_reset, "closed the connection"),
        (_aborts, "aborted the association"),
        (_wrong_message, "answered something that was not asked"),
        (_no_status, "without a status"),
        (_releases, "released the association instead of answering"),
        (lambda wire: wire.message(), "closed the connection"),
    ],
)
def test_the_association_ends_in_mid_object(tmp_path: Path, script: object, words: str) -> None:
    """What was answered stays stored, the object in hand failed, the rest was not tried; in time."""
    items, reports = make_items(tmp_path, 3), Reports()
    if script is _no_reading:
        (big,) = make_items(tmp_path, 1, size=60_000_000)
        items = [items[1], replace(big, delivery=2), items[2]]
    with scripted(lambda wire: _one_then(wire, script)) as pacs:
        begun = time.monotonic()
        error = send_objects(pacs, items, reports.append)
        assert time.monotonic() - begun < 20
        assert error is not None and error.startswith(pacs.where) and words in error, error
    assert reports.kinds() == ["stored", "failed", "not_tried"]
    assert reports[1].status is None and "not known" in reports[1].what


def test_echo_gives_up_in_time() -> None:
    """C-ECHO to a peer that accepts and then keeps silent, or refuses Verification, returns a sentence."""
    with scripted(lambda wire: (wire.accept(), wire.pdu(), wire.pdu())) as pacs:
        assert echo(pacs) == f"{pacs.where} did not answer within 1 s; look whether it is overloaded"
    with scripted(lambda wire: (wire.accept(only=99), wire.pdu())) as pacs:
        assert "accepts associations but not C-ECHO" in (echo(pacs) or "")


@pytest.mark.parametrize("most", [0, 8, 9, 50, 4096, 16384, 131072, 0xFFFFFFFF])
def test_fragments_fit_the_peer(tmp_path: Path, most: int) -> None:
    """Whatever maximum PDU length the peer announces, no PDU is longer, and the dataset arrives whole."""
    (item,) = make_items(tmp_path, 1, 300_000 if most in (0, 131072, 0xFFFFFFFF) else 3000)
    reports, seen = Reports(), []

    def script(wire: Wire) -> None:
        wire.accept(most=most)
        command, dataset, sizes = wire.message()
        seen.append(dataset)
        assert item.sop_uid.encode() in command
        assert most == 0 or max(sizes) <= most
        wire.respond(1)
        assert wire.pdu()[0] == 5, "the association must be released"
        wire.sock.sendall(struct.pack(">BxIxxxx", 6, 4))

    with scripted(script) as pacs:
        assert send_objects(pacs, [item], reports.append) is None
    assert seen == [dataset_of(Path(item.path))]
    assert reports.kinds() == ["stored"]


def test_a_release_collision_changes_nothing(tmp_path: Path) -> None:
    """Both sides ask for release at once: we answer, and what was stored stays stored (PS3.8 9.2, Sta9)."""

    def script(wire: Wire) -> None:
        wire.accept()
        wire.message()
        wire.respond(1)
        assert wire.pdu()[0] == 5
        wire.sock.sendall(struct.pack(">BxIxxxx", 5, 4))
        assert wire.pdu()[0] == 6
        wire.sock.sendall(struct.pack(">BxIxxxx", 6, 4))

    reports = Reports()
    with scripted(script) as pacs:
        assert send_objects(pacs, make_items(tmp_path, 1), reports.append) is None
    assert reports.kinds() == ["stored"]


def test_the_comment_of_the_peer_is_kept_apart(tmp_path: Path) -> None:
    """An Error Comment may name a patient: it stands in `comment`, never in `what`."""

    def answer(event: evt.Event) -> object:
        from pydicom.dataset import Dataset

        rsp = Dataset()
        rsp.Status, rsp.ErrorComment, rsp.OffendingElement = 0xC000, "no patient DOE^JANE", [0x00100010]
        return rsp

    reports = Reports()
    with scp(answer) as pacs:
        send_objects(pacs, make_items(tmp_path, 1), reports.append)
    assert reports[0].comment == "no patient DOE^JANE"
    assert reports[0].what == ("PACS answered C000 (cannot understand the object); it names (0010,0010)")


def test_we_say_who_we_are(tmp_path: Path) -> None:
    """The association names our AE title and the implementation that stands in our files too."""
    from node.store.arrival import IMPLEMENTATION_UID

    seen = []
    with scp(lambda event: seen.append(event.assoc.requestor) or 0, (CT, [EXPLICIT])) as pacs:
        send_objects(pacs, make_items(tmp_path, 1), Reports().append)
    assert seen[0].ae_title == "PACSNODE"
    assert seen[0].implementation_class_uid == IMPLEMENTATION_CLASS_UID == IMPLEMENTATION_UID


def test_stopping_leaves_the_rest(tmp_path: Path) -> None:
    """Asked to stop, it finishes the object in hand and reports the rest as not tried, without an error."""
    reports = Reports()
    with scp(lambda event: 0) as pacs:
        assert send_objects(pacs, make_items(tmp_path, 4), reports.append, lambda: len(reports) == 2) is None
    assert [r.kind for r in reports] == [Kind.STORED, Kind.STORED, Kind.NOT_TRIED, Kind.NOT_TRIED]
