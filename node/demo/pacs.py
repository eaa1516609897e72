"""The demo's PACS: a pynetdicom storage SCP on loopback that writes what it gets, byte for byte."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt

AE_TITLE = "PACS"
_MAX_PDU = 131072
_CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3
_SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Held:
    """One object at the PACS."""

    path: Path
    series_uid: str
    sop_uid: str


class Pacs:
    """What came, by SOP Instance UID; file names are numbers of our own, never text of a peer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._series: dict[str, int] = {}
        self._lock = threading.Lock()
        self.held: dict[str, Held] = {}
        self.twice: list[str] = []
        """SOP Instance UIDs that were stored more than once."""
        self.port = 0

    def store(self, event: Any) -> int:
        """Handle one C-STORE: keep the dataset's bytes as they came."""
        data = event.encoded_dataset()
        header = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        if "SeriesInstanceUID" not in header:
            return _CANNOT_UNDERSTAND
        sop_uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            number = self._series.setdefault(str(header.SeriesInstanceUID), len(self._series) + 1)
            if sop_uid in self.held:
                self.twice.append(sop_uid)
            path = self._folder / f"{number:02d}" / f"{len(self.held) + 1:05d}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.held[sop_uid] = Held(path, str(header.SeriesInstanceUID), sop_uid)
        return _SUCCESS


@contextmanager
def running(folder: Path) -> Iterator[Pacs]:
    """A PACS on a free port of loopback, as long as the block lasts; objects go below *folder*."""
    pacs = Pacs(folder)
    entity = AE(ae_title=AE_TITLE)
    entity.maximum_pdu_size = _MAX_PDU
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
    entity.add_supported_context("1.2.840.10008.1.1")  # C-ECHO
    handlers = [(evt.EVT_C_STORE, pacs.store), (evt.EVT_CONN_OPEN, _no_delay)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    pacs.port = server.socket.getsockname()[1]
    try:
        yield pacs
    finally:
        entity.shutdown()


def _no_delay(event: Any) -> None:
    """Answers are small: do not wait to fill a packet (RFC 896)."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
