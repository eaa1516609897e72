"""What happened to a study, in order: what `find` tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from node import show
from node.store import history, queries, standing, studies
from node.store.choosing import Wanted
from node.store.database import Database
from node.store.queries import Search


def timelines(database: Database, search: Search) -> list[dict[str, Any]]:
    """One entry per study that holds what is searched for: all its series, and what happened in order."""
    with database.read() as tx:
        uids = dict.fromkeys(str(row["study_uid"]) for row in queries.find_series(tx, search))
        return [_study(tx, uid) for uid in uids]


def _study(tx: Connection, study_uid: str) -> dict[str, Any]:
    found = queries.find_series(tx, Search(study=study_uid))
    of_series = [queries.list_runs(tx, Wanted(series=str(row["id"]), limit=500)) for row in found]
    runs = list({run["id"]: run for listed in of_series for run in listed}.values())
    series = [
        {
            **row,
            "runs": [run for run in runs if run["series_id"] == row["id"]],
            "deliveries": standing.progress(tx, row["id"]),
        }
        for row in found
    ]
    rules = {run["id"]: str(run["rule"]) for run in runs}
    ids = [row["id"] for row in found]
    happened = [
        *(_received(row) for row in history.received(tx, ids)),
        *(_event(row, rules) for row in history.events(tx, ids)),
        *(_sent(row, rules) for row in history.deliveries(tx, ids)),
    ]
    happened.sort(key=lambda entry: entry["at"])
    return {
        "study_uid": study_uid,
        "accession": found[0]["accession"],
        "series": series,
        "rules": [{k: v for k, v in row.items() if k != "id"} for row in studies.rule_rows(tx, study_uid)],
        "priors": [_prior(row) for row in studies.priors_of(tx, study_uid)],
        "timeline": happened,
    }


def _prior(row: Mapping[str, Any]) -> dict[str, Any]:
    """A prior that the study's rules want, without the patient."""
    keys = (
        "rule",
        "input",
        "peer",
        "state",
        "reason",
        "series_id",
        "attempt",
        "due_at",
        "created_at",
        "finished_at",
    )
    return {key: row[key] for key in keys}


def _entry(at: datetime, name: str, detail: str, **about: Any) -> dict[str, Any]:
    return {"at": at, "name": name, "detail": detail, **{key: value for key, value in about.items() if value}}


def _received(row: Mapping[str, Any]) -> dict[str, Any]:
    said = (
        f"{row['objects']} objects from {row['peer']}"
        if row["objects"] > 1
        else f"1 object from {row['peer']}"
    )
    return _entry(row["first"], "received", said, series_id=row["series_id"], until=row["last"])


def _event(row: Mapping[str, Any], rules: Mapping[int, str]) -> dict[str, Any]:
    run_id = row["run_id"]
    entry = _entry(
        row["at"], row["name"], show.decisions(row["detail"]), series_id=row["series_id"], run_id=run_id,
        rule=rules.get(run_id, ""), object=row["instance_id"], destination=row["destination"],
    )  # fmt: skip
    return {**entry, "decisions": json.loads(row["detail"])} if row["detail"].startswith("[{") else entry


def _sent(row: Mapping[str, Any], rules: Mapping[int, str]) -> dict[str, Any]:
    """Deliveries of one kind that share their state: at the time of the last, or since when they wait."""
    what = "result" if row["run_id"] else "received object"
    said = f"{row['objects']} {what}{'s' if row['objects'] > 1 else ''} {row['state']}"
    if row["reason"] and (row["state"] not in ("stored", "committed") or "not committed" in row["reason"]):
        said += f": {row['reason']}"
    return _entry(
        row["finished"] or row["made"], f"delivery_{row['state']}", said, series_id=row["series_id"],
        run_id=row["run_id"], rule=rules.get(row["run_id"], row["rule"]), destination=row["destination"],
        since=row["made"], objects=row["objects"],
    )  # fmt: skip


# --- for people


def timeline_lines(found: Sequence[Mapping[str, Any]], zone: tzinfo, name: str) -> Iterator[str]:
    """The timelines for people, in the local time of *zone*, whose *name* stands above them."""
    if not found:
        yield "nothing found"
    for study in found:
        accession = f", accession {show.safe(study['accession'])}" if study["accession"] else ""
        yield f"[bold]study {show.safe(study['study_uid'])}[/]{accession}"
        yield from (f"  {line}" for row in study["series"] for line in _series_lines(row))
        yield from (f"  {line}" for line in _rule_lines(study, zone))
        yield from _entries(study["timeline"], zone, name)
        yield ""


def _rule_lines(study: Mapping[str, Any], zone: tzinfo) -> Iterator[str]:
    """What the rules over studies make of it, and the priors that they want."""
    for row in study["rules"]:
        until = f", until {show.moment(row['until'], zone)}" if row["state"] == "waiting" else ""
        yield f"rule {show.safe(row['rule'])}: {show.state(row['state'])}, {show.safe(row['reason'])}{until}"
    for row in study["priors"]:
        why = f": {show.safe(row['reason'])}" if row["reason"] else ""
        where = f", series {row['series_id']}" if row["series_id"] else ""
        yield f"  prior {show.safe(row['input'])} from {show.safe(row['peer'])}: {row['state']}{where}{why}"


def _series_lines(row: Mapping[str, Any]) -> Iterator[str]:
    held = f", held: {show.safe(row['held'])}" if row["held"] not in ("", "released") else ""
    number = f"no. {row['series_number']}" if row["series_number"] is not None else "no number"
    yield (
        f"series {row['id']}: {show.safe(row['modality'])}, {number}, revision {row['revision']}, "
        f"{row['instances']} objects, {show.state(row['state'])}{held}"
    )
    for to, counts in row["deliveries"].items():
        told = ", ".join(f"{n} {show.state(state)}" for state, n in counts.items())
        yield f"  → {show.safe(to)}: {told}"


def _entries(timeline: Sequence[Mapping[str, Any]], zone: tzinfo, name: str) -> Iterator[str]:
    """A line per entry, one for the same thing many times on end; the day, with the zone, where it changes."""
    wide = max((len(_who(entry)) for entry in timeline), default=0)
    word = max((len(_what(entry)) for entry in timeline), default=0)
    day = ""
    for (who, what, detail), same in groupby(timeline, key=lambda e: (_who(e), _what(e), e["detail"])):
        (entry, *more) = same
        at = entry["at"].astimezone(zone)
        if at.strftime("%Y-%m-%d %Z") != day:
            day = at.strftime("%Y-%m-%d %Z")
            yield f"  [bold]{at:%Y-%m-%d}[/], local time of {name} ({at:%Z}, {_offset(at)})"
        times = f"  (×{len(more) + 1})" if more else ""
        yield f"    {at:%H:%M:%S}  {show.safe(f'{who:<{wide}}  {what:<{word}}  {detail}'.rstrip())}{times}"


def _offset(at: datetime) -> str:
    offset = at.strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:]}"


def _who(entry: Mapping[str, Any]) -> str:
    """What an entry is about: the destination, the run with its rule, the object, or the series."""
    if "destination" in entry:
        return f"→ {entry['destination']}" + (f", {entry['rule']}" if entry.get("rule") else "")
    if "run_id" in entry:
        return f"run {entry['run_id']}" + (f", {entry['rule']}" if entry.get("rule") else "")
    if "object" in entry:
        return f"object {entry['object']}"
    return f"series {entry['series_id']}" if "series_id" in entry else ""


def _what(entry: Mapping[str, Any]) -> str:
    """The event's name in words, without what stands beside it."""
    return str(entry["name"]).removeprefix("series_").removeprefix("run_").replace("_", " ")
