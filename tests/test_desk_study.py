"""Claims about what people are told of rules over a study: in a dry run, in the lists, and on the timeline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import peers
from flow_material import House
from test_flow_study import BOTH, FUSION, PRIOR, WHO, ct, finish, house, pet

from node import app, desk
from node.desk.explaining import (
    explain_files,
    explain_kept,
    explanation_json,
    explanation_lines,
    matched_lines,
)
from node.desk.standing import status, status_lines
from node.flow import study_judgements
from node.route.rules import parse_rules
from node.store import queries
from node.store.choosing import Wanted
from node.store.queries import Search
from node.testing import Grid, Series, body_volume, write_ct_series, write_pet_series

GRID = Grid(shape=(4, 8, 8), spacing=(5.0, 20.0, 20.0))
ZONE = ZoneInfo("Europe/Berlin")


def timeline(site: House) -> str:
    """What `find` prints of the one study."""
    found = desk.timelines(site.database, Search(study="1.2.9"))
    json.dumps(found, default=str)
    return re.sub(r"\[/?[a-z]*\]", "", "\n".join(desk.timeline_lines(found, ZONE, "Europe/Berlin")))


def test_the_timeline_and_the_status_say_who_waits_for_what(tmp_path: Path) -> None:
    """While it waits: for which input and until when; afterwards what became of it."""
    site = house(tmp_path)
    site.complete(*ct())
    text = timeline(site)
    assert "rule fusion: waiting, waits for pet: the one series does not fit" in text
    assert "until 2026-03-01 13:30:00 CET" in text
    assert "study waiting  fusion: waits for pet" in text
    told = "\n".join(status_lines(status(site.parts.settings)))
    assert "fusion waits for pet until 2026-03-01 13:30:00 CET\n    the one series does not fit" in told
    assert "\n    study 1.2.9\n" in told
    site.complete(*pet())
    assert "rule fusion: ran, ct is series 1 (CT 1, 3 objects) (the only one that fits)" in timeline(site)
    assert "fusion waits" not in "\n".join(status_lines(status(site.parts.settings)))


def test_a_prior_is_told_without_the_patient(tmp_path: Path) -> None:
    """How far it is, and not whose it is."""
    site = house(tmp_path, PRIOR)
    site.complete(*ct(**WHO))
    found = desk.timelines(site.database, Search(study="1.2.9"))
    assert [(p["input"], p["peer"], p["state"]) for p in found[0]["priors"]] == [("pet", "PACS", "wanted")]
    assert "19700102" not in json.dumps(found, default=str)
    assert "prior pet from PACS: wanted" in timeline(site)


def test_runs_are_listed_under_each_of_their_series(tmp_path: Path) -> None:
    """`runs` says which series a run takes, and finds it by any of them; its study has it once."""
    site = house(tmp_path)
    site.complete(*ct(), *pet())
    with site.database.read() as tx:
        by_each = [queries.list_runs(tx, Wanted(series=key)) for key in ("1", "2")]
    assert [[row["id"] for row in found] for found in by_each] == [[1], [1]]
    assert by_each[0][0]["takes"] == "ct 1, pet 2"
    assert by_each[0][0]["inputs"]["pet"] == {"series_id": 2, "objects": 3}
    (study,) = desk.timelines(site.database, Search(study="1.2.9"))
    assert [run["id"] for series in study["series"] for run in series["runs"]] == [1]


def test_explain_of_a_kept_series_tells_its_study(tmp_path: Path) -> None:
    """Beside what the rules over one series say stands what those over its study do, as it is now."""
    site = house(tmp_path)
    site.complete(*ct())
    explained = explain_kept(site.parts.settings, site.parts.rules, Search(series="1"))
    text = "\n".join(explanation_lines(explained, {}))
    assert "✓ ct: series 1 (CT 1, 3 objects): the only one that fits" in text
    assert "✗ pet: the one series does not fit" in text
    (study,) = explanation_json(explained, {})["studies"]
    assert study["rules"][0]["state"] == "skipped"  # by the clock of today the wait is long over
    site.complete(*pet())
    finish(site)
    again = explain_kept(site.parts.settings, site.parts.rules, Search(study="1.2.9"))
    assert [one.title for one in again][-1] == "study 1.2.9, as it stands now"
    assert "✓ fusion" in "\n".join(explanation_lines(again, {}))
    assert "fusion (r.yaml:2): 1 of 1 study" in "\n".join(matched_lines(again))


def test_a_dry_run_over_folders_says_what_the_node_does(tmp_path: Path) -> None:
    """The same series, from files: the same inputs, for the same reasons, as the node that received them."""
    folder = tmp_path / "in"
    for number, thickness in ((1, "5"), (2, "1")):
        described = Series(f"ct{number}", study="s", number=number, changes={"SliceThickness": thickness})
        write_ct_series(folder / str(number), body_volume(GRID), series=described)
    hot = body_volume(GRID)
    write_pet_series(
        folder / "3",
        type(hot)(hot.array + 2000, hot.affine, hot.unit),
        series=Series("pet", study="s", number=3),
    )
    (tmp_path / "site").mkdir()
    site = House(tmp_path / "site", FUSION, specs=BOTH)
    site.receive(sorted(folder.rglob("*.dcm")))
    for series_id in list(site.parts.assembly.series):
        site.seal(series_id)
    site.route()
    with site.database.read() as tx:
        (live,) = study_judgements(tx, site.parts, str(site.series()[0]["study_uid"]))
    rules = parse_rules({"r.yaml": FUSION}, BOTH, {"PACS": True})
    explained, _ = explain_files(site.parts.settings, rules, [folder], "")
    (dry,) = next(one.of_study for one in explained if one.of_study)

    def chosen(judged: object) -> list[tuple[str, str, int]]:
        views = judged.views  # type: ignore[attr-defined]
        return [(v.input.name, w.candidate.series_uid, len(w.used)) for v in views for w in v.chosen]

    assert chosen(dry) == chosen(live)
    assert dry.runs
    assert live.runs
    assert "SliceThickness: smallest decides (1 against 5)" in dry.because
    assert "SliceThickness: smallest decides (1 against 5)" in live.because


def test_every_real_study_gets_a_verdict_in_words() -> None:
    """Over every real image there is the example rules over studies neither fail nor keep silent."""
    folder = Path(__file__).parents[1] / "config" / "examples" / "rules"
    specs = app.operator_specs()
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    files = {name: text for name, text in texts.items() if "scope: study" in text}
    rules = parse_rules(files, specs, {"PACS": True})
    explained, _ = explain_files(None, rules, [peers.need_samples()], "")
    studies = [one for one in explained if one.of_study]
    assert len(studies) > 20
    for one in studies:
        assert [judged.because != "" for judged in one.of_study] == [True] * len(rules.of_studies)
    assert "\n".join(explanation_lines(explained, {}))
    json.dumps(explanation_json(explained, {}), default=str)
