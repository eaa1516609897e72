"""Peers that are asked by C-FIND, over pynetdicom: each answers as its handler says."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from pynetdicom import AE, evt

from node.send.protocol import Destination, Timeouts

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model, FIND."""
Handler = Callable[[evt.Event], Iterator[tuple[int, Any]]]


def destination(port: int, **changes: Any) -> Destination:
    """CT01 on loopback."""
    given = {"ae_title": "CT01", "calling_ae": "PACSNODE", "timeouts": Timeouts(2, 2, 2, 1.5), **changes}
    return Destination("CT01", "127.0.0.1", port, **given)


@contextlib.contextmanager
def finder(
    handler: Handler, *classes: str, secured: ssl.SSLContext | None = None, **changes: Any
) -> Iterator[Destination]:
    """A peer that answers C-FIND as *handler* says; by TLS where it is *secured*."""
    ae = AE("CT01")
    for sop_class in classes or (FIND,):
        ae.add_supported_context(sop_class)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, handler)], ssl_context=secured
    )
    try:
        yield destination(server.server_address[1], **changes)
    finally:
        server.shutdown()
