"""Who may associate: a pure decision over titles and address, with the words for the log (PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from node.receive.reasons import Reason

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM Application Context Name (PS3.7 A.2.1)."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Sender:
    """A peer that may send: the titles it calls itself, and where from; no network means anywhere."""

    name: str
    titles: tuple[str, ...]
    networks: tuple[Network, ...] = ()
    tls_needed: bool = False
    """It must come to the port for TLS."""
    client_names: tuple[str, ...] = ()
    """One of them must stand in the certificate it shows; empty = any that is believed."""


@dataclass(frozen=True, slots=True)
class Secured:
    """The connection is by TLS."""

    names: tuple[str, ...] = ()
    """In the certificate that the peer showed, and that was verified; without one there are none."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who we are, whom we know, and how much may be open at a time, over all receivers."""

    ae_titles: tuple[str, ...]
    senders: tuple[Sender, ...]
    unknown_may_send: bool
    associations: int
    connections: int = 320
    """TCP connections, those that never ask to associate too."""
    connections_per_address: int = 160


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ says, and where it comes from."""

    calling: str
    called: str
    host: str
    """IP address, without port."""
    application_context: str = APPLICATION_CONTEXT
    secured: Secured | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    """Let it in, under the name of *peer*."""

    peer: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse it: the three numbers of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), and why, for the log."""

    result: int
    source: int
    reason: int
    why: str
    because: Reason
    """The same as one of few words, by which it is counted."""


def admit(request: Request, policy: Policy, open_now: int) -> Accept | Reject:
    """Decide over one association request while *open_now* others are open.

    Spaces around a title do not count; its case does (PS3.5 6.2, VR AE).
    """
    calling, called = request.calling.strip(" "), request.called.strip(" ")
    if request.application_context != APPLICATION_CONTEXT:
        return Reject(1, 1, 2, "its application context is not DICOM's", Reason.APPLICATION_CONTEXT)
    if called not in policy.ae_titles:
        why = f"it called {called!r}; this node is {' or '.join(policy.ae_titles)}"
        return Reject(1, 1, 7, why, Reason.CALLED_TITLE)
    accepted = _sender(calling, request, policy)
    if isinstance(accepted, Accept) and open_now >= policy.associations:
        why = f"{open_now} associations are open, the limit is {policy.associations}"
        return Reject(2, 3, 2, why, Reason.LIMIT)
    return accepted


def _sender(calling: str, request: Request, policy: Policy) -> Accept | Reject:
    host = request.host
    namesakes = [sender for sender in policy.senders if calling in sender.titles]
    for sender in namesakes:
        if _comes_from(host, sender.networks):
            return _unproven(sender, request.secured) or Accept(sender.name)
    if namesakes:  # never let in as unknown: it may be somebody else under a known name
        names = " or ".join(sender.name for sender in namesakes)
        why = f"{calling!r} is {names}, which does not call from {host}; see its from_address"
        return Reject(1, 1, 3, why, Reason.ADDRESS)
    if any(calling == sender.name for sender in policy.senders):  # rules know a stranger by its title
        why = f"{calling!r} is the name of a peer that does not send as that"
        return Reject(1, 1, 3, why, Reason.CALLING_TITLE)
    if policy.unknown_may_send and calling:
        if _is_title(calling):
            return Accept(calling)
        return Reject(1, 1, 3, f"{calling!r} is no AE title (PS3.5 6.2)", Reason.CALLING_TITLE)
    why = f"no peer sends as {calling!r}; add it to a peer's sends_as to let it in"
    return Reject(1, 1, 3, why, Reason.CALLING_TITLE)


def _is_title(text: str) -> bool:
    """Whether it is plain ASCII without backslash and control characters: rules and logs know a stranger by it."""
    return text.isascii() and text.isprintable() and "\\" not in text


def plain(host: str) -> str:
    """Return an IP address as people write it: a dual-stack socket shows 10.1.2.3 as ::ffff:10.1.2.3."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _unproven(sender: Sender, secured: Secured | None) -> Reject | None:
    """Reject *sender* for what it did not show of what the site file asks of it; None where nothing is missing."""
    if secured is None and (sender.tls_needed or sender.client_names):
        why = f"{sender.name} came without TLS; it must use the port of tls.listen (see `tls` of the peer)"
        return Reject(1, 1, 3, why, Reason.TLS_REQUIRED)
    if secured is None or not sender.client_names or _same(sender.client_names, secured.names):
        return None
    wanted = " or ".join(sender.client_names)
    shown = f"the names {', '.join(secured.names)}" if secured.names else "no name"
    why = f"{sender.name} must show a certificate for {wanted}; this one carries {shown} (see client_names)"
    return Reject(1, 1, 3, why, Reason.CERTIFICATE_NAME)


def _same(wanted: tuple[str, ...], shown: tuple[str, ...]) -> bool:
    """Whether one name is in both; case does not count (RFC 4343), and a wildcard stands for itself only."""
    return not {name.casefold() for name in wanted}.isdisjoint(name.casefold() for name in shown)


def _comes_from(host: str, networks: tuple[Network, ...]) -> bool:
    if not networks:
        return True
    try:
        address = ipaddress.ip_address(plain(host.partition("%")[0]))
    except ValueError:
        return False
    return any(address in network for network in networks)
