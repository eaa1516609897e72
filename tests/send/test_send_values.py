"""The values and bytes the sender is made of: its protocol, command sets, and where a dataset begins."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from sending_peers import CT, EXPLICIT, destination, element, part10, plain_dataset

from node.errors import Broken
from node.send import command
from node.send.part10 import dataset_extent
from node.send.protocol import (
    Batch,
    Echo,
    Echoed,
    Finished,
    Item,
    Kind,
    Outcomes,
    Result,
    Tls,
    command_from_json,
    outcome_from_json,
    to_json,
)
from node.send.scu import item_of


def test_messages_survive_the_pipe() -> None:
    """Each command and outcome is one line of JSON and comes back equal."""
    place = destination(104, tls=Tls("ca.pem", "us.pem", "us.key"))
    item = Item(7, 2, "/data/ä\n1.dcm", CT, "1.2.3", EXPLICIT)
    for said in (Batch(1, place, (item, item)), Batch(1, destination(104), ()), Echo(2, place)):
        assert "\n" not in to_json(said)
        assert command_from_json(to_json(said)) == said
    result = Result(7, 2, Kind.WARNING, 0xB000, "stored", "naïve\u2028comment")
    for told in (Outcomes(1, (result,)), Finished(1, None), Finished(1, "down"), Echoed(2, "gone")):
        assert "\n" not in to_json(told)
        assert outcome_from_json(to_json(told)) == told


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "3", '{"type":"Batch"}', '{"type":"Finished","batch":1}', "{"]
)
def test_a_foreign_line_is_refused_in_words(line: str) -> None:
    """What is no command is Broken, with what to do, and never a KeyError."""
    with pytest.raises(Broken, match="restart the node"):
        command_from_json(line)


def _by_pynetdicom(message: object, primitive: object) -> bytes:
    message.primitive_to_message(primitive)
    message.context_id = 1
    return next(iter(message.encode_msg(1, 16384))).presentation_data_value_list[0][1][1:]


def test_command_sets_equal_those_of_pynetdicom() -> None:
    """C-STORE-RQ and C-ECHO-RQ are byte for byte what pynetdicom writes."""
    store, echo = C_STORE(), C_ECHO()
    store.MessageID, store.Priority = 4711, 0
    store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = CT, "1.2.3.45"
    store.DataSet = io.BytesIO(b"x")
    assert command.store_request(4711, CT, "1.2.3.45") == _by_pynetdicom(C_STORE_RQ(), store)
    echo.MessageID, echo.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    assert command.echo_request(1) == _by_pynetdicom(C_ECHO_RQ(), echo)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # meant: an illegal UID
def test_an_odd_uid_is_sent_as_it_is() -> None:
    """A SOP Instance UID that is none is padded and otherwise left alone."""
    sent = read_dataset(DicomBytesIO(command.store_request(1, CT, "1..2/x")), True, True)
    assert sent.AffectedSOPInstanceUID == "1..2/x"


@given(st.binary(max_size=60))
def test_any_response_is_read_or_refused(data: bytes) -> None:
    """Whatever bytes come as a command set, the result is a mapping or ValueError."""
    try:
        assert all(0 <= key <= 0xFFFF for key in command.parse(data))
    except ValueError:
        assert data


META = [
    b"",
    element(0x00020003, "UI", b"not/a/uid") + element(0x00020012, "UI", b""),
    struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1",
    struct.pack("<HH2sHI", 2, 0x102, b"OB", 0, 70_000) + bytes(70_000),
    struct.pack("<HHI", 2, 0x16, 4) + b"ABCD",
]


@pytest.mark.parametrize("meta", META)
@pytest.mark.parametrize("first", [b"", element(0x00020016, "AE", b"INSIDE")])
def test_the_dataset_is_found(tmp_path: Path, meta: bytes, first: bytes) -> None:
    """Odd file meta, or a dataset that itself begins with group 0002, do not move its beginning."""
    path, dataset = tmp_path / "a.dcm", first + plain_dataset("1.2.3")
    path.write_bytes(part10(dataset, meta=meta))
    with path.open("rb") as file:
        assert dataset_extent(file) == (path.stat().st_size - len(dataset), len(dataset))


@pytest.mark.parametrize("announced", [0, 3, 9999, 0xFFFFFFFF])
def test_a_wrong_group_length_is_not_believed(tmp_path: Path, announced: int) -> None:
    """Where the group length does not end at an element of the file meta, the elements decide."""
    path, dataset = tmp_path / "a.dcm", plain_dataset("1.2.3")
    whole = bytearray(part10(dataset))
    whole[140:144] = struct.pack("<I", announced)
    path.write_bytes(whole)
    with path.open("rb") as file:
        assert dataset_extent(file)[1] == len(dataset)


def test_an_item_is_made_from_a_file(tmp_path: Path) -> None:
    """Class, UID and transfer syntax come from the file; a file without them is Broken."""
    path = tmp_path / "a.dcm"
    path.write_bytes(part10(plain_dataset("1.2.3")))
    assert item_of(path, 3) == Item(3, 1, str(path), CT, "1.2.3", EXPLICIT)
    for damaged in (b"", b"GIF89a", part10(b""), part10(plain_dataset("1.2.3"))[:150]):
        path.write_bytes(damaged)
        with pytest.raises(Broken, match="cannot be sent"):
            item_of(path, 1)
    with pytest.raises(OSError):
        item_of(tmp_path / "none.dcm", 1)


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever follows the prefix, the answer lies inside the file or is Broken."""
    path = tmp_path_factory.getbasetemp() / "any.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + data)
    with path.open("rb") as file:
        try:
            offset, length = dataset_extent(file)
        except Broken:
            return
    assert 132 <= offset < path.stat().st_size == offset + length
