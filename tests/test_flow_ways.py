"""Claims about where and when things go: windows of rules, peers that share, what a person releases, priorities."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from flow_material import NOON, SITE, SMOOTH, House, done, header, product, rule
from hypothesis import given
from hypothesis import strategies as st

from node import app, flow
from node.flow.manners import AWAY
from node.model import Priority, RunState
from node.route.ways import Share
from node.store.acts import Act, on_deliveries
from node.store.choosing import Wanted
from node.store.ranks import rank_of
from node.store.schema import delivery, instance, run

NIGHT = rule("night", "send: [{what: received, to: PACS, window: 19:00-06:00}]", "{}")
SHARED = """
  AI1: {ae_title: AI1, address: "127.0.0.1:4251"}
  AI2: {ae_title: AI2, address: "127.0.0.1:4252"}
  AI3: {ae_title: AI3, address: "127.0.0.1:4253"}
seal:"""
SHARING = rule("sharing", "send: [{what: received, to: {share: [AI1, AI2, AI3], by: patient}}]", "{}")


def made(tmp_path: Path, rules: str, text: str = SITE) -> House:
    """A node with these rules."""
    return House(tmp_path, rules, text=text)


# --- windows


def test_a_delivery_waits_for_the_window_of_its_rule(tmp_path: Path) -> None:
    """It says until when, by the site's clock; other rules' deliveries to the same peer go meanwhile."""
    plain = rule("plain", "send: [{what: received, to: PACS}]", "{Modality: MR}")
    house = made(tmp_path, NIGHT.replace("when: {}", "when: {Modality: CT}") + plain)
    house.take(header(1), header(2, attributes={"Modality": "MR"}, series_uid="1.2.9.2"))
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.2"]
    (waiting,) = [row for row in house.rows(delivery) if row["state"] == "waiting"]
    assert waiting["reason"] == "waits for its window 19:00-06:00: until Sun 01 Mar 19:00"
    house.clock.tick(hours=5, minutes=59)  # 18:59 in Berlin
    assert house.claim() == ()
    house.clock.tick(minutes=1)
    assert [item.sop_uid for item in house.claim()] == ["1.2.3.1"]
    house.database.close()


def test_a_backlog_that_outlasts_its_window_waits_for_the_next(tmp_path: Path) -> None:
    """What was due and could not go in time is looked at again when it is claimed, and says so."""
    house = made(tmp_path, NIGHT)
    house.clock.tick(hours=8)
    house.take(*(header(n) for n in range(1, 401)))
    assert len(house.claim()) == 200
    house.clock.tick(hours=10)
    house.over("the association outlasted the night", claimed=())
    house.probe()
    assert house.claim() == ()
    late = Counter(row["reason"] for row in house.rows(delivery) if row["state"] == "waiting")
    assert late == {"waits for its window 19:00-06:00: until Mon 02 Mar 19:00": 200}
    house.database.close()


def test_the_window_of_the_peer_counts_as_well(tmp_path: Path) -> None:
    """Both must be open; where they never are the reason says so."""
    text = SITE.replace('"127.0.0.1:4242",', '"127.0.0.1:4242", window: 22:00-23:00,')
    text = text.replace('"127.0.0.1:4243"', '"127.0.0.1:4243", window: 12:00-13:00')
    house = made(tmp_path, NIGHT.replace("to: PACS", "to: [PACS, ARCHIVE]"), text)
    house.take(header(1))
    told = {row["destination"]: row["reason"] for row in house.rows(delivery)}
    assert told["PACS"].endswith("until Sun 01 Mar 22:00")
    assert told["ARCHIVE"].endswith("which never opens together with that of ARCHIVE")
    house.clock.tick(hours=7)  # 20:00 in Berlin
    assert house.claim() == ()
    house.clock.tick(hours=2)
    assert len(house.claim()) == 1
    house.database.close()


def test_results_wait_for_the_window_of_their_rule_too(tmp_path: Path) -> None:
    """`window` beside `send` holds for every entry; an entry's own takes its place."""
    text = SMOOTH.replace("send: [{what: soft, to: PACS}]", "send: [{what: soft, to: PACS}, "
                          "{what: soft, to: ARCHIVE, window: 00:00-24:00}]\nwindow: 19:00-06:00")  # fmt: skip
    house = made(tmp_path, text)
    house.complete(*(header(n) for n in range(1, 5)))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))
    assert house.claim() == () and len(house.claim("ARCHIVE")) == 1
    house.clock.tick(hours=7)
    assert len(house.claim()) == 1
    house.database.close()


def test_a_clock_set_back_does_not_open_a_window(tmp_path: Path) -> None:
    """Waits are capped then, and what was due too early waits for its window again."""
    house = made(tmp_path, NIGHT)
    house.take(header(1))
    house.clock.at -= timedelta(hours=2)
    with house.tx() as tx:
        flow.cap_waits(tx, house.parts)
    assert house.claim() == ()
    house.clock.tick(hours=9)
    assert len(house.claim()) == 1
    house.database.close()


# --- held for a person


def test_what_a_rule_holds_waits_for_a_person(tmp_path: Path) -> None:
    """It is `held` from the start, with the verb that lets it go; released it goes, cancelled it does not."""
    house = made(tmp_path, rule("ask", "send: [{what: received, to: PACS, hold: yes}]", "{}"))
    house.take(header(1), header(2))
    assert house.claim() == ()
    assert {(row["state"], row["reason"]) for row in house.rows(delivery)} == {
        ("held", "held by its rule; `pacsnode release --to PACS` lets it go")
    }
    with house.tx() as tx:
        on_deliveries(tx, Act("cancel", house.clock.at), Wanted(destination="PACS"))
    assert {row["state"] for row in house.rows(delivery)} == {"cancelled"}
    house.take(header(3))
    with house.tx() as tx:
        on_deliveries(tx, Act("release", house.clock.at), Wanted(destination="PACS"))
    (item,) = house.claim()
    assert item.sop_uid == "1.2.3.3"
    house.answer((item,))
    house.take(header(3, digest="f" * 64))
    assert [row["state"] for row in house.rows(delivery)] == ["cancelled", "cancelled", "stored", "held"]
    house.database.close()


def test_a_held_result_keeps_back_what_refers_to_it(tmp_path: Path) -> None:
    """The report of a run does not arrive before the images that a person has still to release."""
    text = rule(
        "both",
        "do: [{smooth: {}, as: soft}, {outline: {}, as: edge}]\n"
        "send: [{what: soft, to: PACS, hold: yes}, {what: edge, to: PACS}]",
    )
    house = made(tmp_path, text)
    house.complete(*(header(n) for n in range(1, 5)))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1), product(2, "edge", "segmentation")))
    assert house.claim() == ()
    with house.tx() as tx:
        on_deliveries(tx, Act("release", house.clock.at), Wanted(destination="PACS"))
    assert [item.sop_uid for item in house.claim()] == ["2.25.1"]
    house.database.close()


# --- peers that share


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[House]:
    """A node that spreads patients over three peers."""
    found = House(tmp_path, SHARING, text=SITE.replace("\nseal:", SHARED, 1))
    yield found
    found.database.close()


def of_patient(number: int, patient: str, series: str = "") -> dict[str, object]:
    """What makes an object one of this patient."""
    return {
        "series_uid": f"1.2.9.{series or patient}", "study_uid": f"1.2.8.{patient}",
        "attributes": {"PatientID": f"P{patient}"}, "sop_uid": f"1.2.3.{number}",
    }  # fmt: skip


def went(house: House) -> dict[str, set[str]]:
    """Patient → the peers that something was queued for."""
    series = {row["id"]: row["patient_id"] for row in house.series()}
    kept = {row["id"]: row["series_id"] for row in house.rows(instance)}
    found: dict[str, set[str]] = {}
    for row in house.rows(delivery):
        found.setdefault(series[kept[row["instance_id"]]], set()).add(row["destination"])
    return found


def test_a_patient_stays_with_one_peer(sharing: House) -> None:
    """All objects of a patient go to the same of the three, and thirty patients to all of them."""
    number = 0
    for patient in range(30):
        for _ in range(3):
            number += 1
            sharing.take(header(number, **of_patient(number, str(patient), f"{patient}.{number}")))
    told = went(sharing)
    assert all(len(peers) == 1 for peers in told.values()) and len(told) == 30
    assert set().union(*told.values()) == {"AI1", "AI2", "AI3"}
    row = sharing.rows(delivery)[0]
    assert row["reason"] == f"goes to {row['destination']}: AI1, AI2, AI3 share by patient"
    assert len(sharing.events("delivery_shared")) == 30


def test_a_peer_that_is_long_away_gets_no_new_patients(sharing: House) -> None:
    """Whoever has something there stays, also after a restart; new patients go to the next in their order."""
    share = Share(("AI1", "AI2", "AI3"), "patient")
    first = {str(n): share.ranked(f"\0P{n}")[0] for n in range(40)}
    away = first["0"]
    others = [n for n, peer in first.items() if peer == away and n != "0"][:3]
    sharing.take(header(1, **of_patient(1, "0")))
    with sharing.tx() as tx:
        flow.batch_over(tx, sharing.parts, away, "no route", [])
    sharing.take(header(2, **of_patient(2, others[0])))  # it was down a moment ago: that may pass
    sharing.clock.tick(seconds=AWAY.total_seconds())
    sharing.parts.shares.clear()  # as after a restart
    sharing.take(header(3, **of_patient(3, "0", "0.1")), header(4, **of_patient(4, others[1])))
    told = went(sharing)
    assert told["P0"] == {away} and told[f"P{others[0]}"] == {away}
    assert told[f"P{others[1]}"] == {share.ranked(f"\0P{others[1]}")[1]} != {away}
    assert sharing.events("delivery_shared")[-1]["detail"].endswith(f"; {away} is down for long")


def test_without_a_patient_id_a_study_stays_together(sharing: House) -> None:
    """Nobody's images are not all one patient's."""
    for n in range(1, 31):
        sharing.take(
            header(n, series_uid=f"1.2.9.{n}", study_uid=f"1.2.8.{n % 15}", attributes={"PatientID": ""})
        )
    assert {row["destination"] for row in sharing.rows(delivery)} == {"AI1", "AI2", "AI3"}
    assert len(sharing.events("delivery_shared")) == 15


def test_results_are_shared_like_what_they_are_made_from(tmp_path: Path) -> None:
    """A result goes to the peer that has the patient."""
    text = SHARING + SMOOTH.replace("to: PACS", "to: {share: [AI1, AI2, AI3]}")
    house = House(tmp_path, text, text=SITE.replace("\nseal:", SHARED, 1))
    house.complete(*(header(n) for n in range(1, 5)))
    started = house.start()
    assert started is not None
    house.finish(started, done(product(1)))
    assert len({row["destination"] for row in house.rows(delivery)}) == 1
    assert [row for row in house.rows(delivery) if row["product_id"]]
    house.database.close()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True), st.text(max_size=20))
def test_a_peer_less_moves_only_what_it_had(peers: list[str], key: str) -> None:
    """Of the order of the others nothing changes: that is what rendezvous hashing is for."""
    whole = Share(tuple(peers), "patient").ranked(key)
    gone = whole[0]
    less = Share(tuple(peer for peer in peers if peer != gone), "patient").ranked(key)
    assert less == whole[1:] and sorted(whole) == sorted(peers)


# --- priorities


def test_urgent_overtakes_among_runs(tmp_path: Path) -> None:
    """The run of an urgent rule starts before those that wait longer; one of a low rule after those beside it."""
    low = SMOOTH.replace("rule: smooth", "rule: low\npriority: low")
    urgent = SMOOTH.replace("rule: smooth", "rule: urgent\npriority: urgent")
    house = made(tmp_path, low + SMOOTH + urgent.replace("Modality: CT", "Modality: CT, SeriesNumber: 9"))
    house.complete(*(header(n) for n in range(1, 5)))
    house.clock.tick(minutes=1)
    later = {"series_uid": "1.2.9.5", "attributes": {"SeriesNumber": "9"}}
    house.complete(*(header(n, **later) for n in range(11, 15)))
    began = []
    while (started := house.start()) is not None:
        began.append(next(row["rule"] for row in house.rows(run) if row["id"] == started.run))
    assert began == ["urgent", "smooth", "smooth", "low", "low"]
    house.database.close()


@given(
    st.lists(st.tuples(st.sampled_from(list(Priority)), st.integers(0, 3 * 86400)), min_size=1, max_size=40),
    st.integers(0, 3 * 86400),
)
def test_low_never_starves(others: Sequence[tuple[Priority, int]], since: int) -> None:
    """Of what is queued later than an hour after it nothing normal passes a low one; urgent passes, for 30 days."""
    mine = rank_of(Priority.LOW, NOON + timedelta(seconds=since))
    for priority, at in others:
        rank = rank_of(priority, NOON + timedelta(seconds=at))
        if at > since + 3600 and priority is not Priority.URGENT:
            assert rank > mine
        if priority is Priority.NORMAL and at < since + 3600:
            assert rank < mine
        if priority is Priority.URGENT:
            assert rank < mine
    far = rank_of(Priority.URGENT, NOON + timedelta(seconds=since, days=31))
    assert far > mine


# --- never processed


def test_a_phantom_is_routed_and_never_processed(tmp_path: Path) -> None:
    """The site file bars it whatever the rules say; the event names the line that does."""
    text = SITE + "never_process: [{PatientID: {matches: 'QA-*'}}]\n"
    route = rule("route", "send: [{what: received, to: ARCHIVE}]", "{}")
    house = made(tmp_path, route + SMOOTH, text)
    house.parts.never = app.never_lines(house.parts.settings)
    phantom = {"attributes": {"PatientID": "QA-7"}, "series_uid": "1.2.9.7"}
    house.complete(*(header(n, **phantom) for n in range(1, 5)))
    assert house.rows(run) == [] and len(house.claim("ARCHIVE")) == 4
    (told,) = house.events("series_routed")
    said = {one["rule"]: one["because"] for one in json.loads(told["detail"])}
    assert said["smooth"].startswith("never_process: line ") and "PatientID" in said["smooth"]
    house.complete(*(header(n) for n in range(11, 15)))
    assert [row["state"] for row in house.rows(run)] == [RunState.WAITING]
    house.database.close()


def test_what_may_be_a_phantom_is_not_processed(tmp_path: Path) -> None:
    """A series of which some images fit such a line is not processed either."""
    house = made(tmp_path, SMOOTH, SITE + "never_process: [{StationName: TEST}]\n")
    house.parts.never = app.never_lines(house.parts.settings)
    some = {"attributes": {"StationName": "TEST"}}
    house.complete(header(1), header(2), header(3, **some), header(4))
    assert house.rows(run) == [] and house.series()[0]["state"] == "unrouted"
    house.database.close()
