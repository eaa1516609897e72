"""sd_notify(3): one datagram to the service manager that started us, where one asked for it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_EXTEND_EVERY, _EXTEND_BY = 10.0, 60
"""Seconds: while the node starts, it asks so often for so much more time."""


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Tell systemd lines such as `READY=1`; nothing where it did not ask. Never raises, never waits."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address  # @: the abstract namespace, unix(7)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(state.encode(), target)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Return the seconds between two signs of life for systemd: half its patience; None without one."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() and int(text) else None


@dataclass(frozen=True)
class State:
    """What the service manager may know of the node at one moment."""

    ready: bool
    """Receivers accept and the conductor's loop turns."""
    well: bool
    """Nothing is stuck that only a restart of the whole node could free."""
    words: str


class Manager:
    """What the service manager was told so far, and what it must hear next."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.period = watchdog_period(environ)
        self._ready = False
        self._words = ""
        self._extend_at = float("-inf")

    def tell(self, state: State, now: float) -> None:
        """Say READY once, STATUS when it changes, WATCHDOG while all is well; *now* is monotonic.

        A start that takes long, or a conductor that cannot start at all, must not end the receivers: as long as
        the node is not ready it asks for more time, and the status says why.
        """
        lines = []
        if state.ready and not self._ready:
            self._ready = True
            lines.append("READY=1")
        if not self._ready and now >= self._extend_at:
            self._extend_at = now + _EXTEND_EVERY
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTEND_BY * 1_000_000}")
        if state.words != self._words:
            self._words = state.words
            lines.append(f"STATUS={state.words}")
        if self._ready and state.well and self.period is not None:
            lines.append("WATCHDOG=1")
        if lines:
            notify("\n".join(lines), self.environ)

    def stopping(self) -> None:
        """Say that the end has begun."""
        notify("STOPPING=1\nSTATUS=stopping", self.environ)
