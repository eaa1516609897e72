"""Claims about performed procedure steps (MPPS): before, amid and after the images that they name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from flow_material import NOON, SITE, House, header

from node import flow
from node.assemble.completeness import Open, Sealed, verdict
from node.desk.explaining import explain_kept, explanation_lines
from node.errors import Refused
from node.model import StepMessage
from node.performed import Performed, PerformedSeries, StepState
from node.store import steps
from node.store.database import note
from node.store.queries import Search
from node.store.schema import step, step_series

STEP = "2.25.4711"
DONE, GOING, BROKEN_OFF = StepState.COMPLETED, StepState.IN_PROGRESS, StepState.DISCONTINUED


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Parts over a fresh database."""
    return House(tmp_path)


def tell(
    house: House,
    command: str,
    state: StepState | None,
    *numbers: int,
    peer: str = "CT01",
    series: str = "1.2.9.1",
) -> None:
    """A message about the step, which names these objects; with no number it says nothing of series."""
    named = (PerformedSeries(series, tuple(f"1.2.3.{n}" for n in numbers)),) if numbers else None
    message = StepMessage(command, STEP, "1.2.840.10008.1.2", peer, "PACSNODE", "1-1", NOON)
    with house.tx() as tx:
        flow.performed(tx, house.parts, message, Performed(state, "CT01", ("1.2.9",), named))


def judged(house: House, series_id: int = 1) -> Open | Sealed:
    """What is made of an open series now."""
    policy = flow.seal_policy(house.parts, series_id)
    return verdict(house.parts.assembly.evidence(series_id, house.clock.seconds), policy)


WHOLE = Sealed("MPPS of CT01 names 3 objects, all here")


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_completed_step_before_amid_and_after_its_images(house: House, at: int) -> None:
    """Whenever it comes, the series is complete `settle` after all that it names is here, and not before."""
    tell(house, "N-CREATE", GOING)
    for number in range(1, 4):
        if number == at + 1:
            tell(house, "N-SET", DONE, 1, 2, 3)
        house.take(header(number))
        house.clock.tick(seconds=2)
        if number < 3:
            assert isinstance(judged(house), Open)
    if at == 3:
        assert isinstance(judged(house), Open)
        tell(house, "N-SET", DONE, 1, 2, 3)
    assert judged(house) == WHOLE
    house.seal(1, WHOLE.reason)
    assert house.events("series_sealed")[0]["detail"] == "3 objects: MPPS of CT01 names 3 objects, all here"
    assert [row["detail"] for row in house.events("step_completed")] == [
        "MPPS of CT01 is completed: 1 series with 3 objects"
    ]


def test_what_never_comes_makes_it_incomplete(house: House) -> None:
    """One image short of what the step names: sealed after ten minutes, incomplete, in words."""
    tell(house, "N-CREATE", GOING)
    tell(house, "N-SET", DONE, 1, 2, 3)
    house.take(header(1), header(2))
    house.clock.tick(seconds=60)
    found = judged(house)
    assert isinstance(found, Open) and found.wait == timedelta(minutes=9)
    assert found.short == "MPPS of CT01 names 3 objects, 2 here"
    house.clock.tick(minutes=9)
    sealed = judged(house)
    assert isinstance(sealed, Sealed)
    house.seal(1, sealed.reason, sealed.incomplete)
    (row,) = house.series()
    assert row["incomplete"] == "MPPS of CT01 names 3 objects, 2 here"
    assert house.events("series_sealed")[0]["detail"] == (
        "2 objects: nothing more came for 600 s; MPPS of CT01 names 3 objects, 2 here"
    )


def test_a_step_that_comes_after_the_seal_is_said_on_the_series(house: House) -> None:
    """What was sealed stays sealed; that it was too early stands beside it, and late images open a revision."""
    house.take(header(1), header(2))
    house.seal()
    tell(house, "N-SET", DONE, 1, 2, 3)
    assert [(row["series_id"], row["detail"]) for row in house.events("step_names_more")] == [
        (1, "MPPS of CT01 names 3 objects; it was sealed with 2")
    ]
    house.take(header(3))
    house.clock.tick(seconds=2)
    assert judged(house, 2) == WHOLE, "the late revision has all three"


def test_a_step_that_was_broken_off_is_mentioned(house: House) -> None:
    """DISCONTINUED neither ends nor lengthens the waiting."""
    tell(house, "N-CREATE", GOING)
    tell(house, "N-SET", BROKEN_OFF, 1, 2, 3)
    house.take(header(1), header(2), header(3))
    house.clock.tick(seconds=2)
    assert isinstance(judged(house), Open)
    house.clock.tick(seconds=58)
    assert judged(house) == Sealed("quiet for 60 s; MPPS of CT01 was discontinued")


def test_a_step_in_progress_says_nothing_yet(house: House) -> None:
    """What N-SET names while the step goes on may grow: it counts when the step is completed."""
    tell(house, "N-CREATE", GOING)
    tell(house, "N-SET", GOING, 1)
    house.take(header(1))
    house.clock.tick(seconds=2)
    assert isinstance(judged(house), Open)
    tell(house, "N-SET", DONE)  # the series stand as they were told before
    assert judged(house) == Sealed("MPPS of CT01 names 1 object, all here")


def test_what_is_named_replaces_what_was_named(house: House) -> None:
    """The Performed Series Sequence is set as a whole (PS3.4 F.7.2.2.2)."""
    tell(house, "N-CREATE", GOING, 1, series="1.2.9.7")
    tell(house, "N-SET", DONE, 1, 2)
    with house.tx() as tx:
        assert steps.of_series(tx, "1.2.9.7") == []
        (row,) = steps.of_series(tx, "1.2.9.1")
    assert row["named"] == {"1.2.3.1", "1.2.3.2"} and row["state"] == DONE


@pytest.mark.parametrize(
    ("before", "message", "words", "state"),
    [
        ([("N-CREATE", GOING)], ("N-CREATE", GOING), "begun before", GOING),
        ([("N-CREATE", GOING), ("N-SET", DONE)], ("N-SET", BROKEN_OFF), "it was completed already", DONE),
        (
            [("N-CREATE", GOING), ("N-SET", BROKEN_OFF)],
            ("N-SET", DONE),
            "it was discontinued already",
            BROKEN_OFF,
        ),
        ([], ("N-SET", DONE), "nobody told us that it was begun", DONE),
        ([], ("N-CREATE", DONE), "a step begins IN PROGRESS", DONE),
    ],
)
def test_what_contradicts_is_an_event(
    house: House,
    before: list[tuple[str, StepState]],
    message: tuple[str, StepState],
    words: str,
    state: StepState,
) -> None:
    """Begun twice, changed after its end, never begun: the first word stands, or it is taken as it is; it is said."""
    for one in before:
        tell(house, *one)
    assert not house.events("step_strange")
    tell(house, *message)
    (said,) = house.events("step_strange")
    assert words in said["detail"] and said["destination"] == "CT01"
    assert [row["state"] for row in house.rows(step)] == [state]


def test_two_peers_may_tell_of_one_step(house: House) -> None:
    """The scanner, and the RIS that passes its message on: each has its own word, and only one is the source."""
    tell(house, "N-CREATE", GOING)
    tell(house, "N-CREATE", GOING, peer="MR01")
    tell(house, "N-SET", DONE, 1, peer="MR01")
    house.take(header(1))
    house.clock.tick(seconds=2)
    assert isinstance(judged(house), Open), "MR01 did not send the series"
    tell(house, "N-SET", DONE, 1)
    assert isinstance(judged(house), Sealed)
    assert not house.events("step_strange")


def test_what_cannot_be_read_is_an_event(house: House) -> None:
    """Nothing follows from it, and the peer stands in the event."""
    message = StepMessage("N-SET", STEP, "1.2.840.10008.1.2", "CT01", "PACSNODE", "1-1", NOON)
    with house.tx() as tx:
        flow.performed(tx, house.parts, message, None, "the dataset cannot be parsed (ValueError)")
    assert house.events("step_unreadable")[0]["detail"].startswith("N-SET of CT01: the dataset")
    assert not house.rows(step)


def test_a_peer_may_have_its_steps_left_out(tmp_path: Path) -> None:
    """`mpps: no` in a peer's seal: its steps are kept, and say nothing."""
    text = SITE.replace("CT01: {sends_as: [CT01]}", "CT01: {sends_as: [CT01], seal: {mpps: no}}")
    house = House(tmp_path, text=text)
    tell(house, "N-SET", DONE, 1, 2)
    house.take(header(1))
    house.clock.tick(seconds=60)
    assert judged(house) == Sealed("quiet for 60 s")
    assert len(house.rows(step_series)) == 1


def test_steps_are_forgotten_in_the_end(house: House) -> None:
    """What nobody spoke of since goes, with what it names."""
    tell(house, "N-SET", DONE, 1)
    with house.tx() as tx:
        steps.forget(tx, NOON - timedelta(days=1))
        assert steps.find(tx, "CT01", STEP) is not None
        steps.forget(tx, NOON + timedelta(days=1))
    assert not house.rows(step) and not house.rows(step_series)


def test_explain_says_why_it_was_sealed(house: House) -> None:
    """`explain --series` tells what an open series waits for, and of a sealed one by which evidence it was."""
    tell(house, "N-SET", DONE, 1, 2)
    house.take(header(1))
    with house.tx() as tx:
        note(tx, NOON, "series_short", "MPPS of CT01 names 2 objects, 1 here", series_id=1)
    with pytest.raises(Refused, match=r"waits for what is missing \(MPPS of CT01 names 2 objects, 1 here\)"):
        explain_kept(house.parts.settings, house.parts.rules, Search(series="1"))
    house.take(header(2))
    house.seal(1, "MPPS of CT01 names 2 objects, all here")
    house.route()
    (one,) = explain_kept(house.parts.settings, house.parts.rules, Search(series="1"))
    assert (
        list(explanation_lines([one], {}))[1] == "  sealed: 2 objects: MPPS of CT01 names 2 objects, all here"
    )
