"""Destinations that refuse an object's transfer syntax get it in one that they take, and only then."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import peers
import pydicom
from crash.crash_house import ROUTE_ALL, House, Pacs, changed, house
from pydicom.data import get_testdata_file
from pydicom.uid import UID
from send.sending_peers import Reports, dataset_of

from node.send.protocol import Destination, Item
from node.send.scu import item_of, send_objects

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
RLE, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
LOSSY_JPEG_2000 = "1.2.840.10008.1.2.4.91"
COMPRESSED = ("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_rle_2frame.dcm",
              "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm")  # fmt: skip
NATIVE = ("CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "test-SR.dcm", "examples_palette.dcm")


def files(names: Iterable[str], folder: Path) -> list[Path]:
    """Pydicom's test files, each under UIDs of its own: several of them share theirs."""
    found = []
    for number, name in enumerate(names):
        raw = Path(str(get_testdata_file(name)))

        def change(ds: pydicom.Dataset, number: int = number) -> None:
            ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
            ds.SeriesInstanceUID = ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.499.{number + 1}"

        found.append(changed(raw, folder / name, change))
    return found


def send(site: House, paths: Iterable[Path]) -> None:
    """Send files as they are, byte for byte."""
    items: list[Item] = [item_of(path, number) for number, path in enumerate(paths, 1)]
    reports = Reports()
    to = Destination("NODE", "127.0.0.1", site.port, "PACSNODE", "CT01")
    assert send_objects(to, items, reports.append) is None
    assert set(reports.kinds()) == {"stored"}, reports


def received(site: House) -> dict[str, bytes]:
    """SOP Instance UID → the dataset's bytes as the node keeps them."""
    found = {}
    for path in sorted((site.data / "objects").rglob("*.dcm")):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        found[str(ds.SOPInstanceUID)] = dataset_of(path)
    return found


def assert_same(original: Path, copy: pydicom.Dataset, *, exact: bool = True) -> None:
    """The pixels, decoded, and all that does not say how they are stored, are the same."""
    ds = pydicom.dcmread(original)
    if "PixelData" in ds:
        one, two = ds.pixel_array, copy.pixel_array
        assert np.array_equal(one, two) if exact else one.shape == two.shape, original.name
    about_storage = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration", "LossyImageCompression"}
    for element in ds:
        if (
            element.keyword not in about_storage
            and element.tag.element != 0
            and element.VR not in ("SQ", "UN")
        ):
            assert copy[element.tag].value == element.value, (original.name, element.tag)


def left(site: House) -> list[Path]:
    """The transcoded copies that lie in the data folder."""
    return list((site.data / "transcoded").glob("*"))


def test_an_archive_without_compression(tmp_path: Path) -> None:
    """DCMTK's storescp that takes no compression gets every object uncompressed, with the same pixels."""
    paths = files((*COMPRESSED, *NATIVE), tmp_path / "sent")
    with (
        peers.storescp(tmp_path / "pacs", "+xi", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": ROUTE_ALL}, pacs_port=pacs.port) as site,
    ):
        site.start()
        send(site, paths)
        before = received(site)
        site.wait_for(lambda: len(pacs.files()) >= len(paths), "all objects")
        site.wait_idle()
        assert len(pacs.files()) == len(paths)
        got = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, pacs.files())}
        for path in paths:
            copy = got[str(pydicom.dcmread(path).SOPInstanceUID)]
            assert copy.file_meta.TransferSyntaxUID == IMPLICIT
            assert_same(path, copy)
        assert received(site) == before and not left(site)
        rows = site.table("delivery")
        assert {row["state"] for row in rows} == {"stored"}
        assert {row["sent_path"] for row in rows} == {""}
        assert {row["sent_syntax"] for row in rows if "copy" in row["reason"]} == {IMPLICIT}
        (event, *_) = site.table("event", name="transcoding")
        assert "does not accept" in event["detail"] and event["destination"] == "PACS"
        site.stop()


def test_an_archive_that_compresses(tmp_path: Path) -> None:
    """What has pixels goes in the first compression that the peer names and takes, what has none uncompressed."""
    paths = files(
        ("CT_small.dcm", "examples_rgb_color.dcm", "test-SR.dcm", "liver_1frame.dcm"), tmp_path / "sent"
    )
    named = f"""
  SMALL: {{ae_title: SMALL, address: "127.0.0.1:{(port := peers.free_port())}",
          transfer_syntaxes: [RLELossless, JPEGLSLossless, JPEG2000Lossless, ImplicitVRLittleEndian]}}
"""
    rule = ROUTE_ALL.replace("to: PACS", "to: SMALL")
    takes = (JPEG_LS, JPEG_2000, IMPLICIT)
    with (
        house(tmp_path / "site", {"all": rule}, destinations=named) as site,
        Pacs(port, ae_title="SMALL", syntaxes=takes).open() as pacs,
    ):
        site.start()
        send(site, paths)
        site.wait_for(lambda: len(pacs.datasets) == len(paths), "all objects")
        site.wait_idle()
        for path in paths:
            uid = str(pydicom.dcmread(path).SOPInstanceUID)
            assert_same(path, pacs.read(uid))
            bits = pydicom.dcmread(path).get("BitsAllocated", 0)
            assert pacs.datasets[uid][1] == (JPEG_LS if bits >= 8 else IMPLICIT), path.name
        site.stop()


def test_nothing_is_transcoded_that_is_taken(tmp_path: Path) -> None:
    """An archive that takes everything gets the very bytes that came."""
    paths = files((*COMPRESSED, *NATIVE), tmp_path / "sent")
    with (
        peers.storescp(tmp_path / "pacs", "+xa", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": ROUTE_ALL}, pacs_port=pacs.port) as site,
    ):
        site.start()
        send(site, paths)
        site.wait_for(lambda: len(pacs.files()) >= len(paths), "all objects")
        site.wait_idle()
        got = {
            pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID: dataset_of(p) for p in pacs.files()
        }
        assert got == received(site)
        assert {row["sent_syntax"] for row in site.table("delivery")} == {""}
        site.stop()


def test_a_refusal_that_nothing_helps(tmp_path: Path) -> None:
    """What can be had in no syntax that is taken is parked at once, in words, and the others are not held up."""
    lossy_only, good = files(("MR_small_jp2klossless.dcm", "CT_small.dcm"), tmp_path / "sent")
    broken = files(("JPEG-lossy.dcm",), tmp_path / "broken")[0]

    def other(ds: pydicom.Dataset) -> None:
        ds.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.77"

    broken = changed(broken, tmp_path / "broken2" / "one.dcm", other)
    ports = [peers.free_port() for _ in range(2)]
    named = f"""
  ONE: {{ae_title: ONE, address: "127.0.0.1:{ports[0]}"}}
  TWO: {{ae_title: TWO, address: "127.0.0.1:{ports[1]}", transfer_syntaxes: [JPEG2000, JPEGLSNearLossless]}}
"""
    rule = ROUTE_ALL.replace("to: PACS", "to: [ONE, TWO]")
    with (
        house(tmp_path / "site", {"all": rule}, destinations=named) as site,
        Pacs(ports[0], ae_title="ONE", syntaxes=(EXPLICIT,)).open() as one,
        Pacs(ports[1], ae_title="TWO", syntaxes=(LOSSY_JPEG_2000,)).open() as two,
    ):
        site.start()
        send(site, [lossy_only, broken, good])
        site.wait_for(lambda: len(site.table("delivery", state="parked")) == 4, "parked")
        site.wait_idle()
        assert len(one.datasets) == 2 and not two.datasets
        (undecodable,) = site.table("delivery", destination="ONE", state="parked")
        assert "refuses it in JPEG Extended" in undecodable["reason"]
        assert "cannot be decoded" in undecodable["reason"] and "`transfer_syntaxes`" in undecodable["reason"]
        for row in site.table("delivery", destination="TWO", state="parked"):
            assert "which loses: `lossy: ok` in the rule's send entry" in row["reason"]
        assert not left(site)
        site.stop()


def test_with_loss_only_where_a_rule_allows_it(tmp_path: Path) -> None:
    """`lossy: ok` lets an object go compressed with loss: it is another object then, and says so."""
    paths = files(("CT_small.dcm", "examples_rgb_color.dcm"), tmp_path / "sent")
    rule = ROUTE_ALL.replace("to: PACS", "to: TINY, lossy: ok")
    port = peers.free_port()
    named = f"""
  TINY: {{ae_title: TINY, address: "127.0.0.1:{port}", transfer_syntaxes: [JPEG2000]}}
"""
    with (
        house(tmp_path / "site", {"all": rule}, destinations=named) as site,
        Pacs(port, ae_title="TINY", syntaxes=(LOSSY_JPEG_2000,)).open() as pacs,
    ):
        site.start()
        send(site, paths)
        site.wait_for(lambda: len(pacs.datasets) == 2, "both")
        site.wait_idle()
        for uid in pacs.datasets:
            copy = pacs.read(uid)
            assert copy.SOPInstanceUID == uid and UID(uid).is_valid
            assert copy.ImageType[0] == "DERIVED" and copy.LossyImageCompression == "01"
            assert copy.LossyImageCompressionMethod == "ISO_15444_1" and copy.LossyImageCompressionRatio > 4
            assert copy.DerivationCodeSequence[-1].CodeValue == "113040"
            assert "target ratio 10:1" in copy.DerivationDescription
            source = copy.SourceImageSequence[-1].ReferencedSOPInstanceUID
            (original,) = [p for p in paths if pydicom.dcmread(p).SOPInstanceUID == source]
            assert_pixels_near(pydicom.dcmread(original).pixel_array, copy.pixel_array)
        site.stop()


def assert_pixels_near(one: np.ndarray, two: np.ndarray) -> None:
    """What a tenth of the bytes leaves: the picture, not the noise."""
    assert one.shape == two.shape
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.99


def test_a_transcoder_that_is_killed(tmp_path: Path) -> None:
    """A copy whose making was cut off at any point is made again; there is never half a file."""
    paths = files(COMPRESSED[:3], tmp_path / "sent")
    points, once = ("before-transcode", "before-transcoded:2", "after-copied"), tmp_path / "once"
    with (
        peers.storescp(tmp_path / "pacs", "+xi", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": ROUTE_ALL}, pacs_port=pacs.port) as site,
    ):
        site.start(PACSNODE_FAULT=",".join(points), PACSNODE_FAULT_ONCE=str(once))
        send(site, paths)
        site.wait_for(lambda: len(pacs.files()) >= len(paths), "all objects")
        site.wait_idle()
        assert all(Path(f"{once}.{point.partition(':')[0]}").exists() for point in points)
        for path in pacs.files():
            assert pydicom.dcmread(path).pixel_array.size
        assert len(pacs.files()) == len(paths) and not left(site)
        site.stop()


def test_a_crash_over_one_object_parks_that_one(tmp_path: Path) -> None:
    """An object over which the transcoder dies each time is parked; those behind it go."""
    bad, *good = files(COMPRESSED[:3], tmp_path / "sent")
    with (
        peers.storescp(tmp_path / "pacs", "+xi", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": ROUTE_ALL}, pacs_port=pacs.port) as site,
    ):
        site.start(PACSNODE_FAULT="before-transcode")  # every transcoder dies over the first it is asked for
        send(site, [bad])
        site.wait_for(lambda: bool(site.table("delivery", state="parked")), "the first is parked")
        (row,) = site.table("delivery", state="parked")
        assert "the transcoder crashed over it" in row["reason"]
        site.stop()
        site.start()
        send(site, good)
        site.wait_for(lambda: len(pacs.files()) == 2, "the others")
        retried = site.verb("retry", "--to", "PACS")
        assert "1 delivery retried" in retried.stdout
        site.wait_for(lambda: len(pacs.files()) == 3, "the first after all")
        site.wait_idle()
        site.stop()
