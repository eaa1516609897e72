"""Health and metrics by HTTP: `python -m node.web`, a process of its own that reads and never writes.

`/healthz` answers whether the node lives and which of its processes does not, `/readyz` whether it can receive
and work, `/metrics` is for Prometheus. Whatever happens here touches nothing else: the supervisor starts the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import structlog
import uvicorn
from sqlalchemy import event
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from node import __version__, app, holding
from node.errors import NodeError
from node.flow.securing import ends_of
from node.ops import health
from node.ops import log as logging
from node.ops.metrics import Received, Sample, text
from node.receive.census import Census
from node.receive.reasons import by_label
from node.settings import Settings
from node.store import watch
from node.store.database import Database, open_database
from node.supervisor import bind, follow

LIFE = 15.0
"""Seconds that one connection may take from its first byte to its last."""
CONNECTIONS = 32
"""Open at a time; the others are answered 503."""
HEADERS = 8192
"""Bytes of request line and headers."""
ANSWER = 2.0
"""Seconds the database has to answer before an older answer, or none, is taken."""
_QUICK = (2.0, 0.05)
_TOTALS = (10.0, 0.02)
"""Seconds between two questions at least, and the share of the time that asking may take."""
_HEADERS = {"Connection": "close", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

log = structlog.get_logger()
T = TypeVar("T")


class Asked(Generic[T]):
    """A value that a thread of its own asks for: once at a time, seldom enough, and nobody waits for ever."""

    def __init__(self, ask: Callable[[], T], pace: tuple[float, float], clock: Callable[[], float]) -> None:
        """*pace*: seconds between two questions at least, and the share of time that asking may take."""
        self._ask, self._pace, self._clock = ask, pace, clock
        self._thread = ThreadPoolExecutor(1, "ask")
        self._pending: asyncio.Future[None] | None = None
        self._next = self._begun = float("-inf")
        self.value: T | None = None
        self.at = float("-inf")
        """When the value was true, by the clock."""
        self.error = "it has not answered yet"

    async def get(self, patience: float) -> T | None:
        """The value, asked again where it is time; after *patience* seconds the one before."""
        if self._pending is None and self._clock() >= self._next:
            self._pending = asyncio.get_running_loop().run_in_executor(self._thread, self._fetch)
        if self._pending is not None:
            done, _ = await asyncio.wait({self._pending}, timeout=patience)
            if done:
                self._pending = None
            else:
                self.error = f"no answer for {self._clock() - self._begun:.0f} s"
        return self.value

    def _fetch(self) -> None:
        self._begun = begun = self._clock()
        try:
            self.value, self.at, self.error = self._ask(), begun, ""
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said; its text may quote rows
            self.error = logging.describe(error)
        least, share = self._pace
        self._next = self._clock() + max(least, (self._clock() - begun) / share)


@dataclass(frozen=True)
class Quick:
    """What the indexes tell."""

    queues: watch.Queues
    down: tuple[str, ...]
    rules: str
    waiting: Mapping[str, int]


class Tables:
    """The node's database, opened for reading only, and opened again as long as it is not there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None

    def quick(self) -> Quick:
        """What waits, which destinations are down, what is wrong with the rules. Raises what a database raises."""
        with self._open().read() as tx:
            down = tuple(name for name, _, _ in watch.destinations_down(tx))
            return Quick(watch.queues(tx), down, watch.rules_problem(tx), watch.waiting_bytes(tx))

    def totals(self) -> watch.Totals:
        """Whole tables counted."""
        with self._open().read() as tx:
            return watch.totals(tx)

    def _open(self) -> Database:
        if self._database is None:
            database = open_database(self._settings.state, self._settings.node.data, create=False)
            event.listen(database.engine, "connect", _read_only)
            database.engine.dispose()  # what was opened to look at the version may still write
            self._database = database
        return self._database


def _read_only(connection: Any, _record: object) -> None:
    statement = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    if type(connection).__module__.startswith("sqlite3"):
        statement = "PRAGMA query_only=ON"
    connection.execute(statement)
    connection.commit()


class Pages:
    """What is served."""

    def __init__(self, settings: Settings, census_fd: int | None) -> None:
        self.settings = settings
        self.census_fd = census_fd
        tables = Tables(settings)
        self.quick = Asked(tables.quick, _QUICK, time.monotonic)
        self.totals = Asked(tables.totals, _TOTALS, time.monotonic)

    def application(self) -> Starlette:
        """GET and HEAD of three pages."""
        return Starlette(
            routes=[
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
            ]
        )

    async def healthz(self, _request: Request) -> Response:
        """200 while the node lives, else 503; a process that does not is named. The database is not asked."""
        found = health.alive(self._signs())
        said = {"alive": found.holds, "reasons": found.reasons, "degraded": found.degraded}
        return _json(found.holds, said)

    async def readyz(self, _request: Request) -> Response:
        """200 while the node can receive and work, else 503; what is `degraded` is named with either."""
        quick = await self.quick.get(ANSWER)
        found = health.ready(self._signs(quick, self.quick.error))
        said = {"ready": found.holds, "reasons": found.reasons, "degraded": found.degraded}
        return _json(found.holds, said)

    async def metrics(self, _request: Request) -> Response:
        """Prometheus' text format."""
        quick, totals = await asyncio.gather(self.quick.get(ANSWER), self.totals.get(ANSWER))
        page = text(self._sample(quick if not self.quick.error else None, totals))
        return Response(page, headers=_HEADERS, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _signs(self, quick: Quick | None = None, error: str = "") -> health.Signs:
        data, disk = self.settings.node.data, self.settings.disk
        return health.Signs(
            now=time.time(),
            board=health.read_board(health.board_path(data)),
            beaten=health.beaten_at(health.beat_path(data)),
            locked=holding.is_running(data),
            disk=_used(self.settings),
            shares=(disk.stop_processing, disk.refuse),
            database=error,
            rules=quick.rules if quick else "",
            down=quick.down if quick else (),
        )

    def _sample(self, quick: Quick | None, totals: watch.Totals | None) -> Sample:
        settings, data = self.settings, self.settings.node.data
        return Sample(
            now=datetime.now(UTC),
            version=__version__,
            peers=tuple(settings.peers),
            destinations=tuple(name for name, peer in settings.peers.items() if peer.receives),
            limit=settings.limits.associations,
            connections=settings.limits.connections,
            disk=_used(settings),
            shares=asdict(settings.disk),
            board=health.read_board(health.board_path(data)),
            beaten=health.beaten_at(health.beat_path(data)),
            received=self._received(),
            queues=quick.queues if quick else None,
            totals=totals,
            totals_age=time.monotonic() - self.totals.at if totals else 0.0,
            down=quick.down if quick else (),
            waiting=quick.waiting if quick else {},
            rules_refused=bool(quick and quick.rules),
            certificates=ends_of(settings),
        )

    def _received(self) -> Received | None:
        if self.census_fd is None:
            return None
        tally = Census.tally(self.census_fd, tuple(self.settings.peers))
        peers = {name: (one.objects, one.bytes, one.refused) for name, one in tally.peers.items()}
        reasons = by_label(tally.reasons)
        return Received(tally.open, tally.ready, tally.connections, tally.accepted, reasons, peers)


def _used(settings: Settings) -> float:
    usage = shutil.disk_usage(settings.node.data)
    return usage.used / (usage.used + usage.free)


def _json(holds: bool, said: Mapping[str, object]) -> Response:
    return JSONResponse(said, 200 if holds else 503, headers=_HEADERS)


class Connection(H11Protocol):
    """One HTTP connection with an end: whoever sends or reads too slowly is cut off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count its time."""
        super().connection_made(transport)
        self._ending = self.loop.call_later(LIFE, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._ending.cancel()
        super().connection_lost(exc)


def serve(settings: Settings, census_fd: int | None) -> None:
    """Answer until SIGTERM or SIGINT. Raises Broken where the address cannot be had."""
    assert settings.web is not None  # noqa: S101 - the supervisor starts this only where it is asked for
    host, port = settings.web.listen
    listening = bind(host, port, key="web.listen")
    config = uvicorn.Config(
        Pages(settings, census_fd).application(),
        http=Connection, ws="none", lifespan="off", loop="asyncio",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=CONNECTIONS, h11_max_incomplete_event_size=HEADERS, timeout_graceful_shutdown=2,
    )  # fmt: skip
    log.info("web_ready", port=port)
    uvicorn.Server(config).run([listening])
    log.info("web_stopped")


def main(arguments: list[str] | None = None) -> int:
    """Serve; exit code 1 where that cannot be, with the reason in the log."""
    parser = argparse.ArgumentParser(prog="python -m node.web")
    parser.add_argument("--census-fd", type=int)
    parser.add_argument("--file", default="node.yaml")
    parser.add_argument("--parent", type=int, default=os.getppid())
    given = parser.parse_args(arguments)
    logging.configure("web")
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(number, lambda *_: None)
    follow(given.parent)
    try:
        serve(app.settings_from_stdin(given.file), given.census_fd)
    except NodeError as error:
        log.error("web_cannot_start", reason=str(error))  # noqa: TRY400 - a sentence for people
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a database must not hold us back
