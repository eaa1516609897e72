"""What a run's results say in plain values: numbers with their place, and why others are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from node.measured import lacking, measured
from node.model import Code, SeriesPart
from node.operator import Mask, Measurement, Remark, Report
from node.testing import Grid, Series, body_volume, run_rule, write_ct_series

NAME, UNIT = Code("N", "99T", "Name"), Code("1", "UCUM", "no units")
KIDNEY, LEFT = Code("64033007", "SCT", "Kidney"), Code("7771000", "SCT", "Left")


def test_every_number_says_where_it_was_measured() -> None:
    """A region by its label, else side and site, else nothing; with the part of the series behind it."""
    mask = Mask(np.ones((1, 1, 1), bool), np.eye(4), "Liver", NAME, NAME)
    numbers = (
        Measurement(NAME, 1, UNIT, region=mask),
        Measurement(NAME, 2, UNIT, site=KIDNEY, laterality=LEFT),
        Measurement(NAME, 3, UNIT),
    )
    results = {"report": Report(numbers), "list": list(numbers[:1]), "other": mask}
    found = measured(results, SeriesPart(1, "b_value 0"))
    assert [(m["output"], m["region"]) for m in found] == [
        ("report", "Liver, b_value 0"), ("report", "Left Kidney, b_value 0"), ("report", "b_value 0"),
        ("list", "Liver, b_value 0"),
    ]  # fmt: skip
    assert (found[0]["name"], found[0]["value"], found[0]["method"]) == ("N^99T^Name", 1.0, "")


def test_only_what_is_missing_is_told_beside_the_report() -> None:
    """Of the sentences of a report those that say why a number is not there."""
    report = Report((), (Remark("How it was made."), Remark("No mass: no calibration.", missing=True)))
    assert lacking({"report": report, "numbers": []}) == ["No mass: no calibration."]


def test_a_run_that_lacks_a_number_says_so_in_its_reason(tmp_path: Path) -> None:
    """Calcium at 100 kV has volume and no Agatston score; the run is done, and its reason says why not."""
    grid = Grid((12, 48, 48), (3.0, 8.0, 8.0))
    changes = {"KVP": "100", "ContrastBolusAgent": None}
    write_ct_series(tmp_path / "in", body_volume(grid), series=Series("heart", changes=changes))
    rule = tmp_path / "rule.yaml"
    rule.write_text(
        "rule: calcium\npurpose: p\nowner: o\nwhen: {Modality: CT}\ndo:\n  - segment_body: {}\n    as: body\n"
        "  - calcium_score: {mask: body}\n    as: calcium\nsend: [{what: calcium, to: PACS}]\n"
    )
    (made,) = run_rule(rule, [tmp_path / "in"], tmp_path / "out")
    assert made.ended is not None
    assert made.ended.state == "done", made.ended.reason
    assert (
        "No Agatston score: it is defined for 120 kV, and the tube voltage was 100 kV." in made.ended.reason
    )
    assert "No mass: the scanner's calibration" in made.ended.reason
    assert [str(m["name"]).split("^")[-1] for m in made.ended.measurements] == ["Calcium Volume"]
