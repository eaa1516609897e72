"""What receivers refused becomes few events, which say how many, why and who; a flood cannot fill the tables."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import OperationalError

from node import app, flow
from node import settings as site
from node.receive.census import Census, LastWords
from node.receive.reasons import Reason
from node.refusals import Refusals, Telling
from node.store import schema
from node.store.database import note, rows

SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: UTC, data: data, rules: rules}
"""
CT1, CT2 = (LastWords(1.0, f"10.0.0.{i}", f"CT{i}", "PACSNOD") for i in (1, 2))


def nobody(_reason: Reason) -> Sequence[LastWords]:
    """No receiver has left last words."""
    return ()


# --- when


def test_the_first_refusal_is_told_at_once_and_a_flood_ever_less_often() -> None:
    """One a second for a day is some thirty events that lose none of the count, and never two within a minute."""
    telling, told = Telling({}), []
    for second in range(86_400):
        for one in telling.look({Reason.LIMIT: second + 1}, nobody, float(second)):
            told.append((second, one))
    times = [second for second, _ in told]
    assert times[:5] == [0, 60, 180, 420, 900]
    assert len(told) < 40
    assert all(b - a >= 60 for a, b in itertools.pairwise(times))
    assert [one.count for _, one in told] == [second + 1 for second in times]


def test_after_a_pause_the_next_one_is_told_at_once_again() -> None:
    """What has stopped for as long as its last pause begins anew; reasons do not wait for each other."""
    telling = Telling({})
    assert len(telling.look({Reason.LIMIT: 5}, nobody, 0.0)) == 1
    assert telling.look({Reason.LIMIT: 6}, nobody, 30.0) == []
    (late,) = telling.look({Reason.LIMIT: 6}, nobody, 61.0)
    assert late.detail.startswith("1 association rejected: `limits.associations` are open")
    assert len(telling.look({Reason.LIMIT: 6, Reason.IDLE: 1}, nobody, 62.0)) == 1
    assert len(telling.look({Reason.LIMIT: 7}, nobody, 5000.0)) == 1
    assert len(telling.look({Reason.LIMIT: 8}, nobody, 5060.0)) == 1


def test_what_was_told_before_is_not_told_again() -> None:
    """A conductor that is started anew goes on from the count of its predecessor."""
    telling = Telling({Reason.LIMIT: 7})
    assert telling.look({Reason.LIMIT: 7}, nobody, 0.0) == []
    (one,) = telling.look({Reason.LIMIT: 9}, nobody, 0.0)
    assert one.detail.startswith("2 associations rejected")


# --- what


@pytest.mark.parametrize(
    ("reason", "words", "detail"),
    [
        (Reason.CALLED_TITLE, CT1, "; last 'CT1' calling 'PACSNOD' from 10.0.0.1"),
        (Reason.CALLING_TITLE, CT1, "; last 'CT1' from 10.0.0.1"),
        (Reason.CONNECTIONS, LastWords(0.0, "fe80::1%eth0"), "; last from fe80::1%eth0"),
        (
            Reason.CALLING_TITLE,
            LastWords(0.0, "::1", "\x1b[2J\n'\0"),
            """; last "\\x1b[2J\\n'\\x00" from ::1""",
        ),
        (
            Reason.TLS_HANDSHAKE,
            LastWords(0.0, "10.0.0.7", why="it shows no certificate"),
            "; last from 10.0.0.7 (it shows no certificate)",
        ),
        (
            Reason.CERTIFICATE_NAME,
            LastWords(0.0, "10.0.0.7", "CT7", "PACSNODE", "this one carries the names \x1b[2J"),
            "; last 'CT7' from 10.0.0.7 (this one carries the names \ufffd[2J)",
        ),
    ],
)
def test_who_it_was_is_told_and_never_steers_a_terminal(
    reason: Reason, words: LastWords, detail: str
) -> None:
    """Title and address of the last one stand in the event; control characters are escaped."""
    (one,) = Telling({}).look({reason: 1}, lambda _: (words,), 0.0)
    assert one.detail.endswith(reason.words + detail)
    assert one.detail.isprintable()


def test_several_senders_between_two_events_are_named_but_not_a_crowd() -> None:
    """Two scanners that are refused in turn are both named; of a hundred titles, five."""
    telling = Telling({})
    telling.look({Reason.CALLING_TITLE: 1}, lambda _: (CT1,), 0.0)
    for second in range(1, 60):
        newest = LastWords(float(second), "10.0.0.1", "CT1") if second % 2 else CT2
        telling.look({Reason.CALLING_TITLE: second + 1}, lambda _, one=newest: (one,), float(second))
    (both,) = telling.look({Reason.CALLING_TITLE: 61}, lambda _: (CT2,), 60.0)
    assert both.detail.endswith("; last 'CT2' from 10.0.0.2; also 'CT1' from 10.0.0.1")
    for second in range(61, 181):
        crowd = LastWords(float(second), "10.0.0.9", f"T{second}")
        found = telling.look({Reason.CALLING_TITLE: second + 1}, lambda _, one=crowd: (one,), float(second))
    assert [one.detail.count("from") for one in found] == [5]
    assert "last 'T180'" in found[0].detail


# --- with tables and a page


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[flow.Parts]:
    """A site's tables."""
    (tmp_path / "data").mkdir()
    (tmp_path / "rules").mkdir()
    made = app.build(site.parse(SITE, str(tmp_path / "node.yaml"), {}))
    yield made
    made.database.close()


@pytest.fixture
def page() -> Iterator[int]:
    """A page of two receivers."""
    fd = Census.create(2)
    yield fd
    os.close(fd)


def events(parts: flow.Parts) -> list[tuple[Any, Any]]:
    """Names and details."""
    with parts.database.read() as tx:
        return [
            (row["name"], row["detail"]) for row in rows(tx, select(schema.event).order_by(schema.event.c.id))
        ]


def test_refusals_of_all_receivers_become_events(parts: flow.Parts, page: int) -> None:
    """What two receivers counted is one event; a conductor after this one tells what comes after only."""
    one, two, telling = Census(page, 0), Census(page, 1), Refusals(parts, page)
    telling.turn(0.0)
    one.count(Reason.ADDRESS, CT1)
    two.count(Reason.ADDRESS, LastWords(2.0, "10.0.0.7", "CT7", "PACSNODE"))
    telling.turn(0.5)
    assert events(parts) == []
    telling.turn(1.0)
    words = "2 associations rejected: the peer calls from no address of its `from_address`"
    assert events(parts) == [
        ("association_rejected", f"{words}; last 'CT7' from 10.0.0.7; also 'CT1' from 10.0.0.1")
    ]
    successor = Refusals(parts, page)
    successor.turn(2.0)
    assert len(events(parts)) == 1
    one.count(Reason.DISK_FULL, CT1)
    successor.turn(3.0)
    assert events(parts)[1:] == [
        ("object_refused", "1 object refused: the disk did not take it; last 'CT1' from 10.0.0.1")
    ]


def test_without_a_page_there_is_nothing_to_tell(parts: flow.Parts) -> None:
    """A conductor that no supervisor started works all the same."""
    Refusals(parts, None).turn(0.0)
    assert events(parts) == []


def test_a_full_disk_delays_the_event_that_says_so(parts: flow.Parts, page: int) -> None:
    """Where the tables take nothing more the conductor goes on, and tells it all a minute later."""
    telling, engine = Refusals(parts, page), parts.database.engine
    Census(page, 0).count(Reason.DISK_FULL, CT1)

    def keep_small(connection: Any, _record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    listen(engine, "connect", keep_small)
    engine.dispose()
    with pytest.raises(OperationalError, match="full"):
        while True:
            with parts.database.write() as tx:
                note(tx, parts.now(), "filler", "x")
    before = len(events(parts))
    telling.turn(1.0)
    assert len(events(parts)) == before
    remove(engine, "connect", keep_small)
    engine.dispose()
    telling.turn(30.0)
    assert len(events(parts)) == before
    telling.turn(61.0)
    assert [name for name, _ in events(parts)[before:]] == ["object_refused"]
