"""What DCMTK, Orthanc, pynetdicom and GDCM send is kept, with and without TLS: real objects, byte for byte.

Every plain connection passes through a `Wire`, which notes what the client wrote: the node must keep exactly that.
Whether that in turn is what stood in the client's file is the client's affair, and said beside each of them. By TLS
the same client must leave the same bytes. dcm4che is not in Debian, so its storescu is not among them; what it does
that others do not, command and dataset packed into one P-DATA-TF, a scripted peer does (`test_receive_hard_cases`).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers
import pydicom
import pytest
from peers import need, need_samples, wait_for
from pydicom.data import get_testdata_file
from pynetdicom import AE, build_context
from receive.forwarder import wire
from test_receive_tls import Making, Node, node, papers, signed
from test_receive_wire import kept_dataset
from tls_material import Papers, trusting

from node.store.files import read_arrival

__all__ = ["node", "papers", "signed"]

FILES = (
    "CT_small.dcm",  # CT, Explicit VR Little Endian
    "693_J2KI.dcm",  # CT, JPEG 2000
    "MR_small_RLE.dcm",  # MR, RLE
    "emri_small_jpeg_ls_lossless.dcm",  # Enhanced MR, JPEG-LS lossless, ten frames
    "examples_ybr_color.dcm",  # US multi-frame, JPEG baseline, 30 frames
    "examples_palette.dcm",  # US, Explicit VR Little Endian
    "examples_jpeg2k.dcm",  # US, JPEG 2000 lossless
    "ExplVR_BigEnd.dcm",  # US, Explicit VR Big Endian
    "SC_rgb_jpeg_dcmtk.dcm",  # SC, JPEG baseline
    "JPGLosslessP14SV1_1s_1f_8b.dcm",  # SC, JPEG lossless
    "SC_rgb_jpeg_dcmd.dcm",  # SC, Implicit VR Little Endian
    "image_dfl.dcm",  # SC, Deflated Explicit VR Little Endian
    "test-SR.dcm",  # Comprehensive SR
    "waveform_ecg.dcm",  # 12-lead ECG
    "liver_1frame.dcm",  # Segmentation, one bit per pixel
    "SC_rgb_rle_2frame.dcm",  # SC, RLE, two frames
)
SAMPLES = (
    "CT/enhanced-ct/eCT_Supplemental.dcm",
    "MR/philips-enhanced-dti/IM-0001-3835-0001.dcm",
    "PET/acrin-flt/1.dcm",
    "US/echo-cine-palette/US-PAL-8-10x-echo",
    "US/ge-power-doppler-wg04/US1_J2KR",
    "XA/rubo-coronary/jpeg_baseline_8bit.dcm",
    "OBJECTS/tid1500-seg-rwvm/sr.dcm",
    "OBJECTS/tid1500-seg-rwvm/seg.dcm",
    "PATH/highdicom-sm/sm_image.dcm",
    "DX/highdicom-dx/dx_image.dcm",
)
"""Enhanced CT and MR, PET, US, XA, an SR of TID 1500, a segmentation, a slide and DX, in six transfer syntaxes."""
Object = tuple[str, str, bytes]
"""SOP Instance UID, transfer syntax, dataset."""


def in_file(path: Path) -> Object:
    """One Part 10 file: what a client that changes nothing sends."""
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    data = path.read_bytes()
    dataset = data[144 + int.from_bytes(data[140:144], "little") :]  # (0002,0000) is first (PS3.10 7.1)
    return str(ds.SOPInstanceUID), str(ds.file_meta.TransferSyntaxUID), dataset


def kept(receiver: Node, after: int = 0) -> list[Object]:
    """What the node has kept, but for the first so many objects."""
    wait_for(receiver.idle, "the end")
    found = []
    for path in receiver.objects()[after:]:
        facts, _ = read_arrival(path)
        found.append((facts.sop_uid, facts.transfer_syntax, kept_dataset(path)))
    return sorted(found)


# --- clients: each sends these files to a port, by TLS where it is given papers ------------------------------


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    words = [str(word) for word in command]
    environ = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environ, timeout=60)


STORESCU = {
    "1.2.840.10008.1.2": "-xi", "1.2.840.10008.1.2.1": "-xe", "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb", "1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt", "1.2.840.10008.1.2.4.90": "-xv", "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}  # fmt: skip
"""Transfer syntax → what has storescu propose it."""


def storescu(port: int, files: Sequence[Path], papers: Papers | None = None) -> None:
    """DCMTK's storescu, an association for each transfer syntax. It writes each dataset anew.

    So it leaves out group lengths and trailing padding, and gives sequences lengths of its own.
    """
    secure: list[str | Path] = []
    if papers is not None:
        pair = papers.pair("ct01")
        secure = ["+tls", pair.key, pair.certificate, "+cf", papers.ca.certificate]
    for syntax, option in STORESCU.items():
        some = [path for path in files if in_file(path)[1] == syntax]
        if some:
            titles = ["-R", "-aet", "CT01", "-aec", "PACSNODE", "127.0.0.1", str(port)]
            done = run(need("storescu"), option, *secure, *titles, *some)
            assert done.returncode == 0, done.stderr


def dcmsend(port: int, files: Sequence[Path]) -> None:
    """DCMTK's dcmsend, one association. It writes each dataset anew, as storescu does, and knows no TLS."""
    titles = ["-dn", "-aet", "CT01", "-aec", "PACSNODE", "127.0.0.1", str(port)]
    done = run(need("dcmsend"), *titles, *files)
    assert done.returncode == 0, done.stderr


def pynetdicom_app(port: int, files: Sequence[Path]) -> None:
    """`python -m pynetdicom storescu`, one association. It reads and encodes each dataset, and knows no TLS."""
    titles = ["-cx", "-aet", "CT01", "-aec", "PACSNODE", "127.0.0.1", str(port)]
    done = run(sys.executable, "-m", "pynetdicom", "storescu", *titles, files[0].parent)
    assert done.returncode == 0, done.stderr


def gdcmscu(port: int, files: Sequence[Path]) -> None:
    """GDCM's gdcmscu, one association. It sends what stands in the file, and knows no TLS.

    That of Debian 12 (3.0.21) aborts itself when all is sent and the association released, whoever the other side
    is: so its exit code says nothing, and what was kept has to say it all.
    """
    titles = ["--aetitle", "CT01", "--call", "PACSNODE", "-H", "127.0.0.1", "-p", str(port)]
    run(need("gdcmscu"), "--store", *titles, "-i", files[0].parent)


def pynetdicom_by_tls(port: int, files: Sequence[Path], papers: Papers) -> None:
    """Pynetdicom's Association with tls_args, with the contexts its app asks for."""
    context = trusting(papers.ca.certificate, papers.pair("ct01"))
    meta = [pydicom.dcmread(path, stop_before_pixels=True).file_meta for path in files]
    pairs = {(one.MediaStorageSOPClassUID, one.TransferSyntaxUID) for one in meta}
    association = AE(ae_title="CT01").associate(
        "127.0.0.1", port, contexts=[build_context(*pair) for pair in pairs], ae_title="PACSNODE",
        tls_args=(context, "localhost"),
    )  # fmt: skip
    assert association.is_established
    peers.keep_answers(association)
    for path in files:
        assert association.send_c_store(path).Status == 0x0000
    association.release()


@dataclass(frozen=True)
class Client:
    """A program that sends, and what is known of it."""

    send: Callable[[int, Sequence[Path]], None]
    by_tls: Callable[[int, Sequence[Path], Papers], None] | None = None
    """None for one that knows no TLS: a forwarder speaks it for it."""
    anew: frozenset[str] | None = None
    """The files that it does not send bit for bit; None where that may be any."""


CLIENTS = {
    "storescu": Client(storescu, storescu),
    "dcmsend": Client(dcmsend),
    "pynetdicom": Client(
        pynetdicom_app,
        pynetdicom_by_tls,
        frozenset({"693_J2KI.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm", "US-PAL-8-10x-echo"}),
    ),
    "gdcmscu": Client(
        gdcmscu, None, frozenset({"693_J2KI.dcm", "emri_small_jpeg_ls_lossless.dcm", "dx_image.dcm"})
    ),
}


# --- claims ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pydicom", "samples"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Real objects, each in a file and under a UID of its own, in one folder."""
    if request.param == "pydicom":
        found = [Path(str(get_testdata_file(name))) for name in FILES]
    else:
        found = [need_samples(*name.split("/")) for name in SAMPLES]
    folder = tmp_path / "sent"
    folder.mkdir()
    for path in found:
        (folder / path.name).write_bytes(path.read_bytes())
    copies = sorted(folder.iterdir())
    assert len({in_file(path)[0] for path in copies}) == len(found)
    return copies


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_sends_is_kept(name: str, node: Making, papers: Papers, files: list[Path]) -> None:
    """All objects are kept as they were sent, in the transfer syntax they were sent in; by TLS the very same."""
    client, receiver = CLIENTS[name], node()
    with wire(receiver.plain) as plain:
        client.send(plain.port, files)
        found = kept(receiver)
        assert_kept(found, plain.sent(), files)
    if client.anew is not None:
        assert {path.name for path in files if in_file(path) not in found} <= client.anew
    if client.by_tls is not None:
        client.by_tls(receiver.port, files, papers)
    else:
        with wire(receiver.port, trusting(papers.ca.certificate, papers.pair("ct01"))) as forwarder:
            client.send(forwarder.port, files)
    assert kept(receiver, len(found)) == found
    assert all(line["objects"] == line["count"] for line in receiver.said("association_released"))
    assert receiver.said("association_aborted") == receiver.said("tls_handshake_failed") == []


def test_what_orthanc_sends_is_kept(node: Making, papers: Papers, files: list[Path], tmp_path: Path) -> None:
    """Orthanc, told by REST to store at a modality, with and without UseDicomTls; it writes datasets anew."""
    receiver, pair = node(), papers.pair("ct01")
    with wire(receiver.plain) as plain:
        at = {"AET": "PACSNODE", "Host": "127.0.0.1"}
        more = {
            "DicomAet": "CT01",
            "DicomTlsCertificate": str(pair.certificate),
            "DicomTlsPrivateKey": str(pair.key),
            "DicomTlsTrustedCertificates": str(papers.ca.certificate),
            "DicomModalities": {
                "plain": {**at, "Port": plain.port},
                "secure": {**at, "Port": receiver.port, "UseDicomTls": True},
            },
        }
        with peers.orthanc(tmp_path / "orthanc", more=more) as pacs:
            for path in files:
                upload = urllib.request.Request(f"http://127.0.0.1:{pacs.http}/instances", path.read_bytes())
                urllib.request.urlopen(upload, timeout=20).close()
            pacs.post("/modalities/plain/store", pacs.get("/instances"))
            found = kept(receiver)
            assert_kept(found, plain.sent(), files)
            pacs.post("/modalities/secure/store", pacs.get("/instances"))
            assert kept(receiver, len(found)) == found


def assert_kept(found: list[Object], sent: list[tuple[str, bytes]], files: Sequence[Path]) -> None:
    """What was kept is what was on the wire, and each file is among it with all that it says."""
    assert sorted((uid, dataset) for uid, _, dataset in found) == sent
    assert len(found) == len(files)
    by_uid = {uid: (syntax, dataset) for uid, syntax, dataset in found}
    for path in files:
        uid, syntax, dataset = in_file(path)
        if by_uid[uid] != (syntax, dataset):
            assert_same_content(read(syntax, dataset), read(*by_uid[uid]), path.name)


def read(syntax: str, dataset: bytes) -> pydicom.Dataset:
    """A dataset with its file meta."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    head = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(head, meta, enforce_standard=False)
    return pydicom.dcmread(io.BytesIO(bytes(128) + b"DICM" + head.getvalue() + dataset))


def assert_same_content(before: pydicom.Dataset, after: pydicom.Dataset, name: str) -> None:
    """Every element says the same, but for group lengths and padding; pixels that are encapsulated stay as they are."""
    syntaxes = [ds.file_meta.TransferSyntaxUID for ds in (before, after)]
    assert syntaxes[0] == syntaxes[1] or not any(one.is_compressed for one in syntaxes), name
    if "PixelData" in before:
        if syntaxes[0].is_encapsulated:
            assert before.PixelData.rstrip(b"\0") == after.PixelData.rstrip(b"\0"), name
        else:
            assert (before.pixel_array == after.pixel_array).all(), name
    for ds in (before, after):
        for element in [one for one in ds if one.tag.element == 0 or one.tag == 0xFFFCFFFC]:
            del ds[element.tag]
        ds.pop("PixelData", None)
    assert before == after, name
