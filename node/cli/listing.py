"""What is where, and why: `status`, the lists, `find`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import click

from node import desk, show
from node.cli.frame import (
    DONE,
    FAILED,
    ago,
    as_json,
    database_of,
    known_state,
    main,
    say_unknown_peer,
    site_of,
    state_option,
    verb,
    wanted_of,
    zone_of,
)
from node.errors import Misconfigured
from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.store import pseudonyms as store
from node.store import queries
from node.store.queries import Search


@main.command()
@as_json
@click.pass_context
@verb
def status(context: click.Context, as_json: bool) -> int:
    """What the node holds and does, and what is wrong."""
    settings = site_of(context)
    found = desk.status(settings)
    if as_json:
        show.as_json(found)
    else:
        out = show.console()
        for line in desk.status_lines(found, out.width):
            out.print(line)
    return DONE


_LISTS: dict[str, tuple[Callable[..., Any], dict[str, str], tuple[str, ...]]] = {
    "series": (queries.list_series, {
        "id": "series", "revision": "rev", "state": "state", "modality": "modality", "series_number": "number",
        "instances": "objects", "last_at": "last object", "held": "held", "replay": "replays", "reason": "why",
    }, ("state", "series", "study", "accession", "since")),
    "runs": (queries.list_runs, {
        "id": "run", "series_id": "series", "takes": "takes", "rule": "rule", "state": "state", "shadow": "shadow",
        "attempt": "attempt", "products": "made", "finished_at": "finished", "reason": "why",
    }, ("state", "shadow", "series", "run", "rule", "study", "accession", "since")),
    "deliveries": (queries.list_deliveries, {
        "destination": "destination", "state": "state", "objects": "objects", "sop_class": "class", "rule": "rule",
        "status": "status", "oldest": "oldest", "reason": "why",
    }, ("state", "series", "run", "to", "status", "class", "rule", "study", "accession", "since", "older_than")),
    "events": (queries.list_events, {
        "at": "at", "name": "event", "series_id": "series", "run_id": "run", "instance_id": "object",
        "destination": "destination", "detail": "detail",
    }, ("series", "run", "to", "since")),
    "objects": (queries.list_instances, {
        "id": "object", "series_id": "series", "state": "state", "sop_class": "class", "peer": "from",
        "received_at": "received", "reason": "why",
    }, ("state", "series", "class", "since")),
}  # fmt: skip

_WANTED = {
    "series": click.option(
        "--series", default="", help="Only this series: its number or Series Instance UID."
    ),
    "run": click.option("--run", type=int, default=0, help="Only this run."),
    "shadow": click.option(
        "--shadow", is_flag=True, help="Only of rules in `mode: shadow`, which send nothing."
    ),
    "to": click.option("--to", "destination", default="", help="Only this destination."),
    "status": click.option("--status", default="", help="Only this C-STORE status, such as C000."),
    "class": click.option("--class", "sop_class", default="", help="Only this SOP class: its name or UID."),
    "rule": click.option("--rule", default="", help="Only of this rule."),
    "study": click.option("--study", default="", help="Only this study: its Study Instance UID."),
    "accession": click.option("--accession", default="", help="Only this Accession Number."),
    "since": click.option("--since", default="", help="Only of the last 30 min, 2 h, 3 d."),
    "older_than": click.option(
        "--older-than", "before", default="", help="Only what is older than 2 h, 3 d."
    ),
}
_LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many rows."
)


_STATES: dict[str, type[StrEnum]] = {
    "series": SeriesState, "runs": RunState, "deliveries": DeliveryState, "objects": InstanceState,
}  # fmt: skip


def _listing(name: str) -> None:
    query, columns, options = _LISTS[name]

    @verb
    def listed(context: click.Context, as_json: bool, **given: Any) -> int:
        if name in _STATES:
            known_state(given["state"], _STATES[name])
        database, zone = database_of(context), zone_of(context)
        with database.read() as tx:
            found = query(tx, wanted_of(given))
        if as_json:
            show.as_json(found)
        else:
            narrowed = any(value for key, value in given.items() if key != "limit")
            show.table(found, columns, f"No {name}{' like that' if narrowed else ' yet'}.", zone)
        if not found:
            say_unknown_peer(context, given.get("destination", ""))
        return DONE

    function = click.pass_context(listed)
    known = {**_WANTED, "state": state_option(_STATES[name])} if name in _STATES else _WANTED
    for option in (*(known[key] for key in reversed(options)), _LIMIT, as_json):
        function = option(function)
    main.command(name, help=_HELP.get(name, f"List {name}, newest first."))(function)


_HELP = {
    "deliveries": "Count deliveries by destination, state, SOP class, rule, status and reason.",
    "objects": "List received objects, newest first; --state conflict or unreadable: those set aside.",
}


for _name in _LISTS:
    _listing(_name)


@main.command()
@click.option("--accession", default="", help="Accession Number.")
@click.option("--patient", default="", help="Patient ID.")
@click.option("--study", default="", help="Study Instance UID.")
@click.option("--series", default="", help="A series: its number or Series Instance UID.")
@click.option("--run", type=int, default=0, help="A run.")
@click.option("--since", default="", help="Studies of which an object came in the last 30 min, 2 h, 3 d.")
@as_json
@click.pass_context
@verb
def find(context: click.Context, since: str, as_json: bool, **given: Any) -> int:
    """Find studies and tell what happened to them: every series, run, delivery and act on one timeline."""
    if not (since or any(given.values())):
        raise Misconfigured("find needs --accession, --patient, --study, --series, --run or --since")
    found = desk.timelines(database_of(context), Search(since=ago("--since", since), **given))
    if as_json:
        show.as_json(found)
    else:
        zone = zone_of(context)
        for line in desk.timeline_lines(found, zone, zone.key):
            show.console().print(line)
    return DONE if found else FAILED


@main.command()
@click.argument("pseudonym", default="")
@click.option("--patient", default="", help="Patient ID: which pseudonyms stand for it.")
@as_json
@click.pass_context
@verb
def pseudonyms(context: click.Context, pseudonym: str, patient: str, as_json: bool) -> int:
    """Say who stands behind the PSEUDONYM of a de-identified copy, or list them all."""
    with database_of(context).read() as tx:
        found = store.look_up(tx, pseudonym, patient)
    if as_json:
        show.as_json(found)
    else:
        narrowed = " like that" if pseudonym or patient else " yet"
        show.table(found, _PSEUDONYM, f"No pseudonyms{narrowed}.", zone_of(context))
    return DONE if found or not (pseudonym or patient) else FAILED


_PSEUDONYM = {
    "pseudonym": "pseudonym", "patient_id": "patient", "issuer": "issuer", "study_uid": "study",
    "first_at": "first used",
}  # fmt: skip
