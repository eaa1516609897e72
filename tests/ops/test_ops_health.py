"""Signs of life and what is made of them: whether the node lives, and whether it is ready."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.ops import health
from node.ops.health import Board, Pulse, Role, Signs, alive, beat, beaten_at, ready

NOW = 1_700_000_000.0
BOARD = Board(NOW - 1, 10, 2, (Role("conductor", 11), Role("receiver_0", 12), Role("web", 13)))
WELL = Signs(now=NOW, board=BOARD, beaten=NOW - 1, disk=0.5, shares=(0.88, 0.95))


def test_a_node_whose_processes_live_is_alive_and_ready() -> None:
    """With fresh signs, room on the disk and a database that answers there is no reason against it."""
    assert alive(WELL).holds
    assert ready(WELL).holds
    assert ready(WELL).degraded == ()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"board": None}, "the supervisor gives no sign of life"),
        ({"board": replace(BOARD, at=NOW - 60)}, "the supervisor gives no sign of life"),
        ({"board": replace(BOARD, at=NOW + 3600)}, "the supervisor gives no sign of life"),
        ({"board": replace(BOARD, roles=(Role("receiver_0", None, 3),))}, "no receiver is running"),
    ],
)
def test_a_node_that_does_not_live_says_why(changed: dict[str, object], named: str) -> None:
    """A stale, missing or future sign of the supervisor, or no receiver at all, is a reason in words."""
    found = alive(replace(WELL, **changed))
    assert not found.holds
    assert named in found.reasons[0]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"board": replace(BOARD, roles=(Role("conductor", None, 4), Role("receiver_0", 1)))},
            "conductor is not",
        ),
        (
            {"board": replace(BOARD, roles=(Role("upkeep", None, 2), Role("receiver_0", 1)))},
            "upkeep is not running",
        ),
        ({"beaten": NOW - 60}, "the conductor's loop does not turn"),
        ({"beaten": None}, "the conductor's loop does not turn"),
    ],
)
def test_one_bad_process_is_named_and_costs_no_reception(changed: dict[str, object], named: str) -> None:
    """A role that dies, or a conductor that starts for long, is named; nobody may restart the receivers for it."""
    found = alive(replace(WELL, **changed))
    assert found.holds
    assert named in found.degraded[0]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"board": replace(BOARD, receiving=0)}, "no receiver accepts connections"),
        ({"locked": False}, "no conductor holds the data folder"),
        ({"beaten": NOW - 60}, "received objects wait"),
        ({"disk": 0.95}, "senders are answered A700"),
        ({"database": "OperationalError"}, "the database does not answer: OperationalError"),
    ],
)
def test_what_makes_it_not_ready_is_named(changed: dict[str, object], named: str) -> None:
    """What would make sending to the node pointless is a reason; each is one sentence."""
    (reason,) = ready(replace(WELL, **changed)).reasons
    assert named in reason


def test_what_only_degrades_leaves_it_ready() -> None:
    """Mistakes in rules, a full processing disk and a destination that is down are named, and it stays ready."""
    found = ready(replace(WELL, rules="rules/a.yaml:3: x\nrules/b.yaml:1: y", disk=0.9, down=("PACS",)))
    assert found.holds
    rules, disk, down = found.degraded
    assert rules.startswith("rules_refused: 2 mistakes at rules/a.yaml:3, rules/b.yaml:1")
    assert "processing waits" in disk
    assert down == "destination_down: PACS"


def test_only_the_place_of_a_mistake_leaves_the_house() -> None:
    """What a rule says, which may be a patient's name, is not repeated where anyone can read it."""
    said = health.where("rules/a.yaml:3: PatientName DOE^JANE is no pattern")
    assert said == "1 mistake at rules/a.yaml:3; `pacsnode check` says what"


def test_a_beat_is_a_time_and_at_most_one_a_second(tmp_path: Path) -> None:
    """The file's time is what is told; a second beat within a second changes nothing; a clock set back does."""
    path = health.beat_path(tmp_path)
    assert beaten_at(path) is None
    beat(path, NOW)
    assert beaten_at(path) == NOW
    beat(path, NOW + 0.9)
    assert beaten_at(path) == NOW
    beat(path, NOW + 1.5)
    assert beaten_at(path) == NOW + 1.5
    beat(path, NOW - 3600)
    assert beaten_at(path) == NOW - 3600
    beat(tmp_path / "file" / "x" / "beat", NOW)  # nowhere to be written, and nothing is raised


def test_a_pulse_counts_changes_and_not_clocks(tmp_path: Path) -> None:
    """A file whose time jumps by an hour is a sign of life; one that is left from before the start is none."""
    path = tmp_path / "beat"
    path.touch()
    pulse = Pulse(path)
    pulse.restart()
    assert pulse.age(5.0) is None
    os.utime(path, (NOW + 3600, NOW + 3600))
    assert pulse.age(6.0) == 0.0
    os.utime(path, (NOW - 3600, NOW - 3600))
    assert pulse.age(7.0) == 0.0
    assert pulse.age(37.0) == 30.0
    pulse.restart()
    assert pulse.age(38.0) is None


def test_what_the_supervisor_says_is_read_back(tmp_path: Path) -> None:
    """A board is written in place, longer or shorter than the last, and read as it was; rubbish is nothing."""
    path = health.board_path(tmp_path)
    assert health.read_board(path) is None
    many = replace(BOARD, roles=tuple(Role(f"receiver_{n}", n, 0) for n in range(200)))
    for board in (BOARD, many, BOARD):
        health.write_board(path, board)
        assert health.read_board(path) == board
    assert path.stat().st_size == 4096
    for rubbish in (b"", b"{", b"[]", b'{"at": 1}', b"\xff"):
        path.write_bytes(rubbish)
        assert health.read_board(path) is None
