"""TLS for both roles: contexts out of PEM files, what is wrong with the files, and failures in words.

The profile is that of PS3.15 B.12 (BCP 195: RFC 8996, RFC 9325): 1.2 or later; of 1.2 only the suites with forward
secrecy and AES-GCM; no compression, no renegotiation.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from node.errors import Misconfigured
from node.words import counted

SUITES = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "@SECLEVEL=2",
    )
)
"""Of TLS 1.2, best first; every suite of 1.3 is good. Keys have at least 112 bits of strength."""
SOON = timedelta(days=30)
"""Before a certificate ends, this is said."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: our certificate (with what leads from it to an authority) and its key, and whom we believe.

    Without a certificate we show none.
    """

    certificate: str
    key: str
    trusted: str

    def all(self) -> tuple[str, ...]:
        """Those that are named."""
        return tuple(filter(None, (self.certificate, self.key, self.trusted)))


class _EncryptedError(Exception):
    """The key asks for a password."""


def for_server(files: Files, minimum: str, *, certificate_needed: bool) -> ssl.SSLContext:
    """Return what accepts connections, from peers that must or may show a certificate. Raises Misconfigured.

    Without session tickets: they outlive the context, so that an authority which was taken away would still count.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, minimum)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_REQUIRED if certificate_needed else ssl.CERT_OPTIONAL
    _load(context, files)
    return context


def for_client(files: Files, minimum: str, *, check_name: bool) -> ssl.SSLContext:
    """Return what opens connections; *check_name*: to a server whose certificate carries its name.

    Raises Misconfigured.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, minimum)
    context.check_hostname = check_name
    _load(context, files)
    return context


def _context(role: int, minimum: str) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.minimum_version = _VERSIONS[minimum]
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Many cut the connection without close_notify. DICOM says itself where a message ends, so a cut hides nothing.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    # What stands in the file is believed, be it a root, an intermediate authority or the peer's own certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load(context: ssl.SSLContext, files: Files) -> None:
    mistakes = list(_mistakes(context, files))
    if mistakes:
        raise Misconfigured(*mistakes)


def _mistakes(context: ssl.SSLContext, files: Files) -> Iterator[str]:
    texts = {file: _read(file) for file in files.all()}
    unreadable = [text for text in texts.values() if isinstance(text, str)]
    yield from unreadable
    if unreadable:
        return
    try:
        context.load_verify_locations(files.trusted)
    except (OSError, ValueError):
        yield _no_certificate(files.trusted, "certificates of the authorities whose word you take")
    try:
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key, _ask)
    except _EncryptedError:
        yield f"{files.key}: the key is encrypted, and nobody is there to type its password; store it without one"
    except (OSError, ValueError) as error:
        yield _no_pair(files, texts, str(getattr(error, "reason", "") or ""))


def _read(file: str) -> bytes | str:
    """The content, or why there is none."""
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as error:
        what = "check its path under `tls`; `pacsnode tls init` makes a first set"
        return f"{file}: cannot be read: {error.strerror}; {what}"
    except OSError as error:
        return f"{file}: cannot be read: {error.strerror}; check its path under `tls` and who may read it"


def _ask() -> str:
    raise _EncryptedError  # OpenSSL would ask on the terminal


def _no_certificate(file: str, wanted: str) -> str:
    return f"{file}: holds no certificate that can be read; put the {wanted} there as PEM (-----BEGIN CERTIFICATE-----)"


def _no_pair(files: Files, texts: Mapping[str, bytes | str], reason: str) -> str:
    """Why a certificate and its key cannot be used together; OpenSSL's own reasons do not say which file it is."""
    if b"-----BEGIN CERTIFICATE-----" not in bytes(texts[files.certificate]):  # type: ignore[arg-type]
        return _no_certificate(files.certificate, "certificate of this node")
    if b"PRIVATE KEY-----" not in bytes(texts[files.key]):  # type: ignore[arg-type]
        return f"{files.key}: holds no private key; put it there as PEM (-----BEGIN PRIVATE KEY-----)"
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return f"{files.key}: is not the key of {files.certificate}; name the two that belong together"
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return f"{files.certificate}: too weak for PS3.15 B.12 ({_lower(reason)}); have one made with RSA 2048 or P-256"
    damaged = f"{files.certificate}: cannot be used with {files.key}"
    return f"{damaged} ({_lower(reason) or 'one of them is damaged'}); make both again"


def _lower(reason: str) -> str:
    return reason.replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate holds."""

    begins: datetime
    ends: datetime
    serial: str
    """In hexadecimal, as programs show it."""


def life(file: str) -> Life:
    """Return that of the first certificate in *file*, which is ours. Raises OSError, ValueError."""
    from cryptography import x509  # noqa: PLC0415 - few processes ask, and it takes a while

    first = x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
    return Life(first.not_valid_before_utc, first.not_valid_after_utc, f"{first.serial_number:X}")


def untimely(file: str, now: datetime) -> str:
    """What is wrong with the time of a certificate, with what to do; empty where nothing is, or nobody can say."""
    try:
        found = life(file)
    except (OSError, ValueError):
        return ""  # whoever loads it says more
    if now > found.ends:
        return f"{file}: the certificate ended on {found.ends:%Y-%m-%d}, and peers refuse it; put a new one there"
    if now < found.begins:
        begins = f"the certificate holds from {found.begins:%Y-%m-%d %H:%M} UTC on"
        return f"{file}: {begins}; look whether the clock is right"
    return ""


def ending(file: str, now: datetime) -> str:
    """That a certificate which still holds will soon do so no more; empty where it is not so."""
    try:
        left = life(file).ends - now
    except (OSError, ValueError):
        return ""
    if not timedelta(0) <= left <= SOON:
        return ""
    when = f"ends on {now + left:%Y-%m-%d}, in {counted(left.days, 'day')}"
    return f"{file}: the certificate {when}; put a new one there, it is read without a restart"


def unusable(files: Files) -> list[str]:
    """A sentence for each thing that keeps these files from being used, in either role; [] where nothing does."""
    try:
        for_client(files, "1.2", check_name=True)
    except Misconfigured as error:
        return list(error.mistakes)
    return []


_REASONS = {
    "HTTP_REQUEST": "it speaks HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "it speaks HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it offers only TLS 1.1 or older (or less than `minimum`), which PS3.15 B.12 forbids",
    "NO_PROTOCOLS_AVAILABLE": "no TLS version suits both sides",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it takes none of our TLS versions",
    "NO_SHARED_CIPHER": "it offers none of the cipher suites of PS3.15 B.12",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses what we offer: cipher suites, or no certificate where it wants one",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate, and we showed none",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not believe who signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has ended, by its clock",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refuses the kind of our certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "it could not verify our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it refuses us",
}


def in_words(error: OSError) -> str:
    """Why TLS failed; what the other side is called "it"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed ({error.verify_message.rstrip('.')})"
    if isinstance(error, TimeoutError):
        return "it did not finish the handshake in time"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        return "it closed the connection within the handshake"
    reason = str(getattr(error, "reason", "") or "")
    return _REASONS.get(reason) or _lower(reason) or error.strerror or type(error).__name__
