"""The sender: one child of the conductor that talks to all destinations (`python -m node.sender`).

Commands come as lines on stdin, outcomes leave as lines on stdout (`node.send.protocol`). It knows no
database and decides nothing. SIGTERM: finish the object in hand, report, release, exit. End of stdin,
or of the parent: exit at once, for nobody would record what came of an object.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from node.errors import Broken
from node.send.lanes import Lanes, Outbox
from node.send.negotiation import configure
from node.send.protocol import Outcome, command_from_json, to_json

_GRACE = 10.0
"""Seconds an object in hand may take after SIGTERM."""
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Serve commands until SIGTERM or the end of stdin; exit code 0 after SIGTERM, else 1."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        os._exit(1)  # the conductor died before the kernel knew what we want then
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor decides
    warnings.simplefilter("ignore")  # pydicom warns with a peer's values
    configure()
    lanes = Lanes(Outbox(_writer(sys.stdout.buffer)))
    threading.Thread(target=_read, args=(sys.stdin.buffer, lanes), name="commands", daemon=True).start()
    stopping.wait()
    finished = lanes.stop(_GRACE)
    os._exit(0 if finished else 1)  # no waiting for threads that hang in a peer


def _read(stdin: BinaryIO, lanes: Lanes) -> None:
    try:
        for line in stdin:
            lanes.take(command_from_json(line))
    except Broken as error:
        print(error, file=sys.stderr, flush=True)
    os._exit(1)


def _writer(stdout: BinaryIO) -> Callable[[Outcome], None]:
    def write(outcome: Outcome) -> None:
        try:
            stdout.write(to_json(outcome).encode() + b"\n")
            stdout.flush()
        except OSError:
            os._exit(1)  # the conductor is gone

    return write


if __name__ == "__main__":
    main()
