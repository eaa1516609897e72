"""What the site file says, as frozen values; every default stands here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from node.model import NOTICE
from node.settings.deidentify import Deidentify
from node.settings.windows import Window
from node.shape import Node

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


SOURCE = "source"
"""In `count_from`: the peer that sent the series."""


@dataclass(frozen=True)
class SealPolicy:
    """When a series counts as complete."""

    quiet_for: timedelta = timedelta(seconds=60)
    on_release: bool = False
    """Also when every association that carried the series was released, *settle* ago."""
    settle: timedelta = timedelta(seconds=1)
    attention_after: timedelta = timedelta(hours=2)
    """An open series this old is shown; it is never cut."""
    count_from: str = ""
    """Who is asked how many objects the series has (C-FIND): a peer, or SOURCE; empty = nobody."""
    count_patience: timedelta = timedelta(minutes=10)
    """So long, from the last object, what a count or MPPS says is missing is waited for."""
    mpps: bool = True
    """What a performed procedure step names is waited for, and ends the waiting when it is here."""


@dataclass(frozen=True)
class SealLine:
    """One line under `seal:`; *when* None fits every series."""

    when: Node | None
    policy: SealPolicy


@dataclass(frozen=True)
class Commit:
    """Where and how long a peer is asked to commit to what it was sent (PS3.4 J)."""

    ae_title: str
    host: str
    port: int
    within: timedelta = timedelta(hours=24)
    """After this time without an answer it is asked again, and an event says so."""


@dataclass(frozen=True)
class Tls:
    """Our files (PEM) for TLS, and the port where others come by it (PS3.15 B.12)."""

    certificate: Path
    """Ours, with the chain up to an authority; read again when it changes."""
    key: Path
    trusted: Path
    """Certificates of the authorities whose word we take."""
    listen: tuple[str, int] | None = None
    """None = nobody comes by TLS, we only call by it."""
    clients: Literal["required", "optional"] = "required"
    """Whether whoever comes must show a certificate."""
    minimum: Literal["1.2", "1.3"] = "1.2"


@dataclass(frozen=True)
class PeerTls:
    """How one peer is spoken to over TLS; a file that is None is that of `tls` of the site."""

    incoming: Literal["required", "optional"] = "required"
    """Whether what it sends to us must come by TLS."""
    client_names: tuple[str, ...] = ()
    """One of these names must stand in the certificate it shows to us; empty = any that is trusted."""
    server_name: str = ""
    """The name that its certificate must carry when we call; empty = the host of its address."""
    check_name: bool = True
    """False: any certificate that *trusted* vouches for, whatever its name."""
    trusted: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


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
    shows: frozenset[str] | None = None
    """What its users see of derived objects: images, SEG, SR, PM, PDF …; None = everything."""
    window: tuple[Window, ...] = ()
    """When it may be sent to; empty = at any time."""
    transfer_syntaxes: tuple[str, ...] = ()
    """UIDs, best first, that an object is transcoded to where the peer refuses it as it is; empty = the two
    uncompressed little endian ones."""
    commit: Commit | None = None
    """It commits to what it stored; None = it is not asked."""
    commit_after: str = ""
    """It may ask us to commit: answered when this peer has committed; empty = it may not."""
    priors: Literal["move", "get"] = "move"
    """How earlier studies are fetched from it: C-MOVE to our receivers, or C-GET on the same association."""
    iocm: bool = False
    """It takes rejection notes (IHE IOCM): results that were superseded are withdrawn there."""
    durability: Literal["power", "process"] | None = None
    """What success means for what it sends; None = as `node.durability` says."""
    tls: PeerTls | None = None
    """None = without TLS when we call it; it may come either way."""

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
        return any(found in network for network in self.networks)

    @property
    def networks(self) -> tuple[Network, ...]:
        """`from_address` as networks."""
        return tuple(ipaddress.ip_network(text) for text in self.from_address)


@dataclass(frozen=True)
class NodeSettings:
    """Who we are and where we keep things."""

    ae_titles: tuple[str, ...]
    listen: tuple[str, int]
    timezone: str
    data: Path
    rules: Path
    durability: Literal["power", "process"] = "power"
    notice: str = NOTICE
    """Stands in every report that the node makes; empty: nothing."""
    receivers: int = 1


@dataclass(frozen=True)
class Disk:
    """Shares of the disk that are full when something changes."""

    warn: float = 0.80
    stop_processing: float = 0.88
    refuse: float = 0.95
    per_destination: float = 0.30
    """What waits for one destination may take; beyond it nothing more is made that only goes there."""


@dataclass(frozen=True)
class Keep:
    """How long what is over is kept, by how it ended; None = until it is delivered."""

    delivered: timedelta = timedelta(days=3)
    unrouted: timedelta = timedelta(days=7)
    refused: timedelta = timedelta(days=30)
    quarantined: timedelta = timedelta(days=90)
    undelivered: timedelta | None = None
    priors: timedelta = timedelta(days=1)
    """Of earlier studies, fetched as inputs; while kept they are not fetched again."""


@dataclass(frozen=True)
class Alarm:
    """One line under `alerts.when`: what is told, and how long it must have lasted."""

    what: str
    """destination_down, parked, quarantined, disk, rules_refused …"""
    after: timedelta = timedelta(0)


@dataclass(frozen=True)
class Email:
    """A mail server and who is written to."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int = 25
    starttls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    """Read whenever a mail is sent: a missing one must not keep a receiver from starting again."""


@dataclass(frozen=True)
class Alerts:
    """Who is told what; nobody by default."""

    email: Email | None = None
    webhook: str = field(default="", repr=False)
    """URL that gets a JSON document by POST; it may hold a token."""
    syslog: tuple[str, int] | None = None
    """Host and UDP port of an RFC 5424 collector."""
    when: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class Web:
    """Where health and metrics are served."""

    listen: tuple[str, int]


@dataclass(frozen=True)
class Limits:
    """What peers and runs may make us spend."""

    associations: int = 64
    """Open at a time, over all receivers."""
    connections: int = 320
    """TCP connections open at a time, over all receivers: those that never ask to associate count as well."""
    connections_per_address: int = 160
    """Of these, from one IP address."""
    artim: timedelta = timedelta(seconds=30)
    """From a connection to its association request (PS3.8 9.1.5); a TLS handshake has as long."""
    idle: timedelta = timedelta(minutes=10)
    """Between two messages of an association; scanners keep one open between images."""
    pdu: timedelta = timedelta(seconds=30)
    """From the first byte of a PDU to its last, between two PDUs of a message, and for one write to the peer."""
    object_size: int = 32 * 10**9
    """Bytes of one object; a longer one is answered with 0xA700."""
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
    keep: Keep = Keep()
    alerts: Alerts = Alerts()
    web: Web | None = None
    tls: Tls | None = None
    state: str = field(default="sqlite", repr=False)  # a database URL may hold a password
    engine: Literal["local"] = "local"
    never_process: tuple[Node, ...] = ()
    """Blocks as under a rule's `when`: series that one of them fits are routed, and never processed."""
    deidentify: Deidentify = field(default_factory=Deidentify)
    source: str = field(default="", repr=False)
    """The text of the site file."""
    file: str = ""

    def durability_of(self, peer: str) -> Literal["power", "process"]:
        """What success means for what *peer* sends; a sender that is none of the peers gets the site's."""
        known = self.peers.get(peer)
        return (known and known.durability) or self.node.durability

    def peer_of(self, calling_ae: str, address: str) -> str | None:
        """Return the name of the peer that calls as *calling_ae* from IP *address*, or None."""
        title = calling_ae.strip(" ")
        for peer in self.peers.values():
            if title in peer.sends_as and peer.calls_from(address):
                return peer.name
        return None
