"""Rules over series, in words: what `explain` and `process` tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from node import app, dryrun, drystudy
from node.errors import Refused
from node.flow import Parts, judgements, study_judgements
from node.model import Product, SeriesState
from node.route import explain, study_explain
from node.route.match import Judgement
from node.route.rules import RuleSet, parse_rules, read_file
from node.route.study import StudyJudgement
from node.route.values import unit_name
from node.settings import Settings
from node.sources import opened
from node.store import history, queries
from node.store.database import open_database
from node.store.queries import Search
from node.words import counted, legible


@dataclass(frozen=True)
class Explained:
    """One series with what every rule says of it."""

    title: str
    series_uid: str
    judged: tuple[Judgement, ...]
    at_once: Mapping[str, int]
    """Rule → objects it sends as they arrive."""
    objects: int
    of_study: tuple[StudyJudgement, ...] = ()
    """Where this is a whole study: what the rules over studies say of it."""
    complete: str = ""
    """Why it was taken for complete; empty for files, which nobody sent."""


def explanation_lines(explained: Sequence[Explained], passed_over: Mapping[str, str]) -> Iterator[str]:
    """The dry run for people: ✓ ✗ or ? per rule and clause, with the value seen."""
    for one in explained:
        yield one.title
        if one.complete:
            yield f"  sealed: {one.complete}"
        for judged in one.judged:
            yield from (f"  {line}" for line in explain.lines(judged))
            sent = one.at_once.get(judged.rule.name)
            if sent is not None and sent != (one.objects if judged.routes else 0):
                yield f"    as they arrive: {sent} of {one.objects} objects are sent"
        for of_study in one.of_study:
            yield from (f"  {line}" for line in study_explain.lines(of_study))
        yield ""
    if passed_over:
        yield f"{len(passed_over)} {'file belongs' if len(passed_over) == 1 else 'files belong'} to no series:"
        yield from (f"  {path}: {why}" for path, why in passed_over.items())


def explanation_json(explained: Sequence[Explained], passed_over: Mapping[str, str]) -> dict[str, Any]:
    """The dry run for scripts."""
    return {
        "series": [
            {
                "title": one.title,
                "series_uid": one.series_uid,
                "objects": one.objects,
                "sealed": one.complete,
                "rules": [
                    {**explain.as_json(j), "sent_at_once": one.at_once.get(j.rule.name)} for j in one.judged
                ],
            }
            for one in explained
            if not one.of_study
        ],
        "studies": [
            {
                "title": one.title,
                "objects": one.objects,
                "rules": [study_explain.as_json(j) for j in one.of_study],
            }
            for one in explained
            if one.of_study
        ],
        "passed_over": dict(passed_over),
    }


def explain_files(
    settings: Settings | None, rules: RuleSet, paths: Sequence[Path], peer: str
) -> tuple[list[Explained], Mapping[str, str]]:
    """Judge the series among files as the node would, and name the files that belong to none."""
    with opened() as sources:
        found = dryrun.find_series(paths, sources, peer)
    timezone, now = settings.node.timezone if settings else "UTC", datetime.now(UTC)
    never = app.never_lines(settings)
    explained = [
        Explained(
            dryrun.title(one), one.series_uid, dryrun.explain(rules.rules, one, timezone, now, never),
            dryrun.routed_at_once(rules.rules, one, timezone, now), len(one.headers),
        )
        for one in found.series
    ]  # fmt: skip
    told = drystudy.explain_studies(rules.rules, found, timezone, now, never)
    explained += [Explained(head, "", (), {}, objects, judged) for head, objects, judged in told]
    return explained, found.passed_over


def process_files(
    settings: Settings | None, rule_file: Path, paths: Sequence[Path], place: dryrun.Place, peer: str
) -> list[dryrun.Processed | drystudy.ProcessedStudy]:
    """Run the rules of a file on the series that they match. Raises Misconfigured for the rule file."""
    specs = app.operator_specs(settings)
    rules = parse_rules(read_file(rule_file, str(rule_file)), specs, app.destinations(settings))
    with opened() as sources:
        found = dryrun.find_series(paths, sources, peer)
        if not found.series:
            raise Refused("no DICOM series among these files")
        made: list[dryrun.Processed | drystudy.ProcessedStudy] = []
        for rule in rules.rules:
            over_study = rule.study is not None
            process = drystudy.process_study if over_study else dryrun.process
            made += process(rule, specs, found, place)
        return made


def processed_lines(one: dryrun.Processed | drystudy.ProcessedStudy) -> Iterator[str]:
    """What a rule made of one series, or of one study."""
    yield one.title if isinstance(one, drystudy.ProcessedStudy) else dryrun.title(one.series)
    if one.ended is None:
        yield f"  {one.judged.rule.name}: {_verdict(one)}"
        return
    yield f"  {one.judged.rule.name}: {one.ended.state} {one.ended.reason}".rstrip()
    for output, products in groupby(one.ended.products, key=lambda p: (p.output, p.kind)):
        made = list(products)
        yield f"    {output[0]}: {len(made)} {output[1]} object{'s' * (len(made) > 1)} in {_folder(one, made[0])}"
    for m in one.ended.measurements:
        name, unit = str(m["derivation"] or m["name"]).split("^")[-1], unit_name(str(m["unit"]).split("^")[0])
        method = str(m["method"]).split("^")[-1]
        yield f"    {m['region']} {name}: {legible(m['value'])} {unit}{f' ({method})' if method else ''}"


def _verdict(one: dryrun.Processed | drystudy.ProcessedStudy) -> str:
    if isinstance(one, drystudy.ProcessedStudy):
        return study_explain.verdict(one.judged)
    return explain.verdict(one.judged)


def processed_json(one: dryrun.Processed | drystudy.ProcessedStudy) -> dict[str, Any]:
    """The same for scripts."""
    ended = one.ended
    return {
        "series_uid": "" if isinstance(one, drystudy.ProcessedStudy) else one.series.series_uid,
        "rule": one.judged.rule.name,
        "state": ended.state if ended else "not run",
        "reason": ended.reason if ended else one.judged.because,
        "files": [str(one.folder / p.path) for p in ended.products] if ended else [],
        "measurements": [dict(m) for m in ended.measurements] if ended else [],
    }


def _folder(one: dryrun.Processed | drystudy.ProcessedStudy, made: Product) -> str:
    return str((one.folder / made.path).parent)


def explain_kept(settings: Settings, rules: RuleSet, search: Search) -> list[Explained]:
    """Judge series that the node holds, exactly as `flow.route` does. Raises Refused where there are none.

    A series is judged by the facts that were written when it was sealed, so also where its files are gone.
    """
    database = open_database(settings.state, settings.node.data, create=False)
    parts = Parts(
        database=database, settings=settings, rules=rules, seal_lines=(), specs={}, never=app.never_lines(settings),
        now=lambda: datetime.now(UTC), monotonic=lambda: 0.0,
    )  # fmt: skip
    with database.read() as tx:
        found = queries.find_series(tx, search)
        if search.series:
            newest = queries.series_by_ref(tx, search.series)
            found = [newest] if newest else []
    asked = f"series {search.series}" if search.series else "what was asked for"
    if not found:
        raise Refused(f"{asked}: the node holds no such series; `pacsnode series` lists them")
    judged = [one for row in found if (one := _explain_row(parts, row)) is not None]
    if not judged:
        with database.read() as tx:
            short = history.last_word(tx, found[-1]["id"], "series_short")
        raise Refused(_not_judged(asked, found[-1], short))
    return [*judged, *_explain_studies(parts, dict.fromkeys(str(row["study_uid"]) for row in found))]


def _explain_studies(parts: Parts, uids: Iterable[str]) -> Iterator[Explained]:
    """What the rules over studies say of these studies, as they stand now."""
    for uid in uids if parts.rules.of_studies else ():
        with parts.database.read() as tx:
            judged = tuple(study_judgements(tx, parts, uid))
        yield Explained(f"study {uid}, as it stands now", "", (), {}, 0, judged)


def _explain_row(parts: Parts, row: Mapping[str, Any]) -> Explained | None:
    """One revision; None where it is not sealed yet, or nothing of it is left."""
    if row["state"] in (SeriesState.REJECTED, SeriesState.RECEIVING):
        return None
    with parts.database.read() as tx:
        members, judged = judgements(tx, parts, row)
        complete = history.last_word(tx, row["id"], "series_sealed")
    if not members:
        return None
    at = f", {row['last_at']:%Y-%m-%d %H:%M} UTC" if row["last_at"] else ""
    held = f"{row['modality']}, {counted(len(members), 'object')}, {row['state']}{at}"
    title = f"series {row['id']} revision {row['revision']}: {held}"
    if row["prior"]:
        title, judged = f"{title}, a prior from {row['prior']}: an input only, no rule is asked", ()
    return Explained(title, row["series_uid"], judged, {}, len(members), complete=complete)


def _not_judged(asked: str, row: Mapping[str, Any], short: str) -> str:
    if row["state"] == SeriesState.REJECTED:
        return f"{asked} is rejected as a whole, so no rule is asked: {row['reason']}"
    waits = f", and waits for what is missing ({short})" if short else ""
    return f"{asked} is still {row['state']}; it is judged when it is sealed{waits}"


def matched_lines(explained: Sequence[Explained]) -> Iterator[str]:
    """Which of many series each rule would have matched, and why not the others: the most frequent reason first."""
    series = [one for one in explained if one.judged]
    for place, rule in enumerate(series[0].judged if series else ()):
        told = [(one, one.judged[place]) for one in series]
        hits = [one for one, judged in told if judged.runs or judged.routes]
        yield f"{rule.rule.name} ({rule.rule.place.of_line}): {len(hits)} of {len(series)} series"
        yield from (f"  ✓ {one.title}" for one in hits)
        against = Counter(
            (explain.mark(judged), judged.decided_by)
            for _, judged in told
            if not (judged.runs or judged.routes)
        )
        yield from (f"  {mark} {count} because of {by}" for (mark, by), count in against.most_common())
        yield ""
    yield from _matched_studies([one for one in explained if one.of_study])


def _matched_studies(studies: Sequence[Explained]) -> Iterator[str]:
    for place, rule in enumerate(studies[0].of_study if studies else ()):
        told = [(one, one.of_study[place]) for one in studies]
        hits = [one for one, judged in told if judged.runs]
        yield f"{rule.rule.name} ({rule.rule.place.of_line}): {len(hits)} of {counted(len(studies), 'study')}"
        yield from (f"  ✓ {one.title}" for one in hits)
        against = Counter(
            (study_explain.mark(judged), study_explain.state(judged), judged.decided_by)
            for _, judged in told
            if not judged.runs
        )
        for (mark, state, by), count in against.most_common():
            yield f"  {mark} {count} {state} because of {by}"
        yield ""
