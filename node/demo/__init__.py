"""`pacsnode demo`: scanners, a node and a PACS on loopback do the main job, and show what came of it."""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pynetdicom

from node.demo import findings, pacs, pictures, site, studies, tell, watch
from node.demo.scanner import Scanning
from node.demo.site import Work
from node.demo.watch import Snapshot
from node.errors import Broken, Misconfigured
from node.interrupts import stoppable
from node.store.database import Database, open_database

TIME_LIMIT = 100.0
"""Seconds for everything between the first object sent and the last one at the PACS."""
_EVERY = 0.25


@dataclass(frozen=True)
class _Played:
    """What the run of the demo left: the last look at the node, and what the PACS got."""

    snapshot: Snapshot
    pacs: pacs.Pacs
    problems: tuple[str, ...]


def run_demo(keep: Path | None, as_json: bool) -> int:
    """Do the main job and show it; 0 when everything came as it has to, 1 with what is missing.

    Everything lies in *keep*, else in a fresh folder that is named at the end. Raises Misconfigured where *keep*
    cannot be used, Broken where the node does not run.
    """
    began = time.monotonic()
    work = _work_folder(keep)
    _quiet()
    screen = tell.screen(as_json)
    with stoppable():
        series, played = _play(work, screen)
    rows, wrong = findings.returned(series, played.pacs.held)
    drawn = pictures.draw(rows, work.pictures)
    problems = [*played.problems, *wrong, *drawn.problems]
    ended = tell.Ended(
        work=work, series=rows, numbers=findings.numbers(rows), pictures=drawn.files,
        refused=played.snapshot.refused(), problems=tuple(problems), seconds=time.monotonic() - began,
    )  # fmt: skip
    tell.result(ended, as_json)
    return 1 if problems else 0


def _work_folder(keep: Path | None) -> Work:
    """An empty folder, absolute."""
    if keep is None:
        return Work(Path(tempfile.mkdtemp(prefix="pacsnode-demo-")))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Misconfigured(f"--keep {keep}: the folder is not empty; name a new one")
    except OSError as error:
        raise Misconfigured(
            f"--keep {keep}: cannot be used ({error.strerror}); name another folder"
        ) from None
    return Work(keep.resolve())


def _quiet() -> None:
    """Nothing of what the libraries say about the packaged images helps here; and their logging costs time."""
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    warnings.filterwarnings("ignore", module="pydicom|pynetdicom|highdicom")


def _play(work: Work, screen: tell.Screen) -> tuple[tuple[studies.Sent, ...], _Played]:
    """Start a PACS and a node, send, watch until all is quiet, and end everything again."""
    with ExitStack() as stack:
        stack.enter_context(screen)
        archive = stack.enter_context(pacs.running(work.pacs))
        node = stack.enter_context(site.running(work, site.write(work, archive.port)))
        screen.say(f"everything lies in {work.folder}; preparing the images while the node starts")
        series = studies.gather(work.sent)
        site.wait_until_up(node)
        screen.say(f"the node listens on port {node.port}, the PACS on port {archive.port}")
        scanning = Scanning(series, site.AE_TITLE, node.port)
        stack.callback(scanning.stop)
        scanning.start()

        def look(database: Database) -> Snapshot:
            node.check()
            if scanning.error:
                raise Broken(f"{scanning.error}; the node's log: {work.log}")
            return watch.look(database, series, scanning.sent, archive.held.keys())

        database = _database(work, node)
        stack.callback(database.close)
        last, in_time = _watch(database, look, screen)
    problems = list(last.missing())
    if not in_time:
        problems.insert(0, f"not finished within {TIME_LIMIT:g} s; the node's log: {work.log}")
    problems += [f"the PACS got {uid} more than once" for uid in archive.twice]
    return series, _Played(last, archive, tuple(problems))


def _database(work: Work, node: site.Node) -> Database:
    """The node's database, which it makes before it listens."""
    end = time.monotonic() + site.START_WITHIN
    while True:
        try:
            return open_database("sqlite", work.data, create=False)
        except Misconfigured:
            node.check()
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def _watch(
    database: Database, look: Callable[[Database], Snapshot], screen: tell.Screen
) -> tuple[Snapshot, bool]:
    """Show how far everything is until the node is idle; whether that was in time."""
    end = time.monotonic() + TIME_LIMIT
    while True:
        snapshot = look(database)
        screen.show(snapshot)
        if snapshot.finished:
            return snapshot, True
        if time.monotonic() > end:
            return snapshot, False
        with contextlib.suppress(InterruptedError):
            time.sleep(_EVERY)
