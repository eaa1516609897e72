"""A receiver: `python -m node.receiver`. Sockets and files only: no database, no header decoding.

Started by the supervisor with the listening socket, the wake pipe and the census page as inherited
descriptors, and the site file's text on standard input. Ends by SIGTERM with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import ipaddress
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from node.errors import NodeError
from node.ops import log as logging
from node.receive.admission import Policy, Sender
from node.receive.association import Desk
from node.receive.census import Census
from node.receive.commitment import Speakers
from node.receive.limits import Pace, Watermark
from node.receive.listener import Listener, application_entity, configure
from node.receive.securing import Keys
from node.settings import Limits, Peer, Settings, Tls, parse
from node.store.files import (
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    Disk,
    ObjectFolder,
    clean_dead_runs,
)
from node.supervisor import follow
from node.tls import Files

_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
DRAIN = 10.0
"""Seconds a C-STORE in hand may take after SIGTERM."""

_OWN_DESCRIPTORS = 64

log = structlog.get_logger()


def policy_of(settings: Settings) -> Policy:
    """Return who may associate, from the site file."""
    senders = tuple(
        Sender(
            peer.name,
            (*peer.sends_as, *_reports_as(peer, settings)),
            tuple(ipaddress.ip_network(a, strict=False) for a in peer.from_address),
            tls_needed=peer.tls is not None and peer.tls.incoming == "required" and _by_tls(settings),
            client_names=peer.tls.client_names if peer.tls else (),
        )
        for peer in settings.peers.values()
    )
    return Policy(
        ae_titles=settings.node.ae_titles,
        senders=senders,
        unknown_may_send=settings.unknown_senders == "accept",
        associations=settings.limits.associations,
        connections=settings.limits.connections,
        connections_per_address=settings.limits.connections_per_address,
    )


def _by_tls(settings: Settings) -> bool:
    """Whether there is a port for TLS; without one, a peer's `tls` is about our own calls."""
    return settings.tls is not None and settings.tls.listen is not None


def keys_of(tls: Tls) -> Keys:
    """Return what we show and whom we believe, from the site file."""
    files = Files(str(tls.certificate), str(tls.key), str(tls.trusted))
    needed = tls.clients == "required"
    return Keys(files, tls.minimum, certificate_needed=needed, clock=time.monotonic)


def _reports_as(peer: Peer, settings: Settings) -> tuple[str, ...]:
    """The title another AE of *peer* reports under, where it commits by one, unless that is somebody else's."""
    title = peer.commit.ae_title if peer.commit else ""
    others = [one for one in settings.peers.values() if title in one.sends_as]
    return (title,) if title and not others else ()


def speakers_of(settings: Settings) -> Speakers:
    """Return who may speak of storage commitment, from the site file."""
    peers = settings.peers.values()
    return Speakers(
        asking=frozenset(peer.name for peer in peers if peer.commit_after),
        answering=frozenset(peer.name for peer in peers if _commits(peer, settings)),
    )


def _commits(peer: Peer, settings: Settings) -> bool:
    """Whether it commits, or commits on behalf of another peer under a title of its own."""
    titles = {one.commit.ae_title for one in settings.peers.values() if one.commit}
    return peer.commit is not None or bool(titles & {peer.ae_title, *peer.sends_as})


def durable_for(settings: Settings) -> Callable[[str], bool]:
    """Return what says of a peer whether a power cut may lose nothing that it was told is stored."""
    site = settings.node.durability == "power"
    own = {name: settings.durability_of(name) == "power" for name in settings.peers}
    return lambda peer: own.get(peer, site)


def pace_of(limits: Limits) -> Pace:
    """Return how long a peer may take, from the site file."""
    return Pace(
        negotiate=limits.artim.total_seconds(),
        idle=limits.idle.total_seconds(),
        pdu=limits.pdu.total_seconds(),
        object_size=limits.object_size,
    )


def allow_descriptors(connections: int) -> int:
    """Have descriptors for so many connections, and an object on each; how many the machine gives them for."""
    soft, hard = (_many(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(2 * connections + _OWN_DESCRIPTORS, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(1, min(connections, (max(soft, wanted) - _OWN_DESCRIPTORS) // 2))


def within_descriptors(settings: Settings) -> Settings:
    """Return the settings with no more connections than there are descriptors for."""
    given = allow_descriptors(settings.limits.connections)
    if given < settings.limits.connections:
        log.warning("descriptors_few", count=given)
    return replace(settings, limits=replace(settings.limits, connections=given))


def _many(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def waker(fd: int) -> Callable[[], None]:
    """Return what tells the conductor that there is a record: one byte into the pipe, never waiting."""

    def wake() -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe says the same
            os.write(fd, b"\0")

    return wake


def build(
    settings: Settings,
    listening: socket.socket,
    keeper: ObjectFolder,
    census: Census,
    secured: socket.socket | None = None,
) -> Listener:
    """Put a receiver together; it does not accept yet. *secured* listens for those who come by TLS."""
    configure()
    disk = Watermark(settings.node.data, settings.disk.refuse, time.monotonic)
    desk = Desk(
        keeper.run,
        keeper,
        policy_of(settings),
        census,
        disk,
        lambda: datetime.now(UTC),
        speakers=speakers_of(settings),
        performers=frozenset(settings.peers),
    )
    ae = application_entity(settings.node.ae_titles[0], (IMPLEMENTATION_UID, IMPLEMENTATION_VERSION))
    listener = Listener(ae, listening, desk, pace_of(settings.limits))
    if secured is not None and settings.tls is not None:
        listener.by_tls(secured, keys_of(settings.tls))
    return listener


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Receive until SIGTERM; return the exit code: 1 where the disk or the site file forbids it."""
    options = _options(arguments)
    logging.configure("receiver")
    told = _listen_for(_ENDS)
    follow(options.parent)
    try:
        settings = parse(sys.stdin.read(), options.file, environ)
        settings = within_descriptors(settings)
        clean_dead_runs(settings.node.data)
        census = Census(options.census_fd, options.slot, tuple(settings.peers))
        keeper = ObjectFolder(settings.node.data, Disk(), waker(options.wake_fd), durable_for(settings))
        secured = None if options.tls_fd is None else socket.socket(fileno=options.tls_fd)
        listener = build(settings, socket.socket(fileno=options.listen_fd), keeper, census, secured)
    except (NodeError, OSError) as error:
        log.exception("receiver_cannot_start", exc_info=error)
        return 1
    gc.freeze()  # what lives as long as the process need not be looked at by each collection
    listener.start()
    log.info("receiver_ready", receiver=keeper.run, pid=os.getpid())
    while signal.sigtimedwait(_ENDS, 1.0) is None and not told:
        listener.desk.settle()
        if keeper.failed:
            log.error("receiver_run_failed", receiver=keeper.run, reason=keeper.failed.strerror)
            break
    listener.drain(DRAIN)
    listener.desk.settle()
    log.info("receiver_stopped", receiver=keeper.run)
    return 1 if keeper.failed else 0


def _listen_for(ends: frozenset[signal.Signals]) -> list[int]:
    """Have signals wait until they are asked for; return where those that do not are noted.

    Threads inherit that, but for those that libraries began when they were imported. One of them is handed a
    second SIGTERM, or one while this thread does something else: without a handler that would be the end.
    """
    told: list[int] = []
    for number in ends:
        signal.signal(number, lambda number, _frame: told.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    return told


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m node.receiver", description=__doc__)
    for name in ("--listen-fd", "--wake-fd", "--census-fd", "--slot", "--parent"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--tls-fd", type=int)
    parser.add_argument("--file", required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = main(sys.argv[1:], os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread of a peer that hangs must not hold us back
