"""Claims about the conductor's way in: each receiver run has its turn, and sealing waits for what is not read yet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from flow_material import House

from node.arrivals import Arrivals
from node.commitments import Commitments
from node.model import Arrival
from node.readings import Readings
from node.sendings import Sendings
from node.store.files import Disk, ObjectFolder

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def arrivals_of(house: House) -> Arrivals:
    """The way in of a house whose reader is never started."""
    return Arrivals(house.parts, Readings(1), Commitments(house.parts, Sendings()))


def keep(folder: ObjectFolder, count: int) -> None:
    """Keep so many small objects."""
    for _ in range(count):
        part = folder.begin(
            Arrival("1.2", "1.2.3", "1.2.840.10008.1.2.1", "CT01", "NODE", "CT01", "1:1", "2:2", "1-1", NOON)
        )
        part.write(b"data")
        folder.keep(part)


@pytest.fixture
def runs(house: House) -> list[ObjectFolder]:
    """Three receivers of that house."""
    return [ObjectFolder(house.parts.data, Disk("process"), lambda: None) for _ in range(3)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with an empty data folder."""
    return House(tmp_path)


def test_a_receiver_that_is_busy_does_not_hold_up_the_others(house: House, runs: list[ObjectFolder]) -> None:
    """With more waiting than there is room for, every run is read from, each in its order."""
    arrivals = arrivals_of(house)
    for run in runs:
        keep(run, 300)
    arrivals.scan(1.0)
    queued = [reading.record for reading in arrivals.readings.queue if reading.record]
    counts = {run.run: [record.sequence for record in queued if record.run == run.run] for run in runs}
    assert all(found == list(range(1, len(found) + 1)) for found in counts.values())
    assert min(map(len, counts.values())) > 60


def test_time_stands_still_for_sealing_while_records_wait(house: House, runs: list[ObjectFolder]) -> None:
    """What is not in the tables yet may belong to any series: sealing knows only of what came before it."""
    arrivals = arrivals_of(house)
    queue = arrivals.readings.queue
    assert not arrivals.scan(1.0), "nothing came"
    assert arrivals.caught_up == 1.0
    keep(runs[0], 2)
    assert arrivals.scan(2.0)
    assert arrivals.caught_up == 1.0, "both came after the look of 1.0"
    keep(runs[1], 1)
    arrivals.scan(3.0)
    queue.popleft()
    assert arrivals.caught_up == 1.0
    queue.popleft()
    assert arrivals.caught_up == 2.0, "what is left came after the look of 2.0"
    queue.popleft()
    assert arrivals.caught_up == 3.0


def test_a_backlog_in_the_files_is_not_forgotten(house: House, runs: list[ObjectFolder]) -> None:
    """While not even everything that came is queued, the time of sealing does not go on, whatever was read."""
    arrivals = arrivals_of(house)
    arrivals.scan(1.0)
    for run in runs:
        keep(run, 200)
    assert arrivals.scan(2.0)
    assert arrivals.scan(2.5), "there is no room for more, and more is there"
    arrivals.readings.queue.clear()
    assert arrivals.caught_up == 1.0
    arrivals.scan(3.0)
    arrivals.readings.queue.clear()
    assert arrivals.caught_up == 1.0
    arrivals.scan(4.0)
    arrivals.readings.queue.clear()
    assert arrivals.caught_up == 4.0
