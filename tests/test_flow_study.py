"""Claims about rules over a study in a node: what is opened when, once, and what supersedes what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_material import SITE, SPECS, House, done, header, product

from node import app, flow
from node.model import Exit, Header, OperatorSpec, Parameter, RunState
from node.store import acts, replays, studies, watch
from node.store.choosing import Wanted
from node.store.schema import delivery, run, study_rule, wanted_prior
from node.store.schema import product as products

VOLUME = Parameter("volume", "Volume")
BOTH = {
    **SPECS,
    "fuse": OperatorSpec("fuse", "Both.", (VOLUME, Parameter("other", "Volume")), (), "Picture", "1", "p"),
}
FUSION = """
rule: fusion
purpose: p
owner: o@h.example
scope: study
when: {}
inputs:
  ct: {when: {Modality: CT}, prefer: [{SliceThickness: smallest}]}
  pet: {when: {Modality: PT}}
wait: {at_most: 30 min, then: skip}
do: [{fuse: {volume: ct, other: pet}, as: fused}]
send: [{what: fused, to: PACS}]
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest) -> str:
    """Both kinds of database."""
    return "sqlite" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


def house(folder: Path, rules: str = FUSION, state: str = "sqlite", **changes: Any) -> House:
    """A node with these rules."""
    return House(folder, rules, state, BOTH, **changes)


def image(series: int, number: int, modality: str = "CT", **attributes: Any) -> Header:
    """One object of a series of the study; *number* counts over all of them."""
    own = {k: v for k, v in attributes.items() if k in Header.__dataclass_fields__}
    told = {"Modality": modality, "SeriesNumber": str(series), **attributes}
    told = {k: v for k, v in told.items() if k not in own}
    return header(number, series_uid=f"1.2.9.{series}", attributes=told, **own)


def ct(series: int = 1, first: int = 1, **attributes: Any) -> list[Header]:
    """Three slices."""
    return [image(series, n, **attributes) for n in range(first, first + 3)]


def pet(series: int = 2, first: int = 11, **attributes: Any) -> list[Header]:
    """Three slices of PET."""
    return [image(series, n, "PT", **attributes) for n in range(first, first + 3)]


def runs(site: House) -> list[tuple[str, dict[str, int], int]]:
    """State, input → series, and turn of each run."""
    return [
        (row["state"], {name: key for name, key, _ in json.loads(row["inputs"])}, row["turn"])
        for row in site.rows(run)
        if row["inputs"]
    ]


def waits(site: House) -> Mapping[str, Any]:
    """What the one rule makes of the one study."""
    (row,) = site.rows(study_rule)
    return row


def wake(site: House) -> None:
    """As the conductor does in each turn."""
    with site.tx() as tx:
        for study in studies.due_studies(tx, site.clock.at):
            flow.judge_study(tx, site.parts, study)


def finish(site: House, *made: Any) -> None:
    """Start the run that waits, and let it make something."""
    started = site.start()
    assert started is not None
    site.finish(started, done(*made))


def test_it_waits_for_the_second_series_and_runs_once(tmp_path: Path, state: str) -> None:
    """The first series is an input that waits; with the second a run opens, of both, in the order of the rule."""
    site = house(tmp_path, state=state)
    site.complete(*ct())
    row = waits(site)
    assert (row["state"], row["due_at"]) == ("waiting", site.clock.at.replace(minute=30))
    assert row["reason"].startswith("waits for pet: the one series does not fit")
    assert [s["state"] for s in site.series()] == ["routed"]
    assert site.series()[0]["reason"] == "quiet; fusion (as ct)"
    assert runs(site) == []
    with site.database.read() as tx:
        assert watch.queues(tx).studies == {"fusion": 1}
    site.complete(*pet())
    assert runs(site) == [("waiting", {"ct": 1, "pet": 2}, 1)]
    with site.database.read() as tx:
        assert watch.queues(tx).studies == {}
    (row,) = site.rows(run)
    assert json.loads(row["files"]) == [1, 2, 3, 4, 5, 6]
    assert row["series_id"] == 1
    assert waits(site)["state"] == "ran"
    started = site.start()
    assert started is not None
    assert dict(started.job.inputs) == {"ct": 3, "pet": 3}
    assert started.job.plan.inputs == ("ct", "pet")
    site.finish(started, done(product(1, "fused", "picture")))
    assert [d["destination"] for d in site.rows(delivery)] == ["PACS"]


def test_one_transaction_or_none(tmp_path: Path) -> None:
    """A kill before the commit leaves the series sealed; routed again, the same run opens once."""
    site = house(tmp_path)
    site.complete(*ct())
    site.take(*pet())
    site.seal(2)

    class Killed(Exception):
        pass

    with pytest.raises(Killed), site.tx() as tx:
        from node.store import intake

        flow.route(tx, site.parts, intake.in_state(tx, intake.SeriesState.SEALED)[0])
        raise Killed
    assert runs(site) == []
    site.route()
    site.route()
    wake(site)
    assert runs(site) == [("waiting", {"ct": 1, "pet": 2}, 1)]


def test_the_wait_ends(tmp_path: Path, state: str) -> None:
    """After 30 minutes without PET the rule is skipped, with an event; nothing is looked at again and again."""
    site = house(tmp_path, state=state)
    site.complete(*ct())
    site.clock.tick(minutes=29)
    wake(site)
    assert waits(site)["state"] == "waiting"
    site.clock.tick(minutes=1)
    wake(site)
    row = waits(site)
    assert (row["state"], row["due_at"]) == ("skipped", None)
    (told,) = site.events("study_skipped")
    assert told["detail"].startswith("fusion: after 30 min of waiting, pet: ")
    assert told["series_id"] == 1
    wake(site)
    assert len(site.events("study_skipped")) == 1


def test_what_comes_after_the_wait(tmp_path: Path) -> None:
    """`again: better_input` makes good when the input comes after all; with `never` the rule stays skipped."""
    for again, expected in (("better_input", [("waiting", {"ct": 1, "pet": 2}, 1)]), ("never", [])):
        (tmp_path / again).mkdir()
        site = house(tmp_path / again, FUSION.replace("do:", f"again: {again}\ndo:"))
        site.complete(*ct())
        site.clock.tick(minutes=30)
        wake(site)
        site.complete(*pet())
        assert runs(site) == expected
        assert waits(site)["state"] == ("ran" if expected else "skipped")


def test_a_wait_does_not_grow_with_a_clock_that_is_set_back(tmp_path: Path) -> None:
    """Set back by a day, the clock lets the rule wait for 30 minutes more at most."""
    site = house(tmp_path)
    site.complete(*ct())
    site.clock.tick(days=-1)
    with site.tx() as tx:
        flow.cap_waits(tx, site.parts)
    wake(site)
    assert waits(site)["until"] == site.clock.at.replace(minute=30)


def test_an_arriving_series_that_may_be_preferred(tmp_path: Path) -> None:
    """A thinner CT on its way is waited for, and is the input once it is sealed; a thicker one is not waited for."""
    site = house(tmp_path)
    site.take(*ct(1, 1, SliceThickness="3"))
    site.take(*ct(3, 21, SliceThickness="1"))
    site.take(*pet())
    site.seal(1)
    site.seal(3)
    site.route()
    assert runs(site) == []
    assert "is still arriving and may be preferred" in waits(site)["reason"]
    site.seal(2)
    site.route()
    assert runs(site) == [("waiting", {"ct": 2, "pet": 3}, 1)]


def test_a_late_image_opens_a_run_whose_results_supersede(tmp_path: Path, state: str) -> None:
    """A new revision of an input: a second turn, `(rev 2)`, and the results of the first are superseded."""
    site = house(tmp_path, state=state)
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    site.complete(image(1, 4))
    assert runs(site) == [("done", {"ct": 1, "pet": 2}, 1), ("waiting", {"ct": 3, "pet": 2}, 2)]
    started = site.start()
    assert started is not None
    assert started.job.revision == 2
    assert len(started.job.files) == 7
    site.finish(started, done(product(2, "fused", "picture")))
    assert [state for state, _, _ in runs(site)] == ["superseded", "done"]
    assert [d["state"] for d in site.rows(delivery)] == ["cancelled", "waiting"]


def test_never_again(tmp_path: Path) -> None:
    """`again: never`: neither a late image nor a better series makes the rule run a second time."""
    site = house(tmp_path, FUSION.replace("do:", "again: never\ndo:"))
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    site.complete(image(1, 4))
    site.complete(*ct(3, 21, SliceThickness="1"))
    assert [state for state, _, _ in runs(site)] == ["done"]


def test_what_waits_over_older_inputs_is_cancelled(tmp_path: Path) -> None:
    """A better input before the run has begun: that run is not made any more, only the newer one."""
    site = house(tmp_path)
    site.complete(*ct(1, 1, SliceThickness="3"), *pet())
    site.complete(*ct(3, 21, SliceThickness="1"))
    assert runs(site) == [("cancelled", {"ct": 1, "pet": 2}, 1), ("waiting", {"ct": 3, "pet": 2}, 2)]
    site.complete(*ct(4, 31, SliceThickness="5"))  # not better
    assert len(runs(site)) == 2


def test_a_slower_older_run_does_not_win(tmp_path: Path) -> None:
    """A run over older inputs that ends after the newer one is superseded at once."""
    site = house(tmp_path)
    site.complete(*ct(1, 1, SliceThickness="3"), *pet())
    slow = site.start()
    site.complete(*ct(3, 21, SliceThickness="1"))
    finish(site, product(2, "fused", "picture"))
    assert slow is not None
    site.finish(slow, done(product(1, "fused", "picture")))
    assert [state for state, _, _ in runs(site)] == ["superseded", "done"]


def test_corrected_images_count_even_with_never(tmp_path: Path) -> None:
    """A header correction makes the old results wrong: the rule runs again whatever `again` says."""
    site = house(tmp_path, FUSION.replace("do:", "again: never\ndo:"))
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    first = ct()[0]
    site.complete(replace(first, digest="f" * 64))  # the same pixels under another header
    assert runs(site)[-1] == ("waiting", {"ct": 3, "pet": 2}, 2)


def test_a_correction_ends_a_run_that_takes_the_image_as_a_second_input(tmp_path: Path) -> None:
    """What waits over an image that was corrected is cancelled, whichever input it is of."""
    site = house(tmp_path)
    site.complete(*ct(), *pet())
    site.take(replace(pet()[0], digest="f" * 64))
    assert [state for state, _, _ in runs(site)] == ["cancelled"]
    site.seal(3)
    site.route()
    assert [state for state, _, _ in runs(site)] == ["cancelled", "waiting"]


def test_rejected_images_of_a_second_input(tmp_path: Path) -> None:
    """A rejection note for the PET ends the run over CT and PET, and takes the input away."""
    site = house(tmp_path)
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    note = header(99, series_uid="1.2.9.99", attributes={"Modality": "KO"}, rejection="113001",
                  rejects=tuple(h.sop_uid for h in pet()))  # fmt: skip
    site.take(note)
    assert [state for state, _, _ in runs(site)] == ["cancelled"]
    wake(site)
    assert waits(site)["state"] == "waiting"


def test_inputs_of_two_patients_are_refused(tmp_path: Path) -> None:
    """One study, two Patient IDs: no run, and the words say what differs."""
    site = house(tmp_path)
    site.complete(*ct(), *pet(PatientID="P2"))
    assert runs(site) == []
    assert waits(site)["state"] == "refused"
    (told,) = site.events("study_refused")
    assert "differ in Patient ID" in told["detail"]


def test_other_studies_and_other_rules_go_their_own_way(tmp_path: Path) -> None:
    """Series of another study are no inputs, and rules over one series run as ever."""
    route = "\n---\nrule: route\npurpose: p\nowner: o\nwhen: {}\nsend: [{what: received, to: PACS}]\n"
    site = house(tmp_path, FUSION + route)
    site.complete(*ct())
    site.complete(*(replace(h, study_uid="1.2.8") for h in pet()))
    assert runs(site) == []
    assert len(site.rows(delivery)) == 6
    assert len(site.rows(study_rule)) == 2


def test_a_series_that_no_rule_wants_is_unrouted(tmp_path: Path) -> None:
    """The reason names what speaks against each input."""
    site = house(tmp_path)
    site.complete(image(5, 50, "MR"))
    (row,) = site.series()
    assert row["state"] == "unrouted"
    assert "fusion: no input; ct: Modality: is MR" in row["reason"]
    assert site.rows(study_rule) == []


def test_quarantine_shows_a_person_what_is_missing(tmp_path: Path) -> None:
    """`then: quarantine`: a run that says what it lacks; retried it waits anew, and an input that comes replaces it."""
    site = house(tmp_path, FUSION.replace("then: skip", "then: quarantine"))
    site.complete(*ct())
    site.clock.tick(minutes=30)
    wake(site)
    assert runs(site) == [("quarantined", {"ct": 1}, 1)]
    assert site.rows(run)[0]["reason"].startswith("after 30 min of waiting, pet: ")
    with site.tx() as tx:
        acts.on_runs(tx, acts.Act("retry", site.clock.at), Wanted(run=1))
    assert site.start() is None
    assert runs(site) == [("quarantined", {"ct": 1}, 1)]
    assert waits(site)["state"] == "waiting"
    site.complete(*pet())
    assert runs(site) == [("cancelled", {"ct": 1}, 1), ("waiting", {"ct": 1, "pet": 2}, 2)]


def test_a_person_retries_a_run_whose_input_came(tmp_path: Path) -> None:
    """With `again: never` the node leaves it to a person; the retry takes what is there now."""
    text = FUSION.replace("then: skip", "then: quarantine").replace("do:", "again: never\ndo:")
    site = house(tmp_path, text)
    site.complete(*ct())
    site.clock.tick(minutes=30)
    wake(site)
    site.complete(*pet())
    assert runs(site) == [("quarantined", {"ct": 1}, 1)]
    with site.tx() as tx:
        acts.on_runs(tx, acts.Act("retry", site.clock.at), Wanted(run=1))
    assert site.start() is None
    assert runs(site) == [("cancelled", {"ct": 1}, 1), ("waiting", {"ct": 1, "pet": 2}, 2)]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_replay_runs_again_on_the_same(tmp_path: Path, fresh: bool) -> None:
    """A replay of one of its series, by all rules or this one, opens a turn on the same inputs; fresh UIDs if asked."""
    site = house(tmp_path)
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    how = replays.Replay("fusion" if fresh else "", fresh=fresh)
    with site.tx() as tx:
        assert replays.replay_series(tx, 2, how, acts.Act("replay", site.clock.at)) == ""
    site.route()
    assert runs(site)[-1] == ("waiting", {"ct": 1, "pet": 2}, 2)
    assert site.series()[1]["reason"].startswith("replayed by hand")
    assert "fusion (as pet)" in site.series()[1]["reason"]
    before = site.rows(products)[0]
    started = site.start()
    assert started is not None
    keys = {row["identity"] for row in site.rows(run)}
    assert len(keys) == 1
    assert (before["sop_uid"], started.job.revision) == ("2.25.1", 1)


def test_each_series_has_a_run_of_its_own(tmp_path: Path) -> None:
    """`pick: each`: a run per PET, superseded each by its own successor only."""
    site = house(
        tmp_path, FUSION.replace("pet: {when: {Modality: PT}}", "pet: {when: {Modality: PT}, pick: each}")
    )
    site.complete(*ct())
    site.complete(*pet())
    finish(site, product(1, "fused", "picture"))
    site.complete(*pet(3, 41))
    assert [(s, i["pet"]) for s, i, _ in runs(site)] == [("done", 2), ("waiting", 3)]
    finish(site, product(2, "fused", "picture"))
    site.complete(image(3, 44, "PT"))
    finish(site, product(3, "fused", "picture"))
    assert [(s, i["pet"]) for s, i, _ in runs(site)] == [("done", 2), ("superseded", 3), ("done", 4)]


def test_the_same_images_in_another_role_give_other_uids(tmp_path: Path) -> None:
    """The identity of results says which image was which input."""
    found = set()
    for number, text in enumerate((FUSION, FUSION.replace("ct: {when: {Modality: CT}", "ct: {when: {Modality: PT}")
                                   .replace("pet: {when: {Modality: PT}", "pet: {when: {Modality: CT}"))):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        site = house(tmp_path / str(number), text)
        site.complete(*ct(), *pet())
        started = site.start()
        assert started is not None
        found.add(started.job.provenance.identity)
    assert len(found) == 2


def test_our_own_results_are_no_inputs(tmp_path: Path) -> None:
    """What a node like this one made is an input only with `ours: ok`, and never of the rule that made it."""
    made = {"ContributingEquipmentSequence[0].Manufacturer": "PACSNode"}
    site = house(tmp_path)
    site.complete(*ct(**made), *pet())
    assert runs(site) == []
    (tmp_path / "ok").mkdir()
    allowed = house(tmp_path / "ok", FUSION.replace("ct: {when", "ct: {ours: ok, when"))
    allowed.complete(*ct(**made), *pet())
    assert len(runs(allowed)) == 1


def test_a_rule_that_is_gone_waits_for_nothing(tmp_path: Path) -> None:
    """A study that waits for a rule which is not in use any more is left alone, and says so."""
    site = house(tmp_path)
    site.complete(*ct())
    site.parts.rules = replace(site.parts.rules, rules=())
    site.clock.tick(minutes=30)
    wake(site)
    assert (waits(site)["state"], waits(site)["reason"]) == ("idle", "the rule is not in use any more")
    wake(site)


def test_a_failed_run_is_tried_again_with_all_its_inputs(tmp_path: Path) -> None:
    """A retry of the node takes the same images."""
    site = house(tmp_path)
    site.complete(*ct(), *pet())
    started = site.start()
    assert started is not None
    site.finish(started, Exit(RunState.WAITING, "a disk"))
    site.clock.tick(minutes=1)
    again = site.start()
    assert again is not None
    assert (again.attempt, again.job.inputs, again.job.files) == (2, started.job.inputs, started.job.files)


PRIOR = FUSION.replace(
    "pet: {when: {Modality: PT}}", "pet: {when: {Modality: PT}, prior: {at: PACS, max_age: 5 y}}"
)
WHO = {"IssuerOfPatientID": "H", "PatientBirthDate": "19700102", "PatientSex": "F", "StudyDate": "20260301"}


def test_a_prior_is_asked_for_and_used(tmp_path: Path, state: str) -> None:
    """The rule asks once; what was fetched for it is its input, no arrival: no rule sends it or runs on it."""
    route = "\n---\nrule: route\npurpose: p\nowner: o\nwhen: {}\nsend: [{what: received, to: PACS, mode: sealed}]\n"
    site = house(tmp_path, PRIOR + route, state=state)
    site.complete(*ct(**WHO))
    (row,) = site.rows(wanted_prior)
    assert (row["state"], row["peer"], row["study_date"], row["from_date"]) == (
        "wanted",
        "PACS",
        "20260301",
        "20210301",
    )
    assert json.loads(row["patient"])["PatientID"] == "P1"
    assert waits(site)["reason"] == "waits for pet: PACS is asked for an earlier study"
    fetched(site, *pet(**WHO))
    assert runs(site) == [("waiting", {"ct": 1, "pet": 2}, 1)]
    assert site.series()[1]["state"] == "unrouted"
    assert len(site.rows(delivery)) == 3  # the CT


def fetched(site: House, *headers: Header) -> None:
    """As the fetcher does: a series of an earlier study, flagged, sealed, and named in the row."""
    site.take(*(replace(h, study_uid="1.2.7") for h in headers))
    key = max(site.parts.assembly.series)
    with site.tx() as tx:
        from sqlalchemy import update

        from node.store.schema import series

        tx.execute(update(series).where(series.c.id == key).values(prior="PACS"))
    site.seal(key, "fetched")
    site.route()
    with site.tx() as tx:
        (row,) = [r for r in studies.priors_of(tx, "1.2.9") if r["state"] == "wanted"]
        studies.set_prior(tx, row["id"], state="fetched", series_id=key)
        studies.wake(tx, "1.2.9", site.clock.at)
    wake(site)


def test_a_prior_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    """What the answer could not tell is judged now: the next is asked for, and after three there is none."""
    site = house(tmp_path, PRIOR)
    site.complete(*ct(**WHO))
    for number in range(3):
        fetched(site, *(replace(h, series_uid=f"1.2.7.{number}") for h in ct(7, 60 + 3 * number, **WHO)))
    (row,) = site.rows(wanted_prior)
    assert (row["state"], json.loads(row["tried"])) == ("none", ["1.2.7.0", "1.2.7.1", "1.2.7.2"])
    assert waits(site)["state"] == "skipped"
    assert len(site.events("prior_unfit")) == 3


def test_without_a_certain_patient_nobody_is_asked(tmp_path: Path) -> None:
    """An empty issuer, birth date or sex: no prior, and the reason stands in the row, the rule and an event."""
    site = house(tmp_path, PRIOR)
    site.complete(*ct(**{**WHO, "PatientSex": ""}))
    (row,) = site.rows(wanted_prior)
    assert (row["state"], row["reason"]) == (
        "none", "the patient's sex is empty, so no earlier study is surely theirs"
    )  # fmt: skip
    assert waits(site)["state"] == "skipped"
    assert "sex is empty" in site.events("prior_none")[0]["detail"]


def test_a_held_series_is_waited_for(tmp_path: Path) -> None:
    """A series that a person holds is no input yet; released, it is."""
    site = house(tmp_path, text=SITE)
    site.complete(*ct())
    site.take(*pet())
    with site.tx() as tx:
        acts.on_series(tx, acts.Act("hold", site.clock.at), Wanted(series="2"))
    site.seal(2)
    site.route()
    assert runs(site) == []
    with site.tx() as tx:
        acts.on_series(tx, acts.Act("release", site.clock.at), Wanted(series="2"))
    site.route()
    assert len(runs(site)) == 1


def test_what_an_input_does_not_use_is_named(tmp_path: Path) -> None:
    """The event of the run counts and names the images that `use` left out."""
    site = house(tmp_path, FUSION.replace("ct: {when", "ct: {use: {ImageType: {excludes: LOCALIZER}}, when"))
    slices = ct(ImageType=("ORIGINAL", "AXIAL"))
    site.complete(*slices, image(1, 4, ImageType=("ORIGINAL", "LOCALIZER")), *pet())
    (told,) = site.events("run_opened")
    assert "3 of 4 images, 1 left out (ImageType: is ORIGINAL\\LOCALIZER)" in told["detail"]
    assert json.loads(site.rows(run)[0]["files"]) == [1, 2, 3, 5, 6, 7]


def test_a_held_series_is_called_so(tmp_path: Path) -> None:
    """A series that is waited for because a person holds it is named as held."""
    site = house(tmp_path)
    site.complete(*ct())
    site.take(*pet())
    with site.tx() as tx:
        acts.on_series(tx, acts.Act("hold", site.clock.at), Wanted(series="2"))
    site.seal(2)
    wake_all(site)
    assert "waits for pet: series 2 (PT 2, 3 objects) is held" in waits(site)["reason"]


def wake_all(site: House) -> None:
    """Something happened that the rules may wait for."""
    with site.tx() as tx:
        studies.wake(tx, "1.2.9", site.clock.at)
    wake(site)


def test_what_was_said_of_a_sealed_series_is_not_said_of_what_is_left_of_it(tmp_path: Path) -> None:
    """After some of its images were rejected a series is judged anew, though it was judged before."""
    site = house(
        tmp_path, FUSION.replace("ct: {when: {Modality: CT}", "ct: {when: {Modality: CT, instances: 3}")
    )
    site.complete(*ct(), *pet())
    finish(site, product(1, "fused", "picture"))
    site.take(header(99, series_uid="1.2.9.99", attributes={"Modality": "KO"}, rejection="113001",
                     rejects=(ct()[0].sop_uid,)))  # fmt: skip
    wake(site)
    assert waits(site)["state"] == "waiting"
    assert "instances: is 2; the rule asks for 3" in waits(site)["reason"]


def test_a_revision_is_what_it_is(tmp_path: Path) -> None:
    """`revision` is that of each series: an input may take the first one only."""
    site = house(
        tmp_path, FUSION.replace("ct: {when: {Modality: CT}", "ct: {when: {Modality: CT, revision: 1}")
    )
    site.complete(*ct())
    site.complete(image(1, 4))
    assert "revision: is 2" in waits(site)["reason"]


def test_a_phantom_is_no_input(tmp_path: Path) -> None:
    """What the site file says is never processed is not processed by a rule over a study either, and that is said."""
    text = SITE + "never_process: [{StationName: TEST}]\n"
    site = house(tmp_path, text=text)
    site.parts.never = app.never_lines(site.parts.settings)
    site.complete(*ct(StationName="TEST"))
    site.complete(*pet())
    assert runs(site) == []
    assert "never_process: line " in site.series()[0]["reason"]
    site.complete(*ct(3, 21))
    assert runs(site) == [("waiting", {"ct": 3, "pet": 2}, 1)]
    site.database.close()


def test_results_of_a_study_are_shared_and_ranked_like_others(tmp_path: Path) -> None:
    """One of two peers gets them, the one that the patient has; the run of an urgent rule goes first."""
    more = '  AI1: {ae_title: AI1, address: "127.0.0.1:4251"}\n  AI2: {ae_title: AI2, address: "127.0.0.1:4252"}\n'
    text = SITE.replace("\nseal:", f"\n{more}seal:", 1)
    urgent = FUSION.replace("scope: study", "scope: study\npriority: urgent")
    site = house(tmp_path, urgent.replace("to: PACS", "to: {share: [AI1, AI2]}"), text=text)
    site.complete(*ct())
    site.complete(*pet())
    (row,) = site.rows(run)
    assert len(json.loads(row["sends"])["fused"]) == 1
    assert row["rank"] < site.clock.at.timestamp() - 86400
    (told,) = site.events("delivery_shared")
    assert told["destination"] in json.loads(row["sends"])["fused"]
    site.database.close()
