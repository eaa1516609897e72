"""Certificates for a first set-up: `tls init`."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from node.cli.frame import DONE, main, site_if_any_of, verb
from node.errors import Misconfigured
from node.settings import Settings
from node.shape import nearest

_ELSEWHERE = ("192.0.2.1", "2001:db8::1")  # RFC 5737, RFC 3849: to ask which of our addresses leads out


@main.group()
def tls() -> None:
    """Certificates for TLS."""


@tls.command("init")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="Where the files go.")
@click.option(
    "--name", "names", multiple=True, help="A host name or IP address by which peers call this node."
)
@click.option("--peer", "peers", multiple=True, help="A peer to make a certificate for, too.")
@click.option(
    "--key", "algorithm", default="ec", show_default=True, type=click.Choice(["ec", "rsa"]),
    help="ECDSA P-256, or RSA 3072 for what cannot do that.",
)  # fmt: skip
@click.pass_context
@verb
def init(
    context: click.Context,
    folder: Path | None,
    names: tuple[str, ...],
    peers: tuple[str, ...],
    algorithm: Literal["ec", "rsa"],
) -> int:
    """Make a local authority, a certificate for this node and one for each peer; what is there stays.

    A second call adds what is missing, such as a new peer, with the same authority. To renew a certificate, remove
    its two files and call again. Without --peer, every peer with `tls` in the site file gets one.
    """
    from node import authority as ca  # noqa: PLC0415 - cryptography takes a while, and no other verb signs

    settings = site_if_any_of(context)
    where, now = folder or _folder(settings), datetime.now(UTC)
    signer, ours = ca.Pair.of(where, "ca"), ca.Pair.of(where, "node")
    wanted = {name: ca.Pair.of(where / "peers", name) for name in _peers(settings, peers)}
    made = [signer] if ca.authority(signer, f"PACSNode at {socket.gethostname()}", algorithm, now) else []
    own = list(dict.fromkeys(names)) or own_names(settings)
    made += [ours] if ca.issue(signer, ours, own, algorithm, now) else []
    for name, pair in wanted.items():
        made += [pair] if ca.issue(signer, pair, _names_of(settings, name), algorithm, now) else []
    for pair in (signer, ours, *wanted.values()):
        click.echo(f"{'made ' if pair in made else 'there'}  {pair.certificate}")
    if ours in made:
        click.echo(f"the node's certificate is for {', '.join(own)}")
    years = f"{ca.LEAF_LIFE.days // 365} years, the authority {ca.AUTHORITY_LIFE.days // 365}"
    click.echo(f"certificates made now last {years}; `pacsnode status` says until when")
    click.echo(_advice(settings, where, list(wanted)))
    return DONE


def _folder(settings: Settings | None) -> Path:
    """Where the site file wants the certificate; else `tls` beside the site file."""
    if settings is None:
        return Path("tls")
    return settings.tls.certificate.parent if settings.tls else Path(settings.file).parent / "tls"


def _peers(settings: Settings | None, asked: Sequence[str]) -> list[str]:
    known = settings.peers if settings else {}
    for name in asked:
        if settings and name not in known:
            raise Misconfigured(f"{name} is not among the peers{nearest(name, known)}")
        if not all(part.isalnum() for part in name.translate(str.maketrans("._-", "aaa"))) or name[0] in ".-":
            raise Misconfigured(
                f"--peer {name}: a name of a peer has letters, digits, dots, dashes or underscores"
            )
    return list(dict.fromkeys(asked)) or [name for name, peer in known.items() if peer.tls]


def _names_of(settings: Settings | None, name: str) -> list[str]:
    """What a peer's certificate says: its name in the site file first, then where it is called, and what is asked."""
    peer = settings.peers.get(name) if settings else None
    if peer is None:
        return [name]
    asked = (peer.tls.server_name, *peer.tls.client_names) if peer.tls else ()
    return list(dict.fromkeys(filter(None, (name, peer.host, *asked))))


def own_names(settings: Settings | None) -> list[str]:
    """By what peers may call this node: its host names, what it listens to, its addresses, and loopback."""
    host, full = socket.gethostname(), socket.getfqdn()
    listens = [settings.node.listen[0]] if settings else []
    if settings and settings.tls and settings.tls.listen:
        listens.append(settings.tls.listen[0])
    first = full if "." in full else host
    found = [first, host, *listens, *_addresses(), "localhost", "127.0.0.1", "::1"]
    return list(dict.fromkeys(one for one in found if _is_name(one)))


def _is_name(text: str) -> bool:
    """Whether a peer could call that: not "any address", and nothing a certificate cannot hold."""
    with suppress(ValueError):
        return not ipaddress.ip_address(text).is_unspecified
    return bool(text) and text.isascii() and " " not in text


def _addresses() -> Iterable[str]:
    """The addresses from which this machine would call elsewhere; nothing is sent."""
    for family, there in zip((socket.AF_INET, socket.AF_INET6), _ELSEWHERE, strict=True):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            yield str(probe.getsockname()[0])


def _advice(settings: Settings | None, where: Path, peers: Sequence[str]) -> str:
    """What to do with the files."""
    at = where.absolute()
    lines = [
        "",
        f"keep {at / 'ca.key'} away from everyone; the node needs only node.pem, node.key and ca.pem",
    ]
    if settings is None or settings.tls is None:
        lines += [
            "the site file needs:", "  tls:", "    listen: 0.0.0.0:2762", f"    certificate: {at / 'node.pem'}",
            f"    key: {at / 'node.key'}", f"    trusted: {at / 'ca.pem'}",
        ]  # fmt: skip
    lines.append(f"every peer needs {at / 'ca.pem'} as an authority that it believes")
    for name in peers:
        pair = f"{name}.pem and {name}.key"
        lines.append(f"{name} needs {pair} of {at / 'peers'} as its own; remove {name}.key there afterwards")
    if not peers:
        lines.append(
            "a peer's own certificate: say `tls: yes` at the peer and call this again, or give --peer NAME"
        )
    return "\n".join(lines)
