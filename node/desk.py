"""What the verbs of the command line ask for: answers as plain values, and their lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from node import app, dryrun, show
from node.errors import Misconfigured, Refused
from node.flow import Parts, judgements
from node.model import DeliveryState, OperatorSpec, Product, RunState
from node.process.job import spec_to_json
from node.route import explain
from node.route.match import Judgement
from node.route.rules import RuleSet, parse_rules
from node.settings import Settings
from node.shape import nearest
from node.store import intake, queries, work
from node.store.database import Database, note, open_database
from node.store.queries import Search, Wanted


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
    found = dryrun.find_series(paths, peer)
    timezone, now = settings.node.timezone if settings else "UTC", datetime.now(UTC)
    explained = [
        Explained(
            dryrun.title(one), one.series_uid, dryrun.explain(rules.rules, one, timezone, now),
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
    rules = parse_rules({str(rule_file): _text(rule_file)}, specs, app.destinations(settings))
    found = dryrun.find_series(paths, peer)
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


def explain_kept(settings: Settings, rules: RuleSet, ref: str) -> list[Explained]:
    """Judge a series that the node holds, exactly as `flow.route` does. Raises Refused where there is none."""
    database = open_database(settings.state, settings.node.data, create=False)
    parts = Parts(
        database=database, settings=settings, rules=rules, seal_lines=(), specs={},
        now=lambda: datetime.now(UTC), monotonic=lambda: 0.0,
    )  # fmt: skip
    with database.read() as tx:
        row = queries.series_by_ref(tx, ref)
        if row is None:
            raise Refused(f"series {ref}: the node holds no such series; `pacsnode series` lists them")
        members, judged = judgements(tx, parts, row)
    if not members:
        raise Refused(f"series {ref} is still {row['state']}; it is judged when it is sealed")
    title = f"series {row['id']} revision {row['revision']}: {row['modality']}, {len(members)} objects, {row['state']}"
    return [Explained(title, row["series_uid"], judged, {}, len(members))]


# --- status


def status(settings: Settings) -> dict[str, Any]:
    """Everything `pacsnode status` tells."""
    database = open_database(settings.state, settings.node.data, create=False)
    with database.read() as tx:
        found = queries.overview(tx)
    return {
        "running": app.is_running(settings.node.data),
        "ae_titles": settings.node.ae_titles,
        "listen": "{}:{}".format(*settings.node.listen),
        "data": str(settings.node.data),
        "durability": settings.node.durability,
        "disk_used": app.disk_used(settings.node.data),
        "disk_problem": app.disk_problem(settings),
        "rules_changed": app.rules_changed(settings),
        "rules_problem": app.rules_problem(database),
        **found,
    }


def status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people: what is wrong stands out."""
    running = "[green]running[/]" if found["running"] else "[red]not running[/]"
    yield f"{found['ae_titles'][0]} on {found['listen']}, {running}; data in {show.safe(found['data'])}"
    lasts = "power loss" if found["durability"] == "power" else "kill -9, not power loss"
    yield f"disk {found['disk_used']:.0%} used; what is acknowledged survives {lasts}"
    if found["disk_problem"]:
        yield f"[red]{found['disk_problem']}[/]"
    for name in ("instances", "series", "runs", "deliveries"):
        counts = ", ".join(f"{n} {show.state(state)}" for state, n in sorted(found[name].items()))
        yield f"{name}: {counts or 'none'}"
    if found["oldest_waiting_delivery"]:
        yield f"oldest waiting delivery: {show.moment(found['oldest_waiting_delivery'])}"
    for row in found["destinations"]:
        if row["down"]:
            yield f"[red]{row['name']} is down since {show.moment(row['since'])}[/]: {show.safe(row['reason'])}"
    if found["rules_problem"]:
        yield "[red]at the last start the rules had mistakes; the last good ones are in use:[/]"
        yield from (f"  {show.safe(line)}" for line in found["rules_problem"].splitlines())
    if found["rules_changed"]:
        yield "[yellow]the rules in the folder are not the ones in use: `pacsnode check` them and restart the node[/]"


# --- find


def timelines(database: Database, search: Search) -> list[dict[str, Any]]:
    """One entry per study: its series, and what happened in order."""
    with database.read() as tx:
        found = sorted(queries.find_series(tx, search), key=lambda row: str(row["study_uid"]))
        return [
            {"study_uid": study, "series": [_told(tx, row) for row in rows]}
            for study, rows in groupby(found, key=lambda row: row["study_uid"])
        ]


def _told(tx: Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    ref = str(row["id"])
    events = queries.list_events(tx, Wanted(series=ref, limit=500))
    return {
        **row,
        "runs": queries.list_runs(tx, Wanted(series=ref)),
        "deliveries": queries.progress(tx, row["id"]),
        "events": list(reversed(events)),
    }


def timeline_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The timelines for people."""
    if not found:
        yield "nothing found"
    for study in found:
        yield f"[bold]study {show.safe(study['study_uid'])}[/]"
        for row in study["series"]:
            yield (
                f"  series {row['id']} revision {row['revision']} ({show.safe(row['modality'])}, "
                f"{row['instances']} objects) {show.state(row['state'])}"
            )
            for event in row["events"]:
                detail = show.safe(show.decisions(event["detail"]))
                where = f" {event['destination']}" if event["destination"] else ""
                yield f"    {show.moment(event['at'])}  {event['name']}{where}  {detail}"
            for to, counts in row["deliveries"].items():
                told = ", ".join(f"{n} {show.state(state)}" for state, n in counts.items())
                yield f"    → {to}: {told}"


# --- act


def retry(database: Database, run: int, wanted: Wanted) -> tuple[int, str]:
    """Take up a run, or the parked deliveries that *wanted* names; how many, and what they are."""
    now = datetime.now(UTC)
    with database.write() as tx:
        if run:
            done = work.retry_run(tx, run, now)
            if done:
                note(tx, now, f"run_{RunState.WAITING}", "retried by hand", run_id=run)
            return int(done), "runs"
        count = work.retry_deliveries(tx, queries.delivery_ids(tx, wanted), now)
        if count:
            detail = f"{count} retried by hand"
            note(tx, now, f"delivery_{DeliveryState.WAITING}", detail, destination=wanted.destination)
        return count, "parked deliveries"


def release(database: Database, ref: str) -> int:
    """Let a held series go, or with an empty *ref* all of them; how many. Raises Refused for one that is not there."""
    now = datetime.now(UTC)
    with database.write() as tx:
        chosen = intake.held_series(tx)
        if ref:
            row = queries.series_by_ref(tx, ref)
            if row is None:
                raise Refused(f"series {ref}: the node holds no such series; `pacsnode series` lists them")
            chosen = [row["id"]]
        released = [key for key in chosen if intake.release_series(tx, key)]
        for key in released:
            note(tx, now, "series_released", "by hand", series_id=key)
    return len(released)


# --- operators


def operator_lines(spec: OperatorSpec) -> Iterator[str]:
    """One operator: its sentence, inputs, options with unit and default."""
    inputs = ", ".join(f"{p.name}: {p.type}" for p in spec.inputs)
    yield f"{spec.name}({inputs}) → {spec.returns}    {spec.distribution} {spec.version}"
    yield f"    {spec.summary}"
    for p in spec.options:
        kind = " | ".join(p.choices) if p.choices else p.type + (f" in {p.unit}" if p.unit else "")
        default = (
            "required" if p.required else f"default {p.default}" if p.default is not None else "optional"
        )
        yield f"    {p.name}: {kind}, {default}"


def unknown_operator(name: str, specs: Mapping[str, OperatorSpec]) -> Misconfigured:
    """Name the nearest operator there is."""
    return Misconfigured(f"{name} is not an operator{nearest(name, specs)}; `pacsnode operators` lists them")


def operators_json(specs: Sequence[OperatorSpec]) -> list[dict[str, Any]]:
    """Operators for scripts."""
    return [spec_to_json(spec) for spec in specs]
