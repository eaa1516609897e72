"""What pynetdicom does for us on an association: negotiation, and requests nobody else serves.

Its association object is never started: it has no thread and no queue here, and what it sends goes straight
to the wire. All inner names of pynetdicom that reception uses are in this file (held by a contract test).
"""

from __future__ import annotations

from typing import Any

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA, SCP_SCU_RoleSelectionNegotiation

from node.receive.admission import Reject, Request
from node.receive.reasons import Reason
from node.receive.services import Context
from node.receive.wire import BY_USER, CommandError, FaultError, Wire

_NO_SUCH_VERSION = Reject(1, 2, 2, "its protocol version is not 1", Reason.PROTOCOL_VERSION)


class Negotiation:
    """One association of pynetdicom, used from our thread."""

    def __init__(self, assoc: Any, wire: Wire) -> None:
        """Take an acceptor's association that was not started, and the wire to its peer."""
        self._assoc = assoc
        self._wire = wire
        self.peer_maximum = 0
        """Bytes of a P-DATA-TF that the peer takes, 0 for any (PS3.8 D.1)."""
        assoc.dul.send_pdu = self._send_pdu

    def read(self, body: bytes, host: str) -> Request | Reject:
        """Read the content of an A-ASSOCIATE-RQ. Raises FaultError."""
        pdu = A_ASSOCIATE_RQ()
        try:
            pdu.decode(b"\x01\0" + len(body).to_bytes(4, "big") + body)
            primitive = self._assoc.requestor.primitive = pdu.to_primitive()
            calling, called = primitive.calling_ae_title.strip(" "), primitive.called_ae_title.strip(" ")
            context = str(primitive.application_context_name or "")
        except Exception as error:
            raise FaultError(f"A-ASSOCIATE-RQ cannot be decoded: {type(error).__name__}") from error
        if not (pdu.protocol_version or 0) & 1:  # the only bit that is tested (PS3.8 Table 9-11)
            return _NO_SUCH_VERSION
        return Request(calling, called, host, context)

    def reject(self, answer: Reject) -> None:
        """Send A-ASSOCIATE-RJ."""
        self._assoc.acse.send_reject(answer.result, answer.source, answer.reason)

    def accept(self, in_either_role: str = "") -> dict[int, Context]:
        """Negotiate the presentation contexts and send A-ASSOCIATE-AC; the contexts that were accepted.

        Of the SOP class *in_either_role* the peer may be SCU or SCP, as it proposes.
        """
        try:
            if in_either_role:
                self._accept_role(in_either_role)
            self._assoc.acse.negotiate_association()
            self.peer_maximum = int(self._assoc.requestor.maximum_length or 0)
        except OSError:
            raise
        except Exception as error:
            raise FaultError(f"A-ASSOCIATE-RQ cannot be negotiated: {type(error).__name__}") from error
        return {
            int(context.context_id): Context(
                int(context.context_id), str(context.abstract_syntax), str(context.transfer_syntax[0])
            )
            for context in self._assoc.accepted_contexts
        }

    def _accept_role(self, sop_class: str) -> None:
        """Support a SOP class, and confirm the role that the peer proposes for it (PS3.7 D.3.3.4).

        pynetdicom leaves that answer out where every storage class is accepted.
        """
        context = build_context(sop_class)
        context.scu_role = context.scp_role = True
        self._assoc.acceptor.supported_contexts = [*self._assoc.acceptor.supported_contexts, context]
        proposed = self._assoc.requestor.role_selection.get(sop_class)
        if proposed is not None:
            role = SCP_SCU_RoleSelectionNegotiation()
            role.sop_class_uid = UID(sop_class)
            role.scu_role, role.scp_role = proposed.scu_role, proposed.scp_role
            self._assoc.acceptor.add_negotiation_item(role)

    def serve(self, context: int, command: bytes, dataset: bytes) -> None:
        """Let pynetdicom answer a request as it would by itself. Raises CommandError for what is none."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context, b"\x03" + command))
        if dataset:
            primitive.presentation_data_value_list.append((context, b"\x02" + dataset))
        message = DIMSEMessage()
        try:
            message.decode_msg(primitive, self._assoc)
            request: Any = message.message_to_primitive()
        except Exception as error:
            raise CommandError(f"a command that cannot be decoded: {type(error).__name__}") from error
        if not request.is_valid_request:
            raise CommandError(f"{request.msg_type} is no request, or one without a mandatory field")
        self._assoc._serve_request(request, context)
        if self._assoc.is_aborted:
            raise CommandError(f"no service answers {request.msg_type} on this context")

    def _send_pdu(self, primitive: Any) -> None:
        if isinstance(primitive, P_DATA):
            self._wire.send(P_DATA_TF(primitive).encode())
        elif isinstance(primitive, A_ASSOCIATE):
            accepted = primitive.result == 0
            self._wire.send((A_ASSOCIATE_AC(primitive) if accepted else A_ASSOCIATE_RJ(primitive)).encode())
        else:
            self._wire.abort(BY_USER)
