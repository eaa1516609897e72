"""A rule from an example folder: what `rule new` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node import app, dryrun, sketch
from node.desk.offers import unknown_operator
from node.dryrun import FoundSeries
from node.errors import Broken, Misconfigured, Refused
from node.model import OperatorSpec
from node.route import check as checking
from node.route.match import judge
from node.route.rules import read_rules, scan_folder
from node.settings import Settings
from node.sources import opened


@dataclass(frozen=True)
class Example:
    """What the new rule is made from, and where it goes."""

    paths: Sequence[Path]
    out: Path
    series: int = 0
    """Which series, from 1; 0 where there is only one."""
    operator: str = ""
    to: str = ""
    """Empty for the first peer that receives."""
    owner: str = ""


def new_rule(settings: Settings | None, example: Example) -> str:
    """Write the rule; its text.

    Raises Misconfigured for an operator, peer or file that will not do, Refused where no series does, Broken
    where the rule that was made does not pass its own `check`.
    """
    specs = app.operator_specs(settings)
    if example.operator and example.operator not in specs:
        raise unknown_operator(example.operator, specs)
    if example.out.exists():
        raise Misconfigured(f"{example.out} is there already; name another file, it is not overwritten")
    with opened() as sources:
        found = dryrun.find_series(example.paths, sources)
    if not found.series:
        raise Refused("no DICOM series among these files")
    files = scan_folder(settings.node.rules)[0] if settings and settings.node.rules.is_dir() else {}
    peers = app.destinations(settings)
    taken = tuple(rule.name for rule in read_rules(files, specs, peers)[0])
    wish = sketch.Wish(example.to or _receiver(settings), example.owner, example.operator, taken)
    meant = sketch.choose(found.series, example.series)
    text, report = _passing(meant, found.series, wish, example.out, specs, peers)
    if not report.ok:
        mistakes = "; ".join((*report.errors, *(case.message for case in report.cases if not case.passed)))
        raise Broken(
            f"the rule that was made is not right, and was not written: {mistakes}; please report this"
        )
    _must_match(text, example.out, meant, specs, peers)
    try:
        example.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{example.out} cannot be written: {error.strerror}") from None
    return text


def _passing(
    meant: FoundSeries, found: Sequence[FoundSeries], wish: sketch.Wish, out: Path,
    specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool],
) -> tuple[str, checking.Report]:  # fmt: skip
    """The rule, with a case for each other series that it does not match: some of them are like the example."""
    others: list[FoundSeries] = []
    text = sketch.sketch(meant, specs, wish)
    report = checking.check({str(out): text}, specs, peers)
    for other in (one for one in found if one is not meant):
        longer = sketch.sketch(meant, specs, wish, [*others, other])
        tried = checking.check({str(out): longer}, specs, peers)
        if tried.ok and len(tried.cases) > len(report.cases):
            others.append(other)
            text, report = longer, tried
        if len(others) == _MOST_CASES:
            break
    return text, report


def _must_match(
    text: str, out: Path, meant: FoundSeries, specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> None:
    """Raises Broken where the rule does not run on the very series that it was made from."""
    (rule,) = read_rules({str(out): text}, specs, peers)[0]
    judged = judge(
        [rule],
        meant.facts(),
        replace(dryrun.context_of(meant, "UTC", datetime.now(UTC)), ours="", incomplete=""),
    )
    if not judged[0].runs:
        raise Broken(
            f"the rule that was made does not match its example, and was not written: {judged[0].because}; "
            "please report this"
        )


_MOST_CASES = 5
"""Cases from the other series of a folder."""


def _receiver(settings: Settings | None) -> str:
    """The first peer that takes results as they are; PACS where no site file names any."""
    if settings is None:
        return "PACS"
    for name, peer in settings.peers.items():
        if peer.receives and peer.only != "deidentified":
            return name
    raise Misconfigured("no peer of the site file has an address to send results to; name one under `peers`")
