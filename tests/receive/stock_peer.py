"""pynetdicom as it comes, in a process of its own: `python stock_peer.py scp SECONDS` or `scu PORT FILE SECONDS`.

`scp SECONDS CERTIFICATE KEY` receives by TLS.

An AE with its defaults, but for timeouts of SECONDS so that nobody waits a minute, a limit of two associations,
and log handlers off. `scp` prints its port; its C-STORE handler takes a fifth of a second and answers success.
"""

from __future__ import annotations

import ssl
import sys
import time
from typing import Any

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

EXPLICIT = "1.2.840.10008.1.2.1"


def entity(seconds: float) -> AE:
    """Return an AE with short timeouts."""
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title="PACSNODE")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = seconds
    ae.maximum_associations = 2
    return ae


def scp(seconds: float, *pair: str) -> None:
    """Receive until killed; with a certificate and its key, by TLS."""
    ae = entity(seconds)
    for abstract in (CTImageStorage, MRImageStorage, Verification):
        ae.add_supported_context(abstract, EXPLICIT)

    def keep(event: evt.Event) -> int:
        time.sleep(0.2)
        return 0x0000

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if pair else None
    if context is not None:
        context.load_cert_chain(*pair)
    server: Any = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)], ssl_context=context
    )
    print(server.socket.getsockname()[1], flush=True)
    time.sleep(600)


def scu(port: int, file: str, seconds: float) -> None:
    """Send one file, and say what came of it."""
    association = entity(seconds).associate(
        "127.0.0.1", port, contexts=[build_context(CTImageStorage, EXPLICIT)], ae_title="PACSNODE"
    )
    print("associated" if association.is_established else "failed", flush=True)
    association.send_c_store(file)
    print("returned", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "scp":
        scp(float(sys.argv[2]), *sys.argv[3:])
    else:
        scu(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
