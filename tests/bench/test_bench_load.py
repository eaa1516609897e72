"""The load generator: what it sends is DICOM, what it is answered is checked, and it counts what it did."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from peers import free_port, need
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, A_RELEASE_RP, A_RELEASE_RQ, P_DATA_TF

from node.bench import loading, material, rounds, stations, wire
from node.bench.cases import Case
from node.bench.load import Job, Object, read_file
from node.bench.peers import SENDER
from node.errors import Broken


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven MR slices."""
    return material.write_mr(tmp_path_factory.mktemp("bench") / "mr", 7)[0].parent


@contextmanager
def answering(status: Callable[[int], int], **limits: int) -> Iterator[tuple[int, list[Dataset]]]:
    """Pynetdicom as a Storage SCP that answers its nth object with *status*; its port and what it got."""
    got: list[Dataset] = []

    def store(event: Any) -> int:
        got.append(event.dataset)
        return status(len(got))

    ae, port = AE(), free_port()
    ae.maximum_pdu_size = limits.get("pdu", 16382)
    ae.add_supported_context(MRImageStorage, ExplicitVRLittleEndian)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield port, got
    finally:
        server.shutdown()


def job(port: int, folder: Path, count: int, **more: Any) -> Job:
    """A job for the objects in *folder*."""
    return Job(port, stations.CALLED, SENDER, str(folder), count, **more)


def pdus(data: bytes) -> list[bytes]:
    """Cut a stream into PDUs by their lengths."""
    found, at = [], 0
    while at < len(data):
        end = at + 6 + int.from_bytes(data[at + 2 : at + 6], "big")
        found.append(data[at:end])
        at = end
    return found


@pytest.mark.parametrize("most", [4096, 16382, 131072])
def test_its_pdus_are_a_c_store(images: Path, most: int) -> None:
    """Pynetdicom reads the command, and the dataset is the file's but for its UID; no PDU is too long."""
    path = min(images.iterdir())
    item = Object(path, 7, most)
    item.rename(5)
    found = pdus(bytes(item.pdus))
    assert max(len(pdu) - 6 for pdu in found) <= most
    message = C_STORE_RQ()
    complete = []
    for pdu in found:
        decoded = P_DATA_TF()
        decoded.decode(pdu)
        complete.append(message.decode_msg(decoded.to_primitive()))
    assert complete == [False] * (len(found) - 1) + [True]
    request = message.message_to_primitive()
    sent, kept = read_dataset(BytesIO(request.DataSet.getvalue()), False, True), dcmread(path)
    assert (request.MessageID, request.AffectedSOPClassUID) == (7, kept.SOPClassUID)
    assert request.AffectedSOPInstanceUID == sent.SOPInstanceUID
    assert sent.SOPInstanceUID != kept.SOPInstanceUID
    assert sent.SOPInstanceUID.is_valid
    sent.SOPInstanceUID = kept.SOPInstanceUID
    assert dict(sent) == dict(kept)


def test_with_nagle_it_writes_as_storescu_does(images: Path) -> None:
    """The command's header, the command, a header and a fragment for each PDU: each a write of its own."""
    item = Object(min(images.iterdir()), 1, 16384)
    pieces = [bytes(piece) for piece in item.pieces()]
    assert b"".join(pieces) == item.pdus
    assert [len(piece) for piece in pieces[::2]] == [12] * (len(pieces) // 2)
    assert len(pieces) == 2 * (1 + 3)


def test_its_association_is_valid_both_ways() -> None:
    """Pynetdicom reads request and answer; ours reads what pynetdicom announces, and a refused context is told."""
    request = A_ASSOCIATE_RQ()
    request.decode(
        wire.associate_request("NODE", "SCU", MRImageStorage.encode(), ExplicitVRLittleEndian.encode())
    )
    asked = request.to_primitive()
    assert (asked.called_ae_title, asked.calling_ae_title) == ("NODE", "SCU")
    (context,) = asked.presentation_context_definition_list
    assert (context.abstract_syntax, context.transfer_syntax) == (MRImageStorage, [ExplicitVRLittleEndian])
    encoded = request.encode()
    answer = A_ASSOCIATE_AC()
    answer.decode(wire.associate_accept(memoryview(encoded)[6:]))
    assert answer.to_primitive().maximum_length_received == 131072
    assert wire.read_accept(memoryview(answer.encode())[6:]) == 131072
    refused = bytearray(answer.encode())
    refused[refused.index(b"\x21\x00") + 6] = 3
    with pytest.raises(wire.WrongError, match="refused with 3"):
        wire.read_accept(memoryview(refused)[6:])
    for kind, data in ((A_RELEASE_RQ, wire.RELEASE_RQ), (A_RELEASE_RP, wire.RELEASE_RP)):
        assert kind().encode() == data
    told = P_DATA_TF()
    told.decode(wire.store_response(1, b"\x09\x00"))
    response = C_STORE_RSP()
    assert response.decode_msg(told.to_primitive())
    assert (response.message_to_primitive().MessageIDBeingRespondedTo, response.command_set.Status) == (9, 0)


@pytest.mark.parametrize("most", [4096, 131072])
def test_every_burst_holds_other_objects(images: Path, most: int) -> None:
    """What pynetdicom announces is kept to; two bursts over four associations are as many different objects."""
    with answering(lambda _: 0, pdu=most) as (port, got):
        with loading.loading([job(port, images, 3)] * 2) as load:
            first, second = load.burst(6), load.burst(5)
            load.end()
        assert [first.acknowledged, second.acknowledged] == [6, 5]
        assert first.ended <= second.began
        assert len({one.SOPInstanceUID for one in got}) == len(got) == 11


@pytest.mark.parametrize("more", [{"nagle": True}, {"one_each": True}, {"one_each": True, "nagle": True}])
def test_every_way_to_send_arrives(images: Path, more: dict[str, bool]) -> None:
    """With Nagle's algorithm, and with an association for each object, each is acknowledged once."""
    with answering(lambda _: 0) as (port, got):
        with loading.loading([job(port, images, 4, **more)]) as load:
            assert load.burst(4).acknowledged == 4
            load.end()
        assert len(got) == 4


def test_a_wrong_status_is_told(images: Path) -> None:
    """The first answer that is not success ends the burst, with its status and what came before it."""
    with (
        answering(lambda n: 0xA700 if n == 3 else 0) as (port, _),
        loading.loading([job(port, images, 5)]) as load,
        pytest.raises(Broken, match="after 2 acknowledged objects: message 3 was answered with status A700"),
    ):
        load.burst(5)


def test_a_refused_association_is_told(images: Path) -> None:
    """A receiver that takes no association is named as such, not waited for."""
    with answering(lambda _: 0) as (port, _):
        wrong = job(port, material.write_ct(images.parent / "ct", 1)[0].parent, 1)
        with pytest.raises(Broken, match="presentation context was refused with 3"), loading.loading([wrong]):
            pass


def test_what_is_not_kept_is_found_out(images: Path, tmp_path: Path) -> None:
    """A receiver that acknowledges and keeps nothing fails its round; one that keeps everything does not."""
    need("storescp")
    case = Case("some", (images,), 7, 7 * 34_000, ())
    for name in ("kept", "lost"):
        (tmp_path / name).mkdir()
    with stations.storescp(tmp_path / "kept", fork=False) as station:
        spent, lags = rounds.one_round(case, station)
        assert station.kept() == spent.objects + 1 + 7  # with the warm-up
        assert spent.objects >= 7
        assert lags == []
        rounds.one_round(case, station)  # what it holds already is not counted again
    with (
        stations.storescp(tmp_path / "lost", fork=False, ignore=True) as station,
        pytest.raises(Broken, match=r"objects were acknowledged, and 0 are kept"),
    ):
        rounds.one_round(case, station)


def test_a_big_object_is_whole(tmp_path: Path) -> None:
    """Its pixels are made up while it is sent, and it has the length that it says."""
    size = material.write_big_head(tmp_path / "big", 3)
    need("storescp")
    place = tmp_path / "scp"
    place.mkdir()
    with stations.storescp(place, fork=False) as station:
        with loading.loading([job(station.port, tmp_path / "big", 1, big=size)]) as load:
            assert load.burst(1).acknowledged == 1
            load.end()
        (path,) = (place / "in").iterdir()
        found = dcmread(path)
        assert len(found.PixelData) == size == 3 * 512 * 1024
        assert found.NumberOfFrames == 3
    with pytest.raises(Broken, match="do not fit"):
        material.write_big_head(tmp_path / "bigger", 9000)


def test_the_sink_answers_everything(images: Path, tmp_path: Path) -> None:
    """As many associations as it has processes, at once, with and without Nagle's algorithm."""
    with stations.sink(tmp_path, 2) as station:
        for nagle, one_each in itertools.product((False, True), repeat=2):
            jobs = [job(station.port, images, 7, nagle=nagle, one_each=one_each)] * 2
            with loading.loading(jobs) as load:
                assert load.burst(14).acknowledged == 14
                load.end()


def test_the_bare_disk_keeps_what_it_counts(images: Path, tmp_path: Path) -> None:
    """Every object of the bare recipe is a whole file under its name, whichever thread wrote it."""
    file = min(images.iterdir())
    with loading.keeping(str(tmp_path / "kept"), str(file), 3) as load:
        assert load.burst(20).acknowledged == 20
        assert load.burst(5).acknowledged == 5
        load.end()
    found = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in found] == [f"{n:08d}.dcm" for n in range(10 + 25)]
    assert {path.read_bytes() for path in found} == {file.read_bytes()}


def test_it_needs_no_dicom_library() -> None:
    """The generator starts at once: neither pydicom, pynetdicom nor numpy is imported in its processes."""
    names = "node.bench.load, node.bench.sink, node.bench.disk"
    program = f"import json, sys, {names}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydicom", "pynetdicom", "numpy", "sqlalchemy"} & set(json.loads(done.stdout))


def test_a_file_is_read_as_it_stands(images: Path) -> None:
    """File meta and dataset are those that pydicom finds."""
    path = min(images.iterdir())
    meta, dataset = read_file(path)
    known = dcmread(path)
    assert meta[0x0002].decode() == known.file_meta.MediaStorageSOPClassUID
    assert meta[0x0003].decode() == known.SOPInstanceUID
    assert meta[0x0010].decode() == ExplicitVRLittleEndian
    assert dict(read_dataset(BytesIO(dataset), False, True)) == dict(known)
