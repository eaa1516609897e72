"""When a destination is ill, and not the objects: many in a row that it answers with the same failure."""

from __future__ import annotations

import pytest

from node.model import Trouble
from node.send.protocol import (
    Batch,
    Destination,
    Finished,
    Item,
    Kind,
    Result,
)
from node.send.streak import MOST_EQUAL, Streak
from node.sendings import Sendings, UnderWay

WHERE = Destination("PACS", "10.1.2.9", 4242, "PACS", "PACSNODE")
FULL, PUZZLED = (Kind.FAILED, 0xA700), (Kind.FAILED, 0xC000)
STORED, LOST, PARKED = (Kind.STORED, 0), (Kind.FAILED, None), (Kind.REFUSED_CONTEXT, None)


def results(*answers: tuple[Kind, int | None], first: int = 1) -> list[Result]:
    """One answer for each of so many objects."""
    return [Result(first + n, 1, kind, status, "said") for n, (kind, status) in enumerate(answers)]


@pytest.mark.parametrize(
    ("answers", "long"),
    [
        ([FULL] * (MOST_EQUAL - 1), False),
        ([FULL] * MOST_EQUAL, True),
        ([FULL] * 10 + [PUZZLED] * 19, False),  # not the same
        ([FULL] * 10 + [PUZZLED] * 20, True),
        ([FULL] * 19 + [STORED] + [FULL] * 19, False),  # not in a row
        ([FULL] * 30 + [STORED], False),
        ([FULL] * 10 + [LOST, PARKED] * 5 + [FULL] * 10, True),  # these say nothing of that kind
    ],
)
def test_twenty_objects_in_a_row(answers: list[tuple[Kind, int | None]], long: bool) -> None:
    """Only what is the same, and of different objects, and not interrupted by a success."""
    streak = Streak()
    for result in results(*answers):
        streak.see(result)
    assert streak.long is long


def test_one_object_tried_for_a_night_is_no_ill_destination() -> None:
    """The same few objects over and over blame themselves."""
    streak = Streak()
    for _ in range(60):
        for result in results(PUZZLED, PUZZLED, PUZZLED):
            streak.see(result)
    assert not streak.long


def over(sendings: Sendings, *, error: str | None = None, taken: bool = False, blamed: bool = False):  # type: ignore[no-untyped-def]
    """The end of a batch."""
    batch = Batch(1, WHERE, (Item(1, 1, "f", "1.2", "1.3", "1.2.840.10008.1.2"),))
    one = UnderWay(batch, blamed=blamed, taken=taken)
    return sendings.trouble(one, Finished(1, error, Trouble.UNREACHABLE))


def test_it_counts_over_batches_of_one() -> None:
    """A scanner sends object by object: what refuses each of twenty batches is paused, in the same words each time."""
    sendings = Sendings()
    found = []
    for number in range(1, MOST_EQUAL + 3):
        one = UnderWay(Batch(number, WHERE, ()))
        sendings.see(one, results(FULL, first=number))
        found.append(over(sendings))
    assert [error for error, _ in found[: MOST_EQUAL - 1]] == [None] * (MOST_EQUAL - 1)
    assert len(set(found[MOST_EQUAL - 1 :])) == 1
    error, trouble = found[-1]
    assert trouble is Trouble.PAUSED
    assert error == (
        "PACS at 10.1.2.9:4242 answered 20 objects in a row with A700 (out of resources); look at its log"
    )
    assert over(sendings, taken=True) == (None, Trouble.UNREACHABLE)
    assert over(sendings, error="PACS is gone") == ("PACS is gone", Trouble.UNREACHABLE)
    assert over(sendings, error="PACS is gone", blamed=True)[0] is None
    sendings.see(UnderWay(Batch(99, WHERE, ())), results(STORED))
    assert over(sendings) == (None, Trouble.UNREACHABLE)
