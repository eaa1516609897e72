"""Named points at which a test may kill the process: `PACSNODE_FAULT=after-rename` (SIGKILL, no clean-up).

`after-rename:3` dies at the third passage of this process; several points stand between commas. With
`PACSNODE_FAULT_ONCE=PATH` only the process that can create PATH dies, so that a restarted one lives on; where
several points are named, each has a file of its own, `PATH.<point>`. Without the variable a point costs one
look-up.
"""

from __future__ import annotations

import os
import signal

POINTS = {
    # receiver: store.files keeps a received object
    "before-sync": "all bytes are written, none is durable; the sender has no answer",
    "after-sync": "the bytes are durable, but in a `.part` that nobody will look at",
    "after-rename": "the object has its name, which a power cut may still take away",
    "after-keep": "the object is durable, and its sender does not know it yet",
    # reader
    "before-header": "the reader was asked for an object's header and has not answered",
    # conductor: from the index to the delivery
    "after-recover": "claims were given back and catch-up was listed; nothing was taken in yet",
    "before-index-commit": "a group of objects was indexed and queued in a transaction that is still open",
    "after-index-commit": "the same, committed; duplicates' files are still there, copies not yet compared",
    "after-seal": "a revision is sealed, no rule was asked",
    "after-route": "runs and deliveries of a revision are queued",
    "before-study-commit": "a study was judged because a wait ended, in a transaction that is still open",
    "after-study": "the same, committed: runs over a study are open",
    "after-run-claim": "a run is `running`, and no worker knows it",
    # worker and the thread that watches it
    "before-job": "the worker has its folder and has not read the job",
    "before-products": "derived objects are on disk, and nothing says so",
    "after-products": "`products.json` names them, and the worker has not ended",
    "after-worker-end": "the worker ended, and the conductor's thread has not read how",
    # conductor: the run's end and the deliveries
    "before-run-finish": "products and deliveries were inserted in a transaction that is still open",
    "after-run-finish": "the same, committed; nothing was sent",
    "after-delivery-claim": "deliveries are `sending`, and the sender does not know them",
    # sender
    "before-send": "the sender has a batch and has not called the destination",
    "after-send": "the destination has answered for an object, and the conductor does not know it",
    # conductor
    "before-outcomes": "the conductor has read the outcomes and not recorded them",
    "after-outcomes": "outcomes are recorded, the batch is not over",
    "before-batch-end": "all outcomes of a batch are recorded, the destination's state is not",
    "after-commit-claim": "a request for commitment is `asking`, and the sender does not know it",
    "before-commit-answer": "a destination has answered it, and the conductor has not recorded that",
    # transcoder, and the conductor that takes its copies
    "before-transcode": "the transcoder was asked for a copy and has not begun",
    "before-transcoded": "the copy is encoded, and nothing of it is on disk",
    "after-copied": "a copy was recorded, nothing was sent of it",
    # querier
    "before-query": "the querier was asked something and has not called the peer",
    "after-fetch": "a series was fetched, and the conductor does not know it",
    "after-fetch-claim": "a fetch is recorded, and the querier does not know it",
    "after-fetch-finish": "a fetched series is sealed, and no rule was asked",
    # upkeep, and the start of a new version
    "after-removal": "retention has recorded what it removes, and the files are still there",
    "before-upgrade-commit": "an older database was upgraded in a transaction that is still open",
}
"""Every point there is, in the order of the data's way → what is and is not done there."""

_FAULT = "PACSNODE_FAULT"
_ONCE = "PACSNODE_FAULT_ONCE"


def reach(point: str) -> None:
    """Die here, by SIGKILL, where the environment asks for it."""
    wanted = os.environ.get(_FAULT)
    if wanted is None or point not in wanted:
        return
    named = dict(entry.partition(":")[::2] for entry in wanted.split(","))
    if point not in named:
        return
    passages_left = int(named[point] or 1)
    if passages_left > 1:
        named[point] = str(passages_left - 1)
        os.environ[_FAULT] = ",".join(f"{name}:{count}" if count else name for name, count in named.items())
    elif _first(point, alone=len(named) == 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _first(point: str, *, alone: bool) -> bool:
    once = os.environ.get(_ONCE)
    if not once:
        return True
    try:
        path = once if alone else f"{once}.{point}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
