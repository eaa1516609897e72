"""Claims about what a person may do: hold, release, cancel, retry, replay; on one and on a group (design §9)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli_material import MR, RULES, Place, installed, lived_in, pacsnode
from flow_material import House, header
from pydicom import dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation

from node.operator import Stack
from node.store.schema import delivery, meta, run
from node.store.schema import series as series_table
from node.testing.stacks import write_mr_stack


@pytest.fixture
def lived(tmp_path: Path) -> Place:
    """A site where a CT was routed and processed, an MR was not wanted, and one object is parked."""
    (tmp_path / "site").mkdir()
    return lived_in(tmp_path / "site")


def house(lived: Place) -> House:
    """Its tables."""
    return House(lived.folder, RULES, specs=installed()[0], text=lived.site.read_text())


@pytest.mark.parametrize("verb", ["hold", "release", "cancel", "retry", "replay"])
def test_an_act_without_a_selection_is_a_usage_error_that_names_the_options(lived: Place, verb: str) -> None:
    """Nothing is ever done to everything by leaving options out."""
    result = lived.run(verb)
    assert result.exit_code == 2
    assert f"{verb} needs at least one of --" in result.stderr
    assert "--series" in result.stderr and "--since" in result.stderr


def test_a_destination_is_held_and_released(lived: Place) -> None:
    """A dry run counts; the act does the same; release gives it back; stored ones are left alone and counted."""
    dry = lived.run("hold", "--to", "PACS", "--dry-run")
    assert dry.stdout == "2 deliveries would be held; left alone: 7 stored\n"
    assert len(lived.json("deliveries", "--state", "held")) == 0
    assert lived.run("hold", "--to", "PACS", "--why", "PACS upgrade").stdout == (
        "2 deliveries held; left alone: 7 stored\n"
    )
    held = lived.json("deliveries", "--state", "held")
    assert {row["reason"] for row in held} == {"held by hand: PACS upgrade"}
    assert lived.run("retry", "--to", "PACS").exit_code == 1, "retry is not release"
    told = lived.json("release", "--to", "PACS")
    assert told == {
        "verb": "release",
        "what": "deliveries",
        "changed": 2,
        "left": {"stored": 7},
        "dry_run": False,
    }
    names = [event["name"] for event in lived.json("events", "--series", "1")]
    assert names[:2] == ["deliveries_released", "deliveries_held"]


def test_a_group_is_cancelled_by_class_and_state(lived: Place) -> None:
    """By the SOP class's name; the timeline of the study tells who did it and why."""
    assert lived.run("cancel", "--class", "MR Image", "--state", "waiting").exit_code == 1
    result = lived.run("cancel", "--class", "CT Image Storage", "--state", "parked", "--why", "burnt on CD")
    assert (result.exit_code, result.stdout) == (0, "1 delivery cancelled\n")
    study = lived.json("find", "--series", "1")[0]
    (act,) = [entry for entry in study["timeline"] if entry["name"] == "deliveries_cancelled"]
    assert (act["detail"], act["series_id"]) == ("1 cancelled by hand: burnt on CD", 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--state", "parkd"], "did you mean parked?"),
        (["--class", "CT Imag"], "did you mean CTImageStorage?"),
        (["--status", "xyz"], "four hexadecimal digits"),
        (["--older-than", "monday"], "--older-than monday: expected a time such as"),
    ],
)
def test_a_selection_that_cannot_be_read_is_a_usage_error(
    lived: Place, arguments: list[str], says: str
) -> None:
    """With the nearest right word, or what is expected."""
    result = lived.run("cancel", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_act_on_a_series_that_is_not_there_is_refused(lived: Place) -> None:
    """Exit code 3, for every act."""
    for verb in ("hold", "release", "cancel", "retry", "replay"):
        result = lived.run(verb, "--series", "99")
        assert result.exit_code == 3, verb
        assert "holds no such series" in result.stderr


def test_runs_are_cancelled_by_number_or_as_a_group(lived: Place) -> None:
    """`--run N` alone means the run, with `--to` its deliveries; `--runs` a group; a done run is left alone."""
    result = lived.run("cancel", "--run", "1")
    assert (result.exit_code, result.stdout) == (1, "nothing to cancel among the runs; left alone: 1 done\n")
    lived.json("replay", "--series", "1")
    before = house(lived)
    before.route()
    before.database.close()
    assert lived.run("cancel", "--runs", "--rule", "thick").stdout == "1 run cancelled; left alone: 1 done\n"
    after = house(lived)
    assert [row["state"] for row in after.rows(run)] == ["done", "cancelled"]
    after.database.close()
    assert lived.run("cancel", "--run", "1", "--to", "PACS").stdout == "1 delivery cancelled\n"


def test_a_replay_tells_what_it_takes_and_what_it_does_not(lived: Place) -> None:
    """A study's two series, by accession; asked again both are about to be judged; a dry run changes nothing."""
    accession = lived.json("find", "--series", "1")[0]["accession"]
    text = lived.run("replay", "--accession", accession, "--dry-run").stdout
    assert text == "2 series would be judged again by the rules in use\n"
    result = lived.run("replay", "--accession", accession, "--new-generation", "--why", "rejected")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "2 series will be judged again by the rules in use",
            "the node is not running: they are judged when it starts",
        ],
    )
    again = lived.run("replay", "--accession", accession)
    assert again.exit_code == 1
    assert again.stdout.count("about to be judged anyway") == 2
    found = house(lived)
    assert [(r["replay"], r["replay_fresh"]) for r in found.rows(series_table)] == [(1, True)] * 2
    found.database.close()


def test_a_replay_by_a_rule_that_is_none_names_the_nearest(lived: Place) -> None:
    """Before anything is changed."""
    result = lived.run("replay", "--series", "1", "--rule", "thik")
    assert result.exit_code == 2
    assert "did you mean thick?" in result.stderr
    assert lived.json("series", "--series", "1")[0]["state"] == "routed"


def test_objects_that_were_set_aside_are_listed_and_released(lived: Place) -> None:
    """A conflict is asked for, once; a kept object is not set aside; a peer must be one that may get it."""
    made = house(lived)
    known = made.rows(delivery)[0]["instance_id"]
    uid = lived.json("objects", "--series", "1", "--limit", "100")[-1]["sop_uid"]
    made.sequence = 10_000
    made.take(replace(header(1), sop_uid=uid, digest="f" * 64))
    made.database.close()
    (aside,) = lived.json("objects", "--state", "conflict")
    assert "known from another study or series" in aside["reason"]
    result = lived.run("release", "--object", str(aside["id"]))
    assert (result.exit_code, "takes the place" in result.stdout) == (0, True)
    after = house(lived)
    assert [row["key"] for row in after.rows(meta) if row["key"].startswith("release-")] == [
        f"release-{aside['id']}"
    ]
    after.database.close()
    assert lived.run("release", "--object", str(known)).exit_code == 3
    assert "did you mean PACS?" in lived.run("release", "--object", "1", "--to", "PASC").stderr
    assert (
        lived.run("release", "--object", "1", "--to", "ARCHIVE").stdout == "object 1 is queued for ARCHIVE\n"
    )
    assert "no such object" in lived.run("release", "--object", "99999").stderr


def test_a_held_series_is_found_and_released(tmp_path: Path) -> None:
    """Hold before it is routed, see it in the list, release it; a routed series has nothing to hold."""
    (tmp_path / "site").mkdir()
    lived = lived_in(tmp_path / "site")
    result = lived.run("hold", "--series", "1")
    assert (result.exit_code, result.stdout) == (
        1,
        "nothing to hold among the series; left alone: 1 routed\n",
    )
    lived.run("replay", "--series", "1")
    assert lived.run("hold", "--series", "1").stdout == "1 series held\n"
    assert lived.json("series", "--series", "1")[0]["held"] == "by hand"
    made = house(lived)
    made.route()
    made.database.close()
    assert lived.json("series", "--series", "1")[0]["state"] == "sealed"
    assert lived.run("release", "--series", "1").stdout == "1 series released\n"


def test_the_timeline_names_rules_and_folds_what_is_the_same(lived: Place) -> None:
    """Runs with their rule, deliveries with their rule, and no JSON for people."""
    text = lived.run("find", "--run", "1", COLUMNS="200").stdout
    assert "run 1, thick" in text and "→ PACS, route" in text
    assert '{"' not in text
    for entry in lived.json("find", "--run", "1")[0]["timeline"]:
        if entry["name"] in ("series_routed", "series_unrouted"):
            assert {d["rule"] for d in entry["decisions"]} == {"thick", "route"}


def test_operators_are_a_table_or_one_in_full() -> None:
    """A row per operator; with its name the options with unit, default and choices."""
    heading, *rows = pacsnode("operators", COLUMNS="1000").stdout.splitlines()
    assert heading.split()[:4] == ["operator", "takes", "gives", "options"]
    assert len(rows) == len(json.loads(pacsnode("operators", "--json").stdout))
    text = pacsnode("operators", "reformat").stdout
    assert "combine: mean | max | min, default mean" in text
    assert "thickness: number in mm, required" in text


# --- rule new


def test_a_rule_from_an_example_holds_for_it_and_passes_check(lived: Place, tmp_path: Path) -> None:
    """Shadow mode, the series' own values with bounds, two cases; `explain` says that it runs on the example."""
    out = tmp_path / "rules" / "new.yaml"
    out.parent.mkdir()
    images = lived.folder / "images" / "ct"
    result = lived.run("rule", "new", images, "--out", out, "--owner", "me@h.example")
    assert result.exit_code == 0, result.output
    text = out.read_text()
    for line in ("mode: shadow", "owner: \"me@h.example\"", "Modality: CT", "slices: {at_least: 4}",
                 "SeriesDescription: {matches: \"*Thorax*\"}", "to: PACS", "reformat: {plane: axial"):  # fmt: skip
        assert line in text, text
    assert "PHANTOM" not in text
    checked = lived.run("check", "--rules", out.parent)
    assert (checked.exit_code, "2 of 2 try cases" in checked.stdout) == (0, True), checked.output
    (one,) = lived.json("explain", images, "--rules", out.parent)["series"]
    assert [rule["runs"] for rule in one["rules"]] == [True]
    again = lived.run("rule", "new", images, "--out", out)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)


def test_a_rule_for_an_operator_that_needs_a_mask_makes_one_first(lived: Place, tmp_path: Path) -> None:
    """`statistics` takes a volume and a mask: a step before it makes the mask; names do not collide."""
    out = tmp_path / "s.yaml"
    result = lived.run(
        "rule", "new", lived.folder / "images" / "ct", "--out", out, "--operator", "statistics"
    )
    assert result.exit_code == 0, result.output
    assert "as: mask\n  - statistics: {mask: mask}" in out.read_text()


def test_pictures_of_no_counts_get_no_operator_unasked(lived: Place, tmp_path: Path) -> None:
    """A radiograph is sent on, and the draft says that an operator is for a person to choose; a scan is counted."""
    source = dcmread(next((lived.folder / "images" / "ct").iterdir()))
    for modality, words in (("DX", "what: received"), ("NM", "count_qa: {}")):
        source.Modality, source.SOPClassUID = modality, DigitalXRayImageStorageForPresentation
        file = tmp_path / modality / "a.dcm"
        file.parent.mkdir()
        source.save_as(file)
        made = lived.run("rule", "new", file.parent, "--out", tmp_path / f"{modality}.yaml")
        assert made.exit_code == 0, made.output
        assert words in (tmp_path / f"{modality}.yaml").read_text()
        assert ("# do: no operator takes such a series" in made.stdout) == (modality == "DX")


def test_an_operator_of_all_volumes_gets_the_series_whole(lived: Place, tmp_path: Path) -> None:
    """`adc` takes a diffusion series with its b-values together: no `split`, and no mask it can do without."""
    stack = Stack(tuple(replace(MR, facts={**MR.facts, "b_value": b}) for b in (0.0, 800.0)))
    write_mr_stack(tmp_path / "dwi", stack)
    out = tmp_path / "adc.yaml"
    made = lived.run("rule", "new", tmp_path / "dwi", "--out", out, "--operator", "adc")
    assert made.exit_code == 0, made.output
    assert "do:" in out.read_text() and "  - adc: {}" in out.read_text()
    assert "split" not in out.read_text()
    assert lived.run("check", "--rules", out).exit_code == 0


def test_where_no_rule_can_be_made_it_says_why(lived: Place, tmp_path: Path) -> None:
    """Several series, none, an operator that needs more, or does not exist: nothing is written."""
    out = tmp_path / "n.yaml"
    images = lived.folder / "images"
    several = lived.run("rule", "new", images, "--out", out)
    assert several.exit_code == 3
    assert "choose one with --series N" in several.stderr and "2  series 4: MR" in several.stderr
    assert lived.run("rule", "new", lived.folder / "rules", "--out", out).exit_code == 3
    needs = lived.run("rule", "new", images / "ct", "--out", out, "--operator", "smooth")
    assert (needs.exit_code, "width" in needs.stderr) == (3, True)
    assert (
        "did you mean reformat?"
        in lived.run("rule", "new", images / "ct", "--out", out, "--operator", "reformt").stderr
    )
    assert not out.exists()
    assert lived.run("rule", "new", images, "--out", out, "--series", "2").exit_code == 0
    assert "Modality: MR" in out.read_text()
    assert "# not meant: series 3: CT" in out.read_text()  # what lies beside the example is a case of its own
    assert "3 of 3 try cases" in lived.run("check", "--rules", out).stdout


def test_a_rule_can_be_made_without_a_site_file(
    lived: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it sends to PACS, whatever that will be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACSNODE_CONFIG", raising=False)
    result = pacsnode("rule", "new", lived.folder / "images" / "ct", "--out", "a.yaml", "--json")
    assert json.loads(result.stdout)["file"] == "a.yaml"
    assert "to: PACS" in (tmp_path / "a.yaml").read_text()
