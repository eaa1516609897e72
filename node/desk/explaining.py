"""Rules over series, in words: what `explain` and `process` tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from node import app, dryrun
from node.errors import Misconfigured, Refused
from node.flow import Parts, judgements
from node.model import Product, SeriesState
from node.route import explain
from node.route.match import Judgement
from node.route.rules import RuleSet, parse_rules
from node.settings import Settings
from node.sources import opened
from node.store import queries
from node.store.database import open_database
from node.store.queries import Search
from node.words import counted


@dataclass(frozen=True)
class Explained:
    """One series with what every rule says of it."""

    title: str
    series_uid: str
    judged: tuple[Judgement, ...]
    at_once: Mapping[str, int]
    """Rule → objects it sends as they arrive."""
    objects: int


def explanation_lines(explained: Sequence[Explained], passed_over: Mapping[str, str]) -> Iterator[str]:
    """The dry run for people: ✓ ✗ or ? per rule and clause, with the value seen."""
    for one in explained:
        yield one.title
        for judged in one.judged:
            yield from (f"  {line}" for line in explain.lines(judged))
            sent = one.at_once.get(judged.rule.name)
            if sent is not None and sent != (one.objects if judged.routes else 0):
                yield f"    as they arrive: {sent} of {one.objects} objects are sent"
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
                "rules": [
                    {**explain.as_json(j), "sent_at_once": one.at_once.get(j.rule.name)} for j in one.judged
                ],
            }
            for one in explained
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
    return explained, found.passed_over


def process_files(
    settings: Settings | None, rule_file: Path, paths: Sequence[Path], place: dryrun.Place, peer: str
) -> list[dryrun.Processed]:
    """Run the rules of a file on the series that they match. Raises Misconfigured for the rule file."""
    specs = app.operator_specs()
    tables = {str(path): _text(path) for path in sorted(rule_file.parent.glob("*.csv"))}
    rules = parse_rules({str(rule_file): _text(rule_file), **tables}, specs, app.destinations(settings))
    with opened() as sources:
        found = dryrun.find_series(paths, sources, peer)
        if not found.series:
            raise Refused("no DICOM series among these files")
        return [one for rule in rules.rules for one in dryrun.process(rule, specs, found, place)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{file}: not UTF-8 text; is this the rule file?") from None


def processed_lines(one: dryrun.Processed) -> Iterator[str]:
    """What a rule made of one series."""
    yield f"{dryrun.title(one.series)}"
    if one.ended is None:
        yield f"  {one.judged.rule.name}: {explain.verdict(one.judged)}"
        return
    yield f"  {one.judged.rule.name}: {one.ended.state} {one.ended.reason}".rstrip()
    for output, products in groupby(one.ended.products, key=lambda p: (p.output, p.kind)):
        made = list(products)
        yield f"    {output[0]}: {len(made)} {output[1]} object{'s' * (len(made) > 1)} in {_folder(one, made[0])}"
    for m in one.ended.measurements:
        name, unit = str(m["derivation"] or m["name"]).split("^")[-1], str(m["unit"]).split("^")[0]
        yield f"    {m['region']} {name}: {m['value']:.6g} {unit}"


def processed_json(one: dryrun.Processed) -> dict[str, Any]:
    """The same for scripts."""
    ended = one.ended
    return {
        "series_uid": one.series.series_uid,
        "rule": one.judged.rule.name,
        "state": ended.state if ended else "not run",
        "reason": ended.reason if ended else one.judged.because,
        "files": [str(one.folder / p.path) for p in ended.products] if ended else [],
        "measurements": [dict(m) for m in ended.measurements] if ended else [],
    }


def _folder(one: dryrun.Processed, made: Product) -> str:
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
        raise Refused(_not_judged(asked, found[-1]))
    return judged


def _explain_row(parts: Parts, row: Mapping[str, Any]) -> Explained | None:
    """One revision; None where it is not sealed yet, or nothing of it is left."""
    if row["state"] in (SeriesState.REJECTED, SeriesState.RECEIVING):
        return None
    with parts.database.read() as tx:
        members, judged = judgements(tx, parts, row)
    if not members:
        return None
    at = f", {row['last_at']:%Y-%m-%d %H:%M} UTC" if row["last_at"] else ""
    held = f"{row['modality']}, {counted(len(members), 'object')}, {row['state']}{at}"
    title = f"series {row['id']} revision {row['revision']}: {held}"
    return Explained(title, row["series_uid"], judged, {}, len(members))


def _not_judged(asked: str, row: Mapping[str, Any]) -> str:
    if row["state"] == SeriesState.REJECTED:
        return f"{asked} is rejected as a whole, so no rule is asked: {row['reason']}"
    return f"{asked} is still {row['state']}; it is judged when it is sealed"


def matched_lines(explained: Sequence[Explained]) -> Iterator[str]:
    """Which of many series each rule would have matched, and why not the others: the most frequent reason first."""
    for place, rule in enumerate(explained[0].judged if explained else ()):
        told = [(one, one.judged[place]) for one in explained]
        hits = [one for one, judged in told if judged.runs or judged.routes]
        yield f"{rule.rule.name} ({rule.rule.place.of_line}): {len(hits)} of {len(explained)} series"
        yield from (f"  ✓ {one.title}" for one in hits)
        against = Counter(
            (explain.mark(judged), judged.decided_by)
            for _, judged in told
            if not (judged.runs or judged.routes)
        )
        yield from (f"  {mark} {count} because of {by}" for (mark, by), count in against.most_common())
        yield ""
