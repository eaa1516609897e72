"""One C-STORE: bytes in, a status out (PS3.4 B.2.3). Never decodes the dataset, never holds it, never raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from node.model import Arrival, Keeper, Part
from node.receive.reasons import Reason

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


class Storing:
    """An object on its way from the wire to the disk, exactly as sent.

    The SOP Class and Instance UIDs of the command go into the file meta and are not compared with those in
    the dataset: an object whose identity contradicts itself is kept all the same, and whoever reads its
    header says so. Once something went wrong the rest of the dataset is let pass, so that the sender gets its
    answer and the association goes on.
    """

    def __init__(self, arrival: Arrival, keeper: Keeper, disk: FullDisk, most: int) -> None:
        """Begin, where *disk* is not full; of an object longer than *most* bytes nothing is kept."""
        self.size = 0
        """Bytes of the dataset that came so far, kept or not."""
        self.refused: Reason | None = None
        """Why it will not be kept."""
        self.why = ""
        """What the disk said, where it did not take it."""
        self._arrival = arrival
        self._keeper = keeper
        self._most = most
        self._part: Part | None = None
        self._status = SUCCESS
        self._attempt(lambda: self._refuse_if(disk.is_full(), Reason.WATERMARK, Reason.WATERMARK.words))

    def write(self, fragment: memoryview) -> None:
        """Append to the object."""
        self.size += len(fragment)
        if self._status == SUCCESS and fragment:
            if self.size > self._most:
                words = f"{Reason.TOO_LONG.words}, {self._most} bytes"
                self._attempt(lambda: self._refuse_if(True, Reason.TOO_LONG, words))
            else:
                self._attempt(lambda: self._append(fragment))

    def end(self) -> int:
        """Keep the object; the status of its C-STORE-RSP, success only when `keep` has returned."""
        if self._status == SUCCESS and self._part is None:
            log.warning(
                "store_without_dataset", association=self._arrival.association, peer=self._arrival.peer
            )
            self._status, self.refused = CANNOT_UNDERSTAND, Reason.NO_DATASET
        elif self._status == SUCCESS:
            self._attempt(self._keep)
        return self._status

    def give_up(self) -> None:
        """Remove what came so far: the rest of it never will, or the disk did not take it."""
        if self._part is not None:
            self._part.discard()
            self._part = None

    def _append(self, fragment: memoryview) -> None:
        if self._part is None:
            self._part = self._keeper.begin(self._arrival)
        self._part.write(fragment)

    def _keep(self) -> None:
        assert self._part is not None  # noqa: S101 - end() has looked
        self._keeper.keep(self._part)
        self._part = None

    def _refuse_if(self, refused: bool, reason: Reason, words: str) -> None:
        if refused:
            log.warning(
                "store_refused",
                reason=words,
                association=self._arrival.association,
                peer=self._arrival.peer,
            )
            self._status, self.refused = OUT_OF_RESOURCES, reason

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            self._status, self.refused = OUT_OF_RESOURCES, Reason.DISK_FULL
            self.why = error.strerror or type(error).__name__
            log.error(  # noqa: TRY400 - a full disk needs no traceback per object
                "store_failed",
                reason=self.why,
                association=self._arrival.association,
                peer=self._arrival.peer,
            )
        except Exception as error:  # noqa: BLE001 - one bad object must not end the association
            self._status, self.refused = UNEXPECTED, Reason.OBJECT_BY_FAULT
            # The text of an unknown error may quote the object, so only its kind is logged.
            log.error("store_broke", error=type(error).__name__, association=self._arrival.association)  # noqa: TRY400
        if self._status != SUCCESS:
            self.give_up()
