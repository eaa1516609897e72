"""Destinations to send to: DCMTK and Orthanc as processes, pynetdicom and bare sockets with a script."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from peers import need
from pynetdicom import AE, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from node.send.protocol import Destination, Item, Result, Timeouts

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
SHORT = Timeouts(connect=2, associate=1, transfer=1, answer=1)
PATIENT_TIMEOUTS = Timeouts(connect=20, associate=60, transfer=60, answer=60)


def free_port() -> int:
    """Find a TCP port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def destination(port: int, **changes: object) -> Destination:
    """PACS on loopback."""
    given = {"ae_title": "PACS", "calling_ae": "PACSNODE", "timeouts": PATIENT_TIMEOUTS, **changes}
    return Destination(name="PACS", host="127.0.0.1", port=port, **given)


def element(tag: int, vr: str, value: bytes, order: str = "<") -> bytes:
    """One Explicit VR element with a 16-bit length; the value is taken as it is, odd or not."""
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def plain_dataset(sop_uid: str, sop_class: str = CT, extra: bytes = b"", order: str = "<") -> bytes:
    """Write a short Explicit VR dataset, elements of *extra* after the UIDs."""
    padded = [uid.encode() + b"\0" * (len(uid) % 2) for uid in (sop_class, sop_uid)]
    return element(0x00080016, "UI", padded[0], order) + element(0x00080018, "UI", padded[1], order) + extra


def part10(dataset: bytes, syntax: str = EXPLICIT, meta: bytes = b"") -> bytes:
    """*dataset* as a Part 10 file; *meta* stands in front of its Transfer Syntax UID."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = meta + element(0x00020010, "UI", uid)
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(body))) + body + dataset


def item_of(path: Path, number: int, sop_uid: str, sop_class: str = CT, syntax: str = EXPLICIT) -> Item:
    """Make the item of delivery *number*, first attempt."""
    return Item(number, 1, str(path), sop_class, sop_uid, syntax)


def make_items(folder: Path, count: int, size: int = 2000) -> list[Item]:
    """*count* CT objects of about *size* bytes."""
    items = []
    for number in range(1, count + 1):
        uid = f"1.2.3.{number}"
        path = folder / f"{number}.dcm"
        filler = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size) + bytes(size)
        path.write_bytes(part10(plain_dataset(uid, extra=filler)))
        items.append(item_of(path, number, uid))
    return items


class Reports(list[Result]):
    """Results in the order they were reported."""

    def kinds(self) -> list[str]:
        """List the kind of each."""
        return [str(result.kind) for result in self]


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen]:
    """Run a peer as a process, ready when *port* is open, ended by its id."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            assert running.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[tuple[Destination, Path]]:
    """DCMTK's storescp, which writes the dataset bit by bit as it came; yields it and its folder."""
    port, received = free_port(), folder / "received"
    received.mkdir()
    command = [need("storescp"), "+B", "+xa", "-od", str(received), *options, str(port)]
    with process(command, port, folder / "storescp.log"):
        yield destination(port), received


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[tuple[Destination, Callable[[str], object]]]:
    """Orthanc that knows only AE title PACSNODE and answers only to ORTHANC; yields it and its REST GET."""
    port, web = free_port(), free_port()
    settings = {
        "Name": "sending", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "DicomPort": port, "DicomAet": "ORTHANC", "DicomCheckCalledAet": True, "HttpPort": web,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomServerEnabled": True,
        "DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": False, "DicomCheckModalityHost": True,
        "DicomModalities": {"node": ["PACSNODE", "127.0.0.1", 11112]}, "Plugins": [],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))

    def get(path: str) -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}{path}", timeout=10) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body

    with process([need("Orthanc"), str(folder / "orthanc.json")], port, folder / "orthanc.log"):
        yield destination(port, ae_title="ORTHANC"), get


@contextlib.contextmanager
def scp(
    answer: Callable[[evt.Event], object], *contexts: tuple[str, list[str]], **settings: object
) -> Iterator[Destination]:
    """Run a pynetdicom SCP that answers C-STORE with what *answer* returns; *settings* go to its AE."""
    ae = AE("PACS")
    for sop_class, syntaxes in contexts or ((CT, [EXPLICIT]),):
        ae.add_supported_context(sop_class, syntaxes)
    for name, value in settings.items():
        setattr(ae, name, value)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    try:
        yield destination(server.server_address[1])
    finally:
        server.shutdown()


Script = Callable[["Wire"], None]


class Wire:
    """One accepted connection of a scripted peer, PDU by PDU."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def pdu(self) -> tuple[int, bytes]:
        """Read the next PDU, whole."""
        head = self._exactly(6)
        return head[0], head + self._exactly(int.from_bytes(head[2:], "big"))

    def accept(self, most: int = 16384, only: int | None = None) -> None:
        """Accept the association: all contexts, or *only* the one with this identifier."""
        request = A_ASSOCIATE_RQ()
        request.decode(self.pdu()[1])
        answer = request.to_primitive()
        results = answer.presentation_context_definition_list
        for context in results:
            context.result = 0 if only in (None, context.context_id) else 3
        answer.presentation_context_definition_results_list = results
        answer.maximum_length_received = most
        answer.result = 0
        self.sock.sendall(A_ASSOCIATE_AC(answer).encode())

    def message(self) -> tuple[bytes, bytes, list[int]]:
        """Read a whole DIMSE message with dataset: command set, dataset, length of each of its PDUs."""
        parts, sizes, last = {1: b"", 0: b""}, [], 0
        while last != 2:
            kind, raw = self.pdu()
            assert kind == 4, f"PDU type {kind}"
            sizes.append(len(raw) - 6)
            assert int.from_bytes(raw[6:10], "big") == len(raw) - 10
            last = raw[11]
            parts[last & 1] += raw[12:]
        return parts[1], parts[0], sizes

    def respond(self, message_id: int, status: int = 0, context: int = 1, field: int = 0x8001) -> None:
        """Send a C-STORE-RSP."""
        body = b"".join(
            struct.pack("<HHIH", 0, tag, 2, value)
            for tag, value in ((0x100, field), (0x120, message_id), (0x800, 0x101), (0x900, status))
        )
        command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
        size = len(command)
        self.sock.sendall(struct.pack(">BxIIBB", 4, size + 6, size + 2, context, 3) + command)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self.sock.recv(size - len(data))
            if not got:
                raise EOFError
            data += got
        return data


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Destination]:
    """Run a peer that runs *script* on each connection and closes it when the script ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    ended = threading.Event()
    faults: list[BaseException] = []

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = listener.accept()
                sock.settimeout(20)
                with sock:
                    try:
                        script(Wire(sock))
                    except (OSError, EOFError):
                        continue  # we hung up: part of many scripts
                    except AssertionError as fault:
                        faults.append(fault)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield destination(listener.getsockname()[1], timeouts=SHORT)
    finally:
        ended.set()
        thread.join(60)
        listener.close()
    assert not faults, faults


def dataset_of(path: Path) -> bytes:
    """Cut the dataset's bytes out of a Part 10 file, where pydicom says it begins."""
    return path.read_bytes()[split_dataset(path)[1] :]
