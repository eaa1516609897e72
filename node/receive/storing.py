"""One C-STORE: bytes in, a status out (PS3.4 B.2.3). Never decodes the dataset, never raises."""

from __future__ import annotations

from typing import Protocol

import structlog

from node.model import Arrival, Keeper

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
"""Refused: out of resources; the sender may try again (PS3.4 Table B.2-1)."""
CANNOT_UNDERSTAND = 0xC000
"""Error: cannot understand: no dataset came."""
UNEXPECTED = 0xC211
"""Error: cannot understand, our fault: something nobody expected; the log says what."""

log = structlog.get_logger()


class FullDisk(Protocol):
    """Knows whether the disk is too full to take more."""

    def is_full(self) -> bool:
        """Whether to refuse. Raises OSError."""
        ...


def store(arrival: Arrival, dataset: memoryview, keeper: Keeper, disk: FullDisk) -> int:
    """Keep one object exactly as sent; return the status of its C-STORE-RSP.

    The SOP Class and Instance UIDs of the command go into the file meta and are not compared with those in
    the dataset: an object whose identity contradicts itself is kept all the same, and whoever reads its
    header says so. Success is returned only when `keep` has returned.
    """
    try:
        if disk.is_full():
            log.warning(
                "store_refused", reason="disk full", association=arrival.association, peer=arrival.peer
            )
            return OUT_OF_RESOURCES
        if not dataset:
            log.warning("store_without_dataset", association=arrival.association, peer=arrival.peer)
            return CANNOT_UNDERSTAND
        _keep(arrival, dataset, keeper)
    except OSError as error:
        log.error(  # noqa: TRY400 - a full disk needs no traceback per object
            "store_failed",
            reason=error.strerror or type(error).__name__,
            association=arrival.association,
            peer=arrival.peer,
        )
        return OUT_OF_RESOURCES
    except Exception as error:  # noqa: BLE001 - one bad object must not end the association
        # The text of an unknown error may quote the object, so only its kind is logged.
        log.error("store_broke", error=type(error).__name__, association=arrival.association)  # noqa: TRY400
        return UNEXPECTED
    return SUCCESS


def _keep(arrival: Arrival, dataset: memoryview, keeper: Keeper) -> None:
    part = keeper.begin(arrival)
    kept = False
    try:
        part.write(dataset)
        keeper.keep(part)
        kept = True
    finally:
        if not kept:
            part.discard()
