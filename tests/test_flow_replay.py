"""Claims about replay and release on the whole road, on a real database with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_material import ROUTE, SMOOTH, House, done, header, product, rule

from node import flow
from node.model import Exit, RunState
from node.route.rules import parse_rules
from node.store import acts, aside, intake, replays
from node.store.acts import Act
from node.store.choosing import Wanted
from node.store.replays import Replay
from node.store.schema import delivery, identity, instance, run, series

OUTLINE = rule("outline", "do: [{outline: {}, as: edge}]\nsend: [{what: edge, to: PACS}]")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Everything goes to the PACS at once; CT is smoothed and the result goes there too."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


def use(house: House, *rules: str) -> None:
    """From now on these rules are in use."""
    house.parts.rules = parse_rules(
        {"r.yaml": "".join(rules)}, house.specs, dict.fromkeys(("PACS", "ARCHIVE"), True)
    )


def again(house: House, only: str = "", *, fresh: bool = False, key: int = 1) -> str:
    """Replay one series and route it; why not, if so."""
    with house.tx() as tx:
        why = replays.replay_series(tx, key, Replay(only, fresh), Act("replay", house.clock.at))
    house.route()
    return why


def states(house: House, table: Any = run) -> list[str]:
    """The states of a table's rows, by id."""
    return [row["state"] for row in house.rows(table)]


def test_a_replay_runs_the_rules_again_and_sends_nothing_twice(house: House) -> None:
    """The same identity gives the same objects: the newer run supersedes, no object goes a second time."""
    house.complete(header(1), header(2))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    house.answer(house.claim())
    assert states(house, delivery) == ["stored"] * 3
    assert again(house) == ""
    second = house.start()
    assert second is not None
    assert second.job.provenance == first.job.provenance
    house.finish(second, done(product(1)))
    assert states(house) == ["superseded", "done"]
    assert states(house, delivery) == ["stored"] * 3
    (row,) = house.series()
    assert (row["state"], row["replay"], row["reason"]) == ("routed", 1, "replayed by hand; route, smooth")


def test_a_new_generation_gives_new_uids_once(house: House) -> None:
    """The generation is raised when the run starts, and not again after a kill or a retry."""
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    house.answer(house.claim())
    assert again(house, fresh=True) == ""
    second = house.start()
    assert second is not None
    with house.tx() as tx:
        flow_restart(tx)
    third = house.start()
    assert third is not None
    house.finish(third, Exit(RunState.QUARANTINED, "killed"))
    with house.tx() as tx:
        acts.on_runs(tx, Act("retry", house.clock.at), Wanted(run=2))
    house.clock.tick(hours=1)
    fourth = house.start()
    assert fourth is not None
    identities = [started.job.provenance.identity for started in (first, second, third, fourth)]
    assert len(set(identities)) == 2 and len(set(identities[1:])) == 1
    assert [row["generation"] for row in house.rows(identity)] == [1]
    house.finish(fourth, done(product(2)))
    assert states(house) == ["superseded", "done"]
    assert states(house, delivery) == ["stored", "stored", "waiting"], "both sets go to the PACS"


def flow_restart(tx: Any) -> None:
    """The node was restarted: claims return."""
    from node.store import work

    work.give_back(tx)


def test_what_waits_of_the_older_run_is_cancelled_before_the_same_is_queued(house: House) -> None:
    """Parked and held results of the older run go once, as deliveries of the newer."""
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1), product(2)))
    with house.tx() as tx:
        acts.on_deliveries(tx, Act("hold", house.clock.at), Wanted(rule="smooth"))
    assert states(house, delivery) == ["waiting", "held", "held"]
    again(house)
    second = house.start()
    assert second is not None
    house.finish(second, done(product(1), product(2)))
    assert states(house, delivery) == ["waiting", "cancelled", "cancelled", "waiting", "waiting"]


def test_a_run_that_ends_after_a_newer_one_sends_nothing(house: House) -> None:
    """It began before the replay and ended after the replay's run: superseded, whatever it made."""
    house.complete(header(1))
    old = house.start()
    assert old is not None
    again(house, fresh=True)
    new = house.start()
    assert new is not None
    house.finish(new, done(product(2)))
    house.finish(old, done(product(1)))
    assert states(house) == ["superseded", "done"]
    assert house.rows(run)[0]["reason"] == "the results of run 2 are newer"
    assert states(house, delivery) == ["waiting", "waiting"], "the received object and the newer result"


def test_a_waiting_run_is_replaced_by_a_replay(house: House) -> None:
    """The older question is not worked on any more; a replay by one rule leaves other rules' runs waiting."""
    use(house, ROUTE, SMOOTH, OUTLINE)
    house.complete(header(1))
    assert states(house) == ["waiting", "waiting"]
    again(house, "smooth")
    found = [(row["rule"], row["replay"], row["state"]) for row in house.rows(run)]
    assert sorted(found) == [("outline", 0, "waiting"), ("smooth", 0, "cancelled"), ("smooth", 1, "waiting")]
    assert [e["detail"] for e in house.events("run_cancelled")] == ["a replay replaces it"]


def test_a_replay_judges_by_the_rules_now_in_use(house: House) -> None:
    """A rule written since runs, and one that immediately routes sends what that destination lacks."""
    use(house, ROUTE)
    house.complete(header(1), header(2))
    assert states(house) == []
    use(house, ROUTE, OUTLINE, rule("archive", "send: [{what: received, to: ARCHIVE}]"))
    assert again(house) == ""
    assert [row["rule"] for row in house.rows(run)] == ["outline"]
    sent = [(row["destination"], row["instance_id"]) for row in house.rows(delivery)]
    assert sent == [("PACS", 1), ("PACS", 2), ("ARCHIVE", 1), ("ARCHIVE", 2)]


def test_a_replay_by_one_rule_does_nothing_else(house: House) -> None:
    """Only that rule's run and sends; the series stays routed; the event tells of that rule alone."""
    use(house, ROUTE)
    house.complete(header(1))
    use(house, ROUTE, SMOOTH, OUTLINE, rule("archive", "send: [{what: received, to: ARCHIVE}]"))
    again(house, "outline")
    assert [row["rule"] for row in house.rows(run)] == ["outline"]
    assert [row["destination"] for row in house.rows(delivery)] == ["PACS"]
    assert house.series()[0]["reason"] == "replayed by hand by rule outline; outline"
    assert house.events("series_routed")[-1]["detail"].count('"rule"') == 1
    again(house, "gone")
    (row,) = house.series()
    assert row["state"] == "routed" and "not among those in use" in row["reason"]


def test_a_series_held_between_reading_and_routing_is_not_routed(house: House) -> None:
    """The conductor looks again inside its transaction."""
    house.take(header(1))
    house.seal()
    with house.tx() as tx:
        (row,) = intake.in_state(tx, intake.SeriesState.SEALED)
        acts.on_series(tx, Act("hold", house.clock.at), Wanted(series="1"))
        flow.route(tx, house.parts, row)
    assert (states(house, series), states(house)) == (["sealed"], [])


# --- objects in conflict


def other_pixels() -> Any:
    """Object 1 with other pixels under the same UIDs."""
    return replace(header(1), digest="f" * 64, pixel_digest="e" * 64)


def test_a_released_conflict_takes_the_place_of_the_kept_object(house: House) -> None:
    """It goes to the PACS, and a revision without the former is processed; those results supersede."""
    house.complete(header(1), header(2))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    house.answer(house.claim())
    house.take(other_pixels())
    assert states(house, instance) == ["kept", "kept", "conflict"]
    with house.tx() as tx:
        assert aside.ask_release(tx, 3, house.clock.at)
        flow.released(tx, house.parts, 3, other_pixels())
        assert aside.asked_releases(tx) == []
    assert states(house, instance) == ["replaced", "kept", "kept"]
    assert house.rows(instance)[0]["reason"] == "object 3 was released by hand in its place"
    assert house.rows(delivery)[-1]["instance_id"] == 3
    house.seal(2)
    house.route()
    with house.tx() as tx:
        assert set(intake.members_and_facts(tx, 2)[0]) == {2, 3}
    second = house.start()
    assert second is not None
    house.finish(second, done(product(2)))
    assert states(house) == ["superseded", "done"]


def test_a_released_conflict_of_another_series_leaves_that_series_results(house: House) -> None:
    """The former is replaced and an event on its series says so; its results are not touched."""
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.finish(first, done(product(1)))
    other = replace(other_pixels(), series_uid="1.2.9.2")
    house.take(other)
    with house.tx() as tx:
        flow.released(tx, house.parts, 2, other)
    assert states(house, instance) == ["replaced", "kept"]
    (event,) = house.events("instance_replaced")
    assert (event["series_id"], event["instance_id"]) == (1, 1)
    assert states(house) == ["done"]
    assert "1 replaced" in again(house)


def test_a_released_object_that_cannot_be_read_stays_aside(house: House) -> None:
    """It says so, and the question is over."""
    house.complete(header(1))
    house.take(other_pixels())
    with house.tx() as tx:
        aside.ask_release(tx, 2, house.clock.at)
        flow.released(tx, house.parts, 2, None)
        assert aside.asked_releases(tx) == []
    assert states(house, instance) == ["kept", "conflict"]
    assert "cannot be read any more" in house.rows(instance)[1]["reason"]
