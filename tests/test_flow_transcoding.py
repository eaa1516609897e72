"""Claims about what follows from a refused transfer syntax, and from too much that waits for one destination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_material import JPEG, LITTLE, ROUTE, SITE, SMOOTH, House, done, header, product, rule
from sqlalchemy import update

from node import flow, fullness
from node.flow.transcoding import nobodys
from node.model import RunState
from node.send.protocol import Item, Kind, Result
from node.store import queues, watch
from node.store.acts import Act, on_deliveries
from node.store.choosing import Wanted
from node.store.schema import delivery, run

IMPLICIT, RLE, LOSSY = "1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.91"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node that sends everything to the PACS."""
    found = House(tmp_path, ROUTE)
    yield found
    found.database.close()


def refuse(house: House, items: Sequence[Item], *accepts: str) -> flow.Heard:
    """The PACS takes the class, but only in other syntaxes."""
    results = [
        Result(i.delivery, i.attempt, Kind.REFUSED_CONTEXT, None, "PACS does not accept it", accepts=accepts)
        for i in items
    ]
    with house.tx() as tx:
        return flow.delivered(tx, house.parts, "PACS", results)


def wanted(house: House) -> list[flow.Copying]:
    """The copies that are to be made."""
    with house.tx() as tx:
        return flow.to_copy(tx, house.parts, 50)


def made(house: House, copying: flow.Copying, syntax: str, failed: str = "") -> bool:
    """The transcoder has answered."""
    copying.out.parent.mkdir(exist_ok=True)
    copying.out.write_bytes(b"copy")
    with house.tx() as tx:
        return flow.copied(tx, house.parts, copying, syntax, failed)


def only(house: House) -> Mapping[str, Any]:
    """The one delivery there is."""
    (row,) = house.rows(delivery)
    return row


def test_refused_objects_of_a_batch_wait_for_copies_together(house: House) -> None:
    """One association learns all: every refused object is queued for a copy, with one event, and none is sent."""
    house.take(*(header(n, transfer_syntax=JPEG) for n in (1, 2, 3)))
    heard = refuse(house, house.claim(), LITTLE, IMPLICIT)
    assert heard.transcode and heard.taken and not heard.blamed
    assert {(row["state"], row["sent_syntax"]) for row in house.rows(delivery)} == {
        ("waiting", f"{LITTLE}\\{IMPLICIT}")
    }
    (event,) = house.events("transcoding")
    assert (
        event["detail"] == "3 objects: PACS does not accept it; a copy in Explicit VR Little Endian is made"
    )
    assert house.claim() == ()
    assert [copying.request["to"] for copying in wanted(house)] == [[LITTLE, IMPLICIT]] * 3


def test_a_copy_is_sent_in_its_place_and_let_go(house: House) -> None:
    """The copy's file and syntax under the object's own UID; when it is stored nobody needs the copy."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE)
    (copying,) = wanted(house)
    assert made(house, copying, LITTLE)
    (item,) = house.claim()
    assert (item.path, item.transfer_syntax, item.sop_uid) == (str(copying.out), LITTLE, "1.2.3.1")
    with house.tx() as tx:
        result = Result(item.delivery, item.attempt, Kind.STORED, 0, "stored")
        heard = flow.delivered(tx, house.parts, "PACS", [result])
    assert heard.copies == (copying.out,)
    assert (only(house)["state"], only(house)["sent_path"], only(house)["sent_syntax"]) == (
        "stored",
        "",
        LITTLE,
    )
    assert only(house)["reason"] == "stored, as a copy in Explicit VR Little Endian"


def test_a_failure_of_a_copy_keeps_it_for_the_next_attempt(house: House) -> None:
    """A700 is the destination's trouble: the same copy goes again. A copy that is gone is made anew."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE)
    (copying,) = wanted(house)
    made(house, copying, LITTLE)
    house.answer(house.claim(), Kind.FAILED, 0xA700)
    assert only(house)["sent_path"] and wanted(house) == []
    house.clock.tick(minutes=2)
    (item,) = house.claim()
    assert item.path == str(copying.out)
    house.answer((item,), Kind.UNREADABLE_FILE, None)
    (again,) = wanted(house)
    assert again.out != copying.out and again.request["to"] == [LITTLE]


@pytest.mark.parametrize(
    ("accepts", "says"),
    [
        ((), "name it under `transfer_syntaxes` of peer PACS"),
        (
            (LOSSY,),
            "JPEG 2000 Image Compression, which loses: `lossy: ok` in the rule's send entry allows it",
        ),
    ],
)
def test_what_cannot_be_helped_is_parked_at_once(house: House, accepts: tuple[str, ...], says: str) -> None:
    """No alternative, or only a lossy one that no rule allows: a person has to set something, and reads what."""
    house.take(header(1, transfer_syntax=JPEG))
    assert not refuse(house, house.claim(), *accepts).transcode
    assert only(house)["state"] == "parked" and says in only(house)["reason"]


def test_loss_is_the_last_resort_of_who_allows_it(tmp_path: Path) -> None:
    """With `lossy: ok` what loses nothing still goes first; the lossy copy has a UID of its own, always the same."""
    house = House(tmp_path, rule("route", "send: [{what: received, to: PACS, lossy: ok}]", "{}"))
    house.take(header(1, transfer_syntax=JPEG), header(2, transfer_syntax=JPEG))
    first, second = house.claim()
    refuse(house, [first], LOSSY, RLE)
    refuse(house, [second], LOSSY)
    one, two = wanted(house)
    assert (one.request["to"], two.request["to"]) == ([RLE, LOSSY], [LOSSY])
    made(house, two, LOSSY)
    (item,) = house.claim()
    assert item.sop_uid == two.request["lossy"][LOSSY][0] != second.sop_uid
    house.answer((item,), Kind.UNREADABLE_FILE, None)
    assert wanted(house)[-1].request["lossy"] == two.request["lossy"]
    house.database.close()


def test_a_copy_that_is_refused_too_is_parked(house: House) -> None:
    """A destination that takes back what it accepted is not transcoded for in circles."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE)
    made(house, wanted(house)[0], LITTLE)
    refuse(house, house.claim(), IMPLICIT)
    assert only(house)["state"] == "parked" and only(house)["sent_path"] == ""


def test_what_cannot_be_transcoded_is_parked_with_all_that_was_tried(house: House) -> None:
    """What was refused, what was tried, why it failed and what to set, in one sentence."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE, RLE)
    assert not made(house, wanted(house)[0], "", "its pixels cannot be decoded")
    why = only(house)["reason"]
    assert only(house)["state"] == "parked"
    for words in ("PACS refuses it in JPEG Lossless", "takes it in Explicit VR Little Endian or RLE Lossless",
                  "its pixels cannot be decoded", "`transfer_syntaxes`"):  # fmt: skip
        assert words in why
    (event,) = house.events("delivery_parked")
    assert event["instance_id"] == only(house)["instance_id"]


def test_retry_by_hand_begins_with_the_object_as_it_is(house: House) -> None:
    """A person has changed something at the destination: the original is tried first; a late copy is nobody's."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE)
    (copying,) = wanted(house)
    with house.tx() as tx:
        on_deliveries(tx, Act("hold", house.clock.at), Wanted(destination="PACS"))
        on_deliveries(tx, Act("release", house.clock.at), Wanted(destination="PACS"))
    assert not made(house, copying, LITTLE)
    with house.tx() as tx:
        assert list(nobodys(tx, copying.out.parent)) == [copying.out]
    (item,) = house.claim()
    assert item.transfer_syntax == JPEG and item.path != str(copying.out)


def test_a_newer_header_is_sent_as_it_is(house: House) -> None:
    """What waits as a copy of the older header sends the newer object, and decides about it anew."""
    house.take(header(1, transfer_syntax=JPEG))
    refuse(house, house.claim(), LITTLE)
    made(house, wanted(house)[0], LITTLE)
    newer = header(1, transfer_syntax=JPEG, digest="f" * 64)
    house.take(newer)
    (item,) = house.claim()
    assert item.transfer_syntax == JPEG


def test_no_copies_are_made_for_a_destination_that_is_down(house: House) -> None:
    """They would only fill the disk."""
    house.take(header(1, transfer_syntax=JPEG))
    items = house.claim()
    refuse(house, items, LITTLE)
    house.over("no route", claimed=items)
    assert wanted(house) == []


# --- what waits for one destination


def crowd(house: House, *names: str) -> None:
    """So much waits for these that they are over their share."""
    with house.tx() as tx:
        for name in names:
            queues.set_destination(tx, name, waiting_bytes=fullness.disk_bytes(house.parts.data))


def startable(house: House, room: int = 1) -> list[str]:
    """The rules whose runs may start now."""
    with house.tx() as tx:
        crowded = fullness.crowding(house.parts.settings, watch.waiting_bytes(tx))
        return [row["rule"] for row in flow.startable(tx, house.parts, room, crowded)]


def test_a_run_that_only_goes_where_too_much_waits_waits_too(tmp_path: Path) -> None:
    """Others go first, also where they go there beside another; it says why and goes on by itself."""
    both = rule("both", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: [PACS, ARCHIVE]}]")
    house = House(tmp_path, SMOOTH + both, text=SITE)
    house.complete(*(header(n) for n in range(1, 5)))
    crowd(house, "PACS")
    assert startable(house) == ["both"]
    (late,) = [row for row in house.rows(run) if row["rule"] == "smooth"]
    assert late["state"] == RunState.WAITING
    assert "what waits for PACS takes 100% of the disk: above disk.per_destination (30%)" in late["reason"]
    house.clock.tick(seconds=59)
    assert startable(house, 2) == ["both"]
    house.clock.tick(seconds=2)
    with house.tx() as tx:
        watch.remember_waiting_bytes(tx, {})
    assert sorted(startable(house, 2)) == ["both", "smooth"]
    started = house.start()
    assert started is not None and house.rows(run)[started.run - 1]["reason"] == ""
    house.database.close()


def test_all_destinations_must_be_crowded(tmp_path: Path) -> None:
    """A run goes ahead as long as one of its destinations has room; on trial it sends nothing and goes, too."""
    both = rule("both", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: [PACS, ARCHIVE]}]")
    trial = SMOOTH.replace("rule: smooth", "rule: trial\nmode: shadow")
    house = House(tmp_path, both + trial, text=SITE)
    house.complete(*(header(n) for n in range(1, 5)))
    crowd(house, "PACS", "ARCHIVE")
    assert startable(house, 2) == ["trial"]
    house.database.close()


def test_a_hundred_percent_is_no_limit(house: House) -> None:
    """Whatever waits, nothing is crowded."""
    settings = replace(house.parts.settings, disk=replace(house.parts.settings.disk, per_destination=1.0))
    assert fullness.crowding(settings, {"PACS": 10**18}) == {}


def test_results_are_counted_by_the_bytes_of_their_files(tmp_path: Path) -> None:
    """The size that the worker gives of each result is kept, and counted while it waits."""
    house = House(tmp_path, SMOOTH)
    house.complete(*(header(n) for n in range(1, 5)))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1, size=300), product(2, size=45)))
    with house.tx() as tx:
        assert watch.count_waiting_bytes(tx) == {"PACS": 345}
        tx.execute(update(delivery).values(state="cancelled"))
        assert watch.count_waiting_bytes(tx) == {}
    house.database.close()
