"""How the node stands: what `status` tells."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from node import app, fullness, holding, show
from node.flow import securing
from node.model import Trouble
from node.ops.conditions import crowded_words
from node.ops.health import Signs, alive, beat_path, beaten_at, board_path, read_board
from node.receive.reasons import Kind, Reason
from node.route.steps import NO_OPERATOR
from node.settings import Settings, is_open
from node.store import standing, studies
from node.store.database import open_database
from node.store.pledges import PledgeState
from node.tls import life
from node.words import counted

_LASTS = {"power": "power loss", "process": "kill -9, not power loss"}
"""What an acknowledged object survives, by durability."""


def status(settings: Settings) -> dict[str, Any]:
    """Everything `pacsnode status` tells."""
    database = open_database(settings.state, settings.node.data, create=False)
    with database.read() as tx:
        found = standing.overview(tx)
        waiting = studies.waiting_rules(tx)
    return {
        "running": holding.is_running(settings.node.data),
        "unwell": _unwell(settings),
        "ae_titles": settings.node.ae_titles,
        "listen": "{}:{}".format(*settings.node.listen),
        "tls": _tls(settings),
        "timezone": settings.node.timezone,
        "data": str(settings.node.data),
        "durability": settings.node.durability,
        "durability_differs": {
            name: peer.durability
            for name, peer in settings.peers.items()
            if peer.durability not in (None, settings.node.durability)
        },
        "disk_used": fullness.disk_used(settings.node.data),
        "disk_problem": fullness.disk_problem(settings),
        "rules_changed": app.rules_changed(settings),
        "rules_problem": app.rules_problem(database),
        "windows_closed": _windows_closed(settings),
        "crowded": _crowded(settings, found["destinations"]),
        "refusals": _refusals(settings),
        "waiting_studies": [{k: v for k, v in row.items() if k not in ("id", "due_at")} for row in waiting],
        **found,
    }


def _unwell(settings: Settings) -> list[str]:
    """What does not work of a node that lives; empty where all does, and where it was stopped."""
    data = settings.node.data
    board = read_board(board_path(data))
    if board is None or not Path(f"/proc/{board.pid}").exists():
        return []
    found = alive(Signs(time.time(), board, beaten_at(beat_path(data))))
    return [*found.reasons, *found.degraded]


def _refusals(settings: Settings) -> dict[str, dict[str, int]]:
    """What receivers refused since the node started: event → why → how often; empty where it does not run."""
    board = read_board(board_path(settings.node.data)) if holding.is_running(settings.node.data) else None
    told = board.refusals if board else {}
    some = {event: {why: n for why, n in whys.items() if n} for event, whys in told.items()}
    return {event: whys for event, whys in some.items() if whys}


def _tls(settings: Settings) -> dict[str, Any] | None:
    """The port for TLS, how long our certificate lasts, and what is or soon will be wrong; None without TLS."""
    sets = securing.files_of(settings)
    if not sets:
        return None
    now, own, ends = datetime.now(UTC), sets.get("tls"), None
    with suppress(OSError, ValueError):
        ends = life(own.certificate).ends if own else None
    return {
        "listen": "{}:{}".format(*settings.tls.listen) if settings.tls and settings.tls.listen else "",
        "clients": settings.tls.clients if settings.tls else "",
        "certificate": own.certificate if own else "",
        "certificate_ends": ends,
        "problems": [*securing.untimely_files(settings, now), *securing.ending_files(settings, now)],
    }


def _crowded(settings: Settings, destinations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Destination → that too much waits for it, in words."""
    waiting = {row["name"]: row["waiting_bytes"] for row in destinations}
    limit = settings.disk.per_destination
    return {
        name: crowded_words(name, share, limit)
        for name, share in fullness.crowding(settings, waiting).items()
    }


def _windows_closed(settings: Settings) -> list[str]:
    """The peers whose `window` does not let anything be sent to them now."""
    local = datetime.now(ZoneInfo(settings.node.timezone))
    return [name for name, peer in settings.peers.items() if not is_open(peer.window, local)]


def status_lines(found: Mapping[str, Any], width: int = 80) -> Iterator[str]:
    """The same for people, on a terminal of so many columns: what is wrong stands out."""
    zone = ZoneInfo(found["timezone"])
    stands = (
        "[red]not running[/]"
        if not found["unwell"]
        else "[red]running, but it does not work on what it has[/]"
    )
    running = "[green]running[/]" if found["running"] else stands
    yield f"{found['ae_titles'][0]} on {found['listen']}, {running}; data in {show.safe(found['data'])}"
    yield from (f"[red]{show.safe(words)}[/]; its log says why" for words in found["unwell"])
    yield from _tls_lines(found["tls"], zone)
    differs = found["durability_differs"]
    but = f"; {', '.join(differs)}: {_LASTS[next(iter(differs.values()))]}" if differs else ""
    yield f"disk {found['disk_used']:.0%} used; what is acknowledged survives {_LASTS[found['durability']]}{but}"
    if found["disk_problem"]:
        yield f"[red]{found['disk_problem']}[/]"
    for name in ("instances", "series", "runs", "deliveries"):
        counts = ", ".join(f"{n} {show.state(state)}" for state, n in sorted(found[name].items()))
        yield f"{name}: {counts or 'none'}"
    if found["ungrouped"]:
        lone = "belongs" if found["ungrouped"] == 1 else "belong"
        yield f"[yellow]{counted(found['ungrouped'], 'object')} {lone} to no series[/]: `pacsnode objects` says why"
    if found["oldest_waiting_delivery"]:
        yield f"oldest waiting delivery: {show.moment(found['oldest_waiting_delivery'], zone)}"
    for row in found["destinations"]:
        if row["down"]:
            what = "paused" if row["kind"] == Trouble.PAUSED else "down"
            yield f"[red]{row['name']} is {what} since {show.moment(row['since'], zone)}[/]: {show.safe(row['reason'])}"
    for words in found["crowded"].values():
        yield f"[red]{show.safe(words)}[/]"
    yield from _study_lines(found["waiting_studies"], zone, width)
    yield from _refusal_lines(found["refusals"])
    yield from _commitment_lines(found, zone)
    for name in found["windows_closed"]:
        yield f"[yellow]{show.safe(name)} is not sent to now: its `window` is closed[/]"
    if found["rules_problem"]:
        yield "[red]the rule files have mistakes; the last rules that passed are in use:[/]"
        yield from (f"  {show.safe(line)}" for line in found["rules_problem"].splitlines())
        if found["running"] and NO_OPERATOR in found["rules_problem"]:
            yield "[yellow]  an operator that was installed since the node started is known after a restart[/]"
    elif found["rules_changed"]:
        when = "in some seconds, if they pass" if found["running"] else "when the node starts, if they pass"
        yield f"[yellow]the rules in the folder are not the ones in use: they are taken {when} `pacsnode check`[/]"


_MOST_STUDIES = 5
"""Studies that are told one by one; `find` tells the others."""
_MOST_LINES = 2
"""Of why a rule waits: a study may have many series that do not fit."""


def _study_lines(waiting: Sequence[Mapping[str, Any]], zone: ZoneInfo, width: int) -> Iterator[str]:
    """Which rules wait for which input of which study, until when and, in short, why."""
    cut = False
    for row in waiting[:_MOST_STUDIES]:
        waits, _, why = show.printable(row["reason"]).partition(": ")
        head = f"{row['rule']} {waits} until {show.moment(row['until'], zone)}"
        yield from map(show.safe, textwrap.wrap(show.printable(head), width, subsequent_indent="    "))
        room = max(20, width - 4)
        told = textwrap.wrap(why, room, max_lines=_MOST_LINES, placeholder=" …")
        cut = cut or len(textwrap.wrap(why, room)) > len(told)
        for line in (*told, f"study {row['study_uid']}"):
            yield f"    {show.safe(line)}"
    if len(waiting) > _MOST_STUDIES:
        yield f"and {len(waiting) - _MOST_STUDIES} more rules wait for inputs of studies"
    if cut:
        yield "`pacsnode find --study UID` tells all that such a rule waits for"


def _refusal_lines(refusals: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """What was refused and why; `events` names who it was."""
    for kind in Kind:
        whys = refusals.get(kind.event, {})
        if whys:
            said = [f"{whys[r.label]} × {r.words}" for r in Reason if r.kind is kind and r.label in whys]
            yield f"{kind.counted(sum(whys.values()))} since the node started: {'; '.join(said)}"


def _tls_lines(tls: Mapping[str, Any] | None, zone: ZoneInfo) -> Iterator[str]:
    """Where peers come by TLS, and how long the certificate lasts."""
    if tls is None:
        return
    ends = tls["certificate_ends"]
    clients = f"TLS on {tls['listen']}, certificates of peers {tls['clients']}"
    where = clients if tls["listen"] else "TLS for calls only"
    until = (
        f"the certificate lasts until {show.moment(ends, zone)}" if ends else "its certificate cannot be read"
    )
    yield f"{where}; {until}" if tls["certificate"] else where
    yield from (f"[red]{show.safe(words)}[/]" for words in tls["problems"])


def _commitment_lines(found: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """What destinations have still to commit to, and what we owe those who asked us (PS3.4 J)."""
    for row in found["uncommitted"]:
        objects, since = counted(row["objects"], "object"), show.moment(row["since"], zone)
        yield f"{show.safe(row['destination'])} has still to commit to {objects}, the oldest stored {since}"
    for row in found["pledges"]:
        what = "waits for commitment" if row["state"] == PledgeState.WAITING else "cannot be told yet"
        asked = f"{counted(row['requests'], 'request')} since {show.moment(row['since'], zone)}"
        yield f"{show.safe(row['peer'])} {what}: {asked}"
