"""The site file (`config/node.yaml`) → frozen Settings; every mistake is named at once, with file and line.

Keys may be overridden from the environment: `PACSNODE__NODE__LISTEN=0.0.0.0:104`. A key this version does
not act on yet is refused, so that nothing the file says is silently ignored.
"""

from __future__ import annotations

import ipaddress
import os
import re
import zoneinfo
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

from node import overrides, shape
from node.errors import Misconfigured
from node.shape import Node, Shaper, nearest

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TOP = ("node", "unknown_senders", "peers", "seal", "disk", "limits", "engine", "state")
_TOP_LATER = ("tls", "alerts", "web", "keep", "deidentify", "never_process")
_NODE = ("ae_titles", "listen", "timezone", "data", "rules", "durability", "receivers")
_NODE_NEEDED = ("ae_titles", "listen", "timezone", "data", "rules")
_OUTWARD = ("call_as", "associations", "only", "redeliver_after")
_PEER = ("ae_title", "address", "sends_as", "from_address", "seal", *_OUTWARD)
_PEER_LATER = ("tls", "window", "transfer_syntaxes", "shows", "commit", "commit_after", "iocm", "durability")
_POLICY = ("quiet_for", "on_release", "settle", "attention_after")
_DISK = ("warn", "stop_processing", "refuse")
_LIMITS = ("associations", "run_time", "run_memory", "workers")
_PLACES = (Path("config/node.yaml"), Path("/etc/pacsnode/node.yaml"))
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})")
_PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class SealPolicy:
    """When a series counts as complete."""

    quiet_for: timedelta = timedelta(seconds=60)
    on_release: bool = False
    """Also when every association that carried the series was released, *settle* ago."""
    settle: timedelta = timedelta(seconds=1)
    attention_after: timedelta = timedelta(hours=2)
    """An open series this old is shown; it is never cut."""


@dataclass(frozen=True)
class SealLine:
    """One line under `seal:`; *when* None fits every series."""

    when: Node | None
    policy: SealPolicy


@dataclass(frozen=True)
class Peer:
    """One system we receive from or send to."""

    name: str
    ae_title: str | None = None
    host: str | None = None
    port: int | None = None
    sends_as: tuple[str, ...] = ()
    """Calling AE titles it uses towards us."""
    from_address: tuple[str, ...] = ()
    """IP addresses or CIDR networks it calls from; empty = any."""
    call_as: str | None = None
    """Our AE title when we call it; None = the first of `node.ae_titles`."""
    associations: int = 1
    """How many associations we may have open to it at a time."""
    only: str = ""
    """`deidentified`: identified data never goes there."""
    seal: SealPolicy | None = None
    seal_given: frozenset[str] = frozenset()
    """The keys its `seal` gives; the others come from the first line of the site's `seal` that fits."""
    redeliver_after: timedelta = timedelta(minutes=10)

    @property
    def receives(self) -> bool:
        """It has an address, so that things can be sent to it."""
        return self.host is not None and self.port is not None

    def calls_from(self, address: str) -> bool:
        """Whether *address*, an IP address without port, is one of `from_address`."""
        if not self.from_address:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped  # a dual-stack socket shows 10.1.2.3 as ::ffff:10.1.2.3
        return any(found in network for network in _networks(self))


@dataclass(frozen=True)
class NodeSettings:
    """Who we are and where we keep things."""

    ae_titles: tuple[str, ...]
    listen: tuple[str, int]
    timezone: str
    data: Path
    rules: Path
    durability: Literal["power", "process"] = "power"
    receivers: int = 1


@dataclass(frozen=True)
class Disk:
    """Shares of the disk that are full when something changes."""

    warn: float = 0.80
    stop_processing: float = 0.88
    refuse: float = 0.95


@dataclass(frozen=True)
class Limits:
    """What peers and runs may make us spend."""

    associations: int = 64
    """Open at a time, over all receivers."""
    run_time: timedelta = timedelta(minutes=30)
    run_memory: int = 4 * 10**9
    """Bytes of one run."""
    workers: int = 1
    """Runs at a time."""


@dataclass(frozen=True)
class Settings:
    """The whole site file, checked."""

    node: NodeSettings
    unknown_senders: Literal["refuse", "accept"] = "refuse"
    peers: Mapping[str, Peer] = field(default_factory=dict)
    seal: tuple[SealLine, ...] = (SealLine(None, SealPolicy()),)
    disk: Disk = Disk()
    limits: Limits = Limits()
    state: str = field(default="sqlite", repr=False)  # a database URL may hold a password
    engine: Literal["local"] = "local"
    source: str = field(default="", repr=False)
    """The text of the site file."""
    file: str = ""

    def peer_of(self, calling_ae: str, address: str) -> str | None:
        """Return the name of the peer that calls as *calling_ae* from IP *address*, or None."""
        title = calling_ae.strip(" ")
        for peer in self.peers.values():
            if title in peer.sends_as and peer.calls_from(address):
                return peer.name
        return None


def find(option: str | None, environ: Mapping[str, str]) -> Path:
    """Where the site file is: `--config`, `$PACSNODE_CONFIG`, then the usual places. Raises Misconfigured."""
    named = option or environ.get("PACSNODE_CONFIG")
    if named:
        return Path(named)
    for place in _PLACES:
        if place.is_file():
            return place
    looked = " nor ".join(str(place) for place in _PLACES)
    raise Misconfigured(
        f"no site file: neither {looked} exists; name one with --config FILE or PACSNODE_CONFIG=FILE"
    )


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check a site file. Raises Misconfigured with every mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    return parse(text, str(path), environ)


def parse(text: str, file: str, environ: Mapping[str, str]) -> Settings:
    """Check the *text* of a site file; its relative paths start at *file*'s folder. Raises Misconfigured."""
    documents = shape.parse(text, file)
    if len(documents) != 1 or not documents[0].is_mapping:
        raise Misconfigured(f"{file}:1: expected one mapping with {', '.join(_TOP)}")
    shaper = Shaper()
    root = overrides.applied(shaper, documents[0], environ)
    given = _fields(shaper, root, _TOP, _TOP_LATER, required=("node",))
    cores = os.cpu_count() or 1
    settings = Settings(
        node=_node(shaper, given["node"], Path(file).absolute().parent, cores)
        if "node" in given
        else _NOWHERE,
        unknown_senders=_pick(shaper, given, "unknown_senders", ("refuse", "accept")),  # type: ignore[arg-type]
        peers=_peers(shaper, given["peers"]) if "peers" in given else {},
        seal=_seal(shaper, given["seal"]) if "seal" in given else Settings.seal,
        disk=_disk(shaper, given["disk"]) if "disk" in given else Disk(),
        limits=_limits(shaper, given.get("limits"), cores),
        state=_state(shaper, given.get("state")),
        engine=_engine(shaper, given.get("engine")),
        source=text,
        file=file,
    )
    shaper.finish()
    return settings


_NOWHERE = NodeSettings((), ("", 0), "UTC", Path(), Path())  # stands in until finish() raises


def _fields(
    shaper: Shaper,
    node: Node,
    known: Collection[str],
    later: Collection[str] = (),
    required: Collection[str] = (),
) -> dict[str, Node]:
    """`Shaper.fields`, with a sentence of its own for keys that belong to a later version."""
    for key in later:
        if key in node.fields:
            shaper.wrong(node.fields[key], f"{key} is not available in this version; remove it")
    if node.is_mapping:
        node = replace(node, value={key: value for key, value in node.fields.items() if key not in later})
    return shaper.fields(node, known, required)


def _get(given: Mapping[str, Node], key: str, read: Callable[[Node, T], T], default: T) -> T:
    return read(given[key], default) if key in given else default


def _pick(shaper: Shaper, given: Mapping[str, Node], key: str, choices: tuple[str, ...]) -> str:
    return _get(given, key, lambda node, default: shaper.choice(node, choices, default), choices[0])


def _node(shaper: Shaper, node: Node, folder: Path, cores: int) -> NodeSettings:
    given = _fields(shaper, node, _NODE, required=_NODE_NEEDED)
    titles = (
        tuple(_ae_title(shaper, item) for item in given["ae_titles"].items) if "ae_titles" in given else ()
    )
    if "ae_titles" in given and not titles:
        shaper.wrong(given["ae_titles"], "at least one AE title is needed; the first is ours when we call")
    return NodeSettings(
        ae_titles=titles,
        listen=_get(given, "listen", lambda item, _: _address(shaper, item), _NOWHERE.listen),
        timezone=_get(given, "timezone", lambda item, _: _timezone(shaper, item), "UTC"),
        data=folder / _get(given, "data", shaper.text, ""),
        rules=folder / _get(given, "rules", shaper.text, ""),
        durability=_pick(shaper, given, "durability", ("power", "process")),  # type: ignore[arg-type]
        receivers=_count(shaper, given.get("receivers"), min(4, max(1, cores // 2))),
    )


def _count(shaper: Shaper, node: Node | None, automatic: int) -> int:
    """Read a whole number from 1, or `auto`."""
    if node is None or node.text == "auto":
        return automatic
    return shaper.integer(node, automatic, at_least=1)


def _ae_title(shaper: Shaper, node: Node) -> str:
    """1 to 16 characters of the default repertoire, no backslash, no control character (PS3.5 6.2, VR AE)."""
    title = node.text.strip(" ")
    if not node.is_text or not title:
        shaper.wrong(node, "an AE title must have 1 to 16 characters that are not all spaces")
    elif len(title) > 16:
        shaper.wrong(node, f"AE title {title} has {len(title)} characters; DICOM allows 16")
    elif "\\" in title or not (title.isascii() and title.isprintable()):
        shaper.wrong(node, "an AE title must be plain ASCII without backslash or control characters")
    return title


def _address(shaper: Shaper, node: Node) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(node.text.strip())
    if match and int(match[3]) > 65535:
        shaper.wrong(node, f"port {int(match[3])} is above 65535")
        return _NOWHERE.listen
    if not match or int(match[3]) < 1:
        shaper.wrong(node, f"expected host:port such as 10.1.2.9:4242, found {node.text!r}")
        return _NOWHERE.listen
    return match[1] or match[2], int(match[3])


def _timezone(shaper: Shaper, node: Node) -> str:
    name = shaper.text(node, "UTC")
    known = zoneinfo.available_timezones()
    if name not in known:
        shaper.wrong(node, f"{name} is not a time zone such as Europe/Berlin{nearest(name, known)}")
        return "UTC"
    return name


def _peers(shaper: Shaper, node: Node) -> dict[str, Peer]:
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
        peers[name] = _peer(shaper, name, entry)
    for one, two in combinations(peers.values(), 2):
        for title in sorted(set(one.sends_as) & set(two.sends_as)):
            if title and _overlap(one, two):
                shaper.wrong(
                    node.fields[two.name],
                    f"peers {one.name} and {two.name} both send as {title} from overlapping addresses; "
                    "give them different sends_as or from_address",
                )
    return peers


def _peer(shaper: Shaper, name: str, node: Node) -> Peer:
    given = _fields(shaper, node, _PEER, _PEER_LATER)
    title = _get(given, "ae_title", lambda item, _: _ae_title(shaper, item), "") or None
    host, port = _address(shaper, given["address"]) if "address" in given else (None, None)
    senders = given["sends_as"].items if "sends_as" in given else ()
    sends_as = tuple(_ae_title(shaper, item) for item in senders)
    if "sends_as" not in given and title:
        sends_as = (title,)
    if node.is_mapping and not title and not sends_as and "address" not in given:
        shaper.wrong(
            node, f"peer {name} needs sends_as (it sends to us) or ae_title and address (we send to it)"
        )
    if "address" in given and not title:
        shaper.wrong(given["address"], f"peer {name} has an address but no ae_title to call")
    for key in _OUTWARD:
        if key in given and "address" not in given:
            shaper.wrong(given[key], f"{key} needs an address: nothing is sent to a peer without one")
    return Peer(
        name=name,
        ae_title=title,
        host=host,
        port=port,
        sends_as=sends_as,
        from_address=_from_address(shaper, given.get("from_address")),
        call_as=_get(given, "call_as", lambda item, _: _ae_title(shaper, item), "") or None,
        associations=_count(shaper, given.get("associations"), 1),
        only=_get(given, "only", lambda item, _: shaper.choice(item, ("deidentified",)), ""),
        seal=_policy(shaper, given["seal"], _fields(shaper, given["seal"], _POLICY))
        if "seal" in given
        else None,
        seal_given=frozenset(given["seal"].fields if "seal" in given else ()) & frozenset(_POLICY),
        redeliver_after=_get(given, "redeliver_after", shaper.duration, Peer.redeliver_after),
    )


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


def _networks(peer: Peer) -> Iterator[Network]:
    return (ipaddress.ip_network(text) for text in peer.from_address)


def _overlap(one: Peer, two: Peer) -> bool:
    if not one.from_address or not two.from_address:
        return True
    return any(a.version == b.version and a.overlaps(b) for a in _networks(one) for b in _networks(two))


def _policy(shaper: Shaper, node: Node, given: Mapping[str, Node]) -> SealPolicy:
    policy = SealPolicy(
        quiet_for=_get(given, "quiet_for", shaper.duration, SealPolicy.quiet_for),
        on_release=_get(given, "on_release", shaper.yes_no, SealPolicy.on_release),
        settle=_get(given, "settle", shaper.duration, SealPolicy.settle),
        attention_after=_get(given, "attention_after", shaper.duration, SealPolicy.attention_after),
    )
    if not policy.quiet_for:
        shaper.wrong(given.get("quiet_for", node), "quiet_for must be longer than 0 s")
    return policy


def _seal(shaper: Shaper, node: Node) -> tuple[SealLine, ...]:
    lines: list[SealLine] = []
    for entry in node.items:
        if lines and lines[-1].when is None:
            shaper.wrong(entry, "this line is never reached: the one before it has no when")
        given = _fields(shaper, entry, ("when", *_POLICY))
        when = given.get("when")
        if when is not None and not when.is_mapping:
            shaper.wrong(when, "expected a mapping of conditions such as {Modality: US}")
        lines.append(SealLine(when, _policy(shaper, entry, given)))
    if not lines or lines[-1].when is not None:
        shaper.wrong(node, "the last line under seal must have no when, such as {quiet_for: 60 s}")
    return tuple(lines)


def _disk(shaper: Shaper, node: Node) -> Disk:
    given = _fields(shaper, node, _DISK, ("per_destination",))
    shares = {key: _get(given, key, shaper.percent, getattr(Disk, key)) for key in _DISK}
    disk = Disk(**shares)
    if not disk.warn < disk.stop_processing < disk.refuse:
        shaper.wrong(node, "disk shares must rise: warn, then stop_processing, then refuse")
    return disk


def _limits(shaper: Shaper, node: Node | None, cores: int) -> Limits:
    workers = max(1, cores // 2)
    if node is None:
        return Limits(workers=workers)
    given = _fields(shaper, node, _LIMITS)
    limits = Limits(
        associations=_count(shaper, given.get("associations"), Limits.associations),
        run_time=_get(given, "run_time", shaper.duration, Limits.run_time),
        run_memory=_get(given, "run_memory", shaper.size, Limits.run_memory),
        workers=_count(shaper, given.get("workers"), workers),
    )
    for key in ("run_time", "run_memory"):
        if key in given and not getattr(limits, key):
            shaper.wrong(given[key], f"{key} must be more than nothing")
    return limits


def _state(shaper: Shaper, node: Node | None) -> str:
    if node is None or node.text == "sqlite":
        return "sqlite"
    if not node.text.startswith("postgresql://"):
        shaper.wrong(node, "state must be sqlite or postgresql://user@host/database")
    return node.text


def _engine(shaper: Shaper, node: Node | None) -> Literal["local"]:
    if node is not None and node.text.startswith("dask"):
        shaper.wrong(node, "engine dask is not available in this version; remove it or say local")
    elif node is not None:
        shaper.choice(node, ("local",), "local")
    return "local"
