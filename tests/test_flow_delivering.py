"""Claims about delivering, on a real database with a clock of our own: batches, troubles, windows, priorities."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import NOON, ROUTE, SITE, SMOOTH, House, header, rule
from sqlalchemy import update

from node import flow
from node.model import Trouble
from node.send.protocol import Item, Kind
from node.store import work
from node.store.schema import delivery, destination


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Everything goes to the PACS at once; CT is smoothed and the result goes there too."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


def states(house: House, table: Any = delivery) -> list[str]:
    """The states of a table's rows, by id."""
    return [row["state"] for row in house.rows(table)]


def known(house: House) -> Any:
    """What is known of the one destination that had trouble."""
    (row,) = house.rows(destination)
    return row


# --- batches and answers


def test_a_batch_names_the_peer_and_the_files(house: House) -> None:
    """Where, as whom, and each object's file, UIDs and attempt."""
    house.take(header(1), header(2))
    with house.tx() as tx:
        found = flow.deliver(tx, house.parts, "PACS", 0)
    assert found is not None
    to, items = found.where, found.items
    assert (to.name, to.host, to.port, to.ae_title, to.calling_ae) == (
        "PACS",
        "127.0.0.1",
        4242,
        "PACS",
        "PACSNODE",
    )
    assert [(i.sop_uid, i.attempt) for i in items] == [("1.2.3.1", 1), ("1.2.3.2", 1)]
    assert items[0].path.endswith("objects/00000001/0000/00000001.dcm")
    assert states(house, delivery) == ["sending", "sending"]
    assert house.claim() == ()


def test_no_more_batches_than_associations(house: House) -> None:
    """A peer with one association gets the next batch when the first is over."""
    house.take(header(1))
    assert house.claim(open_batches=1) == ()
    assert len(house.claim()) == 1


def test_nothing_is_claimed_for_a_peer_without_an_address(house: House) -> None:
    """A peer that only sends, or one that is gone, claims nothing."""
    house.take(header(1))
    with house.tx() as tx:
        tx.execute(update(delivery).values(destination="CT01"))
    assert house.claim("CT01") == ()
    assert house.claim("GONE") == ()


def test_what_the_destination_says_decides(house: House) -> None:
    """Stored is final; a failure waits for its time; what waiting cannot change is parked; untried is free."""
    house.take(*(header(n) for n in (1, 2, 3, 4)))
    one, two, three, four = house.claim()
    house.answer((one,), Kind.WARNING, 0xB000)
    house.answer((two,), Kind.FAILED, 0xA700)
    house.answer((three,), Kind.FAILED, 0x0122)
    house.answer((four,), Kind.NOT_TRIED, None)
    rows = house.rows(delivery)
    assert [row["state"] for row in rows] == ["stored", "waiting", "parked", "waiting"]
    assert [row["failures"] for row in rows] == [0, 1, 1, 0]
    assert [row["status"] for row in rows] == [0xB000, 0xA700, 0x0122, None]
    assert "B000" in rows[0]["reason"]
    assert rows[1]["due_at"] > house.clock.at
    assert [i.sop_uid for i in house.claim()] == ["1.2.3.4"]
    assert [e["name"] for e in house.events() if e["destination"]] == ["delivery_failed", "delivery_parked"]
    assert house.events("delivery_parked")[0]["series_id"] == 1


def test_an_object_that_fails_for_a_day_is_parked(house: House) -> None:
    """Pauses grow, and the last reason is kept with the number of attempts."""
    house.take(header(1))
    for _ in range(200):
        items = house.claim()
        if items:
            house.answer(items, Kind.FAILED, 0xA700)
        (row,) = house.rows(delivery)
        if row["state"] == "parked":
            break
        house.clock.at = max(row["due_at"], house.clock.at)
    assert row["state"] == "parked"
    assert timedelta(hours=20) < house.clock.at - NOON < timedelta(hours=28)
    assert "given up" in row["reason"]


def test_a_late_answer_for_an_older_attempt_counts_for_nothing(house: House) -> None:
    """The sender was replaced meanwhile: only the attempt that is under way may finish."""
    house.take(header(1))
    old = house.claim()
    with house.tx() as tx:
        work.give_back(tx)
    house.claim()
    house.answer(old, Kind.FAILED, 0x0122)
    assert states(house, delivery) == ["sending"]
    assert house.events("delivery_parked") == []


def test_a_destination_that_is_down_parks_nothing(house: House) -> None:
    """Days without a PACS: all waits, C-ECHO asks for it, and one object per series opens the way when it is back."""
    house.take(*(header(n) for n in range(1, 6)))
    items = house.claim()
    house.answer(items, Kind.NOT_TRIED, None)
    house.over("PACS at 127.0.0.1:4242: refused", claimed=items)
    (row,) = house.rows(destination)
    assert (row["down"], row["reason"], row["since"]) == (True, "PACS at 127.0.0.1:4242: refused", NOON)
    assert house.claim() == ()  # not before the probe
    for _ in range(50):
        house.clock.at = house.rows(destination)[0]["next_at"]
        assert house.asks()
        house.probe("PACS at 127.0.0.1:4242: refused")
        assert not house.asks()
    assert set(states(house, delivery)) == {"waiting"}
    assert house.rows(destination)[0]["since"] == NOON
    assert len(house.events("destination_down")) == 1  # told once, not at each probe
    house.clock.tick(minutes=1)
    house.probe()
    probe = house.claim()
    assert len(probe) == 1
    assert house.claim(open_batches=1) == ()  # nothing beside it
    house.answer(probe)
    house.over(claimed=probe)
    assert house.rows(destination)[0]["down"] is False
    assert len(house.events("destination_up")) == 1
    assert len(house.claim()) == 4


def test_an_object_that_ends_every_association_is_blamed_itself(house: House) -> None:
    """One that ends its association again, after others got through, is parked after a day; the destination is up."""
    house.take(header(1))
    (poison,) = house.claim()
    assert not house.answer((poison,), Kind.FAILED, None)  # it may well be the destination
    house.over("PACS aborted the association", claimed=(poison,))
    house.clock.tick(seconds=2)
    house.take(header(2))
    house.probe()
    other = house.claim()
    assert [item.sop_uid for item in other] == ["1.2.3.2"]
    house.answer(other)
    house.over(claimed=other)
    for attempt in range(2, 200):
        house.clock.tick(minutes=40)
        (again,) = house.claim()
        assert house.answer((again,), Kind.FAILED, None), attempt
        house.over(claimed=(again,))
        assert house.rows(destination)[0]["down"] is False
        if states(house, delivery)[0] == "parked":
            break
    assert states(house, delivery) == ["parked", "stored"]
    (event,) = house.events("delivery_parked")
    assert "while others got through; given up after" in event["detail"]
    assert len(house.events("destination_down")) == 1


def test_objects_a_lost_batch_left_behind_wait_again(house: House) -> None:
    """A sender that died answers for nothing: what it had claimed is claimed again, with a new attempt."""
    house.take(header(1), header(2))
    first = house.claim()
    house.answer(first[:1])
    house.over(None, claimed=first)
    assert states(house, delivery) == ["stored", "waiting"]
    (again,) = house.claim()
    assert (again.sop_uid, again.attempt) == ("1.2.3.2", 2)


def test_an_older_header_never_arrives_after_the_newer_one(house: House) -> None:
    """What was on its way when a newer header came, and failed, is cancelled when its turn comes again."""
    house.complete(header(1))
    older = house.claim()
    house.take(header(1, digest="f" * 64))
    assert house.claim() == (), "the newer one waits for the end of the older"
    house.answer(older, Kind.FAILED, 0xA700)
    newer = house.claim()
    house.answer(newer)
    house.clock.tick(minutes=5)
    assert house.claim() == ()
    assert states(house, delivery) == ["cancelled", "stored"]


# --- a destination that refuses everything

REFUSED = "PACS at 127.0.0.1:4242 answered 20 objects in a row with C000"


def refuse_twenty(house: House, number: int) -> None:
    """Twenty of so many objects are refused alike, the rest is not tried, and the destination is paused."""
    items = house.claim()
    assert len(items) == number
    house.answer(items[:20], Kind.FAILED, 0xC000)
    house.answer(items[20:], Kind.NOT_TRIED, None)
    house.over(REFUSED, claimed=items, trouble=Trouble.PAUSED)


def trial(house: House) -> tuple[Item, ...]:
    """What is tried when its time has come; nothing was before."""
    house.clock.at = known(house)["next_at"] - timedelta(seconds=1)
    assert house.claim() == () and not house.asks()
    house.clock.tick(seconds=1)
    return house.claim()


def test_a_paused_destination_is_tried_with_one_of_each_series(house: House) -> None:
    """After 10, 30, 60, 60 s, with up to three objects of as many series; told once; one success opens it for all."""
    for number in range(1, 24):
        house.take(header(number, series_uid=f"1.2.9.{number % 4}"))
    refuse_twenty(house, 23)
    assert (known(house)["kind"], known(house)["down"]) == ("paused", True)
    waits = []
    for _ in range(5):
        waits.append((known(house)["next_at"] - house.clock.at).total_seconds())
        items = trial(house)
        assert 1 <= len(items) <= 3 and house.claim(open_batches=1) == ()
        house.answer(items, Kind.FAILED, 0xC000)
        house.over(claimed=items, taken=False)
    assert waits == [10, 30, 60, 60, 60]
    assert len(house.events("destination_down")) == 1
    items = trial(house)
    house.answer(items)
    house.over(claimed=items)
    assert known(house)["down"] is False and len(house.events("destination_up")) == 1
    assert len(items) + len(house.claim()) == 23, "their pauses were for the destination's sake"


def test_a_paused_destination_recovers_although_nothing_is_due(house: House) -> None:
    """When each object waits out its own long pause, the next of them is tried all the same: it may be well again."""
    house.take(*(header(n) for n in range(1, 21)))
    refuse_twenty(house, 20)
    with house.tx() as tx:
        tx.execute(update(delivery).values(due_at=NOON + timedelta(minutes=30)))
    (item,) = trial(house)
    house.answer((item,))
    house.over(claimed=(item,))
    assert len(house.claim()) == 19


def test_nothing_is_parked_before_a_day_of_refusal(house: House) -> None:
    """A PACS that refuses all: what is tried is parked after a day of that, however often it was tried before."""
    house.take(*(header(n) for n in range(1, 5)))
    refuse_twenty(house, 4)
    while "parked" not in states(house):
        house.clock.tick(minutes=20)
        items = house.claim()
        assert items, "it is tried each time it is asked for"
        house.answer(items, Kind.FAILED, 0xC000)
        house.over(claimed=items, taken=False)
        assert house.clock.at < NOON + timedelta(days=2)
    assert timedelta(days=1) <= house.clock.at - NOON < timedelta(hours=26)
    assert "given up after" in house.events("delivery_parked")[0]["detail"]
    for row in house.rows(delivery):
        assert row["failures"] >= 10 or row["state"] == "waiting"


def test_other_words_for_the_same_trouble_are_no_news(house: House) -> None:
    """One event for days of closing and resetting; another kind of trouble is told, with its own words."""
    house.take(header(1))
    items = house.claim()
    house.over("PACS closed the connection", claimed=items)
    for words in ("PACS closed the connection (Connection reset by peer)", "PACS closed the connection") * 5:
        house.clock.at = known(house)["next_at"]
        house.probe(words)
        assert known(house)["reason"] == words
    house.clock.at = known(house)["next_at"]
    house.probe("PACS does not know us", trouble=Trouble.UNKNOWN_AE)
    told = [event["detail"] for event in house.events("destination_down")]
    assert told == ["PACS closed the connection", "PACS does not know us"]


# --- windows and priorities


def test_a_closed_window_holds_everything_and_an_open_one_lets_it_go(tmp_path: Path) -> None:
    """Sent only within the peer's hours, by the site's clock; what is claimed when it closes is finished."""
    text = SITE.replace('"127.0.0.1:4242",', '"127.0.0.1:4242", window: 19:00-06:00,')
    house = House(tmp_path, ROUTE, text=text)  # noon UTC is 13 o'clock in Berlin
    house.take(header(1))
    assert house.claim() == () and not house.asks()
    for hours, is_open in ((5.9, False), (6, True), (16.9, True), (17, False), (30, True)):
        house.clock.at = NOON + timedelta(hours=hours)
        house.take(header(int(hours * 10)))
        items = house.claim()
        assert bool(items) is is_open, hours
        house.clock.tick(hours=3)  # a slow association that outlasts its window
        house.answer(items)
        house.over(claimed=items)
    assert set(states(house)) == {"stored"}


def test_a_closed_window_keeps_a_destination_that_is_down_unasked(tmp_path: Path) -> None:
    """No C-ECHO either: the hours were agreed with its administrator."""
    text = SITE.replace('"127.0.0.1:4242",', '"127.0.0.1:4242", window: 19:00-06:00,')
    house = House(tmp_path, ROUTE, text=text)
    house.take(header(1))
    house.clock.at = NOON + timedelta(hours=16.95)
    items = house.claim()
    house.over("PACS at 127.0.0.1:4242: refused", claimed=items)
    house.clock.at = NOON + timedelta(hours=18)
    assert not house.asks()
    house.clock.at = NOON + timedelta(hours=30)
    assert house.asks()


PRIORITIES = "".join(
    rule(name, f"priority: {name}\nsend: [{{what: received, to: PACS}}]", f"{{Modality: {modality}}}")
    for name, modality in (("urgent", "XA"), ("normal", "CT"), ("low", "MR"))
)


def came(house: House, number: int, modality: str, minutes: float) -> None:
    """One object of a modality, so many minutes after noon."""
    house.clock.at = NOON + timedelta(minutes=minutes)
    house.take(header(number, series_uid=f"1.2.9.{number}", attributes={"Modality": modality}))


def test_urgent_overtakes_and_low_is_not_starved(tmp_path: Path) -> None:
    """Urgent goes first; low lets pass what comes within an hour after it, and then has its turn."""
    house = House(tmp_path, PRIORITIES)
    came(house, 1, "MR", 0)
    came(house, 2, "CT", 1)
    came(house, 3, "CT", 59)
    came(house, 4, "CT", 61)
    came(house, 5, "XA", 120)
    came(house, 6, "XA", 121)
    order = [item.sop_uid.rpartition(".")[2] for item in house.claim()]
    assert order == ["5", "6", "2", "3", "1", "4"]


def test_a_flood_of_normal_objects_does_not_starve_a_low_one(tmp_path: Path, monkeypatch: Any) -> None:
    """With a queue that never empties, the low object goes among those that came an hour after it."""
    monkeypatch.setattr("node.flow.delivering.BATCH", 2)
    house = House(tmp_path, PRIORITIES)
    came(house, 1, "MR", 0)
    for minutes in range(0, 120, 2):
        for number in (1, 2, 3):  # three come in the time in which two go
            came(house, 10 * minutes + 100 + number, "CT", minutes + number / 10)
        items = house.claim()
        house.answer(items)
        house.over(claimed=items)
        if "1.2.3.1" in [item.sop_uid for item in items]:
            break
    rank = house.rows(delivery)[0]["rank"]
    assert states(house)[0] == "stored"
    assert all(row["rank"] >= rank for row in house.rows(delivery) if row["state"] == "waiting")
