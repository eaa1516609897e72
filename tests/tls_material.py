"""For tests of TLS: certificates good and bad, and a client that shows one."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node.authority import Algorithm, Pair, authority, issue

YEARS = timedelta(days=3 * 365)
LOOPBACK = ("localhost", "127.0.0.1")


class Papers:
    """An authority in a folder of its own, and what it signs."""

    def __init__(self, folder: Path, algorithm: Algorithm = "ec", name: str = "tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.algorithm = algorithm
        self.now = datetime.now(UTC)
        self.ca = Pair.of(folder, "ca")
        authority(self.ca, name, algorithm, self.now - 3 * YEARS)

    def pair(self, name: str, *names: str, made: datetime | None = None) -> Pair:
        """A certificate for *name* and *names*, signed at *made*; the same again when it was asked for before."""
        pair = Pair.of(self.folder, name)
        issue(self.ca, pair, (name, *names), self.algorithm, made or self.now)
        return pair

    def expired(self, name: str, *names: str) -> Pair:
        """One that ended a year ago."""
        return self.pair(name, *names, made=self.now - YEARS)

    def early(self, name: str, *names: str) -> Pair:
        """One that holds from tomorrow on."""
        return self.pair(name, *names, made=self.now + timedelta(days=1))

    def renew(self, name: str, *names: str) -> str:
        """Replace *name* by another certificate, each file in one step; its serial number."""
        new = self.pair(f"{name}.new", name, *names)
        for one in ("key", "certificate"):
            os.replace(getattr(new, one), getattr(Pair.of(self.folder, name), one))  # noqa: PTH105
        return serial_of(Pair.of(self.folder, name).certificate)


def serial_of(file: Path) -> str:
    """The serial number as `getpeercert` shows it."""
    from node.tls import life

    text = life(str(file)).serial
    return text if len(text) % 2 == 0 else f"0{text}"


def trusting(ca: Path, shown: Pair | None = None, version: str = "") -> ssl.SSLContext:
    """What a client believes and shows; *version* 1.2 or 1.3 and no other."""
    context = ssl.create_default_context(cafile=str(ca))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
    return context


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect to loopback by TLS."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost")
