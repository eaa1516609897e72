"""The example rules are right: they pass `check` with the peers of the site file beside them."""

from __future__ import annotations

from pathlib import Path

from node import app
from node import settings as site
from node.route.check import check
from node.route.rules import read_folder

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"


def test_the_example_rules_pass() -> None:
    """Every example rule is right, and its cases come out as expected; one that renames patients is warned of."""
    file = EXAMPLES / "node.yaml"
    settings = site.parse(file.read_text(encoding="utf-8"), str(file), {})
    assert app.never_lines(settings)
    report = check(read_folder(EXAMPLES / "rules"), app.operator_specs(), app.destinations(settings))
    assert report.errors == ()
    assert [told for told in report.warnings if " says whose it is" not in told] == []
    assert [case for case in report.cases if not case.passed] == []
    assert {case.rule for case in report.cases} == set(report.rules)
