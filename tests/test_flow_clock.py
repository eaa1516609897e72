"""The wall clock jumps: nothing is lost, nothing waits for a time that was meant for another clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flow_material import NOON, SMOOTH, House, header

from node import flow
from node.model import Exit, RunState
from node.send.protocol import Kind
from node.store.schema import delivery, destination, run


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node that routes and smooths CT."""
    made = House(tmp_path, rules=SMOOTH + "\n---\nrule: all\npurpose: p\nowner: o@h.example\nwhen: {}\n"
                 "send: [{what: received, to: [PACS, ARCHIVE]}]")  # fmt: skip
    yield made
    made.database.close()


def cap(house: House) -> int:
    """What the conductor does when it sees the step."""
    with house.tx() as tx:
        return flow.cap_waits(tx, house.parts)


@pytest.mark.parametrize(
    ("wall", "monotonic", "expected"),
    [(0, 0, False), (60, 60, False), (3660, 60, False), (-3600, 60, True), (58.5, 60, False), (55, 60, True)],
)
def test_only_a_step_back_counts(wall: float, monotonic: float, expected: bool) -> None:
    """A clock that was set on needs nothing: what is due early is done early. A step of an hour back is seen."""
    before = (NOON, 100.0)
    assert flow.set_back(NOON + timedelta(seconds=wall), 100.0 + monotonic, before) is expected
    assert not flow.set_back(NOON, 100.0, None)


def test_after_a_step_back_nothing_waits_longer_than_its_policy(house: House) -> None:
    """Set back by a day: what failed is tried within its longest wait, and what never did is due at once."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, Exit(RunState.QUARANTINED, "crashed"))
    items = house.claim()
    house.answer(items, Kind.FAILED, 0xC000)
    house.over(claimed=items)
    house.over("ARCHIVE refused", to="ARCHIVE", claimed=house.claim("ARCHIVE"))
    house.clock.at -= timedelta(days=1)
    assert cap(house) == 4
    (failed,) = [row for row in house.rows(delivery) if row["failures"]]
    (fresh,) = [row for row in house.rows(delivery) if row["destination"] == "ARCHIVE"]
    assert fresh["due_at"] == house.clock.at
    assert failed["due_at"] - house.clock.at == timedelta(minutes=33)
    (archive,) = house.rows(destination)
    assert archive["next_at"] - house.clock.at == timedelta(minutes=1)
    assert house.rows(run)[0]["due_at"] - house.clock.at == timedelta(minutes=10)
    assert cap(house) == 0


def test_waits_that_are_as_they_should_be_are_left_alone(house: House) -> None:
    """At every start the same is asked, and changes nothing where no clock was moved."""
    house.complete(header(1))
    items = house.claim()
    house.answer(items, Kind.FAILED, 0xC000)
    house.over(claimed=items)
    before = house.rows(delivery)
    assert cap(house) == 0
    assert house.rows(delivery) == before
