"""What rules cost: matching a large series against many, and sealing it; without network, in this process.

The series is one CT of as many images as asked for, with what differs from image to image in a real one: times,
positions, tube current. No two rules are the same: each asks several things with bounds of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node import app, flow
from node import settings as site
from node.bench import material
from node.bench.tell import Answered, Report, Say, Verdict
from node.facts import Facts, gather
from node.flow import Parts
from node.model import Cell, Header, SeriesState
from node.read.header import arrival_of_file, read_header
from node.route.match import Context, judge
from node.route.rules import RuleSet, parse_rules
from node.store import intake
from node.store.database import open_database

_SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}
peers:
  CT01: {sends_as: [CT01]}
  PACS: {ae_title: PACS, address: "127.0.0.1:4242"}
"""
_WHEN = (
    "{{Modality: CT, ImageType: {{has_all: [ORIGINAL, PRIMARY]}}, SliceThickness: {{at_most: {n}.5 mm}}, "
    "slices: {{at_least: {n}}}}}",
    "{{Modality: MR, EchoTime: {{between: [{n}, 400]}}, SeriesDescription: {{matches: ['*t1*', '*mpr{n}*']}}}}",
    "{{Modality: CT, KVP: {{at_least: {n}}}, none_of: [{{SeriesDescription: {{matches: '*topogram {n}*'}}}}]}}",
    "{{any_of: [{{Modality: CT, XRayTubeCurrent: {{at_least: {n}}}}}, {{Modality: PT}}], has_tilt: no, "
    "orientation: axial}}",
    "{{from: [CT01, CT02], Exposure: {{at_most: {more}}}, AcquisitionTime: {{at_least: '06:{minute:02}'}}, "
    "instances: {{between: [2, {more}000]}}}}",
)
_USE = ("use: {ImageType: {excludes: LOCALIZER}}\n", "")
_MATCHED, _SEALED = 0.05, 0.1
"""Seconds: the budget."""


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    rules: int
    images: int


def measure(asked: Asked, say: Say) -> Report:
    """Take in, seal and match a series, as the conductor does."""
    specs = app.operator_specs()
    say(f"reading {asked.rules} rules")
    rules = parse_rules(
        {"bench.yaml": "---\n".join(_rules(asked.rules))}, specs, {"CT01": False, "PACS": True}
    )
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        headers = list(_headers(Path(name), asked.images))
        for number in range(1, asked.rounds + 1):
            say(f"round {number} of {asked.rounds}")
            for what, seconds in _round(Path(name) / str(number), headers, rules).items():
                took.setdefault(what, []).append(seconds)
    answered = [Answered(what, seconds) for what, seconds in took.items()]
    verdicts = [
        Verdict(f"{asked.rules} rules matched once the facts are known, s", min(took[_JUDGE]), most=_MATCHED),
        Verdict("a series sealed, s", min(took[_SEAL]), most=_SEALED),
    ]
    how = f"{asked.rules} different rules over a CT of {asked.images} images, {asked.rounds} rounds"
    settings = {
        "the verdicts": "the best of the rounds: other work on this machine only adds to it",
        "the database": "SQLite, as durable as in the node",
    }
    return Report("rules", how, "", [], settings, (), answered, (), verdicts)


_TAKE, _SEAL, _JUDGE, _ROUTE = (
    "one object taken in", "sealed: facts written, gaps looked for", "matched, the facts known (CPU)",
    "routed: facts read, matched, runs opened, events written",
)  # fmt: skip


def _round(folder: Path, headers: list[Header], rules: RuleSet) -> dict[str, float]:
    """Each step once, in seconds; nothing that an earlier round worked out helps."""
    parts = _parts(folder, rules)
    found: dict[str, float] = {}
    try:
        began = time.perf_counter()
        for first in range(0, len(headers), 100):
            with parts.database.write() as tx:
                for place, header in enumerate(headers[first : first + 100], first + 1):
                    flow.take_in(tx, parts, (1, place), header)
        found[_TAKE] = (time.perf_counter() - began) / len(headers)
        (series_id,) = parts.assembly.series
        found[_SEAL] = _timed(lambda: _seal(parts, series_id))
        facts: Facts = gather(header.attributes for header in headers)
        context = Context(datetime.now(UTC), "Europe/Berlin")
        began = time.process_time()  # nothing waits here: what others do on this machine is not to count
        judge(rules.rules, facts, context)
        found[_JUDGE] = time.process_time() - began
        found[_ROUTE] = _timed(lambda: _route(parts))
    finally:
        parts.database.close()
    return found


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _seal(parts: Parts, series_id: int) -> None:
    with parts.database.write() as tx:
        flow.seal(tx, parts, series_id, "measured")


def _route(parts: Parts) -> None:
    with parts.database.write() as tx:
        for row in intake.in_state(tx, SeriesState.SEALED):
            flow.route(tx, parts, row)


def _parts(folder: Path, rules: RuleSet) -> Parts:
    (folder / "data").mkdir(parents=True)
    settings = site.parse(_SITE, str(folder / "node.yaml"), {})
    return Parts(
        database=open_database("sqlite", settings.node.data), settings=settings, rules=rules,
        seal_lines=app.seal_lines(settings), specs=app.operator_specs(), now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
    )  # fmt: skip


def _rules(count: int) -> Iterator[str]:
    for n in range(count):
        when = _WHEN[n % len(_WHEN)].format(n=n + 1, more=500 + n, minute=n % 60)
        yield (
            f"rule: bench-{n}\npurpose: It is measured.\nowner: bench@localhost\nwhen: {when}\n{_USE[n % 2]}"
            f"do: [{{reformat: {{plane: axial, thickness: {n % 9 + 1} mm}}, as: made}}]\n"
            f"send: [{{what: made, to: PACS, SeriesDescription: 'bench {n}'}}]\n"
        )


def _headers(folder: Path, count: int) -> Iterator[Header]:
    """The header of one written slice, with what differs from image to image."""
    (path, *_) = material.write_ct(folder / "ct", 1)
    first = replace(read_header(path, *arrival_of_file(path)), peer="CT01", association="1-1")
    for n in range(count):
        own: dict[str, Cell] = {
            name: (value,)
            for name, value in {
                "from": ("CT01",), "SOPInstanceUID": (f"1.2.3.{n}",), "InstanceNumber": (str(n + 1),),
                "ImagePositionPatient": ("-100", "-100", f"{n / 2:.1f}"), "SliceLocation": (f"{n / 2:.1f}",),
                "AcquisitionTime": (f"12{n // 100 % 60:02}{n % 60:02}.{n:04}",), "WindowCenter": (str(n % 7),),
                "ContentTime": (f"12{n // 100 % 60:02}{n % 60:02}.{n:04}",), "Exposure": (str(n % 89),),
                "XRayTubeCurrent": (str(200 + n % 97),),
            }.items()
        }  # fmt: skip
        yield replace(
            first, sop_uid=f"1.2.3.{n}", attributes={**first.attributes, **own}, digest=f"{n:064x}",
            pixel_digest=f"{n + 1:064x}",
        )  # fmt: skip
