"""What pynetdicom does for us on an association: it negotiates the presentation contexts.

Its association object is never started: it has no thread, no queue and no socket here, and what it would send is
what we send. All inner names of pynetdicom that reception uses are in this file (held by a contract test).
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from node.receive.admission import Reject, Request, Secured
from node.receive.reasons import Reason
from node.receive.services import Context
from node.receive.wire import ASSOCIATE_RJ, ASSOCIATE_RQ, FaultError

_NO_SUCH_VERSION = Reject(1, 2, 2, "its protocol version is not 1", Reason.PROTOCOL_VERSION)
_HEAD = struct.Struct(">HH16s16s32x")  # protocol version, called and calling AE title (PS3.8 Table 9-11)
_ITEM = struct.Struct(">BBH")
_APPLICATION_CONTEXT, _USER_INFORMATION = 0x10, 0x50
_MOST_KNOWN, _LONGEST_KNOWN = 128, 16 * 1024  # agreements, and bytes of a request; most have 200 to 6000
_DATASETS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_MOST_ITEMS = 512  # that may have to be read one by one; a peer proposes 128 contexts and a few roles at most


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an association is about."""

    contexts: Mapping[int, Context]
    """The presentation contexts that were accepted, by their numbers."""
    peer_maximum: int
    """Bytes of a P-DATA-TF that the peer takes, 0 for any (PS3.8 D.1)."""
    accept: bytes
    """The A-ASSOCIATE-AC."""


def read(body: bytes, host: str, secured: Secured | None = None) -> Request | Reject:
    """Read who asks, in the content of an A-ASSOCIATE-RQ. Raises FaultError.

    Nothing else of it is decoded before its sender is admitted: what a stranger proposes costs nothing.
    """
    if len(body) < _HEAD.size:
        raise FaultError(f"A-ASSOCIATE-RQ of {len(body)} bytes")
    version, _, called, calling = _HEAD.unpack_from(body)
    if not version & 1:  # the only bit that is tested (PS3.8 Table 9-11)
        return _NO_SUCH_VERSION
    names = (name for kind, name in _items(body[_HEAD.size :]) if kind == _APPLICATION_CONTEXT)
    context = _text(next(names, b"")).rstrip("\0")
    return Request(_text(calling).strip(" "), _text(called).strip(" "), host, context, secured)


def rejection(answer: Reject) -> bytes:
    """Return the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return struct.pack(">BBIBBBB", ASSOCIATE_RJ, 0, 4, 0, answer.result, answer.source, answer.reason)


class Negotiator:
    """Negotiates as one AE. What it agreed to it remembers: a scanner asks for the same, image after image."""

    def __init__(self, ae: AE) -> None:
        self._ae = ae
        self._known: OrderedDict[tuple[bytes, str, str], Agreement] = OrderedDict()
        self._lock = threading.Lock()

    def agree(self, body: bytes, in_either_role: str = "", as_scu: str = "") -> Agreement:
        """Return what to accept of the A-ASSOCIATE-RQ with this content.

        Of the SOP class *in_either_role* the peer may be SCU or SCP, as it proposes; of the class *as_scu*, beside
        what everybody may, SCU. Empty: of none. Raises FaultError.
        """
        key = body, in_either_role, as_scu
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
        found = _negotiated(self._ae, body, in_either_role, as_scu)
        if len(body) <= _LONGEST_KNOWN:
            with self._lock:
                self._known[key] = found
                if len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        return found


def _negotiated(ae: AE, body: bytes, in_either_role: str, as_scu: str) -> Agreement:
    """Let an association of pynetdicom answer, one that is made for this and never started."""
    sent: list[Any] = []
    try:
        assoc = Association(ae, MODE_ACCEPTOR)
        assoc.dul.send_pdu = sent.append
        acceptor = assoc.acceptor
        acceptor.maximum_length = ae.maximum_pdu_size
        acceptor.ae_title = ae.ae_title
        acceptor.implementation_class_uid = ae.implementation_class_uid
        acceptor.implementation_version_name = ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(ae.supported_contexts)
        assoc.requestor.primitive = _decoded(body)
        if in_either_role:
            _accept_role(assoc, in_either_role)
        if as_scu:
            also = build_context(as_scu, list(_DATASETS))
            assoc.acceptor.supported_contexts = [*assoc.acceptor.supported_contexts, also]
        assoc.acse.negotiate_association()
        (accept,) = map(_encoded_accept, sent)
        return Agreement(
            contexts={
                int(found.context_id): Context(
                    int(found.context_id), str(found.abstract_syntax), str(found.transfer_syntax[0])
                )
                for found in assoc.accepted_contexts
            },
            peer_maximum=int(assoc.requestor.maximum_length or 0),
            accept=accept,
        )
    except FaultError:
        raise
    except Exception as error:
        raise FaultError(f"A-ASSOCIATE-RQ cannot be negotiated: {type(error).__name__}") from error


def _encoded_accept(primitive: Any) -> bytes:
    if primitive.result != 0:
        raise FaultError("pynetdicom does not accept the association")
    return bytes(A_ASSOCIATE_AC(primitive).encode())


def _decoded(body: bytes) -> Any:
    """Return the request as pynetdicom's primitive. Raises FaultError."""
    try:
        try:
            primitive = _decode(body)
        except Exception:  # noqa: BLE001 - it raises whatever an illegal value leads to
            primitive = _decode(_legible(body))
    except FaultError:
        raise
    except Exception as error:
        raise FaultError(f"A-ASSOCIATE-RQ cannot be decoded: {type(error).__name__}") from error
    numbers = [context.context_id for context in primitive.presentation_context_definition_list]
    if len(set(numbers)) < len(numbers):  # which of the two an object came in, nobody could tell
        raise FaultError("two presentation contexts of one number")
    return primitive


def _accept_role(assoc: Association, sop_class: str) -> None:
    """Support a SOP class, and confirm the role that the peer proposes for it (PS3.7 D.3.3.4).

    pynetdicom leaves that answer out where every storage class is accepted.
    """
    context = build_context(sop_class)
    context.scu_role = context.scp_role = True
    assoc.acceptor.supported_contexts = [*assoc.acceptor.supported_contexts, context]
    proposed = assoc.requestor.role_selection.get(sop_class)
    if proposed is not None:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(sop_class)
        role.scu_role, role.scp_role = proposed.scu_role, proposed.scp_role
        assoc.acceptor.add_negotiation_item(role)


def _decode(body: bytes) -> Any:
    """Return an A-ASSOCIATE-RQ as pynetdicom's primitive; raises whatever an illegal value leads to."""
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(struct.pack(">BBI", ASSOCIATE_RQ, 0, len(body)) + body)
    return pdu.to_primitive()


def _legible(body: bytes) -> bytes:
    """Return a request without what cannot be decoded and does not matter. Raises FaultError.

    Items of unknown types are to be passed over, since later editions of the standard add some; so is user
    information that breaks a rule, such as a version name of 20 characters: nothing here depends on it.
    """
    kept, tried = body[: _HEAD.size], 0
    for kind, content in _items(body[_HEAD.size :]):
        if kind == _USER_INFORMATION:
            subitems = list(_items(content))
            tried += len(subitems)
            if tried > _MOST_ITEMS:
                raise FaultError(f"more than {_MOST_ITEMS} items of user information")
            content = b"".join(  # noqa: PLW2901 - the same item, with less in it
                item for item in (_encoded(*subitem) for subitem in subitems) if _is_readable(body, item)
            )
        if kind in (_APPLICATION_CONTEXT, 0x20, _USER_INFORMATION):
            kept += _encoded(kind, content)
    return kept


def _is_readable(body: bytes, item: bytes) -> bool:
    try:
        _decode(body[: _HEAD.size] + _encoded(_USER_INFORMATION, item))
    except Exception:  # noqa: BLE001 - it raises whatever an illegal value leads to
        return False
    return True


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each item (PS3.8 9.3.2). Raises FaultError."""
    at = 0
    while at < len(data):
        if len(data) - at < _ITEM.size:
            raise FaultError("an item without its header in A-ASSOCIATE-RQ")
        kind, _, length = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        if length > len(data) - at:
            raise FaultError(f"an item of {length} bytes in {len(data) - at} of A-ASSOCIATE-RQ")
        yield kind, data[at : at + length]
        at += length


def _encoded(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, 0, len(content)) + content


def _text(value: bytes) -> str:
    """Return bytes as text, whatever they are."""
    return value.decode("latin-1")
