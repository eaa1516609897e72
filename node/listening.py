"""Whom the conductor's loop listens to: pipes under a name, and its children as they come and go."""

from __future__ import annotations

import os
import selectors
from collections.abc import Mapping

from node.child import LineChild


class Listening:
    """Waits until one of them has something to say; a child's pipe is followed from process to process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[
            str, tuple[int, int | None]
        ] = {}  # child → generation and descriptor we listen to
        self._hushed: dict[str, int] = {}

    def to(self, name: str, fd: int) -> None:
        """Listen to one more pipe."""
        self._selector.register(fd, selectors.EVENT_READ, name)

    def hush(self, name: str) -> None:
        """Do not listen to a pipe for now; what is said there waits."""
        for fd in self._forget(name):
            self._hushed[name] = fd

    def heed(self, name: str) -> None:
        """Listen again to a pipe that was hushed."""
        if name in self._hushed:
            self.to(name, self._hushed.pop(name))

    def to_signals(self) -> int:
        """Listen to a pipe of our own; its end that signals write to."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(read, False)
        self.to("signal", read)
        return write

    def follow(self, children: Mapping[str, LineChild]) -> None:
        """Listen to the children that run now; a new one may have another's number."""
        runs = {name: (child.generation, child.fileno) for name, child in children.items()}
        changed = [name for name, run in runs.items() if self._watched.get(name) != run]
        for name in changed:
            self._forget(name)
        for name in changed:
            self._watched[name] = runs[name]
            fd = runs[name][1]
            if fd is not None:
                self.to(name, fd)

    def wait(self, seconds: float) -> list[tuple[str, int]]:
        """Who has something to say: name and descriptor of each, at the latest after *seconds*."""
        return [(key.data, key.fd) for key, _ in self._selector.select(seconds)]

    def drop_dead(self, children: Mapping[str, LineChild]) -> None:
        """Stop listening to children that ended."""
        for name, child in children.items():
            if child.fileno is None:  # it died and closed its pipe: the number may soon be another's
                self._forget(name)

    def _forget(self, name: str) -> list[int]:
        """Stop listening to a pipe, where we do; its descriptor."""
        keys = [key for key in self._selector.get_map().values() if key.data == name]
        for key in keys:
            self._selector.unregister(key.fd)
        return [key.fd for key in keys]


def drain(fd: int) -> bytes | None:
    """What can be read at once: b"" at the end, None where nothing is there."""
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return None
