"""Claims about late images: neither lost nor mixed in, whenever they come (design, promise 5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_material import ROUTE, SMOOTH, House, done, header, product, rule
from sqlalchemy import update
from test_flow_withdrawal import IOCM, NOTE, begin, made, send_all

from node import desk
from node.flow import Started
from node.model import Issued
from node.send.protocol import Kind
from node.store import replays, work
from node.store.acts import Act
from node.store.replays import Replay
from node.store.schema import delivery, instance, run
from node.store.schema import product as products

MEASURE = rule(
    "measure",
    "do: [{outline: {}, as: edge}, {measure: {mask: edge}, as: numbers}]\nsend: [{what: numbers, to: PACS}]",
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Everything goes to the PACS at once; CT is smoothed and the result goes there too."""
    found = House(tmp_path, ROUTE + SMOOTH)
    yield found
    found.database.close()


def runs(house: House) -> list[tuple[str, list[int]]]:
    """State and objects of each run, by id."""
    return [(row["state"], json.loads(row["files"])) for row in house.rows(run)]


def revisions(house: House) -> list[tuple[int, str, int]]:
    """Revision, state and size of the CT series."""
    return [(r["revision"], r["state"], r["instances"]) for r in house.series()]


def waiting(house: House) -> None:
    """The first run waits."""


def running(house: House) -> None:
    """The first run is under way."""
    assert house.start() is not None


def being_sent(house: House) -> None:
    """Its results are being sent; one of them is stored."""
    made(house, product(1), product(2))
    items = house.claim()
    house.answer(items[:3])


def sent(house: House) -> None:
    """Its results are at the PACS."""
    made(house, product(1), product(2))
    send_all(house)


def forgotten(house: House) -> None:
    """And have been for a week."""
    sent(house)
    house.clock.tick(days=7)


@pytest.mark.parametrize("when", [waiting, running, being_sent, sent, forgotten], ids=lambda w: w.__name__)
def test_a_late_image_makes_exactly_one_revision(house: House, when: Callable[[House], None]) -> None:
    """Whenever it comes: one further revision over all images, one run, whose results are the only valid ones."""
    house.complete(header(1), header(2))
    when(house)
    house.complete(header(3))
    assert revisions(house) == [(1, "routed", 2), (2, "routed", 3)]
    assert len(runs(house)) == 2 and runs(house)[1] == ("waiting", [1, 2, 3])
    assert runs(house)[0][0] == {"waiting": "cancelled", "running": "running"}.get(when.__name__, "done")
    newer = house.start()
    assert newer is not None and newer.run == 2 and newer.job.revision == 2
    house.finish(newer, done(product(11), product(12)))
    if when is running:
        house.finish(Started(1, 1, newer.folder, newer.job), done(product(1), product(2)))
    assert [state for state, _ in runs(house)] == [
        "cancelled" if when is waiting else "superseded", "done",
    ]  # fmt: skip
    with house.tx() as tx:
        work.give_back(tx)
    send_all(house)
    uids = {row["id"]: row["sop_uid"] for row in house.rows(products)}
    came = [uids[row["product_id"]] for row in house.rows(delivery)
            if row["product_id"] and row["state"] == "stored"]  # fmt: skip
    old = {"being_sent": ["2.25.1"], "sent": ["2.25.1", "2.25.2"], "forgotten": ["2.25.1", "2.25.2"]}
    assert came == [*old.get(when.__name__, []), "2.25.11", "2.25.12"], "what had left, and all of the new"
    assert house.start() is None and house.claim() == ()
    assert all(row["state"] == "kept" for row in house.rows(instance))


def test_a_run_that_ends_before_the_late_images_run_is_replaced_by_it(house: House) -> None:
    """The image came while the run ran: its results go out, and are superseded when the newer are made."""
    house.complete(header(1))
    first = house.start()
    assert first is not None
    house.take(header(2))
    house.finish(first, done(product(1)))
    assert runs(house)[0][0] == "done"
    house.seal(2)
    house.route()
    made(house, product(2))
    assert [state for state, _ in runs(house)] == ["superseded", "done"]


def test_two_late_bursts_make_two_revisions(house: House) -> None:
    """Each quiet time ends one; what waits of the one before is not run, and only the last results stay."""
    house.complete(header(1))
    house.complete(header(2), header(3))
    house.complete(header(4), header(5))
    assert revisions(house) == [(1, "routed", 1), (2, "routed", 3), (3, "routed", 5)]
    assert runs(house) == [("cancelled", [1]), ("cancelled", [1, 2, 3]), ("waiting", [1, 2, 3, 4, 5])]
    made(house, product(1))
    house.complete(header(6))
    made(house, product(2))
    assert [state for state, _ in runs(house)] == ["cancelled", "cancelled", "superseded", "done"]


def test_a_late_image_while_the_destination_is_down(house: House) -> None:
    """The older results wait and are cancelled; when it is up again it gets every image and the newest results."""
    house.complete(header(1), header(2))
    made(house, product(1), product(2))
    items = house.claim()
    house.over("no route", claimed=items)
    house.complete(header(3))
    made(house, product(11), product(12))
    house.clock.tick(hours=3)
    house.probe()
    came: list[str] = []
    while items := house.claim():
        house.answer(items)
        house.over()
        came += [item.sop_uid for item in items]
    assert sorted(came) == sorted(["1.2.3.1", "1.2.3.2", "1.2.3.3", "2.25.11", "2.25.12"])
    assert [row["state"] for row in house.rows(delivery) if row["product_id"] in (1, 2)] == ["cancelled"] * 2


def test_a_late_image_while_the_destination_refuses(house: House) -> None:
    """Parked results of the older revision are cancelled too: nobody retries them by mistake."""
    house.complete(header(1))
    send_all(house)
    made(house, product(1))
    house.answer(house.claim(), Kind.FAILED, 0xA900)
    house.complete(header(2))
    made(house, product(2))
    assert [row["state"] for row in house.rows(delivery) if row["product_id"]] == ["cancelled", "waiting"]


def test_late_images_of_a_series_that_was_being_received_again(house: House) -> None:
    """A whole series is sent again with three more images: one revision, duplicates are duplicates."""
    house.complete(header(1), header(2))
    house.complete(*(header(n) for n in (1, 2, 3, 4, 5)))
    assert revisions(house) == [(1, "routed", 2), (2, "routed", 5)]
    assert [row["state"] for row in house.rows(instance)].count("duplicate") == 2


def test_a_restart_between_a_late_image_and_its_seal(house: House) -> None:
    """The open revision is rebuilt from the former's members and its own: nothing is lost or twice."""
    house.complete(header(1), header(2))
    house.take(header(3))
    late = house.parts.assembly.series[2]
    with house.tx() as tx:
        from node import flow
        from node.store import intake

        before = intake.revision_before(tx, 2)
        assert before == 1
        rebuilt = {**flow.members_of(tx, before), **{r["id"]: None for r in intake.arrived_in(tx, 2)}}
    assert list(rebuilt) == list(late.members)


def forget(house: House) -> None:
    """Retention removed the files of the first revision."""
    with house.tx() as tx:
        tx.execute(update(instance).values(state="removed"))


def test_a_late_image_alone_does_not_replace_the_results_of_all(house: House) -> None:
    """A week later the other images are gone: the revision is incomplete, says so, and the results stay."""
    house.complete(header(1), header(2), header(3))
    sent(house)
    forget(house)
    house.clock.tick(days=7)
    house.complete(header(4))
    assert house.series()[1]["incomplete"] == "3 objects of earlier revisions are not kept any more"
    assert runs(house) == [("done", [1, 2, 3])]
    assert len(house.claim()) == 1, "the image itself goes on"
    house.complete(header(5))
    assert runs(house) == [("done", [1, 2, 3])], "and so it is for the next"


def test_a_series_that_is_sent_again_as_a_whole_is_whole(house: House) -> None:
    """Everything came once more after retention, with a late image: it is processed, and supersedes."""
    house.complete(header(1), header(2))
    sent(house)
    forget(house)
    house.complete(header(1), header(2), header(3))
    assert house.series()[1]["incomplete"] == ""
    assert runs(house)[1] == ("waiting", [3, 4, 5])


# --- what reports replace


def report(number: int, **changes: Any) -> Any:
    """A report as a run makes it."""
    return product(
        number, output="numbers", kind="report", sop_class="1.2.840.10008.5.1.4.1.1.88.34", **changes
    )


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[House]:
    """CT is measured and the report goes to the PACS, which takes rejection notes."""
    found = House(tmp_path, MEASURE, text=IOCM)
    yield found
    found.database.close()


def predecessors(started: Started | None) -> list[str]:
    """The reports that those of a run replace."""
    assert started is not None
    return [one.sop_uid for one in started.job.predecessors]


def test_a_later_report_replaces_the_one_before(measured: House) -> None:
    """The report that left is named, with study and series; of three the one before, not all."""
    measured.complete(header(1))
    first = measured.start()
    assert first is not None and first.job.predecessors == ()
    measured.finish(first, done(report(1), product(2, output="edge", kind="segmentation")))
    send_all(measured)
    measured.complete(header(2))
    second = measured.start()
    assert second is not None
    assert second.job.predecessors == (
        Issued("numbers", "report", "2.25.1", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.99", "1.2.9"),
    )
    measured.finish(second, done(report(11)))
    measured.finish(begin(measured), done(NOTE))
    send_all(measured)
    measured.complete(header(3))
    assert predecessors(measured.start()) == ["2.25.11"]


def test_predecessors_are_fixed_with_the_identity(measured: House) -> None:
    """A retry, a restart and a replay name what the first attempt named, whatever was sent meanwhile."""
    measured.complete(header(1))
    made(measured, report(1))
    send_all(measured)
    measured.complete(header(2))
    second = measured.start()
    assert predecessors(second) == ["2.25.1"]
    with measured.tx() as tx:
        work.give_back(tx)
    again = measured.start()
    assert again is not None and second is not None
    assert again.job == replace(second.job, run=again.job.run)
    measured.finish(again, done(report(2)))
    measured.finish(begin(measured), done(NOTE))
    send_all(measured)
    with measured.tx() as tx:
        assert replays.replay_series(tx, 2, Replay(), Act("replay", measured.clock.at)) == ""
    measured.route()
    third = measured.start()
    assert third is not None and third.job.provenance == again.job.provenance
    assert predecessors(third) == ["2.25.1"]
    measured.finish(third, done(report(2)))
    with measured.tx() as tx:
        assert replays.replay_series(tx, 2, Replay("", True), Act("replay", measured.clock.at)) == ""
    measured.route()
    assert predecessors(measured.start()) == ["2.25.2"], "a new generation replaces the one before"


def test_a_report_that_never_left_is_no_predecessor(measured: House) -> None:
    """Nobody has it, so nobody could find it."""
    measured.complete(header(1))
    made(measured, report(1))
    measured.complete(header(2))
    assert predecessors(measured.start()) == []


def test_reports_of_other_series_rules_and_outputs_are_no_predecessors(tmp_path: Path) -> None:
    """Only the same rule over the same series counts."""
    steps = "do: [{smooth: {}, as: soft}, {outline: {volume: soft}, as: edge}, {measure: {mask: edge}, as: numbers}]"
    other = rule("other", f"{steps}\nsend: [{{what: numbers, to: PACS}}]")
    house = House(tmp_path, MEASURE + other)
    house.complete(header(1))
    made(house, report(1))
    made(house, report(2))
    house.complete(header(11, series_uid="1.2.9.2"))
    send_all(house)
    started = house.start()
    assert started is not None and house.rows(run)[started.run - 1]["rule"] == "measure"
    assert predecessors(started) == []
    house.complete(header(3))
    newest = [row for row in house.rows(run) if row["state"] == "waiting" and row["series_id"] == 3]
    found = {}
    for row in newest:
        with house.tx() as tx:
            from node import flow

            one = flow.start_run(tx, house.parts, row)
        found[row["rule"]] = predecessors(one)
    assert found == {"measure": ["2.25.1"], "other": ["2.25.2"]}
    house.database.close()


# --- UIDs that are none, and who they belong to


@pytest.mark.parametrize(
    ("changes", "grouped"),
    [
        ({"series_uid": "", "why": "SeriesInstanceUID is missing, so it belongs to no series"}, False),
        ({"study_uid": "", "why": "StudyInstanceUID is missing, so it belongs to no series"}, False),
        ({"sop_uid": "", "why": "SOPInstanceUID is missing, so it belongs to no series"}, False),
        ({"sop_uid": "9" * 80, "why": "SOPInstanceUID is longer than 64 characters"}, False),
        ({"series_uid": "..", "study_uid": "../../etc"}, True),
        ({"sop_uid": "CT.A.1", "series_uid": "series-one"}, True),
        ({"sop_uid": "1.2.9", "series_uid": "1.2.9", "study_uid": "1.2.9"}, True),
        ({"sop_uid": "1.2.3.1\0", "series_uid": "1.2.9.1\0"}, True),
    ],
)
def test_odd_uids_are_kept_routed_and_shown(house: House, changes: dict[str, Any], grouped: bool) -> None:
    """Each goes to the PACS at once; what can be grouped is, what cannot says why."""
    house.take(header(1, **changes))
    (row,) = house.rows(instance)
    assert row["state"] == "kept" and (row["series_id"] is not None) == grouped
    assert row["reason"] == changes.get("why", "")
    assert len(house.claim()) == 1
    assert len(house.events("instance_ungrouped")) == (not grouped)
    told = "\n".join(desk.status_lines(desk.status(house.parts.settings)))
    assert ("1 object belongs to no series[/]: `pacsnode objects` says why" in told) == (not grouped)
    if grouped:
        house.seal(1)
        house.route()
        assert [row["state"] for row in house.series()] == ["routed"]


def test_two_objects_without_uid_are_two_objects(house: House) -> None:
    """Nothing makes them the same: neither is a duplicate or a conflict of the other."""
    lost = {"sop_uid": "", "why": "SOPInstanceUID is missing, so it belongs to no series"}
    house.take(header(1, **lost), header(2, **lost))
    assert [row["state"] for row in house.rows(instance)] == ["kept", "kept"]
    assert len(house.claim()) == 2


def test_one_sop_uid_in_two_series(house: House) -> None:
    """The second is kept aside and shown; it is in neither series and replaces nothing."""
    house.complete(header(1))
    house.take(header(1, series_uid="1.2.9.2", digest="d" * 64))
    assert [row["state"] for row in house.rows(instance)] == ["kept", "conflict"]
    assert len(house.series()) == 1 and len(house.claim()) == 1


def test_interleaved_series_of_several_studies_in_one_association(house: House) -> None:
    """Objects find their own series, whatever comes between them."""
    house.take(
        *(header(n, study_uid=f"1.2.{n % 2}", series_uid=f"1.2.{n % 2}.{n % 4}") for n in range(1, 13))
    )
    found = {(r["study_uid"], r["series_uid"]): r["instances"] for r in house.series()}
    assert found == {
        ("1.2.1", "1.2.1.1"): 3,
        ("1.2.0", "1.2.0.2"): 3,
        ("1.2.1", "1.2.1.3"): 3,
        ("1.2.0", "1.2.0.0"): 3,
    }
