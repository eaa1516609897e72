"""The querier: one child of the conductor that asks peers (`python -m node.querier`): C-FIND, C-MOVE, C-GET.

A process of its own, so that a peer that hangs, floods or sends nonsense costs no delivery and no reception.
Questions come as lines on stdin, answers leave as lines on stdout (`node.send.queries`). It knows no database and
decides nothing; what comes by C-GET it keeps as receivers keep it, in a receiver run of its own. It ends with its
stdin or its parent; what it was asked is asked again.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node import faults
from node.errors import Broken
from node.model import Arrival, Part
from node.read.elements import attributes_of
from node.receive.limits import Watermark
from node.send import find
from node.send.link import Lost
from node.send.negotiation import configure
from node.send.queries import (
    Answer,
    Count,
    Counted,
    Fetch,
    Fetched,
    Found,
    Limits,
    Question,
    Search,
    question_from_json,
    to_json,
)
from node.send.retrieve import Come, fetch
from node.store.files import Disk, ObjectFolder

AT_A_TIME = 16
"""Questions; the conductor asks each peer one at a time, and fetches from it one series at a time."""
_COUNTING = Limits()
_SEARCHING = Limits(responses=2_000)
_MOST_MEMORY = 2 << 30
_PR_SET_PDEATHSIG = 1
_SUCCESS, _OUT_OF_RESOURCES, _UNEXPECTED = 0x0000, 0xA700, 0xC211


class Folders:
    """The receiver run that takes what comes by C-GET, claimed when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: ObjectFolder | None = None

    def of(self, data: Path) -> ObjectFolder:
        """The one of this process. Raises OSError."""
        with self._lock:
            if self._folder is None or self._folder.failed:
                self._folder = ObjectFolder(data, Disk(), lambda: None)
            return self._folder


class _Keeping:
    """One object that comes by C-GET, on its way to the disk."""

    def __init__(self, folder: ObjectFolder, arrival: Arrival) -> None:
        self._folder = folder
        self._part: Part = folder.begin(arrival)

    def write(self, data: memoryview) -> None:
        """Append to it."""
        self._part.write(data)

    def keep(self) -> int:
        """Make it durable; the status of its C-STORE-RSP."""
        try:
            self._folder.keep(self._part)
        except OSError:
            return _OUT_OF_RESOURCES
        except Exception:  # noqa: BLE001 - one object must not end the others
            return _UNEXPECTED
        return _SUCCESS

    def give_up(self) -> None:
        """Remove what came so far."""
        self._part.discard()


def answer(question: Question, limits: Limits | None = None, folders: Folders | None = None) -> Answer:
    """Ask a peer; whatever it does, an answer comes of it."""
    where = question.destination.where
    try:
        faults.reach("before-query")
        return _answered(question, limits, folders or Folders())
    except Lost as error:
        return _without(question, f"{where} {error}")
    except Exception as error:  # noqa: BLE001 - a peer's bytes were here, and another question waits
        return _without(question, f"{where} could not be asked ({type(error).__name__})")


def _answered(question: Question, limits: Limits | None, folders: Folders) -> Answer:
    match question:
        case Count():
            asked = question.destination, question.study_uid, question.series_uid
            return Counted(question.id, find.count(*asked, limits or _COUNTING))
        case Search():
            offers = find.search(question, limits or _SEARCHING)
            return Found(question.id, tuple(_offer(*one) for one in offers))
        case Fetch():
            objects = fetch(question, limits or _COUNTING, lambda come: _begin(question, come, folders))
            faults.reach("after-fetch")
            return Fetched(question.id, objects)


def _without(question: Question, error: str) -> Answer:
    match question:
        case Count():
            return Counted(question.id, None, error)
        case Search():
            return Found(question.id, (), error)
        case Fetch():
            return Fetched(question.id, (), error)


def _offer(study: Any, series: Any) -> tuple[str, str, dict[str, Any]]:
    said = {**attributes_of(study), **attributes_of(series)}
    return find.text(study, "StudyInstanceUID"), find.text(series, "SeriesInstanceUID"), said


def _begin(asked: Fetch, come: Come, folders: Folders) -> _Keeping:
    """Open a file for one object that comes by C-GET. Raises OSError where the disk is too full."""
    if Watermark(Path(asked.data), asked.refuse, time.monotonic).is_full():
        raise OSError("the disk is too full")
    folder, to = folders.of(Path(asked.data)), asked.destination
    arrival = Arrival(
        sop_class=come.sop_class, sop_uid=come.sop_uid, transfer_syntax=come.transfer_syntax, calling=to.ae_title,
        called=to.calling_ae, peer=to.name, address=f"{to.host}:{to.port}", local_address="",
        association=f"{folder.run}-{asked.id}", received_at=datetime.now(UTC), origin=f"get {asked.message_id}",
    )  # fmt: skip
    return _Keeping(folder, arrival)


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
    say, folders = _writer(), Folders()
    pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="query")
    try:
        for line in sys.stdin.buffer:
            question = question_from_json(line)
            pool.submit(lambda one: say(answer(one, folders=folders)), question)
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
