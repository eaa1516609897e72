"""Storage commitment as the conductor decides it, both roles: a real database, and a clock that is told to go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import CT, SITE, SMOOTH, House, done, header, product, rule
from store.store_cases import STATES, opened

from node import flow
from node.commitment import Dialogue, Reference
from node.flow import committing, pledging
from node.flow.committing import Asking, Sorted, sort_answer
from node.flow.pledging import Object, Reporting, judge, storable
from node.model import CommitMessage
from node.send.protocol import Item
from node.store import commitments, pledges
from node.store.schema import commitment, delivery, pledge

COMMITTING = SITE.replace(
    'address: "127.0.0.1:4242", redeliver_after: 10 min',
    'address: "127.0.0.1:4242", redeliver_after: 10 min, '
    'commit: {ae_title: KEEPER, address: "127.0.0.1:4250", within: 4 h}',
).replace("  ARCHIVE:", '  MR02: {ae_title: MR02, address: "127.0.0.1:4251", commit_after: PACS}\n  ARCHIVE:')
ROUTES = rule("route", "send: [{what: received, to: PACS}]", "{}")
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node whose PACS commits, and one modality that may ask."""
    made = House(tmp_path, rules=ROUTES + SMOOTH, text=COMMITTING)
    yield made
    made.database.close()


@pytest.fixture(params=STATES)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """The same on each database."""
    made = House(tmp_path, rules=ROUTES + SMOOTH, text=COMMITTING, state=opened(request))
    yield made
    made.database.close()


def send(house: House, *numbers: int) -> tuple[Item, ...]:
    """Objects come and are stored at the PACS."""
    house.take(*(header(number) for number in numbers))
    items = house.claim()
    house.answer(items)
    house.over(claimed=items)
    return items


def ask(house: House, under_way: int = 0, to: str = "PACS") -> Asking | None:
    """Ask the PACS, if it is time."""
    with house.tx() as tx:
        return flow.ask_to_commit(tx, house.parts, to, under_way)


def asked(house: House, asking: Asking, error: str | None = None) -> None:
    """The PACS took the request, or did not."""
    with house.tx() as tx:
        flow.asked(tx, house.parts, asking.said.transaction_uid, error)


def answer(house: House, asking: Asking, **failures: int) -> bool:
    """The PACS reports: `u1=0x0112` fails object 1.2.3.1, `u1=-1` does not mention it."""
    said = {one.sop_uid: failures.get(f"u{one.sop_uid[6:]}", 0) for one in asking.said.references}
    named = tuple(Reference(CT, uid, reason) for uid, reason in said.items() if reason >= 0)
    with house.tx() as tx:
        return flow.answered(tx, house.parts, Dialogue(asking.said.transaction_uid, named))


def gathered(house: House, *numbers: int) -> Asking:
    """Objects were sent, and the request over them is taken."""
    send(house, *numbers)
    house.clock.tick(seconds=3)
    found = ask(house)
    assert found is not None
    asked(house, found)
    return found


def states(house: House) -> list[str]:
    """The deliveries' states in order."""
    return [str(row["state"]) for row in house.rows(delivery)]


# --- we ask


def test_one_request_covers_what_was_stored_together(house: House) -> None:
    """It waits for objects that were stored just now, names each with its class, and calls the AE that commits."""
    send(house, 1)
    assert ask(house) is None, "stored just now: others may follow"
    house.clock.tick(seconds=1.5)
    send(house, 2)
    house.clock.tick(seconds=1)
    assert ask(house) is None, "another one was stored a second ago"
    house.clock.tick(seconds=1.5)
    assert ask(house, under_way=1) is None, "more is being sent"
    found = ask(house)
    assert found is not None
    assert found.said.references == (Reference(CT, "1.2.3.1"), Reference(CT, "1.2.3.2"))
    where = found.where
    assert (where.host, where.port, where.ae_title, where.calling_ae) == (
        "127.0.0.1",
        4250,
        "KEEPER",
        "PACSNODE",
    )
    assert ask(house) is None, "nothing is left to ask"
    assert states(house) == ["stored", "stored"]


def test_results_are_asked_about_too(house: House) -> None:
    """A derived object that the PACS stored is one of the references, with its class."""
    house.complete(header(1))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(sop_class=MR)))
    items = house.claim()
    house.answer(items)
    house.over(claimed=items)
    house.clock.tick(seconds=3)
    found = ask(house)
    assert found is not None
    assert set(found.said.references) == {Reference(CT, "1.2.3.1"), Reference(MR, "2.25.1")}
    assert answer(house, found) and states(house) == ["committed", "committed"]


def test_a_lossy_copy_is_an_object_of_its_own(house: House) -> None:
    """The PACS is asked about the copy that it has; who asks us about the original has no success for that."""
    send(house, 1)
    with house.tx() as tx:
        tx.execute(delivery.update().values(sent_syntax="1.2.840.10008.1.2.4.91"))
    house.clock.tick(seconds=3)
    found = ask(house)
    assert found is not None
    ((_, uid),) = ((one.sop_class, one.sop_uid) for one in found.said.references)
    assert uid.startswith("2.25.")
    asked(house, found)
    assert answer(house, found) and states(house) == ["committed"]
    promise(house, "1.2.7", "1.2.3.1")
    house.clock.tick(hours=5)
    told = look(house)
    assert told is not None and told.said.references == (Reference(CT, "1.2.3.1", 0x0110),)


def test_a_steady_stream_does_not_put_it_off(house: House) -> None:
    """While more and more is sent, an object is asked about after half a minute at the latest."""
    send(house, 1)
    house.clock.tick(seconds=33)
    assert ask(house, under_way=1) is not None


def test_an_answer_moves_what_it_names(both: House) -> None:
    """Committed, or sent again with the reason in words; what is not named stays asked until its time is over."""
    house = both
    found = gathered(house, 1, 2, 3)
    assert answer(house, found, u2=0x0112, u3=-1)
    one, two, three = house.rows(delivery)
    assert (one["state"], one["reason"], one["commit_due"]) == ("committed", "committed", None)
    assert (two["state"], two["commit_due"], two["commit_failures"]) == ("waiting", None, 1)
    assert two["reason"] == "PACS does not commit to it: 0112H, it has no such object; it is sent again"
    assert three["state"] == "stored" and three["commit_due"] == house.clock.at + timedelta(
        hours=4, seconds=0
    )
    assert [row["name"] for row in house.events("commitment_failed")] == ["commitment_failed"]
    assert house.rows(commitment)[0]["state"] == "asked"
    house.clock.tick(hours=4)
    with house.tx() as tx:
        flow.unanswered(tx, house.parts)
    (event,) = house.events("commitment_unanswered")
    assert event["detail"] == "no answer for 1 object; asked again"
    again = ask(house)
    assert again is not None and again.said.references == (Reference(CT, "1.2.3.3"),)
    assert again.said.transaction_uid != found.said.transaction_uid
    asked(house, again)
    assert answer(house, again)
    assert [row["state"] for row in house.rows(commitment)] == ["expired", "answered"]


def test_an_object_is_not_sent_again_for_ever(house: House) -> None:
    """After five rounds in which the PACS does not commit to it, it is parked; a retry by hand begins anew."""
    found = gathered(house, 1)
    for _ in range(5):
        answer(house, found, u1=0x0110)
        assert states(house) == ["waiting"]
        assert house.claim() == (), "there is a pause before it is sent again"
        house.clock.tick(hours=1)
        items = house.claim()
        house.answer(items)
        house.over(claimed=items)
        house.clock.tick(seconds=3)
        following = ask(house)
        assert following is not None
        asked(house, following)
        found = following
    answer(house, found, u1=0x0110)
    (row,) = house.rows(delivery)
    assert row["state"] == "parked" and "given up after it was sent again 5 times" in row["reason"]
    assert len(house.events("delivery_parked")) == 1


def test_a_late_or_repeated_answer(house: House) -> None:
    """An answer counts for what was not asked about again since, once; nobody's transaction is said to be so."""
    found = gathered(house, 1)
    house.clock.tick(hours=4)
    with house.tx() as tx:
        flow.unanswered(tx, house.parts)
    assert answer(house, found), "expired, and not asked again yet"
    assert states(house) == ["committed"]
    assert answer(house, found, u1=0x0110), "the same transaction once more"
    assert states(house) == ["committed"]
    first = gathered(house, 2)
    house.clock.tick(hours=4)
    second = ask(house)
    assert second is not None
    assert answer(house, first, u2=0x0110)
    assert states(house)[1] == "stored", "it was asked about again since: the newer request's answer counts"
    with house.tx() as tx:
        assert not flow.answered(tx, house.parts, Dialogue("1.2.3", (Reference(CT, "1.2.3.2"),)))


def test_a_refused_request_is_repeated_with_growing_pauses(house: House) -> None:
    """10, 20, 40 … seconds up to half an hour; each time with an event, and the destination stays up."""
    send(house, 1)
    house.clock.tick(seconds=3)
    pauses, found = [], ask(house)
    for number in range(2, 12):
        assert found is not None
        asked(house, found, "PACS at 127.0.0.1:4250 refused the connection")
        start, found = house.clock.at, None
        send(house, number)  # what is stored meanwhile does not shorten the pause
        while found is None:
            house.clock.tick(seconds=5)
            found = ask(house)
        pauses.append(round((house.clock.at - start).total_seconds()))
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800]
    assert len(house.events("commitment_refused")) == 10
    assert not house.events("destination_down")
    assert house.rows(delivery)[0]["state"] == "stored"


def test_a_restart_asks_again_under_a_new_uid(house: House) -> None:
    """A request that was on its way when the node ended is over, and its objects are asked about at once."""
    send(house, 1)
    house.clock.tick(seconds=3)
    first = ask(house)
    with house.tx() as tx:
        assert flow.nobody_knows(tx, house.parts) == 1
    second = ask(house)
    assert first is not None and second is not None
    assert first.said.references == second.said.references
    assert first.said.transaction_uid != second.said.transaction_uid


def test_the_site_file_decides_who_is_asked(both: House) -> None:
    """What was stored before `commit` was written is asked about after a restart; without it nothing is any more."""
    house = both
    with house.tx() as tx:
        commitments.follow_settings(tx, [], house.clock.at)
    send(house, 1)
    with house.tx() as tx:
        commitments.follow_settings(tx, [], house.clock.at)
    house.clock.tick(hours=1)
    assert ask(house) is None
    with house.tx() as tx:
        commitments.follow_settings(tx, ["PACS"], house.clock.at)
    assert ask(house) is not None
    assert ask(house, to="ARCHIVE") is None, "it does not commit"


def test_a_clock_that_was_set_back_keeps_nobody_waiting(both: House) -> None:
    """Moments of commitment beyond their policy are brought near, as for all that waits."""
    house = both
    found = gathered(house, 1)
    promise(house, "1.2.7", "1.2.3.1")
    house.clock.tick(days=-3)
    with house.tx() as tx:
        assert flow.cap_waits(tx, house.parts) >= 3
    assert house.rows(delivery)[0]["commit_due"] == house.clock.at + timedelta(hours=4)
    assert house.rows(pledge)[0]["due_at"] == house.clock.at + timedelta(hours=4)
    assert answer(house, found) and states(house) == ["committed"]


PENDING: list[dict[str, Any]] = [{"id": n, "sop_uid": f"1.{n}", "commit_failures": n} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([("1.1", 0), ("1.2", 0), ("1.3", 0)], Sorted((1, 2, 3))),
        ([("1.1", 0), ("1.2", 0x0110)], Sorted((1,), ((2, 0x0110, 2),), left=1)),
        ([("1.1", 0x0131), ("1.2", 0x0131), ("1.3", 0x0131)], Sorted(again=True, left=3)),
        ([("1.9", 0), ("1.8", 0x0112)], Sorted(left=3)),
        ([("1.1", 0), ("1.1", 0x0112)], Sorted(failed=((1, 0x0112, 1),), left=2)),
        ([], Sorted(left=3)),
    ],
    ids=["all", "some", "our UID was used before", "of others only", "both", "nothing"],
)
def test_what_an_answer_means(said: list[tuple[str, int]], expected: Sorted) -> None:
    """Success, failure, unmentioned; the worse counts where both are said."""
    assert sort_answer(PENDING, [Reference(CT, uid, reason) for uid, reason in said]) == expected


# --- we are asked


def promise(house: House, transaction: str, *uids: str, sop_class: str = CT, peer: str = "MR02") -> None:
    """A modality asks us to commit."""
    message = CommitMessage("N-ACTION", 1, "1.2.840.10008.1.2", peer, "PACSNODE", "1-9", house.clock.at)
    said = Dialogue(transaction, tuple(Reference(sop_class, uid) for uid in uids))
    with house.tx() as tx:
        flow.pledged(tx, house.parts, message, said)


def look(house: House, settled: bool = True) -> Reporting | None:
    """Look at what is due; what is to be reported."""
    found = None
    with house.tx() as tx:
        for row in pledges.due(tx, house.clock.at, 10):
            found = flow.look(tx, house.parts, row, settled=settled) or found
    return found


def reported(house: House, error: str | None = None) -> None:
    """The modality was told, or not."""
    with house.tx() as tx:
        for row in pledges.due(tx, house.clock.at, 10):
            flow.reported(tx, house.parts, row, error)


def test_success_is_what_the_archive_said(both: House) -> None:
    """Kept, routed, stored is not enough: the moment the archive has committed, and not before, it is reported."""
    house = both
    promise(house, "1.2.7", "1.2.3.1")
    assert look(house, settled=False) is None, "it may have come over another association"
    house.clock.tick(seconds=6)
    found = gathered(house, 1)
    house.clock.tick(seconds=6)
    assert look(house) is None
    assert answer(house, found)
    told = look(house)
    assert told is not None
    assert told.said == Dialogue("1.2.7", (Reference(CT, "1.2.3.1"),)) and told.said.event_type == 1
    where = told.where
    assert (where.port, where.ae_title, where.calling_ae) == (4251, "MR02", "PACSNODE")
    reported(house)
    (row,) = house.rows(pledge)
    assert (row["state"], row["reason"], row["asked"], row["report"]) == (
        "reported",
        "1 object committed",
        "",
        "",
    )


def test_what_is_not_committed_in_time_fails_and_is_not_deleted(house: House) -> None:
    """0110H after the archive's `within`; what was decided stands, whatever the archive says later."""
    found = gathered(house, 1)
    promise(house, "1.2.7", "1.2.3.1")
    house.clock.tick(hours=3, minutes=59)
    assert look(house) is None
    house.clock.tick(minutes=1)
    assert answer(house, found, u1=0x0110)
    told = look(house)
    assert told is not None and told.said.event_type == 2
    assert told.said.references == (Reference(CT, "1.2.3.1", 0x0110),)
    assert states(house) == ["waiting"]


def test_a_transaction_uid_is_used_once_by_each_peer(both: House) -> None:
    """0131H for the second use by the same modality; two modalities do not know of each other."""
    house = both
    promise(house, "1.2.7", "1.2.3.1")
    promise(house, "1.2.7", "1.2.3.1")
    promise(house, "1.2.7", "1.2.3.1", peer="MR03")
    first, second, other = house.rows(pledge)
    assert (first["state"], second["state"], other["state"]) == ("waiting", "reporting", "waiting")
    assert "0131H" in second["reason"]


def test_a_peer_that_asks_without_end_is_answered_with_no_room(house: House, monkeypatch: Any) -> None:
    """Beyond so many open requests each reference fails with 0213H, and nothing piles up."""
    monkeypatch.setattr(pledging, "MOST_OPEN", 2)
    for number in range(3):
        promise(house, f"1.2.7.{number}", "1.2.3.1")
    assert [row["state"] for row in house.rows(pledge)] == ["waiting", "waiting", "reporting"]


def test_a_peer_that_cannot_be_told(house: House) -> None:
    """It is tried again for a week with pauses up to half an hour; one without an address is given up in words."""
    promise(house, "1.2.7", "9.9")
    assert look(house) is not None
    reported(house, "MR02 at 127.0.0.1:4251 refused the connection")
    assert look(house) is None, "there is a pause"
    house.clock.tick(seconds=2)
    assert look(house) is not None
    house.clock.tick(days=6)
    assert look(house) is not None
    reported(house, "refused")
    house.clock.tick(days=2)
    reported(house, "refused")
    (row,) = house.rows(pledge)
    assert row["state"] == "given_up" and "could not be told for 7 days" in row["reason"]
    assert len(house.events("pledge_untold")) == 1
    promise(house, "1.2.8", "9.9", peer="CT01")
    house.clock.tick(minutes=2)
    assert look(house) is None
    assert house.rows(pledge)[1]["state"] == "given_up"
    assert "give it ae_title and address" in house.rows(pledge)[1]["reason"]


def test_an_object_that_contradicts_the_kept_one_is_not_committed(house: House) -> None:
    """The modality's own object was kept aside: that the archive has the other one is no success for it."""
    found = gathered(house, 1)
    answer(house, found)
    house.take(header(1, pixel_digest="f" * 64, digest="e" * 64, peer="MR02"))
    promise(house, "1.2.7", "1.2.3.1")
    assert look(house) is None
    house.clock.tick(hours=5)
    told = look(house)
    assert told is not None and told.said.references[0].failure == 0x0110


STORED, COMMITTED = Object(CT, committed=False), Object(CT, committed=True)


@pytest.mark.parametrize(
    ("known", "sop_class", "settled", "late", "expected"),
    [
        (COMMITTED, CT, True, False, 0),
        (COMMITTED, CT, True, True, 0),
        (STORED, CT, True, False, None),
        (STORED, CT, True, True, 0x0110),
        (None, CT, False, False, None),
        (None, CT, True, False, 0x0112),
        (None, CT, False, True, 0x0112),
        (COMMITTED, MR, True, False, 0x0119),
        (STORED, MR, True, True, 0x0119),
        (COMMITTED, "1.2.840.10008.1.1", True, False, 0x0122),
        (None, "", True, False, 0x0122),
        (None, "1.3.12.2.1107.5.9.1", True, False, 0x0112),
    ],
)
def test_one_reference(
    known: Object | None, sop_class: str, settled: bool, late: bool, expected: int | None
) -> None:
    """Each reference has its Failure Reason (PS3.3 C.14.1.1), 0 for success, or stays open."""
    assert judge(Reference(sop_class, "1.2"), known, settled=settled, late=late) == expected


@pytest.mark.parametrize(
    ("sop_class", "expected"),
    [
        (CT, True), (MR, True), ("1.2.840.10008.5.1.4.1.1.1.1.1", True), ("1.2.840.10008.5.1.4.1.1.88.33", True),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", True), ("1.2.840.10008.5.1.4.1.1.66.4", True), ("1.3.12.2.1107.5.9.1", True),
        ("1.2.840.10008.1.20.1", False), ("1.2.840.10008.1.3.10", False), ("1.2.840.10008.5.1.4.31", False),
        ("1.2.840.10008.1.2.1", False), ("", False),
    ],
)  # fmt: skip
def test_what_can_be_stored(sop_class: str, expected: bool) -> None:
    """Storage classes, and what nobody knows; not services, directories or transfer syntaxes."""
    assert storable(sop_class) == expected


def test_the_pauses_of_a_refusing_destination_end_at_half_an_hour() -> None:
    """However often it refused."""
    assert committing.pause(99, committing._REFUSED) == timedelta(minutes=30)


def test_what_is_long_over_is_forgotten(house: House) -> None:
    """Requests of both roles go when they were over for long; open ones stay."""
    answer(house, gathered(house, 1))
    gathered(house, 2)
    promise(house, "1.2.7", "9.9")
    assert look(house) is not None
    reported(house)
    promise(house, "1.2.8", "9.9")
    with house.tx() as tx:
        commitments.forget(tx, house.clock.at + timedelta(days=1))
        pledges.forget(tx, house.clock.at + timedelta(days=1))
    assert [row["state"] for row in house.rows(commitment)] == ["asked"]
    assert [row["state"] for row in house.rows(pledge)] == ["waiting"]
