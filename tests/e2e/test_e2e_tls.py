"""A series that comes by TLS and goes on by TLS, with files that `tls init` made."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import peers
from crash.crash_house import ROUTE_ALL, House, house
from tls_material import connected, serial_of, trusting

from node.authority import Pair
from node.testing import Grid, Series, body_volume, write_ct_series


def storescu(port: int, papers: Path, files: list[Path]) -> int:
    """DCMTK's storescu by TLS, with the certificate of CT01; its exit code."""
    pair = Pair.of(papers / "peers", "CT01")
    secure = ["+tls", str(pair.key), str(pair.certificate), "+cf", str(papers / "ca.pem")]
    titles = ["-aet", "CT01", "-aec", "PACSNODE", "-R", "127.0.0.1", str(port)]
    done = subprocess.run(
        [peers.need("storescu"), *secure, *titles, *map(str, files)],
        capture_output=True, check=False, env={**os.environ, "TCP_NODELAY": "1"},
    )  # fmt: skip
    return done.returncode


def logged(site: House, event: str) -> list[dict[str, Any]]:
    """The lines of the node's log with this event."""
    lines = [json.loads(line) for line in site.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def test_a_series_comes_by_tls_and_goes_on_by_tls(tmp_path: Path) -> None:
    """From `tls init` to the PACS: mutual TLS on both sides, a receiver that dies, a certificate that is renewed."""
    port, web = peers.free_port(), peers.free_port()
    extra = f"""
tls: {{listen: "127.0.0.1:{port}", certificate: tls/node.pem, key: tls/node.key, trusted: tls/ca.pem}}
web: {{listen: "127.0.0.1:{web}"}}
"""
    volume = body_volume(Grid(shape=(5, 64, 64), spacing=(5, 4, 4)))
    first, second = (
        [Path(path) for path in write_ct_series(tmp_path / name, volume, series=Series(name))]
        for name in ("one", "two")
    )
    with house(tmp_path / "site", {"all": ROUTE_ALL}, extra=extra) as site:
        file, papers = site.folder / "node.yaml", site.folder / "tls"
        text = file.read_text()
        text = text.replace("{sends_as: [CT01]}", "{sends_as: [CT01], tls: {client_names: [CT01]}}")
        text = text.replace("PACS: {ae_title: PACS,", "PACS: {tls: yes, ae_title: PACS,")
        file.write_text(text.replace(f"127.0.0.1:{site.pacs_port}, ", f"localhost:{site.pacs_port}, "))
        refused = site.verb("run")
        assert refused.returncode == 2
        assert "tls/node.pem: cannot be read" in refused.stderr
        assert site.verb("tls", "init", "--name", "localhost").returncode == 0
        assert site.verb("check").returncode == 0
        pair = Pair.of(papers / "peers", "PACS")
        secure = ("+tls", str(pair.key), str(pair.certificate), "+cf", str(papers / "ca.pem"))
        received = tmp_path / "pacs"
        received.mkdir()
        where = ["-od", str(received), str(site.pacs_port)]
        pacs = [peers.need("storescp"), "+B", "+uf", "-aet", "PACS", *secure, *where]
        with peers.running(pacs, tmp_path / "pacs.log"):
            site.start()
            assert storescu(port, papers, first) == 0
            site.wait_for(lambda: len(list(received.iterdir())) == 5, "five objects at the PACS")

            assert storescu(site.port, papers, first) != 0  # TLS at the port without it
            assert logged(site, "pdu_invalid")
            told = json.loads(site.verb("status", "--json").stdout)["tls"]
            assert (told["listen"], told["clients"], told["problems"]) == (
                f"127.0.0.1:{port}",
                "required",
                [],
            )
            with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=20) as page:
                assert b'pacsnode_tls_certificate_ends_timestamp_seconds{use="tls"}' in page.read()

            assert site.kill("receiver")
            for name in ("node.pem", "node.key"):
                (papers / name).unlink()
            assert site.verb("tls", "init", "--name", "localhost").returncode == 0
            context = trusting(papers / "ca.pem", Pair.of(papers / "peers", "CT01"))

            def renewed() -> bool:
                try:
                    with connected(port, context) as connection:
                        shown = connection.getpeercert() or {}
                except OSError:  # a receiver that began between the two has no certificate, for a second
                    return False
                return bool(shown["serialNumber"] == serial_of(papers / "node.pem"))

            site.wait_for(renewed, "the renewed certificate")
            assert storescu(port, papers, second) == 0
            site.wait_for(lambda: len(list(received.iterdir())) == 10, "ten objects at the PACS")
            site.stop()
        assert logged(site, "crashed") == []
        assert logged(site, "connection_broke") == []
