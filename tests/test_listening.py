"""Whom the conductor's loop listens to."""

from __future__ import annotations

import os

from node.listening import Listening, drain


def test_a_pipe_that_is_hushed_keeps_what_was_said_until_it_is_heeded() -> None:
    """While it is hushed nobody is woken by it; others are heard; afterwards nothing that was said is lost."""
    listening = Listening()
    wake, waker = os.pipe()
    other, speaker = os.pipe()
    listening.to("wake", wake)
    listening.to("other", other)
    listening.hush("wake")
    listening.hush("wake")
    os.write(waker, b"1")
    assert listening.wait(0.0) == []
    os.write(speaker, b"2")
    assert listening.wait(0.0) == [("other", other)]
    assert drain(other) == b"2"
    listening.heed("wake")
    listening.heed("wake")
    assert listening.wait(0.0) == [("wake", wake)]
    assert drain(wake) == b"1"
    for fd in (wake, waker, other, speaker):
        os.close(fd)


def test_a_pipe_that_is_not_there_may_be_hushed() -> None:
    """A conductor that nobody wakes has no such pipe."""
    listening = Listening()
    listening.hush("wake")
    listening.heed("wake")
    assert listening.wait(0.0) == []
