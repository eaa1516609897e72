"""`tls:` of the site file and of a peer: files, the port of its own, and who must come by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from node.settings.terms import NO_ADDRESS, address, fields, get, pick
from node.settings.values import Peer, PeerTls, Tls
from node.shape import Node, Shaper

TLS_KEYS = ("certificate", "key", "trusted", "listen", "clients", "minimum")
PEER_TLS_KEYS = ("incoming", "client_names", "server_name", "check_name", "trusted", "certificate", "key")
_NEEDED = ("certificate", "key", "trusted")
_TRUST = (
    "peer {name} is called by TLS, but nobody says whose certificates to believe; give `tls:` of the site"
)


def read_tls(shaper: Shaper, node: Node, folder: Path) -> Tls:
    """`tls:` of the site; *folder* is where relative paths start."""
    given = fields(shaper, node, TLS_KEYS, required=_NEEDED)
    certificate, key, trusted = (folder / get(given, name, shaper.text, "") for name in _NEEDED)
    listen = get(given, "listen", lambda item, _: address(shaper, item), NO_ADDRESS)
    return Tls(
        certificate=certificate,
        key=key,
        trusted=trusted,
        listen=listen if "listen" in given else None,
        clients=pick(shaper, given, "clients", ("required", "optional")),  # type: ignore[arg-type]
        minimum=pick(shaper, given, "minimum", ("1.2", "1.3")),  # type: ignore[arg-type]
    )


def read_peer_tls(shaper: Shaper, node: Node, folder: Path) -> PeerTls | None:
    """`tls: yes`, or a mapping where this peer differs from the site."""
    if not node.is_mapping:
        return PeerTls() if shaper.yes_no(node) else None
    given = fields(shaper, node, PEER_TLS_KEYS)
    if ("certificate" in given) != ("key" in given):
        shaper.wrong(node, "certificate and key belong together")
    if "client_names" in given and not given["client_names"].items:
        shaper.wrong(
            given["client_names"], "client_names is empty; leave it out to take any trusted certificate"
        )
    elif "client_names" in given and "incoming" in given and given["incoming"].text == "optional":
        shaper.wrong(
            given["client_names"],
            "client_names asks for a certificate each time, so incoming cannot be optional",
        )
    names = given["client_names"].items if "client_names" in given else ()
    files = {name: folder / shaper.text(given[name]) for name in _NEEDED if name in given}
    return PeerTls(
        incoming=pick(shaper, given, "incoming", ("required", "optional")),  # type: ignore[arg-type]
        client_names=tuple(shaper.text(item).strip() for item in names),
        server_name=get(given, "server_name", shaper.text, "").strip(),
        check_name=get(given, "check_name", shaper.yes_no, True),
        **files,
    )


def agree(shaper: Shaper, node: Node | None, tls: Tls | None, peers: Mapping[str, Peer]) -> None:
    """What peers ask of TLS must be on offer: a port to come to, certificates to believe."""
    for name, peer in peers.items():
        at = node.fields[name].fields.get("tls") if node and name in node.fields else None
        if peer.tls is None or at is None:
            continue
        if peer.receives and tls is None and peer.tls.trusted is None:
            shaper.wrong(at, _TRUST.format(name=name))
        listens = tls is not None and tls.listen is not None
        asked = at.is_mapping and {"incoming", "client_names"} & set(at.fields)
        if not listens and (asked or not peer.receives) and peer.tls.incoming == "required":
            shaper.wrong(
                at, f"peer {name} shall come by TLS, but there is no port for that; give the site tls.listen"
            )
