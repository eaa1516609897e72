"""What follows from an outcome: a table, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from node.send.protocol import Kind
from node.send.retry import Again, Parked, Policy, Stored, decide, next_probe, pause

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
POLICY = Policy()


@pytest.mark.parametrize(
    ("kind", "status", "attempts", "decision", "word"),
    [
        (Kind.STORED, 0x0000, 1, Stored, "stored"),
        (Kind.WARNING, 0xB000, 1, Stored, "B000"),
        (Kind.WARNING, 0xB007, 9, Stored, "B007"),
        (Kind.FAILED, 0xA700, 1, Again, "A700"),
        (Kind.FAILED, 0xA7FF, 3, Again, "A7FF"),
        (Kind.FAILED, 0xC000, 1, Again, "C000"),
        (Kind.FAILED, 0xCFFF, 1, Again, "CFFF"),
        (Kind.FAILED, 0x0110, 1, Again, "0110"),
        (Kind.FAILED, 0x1234, 1, Again, "1234"),
        (Kind.FAILED, None, 1, Again, "the association ended"),
        (Kind.FAILED, 0xA900, 1, Parked, "A900"),
        (Kind.FAILED, 0xA9FF, 1, Parked, "A9FF"),
        (Kind.FAILED, 0x0122, 1, Parked, "SOP class"),
        (Kind.FAILED, 0x0124, 1, Parked, "authorise"),
        (Kind.FAILED, 0x0111, 1, Parked, "another object"),
        (Kind.FAILED, 0x0111, 2, Stored, "earlier attempt"),
        (Kind.REFUSED_CONTEXT, None, 1, Parked, "does not accept"),
        (Kind.UNREADABLE_FILE, None, 1, Again, "cannot be read"),
        (Kind.UNREADABLE_FILE, None, 9, Parked, "given up after 9 attempts over 10 min"),
        (Kind.FAILED, 0xC000, 53, Again, "attempt 54"),
        (Kind.FAILED, 0xC000, 60, Parked, "given up after 60 attempts over 24 h"),
        (Kind.FAILED, None, 60, Again, "attempt 61 follows"),
        (Kind.NOT_TRIED, None, 1, Again, "not tried"),
        (Kind.NOT_TRIED, None, 10_000, Again, "not tried"),
    ],
)
def test_each_outcome_has_its_consequence(
    kind: Kind, status: int | None, attempts: int, decision: type, word: str
) -> None:
    """Each kind, status and number of attempts leads to one decision, which says why."""
    made = decide(kind, status, attempts, NOW, POLICY)
    assert type(made) is decision
    assert word in made.why


def test_pauses_double_up_to_half_an_hour() -> None:
    """30 s, 1, 2, 4, 8, 16, 30, 30 min ..., each within 10 % of that."""
    minutes = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    for attempts, expected in enumerate(minutes, 1):
        assert pause(attempts, POLICY) == timedelta(minutes=expected)
        made = decide(Kind.FAILED, 0xC000, attempts, NOW, POLICY)
        assert isinstance(made, Again)
        assert 0.9 * expected <= (made.at - NOW) / timedelta(minutes=1) <= 1.1 * expected


def test_giving_up_takes_a_day() -> None:
    """The pauses before the attempt that parks an object sum up to a day, and not to an hour more."""
    attempts = next(
        n for n in range(1, 200) if isinstance(decide(Kind.FAILED, 0x0110, n, NOW, POLICY), Parked)
    )
    waited = sum((pause(n, POLICY) for n in range(1, attempts)), timedelta())
    assert timedelta(days=1) <= waited < timedelta(hours=25)


def test_jitter_is_decided_by_the_seed() -> None:
    """The same seed gives the same time, a thousand seeds give a thousand times."""
    times = {decide(Kind.FAILED, 0xA700, 4, NOW, POLICY, seed=seed) for seed in range(1000)}
    assert len(times) == 1000
    assert decide(Kind.FAILED, 0xA700, 4, NOW, POLICY, seed=7) in times


def test_a_destination_that_is_down_is_asked_again_soon_and_for_ever() -> None:
    """1, 2, 5, 10, 30 s, then every minute."""
    waits = [
        (next_probe(failures, NOW) - NOW).total_seconds() for failures in (0, 1, 2, 3, 4, 5, 6, 7, 10_000)
    ]
    assert waits == [1, 1, 2, 5, 10, 30, 60, 60, 60]


def test_a_duplicate_after_a_lost_result_counts_as_stored() -> None:
    """The first failure that we know of may be the second attempt: its result died with the process."""
    assert type(decide(Kind.FAILED, 0x0111, 1, NOW, POLICY, claims=2)) is Stored
    assert type(decide(Kind.FAILED, 0x0111, 1, NOW, POLICY, claims=1)) is Parked
