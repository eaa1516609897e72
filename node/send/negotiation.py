"""How an association is asked for, with pynetdicom's A-ASSOCIATE, and what the answer means in words."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping

from pydicom.uid import UID
from pynetdicom import _config, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)

from node import __version__
from node.model import Trouble
from node.send.link import Lost, abort_words
from node.send.protocol import Destination

MOST_CONTEXTS = 128
"""Presentation contexts in one association: odd identifiers from 1 to 255 (PS3.8 9.3.2.2)."""
IMPLEMENTATION_CLASS_UID = "2.25.106882989033558261250005168925090581538"
"""The same that stands in the file meta of what we keep."""

Pair = tuple[str, str]
"""SOP Class UID and Transfer Syntax UID of a presentation context."""

_ASSOCIATE_AC, _ASSOCIATE_RJ, _ABORT = 2, 3, 7
_UNKNOWN_AE = ((1, 3), (1, 7))
"""Source and reason of a rejection that lasts until somebody corrects an AE title (PS3.8 Table 9-21)."""
_REFUSALS = {
    1: "it refused them (user rejection)",
    2: "it refused them without a reason",
    3: "the SOP class is not supported",
    4: "the transfer syntax is not supported",
}


def configure() -> None:
    """Set pynetdicom's process-wide switches; once, in the main of a process that sends."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.ENFORCE_UID_CONFORMANCE = False  # what scanners call a UID is sent on as it is
    log = logging.getLogger("pynetdicom")
    log.addHandler(logging.NullHandler())
    log.propagate = False


def proposable(pair: Pair) -> bool:
    """Whether both UIDs can stand in an A-ASSOCIATE at all (PS3.8 Annex F: 1 to 64 bytes)."""
    return all(0 < len(uid) <= 64 and uid.isascii() and uid.isprintable() for uid in pair)


def request(
    destination: Destination, proposed: Mapping[int, Pair], as_scp: Iterable[str] = (), most: int = 16384
) -> bytes:
    """Encode the A-ASSOCIATE-RQ with one transfer syntax per presentation context.

    For the SOP classes *as_scp* we are the SCP and not the SCU (PS3.7 D.3.3.4). *most*: bytes of a PDU that we
    take; answers are short.
    """
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = destination.calling_ae
    primitive.called_ae_title = destination.ae_title
    contexts = []
    for identifier, (sop_class, syntax) in proposed.items():
        context = build_context(UID(sop_class), UID(syntax))
        context.context_id = identifier
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = most
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = f"PACSNODE_{__version__}"[:16]
    primitive.user_information = [length, implementation, version, *map(_scp_role, as_scp)]
    return A_ASSOCIATE_RQ(primitive).encode()


def _scp_role(sop_class: str) -> SCP_SCU_RoleSelectionNegotiation:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(sop_class), False, True
    return role


def read_answer(kind: int, body: bytes, destination: Destination) -> A_ASSOCIATE:
    """Read the A-ASSOCIATE-AC; raise Lost with the reason when it is anything else."""
    if kind == _ABORT:
        raise Lost(abort_words(body))
    if kind == _ASSOCIATE_RJ and len(body) >= 4:
        why = (body[2], body[3])
        unknown = body[1] == 1 and why in _UNKNOWN_AE
        trouble = Trouble.UNKNOWN_AE if unknown else Trouble.REJECTED
        raise Lost(_rejection(body[1], why, destination), trouble)
    if kind != _ASSOCIATE_AC:
        raise Lost("answered the association request with something else; check its address and port")
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(struct.pack(">BxI", kind, len(body)) + body)
        return pdu.to_primitive()
    except Exception as error:  # pynetdicom raises whatever a malformed PDU leads it to
        raise Lost(f"answered with a malformed PDU ({type(error).__name__}); see its log") from error


def judge(proposed: Mapping[int, Pair], answer: A_ASSOCIATE) -> tuple[dict[Pair, int], dict[Pair, str]]:
    """Sort *proposed* into accepted, with its context identifier, and refused, with the reason."""
    accepted: dict[Pair, int] = {}
    refused = dict.fromkeys(proposed.values(), "it gave no answer to this proposal")
    for context in answer.presentation_context_definition_results_list:
        pair = proposed.get(context.context_id)
        if pair is None:
            continue
        if context.result != 0:
            refused[pair] = _REFUSALS.get(context.result, f"result {context.result}")
        elif [str(syntax) for syntax in context.transfer_syntax] != [pair[1]]:
            refused[pair] = "it accepted a transfer syntax that was not proposed"
        else:
            accepted[pair] = context.context_id
            refused.pop(pair, None)
    return accepted, refused


def _rejection(result: int, source_and_reason: tuple[int, int], destination: Destination) -> str:
    """Say why the association was rejected, and what next (PS3.8 Table 9-21)."""
    peer, called, calling = destination.name, destination.ae_title, destination.calling_ae
    reasons = {
        (1, 2): ("application context not supported", "see its log"),
        (1, 3): ("calling AE title not recognised", f"ask its administrator to admit AE title {calling}"),
        (1, 7): ("called AE title not recognised", f"check ae_title of peer {peer} (now {called})"),
        (2, 2): ("protocol version not supported", "see its log"),
        (3, 1): ("temporary congestion", "it will be tried again"),
        (3, 2): ("its limit of associations is reached", f"lower associations of peer {peer} if this stays"),
    }
    unknown = ("no reason given", f"check that it admits AE title {calling} from our address")
    reason, advice = reasons.get(source_and_reason, unknown)
    lasting = " for now" if result == 2 else ""
    return f"rejected the association{lasting}: {reason}; {advice}"
