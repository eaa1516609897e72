"""Sending to DCMTK and Orthanc: what arrives is byte for byte what was kept."""

import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from peers import need, need_samples
from pynetdicom.dsutils import split_dataset
from sending_peers import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    MR,
    Reports,
    dataset_of,
    element,
    item_of,
    make_items,
    orthanc,
    part10,
    plain_dataset,
    storescp,
)

from node.send.protocol import Item, Tls
from node.send.scu import echo, send_objects


def _arrived(folder: Path, item: Item) -> bytes:
    found = list(folder.glob(f"*{item.sop_uid}"))
    assert len(found) == 1, sorted(p.name for p in folder.iterdir())
    return dataset_of(found[0])


def _odd_objects(folder: Path) -> list[tuple[Item, bytes]]:
    """Objects a careful sender would like to repair, with the dataset that must arrive."""
    private = element(0x00090010, "LO", b"ODD CREATOR ") + element(0x00091001, "LT", b"odd")
    private += element(0x00091002, "LT", b"even then")
    group_length = element(0x00080000, "UL", struct.pack("<I", 4))
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 4) + b"\0\0\0\0"
    illegal = element(0x00020003, "UI", b"not..a.UID/../x") + element(0x00020012, "UI", b"")
    implicit = (
        struct.pack("<HHI", 0x0008, 0x0018, 8) + b"1.2.9.4\0" + struct.pack("<HHI", 9, 0x10, 4) + b"priv"
    )
    squeezed = zlib.compressobj(wbits=-15)
    deflated = squeezed.compress(plain_dataset("1.2.9.5", extra=private * 50)) + squeezed.flush()
    deflated += b"\0" * (len(deflated) % 2)  # PS3.5 A.5
    cases = [
        ("1.2.9.1", EXPLICIT, plain_dataset("1.2.9.1", extra=private + padding), b""),
        ("1.2.9.2", EXPLICIT, group_length + plain_dataset("1.2.9.2"), illegal),
        ("1.2.9.3", BIG_ENDIAN, plain_dataset("1.2.9.3", order=">"), b""),
        ("1.2.9.4", IMPLICIT, implicit, b""),
        ("1.2.9.5", DEFLATED, deflated, b""),
        ("1.2.9.6", EXPLICIT, element(0x00020010, "UI", b"1.2\0") + plain_dataset("1.2.9.6"), illegal),
    ]
    made = []
    for number, (uid, syntax, dataset, meta) in enumerate(cases, 1):
        path = folder / f"{uid}.dcm"
        path.write_bytes(part10(dataset, syntax, meta))
        made.append((item_of(path, number, uid, CT, syntax), dataset))
    return made


def test_odd_objects_arrive_byte_for_byte(tmp_path: Path) -> None:
    """Private tags, odd lengths, padding, big endian, deflate, illegal file meta: nothing changes."""
    objects, reports = _odd_objects(tmp_path), Reports()
    with storescp(tmp_path) as (pacs, received):
        assert send_objects(pacs, [item for item, _ in objects], reports.append) is None
        assert reports.kinds() == ["stored"] * len(objects)
        for item, dataset in objects:
            found = (next(received.glob(f"*{item.sop_uid}"))).read_bytes()
            assert found.endswith(dataset), item.sop_uid
            assert found[132:].startswith(b"\x02\x00\x00\x00")
            length = 144 + int.from_bytes(found[140:144], "little")
            assert found[length:] == dataset, item.sop_uid


@pytest.mark.filterwarnings(
    "ignore:Invalid value for VR UI:UserWarning"
)  # one image has a UID with a leading zero
def test_real_images_arrive_byte_for_byte(tmp_path: Path) -> None:
    """Real CT, MR, PET, ultrasound, XA and ECG files in six transfer syntaxes reach storescp unchanged."""
    folder = need_samples()
    items = []
    for name in ("CT", "MR/ge-dti-002", "PET/acrin-flt", "US", "XA", "ECG", "NM", "ES/wg04-endoscopy"):
        for path in sorted(p for p in (folder / name).rglob("*") if p.is_file())[:6]:
            try:
                meta, _ = split_dataset(path)
                ids = [meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID]
            except (AttributeError, KeyError, pydicom.errors.InvalidDicomError):
                continue
            items.append(Item(len(items) + 1, 1, str(path), *map(str, ids)))
    assert len({item.transfer_syntax for item in items}) >= 4
    items = list({item.sop_uid: item for item in items}.values())
    reports = Reports()
    with storescp(tmp_path, "-pdu", "131072") as (pacs, received):
        assert send_objects(pacs, items, reports.append) is None
        assert reports.kinds() == ["stored"] * len(items)
        for item in items:
            assert _arrived(received, item) == dataset_of(Path(item.path)), item.path


def test_more_than_128_contexts_go_over_two_associations(tmp_path: Path) -> None:
    """200 objects of 150 different presentation contexts are split, in order, and all are answered."""
    (item,) = make_items(tmp_path, 1)
    items = [replace(item, delivery=n, sop_class=f"{CT}.9{n % 150}" if n % 150 else CT) for n in range(200)]
    reports = Reports()
    with storescp(tmp_path, "-v") as (pacs, _):
        assert send_objects(pacs, items, reports.append) is None
    assert [result.delivery for result in reports] == list(range(200))
    assert reports.kinds().count("stored") == 2
    assert set(reports.kinds()) == {"stored", "refused_context"}
    assert (tmp_path / "storescp.log").read_text().count("Association Acknowledged") == 2


def test_orthanc_takes_images_and_checks_our_title(tmp_path: Path) -> None:
    """Orthanc stores what we send, once after a second sending; a strange AE title is told why."""
    items, reports = [], Reports()
    for path in sorted(need_samples("CT", "crlm-1004-chest-abdomen").glob("*"))[:3]:
        meta = pydicom.dcmread(path, stop_before_pixels=True)
        items.append(
            item_of(path, len(items), meta.SOPInstanceUID, meta.SOPClassUID, meta.file_meta[0x20010].value)
        )
    with orthanc(tmp_path) as (pacs, get):
        assert echo(pacs) is None
        assert send_objects(pacs, items, reports.append) is None
        assert send_objects(pacs, items, reports.append) is None
        assert reports.kinds() == ["stored"] * 6
        stored = {get(f"/instances/{i}/metadata/RemoteAET") for i in get("/instances")}
        assert stored == {b"PACSNODE"}
        assert len(get("/instances")) == 3
        error = echo(replace(pacs, ae_title="NOBODY"))
        assert error == (
            f"{pacs.where} rejected the association: called AE title not recognised; "
            "check ae_title of peer PACS (now NOBODY)"
        )
        error = send_objects(replace(pacs, calling_ae="STRANGER"), items, reports.append)
        assert error is not None and "STRANGER" in error
        assert reports.kinds()[6:] == ["not_tried"] * 3
        assert len(get("/instances")) == 3


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """Two self-signed certificates with keys: `pacs` (for localhost) and `node`."""
    openssl = need("openssl")
    for name in ("pacs", "node"):
        command = [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ]
        command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / f"{name}.key")]
        subprocess.run([*command, "-out", str(tmp_path / f"{name}.pem")], check=True, capture_output=True)
    return {p.name: p for p in tmp_path.iterdir()}


def test_tls_is_mutual(tmp_path: Path, certificates: dict[str, Path]) -> None:
    """Over TLS both sides show a certificate: with it objects arrive, a stranger's is refused in words."""
    (item,) = make_items(tmp_path, 1, 300_000)
    key, pem, node = (str(certificates[n]) for n in ("pacs.key", "pacs.pem", "node.pem"))
    tls = Tls(pem, node, str(certificates["node.key"]), server_name="localhost")
    reports = Reports()
    with storescp(tmp_path, "+tls", key, pem, "+cf", node) as (pacs, received):
        assert send_objects(replace(pacs, tls=tls), [item], reports.append) is None
        assert reports.kinds() == ["stored"]
        assert _arrived(received, item) == dataset_of(Path(item.path))
        error = echo(replace(pacs, tls=replace(tls, trusted=node)))
        assert error is not None and "certificate we do not trust" in error and "tls of peer PACS" in error
        assert echo(replace(pacs, tls=replace(tls, certificate="", key=""))) is not None
        assert "TLS files that cannot be used" in (
            echo(replace(pacs, tls=replace(tls, trusted="/none"))) or ""
        )


def test_mr_and_ct_share_one_association(tmp_path: Path) -> None:
    """Two SOP classes in one batch use one association with two contexts."""
    path = tmp_path / "mr.dcm"
    path.write_bytes(part10(plain_dataset("1.2.4.1", MR)))
    items = [*make_items(tmp_path, 2), item_of(path, 3, "1.2.4.1", MR)]
    reports = Reports()
    with storescp(tmp_path, "-v") as (pacs, _):
        assert send_objects(pacs, items, reports.append) is None
    assert reports.kinds() == ["stored"] * 3
    assert (tmp_path / "storescp.log").read_text().count("Association Acknowledged") == 1
