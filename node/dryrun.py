"""Rules over files on disk, without a node: `explain` and `process` (same rooms, same decisions)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from node.assemble.completeness import gaps
from node.derive.identity import identity
from node.engine import write_job
from node.errors import Misconfigured
from node.facts import Facts, gather
from node.flow import NODE_MAJOR, SOFTWARE, Started, made_by_a_node, number_series
from node.model import NOTICE, Exit, Header, Job, OperatorSpec, Plan, Provenance, RunState
from node.process.supervise import Limits, Spares, supervise
from node.read.header import arrival_of_file, read_header
from node.route.match import Context, Judgement, judge, judge_immediate
from node.route.rules import Rule, When
from node.route.weighing import barred
from node.sources import Source, Sources
from node.words import counted

Never = Sequence[tuple[When, str]]


@dataclass
class FoundSeries:
    """One series among the files, in the order they were found."""

    study_uid: str
    series_uid: str
    headers: list[Header] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def facts(self) -> Facts:
        """Facts over all its objects."""
        return gather(header.attributes for header in self.headers)

    def say(self, keyword: str) -> str:
        """The first object's value, for a title."""
        cell = self.headers[0].attributes.get(keyword)
        return "\\".join(cell[0]) if cell else ""


@dataclass(frozen=True)
class Found:
    """What a search of files gave."""

    series: tuple[FoundSeries, ...]
    passed_over: Mapping[str, str]
    """Path → why it belongs to no series."""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named and all below the folders named, in order. Raises Misconfigured for what is not there."""
    for path in paths:
        if not path.exists():
            raise Misconfigured(f"{path}: there is no such file or folder")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,)


def find_series(paths: Iterable[Path], sources: Sources, peer: str = "") -> Found:
    """Group files into series as the node does; *peer* stands for who would have sent them."""
    series: dict[tuple[str, str], FoundSeries] = {}
    passed_over: dict[str, str] = {}
    seen: set[str] = set()
    for source in sources.of(paths):
        header, why = _header(source)
        if header is None:
            passed_over[source.shown] = why
        elif header.sop_uid in seen:
            passed_over[source.shown] = "the same SOP Instance UID as another file here"
        else:
            seen.add(header.sop_uid)
            if peer:
                header = replace(header, attributes={**header.attributes, "from": ((peer,),)})
            key = (header.study_uid, header.series_uid)
            found = series.setdefault(key, FoundSeries(*key))
            found.headers.append(header)
            found.paths.append(source.path)
    return Found(tuple(series.values()), passed_over)


def _header(source: Source) -> tuple[Header | None, str]:
    """What a file says, or why it belongs to no series."""
    if source.why_not:
        return None, source.why_not
    try:
        arrival, offset = arrival_of_file(source.path)
        header = read_header(source.path, arrival, offset)
    except (ValueError, OSError) as error:
        return None, str(error)
    return (None, header.why) if header.why else (header, "")


def context_of(found: FoundSeries, timezone: str, now: datetime, never: Never = ()) -> Context:
    """The context in which the live node would judge this series; *never* is the site's `never_process`."""
    ours = any(made_by_a_node(header) for header in found.headers)
    facts = found.facts()
    bars = barred(never, facts, Context(now, timezone))
    return Context(now, timezone, 1, gaps(facts), "made by a PACSNode" if ours else "", bars)


def explain(
    rules: Sequence[Rule], found: FoundSeries, timezone: str, now: datetime, never: Never = ()
) -> tuple[Judgement, ...]:
    """What every rule says of a series: for immediate ones, where it differs, of its objects one by one."""
    return judge(rules, found.facts(), context_of(found, timezone, now, never))


def routed_at_once(rules: Sequence[Rule], found: FoundSeries, timezone: str, now: datetime) -> dict[str, int]:
    """Rule → how many of the objects it would send as they arrive."""
    context = Context(now, timezone)
    counts: dict[str, int] = {}
    for header in found.headers:
        for judged in judge_immediate(rules, gather([header.attributes]), context):
            counts[judged.rule.name] = counts.get(judged.rule.name, 0) + judged.routes
    return counts


@dataclass(frozen=True)
class Processed:
    """What a rule made of one series."""

    series: FoundSeries
    judged: Judgement
    ended: Exit | None
    """None when the rule does not run on it."""
    folder: Path = Path()
    """Where its results are."""


@dataclass(frozen=True)
class Place:
    """Where results go, and what a worker may use."""

    out: Path
    limits: Limits
    timezone: str
    notice: str = NOTICE


def title(found: FoundSeries) -> str:
    """A series in a line, without its patient."""
    number, modality, told = (found.say(k) for k in ("SeriesNumber", "Modality", "SeriesDescription"))
    return f"series {number or '?'}: {modality} {told!r}, {counted(len(found.headers), 'object')}"


def process(rule: Rule, specs: Mapping[str, OperatorSpec], found: Found, place: Place) -> list[Processed]:
    """Run one rule's pipeline on the series it matches; results to `<out>/<rule>/series-<n>/`."""
    more = len(found.series) > 1  # for one series no second worker is ever needed
    spares = Spares(place.limits, size=int(more))
    try:
        return [_one(rule, specs, (i, series), place, spares) for i, series in enumerate(found.series, 1)]
    finally:
        spares.close()


def _one(
    rule: Rule,
    specs: Mapping[str, OperatorSpec],
    numbered: tuple[int, FoundSeries],
    place: Place,
    spares: Spares,
) -> Processed:
    number, found = numbered
    now = datetime.now(UTC)
    (judged,) = judge([rule], found.facts(), context_of(found, place.timezone, now))
    plan = rule.plan()
    if not judged.runs or plan is None:
        return Processed(found, judged, None)
    folder = (place.out / rule.name / f"series-{number}").resolve()
    if folder.exists():
        shutil.rmtree(folder)
    started = Started(number, 1, folder, _job(plan, specs, (number, found), judged, place))
    write_job(started)
    return Processed(found, judged, supervise(folder, spares), folder)


def number_of(found: FoundSeries) -> int | None:
    """Its Series Number, None where it has none."""
    source = found.say("SeriesNumber")
    return int(source) if re.fullmatch(r"[0-9]{1,9}", source) else None


def _job(
    plan: Plan,
    specs: Mapping[str, OperatorSpec],
    numbered: tuple[int, FoundSeries],
    judged: Judgement,
    place: Place,
) -> Job:
    """As the node would make it; the first run is now, because nothing remembers an earlier one."""
    number, found = numbered
    versions = {step.operator: specs[step.operator].version for step in plan.steps}
    digests = [found.headers[i].digest for i in judged.used]
    provenance = Provenance(
        identity=identity(digests, plan.meaning, versions, NODE_MAJOR, 0),
        first_run_at=datetime.now(UTC), software=SOFTWARE, device="PACSNODE",
        series_numbers=number_series(plan, number_of(found), (), found.facts()), operators=versions,
        notice=place.notice,
    )  # fmt: skip
    files = tuple(str(found.paths[i].resolve()) for i in judged.used)
    return Job(number, plan, provenance, files, place.timezone)


def is_failure(ended: Exit | None) -> bool:
    """The pipeline ran and neither finished nor refused."""
    return ended is not None and ended.state not in (RunState.DONE, RunState.REFUSED)
