"""Claims about the upkeep process: it removes what is past its time, at night or when the disk fills, and lives on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import peers
import pytest
from flow_material import ROUTE, SITE, SMOOTH, House, done, product
from ops.upkeep_material import complete, ct, objects, receive
from ops.upkeep_material import process as processed
from sqlalchemy import update

from node.ops import alerts, health
from node.ops import log as logging
from node.settings import Disk
from node.store import schema, watch
from node.upkeep import DISK_LOOK, START, Upkeep, nightly


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node with one delivered series that is past its time."""
    found = House(tmp_path, ROUTE + SMOOTH)
    complete(found)
    found.clock.tick(days=4)
    yield found
    found.database.close()


@pytest.fixture
def logged() -> io.StringIO:
    """What is logged."""
    stream = io.StringIO()
    logging.configure("upkeep", stream)
    return stream


def upkeep(house: House, **disk: float) -> Upkeep:
    """Upkeep over the house's tables and clocks; *disk* overrides its limits."""
    settings = replace(house.parts.settings, disk=Disk(**disk)) if disk else house.parts.settings
    return Upkeep(settings, house.database, now=lambda: house.clock.at, monotonic=lambda: house.clock.seconds)


def lines(logged: io.StringIO) -> list[dict[str, Any]]:
    """The log as values."""
    return [json.loads(line) for line in logged.getvalue().splitlines()]


def test_a_pass_removes_and_says_how_much(house: House, logged: io.StringIO) -> None:
    """What is past its time goes, and one line of the log has the counts."""
    upkeep(house).retain()
    assert objects(house) == []
    (line,) = lines(logged)
    assert (line["event"], line["series"], line["objects"], line["products"]) == ("retention_done", 1, 4, 1)


def test_the_disk_is_looked_at_now_and_then(house: House) -> None:
    """A disk that fills asks for retention at the first look, and again only after five minutes."""
    full = upkeep(house, warn=0.0, stop_processing=0.0, refuse=1.0)
    assert full.look()
    house.clock.tick(seconds=DISK_LOOK - 1)
    assert not full.look()
    house.clock.tick(seconds=2)
    assert full.look()
    assert not upkeep(house, warn=0.98, stop_processing=1.01, refuse=1.02).look()


def test_what_waits_for_each_destination_is_counted(house: House) -> None:
    """Bytes of received objects and of results that wait, are parked or held; of what is stored nothing."""
    receive(house, ct(house, "two"))
    processed(house, done(product(2, sop_uid="2.25.2", size=700)))
    with house.tx() as tx:
        first, second, *_ = [r["id"] for r in house.rows(schema.delivery) if r["state"] == "waiting"]
        for key, state in ((first, "parked"), (second, "held")):
            tx.execute(update(schema.delivery).where(schema.delivery.c.id == key).values(state=state))
    sizes = [row["size"] for row in house.rows(schema.instance)][-4:]
    at_work = upkeep(house)
    at_work.look()
    with house.tx() as tx:
        assert watch.waiting_bytes(tx) == {"PACS": sum(sizes) + 700}
        tx.execute(update(schema.delivery).values(state="stored"))
    house.clock.tick(seconds=DISK_LOOK + 1)
    at_work.look()
    with house.tx() as tx:
        assert watch.waiting_bytes(tx) == {}


def test_copies_that_nobody_waits_for_are_swept(house: House) -> None:
    """Of transcoded copies those stay that are made or sent now; those of what is cancelled or sent go."""
    receive(house, ct(house, "two"))
    waiting = [row for row in house.rows(schema.delivery) if row["state"] == "waiting"][:4]
    folder = house.parts.data / "transcoded"
    folder.mkdir()
    asked = {"sent_syntax": "1.2.840.10008.1.2"}
    states = (("waiting", ""), ("waiting", "made"), ("cancelled", "made"), ("stored", ""))
    with house.tx() as tx:
        for row, (state, path) in zip(waiting, states, strict=True):
            name = f"transcoded/{row['id']}-{row['attempt']}.dcm"
            (house.parts.data / name).write_bytes(b"copy")
            where = schema.delivery.c.id == row["id"]
            values = {**asked, "state": state, "sent_path": name if path else ""}
            tx.execute(update(schema.delivery).where(where).values(**values))
    (folder / f"{waiting[0]['id']}-77.dcm.part").write_bytes(b"half")
    upkeep(house).look()
    left = sorted(path.name for path in folder.iterdir())
    assert left == sorted(f"{row['id']}-{row['attempt']}.dcm" for row in waiting[:2])


def test_before_the_conductor_lives_nothing_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start the tables tell of the time before: no alarm until the conductor beats, or takes too long."""
    looks: list[float] = []
    monkeypatch.setattr(alerts, "check", lambda *_: looks.append(house.clock.seconds))
    beats = health.beat_path(house.parts.data)
    health.beat(beats, 1000.0)  # of the run before
    starting, dead = upkeep(house), upkeep(house)
    starting.look()
    assert looks == []
    house.clock.tick(seconds=5)
    health.beat(beats, 2000.0)
    starting.look()
    assert looks == [house.clock.seconds]
    health.beat_path(house.parts.data).unlink()
    health.beat(beats, 1000.0)  # what `dead` saw when it began
    dead.look()
    assert len(looks) == 1
    house.clock.tick(seconds=START)
    dead.look()
    assert looks == [looks[0], house.clock.seconds]


def test_a_full_disk_removes_nothing_early(house: House) -> None:
    """However full the disk is, what is not past its time stays."""
    complete(house, "two")
    upkeep(house, warn=0.0, stop_processing=0.0, refuse=0.0).retain()
    assert len(objects(house)) == 4


def test_a_pass_that_fails_ends_nothing(house: House, logged: io.StringIO) -> None:
    """A failure is in the log, the next pass works, and the text of the failure, which may hold data, is not told."""
    work = upkeep(house)
    with house.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE product RENAME TO hidden")
    work.retain()
    (line,) = lines(logged)
    assert (line["event"], line["level"], line["error"]) == ("retention_failed", "error", "OperationalError")
    with house.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO product")
    work.retain()
    assert lines(logged)[-1]["event"] == "retention_done"
    assert objects(house) == []


@pytest.mark.parametrize(
    ("after", "at"),
    [
        ("2026-06-10T12:00:00+00:00", "2026-06-11T00:00:00+00:00"),  # 02:00 in Berlin's summer
        ("2026-12-10T12:00:00+00:00", "2026-12-11T01:00:00+00:00"),
        ("2026-03-28T12:00:00+00:00", "2026-03-29T01:00:00+00:00"),  # that night has no 02:00
    ],
)
def test_night_is_the_sites_night(after: str, at: str) -> None:
    """Retention runs at 02:00 of the site's time zone, and once as well in the night that skips that hour."""
    found = nightly("Europe/Berlin").get_next_fire_time(None, datetime.fromisoformat(after))
    assert found is not None
    assert found.timestamp() == datetime.fromisoformat(at).timestamp()


def test_one_pass_at_a_time(house: House) -> None:
    """While a pass is under way a second one does nothing."""
    work = upkeep(house)
    with work._at_work:
        work.retain()
    assert len(objects(house)) == 4
    work.retain()
    assert objects(house) == []


def test_stopping_ends_a_pass(house: House) -> None:
    """Asked to stop, it takes no further group."""
    work = upkeep(house)
    work.stop.set()
    work.retain()
    assert len(objects(house)) == 4


@pytest.fixture
def process(house: House) -> Iterator[subprocess.Popen[bytes]]:
    """The process itself over the house's data, with a disk that counts as full."""
    text = SITE + "disk: {warn: 0 %, stop_processing: 0.001 %, refuse: 100 %}\n"
    with house.tx() as tx:  # the process has the real clock
        for table, columns in ((schema.delivery, ("finished_at",)), (schema.run, ("finished_at", "created_at")),
                               (schema.series, ("last_at", "sealed_at"))):  # fmt: skip
            tx.execute(update(table).values(dict.fromkeys(columns, house.clock.at.replace(year=2001))))
        tx.execute(update(schema.event).values(at=house.clock.at.replace(year=2001)))
    command = [
        sys.executable,
        "-m",
        "node.upkeep",
        "--file",
        str(house.data / "node.yaml"),
        "--parent",
        str(os.getpid()),
    ]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.stdin is not None
    started.stdin.write(text.encode())
    started.stdin.close()
    yield started
    started.kill()
    started.wait()


def test_the_process_removes_and_ends_on_sigterm(house: House, process: subprocess.Popen[bytes]) -> None:
    """Started over a full disk it cleans at once, and SIGTERM ends it well and soon."""
    peers.wait_for(lambda: objects(house) == [], "retention")
    before = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert time.monotonic() - before < 30
    assert process.stderr is not None
    names = [json.loads(line)["event"] for line in process.stderr.read().splitlines()]
    assert names[0] == "upkeep_started"
    assert {"retention_done", "upkeep_stopped"} <= set(names)
    assert not {n for n in names if n.endswith("failed")}


def test_it_dies_with_its_parent(house: House) -> None:
    """Where the supervisor that it was told of is gone, it ends by itself."""
    command = [sys.executable, "-m", "node.upkeep", "--file", str(house.data / "node.yaml"), "--parent", "1"]
    done = subprocess.run(command, input=SITE.encode(), capture_output=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGTERM
    assert len(objects(house)) == 4


def test_a_foreign_database_is_left_alone(house: House) -> None:
    """A database that is not this folder's would call every file a leftover: it ends with 2 and touches nothing."""
    (house.parts.data / "database.name").write_text("another")
    command = [
        sys.executable,
        "-m",
        "node.upkeep",
        "--file",
        str(house.data / "node.yaml"),
        "--parent",
        str(os.getpid()),
    ]
    done = subprocess.run(command, input=SITE.encode(), capture_output=True, check=False, timeout=30)
    assert done.returncode == 2
    assert b"misconfigured" in done.stderr
    assert len(objects(house)) == 4
