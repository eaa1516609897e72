"""A disk without a free byte at every stage of an object's way; once there is room again all goes on by itself.

The data folder is a small file system of its own. `Ballast` fills it, and keeps filling it: what the node frees to
help itself is taken too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    derived,
    house,
)
from pynetdicom import AE

RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT.replace("retry: 3", "retry: 20")}
SIZE = 40 << 20
HARD = "disk: {warn: 98 %, stop_processing: 99 %, refuse: 100 %}"
"""Limits that keep nobody from meeting the end of the disk."""
SOFT = "disk: {warn: 80 %, stop_processing: 88 %, refuse: 95 %}"
KINDS = ["tmpfs", pytest.param("ext4", marks=pytest.mark.long)]


@contextlib.contextmanager
def small(folder: Path, kind: str, size: int = SIZE) -> Iterator[None]:
    """A file system of *size* bytes at *folder*: tmpfs, or ext4 in a file."""
    folder.mkdir(parents=True)
    image = folder.parent / "image"
    if kind == "ext4":
        image.write_bytes(b"")
        os.truncate(image, size)
        _quiet("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image))
        command = ["mount", "-o", "loop", str(image), str(folder)]
    else:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=750", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _quiet(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")


class Ballast:
    """Files that take every free byte, as long as they are wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ballast"
        self.folder.mkdir()
        self._wanted = threading.Event()
        self._over = False
        self._full = threading.Event()
        self._number = 0
        threading.Thread(target=self._work, daemon=True).start()

    def load(self) -> None:
        """Return when not a byte is free; keep it so."""
        self._full.clear()
        self._wanted.set()
        assert self._full.wait(60)

    def drop(self) -> None:
        """Free the room."""
        self._wanted.clear()
        self._full.wait(5)
        time.sleep(0.1)
        for path in self.folder.iterdir():
            path.unlink()

    def end(self) -> None:
        """Stop."""
        self._over = True
        self._wanted.set()

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            if self._over:
                return
            self._fill()
            self._full.set()
            time.sleep(0.02)

    def _fill(self) -> None:
        for size in (1 << 20, 1 << 16, 4096, 512):
            with contextlib.suppress(OSError):
                while self._wanted.is_set() and not self._over:
                    self._number += 1
                    with (self.folder / str(self._number)).open("wb", buffering=0) as file:
                        if file.write(bytes(size)) < size:
                            break


@contextlib.contextmanager
def site_on(tmp_path: Path, kind: str, extra: str = HARD) -> Iterator[tuple[House, Ballast, Scanner]]:
    """A site whose data folder is a small file system; its node is not started."""
    with house(tmp_path / "site", RULES) as site:
        text = (site.folder / "node.yaml").read_text()
        kept = [line for line in text.splitlines() if not line.startswith("disk:")]
        (site.folder / "node.yaml").write_text("\n".join([*kept, extra, ""]))
        with small(site.data, kind):
            ballast = Ballast(site.data)
            try:
                yield site, ballast, Scanner(site.port)
            finally:
                ballast.end()
                site.kill_all()


def signal_all(site: House, role: str, number: int) -> list[int]:
    """Send a signal to each process of a role; their numbers."""
    found = site.pids(role)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return found


def wait_hit(site: House) -> None:
    """Wait until the conductor has met the full disk twice: it ends each time, and is started again."""
    met = '"process": "conductor", "exit_code": 1, "count": 2'
    site.wait_for(lambda: met in site.log.read_text(), "the end of the disk")


def leave_no_room_in_the_log(site: House) -> None:
    """SQLite's log keeps its length when it begins anew, and would take what is to find no room."""
    with contextlib.closing(sqlite3.connect(site.data / "pacsnode.db", timeout=60)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (site.data / "pacsnode.db-wal").stat().st_size == 0


def statuses(site: House, files: list[Path]) -> list[int | None]:
    """What C-STORE answers to each of these objects, sent once; None where the association ended instead."""
    datasets = [pydicom.dcmread(path) for path in files]
    ae = AE("CT01")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    ae.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", site.port, ae_title="PACSNODE")
    found: list[int | None] = []
    for ds in datasets:
        found.append(assoc.send_c_store(ds).get("Status") if assoc.is_established else None)
    assoc.release()
    return found


def assert_all(site: House, scanner: Scanner, pacs: Pacs, results: int) -> None:
    """Everything acknowledged and every expected result is at the PACS, byte-equal; nothing is left to do."""
    site.wait_idle()
    assert_delivered(scanner, pacs)
    assert len(derived(scanner, pacs)) == results
    assert {row["state"] for row in site.table("delivery")} == {"stored"}
    assert {row["state"] for row in site.table("run")} == {"done"}, site.table("run")


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("tmpfs", HARD),
        pytest.param("tmpfs", SOFT, marks=pytest.mark.long),
        pytest.param("ext4", HARD, marks=pytest.mark.long),
    ],
)
def test_full_while_receiving(tmp_path: Path, kind: str, limits: str) -> None:
    """Senders are told A700, nothing of before is lost, and the same node takes what they send again later."""
    with site_on(tmp_path, kind, limits) as (site, ballast, scanner), Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner.send(ball(tmp_path, "before"))
        site.wait_idle()
        receivers = site.pids("receiver")
        later = ball(tmp_path, "later")
        ballast.load()
        time.sleep(1.2)  # the share that is used is looked at once a second
        found = statuses(site, later)
        assert found and all(status == 0xA700 for status in found if status is not None), found
        assert found[0] == 0xA700
        assert not list((site.data / "objects").glob("*/*/*.part")), "something half-written was left"
        ballast.drop()
        scanner.send(later)
        assert site.pids("receiver") == receivers, "the receiver was started again"
        assert_all(site, scanner, pacs, 12)
        site.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_full_while_indexing(tmp_path: Path, kind: str) -> None:
    """Objects are safe and acknowledged, and the tables cannot take them: they wait in their folder until they can."""
    with site_on(tmp_path, kind) as (site, ballast, scanner), Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner.send(ball(tmp_path, "before"))
        site.wait_idle()
        stopped = signal_all(site, "conductor", signal.SIGSTOP)
        leave_no_room_in_the_log(site)
        scanner.send(ball(tmp_path, "indexed-late"))
        ballast.load()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        wait_hit(site)
        ballast.drop()
        assert_all(site, scanner, pacs, 12)
        assert site.instances() == 16
        site.stop()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_full_while_processing(tmp_path: Path, kind: str) -> None:
    """A worker that cannot write its results fails for that reason alone, and is started again when there is room."""
    with site_on(tmp_path, kind) as (site, ballast, scanner), Pacs(site.pacs_port).open() as pacs:
        site.start()
        site.wait_for(
            lambda: "conductor_started" in site.tail(), "the start"
        )  # until then it may ask for operators
        site.wait_for(lambda: bool(site.pids("worker")), "a spare worker")
        stopped = signal_all(site, "worker", signal.SIGSTOP)
        scanner.send(ball(tmp_path))
        site.wait_for(lambda: bool(site.table("run", state="running")), "the run")
        site.wait_for(lambda: len(pacs.held) == 8, "the received objects")
        ballast.load()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        wait_hit(site)
        assert not site.table("product")
        ballast.drop()
        assert_all(site, scanner, pacs, 6)
        assert all(pacs.times(uid) <= 2 for uid in pacs.held)
        site.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_full_while_delivering(tmp_path: Path, kind: str) -> None:
    """The PACS has answered and that cannot be recorded: an object may come to it once more, and none is missing."""
    free = threading.Event()

    def answer(_uid: str, nth: int) -> int:
        if nth >= 4:
            free.wait(100)
        return 0x0000

    with (
        site_on(tmp_path, kind) as (site, ballast, scanner),
        Pacs(site.pacs_port, answer=answer).open() as pacs,
    ):
        site.start()
        scanner.send(ball(tmp_path))
        site.wait_for(lambda: len(pacs.held) == 4, "half of the objects")
        ballast.load()
        free.set()
        wait_hit(site)
        ballast.drop()
        assert_all(site, scanner, pacs, 6)
        assert all(pacs.times(uid) <= 3 for uid in pacs.held), pacs.got
        site.stop()
