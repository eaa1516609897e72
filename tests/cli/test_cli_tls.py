"""`tls init`, and what check, run and status say of TLS files."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_material import Place, pacsnode, place
from cryptography import x509
from peers import need
from tls_material import Papers, connected, serial_of, trusting

from node import app
from node.authority import Pair
from node.settings import load
from node.tls import life

TLS = """
tls: {listen: "127.0.0.1:2762", certificate: tls/node.pem, key: tls/node.key, trusted: tls/ca.pem}
"""


def names(file: Path) -> set[str]:
    """The subject alternative names of a certificate."""
    found = x509.load_pem_x509_certificate(file.read_bytes())
    return {
        str(one.value) for one in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    }


def secured(folder: Path) -> Place:
    """A site with TLS, whose files are not there yet; CT01 and PACS come by it."""
    made = place(folder)
    text = made.site.read_text().replace("{sends_as: [CT01]}", "{sends_as: [CT01], tls: yes}")
    text = text.replace('"127.0.0.1:1"', '"archive.example:1", tls: {server_name: arch}')
    made.site.write_text(text + TLS)
    return made


def test_a_first_set_up_needs_no_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder it makes an authority and a pair, says what the site file needs, and keeps keys to itself."""
    monkeypatch.chdir(tmp_path)
    result = pacsnode("tls", "init", "--name", "node.example", "--name", "10.1.2.3", "--peer", "CT01")
    assert result.exit_code == 0, result.output
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert made == [
        "tls/ca.key", "tls/ca.pem", "tls/node.key", "tls/node.pem", "tls/peers/CT01.key", "tls/peers/CT01.pem",
    ]  # fmt: skip
    for path in tmp_path.rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path / "tls/node.pem") == {"node.example", "10.1.2.3"}
    assert names(tmp_path / "tls/peers/CT01.pem") == {"CT01"}
    assert f"certificate: {tmp_path}/tls/node.pem" in result.output
    assert "CT01 needs CT01.pem and CT01.key" in result.output
    openssl = [need("openssl"), "verify", "-x509_strict", "-CAfile", str(tmp_path / "tls/ca.pem")]
    for purpose in ("sslserver", "sslclient"):
        for pem in ("tls/node.pem", "tls/peers/CT01.pem"):
            checked = [*openssl, "-purpose", purpose, str(tmp_path / pem)]
            assert subprocess.run(checked, check=False, capture_output=True).returncode == 0


def test_it_takes_folder_names_and_peers_from_the_site_file(tmp_path: Path) -> None:
    """Files go where `tls` wants them; each peer with `tls` gets a pair that carries what the site file asks for."""
    site = secured(tmp_path / "site")
    result = site.run("tls", "init")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "site" / "tls"
    assert {socket.gethostname(), "localhost", "127.0.0.1"} <= names(folder / "node.pem")
    assert sorted(path.name for path in (folder / "peers").iterdir()) == [
        "ARCHIVE.key", "ARCHIVE.pem", "CT01.key", "CT01.pem",
    ]  # fmt: skip
    assert names(folder / "peers/ARCHIVE.pem") == {"ARCHIVE", "archive.example", "arch"}
    assert "the site file needs" not in result.output
    lasts = life(str(folder / "node.pem")).ends - datetime.now(UTC)
    assert timedelta(days=729) < lasts <= timedelta(days=730)
    authority = life(str(folder / "ca.pem")).ends - datetime.now(UTC)
    assert timedelta(days=3650) < authority < timedelta(days=3653)


def test_a_second_call_adds_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    """A new peer is signed by the same authority; a key moved to its peer stays moved; what is removed is renewed."""
    site, folder = secured(tmp_path / "site"), tmp_path / "site" / "tls"
    assert site.run("tls", "init").exit_code == 0
    (folder / "peers/CT01.key").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = site.run("tls", "init", "--peer", "PACS", "--peer", "CT01")
    assert result.exit_code == 0, result.output
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert {path.name for path in after.keys() - before.keys()} == {"PACS.pem", "PACS.key"}
    checked = [need("openssl"), "verify", "-CAfile", str(folder / "ca.pem"), str(folder / "peers/PACS.pem")]
    assert subprocess.run(checked, check=False, capture_output=True).returncode == 0
    old = serial_of(folder / "node.pem")
    (folder / "node.pem").unlink()
    (folder / "node.key").unlink()
    assert site.run("tls", "init").exit_code == 0
    assert serial_of(folder / "node.pem") != old


def test_what_keeps_it_from_signing_is_said(tmp_path: Path) -> None:
    """A peer nobody knows, an authority whose key was taken away, a name that would leave the folder."""
    site, folder = secured(tmp_path / "site"), tmp_path / "site" / "tls"
    unknown = site.run("tls", "init", "--peer", "CT02")
    assert (unknown.exit_code, "CT02 is not among the peers" in unknown.output) == (2, True)
    assert site.run("tls", "init").exit_code == 0
    (folder / "ca.key").unlink()
    kept = site.run("tls", "init", "--peer", "PACS")
    assert kept.exit_code == 2
    assert "ca.key: cannot be read" in kept.output
    assert not (folder / "peers/PACS.pem").exists()
    assert pacsnode("tls", "init", "--dir", tmp_path / "x", "--peer", "../CT").exit_code == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("algorithm", ["ec", "rsa"])
def test_what_it_makes_shakes_hands_in_both_roles(tmp_path: Path, algorithm: str) -> None:
    """The node's pair as a server and a peer's as its client, checked by Python's strictest defaults."""
    made = tmp_path / "tls"
    assert pacsnode("tls", "init", "--dir", made, "--peer", "CT01", "--key", algorithm).exit_code == 0
    node, peer = Pair.of(made, "node"), Pair.of(made / "peers", "CT01")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made / "ca.pem"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(node.certificate, node.key)
    client = trusting(made / "ca.pem", peer)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        done = threading.Thread(
            target=lambda: server.wrap_socket(listening.accept()[0], server_side=True).sendall(b"welcome")
        )
        done.start()
        with connected(listening.getsockname()[1], client) as connection:
            assert connection.recv(7) == b"welcome"
        done.join(5)


# --- check, run, status -----------------------------------------------------------------------------------


def test_check_names_all_that_is_wrong(tmp_path: Path) -> None:
    """Files that are missing, a key of another certificate, an authority without a certificate: exit code 2."""
    site, folder = secured(tmp_path / "site"), tmp_path / "site" / "tls"
    missing = site.run("check")
    assert missing.exit_code == 2
    for name in ("node.pem", "node.key", "ca.pem"):
        assert f"tls: {folder / name}: cannot be read: No such file or directory" in missing.output
    assert "`pacsnode tls init` makes a first set" in missing.output
    assert site.run("tls", "init").exit_code == 0
    assert site.run("check").exit_code == 0
    shutil.copy(folder / "peers/CT01.key", folder / "node.key")
    (folder / "ca.pem").write_text("")
    broken = site.run("check")
    assert broken.exit_code == 2
    assert f"{folder / 'node.key'}: is not the key of {folder / 'node.pem'}" in broken.output
    assert f"{folder / 'ca.pem'}: holds no certificate" in broken.output


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (timedelta(days=-3 * 365), 2, "the certificate ended on"),
        (timedelta(days=1), 2, "look whether the clock is right"),
        (timedelta(days=-720), 0, "warning: tls: "),
        (timedelta(days=-690), 0, ""),
    ],
)
def test_check_and_status_know_how_long_a_certificate_lasts(
    tmp_path: Path, made: timedelta, code: int, words: str
) -> None:
    """One that has ended is a mistake, one that ends within 30 days a warning; status says until when it lasts."""
    site = secured(tmp_path / "site")
    papers = Papers(tmp_path / "site" / "tls")
    papers.pair("node", made=papers.now + made)
    checked = site.run("check")
    assert checked.exit_code == code, checked.output
    assert words in checked.output
    (tmp_path / "site" / "data").mkdir()
    app.own_database(load(site.site, {})).close()
    told = site.run("status")
    assert told.exit_code == 0, told.output
    assert "TLS on 127.0.0.1:2762, certificates of peers required; the certificate lasts until" in told.output
    problems = site.json("status")["tls"]["problems"]
    assert len(problems) == (1 if words else 0)
    assert words.removeprefix("warning: ") in "".join(problems)


def test_a_key_with_a_password_is_said_and_never_asked_for(tmp_path: Path) -> None:
    """OpenSSL would wait at a terminal that nobody watches."""
    site, folder = secured(tmp_path / "site"), tmp_path / "site" / "tls"
    assert site.run("tls", "init").exit_code == 0
    key = folder / "node.key"
    locked = [need("openssl"), "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret"]
    key.write_bytes(subprocess.run(locked, check=True, capture_output=True).stdout)
    result = site.run("check")
    assert result.exit_code == 2
    assert f"{key}: the key is encrypted" in result.output


def test_run_refuses_to_start_with_files_that_cannot_be_used(tmp_path: Path) -> None:
    """The same sentences as check, exit code 2, and nothing was made in the data folder."""
    site = secured(tmp_path / "site")
    result = site.run("run")
    assert result.exit_code == 2
    assert f"tls: {tmp_path / 'site' / 'tls' / 'node.pem'}: cannot be read" in result.output
    assert not (tmp_path / "site" / "data").exists()
