"""Talking to peers from the command line: C-ECHO, and C-STORE of files as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread

from node.dryrun import files_in
from node.errors import Misconfigured
from node.flow.securing import tls_of
from node.read.header import arrival_of_file
from node.send import scu
from node.send.protocol import Destination, Item, Kind, Result
from node.settings import Settings
from node.shape import nearest


def destination(settings: Settings, name: str) -> Destination:
    """The peer's address. Raises Misconfigured where there is none."""
    peer = settings.peers.get(name)
    if peer is None:
        raise Misconfigured(f"{name} is not among the peers{nearest(name, settings.peers)}")
    if peer.host is None or peer.port is None or peer.ae_title is None:
        raise Misconfigured(f"{name} has no address; give the peer `ae_title` and `address` in the site file")
    return Destination(
        name=name, host=peer.host, port=peer.port, ae_title=peer.ae_title,
        calling_ae=peer.call_as or settings.node.ae_titles[0], tls=tls_of(settings, peer),
    )  # fmt: skip


def echo(settings: Settings, name: str) -> str | None:
    """None when the peer answers, else why not and what next."""
    return scu.echo(destination(settings, name))


def echo_all(settings: Settings) -> dict[str, str | None]:
    """C-ECHO every peer that has an address."""
    return {name: echo(settings, name) for name, peer in settings.peers.items() if peer.receives}


def send_files(settings: Settings, name: str, paths: Sequence[Path]) -> tuple[int, list[str]]:
    """Send files; how many were stored, and a sentence for each that was not."""
    to = destination(settings, name)
    files: list[Path] = []
    items: list[Item] = []
    problems: list[str] = []
    for path in files_in(paths):
        try:
            arrival, _ = arrival_of_file(path)
        except (ValueError, OSError) as error:
            problems.append(f"{path}: {error}")
            continue
        if settings.peers[name].only == "deidentified" and not _is_nameless(path):
            problems.append(
                f"{path}: {name} takes only de-identified data, and Patient Identity Removed does not say YES"
            )
            continue
        items.append(
            Item(len(files), 1, str(path), arrival.sop_class, arrival.sop_uid, arrival.transfer_syntax)
        )
        files.append(path)
    results, faults = _in_rounds(to, items)
    failed = [r for r in results if r.kind not in (Kind.STORED, Kind.WARNING)]
    problems += [f"{files[r.delivery]}: {r.what}" for r in failed]
    return len(results) - len(failed), problems + faults


def _is_nameless(path: Path) -> bool:
    """Whether a file says that somebody took the identity out of it (PS3.3 C.7.1.1)."""
    said = dcmread(path, specific_tags=["PatientIdentityRemoved"], stop_before_pixels=True, force=True)
    return str(said.get("PatientIdentityRemoved", "")).strip() == "YES"


def _in_rounds(to: Destination, items: Sequence[Item]) -> tuple[list[Result], list[str]]:
    """One result per item, and why the destination was lost, each sentence once.

    An object the destination aborts on must not keep the others from it: they go over a further association,
    unless the last one got nothing at all tried.
    """
    done: list[Result] = []
    faults: dict[str, None] = {}
    while True:
        results: list[Result] = []
        lost = scu.send_objects(to, items, results.append)
        if lost:
            faults[lost] = None
        tried = [r for r in results if r.kind is not Kind.NOT_TRIED]
        if not lost or not tried or len(tried) == len(results):
            return done + results, list(faults)
        done += tried
        left = {r.delivery for r in results if r.kind is Kind.NOT_TRIED}
        items = [item for item in items if item.delivery in left]
