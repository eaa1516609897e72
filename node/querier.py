"""The querier: one child of the conductor that asks peers (`python -m node.querier`): C-FIND, and what it leads to.

A process of its own, so that a peer that hangs, floods or sends nonsense costs no delivery and no reception.
Questions come as lines on stdin, answers leave as lines on stdout (`node.send.queries`). It knows no database and
decides nothing. It ends with its stdin or its parent; what it was asked is asked again.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from node import faults
from node.errors import Broken
from node.send import find
from node.send.link import Lost
from node.send.negotiation import configure
from node.send.queries import Answer, Counted, Limits, Question, question_from_json, to_json

AT_A_TIME = 16
"""Questions; the conductor asks each peer one at a time."""
_LIMITS = Limits()
_MOST_MEMORY = 2 << 30
_PR_SET_PDEATHSIG = 1


def answer(question: Question, limits: Limits = _LIMITS) -> Answer:
    """Ask a peer; whatever it does, an answer comes of it."""
    where = question.destination.where
    try:
        faults.reach("before-query")
        return Counted(
            question.id, find.count(question.destination, question.study_uid, question.series_uid, limits)
        )
    except Lost as error:
        return Counted(question.id, None, f"{where} {error}")
    except Exception as error:  # noqa: BLE001 - a peer's bytes were here, and another question waits
        return Counted(question.id, None, f"{where} could not be asked ({type(error).__name__})")


def main() -> None:
    """Answer every line on stdin until it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    warnings.simplefilter("ignore")  # pydicom warns with a peer's values
    configure()
    say = _writer()
    pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="query")
    try:
        for line in sys.stdin.buffer:
            question = question_from_json(line)
            pool.submit(lambda one: say(answer(one)), question)
    except Broken as error:
        print(error, file=sys.stderr, flush=True)
    os._exit(1)  # no waiting for threads that hang in a peer


def _writer() -> Callable[[Answer], None]:
    lock = threading.Lock()

    def say(one: Answer) -> None:
        try:
            with lock:
                sys.stdout.write(to_json(one) + "\n")
                sys.stdout.flush()
        except OSError:
            os._exit(1)  # the conductor is gone

    return say


if __name__ == "__main__":
    main()
