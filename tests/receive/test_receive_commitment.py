"""Messages about storage commitment at the receiver: durable before they are answered, and from whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from peers import keep_answers, wait_for
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from receive.message_house import Receiver, started

from node import commitment
from node.commitment import Dialogue, Reference
from node.model import CommitMessage
from node.reader import Reader
from node.receive import commitment as receiving
from node.receive.commitment import Speakers, keep
from node.receiver import policy_of, speakers_of
from node.settings import parse
from node.store.files import Disk, ObjectFolder, records_after
from node.store.records import read_commit

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SAID = Dialogue("2.25.7", (Reference(CT, "1.2.3"), Reference(CT, "1.2.4", 0x0112)))
SPEAKERS = Speakers(asking=frozenset({"MR01"}), answering=frozenset({"PACS"}))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver in this process, with one peer that may ask and one that commits."""
    peers = ("MR01", "PACS", "CT01")
    with started(tmp_path / "data", peers, read_commit, strangers=False, speakers=SPEAKERS) as made:
        yield made


def associate(receiver: Receiver, calling: str, syntax: str, *, as_scp: bool = False) -> Association:
    """Associate for storage commitment, with role selection where we are the SCP."""
    ae = AE(calling)
    ae.add_requested_context(PUSH_MODEL, syntax)
    roles = [build_role(PUSH_MODEL, scp_role=True)] if as_scp else []
    assoc = ae.associate("127.0.0.1", receiver.port, ae_title="PACSNODE", ext_neg=roles)
    keep_answers(assoc)
    return assoc


def dataset() -> Dataset:
    """`SAID` as pydicom writes it."""
    done, failed, said = Dataset(), Dataset(), Dataset()
    done.ReferencedSOPClassUID, done.ReferencedSOPInstanceUID = CT, "1.2.3"
    failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason = CT, "1.2.4", 0x0112
    said.TransactionUID, said.ReferencedSOPSequence, said.FailedSOPSequence = "2.25.7", [done], [failed]
    return said


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"],
    ids=["implicit", "explicit", "big"],
)
def test_a_report_in_the_role_that_the_peer_proposes(receiver: Receiver, syntax: str) -> None:
    """An archive reports as SCP, in any syntax; the message is on the disk, and the reader understands it."""
    assoc = associate(receiver, "PACS", syntax, as_scp=True)
    (context,) = assoc.accepted_contexts
    assert context.as_scp and not context.as_scu, "the role it proposed was confirmed"
    status, _ = assoc.send_n_event_report(dataset(), 2, PUSH_MODEL, INSTANCE)
    assert status.Status == 0x0000
    ((message, _),) = receiver.messages()
    assert (message.command, message.number, message.peer, message.called) == (
        "N-EVENT-REPORT",
        2,
        "PACS",
        "PACSNODE",
    )
    assert message.transfer_syntax == syntax
    (record,) = records_after(receiver.data, receiver.keeper.run, 0)
    assert commitment.from_json(Reader().answer(f'{{"paths": ["{record.path}"]}}')["said"]) == SAID
    assoc.release()
    wait_for(lambda: not receiver.desk.sessions(), "the end")
    assert len(list(records_after(receiver.data, receiver.keeper.run, 0))) == 1, "no object came: no end"


def test_a_request_is_kept_behind_what_came_before(receiver: Receiver) -> None:
    """N-ACTION is answered with success when it is a record of the receiver's sequence."""
    assoc = associate(receiver, "MR01", "1.2.840.10008.1.2")
    for number in range(2):
        status, _ = assoc.send_n_action(dataset(), 1, PUSH_MODEL, INSTANCE)
        assert status.Status == 0x0000
        assert len(receiver.messages()) == number + 1
    assoc.release()
    assert [message.command for message, _ in receiver.messages()] == ["N-ACTION", "N-ACTION"]


def test_a_full_disk_is_no_success(receiver: Receiver) -> None:
    """What cannot be kept is answered 0110H, and the peer comes again; the association goes on."""
    assoc = associate(receiver, "PACS", "1.2.840.10008.1.2", as_scp=True)
    receiver.disk.full = True
    status, _ = assoc.send_n_event_report(dataset(), 2, PUSH_MODEL, INSTANCE)
    assert status.Status == 0x0110 and not receiver.messages()
    receiver.disk.full = False
    status, _ = assoc.send_n_event_report(dataset(), 2, PUSH_MODEL, INSTANCE)
    assert status.Status == 0x0000 and len(receiver.messages()) == 1
    assoc.release()


def test_a_scanner_that_may_not_speak_of_it(receiver: Receiver) -> None:
    """Neither committing to us nor allowed to ask: the SOP class is none of ours."""
    assoc = associate(receiver, "CT01", "1.2.840.10008.1.2")
    assert not assoc.is_established and not receiver.messages()


@pytest.mark.parametrize(
    ("peer", "command", "number", "size", "status"),
    [
        ("MR01", "N-ACTION", 1, 8, 0x0000),
        ("PACS", "N-ACTION", 1, 8, 0x0124),
        ("MR01", "N-EVENT-REPORT", 1, 8, 0x0124),
        ("PACS", "N-EVENT-REPORT", 2, 8, 0x0000),
        ("MR01", "N-ACTION", 2, 8, 0x0123),
        ("PACS", "N-EVENT-REPORT", 3, 8, 0x0113),
        ("MR01", "N-ACTION", 1, 0, 0x0115),
        ("MR01", "N-ACTION", 1, receiving.LONGEST + 1, 0x0213),
    ],
)
def test_what_is_answered(
    peer: str, command: str, number: int, size: int, status: int, tmp_path: Path
) -> None:
    """Each fault of a message has its status (PS3.7 Annex C); only success leaves a record."""
    keeper = ObjectFolder(tmp_path, Disk("process"), lambda: None)
    message = CommitMessage(command, number, "1.2.840.10008.1.2", peer, "PACSNODE", "1-1", datetime.now(UTC))
    assert keep(message, memoryview(bytes(size)), keeper, SPEAKERS) == status
    kept = [read_commit(record.path) for record in records_after(tmp_path, keeper.run, 0)]
    assert kept == ([(message, bytes(size))] if status == 0 else [])


@pytest.mark.filterwarnings("ignore:End of file")
def test_what_cannot_be_read_is_said_by_the_reader(tmp_path: Path) -> None:
    """Noise, an endless sequence, too many references: words, and the reader goes on."""
    keeper = ObjectFolder(tmp_path, Disk("process"), lambda: None)
    message = CommitMessage("N-ACTION", 1, "1.2.840.10008.1.2", "MR01", "PACSNODE", "1-1", datetime.now(UTC))
    many = Dialogue("2.25.1", tuple(Reference(CT, f"1.2.{n}") for n in range(commitment.MOST_REFERENCES + 1)))
    noise = (
        b"\x08\x00\x99\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3,
        commitment.encode(many),
    )
    for content in noise:
        keeper.commit(message, memoryview(content))
    said = [
        Reader().answer(f'{{"paths": ["{record.path}"]}}')
        for record in records_after(tmp_path, keeper.run, 0)
    ]
    assert "cannot be parsed" in said[0]["failed"]
    assert said[1]["failed"] == "it names more than 30000 objects"


def test_what_is_written_is_read_back() -> None:
    """Odd and illegal UIDs, no references at all, failures only: the same values come back."""
    for references in (
        (),
        (Reference(CT, "1.2.3.40"),),
        (Reference("not a uid", "x" * 90),),
        (Reference(CT, "1.2", 0x0110), Reference(CT, "1.3", 0x0131)),
    ):
        said = Dialogue(commitment.new_transaction(), references)
        assert commitment.decode(commitment.encode(said), "1.2.840.10008.1.2") == said
        assert commitment.from_json(commitment.to_json(said)) == said


def test_who_speaks_of_commitment_by_the_site_file() -> None:
    """A peer may report under the title that commits for it, unless that is another peer's own."""
    settings = parse(
        """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: UTC, data: data, rules: rules}
peers:
  PACS: {ae_title: PACS, address: "h:1", sends_as: [FWD], commit: {ae_title: KEEPER}}
  OLD: {ae_title: OLD, address: "h:2", commit: {ae_title: OTHER, address: "h:3"}}
  OTHER: {sends_as: [OTHER]}
  MR01: {ae_title: MR01, address: "h:4", commit_after: PACS}
  CT01: {sends_as: [CT01]}
""",
        "node.yaml",
        {},
    )
    titles = {sender.name: sender.titles for sender in policy_of(settings).senders}
    assert titles["PACS"] == ("FWD", "KEEPER") and titles["OLD"] == ("OLD",) and titles["OTHER"] == ("OTHER",)
    assert speakers_of(settings) == Speakers(frozenset({"MR01"}), frozenset({"PACS", "OLD", "OTHER"}))
