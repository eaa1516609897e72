"""How a peer is called: by TLS where the site file says so, with its own files or the site's; and how those stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

from node import tls
from node.send.protocol import Tls
from node.settings import Peer, Settings


def tls_of(settings: Settings, peer: Peer) -> Tls | None:
    """Return the files and names for an association to *peer*; None without TLS."""
    wanted, site = peer.tls, settings.tls
    if wanted is None:
        return None
    trusted = wanted.trusted or (site and site.trusted)
    pair = (
        (wanted.certificate, wanted.key)
        if wanted.certificate
        else (site and site.certificate, site and site.key)
    )
    return Tls(
        trusted=str(trusted or ""),
        certificate=str(pair[0] or ""),
        key=str(pair[1] or ""),
        server_name=wanted.server_name,
        check_name=wanted.check_name,
        minimum=site.minimum if site else "1.2",
    )


def files_of(settings: Settings) -> Mapping[str, tls.Files]:
    """Every set of TLS files that the site file names: `tls` is the site's, any other that of a peer."""
    found = {}
    if settings.tls is not None:
        own = settings.tls
        found["tls"] = tls.Files(str(own.certificate), str(own.key), str(own.trusted))
    for name, peer in settings.peers.items():
        wanted = tls_of(settings, peer) if peer.receives else None
        files = wanted and tls.Files(wanted.certificate, wanted.key, wanted.trusted)
        if files and files != found.get("tls"):
            found[f"tls of peer {name}"] = files
    return found


def unusable_files(settings: Settings) -> list[str]:
    """A sentence for each TLS file that cannot be used at all."""
    return [
        f"{where}: {words}" for where, files in files_of(settings).items() for words in tls.unusable(files)
    ]


def untimely_files(settings: Settings, now: datetime) -> list[str]:
    """A sentence for each certificate of ours that does not hold now."""
    return _each(settings, now, tls.untimely)


def ending_files(settings: Settings, now: datetime) -> list[str]:
    """A sentence for each certificate of ours that soon will not hold any more."""
    return _each(settings, now, tls.ending)


def _each(settings: Settings, now: datetime, judge: Callable[[str, datetime], str]) -> list[str]:
    """What is said of each certificate; one that several peers are shown is named once."""
    found: dict[str, str] = {}
    for where, files in files_of(settings).items():
        if files.certificate and files.certificate not in found:
            words = judge(files.certificate, now)
            found[files.certificate] = words and f"{where}: {words}"
    return list(filter(None, found.values()))


def ends_of(settings: Settings) -> Mapping[str, float]:
    """What a certificate of ours is for → seconds since 1970 at which it ends; one that cannot be read is left out."""
    found = {}
    for where, files in files_of(settings).items():
        with suppress(OSError, ValueError):
            if files.certificate:
                found[where] = tls.life(files.certificate).ends.timestamp()
    return found
