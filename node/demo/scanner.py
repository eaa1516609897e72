"""The demo's scanners: pynetdicom storage SCUs, one association per series, bytes as they lie in the files."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

from node.demo.studies import Sent
from node.errors import Broken

_MAX_PDU = 131072


class Scanning(threading.Thread):
    """Sends every series in turn; *sent* counts by Series Instance UID, *error* says what stopped it."""

    def __init__(self, series: Sequence[Sent], called: str, port: int) -> None:
        super().__init__(name="scanners", daemon=True)
        self._series, self._called, self._port = series, called, port
        self._stop_asked = threading.Event()
        self.sent = {one.series_uid: 0 for one in series}
        self.error = ""

    def run(self) -> None:
        """Be the scanners until everything is sent, or one thing could not be."""
        try:
            for one in self._series:
                self._send(one)
        except Broken as error:
            self.error = str(error)

    def stop(self) -> None:
        """End after the object in hand."""
        self._stop_asked.set()
        self.join(timeout=10)

    def _send(self, one: Sent) -> None:
        with _association(one, self._called, self._port) as association:
            for number, file in enumerate(one.files, 1):
                if self._stop_asked.is_set():
                    return
                status = association.send_c_store(file, msg_id=number)
                code = status.Status if "Status" in status else None
                if code != 0:
                    answer = "no answer" if code is None else f"status {code:04X}"
                    raise Broken(f"{one.title}: the node gave {answer} for object {number} ({file})")
                self.sent[one.series_uid] = number


@contextmanager
def _association(one: Sent, called: str, port: int) -> Iterator[Association]:
    """Propose exactly what the files hold: one context per SOP class and transfer syntax (PS3.8 9.3.2)."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # pynetdicom then sends a file's own bytes, not a re-encoding
    pairs = dict.fromkeys(_pair(file) for file in one.files)
    contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]
    association = AE(ae_title=one.scanner).associate(
        "127.0.0.1", port, contexts=contexts, ae_title=called, max_pdu=_MAX_PDU
    )
    if not association.is_established:
        raise Broken(
            f"{one.title}: the node at port {port} does not accept an association from {one.scanner}"
        )
    _keep_answers(association)
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if association.rejected_contexts:
        association.abort()
        raise Broken(
            f"{one.title}: the node does not accept what the files hold ({len(pairs)} contexts proposed)"
        )
    try:
        yield association
    finally:
        association.release()


def _keep_answers(association: Association) -> None:
    """Give an answer that pynetdicom's reactor thread took back to `send_c_store`, which waits for it.

    The reactor says that it pauses a moment before it does (pynetdicom 3.0.4, `Association._run_reactor`), so on
    a busy machine it now and then takes a C-STORE-RSP and drops it, since it looks for requests.
    """

    def hand_back(message: Any, context_id: int) -> None:
        association.dimse.msg_queue.put((context_id, message))

    association._serve_request = hand_back


def _pair(file: Path) -> tuple[str, str]:
    meta = dcmread(file, specific_tags=["SOPClassUID"], stop_before_pixels=True).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
