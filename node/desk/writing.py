"""A rule from an example folder: what `rule new` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node import app, dryrun, sketch
from node.desk.offers import unknown_operator
from node.errors import Broken, Misconfigured, Refused
from node.route import check as checking
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
    specs = app.operator_specs()
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
    text = sketch.sketch(sketch.choose(found.series, example.series), specs, wish)
    report = checking.check({str(example.out): text}, specs, peers)
    if not report.ok:
        mistakes = "; ".join((*report.errors, *(case.message for case in report.cases if not case.passed)))
        raise Broken(
            f"the rule that was made is not right, and was not written: {mistakes}; please report this"
        )
    try:
        example.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{example.out} cannot be written: {error.strerror}") from None
    return text


def _receiver(settings: Settings | None) -> str:
    """The first peer that takes results as they are; PACS where no site file names any."""
    if settings is None:
        return "PACS"
    for name, peer in settings.peers.items():
        if peer.receives and peer.only != "deidentified":
            return name
    raise Misconfigured("no peer of the site file has an address to send results to; name one under `peers`")
