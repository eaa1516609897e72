"""The web process: what its pages say of a real database, and that hostile clients cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from peers import free_port, wait_for
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError

from node import holding, web
from node.ops.health import Board, Role, beat, beat_path, board_path, write_board
from node.receive.census import Census, LastWords
from node.receive.reasons import Reason
from node.settings import parse
from node.store.database import open_database
from node.store.schema import delivery, destination, meta

SITE = """
node: {{ae_titles: [NODE], listen: "127.0.0.1:1", timezone: UTC, data: data, rules: rules}}
peers:
  CT01: {{sends_as: [CT01]}}
  PACS: {{ae_title: P, address: "127.0.0.1:4242"}}
disk: {{warn: 98 %, stop_processing: 99 %, refuse: 100 %}}
web: {{listen: "127.0.0.1:{port}"}}
"""
PEERS = ("CT01", "PACS")


@dataclass
class Served:
    """A web process beside a data folder that the test fills."""

    process: subprocess.Popen[bytes]
    data: Path
    port: int
    log: Path

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def alive(self) -> None:
        """Leave fresh signs of life of supervisor and conductor."""
        roles = (Role("conductor", 1), Role("receiver_0", 2))
        write_board(board_path(self.data), Board(time.time(), 3, 1, roles))
        beat(beat_path(self.data), time.time())


@contextlib.contextmanager
def serving(folder: Path, census: int, **environ: str) -> Iterator[Served]:
    """Run `python -m node.web` as the supervisor does."""
    port, data = free_port(), folder / "data"
    data.mkdir(exist_ok=True)
    text, log = SITE.format(port=port), folder / "log"
    (folder / "site").write_text(text)
    with (folder / "site").open("rb") as site, log.open("wb") as out:
        command = ["-m", "node.web", "--census-fd", str(census), "--file", str(folder / "node.yaml")]
        process = subprocess.Popen(
            [sys.executable, *command, "--parent", str(os.getpid())],
            stdin=site, stdout=out, stderr=out, pass_fds=[census], env={**os.environ, **environ},
        )  # fmt: skip
    try:
        wait_for(lambda: "web_ready" in log.read_text() or process.poll() is not None, "the page")
        wait_for(lambda: answers(port), "the port")
        yield Served(process, data, port, log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(port: int) -> bool:
    """Whether something listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def census() -> Iterator[int]:
    """A counter page of one receiver with something on it."""
    fd = Census.create(1, PEERS)
    page = Census(fd, 0, PEERS)
    page.accepting()
    page.enter(64)
    page.count(Reason.LIMIT, LastWords(0.0, "127.0.0.1"))
    page.stored("CT01", 1000, True)
    page.stored("CT01", 10, False)
    page.stored("whoever", 5, True)
    yield fd
    os.close(fd)


def test_the_pages_tell_how_the_node_is(tmp_path: Path, census: int) -> None:
    """Dead, starting, well, degraded: each page answers for itself, from files, page and a real database."""
    with serving(tmp_path, census) as served:
        status, body = served.get("/healthz")
        assert (status, json.loads(body)["alive"]) == (503, False)
        served.alive()
        assert served.get("/healthz") == (200, '{"alive":true,"reasons":[],"degraded":[]}')
        status, body = served.get("/readyz")
        assert status == 503
        reasons = " ".join(json.loads(body)["reasons"])
        assert "no conductor holds the data folder" in reasons
        assert "the database does not answer: Misconfigured" in reasons
        tables, lock = open_database("sqlite", served.data), holding.hold(served.data)

        def is_ready() -> bool:
            served.alive()
            return served.get("/readyz")[0] == 200

        wait_for(is_ready, "readiness")
        assert json.loads(served.get("/readyz")[1]) == {"ready": True, "reasons": [], "degraded": []}
        now = datetime.now(UTC)
        with tables.write() as tx:
            tx.execute(insert(meta).values(key="rules_problem", value="rules/a.yaml:7: unknown key wen"))
            tx.execute(insert(destination).values(name="PACS", down=True, reason="x", since=now, failures=1))
            values = {"destination": "PACS", "rule": "r", "due_at": now, "created_at": now}
            tx.execute(insert(delivery).values(state="waiting", **values))

        def degraded() -> list[str]:
            served.alive()
            status, body = served.get("/readyz")
            assert status == 200
            return list(json.loads(body)["degraded"])

        wait_for(lambda: len(degraded()) == 2, "what is degraded")
        assert degraded()[0].startswith("rules_refused: 1 mistake at rules/a.yaml:7")
        assert degraded()[1] == "destination_down: PACS"
        wait_for(lambda: "pacsnode_deliveries{" in served.get("/metrics")[1], "the counts of whole tables")
        lines = served.get("/metrics")[1].splitlines()
        for line in (
            'pacsnode_received_objects_total{peer="CT01"} 1.0',
            'pacsnode_received_bytes_total{peer="CT01"} 1000.0',
            'pacsnode_refused_objects_total{peer="CT01"} 1.0',
            'pacsnode_received_objects_total{peer="other"} 1.0',
            "pacsnode_associations_open 1.0",
            'pacsnode_associations_rejected_total{reason="limit"} 1.0',
            'pacsnode_object_refusals_total{reason="watermark"} 0.0',
            "pacsnode_rules_refused 1.0",
            'pacsnode_destination_up{destination="PACS"} 0.0',
            'pacsnode_deliveries_queued{destination="PACS",state="waiting"} 1.0',
            'pacsnode_deliveries{destination="PACS",state="waiting",status="none"} 1.0',
        ):
            assert line in lines
        tables.close()
        os.close(lock)


def test_only_three_pages_and_only_reading(tmp_path: Path, census: int) -> None:
    """Another page is 404, another method 405, HEAD is GET without a body; errors name no inner thing."""
    with serving(tmp_path, census) as served:
        served.alive()
        for path in ("/", "/docs", "/metrics/../../etc/passwd", "/%2e%2e/"):
            assert served.get(path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert served.get("/healthz", method)[0] == 405
        assert served.get("/healthz", "HEAD") == (200, "")
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert answer.getheader("Connection") == "close"
        assert answer.getheader("Server") is None
        connection.close()


def test_the_database_cannot_be_written(tmp_path: Path) -> None:
    """The connection that the pages read with refuses to write."""
    site = parse(SITE.format(port=1), str(tmp_path / "node.yaml"), {})
    site.node.data.mkdir()
    open_database("sqlite", site.node.data).close()
    tables = web.Tables(site)
    tables.quick()
    with pytest.raises(OperationalError, match="readonly"), tables._open().engine.begin() as tx:
        tx.execute(insert(meta).values(key="x", value="y"))


def test_postgresql_cannot_be_written_either(tmp_path: Path, postgres: str) -> None:
    """The same holds for a session of a real PostgreSQL, and reading works."""
    text = SITE.format(port=1) + f"state: {postgres}\n"
    site = parse(text, str(tmp_path / "node.yaml"), {})
    site.node.data.mkdir()
    open_database(postgres, site.node.data).close()
    tables = web.Tables(site)
    assert tables.quick().down == ()
    assert tables.totals().series == {}
    database = tables._open()
    with database.read() as tx:
        assert tx.scalar(select(meta.c.value).where(meta.c.key == "version"))
    with pytest.raises(Exception, match="read-only"), database.engine.begin() as tx:
        tx.execute(insert(meta).values(key="x", value="y"))
    database.close()


def sent(port: int, data: bytes) -> bytes:
    """What comes back for raw bytes, until the other side closes or a moment has passed."""
    with socket.create_connection(("127.0.0.1", port), 30) as raw:
        raw.settimeout(3)
        got = b""
        with contextlib.suppress(OSError):
            raw.sendall(data)
            while part := raw.recv(4096):
                got += part
        return got


def test_hostile_clients_are_answered_or_cut_off(tmp_path: Path, census: int) -> None:
    """Endless headers, rubbish, a huge body and a crowd of silent connections leave the page working."""
    with serving(tmp_path, census) as served:
        served.alive()
        for rubbish in (b"\0" * 5000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 50):
            assert b"200" not in sent(served.port, rubbish)[:15]
        assert b" 400 " in sent(served.port, b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000)[:20]
        huge = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1_000_000
        assert sent(served.port, huge)[9:12] in (b"200", b"")
        crowd = [socket.create_connection(("127.0.0.1", served.port), 5) for _ in range(web.CONNECTIONS + 8)]
        time.sleep(0.3)
        assert b" 503 " in sent(served.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[:20]
        for one in crowd:
            one.close()
        served.alive()
        wait_for(lambda: served.get("/healthz")[0] == 200, "the page after the crowd")
        assert served.process.poll() is None


def test_a_silent_connection_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects and says nothing is cut off by itself."""
    monkeypatch.setattr(web, "LIFE", 0.2)

    async def silent() -> bytes:
        import uvicorn

        config = uvicorn.Config(lambda *_: None, http=web.Connection, lifespan="off", log_config=None)
        config.load()
        state = uvicorn.server.ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: web.Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()
            server.close()

    with contextlib.suppress(ConnectionResetError):
        assert asyncio.run(silent()) == b""


def test_a_value_that_does_not_come_is_not_waited_for() -> None:
    """A hanging question is asked once, whoever asks gets the value before it, and the error says how long."""
    clock = [0.0]
    answers_: list[int] = []
    gate = __import__("threading").Event()

    def ask() -> int:
        answers_.append(len(answers_))
        if len(answers_) == 2:
            gate.wait(10)
        return len(answers_)

    async def scene() -> None:
        asked = web.Asked(ask, (2.0, 0.5), lambda: clock[0])
        assert await asked.get(5) == 1
        assert await asked.get(5) == 1  # two seconds have not passed
        clock[0] = 2.0
        assert await asked.get(0.05) == 1
        clock[0] = 9.0
        assert await asked.get(0.05) == 1
        assert asked.error == "no answer for 7 s"
        gate.set()
        assert await asked.get(5) == 2
        assert (asked.error, asked.at) == ("", 2.0)
        clock[0] = 15.9  # it took seven seconds, so that half the time is left to others
        assert await asked.get(5) == 2
        clock[0] = 23.1
        assert await asked.get(5) == 3

    asyncio.run(scene())


def test_an_address_in_use_is_said_and_sigterm_ends_it(tmp_path: Path, census: int) -> None:
    """A second web process on the same port ends with 1 and the key to change; SIGTERM ends the first with 0."""
    with serving(tmp_path, census) as served:
        (tmp_path / "again").write_text(SITE.format(port=served.port))
        with (tmp_path / "again").open("rb") as site:
            second = subprocess.run(
                [sys.executable, "-m", "node.web", "--file", str(tmp_path / "node.yaml")],
                stdin=site, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert second.returncode == 1
        assert "or change web.listen" in second.stderr
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        assert "web_stopped" in served.log.read_text()


def test_a_web_process_that_dies_touches_nothing(tmp_path: Path) -> None:
    """In a whole node: /healthz and /readyz say yes; SIGKILL of web leaves reception alone, and it comes back."""
    from crash.crash_house import ROUTE_ALL, Pacs, Scanner, ball, house

    port = free_port()
    extra = f'web: {{listen: "127.0.0.1:{port}"}}'
    with house(tmp_path / "site", {"all.yaml": ROUTE_ALL}, extra=extra) as site, Pacs(site.pacs_port).open():
        site.start()

        def status(path: str) -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return 0

        site.wait_for(lambda: status("/healthz") == 200 and status("/readyz") == 200, "health")
        board = json.loads(board_path(site.data).read_text())
        before = {role["name"]: role["pid"] for role in board["roles"]}
        assert {"conductor", "upkeep", "web", "receiver_0"} == before.keys()
        os.kill(before["web"], signal.SIGKILL)
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        assert len(scanner.acknowledged) == 8
        site.wait_for(lambda: status("/healthz") == 200, "the next web process")
        site.wait_idle()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        assert 'pacsnode_received_objects_total{peer="CT01"} 8.0' in page

        def changed() -> list[str]:
            board = json.loads(board_path(site.data).read_text())
            after = {role["name"]: role["pid"] for role in board["roles"]}
            return [name for name in before if after[name] != before[name]]

        site.wait_for(lambda: bool(changed()), "the next board")
        assert changed() == ["web"]
        site.stop()
