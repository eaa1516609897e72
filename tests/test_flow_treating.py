"""Claims about objects that a rule changes on their way: the copy is made first, and only it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_material import JPEG, LITTLE, ROUTE, SMOOTH, House, done, header, product, rule
from sqlalchemy import update

from node import flow
from node.flow.transcoding import FOLDER, nobodys, stored_as
from node.send.protocol import Item, Kind, Result
from node.store import lookups
from node.store.acts import Act, on_deliveries
from node.store.choosing import Wanted
from node.store.replays import Replay, replay_series
from node.store.schema import delivery, destination

IMPLICIT = "1.2.840.10008.1.2"
TREATMENT = json.dumps({"edit": {"changes": [{"op": "remove", "path": "PatientComments"}]}})
DIGEST = "ab" * 32


def treated_rules(house: House, treatment: str = TREATMENT, **tables: str) -> None:
    """Give every send of the house's rules this treatment."""
    rules = tuple(
        replace(one, sends=tuple(replace(send, treatment=treatment) for send in one.sends))
        for one in house.parts.rules.rules
    )
    house.parts.rules = replace(house.parts.rules, rules=rules, lookups=tables)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node that sends everything to the PACS, changed."""
    found = House(tmp_path, ROUTE)
    treated_rules(found)
    yield found
    found.database.close()


def wanted(house: House) -> list[flow.Copying]:
    """The copies that are to be made."""
    with house.tx() as tx:
        return flow.to_copy(tx, house.parts, 50)


def made(house: House, copying: flow.Copying, syntax: str = "", failed: str = "", sop_uid: str = "") -> bool:
    """The transcoder has answered."""
    copying.out.parent.mkdir(exist_ok=True)
    copying.out.write_bytes(b"copy")
    syntax = syntax or copying.request["syntax"]
    with house.tx() as tx:
        return flow.copied(tx, house.parts, copying, syntax, failed, sop_uid or copying.request["sop_uid"])


def refuse(house: House, item: Item, *accepts: str) -> flow.Heard:
    """The PACS takes the class, but only in other syntaxes."""
    result = Result(
        item.delivery, item.attempt, Kind.REFUSED_CONTEXT, None, "PACS does not accept it", accepts=accepts
    )
    with house.tx() as tx:
        return flow.delivered(tx, house.parts, "PACS", [result])


def stored(house: House, item: Item) -> flow.Heard:
    """The PACS has it."""
    with house.tx() as tx:
        result = Result(item.delivery, item.attempt, Kind.STORED, 0, "stored")
        return flow.delivered(tx, house.parts, "PACS", [result])


def only(house: House) -> Mapping[str, Any]:
    """The one delivery there is."""
    (row,) = house.rows(delivery)
    return row


def test_nothing_goes_before_its_copy(house: House) -> None:
    """A treated delivery cannot be claimed; the transcoder is told at once what to do, to whom it came, and when."""
    house.take(header(1))
    assert house.claim() == () and house.parts.treated
    (copying,) = wanted(house)
    assert (copying.request["to"], copying.request["treatment"]) == ([], json.loads(TREATMENT))
    about = copying.request["about"]
    assert (about["received"], about["from"], about["at"]) == (True, "CT01", "2026-03-01T13:00:00+01:00")
    assert made(house, copying)
    (item,) = house.claim()
    assert (item.path, item.sop_uid, item.transfer_syntax) == (str(copying.out), "1.2.3.1", LITTLE)
    assert stored(house, item).copies == (copying.out,)
    assert only(house)["reason"] == "stored, changed by its rule"


def test_a_copy_that_cannot_be_made_parks_its_delivery_only(tmp_path: Path) -> None:
    """The sentence says what is in the way; what goes elsewhere as it is goes."""
    house = House(tmp_path, ROUTE + rule("other", "send: [{what: received, to: ARCHIVE}]", "{}"))
    treated_rules(house)
    other = replace(
        house.parts.rules.rules[1], sends=(replace(house.parts.rules.rules[1].sends[0], treatment=""),)
    )
    house.parts.rules = replace(house.parts.rules, rules=(house.parts.rules.rules[0], other))
    house.take(header(1))
    (copying,) = wanted(house)
    assert not made(house, copying, failed="PatientID would be too long")
    states = {row["destination"]: row["state"] for row in house.rows(delivery)}
    assert states == {"PACS": "parked", "ARCHIVE": "waiting"} and len(house.claim("ARCHIVE")) == 1
    assert house.rows(delivery)[0]["reason"] == (
        "it cannot be changed as its rule says, so it does not go to PACS: PatientID would be too long"
    )
    house.database.close()


def test_a_treated_copy_may_need_another_transfer_syntax(house: House) -> None:
    """It is made anew from the object in what the destination takes; the first copy goes; twice is the end."""
    house.take(header(1, transfer_syntax=JPEG))
    (first,) = wanted(house)
    made(house, first)
    (item,) = house.claim()
    assert refuse(house, item, LITTLE).copies == (first.out,)
    (second,) = wanted(house)
    assert (second.request["to"], second.request["source"]) == ([LITTLE], first.request["source"])
    made(house, second, LITTLE)
    (item,) = house.claim()
    refuse(house, item, IMPLICIT)
    (third,) = wanted(house)
    made(house, third, IMPLICIT)
    refuse(house, house.claim()[0], LITTLE)
    assert only(house)["state"] == "parked" and wanted(house) == []


def test_a_copy_with_a_uid_of_its_own_is_known_by_it(house: House) -> None:
    """It is sent, and asked about when it is to be committed, under its own UID."""
    house.take(header(1))
    (copying,) = wanted(house)
    made(house, copying, sop_uid="2.25.77")
    (item,) = house.claim()
    assert item.sop_uid == "2.25.77"
    stored(house, item)
    assert stored_as({**only(house), "sop_uid": "1.2.3.1", "digest": ""}) == "2.25.77"


def test_a_newer_header_gets_a_copy_of_its_own(house: House) -> None:
    """What waits as a copy of the older header waits again, for one of the newer object, with the same treatment."""
    house.take(header(1))
    (old,) = wanted(house)
    made(house, old)
    house.take(header(1, digest="f" * 64))
    assert house.claim() == ()
    (new,) = wanted(house)
    assert new.request["source"] != old.request["source"] and new.request["treatment"] == json.loads(
        TREATMENT
    )


def test_a_copy_of_the_older_header_is_not_taken_for_one_of_the_newer(house: House) -> None:
    """The transcoder was at the older object when the newer one took its place: its answer is nobody's."""
    house.take(header(1))
    (old,) = wanted(house)
    house.take(header(1, digest="f" * 64))
    assert not made(house, old) and house.claim() == ()
    (new,) = wanted(house)
    assert made(house, new) and len(house.claim()) == 1


def test_a_newer_header_of_what_was_sent_goes_changed_too(house: House) -> None:
    """The delivery that re-issues it has the treatment of the first."""
    house.take(header(1))
    (copying,) = wanted(house)
    made(house, copying)
    stored(house, house.claim()[0])
    house.take(header(1, digest="f" * 64))
    assert house.claim() == ()
    assert [row["treatment"] for row in house.rows(delivery)] == [TREATMENT, TREATMENT]


def test_a_redelivery_sends_the_same_copy_again(house: House) -> None:
    """The sender asked once more: the copy is made again, from the same object, in the syntax that was taken."""
    house.take(header(1, transfer_syntax=JPEG))
    (first,) = wanted(house)
    made(house, first)
    refuse(house, house.claim()[0], LITTLE)
    (second,) = wanted(house)
    made(house, second, LITTLE)
    stored(house, house.claim()[0])
    house.clock.tick(minutes=11)
    house.parts.treated = False
    house.take(header(1, transfer_syntax=JPEG))
    assert house.claim() == () and house.parts.treated
    (again,) = wanted(house)
    same = ("source", "to", "treatment", "about", "key")
    assert {k: again.request[k] for k in same} == {k: second.request[k] for k in same}


def test_retry_by_hand_makes_the_copy_again(house: House) -> None:
    """A parked copy is tried anew, changed; what was received never goes as it is."""
    house.take(header(1))
    (copying,) = wanted(house)
    made(house, copying, failed="the disk was odd")
    with house.tx() as tx:
        on_deliveries(tx, Act("retry", house.clock.at), Wanted(destination="PACS"))
    assert house.claim() == () and len(wanted(house)) == 1


def test_what_is_rejected_gets_no_copy(house: House) -> None:
    """A delivery that is cancelled while its copy is made sends nothing, and the copy is nobody's."""
    house.take(header(1))
    (copying,) = wanted(house)
    with house.tx() as tx:
        on_deliveries(tx, Act("cancel", house.clock.at), Wanted(destination="PACS"))
    assert not made(house, copying) and wanted(house) == []


def test_a_destination_that_was_down_gets_copies_when_it_is_tried_again(house: House) -> None:
    """None are made while it is away; on trial some are, or it would never be up again."""
    house.take(header(1))
    with house.tx() as tx:
        flow.batch_over(tx, house.parts, "PACS", "no route", [])
    assert wanted(house) == []
    house.probe()
    assert len(wanted(house)) == 1
    made(house, wanted(house)[0])
    house.clock.tick(minutes=2)
    assert len(house.claim()) == 1


def test_results_are_treated_too(tmp_path: Path) -> None:
    """A run keeps the treatment of its rule as it was when it began, with the tables it needs."""
    house = House(tmp_path, SMOOTH)
    naming = json.dumps({"edit": {"changes": []}, "lookups": [DIGEST]})
    treated_rules(house, naming, **{DIGEST: '{"1": "one"}'})
    house.complete(*(header(n) for n in range(1, 5)))
    treated_rules(house, "")
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))
    assert house.claim() == ()
    (copying,) = wanted(house)
    assert copying.request["about"]["received"] is False
    assert json.loads(Path(copying.request["lookups"][DIGEST]).read_text()) == {"1": "one"}
    made(house, copying)
    assert [item.sop_uid for item in house.claim()] == ["2.25.1"]
    house.database.close()


def test_a_table_is_kept_while_something_names_it(house: House) -> None:
    """It goes when it was not used for long and no delivery or run names it, and the transcoder's copy with it."""
    treated_rules(house, json.dumps({"edit": {"changes": []}, "lookups": [DIGEST]}), **{DIGEST: "{}"})
    house.take(header(1))
    (copying,) = wanted(house)
    house.clock.tick(days=40)
    with house.tx() as tx:
        assert lookups.forget(tx, house.clock.at) == 0
        tx.execute(update(delivery).values(treatment=""))
        assert lookups.forget(tx, house.clock.at - timedelta(days=41)) == 0
        assert lookups.forget(tx, house.clock.at) == 1
        assert list(nobodys(tx, house.parts.data / FOLDER)) == [Path(copying.request["lookups"][DIGEST])]


def test_few_copies_lie_there_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take room on the disk: when enough wait to be sent, no more are made until some are gone."""
    monkeypatch.setattr("node.flow.transcoding.AHEAD", 2)
    house.take(*(header(n) for n in range(1, 5)))
    for copying in wanted(house)[:2]:
        made(house, copying)
    assert wanted(house) == []
    (first, _) = house.claim()
    assert stored(house, first).copies
    assert len(wanted(house)) == 2


def test_a_full_disk_stops_no_copies_for_good(house: House) -> None:
    """Few at a time are made even then: what goes only as a copy would never go, and so never be freed."""
    house.take(*(header(n) for n in range(1, 11)))
    for _ in range(4):
        with house.tx() as tx:
            (one,) = flow.to_copy(tx, house.parts, 50, room=False)
        made(house, one)
    with house.tx() as tx:
        assert flow.to_copy(tx, house.parts, 50, room=False) == []
    stored(house, house.claim()[0])
    with house.tx() as tx:
        assert len(flow.to_copy(tx, house.parts, 50, room=False)) == 1


def test_the_trial_flag_is_what_decides(house: House) -> None:
    """A destination that refuses everything is on trial at once, and gets its copies."""
    house.take(header(1))
    with house.tx() as tx:
        tx.execute(destination.insert().values(
            name="PACS", down=True, reason="", failures=0, kind="paused", trial=True, waiting_bytes=0,
        ))  # fmt: skip
    assert len(wanted(house)) == 1


def test_a_replay_changes_what_waits_as_the_rules_say_now(tmp_path: Path) -> None:
    """A parked object whose rule, or table, was corrected goes after `replay`; what was stored is not sent again."""
    house = House(tmp_path, ROUTE)
    treated_rules(house)
    house.complete(header(1), header(2))
    one, two = wanted(house)
    made(house, one)
    stored(house, house.claim()[0])
    made(house, two, failed="the table does not know it")
    other = json.dumps({"edit": {"changes": [{"op": "remove", "path": "StudyID"}]}})
    treated_rules(house, other)
    with house.tx() as tx:
        replay_series(tx, 1, Replay("", False), Act("replay", house.clock.at))
    house.route()
    states = {row["instance_id"]: (row["state"], row["treatment"]) for row in house.rows(delivery)}
    assert states == {1: ("stored", TREATMENT), 2: ("waiting", other)}
    (copying,) = wanted(house)
    assert copying.request["treatment"] == json.loads(other) and house.parts.treated
    house.database.close()
