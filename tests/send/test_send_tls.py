"""Our own associations by TLS: to DCMTK, Orthanc and pynetdicom, and what is said when it does not come about."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import peers
import pydicom
import pytest
from peers import free_port
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
from sending_peers import (
    EXPLICIT,
    PATIENT_TIMEOUTS,
    Reports,
    dataset_of,
    destination,
    item_of,
    make_items,
    storescp,
)
from tls_material import LOOPBACK, Papers, serial_of

from node.authority import Pair
from node.flow.securing import tls_of
from node.send.protocol import Destination, Tls
from node.send.scu import echo, send_objects
from node.settings import parse
from node.testing import Grid, Series, body_volume, write_ct_series

SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}
peers:
  PLAIN: {ae_title: P, address: "h:1"}
  SITE: {ae_title: P, sends_as: [], address: "h:1", tls: yes}
  OWN: {ae_title: P, sends_as: [], address: "h:1", tls: {trusted: other/ca.pem, certificate: us.pem, key: us.key,
    server_name: pacs.example, check_name: no}}
  HALF: {ae_title: P, sends_as: [], address: "h:1", tls: {trusted: other/ca.pem}}
tls: {certificate: node.pem, key: node.key, trusted: ca.pem, minimum: "1.3"}
"""


def test_a_peers_own_files_come_before_the_sites() -> None:
    """`tls: yes` takes the site's files; what a peer names itself counts for it, a pair only as a whole."""
    settings = parse(SITE, "/etc/site/node.yaml", {})
    found = {name: tls_of(settings, peer) for name, peer in settings.peers.items()}
    here = "/etc/site/"
    assert found["PLAIN"] is None
    assert found["SITE"] == Tls(here + "ca.pem", here + "node.pem", here + "node.key", minimum="1.3")
    assert found["HALF"] == Tls(here + "other/ca.pem", here + "node.pem", here + "node.key", minimum="1.3")
    assert found["OWN"] == Tls(
        here + "other/ca.pem", here + "us.pem", here + "us.key", "pacs.example", False, "1.3"
    )


@pytest.fixture(params=["ec", "rsa"])
def papers(tmp_path: Path, request: pytest.FixtureRequest) -> Papers:
    """An authority, the node's pair and the PACS', of either kind."""
    made = Papers(tmp_path / "tls", request.param)
    made.pair("node")
    made.pair("pacs", *LOOPBACK)
    return made


def ours(papers: Papers, **changes: object) -> Tls:
    """What we show and believe."""
    pair = Pair.of(papers.folder, "node")
    return replace(Tls(str(papers.ca.certificate), str(pair.certificate), str(pair.key)), **changes)


def test_dcmtk_takes_what_we_send_by_tls(tmp_path: Path, papers: Papers) -> None:
    """DCMTK's storescp +tls gets 3 MB byte for byte, checks our certificate, and its address is in its own."""
    items, reports, pair = make_items(tmp_path, 3, 3_000_000), Reports(), Pair.of(papers.folder, "pacs")
    options = ("+tls", str(pair.key), str(pair.certificate), "+cf", str(papers.ca.certificate))
    with storescp(tmp_path, *options) as (pacs, received):
        where = replace(pacs, tls=ours(papers))
        assert echo(where) is None
        assert send_objects(where, items, reports.append) is None
        assert reports.kinds() == ["stored"] * 3
        for item in items:
            (found,) = received.glob(f"*{item.sop_uid}")
            assert dataset_of(found) == dataset_of(Path(item.path))
        assert "certificate" in str(echo(replace(where, tls=ours(papers, certificate="", key=""))))
        assert echo(replace(where, tls=None)) is not None


def test_orthanc_takes_what_we_send_by_tls(tmp_path: Path, papers: Papers) -> None:
    """Orthanc with DicomTlsEnabled and a certificate required gets the objects, and nobody without one does."""
    volume = body_volume(Grid(shape=(3, 64, 64), spacing=(5, 4, 4)))
    slices = [Path(path) for path in write_ct_series(tmp_path / "ct", volume, series=Series("ct"))]
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in slices]
    items = [item_of(path, number, uids[number]) for number, path in enumerate(slices)]
    reports, pair = Reports(), Pair.of(papers.folder, "pacs")
    more = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(pair.certificate),
        "DicomTlsPrivateKey": str(pair.key),
        "DicomTlsTrustedCertificates": str(papers.ca.certificate),
        "DicomTlsRemoteCertificateRequired": True,
    }
    with peers.orthanc(tmp_path / "orthanc", more=more) as pacs:
        where = destination(pacs.port, ae_title="ORTHANC", tls=ours(papers))
        assert echo(where) is None
        assert send_objects(where, items, reports.append) is None
        assert reports.kinds() == ["stored"] * 3
        assert len(pacs.instances()) == 3
        assert "certificate" in str(echo(replace(where, tls=ours(papers, certificate="", key=""))))


class Pynetdicom:
    """An SCP of pynetdicom by TLS, which notes the serial number of whoever comes."""

    def __init__(self, papers: Papers, pair: Pair, version: str = "1.3") -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(papers.ca.certificate))
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
        self.port = free_port()
        self.seen: list[str] = []
        self.got: list[bytes] = []

    def __enter__(self) -> Pynetdicom:
        ae = AE(ae_title="PACS")
        ae.add_supported_context(Verification)
        ae.add_supported_context(CTImageStorage, EXPLICIT)
        handlers = [(evt.EVT_CONN_OPEN, self._opened), (evt.EVT_C_STORE, self._store)]
        self.server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self.context
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    def _opened(self, event: evt.Event) -> None:
        self.seen.append(event.assoc.dul.socket.socket.getpeercert()["serialNumber"])

    def _store(self, event: evt.Event) -> int:
        self.got.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    def where(self, tls: Tls) -> Destination:
        """It as a destination."""
        return destination(self.port, tls=tls)


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Papers]:
    """Papers of one kind, for what does not depend on it."""
    made = Papers(tmp_path / "tls")
    made.pair("node")
    yield made


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_bring_objects_and_a_renewed_certificate_is_shown_at_once(
    tmp_path: Path, few: Papers, version: str
) -> None:
    """An association reads the files anew: after a renewal the next one shows the new certificate."""
    (item,), reports = make_items(tmp_path, 1, 2_000_000), Reports()
    with Pynetdicom(few, few.pair("pacs", *LOOPBACK), version) as pacs:
        first = serial_of(few.folder / "node.pem")
        assert send_objects(pacs.where(ours(few)), [item], reports.append) is None
        assert reports.kinds() == ["stored"]
        assert pacs.got == [dataset_of(Path(item.path))]
        second = few.renew("node")
        assert echo(pacs.where(ours(few))) is None
        assert pacs.seen == [first, second]


def test_the_name_in_its_certificate_counts_unless_the_site_says_otherwise(few: Papers) -> None:
    """A wrong name is refused with what to set; server_name names the right one, check_name: no takes any."""
    with Pynetdicom(few, few.pair("pacs.example")) as pacs:
        refused = str(echo(pacs.where(ours(few))))
        assert "certificate we do not trust (IP address mismatch" in refused
        assert "check tls of peer PACS (server_name, check_name)" in refused
        assert echo(pacs.where(ours(few, server_name="pacs.example"))) is None
        assert echo(pacs.where(ours(few, check_name=False))) is None


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("old", "certificate we do not trust (certificate has expired); check tls of peer PACS (trusted)"),
        ("other", "check tls of peer PACS (trusted)"),
    ],
)
def test_a_peer_that_cannot_prove_itself_gets_nothing(few: Papers, pair: str, words: str) -> None:
    """An expired certificate, or one of another authority: refused, and said, before a byte of DICOM leaves."""
    other = Papers(few.folder / "other")
    shown = few.expired("pacs", *LOOPBACK) if pair == "old" else other.pair("pacs", *LOOPBACK)
    with Pynetdicom(few, shown) as pacs:
        assert words in str(echo(pacs.where(ours(few))))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_peer_that_refuses_our_certificate_is_told_apart(few: Papers, version: str) -> None:
    """Our certificate is not believed, or missing: the sentence says so, in TLS 1.3 too, where it comes later."""
    stranger = Papers(few.folder / "stranger").pair("node")
    with Pynetdicom(few, few.pair("pacs", *LOOPBACK), version) as pacs:
        shown = ours(few, certificate=str(stranger.certificate), key=str(stranger.key))
        assert "it does not believe who signed our certificate" in str(echo(pacs.where(shown)))
        missing = str(echo(pacs.where(ours(few, certificate="", key=""))))
        assert "certificate" in missing


def test_files_that_cannot_be_used_are_named_and_nothing_is_sent(few: Papers) -> None:
    """The sentence names the file, what is wrong, and what to do."""
    with Pynetdicom(few, few.pair("pacs", *LOOPBACK)) as pacs:
        gone = str(echo(pacs.where(ours(few, trusted="/none/ca.pem"))))
        assert "needs TLS files that cannot be used: /none/ca.pem: cannot be read" in gone
        wrong = str(echo(pacs.where(ours(few, key=str(few.ca.key)))))
        assert f"{few.ca.key}: is not the key of" in wrong
        assert pacs.seen == []


def test_what_does_not_speak_tls_is_named(tmp_path: Path, few: Papers) -> None:
    """A plain storescp behind a peer with `tls`: it does not speak TLS."""
    quick = replace(PATIENT_TIMEOUTS, connect=3)
    with storescp(tmp_path) as (pacs, _):
        said = str(echo(replace(pacs, tls=ours(few), timeouts=quick)))
        assert "did not agree on TLS" in said
