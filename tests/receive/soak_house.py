"""Senders in processes of their own, and what must hold of all they sent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pydicom
from crash.crash_house import House
from receive import rough_sender
from receive.rough_sender import Job, digest_of, instance_number, series_uid, sop_uid, study_uid

from node.operator import Volume
from node.ops.health import board_path, read_board
from node.store import standing
from node.store.files import read_arrival, read_end
from node.store.records import END, OBJECT
from node.testing import Grid, Series, sphere_volume, write_ct_series

SIZES = (16, 32, 48)
"""Rows and columns of the templates: objects of 2 to 6 kB."""


def write_templates(folder: Path) -> Path:
    """Small CT images whose UIDs, number and position a sender replaces; all are slices of 1 mm of one grid."""
    for size in SIZES:
        volume: Volume = sphere_volume(Grid((1, size, size), (1.0, 2.0, 2.0)), radius=5.0, inside=40.0)
        (path,) = write_ct_series(folder / f"{size}", volume, series=Series("soak"))
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid(0), series_uid(0)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = sop_uid(0, 0)
        ds.InstanceNumber = instance_number(0).decode()
        x, y, _ = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, f"{instance_number(0).decode()}.0"]
        ds.PixelData = bytes(len(ds.PixelData))
        ready = folder / "templates" / f"{size}.dcm"
        ready.parent.mkdir(exist_ok=True)
        ds.save_as(ready)
    return folder / "templates"


# --- senders


class Crowd:
    """Senders at work."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.began = time.monotonic()
        self.told: list[dict[str, object]] = [{} for _ in jobs]
        self._processes = [
            subprocess.Popen(
                [sys.executable, rough_sender.__file__, json.dumps(asdict(job))],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )
            for job in jobs
        ]  # fmt: skip
        self._threads = [threading.Thread(target=self._listen, args=(n,)) for n in range(len(jobs))]
        for thread in self._threads:
            thread.start()

    def _listen(self, number: int) -> None:
        output = self._processes[number].stdout
        assert output is not None
        for line in output:
            self.told[number] = json.loads(line)

    @property
    def planned(self) -> int:
        """How many objects there are."""
        return sum(len(job.series) * job.objects for job in self.jobs)

    @property
    def acknowledged(self) -> int:
        """How many of them were acknowledged."""
        return sum(int(str(told.get("acknowledged", 0))) for told in self.told)

    @property
    def working(self) -> bool:
        """Whether somebody still sends."""
        return any(process.poll() is None for process in self._processes)

    def counted(self, what: str) -> Counter[str]:
        """All senders' `cuts` or `lost`."""
        found: Counter[str] = Counter()
        for told in self.told:
            found.update(told.get(what, {}))  # type: ignore[arg-type]
        return found

    def acks(self) -> dict[str, str]:
        """SOP Instance UID → digest of everything that was acknowledged, and nothing twice."""
        lines = [line for job in self.jobs for line in Path(job.acks).read_text().splitlines()]
        found = {line.split()[0]: line.split()[1] for line in lines}
        assert len(found) == len(lines)
        return found

    def end(self) -> None:
        """Wait for the last words of those who have ended; who has not is ended."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()

    def assert_well(self) -> None:
        """Everybody ended well."""
        self.end()
        assert [process.returncode for process in self._processes] == [0] * len(self.jobs)
        assert all(told["done"] for told in self.told)


@contextlib.contextmanager
def crowd(jobs: Sequence[Job]) -> Iterator[Crowd]:
    """Start senders; none outlives the block."""
    made = Crowd(jobs)
    try:
        yield made
    finally:
        made.end()


def jobs_of(
    folder: Path, port: int, callings: Sequence[str], series: int, objects: int, **how: float
) -> list[Job]:
    """Share *series* of *objects* each among senders under these titles."""
    templates, share = write_templates(folder), -(-series // len(callings))
    numbers = [range(1, series + 1)[at : at + share] for at in range(0, series, share)]
    return [
        Job(port, calling, str(templates), str(folder / f"{n}.acks"), list(own), objects, seed=n, **how)
        for n, (calling, own) in enumerate(zip(callings, numbers, strict=False))
    ]


def wait_receiving(site: House, receivers: int) -> None:
    """Wait until so many receivers accept."""

    def ready() -> bool:
        board = read_board(board_path(site.data))
        return board is not None and board.receiving == receivers

    site.wait_for(ready, f"{receivers} receivers")


# --- the claims


def wait_indexed(site: House, planned: int, seconds: float) -> None:
    """Wait until so many objects are indexed and nothing is open any more."""
    database = site.database()

    def ready() -> bool:
        with database.read() as tx:
            return standing.is_idle(tx) and standing.overview(tx)["instances"].get("kept", 0) >= planned

    try:
        site.wait_for(ready, f"the index of {planned} objects", seconds)
    finally:
        database.close()
    site.wait_idle(seconds)


def assert_exact(site: House, acks: Mapping[str, str], planned: int) -> int:
    """Each acknowledged object is kept exactly once and byte for byte, and nothing else is; how many came twice."""
    assert len(acks) == planned
    rows = site.table("instance")
    kept = {row["sop_uid"]: row for row in rows if row["state"] == "kept"}
    again = [row for row in rows if row["state"] == "duplicate"]
    assert {uid: row["digest"] for uid, row in kept.items()} == dict(acks)
    assert len(kept) + len(again) == len(rows), Counter(row["state"] for row in rows)
    assert all(row["digest"] == acks[row["sop_uid"]] for row in again)
    assert site.overview()["instances"] == {"kept": planned, **({"duplicate": len(again)} if again else {})}
    lying = {(int(path.parts[-3]), int(path.stem)): path for path in records(site, OBJECT)}
    assert set(lying) == {(row["receiver_run"], row["sequence"]) for row in kept.values()}
    for row in kept.values():
        assert_file(lying[row["receiver_run"], row["sequence"]], row["sop_uid"], acks[row["sop_uid"]])
    assert list(site.data.rglob("*.part")) == []
    return len(again)


def records(site: House, kind: str) -> list[Path]:
    """What lies in the folder of received objects."""
    return list((site.data / "objects").glob(f"*/*/*{kind}"))


def assert_file(path: Path, uid: str, digest: str) -> None:
    """The file holds what was sent under this UID."""
    arrival, offset = read_arrival(path)
    assert (arrival.sop_uid, digest_of(path.read_bytes()[offset:])) == (uid, digest)


def assert_ends(site: House) -> None:
    """The ends of the associations account for every object that was kept, also for those nobody heard of."""
    told = sum(read_end(path).objects for path in records(site, END))
    assert told == site.instances()


def assert_series(site: House, count: int, objects_each: int) -> None:
    """Each series holds its objects, whatever broke meanwhile, and misses no position."""
    of = {row["id"]: row["series_uid"] for row in site.table("series")}
    kept = Counter(of[row["series_id"]] for row in site.table("instance", state="kept"))
    assert kept == {series_uid(number): objects_each for number in range(1, count + 1)}
    newest = {row["series_uid"]: row for row in site.table("series")}  # in the order of their revisions
    assert {row["instances"] for row in newest.values()} == {objects_each}
    assert {row["incomplete"] for row in newest.values()} == {""}


def assert_quiet_log(site: House, but_for: Sequence[str] = ()) -> Counter[str]:
    """Nobody logged an error or an exception; event → how often of everything that was logged."""
    found: Counter[str] = Counter()
    for line in site.log.read_text().splitlines():
        entry = json.loads(line)
        found[entry["event"]] += 1
        bad = entry["level"] in ("error", "critical") or "exception" in entry
        assert not bad or entry["event"] in but_for, line
    return found
