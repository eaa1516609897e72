"""Loaded by every process of a node whose wall clock a test sets, from PYTHONPATH.

libfaketime 0.9.10 takes the absolute monotonic time that Python's `time.sleep` gives to `clock_nanosleep` for a wall
clock's, whatever FAKETIME_DONT_FAKE_MONOTONIC says, and the call fails: here it sleeps by `select`, in all else
as before.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = _sleep
