"""One message about a performed procedure step: kept as it came, a status out (MPPS, PS3.4 F.7). Never raises.

Success is answered only when the message is durable. Whether the step is known, was begun before, or is over
already, only the database knows: the conductor judges that, and says so in an event.
"""

from __future__ import annotations

import structlog

from node.model import Keeper, StepMessage
from node.receive.command import SOP_INSTANCE, Elements, text

SOP_CLASS_UID = "1.2.840.10008.3.1.2.3.3"
"""Modality Performed Procedure Step SOP Class (PS3.4 F.7)."""
COMMANDS = {0x0120: "N-SET", 0x0140: "N-CREATE"}
"""Command Fields of the requests (PS3.7 Table E.1-1)."""
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
NOT_AUTHORISED = 0x0124
NO_ROOM = 0x0213
"""Statuses of PS3.7 Annex C."""
LONGEST = 4 << 20
"""Bytes of a dataset: some 30 000 referenced images."""
_REQUESTED_INSTANCE = 0x1001
_LONGEST_UID = 64

log = structlog.get_logger()


def instance(command: Elements) -> str:
    """Return the SOP Instance UID: Affected in N-CREATE, Requested in N-SET (PS3.7 10.3.5.1, 10.3.3.1)."""
    return text(command, _REQUESTED_INSTANCE) or text(command, SOP_INSTANCE)


def keep(message: StepMessage, dataset: memoryview, keeper: Keeper, performers: frozenset[str]) -> int:
    """Keep one message; return the status of its response."""
    peer, association = message.peer, message.association
    if message.peer not in performers:
        log.warning("step_unauthorised", reason=message.command, peer=peer, association=association)
        return NOT_AUTHORISED
    if not 0 < len(message.sop_uid) <= _LONGEST_UID:
        return INVALID_INSTANCE
    if not dataset:
        return MISSING_ATTRIBUTE
    if len(dataset) > LONGEST:
        log.warning("step_too_long", bytes=len(dataset), peer=peer, association=association)
        return NO_ROOM
    try:
        keeper.step(message, dataset)
    except Exception as error:  # noqa: BLE001 - one message must not end the association
        log.error("step_not_kept", error=type(error).__name__, peer=peer, association=association)  # noqa: TRY400 - a full disk needs no traceback
        return PROCESSING_FAILURE
    return SUCCESS
