"""Messages about performed procedure steps at the receiver: durable before they are answered, and from whom."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from peers import keep_answers, wait_for
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from receive.message_house import Receiver, started
from receive.scripted_peer import RELEASE, associate_pdu, pdu, pdv, read_command, read_pdu

from node import performed
from node.model import StepMessage
from node.performed import Performed, PerformedSeries, StepState
from node.reader import Reader
from node.receive import mpps
from node.receive.command import encode
from node.store.files import Disk, ObjectFolder, records_after
from node.store.records import read_step

MPPS, STEP = "1.2.840.10008.3.1.2.3.3", "2.25.4711"
CT = "1.2.840.10008.5.1.4.1.1.2"
MESSAGE = StepMessage(
    "N-CREATE", STEP, "1.2.840.10008.1.2", "CT01", "PACSNODE", "1-1", datetime(2026, 3, 1, tzinfo=UTC)
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver in this process; CT01 is a peer, and who is none may send objects all the same."""
    with started(
        tmp_path / "data", ("CT01",), read_step, strangers=True, performers=frozenset({"CT01"})
    ) as made:
        yield made


def associate(receiver: Receiver, syntax: str = "1.2.840.10008.1.2", calling: str = "CT01") -> Association:
    """Associate as a modality does, for images and for its steps."""
    ae = AE(calling)
    ae.add_requested_context(MPPS, syntax)
    ae.add_requested_context(CT)
    assoc = ae.associate("127.0.0.1", receiver.port, ae_title="PACSNODE")
    keep_answers(assoc)
    return assoc


def step(state: str = "COMPLETED", *, images: int = 3) -> Dataset:
    """A step with one series of images, and one object that is none."""
    said, scheduled, series, other = Dataset(), Dataset(), Dataset(), Dataset()
    scheduled.StudyInstanceUID = "1.2.9"
    said.ScheduledStepAttributesSequence = [scheduled]
    said.PatientName, said.PerformedStationAETitle, said.PerformedProcedureStepStatus = "Doe", "CT01", state
    series.SeriesInstanceUID, series.ReferencedImageSequence = "1.2.9.1", []
    for number in range(images):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, f"1.2.3.{number}"
        series.ReferencedImageSequence.append(image)
    other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = CT, "1.2.3.99"
    series.ReferencedNonImageCompositeSOPInstanceSequence = [other]
    said.PerformedSeriesSequence = [series]
    return said


SAID = Performed(
    StepState.COMPLETED,
    "CT01",
    ("1.2.9",),
    (PerformedSeries("1.2.9.1", ("1.2.3.0", "1.2.3.1", "1.2.3.2", "1.2.3.99")),),
)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"],
    ids=["implicit", "explicit", "big"],
)
def test_a_step_is_kept_before_it_is_answered(receiver: Receiver, syntax: str) -> None:
    """N-CREATE and N-SET in any syntax are records on the disk when success is answered, and the reader reads them."""
    assoc = associate(receiver, syntax)
    assert len(assoc.accepted_contexts) == 2, "images and steps on one association"
    status, _ = assoc.send_n_create(step("IN PROGRESS", images=0), MPPS, STEP)
    assert status.Status == 0x0000 and len(receiver.messages()) == 1
    status, _ = assoc.send_n_set(step(), MPPS, STEP)
    assert status.Status == 0x0000
    created, changed = (message for message, _ in receiver.messages())
    assert (created.command, changed.command) == ("N-CREATE", "N-SET")
    assert created.sop_uid == changed.sop_uid == STEP
    assert (changed.peer, changed.called, changed.transfer_syntax) == ("CT01", "PACSNODE", syntax)
    *_, record = records_after(receiver.data, receiver.keeper.run, 0)
    answer = Reader().answer(f'{{"paths": ["{record.path}"]}}')
    assert performed.from_json(answer["performed"]) == SAID
    assoc.release()


def test_a_full_disk_is_no_success(receiver: Receiver) -> None:
    """What cannot be kept is answered 0110H, and the modality comes again on the same association."""
    assoc = associate(receiver)
    receiver.disk.full = True
    status, _ = assoc.send_n_create(step("IN PROGRESS"), MPPS, STEP)
    assert status.Status == 0x0110 and not receiver.messages()
    receiver.disk.full = False
    status, _ = assoc.send_n_create(step("IN PROGRESS"), MPPS, STEP)
    assert status.Status == 0x0000 and len(receiver.messages()) == 1
    assoc.release()


def test_who_is_no_peer_tells_of_no_steps(receiver: Receiver) -> None:
    """A sender that the site file does not name may send images; the SOP class of steps is not accepted from it."""
    assoc = associate(receiver, calling="STRANGER")
    assert [str(context.abstract_syntax) for context in assoc.accepted_contexts] == [CT]
    assoc.release()


def test_what_is_no_request_of_the_class_is_answered(receiver: Receiver) -> None:
    """N-GET is no operation of the class: 0211H, nothing is kept, and the association goes on."""
    assoc = associate(receiver)
    status, _ = assoc.send_n_get([0x00400252], MPPS, STEP)
    assert status.Status == 0x0211 and not receiver.messages()
    status, _ = assoc.send_n_create(step("IN PROGRESS"), MPPS, STEP)
    assert status.Status == 0x0000
    assoc.release()


@pytest.mark.parametrize(
    ("peer", "uid", "size", "status"),
    [
        ("CT01", STEP, 8, 0x0000),
        ("CT01", "1" * 64, 8, 0x0000),
        ("CT01", "../../etc/passwd", 8, 0x0000),  # it never becomes a name
        ("CT01", "", 8, 0x0117),
        ("CT01", "1" * 65, 8, 0x0117),
        ("CT01", STEP, 0, 0x0120),
        ("CT01", STEP, mpps.LONGEST + 1, 0x0213),
        ("STRANGER", STEP, 8, 0x0124),
    ],
)
@pytest.mark.parametrize("command", ["N-CREATE", "N-SET"])
def test_what_is_answered(command: str, peer: str, uid: str, size: int, status: int, tmp_path: Path) -> None:
    """Each fault of a message has its status (PS3.7 Annex C); only success leaves a record."""
    keeper = ObjectFolder(tmp_path, Disk("process"), lambda: None)
    message = replace(MESSAGE, command=command, peer=peer, sop_uid=uid)
    assert mpps.keep(message, memoryview(bytes(size)), keeper, frozenset({"CT01"})) == status
    kept = [read_step(record.path) for record in records_after(tmp_path, keeper.run, 0)]
    assert kept == ([(message, bytes(size))] if status == 0 else [])


@pytest.mark.filterwarnings("ignore:End of file")
def test_what_cannot_be_read_is_said_by_the_reader(tmp_path: Path) -> None:
    """Noise, an endless sequence, an unknown status, too many objects: words, and the reader goes on."""
    keeper = ObjectFolder(tmp_path, Disk("process"), lambda: None)

    def element(group: int, number: int, value: bytes) -> bytes:
        head = group.to_bytes(2, "little") + number.to_bytes(2, "little")
        return head + len(value).to_bytes(4, "little") + value

    def item(content: bytes) -> bytes:
        return element(0xFFFE, 0xE000, content)

    images = b"".join(
        item(element(0x0008, 0x1155, b"1.2.%04d" % n)) for n in range(performed.MOST_IMAGES + 1)
    )
    series = item(element(0x0008, 0x1140, images) + element(0x0020, 0x000E, b"1.2 "))
    contents = {
        b"\x40\x00\x40\x03\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3: "cannot be parsed",
        element(0x0040, 0x0252, b"FINISHED"): "none of the three",
        element(0x0040, 0x0340, series): "it names more than 50000 objects",
    }
    for content in contents:
        keeper.step(MESSAGE, memoryview(content))
    for record, words in zip(records_after(tmp_path, keeper.run, 0), contents.values(), strict=True):
        assert words in Reader().answer(f'{{"paths": ["{record.path}"]}}')["failed"]


def test_a_message_may_say_little() -> None:
    """Without state, without series, with a series that is told of twice: nothing is made up."""
    assert performed.from_json(performed.to_json(SAID)) == SAID
    assert performed.decode(b"\x10\x00\x10\x00\x04\x00\x00\x00DOE ", "1.2.840.10008.1.2") == Performed(
        None, "", (), None
    )


# --- peers that are no pynetdicom


def element(number: int, value: bytes) -> bytes:
    """One element of group 0040, Implicit VR Little Endian."""
    return struct.pack("<HHI", 0x0040, number, len(value)) + value


DATASET = element(0x0252, b"IN PROGRESS ")
N_CREATE, N_SET = 0x0140, 0x0120
CLASS = MPPS.encode() + b"\0"


def bare(receiver: Receiver) -> socket.socket:
    """An association for steps, as bytes: context 1 is theirs, context 3 is for CT."""
    contexts = ((1, MPPS, ("1.2.840.10008.1.2",)), (3, CT, ("1.2.840.10008.1.2",)))
    connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
    connection.sendall(associate_pdu(contexts))
    assert read_pdu(connection)[0] == 2
    return connection


def created(**further: bytes) -> bytes:
    """The command set of an N-CREATE, without the UID of an instance unless it is given."""
    elements = {0x0002: CLASS, **({0x1000: further["uid"]} if "uid" in further else {})}
    return scripted(N_CREATE, elements)


def scripted(field: int, elements: dict[int, bytes], *, dataset: bool = True) -> bytes:
    """A command set as sparse as DCMTK's."""
    kind = 1 if dataset else 0x0101
    own = {0x0100: struct.pack("<H", field), 0x0110: b"\7\0", 0x0800: struct.pack("<H", kind)}
    return encode({**own, **elements})


@pytest.mark.parametrize(
    ("fragments", "status"),
    [
        ([pdv(3, created(uid=b"1.2.3\0")), pdv(2, DATASET)], 0x0000),
        ([pdv(3, created()), pdv(2, DATASET)], 0x0117),  # the SCP does not make up UIDs
        ([pdv(3, scripted(N_SET, {0x0003: CLASS, 0x1001: b"1.2.3\0"})), pdv(2, DATASET)], 0x0000),
        ([pdv(3, scripted(N_SET, {0x0003: CLASS})), pdv(2, DATASET)], 0x0117),
        ([pdv(3, scripted(N_CREATE, {0x0002: CLASS, 0x1000: b"1.2.3\0"}, dataset=False))], 0x0120),
        (
            [pdv(3, created(uid=b"1.2.3\0")), *(pdv(0, bytes([one])) for one in DATASET), pdv(2, b"")],
            0x0000,
        ),
    ],
    ids=["create", "create without UID", "set", "set without UID", "without dataset", "byte by byte"],
)
def test_bare_messages(receiver: Receiver, fragments: list[bytes], status: int) -> None:
    """What a sparse peer sends is answered by its content; what is kept is what it sent."""
    connection = bare(receiver)
    connection.sendall(pdu(*fragments))
    answer = read_command(connection)
    assert (answer[0x0900], answer[0x0120]) == (struct.pack("<H", status), b"\7\0")
    assert [dataset for _, dataset in receiver.messages()] == ([DATASET] if status == 0 else [])
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6
    connection.close()


def test_a_step_on_the_context_of_images_is_not_one(receiver: Receiver) -> None:
    """N-CREATE where CT was agreed on is no operation of that class, and is not kept."""
    connection = bare(receiver)
    connection.sendall(pdu(pdv(3, created(uid=b"1.2.3\0"), 3), pdv(2, DATASET, 3)))
    assert read_command(connection)[0x0900] == b"\x11\x02"
    assert receiver.messages() == []
    connection.close()


def test_a_step_that_breaks_off_leaves_nothing(receiver: Receiver) -> None:
    """Cut within its dataset it was never answered, and no record of it is there."""
    connection = bare(receiver)
    connection.sendall(pdu(pdv(3, created(uid=b"1.2.3\0")), pdv(0, DATASET[:4])))
    connection.close()
    wait_for(lambda: not receiver.desk.sessions(), "the end")
    assert receiver.messages() == [] and not list(receiver.data.rglob("*.part"))


def test_a_step_too_long_ends_the_association(receiver: Receiver) -> None:
    """More than is kept in memory of any message is a fault; nothing of it is kept."""
    connection = bare(receiver)
    connection.sendall(pdu(pdv(3, created(uid=b"1.2.3\0"))))
    with contextlib.suppress(OSError):
        for _ in range(90):
            connection.sendall(pdu(pdv(0, bytes(100_000))))
    wait_for(lambda: not receiver.desk.sessions(), "the end")
    assert receiver.messages() == []
    connection.close()
