"""`peers:` of the site file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from node.settings.seal import POLICY_KEYS, policy
from node.settings.security import read_peer_tls
from node.settings.syntaxes import read_syntaxes
from node.settings.terms import address, ae_title, count, fields, get, pick
from node.settings.values import Commit, Peer
from node.settings.windows import read_windows
from node.shape import Node, Shaper, nearest

SHOWN = ("images", "SEG", "SR", "PM", "PDF", "KO", "PR", "waveforms")
"""What a peer may show of derived objects."""
_OUTWARD = (
    "call_as", "associations", "only", "redeliver_after", "shows", "window", "transfer_syntaxes", "commit",
    "commit_after", "iocm", "priors",
)  # fmt: skip
PEER_KEYS = ("ae_title", "address", "sends_as", "from_address", "seal", "durability", "tls", *_OUTWARD)
COMMIT_KEYS = ("ae_title", "address", "within")
_PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def read_peers(shaper: Shaper, node: Node, folder: Path) -> dict[str, Peer]:
    """Every peer by its name; two that could be the same sender are a mistake. Paths start at *folder*."""
    if not node.is_mapping:
        shaper.wrong(node, "expected a mapping from peer name to peer")
    peers: dict[str, Peer] = {}
    taken: dict[str, str] = {}
    for name, entry in node.fields.items():
        if not _PEER_NAME.fullmatch(name):
            shaper.wrong(
                entry, f"peer name {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores"
            )
        if name.upper() in taken:
            shaper.wrong(entry, f"peer {name} differs from {taken[name.upper()]} only in case; rename one")
        taken[name.upper()] = name
        peers[name] = _peer(shaper, name, entry, folder)
    _promises(shaper, node, peers)
    for one, two in combinations(peers.values(), 2):
        for title in sorted(set(one.sends_as) & set(two.sends_as)):
            if title and _overlap(one, two):
                shaper.wrong(
                    node.fields[two.name],
                    f"peers {one.name} and {two.name} both send as {title} from overlapping addresses; "
                    "give them different sends_as or from_address",
                )
    return peers


def _promises(shaper: Shaper, node: Node, peers: Mapping[str, Peer]) -> None:
    """`commit_after` names a peer that commits: we are no archive and can promise no more than it does."""
    for name, peer in peers.items():
        archive = peers.get(peer.commit_after)
        if not peer.commit_after or (archive is not None and archive.commit is not None):
            continue
        at = node.fields[name].fields["commit_after"]
        if archive is None:
            shaper.wrong(at, f"there is no peer {peer.commit_after}{nearest(peer.commit_after, peers)}")
        else:
            shaper.wrong(
                at, f"peer {peer.commit_after} has no commit: yes, so nobody would commit to anything"
            )


def _peer(shaper: Shaper, name: str, node: Node, folder: Path) -> Peer:
    given = fields(shaper, node, PEER_KEYS)
    title = get(given, "ae_title", lambda item, _: ae_title(shaper, item), "") or None
    host, port = address(shaper, given["address"]) if "address" in given else (None, None)
    senders = given["sends_as"].items if "sends_as" in given else ()
    sends_as = tuple(ae_title(shaper, item) for item in senders)
    if "sends_as" not in given and title:
        sends_as = (title,)
    if node.is_mapping and not title and not sends_as and "address" not in given:
        shaper.wrong(
            node, f"peer {name} needs sends_as (it sends to us) or ae_title and address (we send to it)"
        )
    _check_address(shaper, name, given, title)
    return Peer(
        name=name,
        ae_title=title,
        host=host,
        port=port,
        sends_as=sends_as,
        from_address=_from_address(shaper, given.get("from_address")),
        call_as=get(given, "call_as", lambda item, _: ae_title(shaper, item), "") or None,
        associations=count(shaper, given.get("associations"), 1),
        only=get(given, "only", lambda item, _: shaper.choice(item, ("deidentified",)), ""),
        seal=policy(shaper, given["seal"], fields(shaper, given["seal"], POLICY_KEYS))
        if "seal" in given
        else None,
        seal_given=frozenset(given["seal"].fields if "seal" in given else ()) & frozenset(POLICY_KEYS),
        redeliver_after=get(given, "redeliver_after", shaper.duration, Peer.redeliver_after),
        shows=_shows(shaper, given["shows"]) if "shows" in given else None,
        window=read_windows(shaper, given["window"]) if "window" in given else (),
        transfer_syntaxes=read_syntaxes(shaper, given["transfer_syntaxes"])
        if "transfer_syntaxes" in given
        else (),
        commit=_commit(shaper, given["commit"], title or "", (host or "", port or 0))
        if "commit" in given
        else None,
        commit_after=get(given, "commit_after", shaper.text, ""),
        iocm=get(given, "iocm", shaper.yes_no, False),
        priors=pick(shaper, given, "priors", ("move", "get")),  # type: ignore[arg-type]
        durability=pick(shaper, given, "durability", ("power", "process"))  # type: ignore[arg-type]
        if "durability" in given
        else None,
        tls=read_peer_tls(shaper, given["tls"], folder) if "tls" in given else None,
    )


def _check_address(shaper: Shaper, name: str, given: Mapping[str, Node], title: str | None) -> None:
    """An address has a title to call, and what is said of sending to a peer has an address."""
    if "address" in given and not title:
        shaper.wrong(given["address"], f"peer {name} has an address but no ae_title to call")
    for key in _OUTWARD:
        if key in given and "address" not in given:
            shaper.wrong(given[key], f"{key} needs an address: nothing is sent to a peer without one")


def _commit(shaper: Shaper, node: Node, title: str, where: tuple[str, int]) -> Commit | None:
    """`commit: yes`, or a mapping where another AE or port commits than the one that stores."""
    if not node.is_mapping:
        return Commit(title, *where) if shaper.yes_no(node) else None
    given = fields(shaper, node, COMMIT_KEYS)
    within = get(given, "within", shaper.duration, Commit.within)
    if "within" in given and not within:
        shaper.wrong(given["within"], "within must be more than nothing")
    return Commit(
        get(given, "ae_title", lambda item, _: ae_title(shaper, item), title),
        *get(given, "address", lambda item, _: address(shaper, item), where),
        within=within,
    )


def _shows(shaper: Shaper, node: Node) -> frozenset[str]:
    if not node.items:
        shaper.wrong(node, "shows is empty; leave it out where the peer shows everything")
    return frozenset(shaper.choice(item, SHOWN) for item in node.items)


def _from_address(shaper: Shaper, node: Node | None) -> tuple[str, ...]:
    found: list[str] = []
    for item in node.items if node else ():
        try:
            found.append(str(ipaddress.ip_network(item.text.strip())))
        except ValueError as error:
            hint = ""
            if "host bits set" in str(error):
                hint = f"; did you mean {ipaddress.ip_network(item.text.strip(), strict=False)}?"
            shaper.wrong(
                item,
                f"{item.text!r} is not an IP address or network such as 10.1.2.3 or 10.1.2.0/24 "
                f"(a host name could be answered by anyone who controls the name server){hint}",
            )
    if node and not node.items:
        shaper.wrong(node, "from_address is empty; leave it out to allow any address")
    return tuple(found)


def _overlap(one: Peer, two: Peer) -> bool:
    if not one.from_address or not two.from_address:
        return True
    return any(a.version == b.version and a.overlaps(b) for a in one.networks for b in two.networks)
