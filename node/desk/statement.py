"""The DICOM conformance statement of this node as Markdown, in the order of PS3.2 Annex N (N.1 to N.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import UID

from node import __version__, tls
from node.derive.schemes import OURS
from node.desk.conformance import ANSWERS, DERIVED, associations, behaviour, services
from node.receive import storing
from node.receive.services import UNRECOGNISED
from node.settings import Peer, Settings


def lines(settings: Settings | None) -> Iterator[str]:
    """The statement as Markdown."""
    for section in (_overview, _introduction, _model, _interoperability, _network, _security, _annexes):
        yield from section(settings)
        yield ""


def _overview(settings: Settings | None) -> Iterator[str]:
    yield f"# DICOM Conformance Statement: PACSNode {__version__}"
    yield ""
    of = (
        f"the site file {settings.file}"
        if settings
        else "any site; with a site file it names titles and peers"
    )
    yield f"In the order of PS3.2 Annex N, for {of}."
    yield ""
    yield "## 1 Conformance Statement Overview"
    yield ""
    yield (
        "PACSNode receives composite objects from modalities and archives, keeps them byte for byte, sends "
        "them on, and makes and sends derived objects as rules say. It is no archive: what it keeps goes "
        "after the times in `keep`."
    )
    yield ""
    yield from _table(
        ("Service", "SOP Class", "UID", "Role", "With"),
        ((one.service, one.name, one.sop_class or "–", one.role, one.peers) for one in services(settings)),
    )


def _introduction(_settings: Settings | None) -> Iterator[str]:
    yield "## 3 Introduction"
    yield ""
    yield (
        "For those who connect the node to their systems. The statement shows what may work together; it "
        "does not replace a test with the systems in question. PACSNode is not a medical device; results are "
        "not for primary diagnosis."
    )


def _model(settings: Settings | None) -> Iterator[str]:
    yield "## 4 Implementation Model"
    yield ""
    titles = ", ".join(settings.node.ae_titles) if settings else "`node.ae_titles`"
    yield (
        f"One Application Entity, titled {titles}. Scanners and archives send to it (C-STORE, MPPS). When a "
        "series is complete it is matched against rules, and what a rule makes goes to the peers that the "
        "rule names (C-STORE), who may be asked to commit (N-ACTION). Where a rule wants an earlier study it "
        "is looked for (C-FIND) and fetched (C-MOVE or C-GET). Receiving depends on none of this."
    )


def _interoperability(settings: Settings | None) -> Iterator[str]:
    yield "## 5 Service and Interoperability Description"
    yield ""
    yield "### 5.1 Storage as SCP"
    yield ""
    yield (
        "Level 2 (Full): every attribute is kept, private ones included, and none is coerced. Digital "
        "signatures stay valid (bit preserving). Objects whose UIDs, values or pixels break the standard are "
        "kept and sent on all the same."
    )
    yield ""
    yield _success(settings)
    yield ""
    yield from _table(
        ("Status", "Meaning", "The sender should"),
        (
            (f"{storing.SUCCESS:04X}", "stored, see above", "delete it if it likes"),
            (f"{storing.OUT_OF_RESOURCES:04X}", "no room on the disk, or longer than `limits.object_size`",
             "send it again later"),
            (f"{storing.CANNOT_UNDERSTAND:04X}", "the message had no dataset", "mend the object"),
            (f"{storing.UNEXPECTED:04X}", "a fault of the node, which its log names", "send it again later"),
            (f"{UNRECOGNISED:04X}", "another request than C-STORE, C-ECHO and what section 1 names", "not ask again"),
        ),
    )  # fmt: skip
    yield ""
    yield (
        "The same object again: with the same bytes it is a duplicate and changes nothing; with the same "
        "pixels and another header it takes the former's place; with other pixels, study or series it is "
        "kept aside until a person decides. A rejection note (113001, 113037, 113038, 113039, DCM) takes "
        "back the objects that it names."
    )
    yield ""
    yield "### 5.2 Storage as SCU"
    yield ""
    yield (
        "Received objects go as they came; a rule may change attributes (the former ones are then in the "
        "Original Attributes Sequence) or send a copy without identity (PS3.15 Annex E). Derived objects "
        "carry Contributing Equipment and refer to their sources. The same result always has the same UID."
    )
    yield ""
    yield from _table(
        ("Written", "SOP Class", "UID"),
        ((kind, UID(uid).name, uid) for kind, uids in DERIVED.items() for uid in uids),
    )
    yield ""
    yield "What becomes of an object, by the status of its answer; a peer that cannot be reached is waited for:"
    yield ""
    yield from _table(("Status", "Meaning", "Behaviour"), map(behaviour, ANSWERS))
    yield ""
    yield "### 5.3 Storage Commitment, MPPS, Query/Retrieve"
    yield ""
    yield (
        "As SCU of Storage Commitment (Push Model) the node asks for what it sent, takes the answer on the "
        "same or another association, and asks again after `within`. As SCP it answers for what the archive "
        "in `commit_after` has itself committed, else with failure 0110H. An MPPS tells which images a "
        "series should have; it is kept, and not sent on. Query/Retrieve uses the Study Root model at STUDY, "
        "SERIES and IMAGE level, without relational queries."
    )


def _success(settings: Settings | None) -> str:
    power = "after its bytes and its name are on stable storage: it survives a power cut"
    process = "once the operating system has it: it survives the node's end, not a power cut"
    if settings is None:
        return f"Success is answered {power} (`durability: power`, the default), or {process} (`durability: process`)."
    said = power if settings.node.durability == "power" else process
    others = [
        f"{name} (`durability: {settings.durability_of(name)}`)"
        for name in settings.peers
        if settings.durability_of(name) != settings.node.durability
    ]
    otherwise = f" Otherwise for what comes from {', '.join(others)}." if others else ""
    return f"Success is answered {said} (`durability: {settings.node.durability}`).{otherwise}"


def _network(settings: Settings | None) -> Iterator[str]:
    yield "## 6 Network and Media Communication Details"
    yield ""
    yield "TCP/IP, IPv4 and IPv6. No media."
    yield ""
    yield from _table(("Association", "Accepted", "Initiated"), associations(settings))
    yield ""
    yield "### 6.1 Presentation contexts"
    yield ""
    yield (
        "Accepted: each Storage SOP Class, standard, private or unknown, in the first transfer syntax "
        "proposed, whatever it is; Verification in Implicit VR Little Endian, Explicit VR Little Endian, "
        "Explicit VR Big Endian and Deflated Explicit VR Little Endian; the others of section 1 uncompressed."
    )
    yield ""
    yield (
        "Proposed: for each object its SOP Class in its own transfer syntax, one context for each pair. A "
        "peer that refuses it is offered the peer's `transfer_syntaxes`, else Explicit and Implicit VR "
        "Little Endian, into which the node transcodes without loss. Query/Retrieve: Implicit VR Little "
        "Endian; a C-GET proposes the usual transfer syntaxes for each Storage SOP Class, with the SCP role."
    )
    if settings:
        yield ""
        yield "### 6.2 Peers"
        yield ""
        yield from _table(
            ("Peer", "Calls as", "From", "Called as", "At"), map(_peer, settings.peers.values())
        )


def _peer(peer: Peer) -> tuple[str, ...]:
    secured = " by TLS" if peer.tls else ""
    at = f"{peer.host}:{peer.port}{secured}" if peer.receives else "–"
    return (
        peer.name, ", ".join(peer.sends_as) or "–", ", ".join(peer.from_address) or "any address",
        peer.ae_title or "–", at,
    )  # fmt: skip


def _security(settings: Settings | None) -> Iterator[str]:
    yield "## 7 Security"
    yield ""
    site = settings.tls if settings else None
    if settings and site is None:
        yield "This site has no `tls`: associations are not encrypted."
    else:
        port = "{}:{}".format(*site.listen) if site and site.listen else "`tls.listen`"
        yield (
            f"TLS on a port of its own ({port}), TLS {site.minimum if site else '1.2'} or newer, with a "
            "certificate of the client "
            f"{site.clients if site else 'required (`clients: optional` waives it)'} (PS3.15 B.12, Modified "
            "BCP 195 RFC 8996, 9325). Of TLS 1.2 these cipher suites, and all of 1.3:"
        )
        yield ""
        yield ", ".join(name for name in tls.SUITES.split(":") if not name.startswith("@"))
    yield ""
    yield (
        "Senders are known by AE title and address, and unknown ones are "
        f"{'accepted' if settings and settings.unknown_senders == 'accept' else 'refused'}. De-identification "
        "follows the Basic Application Level Confidentiality Profile (PS3.15 E.2) with the options that a "
        "rule names. No audit messages are sent (PS3.15 A.5)."
    )


def _annexes(_settings: Settings | None) -> Iterator[str]:
    yield "## 8 Annexes"
    yield ""
    yield (
        f"Private attributes: none in what is sent. Private codes: scheme {OURS}, declared in the Coding "
        "Scheme Identification Sequence of each object that uses it. Character sets: received objects keep "
        "theirs; a derived object has that of its source, or ISO_IR 192 where the source's cannot say what "
        "is written. Standard extended or specialised SOP classes: none. Every derived object is checked "
        "against its IOD before it leaves."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
