"""What a person does: holding, releasing, cancelling, retrying, replaying; and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydicom.uid import UID_dictionary

from node.errors import Misconfigured, Refused
from node.model import InstanceState
from node.settings import Settings
from node.shape import nearest
from node.store import acts, aside, choosing, intake, queries, replays
from node.store.acts import Act, Acted
from node.store.choosing import Wanted
from node.store.database import Database
from node.store.replays import Replay
from node.words import counted


@dataclass(frozen=True)
class Asked:
    """One act on one row or on a group."""

    act: Act
    what: str
    """deliveries, runs, series."""
    wanted: Wanted


def act(database: Database, asked: Asked) -> Acted:
    """Do it, or with `dry_run` count it. Raises Refused for a series that is not there."""
    on = {"deliveries": acts.on_deliveries, "runs": acts.on_runs, "series": acts.on_series}[asked.what]
    with database.write() as tx:
        ref = asked.wanted.series
        if ref and queries.series_by_ref(tx, ref) is None:
            raise Refused(f"series {ref}: the node holds no such series; `pacsnode series` lists them")
        return on(tx, asked.act, asked.wanted)


_DONE = {"hold": "held", "release": "released", "cancel": "cancelled", "retry": "retried"}


_ONE = {"deliveries": "delivery", "runs": "run", "series": "series"}


def acted_lines(asked: Asked, acted: Acted) -> Iterator[str]:
    """How many were changed, and which were named and left alone."""
    verb = _DONE[asked.act.verb]
    if not acted.changed:
        yield f"nothing to {asked.act.verb} among the {asked.what}" + _left(acted)
    elif asked.act.dry_run:
        yield f"{counted(acted.changed, _ONE[asked.what])} would be {verb}" + _left(acted)
    else:
        yield f"{counted(acted.changed, _ONE[asked.what])} {verb}" + _left(acted)


def _left(acted: Acted) -> str:
    told = ", ".join(f"{count} {state}" for state, count in sorted(acted.left.items()))
    return f"; left alone: {told}" if told else ""


def sop_class_uid(name: str) -> str:
    """A SOP class by UID, keyword (`CTImageStorage`) or name (`CT Image Storage`). Raises Misconfigured."""
    if name.replace(".", "").isdigit():
        return name
    known = {keyword: uid for uid, (_, kind, _, _, keyword) in UID_dictionary.items() if kind == "SOP Class"}
    asked = name.replace(" ", "").replace("-", "").casefold()
    for keyword, uid in known.items():
        if asked in (keyword.casefold(), keyword.removesuffix("Storage").casefold()):
            return uid
    raise Misconfigured(f"--class {name} is no SOP class{nearest(name.replace(' ', ''), known)}")


@dataclass(frozen=True)
class Replayed:
    """The series that are judged again, and why others are not."""

    series: tuple[int, ...]
    not_again: dict[int, str]
    """Series → why."""
    instead: dict[int, int]
    """An older revision that was named → the newest, which was meant."""


def replay(database: Database, wanted: Wanted, how: Replay, act: Act) -> Replayed:
    """Have series judged again by the rules now in use. Raises Refused where none is named."""
    with database.write() as tx:
        named = [int(row["id"]) for row in tx.execute(choosing.series_chosen(wanted)).mappings()]
        if not named:
            raise Refused("the node holds no such series; `pacsnode series` lists them")
        newest = {key: replays.newest_of(tx, key) for key in named}
        asked = dict.fromkeys(newest.values())
        told = {key: replays.replay_series(tx, key, how, act) for key in asked}
    older = {key: latest for key, latest in newest.items() if latest != key and latest not in named}
    done = tuple(key for key, why in told.items() if not why)
    return Replayed(done, {key: why for key, why in told.items() if why}, older)


def replay_lines(found: Replayed, dry_run: bool, running: bool) -> Iterator[str]:
    """The same for people."""
    for older, newest in found.instead.items():
        yield f"series {older} is an older revision: series {newest} is taken"
    for key, why in found.not_again.items():
        yield f"series {key} cannot be judged again: {why}"
    if found.series:
        yield f"{len(found.series)} series {'would be' if dry_run else 'will be'} judged again by the rules in use"
    if found.series and not running and not dry_run:
        yield "the node is not running: they are judged when it starts"


def release_object(database: Database, settings: Settings, key: int, to: str, at: datetime) -> str:
    """Release an object that was set aside: into its series, or with *to* to one peer; what was done, in words.

    Raises Misconfigured for a peer that cannot be sent to, Refused for an object that is not set aside.
    """
    if to:
        _check_peer(settings, to)
    with database.write() as tx:
        found = intake.instances_of(tx, [key])
        if not found:
            raise Refused(f"object {key}: the node holds no such object; `pacsnode objects` lists them")
        state = found[0]["state"]
        if to and state in (InstanceState.UNREADABLE, InstanceState.KEPT):
            queued = aside.route_by_hand(tx, key, to, at)
            return f"object {key} is queued for {to}" if queued else f"{to} has or gets object {key} already"
        if not to and aside.ask_release(tx, key, at):
            return f"object {key} takes the place of the one that was kept, as soon as the node runs"
    raise Refused(f"object {key} is {state}: {_NOT_SO.get(state, 'it is not set aside')}")


_NOT_SO = {
    InstanceState.UNREADABLE: "it belongs to no series; `--to NAME` sends it as it is",
    InstanceState.CONFLICT: "without `--to` it takes the place of the one that was kept, and rules route it",
}


def _check_peer(settings: Settings, to: str) -> None:
    peer = settings.peers.get(to)
    if peer is None:
        raise Misconfigured(f"{to} is not among the peers{nearest(to, settings.peers)}")
    if not peer.receives:
        raise Misconfigured(f"{to} has no address in the site file; nothing can be sent there")
    if peer.only == "deidentified":
        raise Misconfigured(f"{to} takes only de-identified data (`only: deidentified`)")
