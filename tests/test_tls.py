"""What is said of TLS files, and of handshakes that fail."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import need
from tls_material import Papers

from node.authority import Pair
from node.tls import Files, in_words, unusable

Spoil = Callable[[Path], object]


def weak(folder: Path) -> None:
    """Put a key of 1024 bits there."""
    command = [need("openssl"), "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak"]
    files = ["-keyout", str(folder / "node.key"), "-out", str(folder / "node.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)


def as_der(folder: Path) -> None:
    """Write the certificate in the other form that programs export."""
    pem = folder / "node.pem"
    pem.write_bytes(ssl.PEM_cert_to_DER_cert(pem.read_text()))


@pytest.mark.parametrize(
    ("spoil", "named", "words"),
    [
        (lambda at: (at / "node.pem").unlink(), "node.pem", "cannot be read: No such file or directory"),
        (
            lambda at: [(at / "ca.pem").unlink(), (at / "ca.pem").mkdir()],
            "ca.pem",
            "cannot be read: Is a directory",
        ),
        (lambda at: (at / "ca.pem").write_text("# to be done\n"), "ca.pem", "holds no certificate"),
        (as_der, "node.pem", "as PEM (-----BEGIN CERTIFICATE-----)"),
        (
            lambda at: (at / "node.pem").write_bytes((at / "node.key").read_bytes()),
            "node.pem",
            "holds no certificate",
        ),
        (
            lambda at: (at / "node.key").write_bytes((at / "ca.pem").read_bytes()),
            "node.key",
            "holds no private key",
        ),
        (
            lambda at: (at / "node.key").write_bytes((at / "ca.key").read_bytes()),
            "node.key",
            "is not the key of",
        ),
        (
            lambda at: (at / "node.pem").write_bytes((at / "node.pem").read_bytes()[:300]),
            "node.pem",
            "make both again",
        ),
        (weak, "node.pem", "too weak for PS3.15 B.12"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(
    tmp_path: Path, spoil: Spoil, named: str, words: str
) -> None:
    """One sentence: the file first, what is wrong with it, what would be right."""
    Papers(tmp_path).pair("node")
    files = Files(str(tmp_path / "node.pem"), str(tmp_path / "node.key"), str(tmp_path / "ca.pem"))
    assert unusable(files) == []
    spoil(tmp_path)
    (sentence,) = unusable(files)
    assert sentence.startswith(f"{tmp_path / named}: ")
    assert words in sentence


def test_a_key_of_the_other_kind_is_not_the_key(tmp_path: Path) -> None:
    """An RSA key beside an ECDSA certificate: OpenSSL's own words would be "no certificate assigned"."""
    Papers(tmp_path / "ec").pair("node")
    other = Papers(tmp_path / "rsa", "rsa").pair("node")
    ours = Pair.of(tmp_path / "ec", "node")
    (sentence,) = unusable(Files(str(ours.certificate), str(other.key), str(tmp_path / "ec" / "ca.pem")))
    assert sentence == f"{other.key}: is not the key of {ours.certificate}; name the two that belong together"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("timed out"), "it did not finish the handshake in time"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "it closed the connection within the handshake",
        ),
        (ssl.SSLEOFError(8, "EOF occurred"), "it closed the connection within the handshake"),
        (OSError(113, "No route to host"), "No route to host"),
        (ssl.SSLError(1, "anything"), "anything"),
    ],
)
def test_every_failure_has_words(error: OSError, words: str) -> None:
    """Whatever ends a handshake is said, known to us or not."""
    assert in_words(error) == words
