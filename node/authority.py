"""A local certificate authority for a first set-up: makes keys and signs certificates, and overwrites nothing.

ECDSA on P-256: every TLS 1.2 of today takes it, DCMTK, Java and Windows included, and a handshake costs a tenth of
one with RSA 3072, which a sender that opens an association per image would notice. RSA is there for what does not.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.errors import Misconfigured

AUTHORITY_LIFE = timedelta(days=3652)
LEAF_LIFE = timedelta(days=730)
"""Two years: the modalities that have to be given a new one are visited by a technician."""
_EARLIER = timedelta(hours=1)  # a certificate begins: clocks of devices differ

Algorithm = Literal["ec", "rsa"]
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key as files."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Pair:
        """Where the pair called *name* is kept."""
        return cls(folder / f"{name}.pem", folder / f"{name}.key")


def authority(pair: Pair, name: str, algorithm: Algorithm, now: datetime) -> bool:
    """Make the authority unless it is there; whether it was made. Raises Misconfigured."""
    if pair.certificate.exists():
        return False
    key = _key_of(pair, algorithm)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = _usage(key_cert_sign=True, crl_sign=True)
    built = (
        _begun(subject, subject, key, (now, now + AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(own, critical=False)
    )
    _write(pair.certificate, built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), 0o644)
    return True


def issue(by: Pair, pair: Pair, names: Sequence[str], algorithm: Algorithm, now: datetime) -> bool:
    """Sign a certificate for *names*, the first its common name, unless it is there; whether it was made.

    It serves in either role, since most peers both call and are called. Raises Misconfigured.
    """
    if pair.certificate.exists():
        return False
    signer, signing = _certificate_in(by.certificate), _key_in(by.key)
    key = _key_of(pair, algorithm)
    until = min(now + LEAF_LIFE, signer.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    roles = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    built = (
        _begun(subject, signer.subject, key, (now, until))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            _usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey)), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
        .add_extension(own, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
    )
    _write(pair.certificate, built.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM), 0o644)
    return True


def _begun(
    subject: x509.Name, issuer: x509.Name, key: Key, life: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0] - _EARLIER)
        .not_valid_after(life[1])
    )


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_encipherment=key_encipherment, key_cert_sign=key_cert_sign,
        crl_sign=crl_sign, content_commitment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_of(pair: Pair, algorithm: Algorithm) -> Key:
    """The key of a pair, made where there is none: what was interrupted goes on with the same one."""
    if pair.key.exists():
        return _key_in(pair.key)
    key: Key = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ec"
        else rsa.generate_private_key(public_exponent=65537, key_size=3072)
    )
    _write(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def _key_in(file: Path) -> Key:
    try:
        found = load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        raise Misconfigured(
            f"{file}: cannot be read: {error.strerror}; the key of the authority is needed to sign, bring it back"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misconfigured(f"{file}: holds no private key without a password ({error})") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Misconfigured(f"{file}: is no key of kind EC or RSA; use another folder with --dir")
    return found


def _certificate_in(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file}: cannot be read as a certificate ({error})") from error


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.link(part, file)  # unlike a rename, never over one that came meanwhile
        part.unlink()
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be written: {error.strerror}") from error
