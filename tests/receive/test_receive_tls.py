"""Reception by TLS: who is let in and who is not, what is kept, and what hostile handshakes cost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import peers
import pytest
import structlog
from peers import need, wait_for
from pynetdicom import AE, _config, build_context
from pynetdicom.sop_class import CTImageStorage, Verification
from test_receive_wire import EXPLICIT, dataset_pdu, kept_dataset, request_pdu, send_bytes, store_pdu
from tls_material import LOOPBACK, Papers, connected, serial_of, trusting

from node.authority import Pair
from node.receive.census import Census
from node.receive.listener import Listener
from node.receive.reasons import Reason
from node.receive.securing import Keys
from node.receiver import build
from node.settings import parse
from node.store.files import Disk, ObjectFolder, records_after
from node.tls import Files

RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
SITE = """
node: {{ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}}
peers:
  CT01: {{sends_as: [CT01]}}
  MR01: {{sends_as: [MR01], tls: {{client_names: [mr01.hospital.example]}}}}
  US01: {{sends_as: [US01], tls: yes}}
  PACS: {{sends_as: [ORTHANC], tls: {{client_names: [orthanc]}}}}
limits: {{artim: {artim}}}
tls: {{listen: "127.0.0.1:2762", certificate: {folder}/node.pem, key: {folder}/node.key, trusted: {folder}/ca.pem,
  clients: {clients}, minimum: "{minimum}"}}
"""


@dataclass
class Node:
    """A receiver in this process, that listens with and without TLS."""

    data: Path
    keeper: ObjectFolder
    listener: Listener
    plain: int
    port: int
    """That for TLS."""
    logged: list[dict[str, object]]
    names: tuple[str, ...]
    """Of the peers."""

    def objects(self) -> list[Path]:
        """What is kept so far."""
        return [r.path for r in records_after(self.data, self.keeper.run, 0) if r.is_object]

    def idle(self) -> bool:
        """Whether no connection is followed any more and nothing is half-written."""
        return not self.listener.desk.sessions() and not list(self.data.rglob("*.part"))

    def said(self, event: str) -> list[dict[str, object]]:
        """The lines of the log with this event."""
        return [line for line in list(self.logged) if line["event"] == event]

    def failure(self) -> str:
        """The reason of the one handshake that failed, with an address."""
        wait_for(lambda: bool(self.said("tls_handshake_failed")), "the line in the log")
        (line,) = self.said("tls_handshake_failed")
        assert str(line["address"]).startswith("127.0.0.1:")
        (words,) = Census.last_words(self.listener.desk.census._fd, Reason.TLS_HANDSHAKE, self.names)
        assert words.why == str(line["reason"])[:159]  # the event says it, too
        return str(line["reason"])


@dataclass
class Making:
    """Makes receivers and takes them down again."""

    folder: Path
    papers: Papers
    logged: list[dict[str, object]] = field(default_factory=list)
    made: list[Node] = field(default_factory=list)

    def __call__(
        self, clients: str = "required", minimum: str = "1.2", artim: str = "20 s", disk: Disk | None = None
    ) -> Node:
        """Start one on two free ports."""
        text = SITE.format(clients=clients, minimum=minimum, artim=artim, folder=self.papers.folder)
        settings = parse(text, str(self.folder / "node.yaml"), {})
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        keeper = ObjectFolder(settings.node.data, disk or Disk("process"), lambda: None)
        names = tuple(settings.peers)
        fd = Census.create(1, names)
        listener = build(settings, sockets[0], keeper, Census(fd, 0, names), sockets[1])
        os.close(fd)
        listener.start()
        plain, port = (one.getsockname()[1] for one in sockets)
        self.made.append(Node(settings.node.data, keeper, listener, plain, port, self.logged, names))
        return self.made[-1]


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and certificates, made once."""
    papers = Papers(tmp_path_factory.mktemp("papers"))
    papers.pair("node", *LOOPBACK)
    papers.pair("ct01")
    papers.pair("mr01", "mr01.hospital.example")
    papers.expired("old")
    papers.early("early")
    Papers(papers.folder / "other").pair("ct01")
    return papers.folder


@pytest.fixture
def papers(signed: Path, tmp_path: Path) -> Papers:
    """A copy of them that a test may spoil."""
    shutil.copytree(signed, tmp_path / "tls")
    return Papers(tmp_path / "tls")


@pytest.fixture
def node(papers: Papers, tmp_path: Path) -> Iterator[Making]:
    """A maker of receivers; pynetdicom's switches and the log are put back after the test."""
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"])
    making = Making(tmp_path, papers)
    with structlog.testing.capture_logs() as logged:
        making.logged = logged
        yield making
        for made in making.made:
            if not made.listener.desk.stopping.is_set():
                made.listener.drain(0.1)
    _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"] = before


def pdu_of(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU; type 0 when the connection ended instead."""
    connection.settimeout(10)
    data, size = b"", 6
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except (ConnectionResetError, ssl.SSLEOFError):
            more = b""
        if not more:
            return 0, b""
        data += more
        size = 6 + int.from_bytes(data[2:6], "big") if len(data) >= 6 else 6
    return data[0], data[6:]


def associated(node: Node, context: ssl.SSLContext, calling: str = "CT01") -> ssl.SSLSocket:
    """Associate by hand, by TLS."""
    connection = connected(node.port, context)
    connection.sendall(request_pdu(calling))
    assert pdu_of(connection)[0] == 2
    return connection


def stored(connection: socket.socket, dataset: bytes, size: int = 100_000) -> bytes:
    """Send one C-STORE in PDUs of *size* bytes; the status of the answer as it came."""
    pieces = [dataset[at : at + size] for at in range(0, len(dataset), size)]
    connection.sendall(store_pdu(pieces[0]))
    for piece in pieces[1:]:
        connection.sendall(dataset_pdu(piece))
    connection.sendall(dataset_pdu(b"..", last=True))
    kind, body = pdu_of(connection)
    assert kind == 4
    at = body.index(struct.pack("<HHI", 0, 0x0900, 2))
    return body[at + 8 : at + 10]


# --- what is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_objects_of_several_mb_are_kept_byte_for_byte(node: Making, papers: Papers, version: str) -> None:
    """Both versions of TLS bring 9 MB and small objects as they were sent, over one association, then a release."""
    receiver = node()
    context = trusting(papers.ca.certificate, papers.pair("ct01"), version)
    sent = [os.urandom(9_000_000), os.urandom(20), os.urandom(200_001)]
    with associated(receiver, context) as connection:
        assert connection.version() == f"TLSv{version}"
        for dataset in sent:
            assert stored(connection, dataset) == b"\0\0"
        connection.sendall(RELEASE)
        assert pdu_of(connection)[0] == 6
        assert connection.recv(1) == b""  # close_notify, not a cut
    wait_for(receiver.idle, "the end")
    assert [kept_dataset(path) for path in receiver.objects()] == [dataset + b".." for dataset in sent]
    (line,) = receiver.said("association_released")
    assert line["objects"] == 3


def test_many_pdus_in_one_record_are_all_served(node: Making, papers: Papers) -> None:
    """What the TLS layer has already taken off the socket is not waited for: 200 echoes in one write are answered."""
    receiver = node()
    echo = struct.pack("<HHI", 0, 2, 18) + b"1.2.840.10008.1.1\0"
    echo += struct.pack("<HHIH", 0, 0x100, 2, 0x30) + struct.pack("<HHIH", 0, 0x110, 2, 1)
    echo += struct.pack("<HHIH", 0, 0x800, 2, 0x101)
    pdv = struct.pack(">IBB", len(echo) + 2, 1, 3) + echo
    one = struct.pack(">BBI", 4, 0, len(pdv)) + pdv
    with associated(receiver, trusting(papers.ca.certificate, papers.pair("ct01"))) as connection:
        connection.sendall(one * 200)
        assert [pdu_of(connection)[0] for _ in range(200)] == [4] * 200
        connection.sendall(RELEASE)
        assert pdu_of(connection)[0] == 6


@pytest.mark.parametrize("how", ["close", "reset", "garbage", "notify"])
def test_an_object_that_never_ended_leaves_nothing(node: Making, papers: Papers, how: str) -> None:
    """A cut, a reset, a broken record or a close_notify in mid-object: nothing stored, nothing left, no place taken."""
    receiver = node()
    connection = associated(receiver, trusting(papers.ca.certificate, papers.pair("ct01")))
    connection.sendall(store_pdu(os.urandom(100_000)))
    wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the first bytes on the disk")
    if how == "garbage":
        socket.socket.send(connection, b"\x17\x03\x03\x00\x20" + os.urandom(32))
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "notify":
        connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            connection.unwrap()
    connection.close()
    wait_for(receiver.idle, "the end")
    assert receiver.objects() == []
    assert receiver.listener.desk.census.total() == 0


def test_a_release_without_close_notify_is_a_release(node: Making, papers: Papers) -> None:
    """Many toolkits cut the connection below TLS when they are done: that is no failure."""
    receiver = node()
    connection = associated(receiver, trusting(papers.ca.certificate, papers.pair("ct01")))
    assert stored(connection, b"data" * 10) == b"\0\0"
    connection.sendall(RELEASE)
    assert pdu_of(connection)[0] == 6
    socket.socket.shutdown(connection, socket.SHUT_RDWR)
    connection.close()
    wait_for(receiver.idle, "the end")
    assert len(receiver.said("association_released")) == 1
    assert receiver.said("connection_broke") == []


def test_a_new_key_while_nothing_is_sent_is_no_message(node: Making, papers: Papers) -> None:
    """TLS 1.3 lets a peer change its keys at any time; an association that only does that is idle, not broken.

    Python cannot change keys, openssl can: `K` on its standard input.
    """
    receiver = node()
    pair = papers.pair("ct01")
    command = [
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{receiver.port}", "-CAfile", papers.ca.certificate,
        "-cert", pair.certificate, "-key", pair.key, "-quiet", "-no_ign_eof",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request_pdu())
        process.stdin.flush()
        head = process.stdout.read(6)
        assert head[0] == 2
        process.stdout.read(int.from_bytes(head[2:], "big"))
        process.stdin.write(b"K\n")
        process.stdin.flush()
        time.sleep(0.3)
        process.stdin.write(RELEASE)
        process.stdin.flush()
        assert process.stdout.read(6)[0] == 6
    finally:
        process.kill()
        process.wait()
    wait_for(receiver.idle, "the end")
    assert receiver.said("pdu_invalid") == []


# --- who gets in ------------------------------------------------------------------------------------------


def handshake(node: Node, *options: str | Path, typed: bytes = b"\n") -> str:
    """What openssl says of a handshake, and of what is *typed* at its prompt after it."""
    command = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{node.port}", *map(str, options)]
    done = subprocess.run(command, input=typed, capture_output=True, check=False, timeout=20)
    return (done.stdout + done.stderr).decode("latin-1")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_tls_1_0_and_1_1_are_refused(node: Making, papers: Papers, version: str) -> None:
    """Even a client that lowers its own guard gets no TLS older than 1.2 (RFC 8996)."""
    receiver = node()
    pair = papers.pair("ct01")
    said = handshake(
        receiver, version, "-cipher", "DEFAULT@SECLEVEL=0", "-cert", pair.certificate, "-key", pair.key
    )
    assert "alert protocol version" in said
    assert "PS3.15 B.12 forbids" in receiver.failure()


def test_only_suites_of_the_profile_are_taken(node: Making, papers: Papers) -> None:
    """Of TLS 1.2, AES-GCM with forward secrecy and nothing else; 1.3 where it alone is asked for."""
    receiver = node()
    pair = papers.pair("ct01")
    shown = ("-cert", pair.certificate, "-key", pair.key, "-tls1_2")
    for suite in ("AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        assert "alert handshake failure" in handshake(receiver, *shown, "-cipher", f"{suite}@SECLEVEL=0")
    for suite in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"):
        assert f"Cipher is {suite}" in handshake(receiver, *shown, "-cipher", suite)
    assert len(receiver.said("tls_handshake_failed")) == 3
    strict = node(minimum="1.3")
    assert "alert protocol version" in handshake(strict, *shown)


def test_no_session_outlives_the_files_it_was_made_with(node: Making, papers: Papers) -> None:
    """No tickets, compression or renegotiation; when a file changes, whoever comes again shows its certificate."""
    receiver = node()
    pair = papers.pair("ct01")
    shown = ("-cert", pair.certificate, "-key", pair.key, "-CAfile", papers.ca.certificate)
    assert "Compression: NONE" in handshake(receiver, *shown, "-tls1_2")
    for version in ("-tls1_2", "-tls1_3"):
        assert "TLS session ticket:" not in handshake(receiver, *shown, version)
    assert "no renegotiation" in handshake(receiver, *shown, "-tls1_2", typed=b"R\n")
    context = trusting(papers.ca.certificate, pair, "1.2")
    with associated(receiver, context) as connection:
        session = connection.session
    papers.renew("node", *LOOPBACK)
    time.sleep(1.1)
    plain = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as again:
        assert not again.session_reused


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ("none", "it shows no certificate"),
        ("old", "certificate has expired"),
        ("early", "not yet valid"),
        ("other", "its certificate is not believed"),
    ],
)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_who_cannot_prove_who_it_is_is_refused(
    node: Making, papers: Papers, shown: str, reason: str, version: str
) -> None:
    """No certificate, an expired one, one from the future, one of a stranger's authority: an alert, and one line."""
    receiver = node()
    pairs = {"none": None, "old": papers.pair("old"), "early": papers.pair("early"),
             "other": Pair.of(papers.folder / "other", "ct01")}  # fmt: skip
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        associated(receiver, trusting(papers.ca.certificate, pairs[shown], version))
    assert reason in receiver.failure()
    assert receiver.idle()


def test_where_certificates_are_optional_none_is_needed_and_a_bad_one_is_still_refused(
    node: Making, papers: Papers
) -> None:
    """`clients: optional` lets in who shows none, but nobody who shows a certificate of a stranger's authority."""
    receiver = node(clients="optional")
    for version in ("1.2", "1.3"):
        with associated(receiver, trusting(papers.ca.certificate, None, version)) as connection:
            assert stored(connection, b"data" * 10) == b"\0\0"
    other = Pair.of(papers.folder / "other", "ct01")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        associated(receiver, trusting(papers.ca.certificate, other))


@pytest.mark.parametrize(
    ("calling", "shown", "answer"),
    [("MR01", "mr01", 2), ("MR01", "ct01", 3), ("US01", "ct01", 2), ("CT01", "mr01", 2)],
)
def test_a_name_that_is_asked_for_must_be_in_the_certificate(
    node: Making, papers: Papers, calling: str, shown: str, answer: int
) -> None:
    """A peer with `client_names` cannot be played by another one that the same authority vouches for."""
    receiver = node()
    with connected(receiver.port, trusting(papers.ca.certificate, papers.pair(shown))) as connection:
        connection.sendall(request_pdu(calling))
        kind, body = pdu_of(connection)
    assert kind == answer
    if answer == 3:
        assert tuple(body[1:]) == (1, 1, 3)
        (line,) = receiver.said("association_rejected")
        assert "mr01.hospital.example" in str(line["reason"])
        assert "ct01" in str(line["reason"])


@pytest.mark.parametrize(("calling", "answer"), [("MR01", 3), ("US01", 3), ("CT01", 2)])
def test_a_peer_that_must_come_by_tls_is_rejected_without(node: Making, calling: str, answer: int) -> None:
    """At the plain port a peer with `tls` gets 1/1/3 and the log says where to go; others come as always."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.plain)) as connection:
        connection.sendall(request_pdu(calling))
        kind, body = pdu_of(connection)
    assert kind == answer
    if answer == 3:
        assert tuple(body[1:]) == (1, 1, 3)
        assert "tls.listen" in str(receiver.said("association_rejected")[0]["reason"])


# --- what handshakes cost ---------------------------------------------------------------------------------


def test_an_idle_connection_holds_up_nobody(node: Making, papers: Papers) -> None:
    """Ten clients that connect to the TLS port and say nothing: the next one shakes hands all the same."""
    receiver = node()
    silent = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(10)]
    with associated(receiver, trusting(papers.ca.certificate, papers.pair("ct01"))) as connection:
        assert receiver.listener.desk.census.total() == 1
        connection.sendall(RELEASE)
        assert pdu_of(connection)[0] == 6
    for one in silent:
        one.close()
    wait_for(receiver.idle, "the end")
    assert receiver.said("tls_handshake_failed") == []  # whoever watches a port says nothing


def test_probes_of_the_tls_port_leave_nothing(node: Making, papers: Papers) -> None:
    """Monitors that connect and close, and handshakes that break off: threads and descriptors are what they were."""
    receiver = node()
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    associated(receiver, context).close()
    wait_for(receiver.idle, "the end")

    def spent() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count

    before = spent()
    for number in range(150):
        with socket.create_connection(("127.0.0.1", receiver.port)) as probe:
            if number % 3:
                probe.sendall(b"\x16\x03\x01" if number % 3 == 1 else b"GET / HTTP/1.0\r\n\r\n")
    wait_for(lambda: spent() <= before, "threads and descriptors")
    associated(receiver, context).close()
    wait_for(lambda: len(receiver.said("tls_handshake_failed")) == 100, "a line for each that said something")


def test_a_dripping_handshake_ends_at_its_deadline(node: Making, papers: Papers) -> None:
    """A client that sends a byte of its ClientHello every tenth of a second is closed when `artim` is over."""
    receiver = node(artim="1 s")
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(papers.ca.certificate).wrap_bio(*hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    said = hello[1].read()
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.settimeout(0.1)
        closed = False
        for at in range(200):
            try:
                connection.send(said[at : at + 1])
                closed = connection.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            if closed:
                break
    assert closed
    assert 0.9 <= time.monotonic() - begun < 20
    assert receiver.failure() == "it did not finish the handshake in time"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks HTTP, not TLS"),
        (request_pdu(), "it speaks DICOM without TLS"),
        (b"\xff" * 100, "it does not speak TLS"),
    ],
)
def test_what_is_no_tls_is_closed_with_one_line(node: Making, said: bytes, reason: str) -> None:
    """HTTP, plain DICOM and noise at the TLS port: closed, one line with address and reason."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(said)
        while connection.recv(1000):
            pass
    assert reason in receiver.failure()
    assert receiver.said("connection_broke") == []


def test_tls_at_the_plain_port_is_closed_with_one_line(node: Making, papers: Papers) -> None:
    """A sender that was set to TLS, but to the wrong port: the log says what it is."""
    receiver = node()
    with pytest.raises(OSError):
        connected(receiver.plain, trusting(papers.ca.certificate))
    wait_for(receiver.idle, "the end")
    (line,) = receiver.said("pdu_invalid")
    assert "a TLS handshake on the port without TLS" in str(line["reason"])


def test_connections_of_both_ports_count_together(node: Making) -> None:
    """Silent connections at either port are bounded by the same limits, and each one over them is closed at once."""
    receiver = node()
    limit = 160 + 10
    opened = []
    for number in range(limit):
        port = (receiver.plain, receiver.port)[number % 2]
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=5))
    wait_for(lambda: len(receiver.said("connection_refused")) >= 10, "the refusals")
    for one in opened:
        one.close()


# --- files that change ------------------------------------------------------------------------------------


def serial(connection: ssl.SSLSocket) -> str:
    """The serial number of the certificate that the node showed."""
    return str((connection.getpeercert() or {})["serialNumber"])


def test_a_new_certificate_is_shown_without_a_restart(node: Making, papers: Papers) -> None:
    """The next connection sees the new one; the association that was open goes on and stores."""
    receiver = node()
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    before = associated(receiver, context)
    assert serial(before) == serial_of(papers.folder / "node.pem")
    new = papers.renew("node", *LOOPBACK)
    assert new != serial(before)
    wait_for(lambda: serial(associated(receiver, context)) == new, "the new certificate")
    assert stored(before, b"data" * 1000) == b"\0\0"
    before.close()
    wait_for(receiver.idle, "the end")
    assert len(receiver.objects()) == 1
    assert receiver.said("tls_files_broken") == []


def test_an_authority_that_is_taken_away_lets_nobody_in_any_more(node: Making, papers: Papers) -> None:
    """`trusted` is read again as well: who was let in a moment ago is refused, who the new one vouches for comes."""
    receiver = node()
    ours, theirs = papers.pair("ct01"), Pair.of(papers.folder / "other", "ct01")
    associated(receiver, trusting(papers.ca.certificate, ours)).close()
    shutil.copy(papers.folder / "ca.pem", papers.folder / "node-ca.pem")
    shutil.copy(papers.folder / "other" / "ca.pem", papers.folder / "ca.pem")

    def comes(pair: Pair) -> bool:
        try:
            associated(receiver, trusting(papers.folder / "node-ca.pem", pair)).close()
        except OSError:
            return False
        return True

    wait_for(lambda: comes(theirs), "the new authority's")
    assert not comes(ours)


def test_a_broken_new_certificate_keeps_the_old(node: Making, papers: Papers) -> None:
    """A half-written file is said once in the log, and the context of before is used until it is mended."""
    receiver = node()
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    (papers.folder / "node.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    wait_for(
        lambda: associated(receiver, context).close() or bool(receiver.said("tls_files_broken")), "the line"
    )
    for _ in range(3):
        with associated(receiver, context) as connection:
            assert stored(connection, b"data" * 10) == b"\0\0"
        time.sleep(0.4)
    (line,) = receiver.said("tls_files_broken")
    assert str(papers.folder / "node.pem") in str(line["reason"])
    assert line["state"] == "the older ones are used"
    (papers.folder / "node.pem").unlink()
    (papers.folder / "node.key").unlink()
    papers.pair("node", *LOOPBACK)
    new = serial_of(papers.folder / "node.pem")
    wait_for(lambda: serial(associated(receiver, context)) == new, "the mended certificate")


def test_broken_files_at_the_start_close_tls_and_not_the_plain_port(node: Making, papers: Papers) -> None:
    """A receiver that starts again with broken files receives without TLS; once they are mended, with it too."""
    papers.pair("ct01")
    (papers.folder / "node.key").write_text("no key")
    receiver = node()
    (line,) = receiver.said("tls_files_broken")
    assert line["state"] == "nobody can come by TLS"
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    with pytest.raises(OSError):
        associated(receiver, context)
    assert "our own files cannot be used" in receiver.failure()
    with socket.create_connection(("127.0.0.1", receiver.plain)) as connection:
        connection.sendall(request_pdu())
        assert pdu_of(connection)[0] == 2
        assert stored(connection, b"data" * 10) == b"\0\0"
    for name in ("node.pem", "node.key"):
        (papers.folder / name).unlink()
    papers.pair("node", *LOOPBACK)
    time.sleep(1.1)
    associated(receiver, context).close()


# --- stopping ---------------------------------------------------------------------------------------------


def test_a_stopping_receiver_finishes_the_object_in_hand_and_aborts_the_rest(
    node: Making, papers: Papers
) -> None:
    """As without TLS: the C-STORE in hand is answered with success, an idle association and it are told A-ABORT."""

    class SlowDisk(Disk):
        started = threading.Event()

        def rename(self, source: Path, target: Path) -> None:
            """Take a while."""
            self.started.set()
            time.sleep(0.5)
            super().rename(source, target)

    disk = SlowDisk("process")
    receiver = node(disk=disk)
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    idle, busy = (associated(receiver, context) for _ in range(2))
    shaking = socket.create_connection(("127.0.0.1", receiver.port))
    statuses: list[bytes] = []
    sender = threading.Thread(target=lambda: statuses.append(stored(busy, b"data" * 100)))
    sender.start()
    disk.started.wait(60)
    receiver.listener.drain(10)
    sender.join(60)
    assert statuses == [b"\0\0"]
    assert pdu_of(idle)[0] == 7
    assert pdu_of(busy)[0] == 7
    assert len(receiver.objects()) == 1
    for port in (receiver.port, receiver.plain):
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    for one in (idle, busy, shaking):
        one.close()


# --- real peers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ec", "rsa"])
def test_dcmtk_stores_and_echoes_by_tls(
    node: Making, tmp_path: Path, algorithm: str, dcmtk_files: list[Path]
) -> None:
    """Storescu and echoscu with +tls, with keys of either kind; without a certificate they are refused."""
    papers = Papers(tmp_path / algorithm, algorithm)  # type: ignore[arg-type]
    papers.pair("node", *LOOPBACK)
    node.papers = papers
    receiver, pair = node(), papers.pair("ct01")
    secure = ["+tls", str(pair.key), str(pair.certificate), "+cf", str(papers.ca.certificate)]
    titles = ["-aet", "CT01", "-aec", "PACSNODE", "127.0.0.1", str(receiver.port)]
    environ = {**os.environ, "TCP_NODELAY": "1"}
    for program, more in (("echoscu", []), ("storescu", ["-R", *map(str, dcmtk_files)])):
        done = subprocess.run(
            [need(program), *secure, *([more.pop(0)] if more else []), *titles, *more],
            capture_output=True, text=True, check=False, env=environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    wait_for(receiver.idle, "the end")
    assert len(receiver.objects()) == len(dcmtk_files)
    anonymous = [need("echoscu"), "+tla", "+cf", str(papers.ca.certificate), *titles]
    assert subprocess.run(anonymous, capture_output=True, check=False).returncode != 0
    assert receiver.failure() == "it shows no certificate"


@pytest.fixture
def dcmtk_files(tmp_path: Path) -> list[Path]:
    """A few CT slices."""
    from node.testing import Grid, Series, body_volume, write_ct_series

    volume = body_volume(Grid(shape=(4, 64, 64), spacing=(5, 4, 4)))
    return [Path(path) for path in write_ct_series(tmp_path / "slices", volume, series=Series("ct"))]


@pytest.mark.parametrize("algorithm", ["ec", "rsa"])
def test_orthanc_stores_by_tls(node: Making, tmp_path: Path, algorithm: str, dcmtk_files: list[Path]) -> None:
    """Orthanc with UseDicomTls sends what it holds, and shows its own certificate, whose name is asked for."""
    papers = Papers(tmp_path / algorithm, algorithm)  # type: ignore[arg-type]
    papers.pair("node", *LOOPBACK)
    node.papers = papers
    receiver, pair = node(), papers.pair("orthanc")
    more = {
        "DicomTlsCertificate": str(pair.certificate),
        "DicomTlsPrivateKey": str(pair.key),
        "DicomTlsTrustedCertificates": str(papers.ca.certificate),
        "DicomModalities": {
            "node": {"AET": "PACSNODE", "Host": "127.0.0.1", "Port": receiver.port, "UseDicomTls": True}
        },
    }
    with peers.orthanc(tmp_path / "orthanc", more=more) as pacs:
        for path in dcmtk_files:
            upload = urllib.request.Request(f"http://127.0.0.1:{pacs.http}/instances", path.read_bytes())
            urllib.request.urlopen(upload, timeout=20).close()
        pacs.post("/modalities/node/echo", {})
        pacs.post("/modalities/node/store", pacs.get("/instances"))
    wait_for(receiver.idle, "the end")
    assert len(receiver.objects()) == len(dcmtk_files)
    assert receiver.said("tls_handshake_failed") == []


def test_pynetdicom_stores_by_tls(node: Making, papers: Papers) -> None:
    """Pynetdicom with tls_args: echo, store, release."""
    receiver = node()
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    ae = AE(ae_title="CT01")
    contexts = [build_context(CTImageStorage, EXPLICIT), build_context(Verification, EXPLICIT)]
    assoc = ae.associate(
        "127.0.0.1", receiver.port, contexts=contexts, ae_title="PACSNODE", tls_args=(context, "localhost")
    )
    assert assoc.is_established
    dataset = os.urandom(700_000)
    assert send_bytes(assoc, "1.2.3", dataset) == 0x0000
    assoc.release()
    (path,) = receiver.objects()
    assert kept_dataset(path) == dataset


def test_a_killed_receiver_leaves_nothing_of_an_object_in_hand(papers: Papers, tmp_path: Path) -> None:
    """SIGKILL in mid-object over TLS: the next receiver removes the part, and nothing was acknowledged."""
    plain, secured = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    text = SITE.format(clients="required", minimum="1.2", artim="20 s", folder=papers.folder)
    file = tmp_path / "node.yaml"
    file.write_text(text)
    census = Census.create(1, tuple(parse(text, str(file), {}).peers))
    wake = os.pipe()

    def start() -> subprocess.Popen[bytes]:
        descriptors = {"--listen-fd": plain.fileno(), "--tls-fd": secured.fileno(), "--census-fd": census,
                       "--wake-fd": wake[1]}  # fmt: skip
        options = [str(part) for pair in descriptors.items() for part in pair]
        with file.open("rb") as settings:
            return subprocess.Popen(
                [sys.executable, "-m", "node.receiver", *options, "--slot", "0", "--parent", str(os.getpid()),
                 "--file", str(file)],
                stdin=settings, stderr=subprocess.PIPE, pass_fds=tuple(descriptors.values()),
            )  # fmt: skip

    def ready(process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "receiver_ready":
                return

    parts: Callable[[], list[Path]] = lambda: list((tmp_path / "data").rglob("*.part"))  # noqa: E731
    first = start()
    ready(first)
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    with connected(secured.getsockname()[1], context) as connection:
        connection.sendall(request_pdu())
        assert pdu_of(connection)[0] == 2
        connection.sendall(store_pdu(os.urandom(100_000)))
        wait_for(lambda: bool(parts()), "the first bytes on the disk")
        first.kill()
        first.wait()
    second = start()
    try:
        ready(second)
        assert parts() == []
        assert list((tmp_path / "data" / "objects").rglob("*.dcm")) == []
        connected(secured.getsockname()[1], context).close()
    finally:
        second.kill()
        second.wait()
        for fd in (census, *wake):
            os.close(fd)
        plain.close()
        secured.close()


def test_sessions_that_a_context_remembers_are_bounded(papers: Papers) -> None:
    """OpenSSL would keep 20 000 sessions of TLS 1.2; a context is given up long before, and never for a broken one."""
    files = Files(
        str(papers.folder / "node.pem"), str(papers.folder / "node.key"), str(papers.ca.certificate)
    )
    keys = Keys(files, "1.2", certificate_needed=True, clock=lambda: 0.0)
    first = keys.context()
    (papers.folder / "node.key").write_text("half a k")
    assert {id(keys.context()) for _ in range(600)} == {id(first)}
    Pair.of(papers.folder, "node").certificate.unlink()
    Pair.of(papers.folder, "node").key.unlink()
    papers.pair("node", *LOOPBACK)
    given = [keys.context() for _ in range(2000)]
    assert 3 <= len({id(one) for one in given}) <= 6
