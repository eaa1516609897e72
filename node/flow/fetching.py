"""fetch: earlier studies that rules want as inputs: asked for, offered, chosen, sent to us, sealed.

    wanted → ask_for_prior → offered → (the peer sends) → take_fetched → sent → finish_fetch

What comes so is an input and nothing else: no rule is asked about it, nothing of it is sent on, and it counts as no
arrival. Who is asked must be answered for: what came under our request and is not what was asked for is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from node.assemble.completeness import gaps
from node.facts import gather
from node.flow.counting import callable_peer
from node.flow.fetched import close_unused
from node.flow.parts import Parts, Transfer
from node.model import Cell
from node.route.inputs import Input
from node.route.priors import (
    SERIES_KEYS,
    STUDY_KEYS,
    Offer,
    choose,
    keys,
    modalities,
    wanted_of,
)
from node.send.protocol import Destination
from node.store import fetches, intake, studies
from node.store.database import note
from node.store.fetches import FetchState, WantedState
from node.words import counted

_PAUSES = tuple(timedelta(seconds=s) for s in (10, 60, 300, 900))
"""Between attempts that failed; after one more it is given up."""
LONGEST_PAUSE = _PAUSES[-1]
_BESIDE = timedelta(seconds=3)
"""Until it is looked again whether a series that another rule wants, too, has come."""
_WILDCARDS = "*?\\"
"""What C-FIND takes for a pattern (PS3.4 C.2.2.2): an ID with one of these would match other patients."""
LONGEST = timedelta(minutes=30)
"""For one transfer."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to ask for the series of a patient's earlier studies, and what."""

    where: Destination
    patient_id: str
    issuer: str
    dates: str
    not_study: str
    modalities: tuple[str, ...]
    study_keys: tuple[str, ...]
    series_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Which series a peer is to send to us, and how."""

    fetch: int
    where: Destination
    way: str
    study_uid: str
    series_uid: str
    message_id: int
    move_to: str


def ask_for_prior(tx: Connection, parts: Parts, mine: Mapping[str, Any]) -> Question | None:
    """What to ask for a claimed row; None where it is settled without."""
    where, source = callable_peer(parts, mine["peer"]), _input_of(parts, mine)
    wanted = wanted_of(mine)
    if where is None:
        _over(tx, parts, mine, WantedState.FAILED, f"{mine['peer']} is no peer with an address any more")
    elif source is None:
        _over(tx, parts, mine, WantedState.NONE, f"rule {mine['rule']} does not ask for it any more")
    elif set(_WILDCARDS) & set(wanted.patient.patient_id + wanted.patient.issuer):
        why = "the Patient ID holds a sign that C-FIND takes for a pattern, so others could answer to it"
        _over(tx, parts, mine, WantedState.NONE, why)
    else:
        return Question(
            where, wanted.patient.patient_id, wanted.patient.issuer, f"{wanted.from_date}-{wanted.study_date}",
            wanted.study_uid, modalities(source), STUDY_KEYS, (*SERIES_KEYS, *keys(source)),
        )  # fmt: skip
    return None


def _input_of(parts: Parts, row: Mapping[str, Any]) -> Input | None:
    rule = next((rule for rule in parts.rules.of_studies if rule.name == row["rule"]), None)
    inputs = rule.study.inputs if rule is not None and rule.study is not None else ()
    return next((one for one in inputs if one.name == row["input"] and one.prior is not None), None)


def offered(
    tx: Connection, parts: Parts, mine: Mapping[str, Any], offers: list[Offer], error: str
) -> Request | None:
    """What a peer offers: the series to fetch, or None where there is none, it is here already, or it is later."""
    source, where = _input_of(parts, mine), callable_peer(parts, mine["peer"])
    if error or source is None or where is None:
        _later(tx, parts, mine, error or "the rule, or its peer, changed meanwhile")
        return None
    chosen = choose(source, wanted_of(mine), offers)
    if not chosen.order:
        _over(tx, parts, mine, WantedState.NONE, f"{mine['peer']}: {chosen.why}")
        return None
    best = chosen.order[0]
    here = fetches.held(tx, best.study_uid, best.series_uid)
    if here is not None:
        _over(tx, parts, mine, WantedState.FETCHED, f"series {here} is here already; {chosen.why}", here)
        return None
    if fetches.under_way(tx, mine["peer"], best.series_uid):
        fetches.settle(tx, mine, WantedState.WANTED, due_at=parts.now() + _BESIDE)
        return None
    if len(best.study_uid) > 64 or len(best.series_uid) > 64:
        _over(tx, parts, mine, WantedState.NONE, f"{mine['peer']} offers a UID of more than 64 characters")
        return None
    way = parts.settings.peers[mine["peer"]].priors
    row = fetches.begin(
        tx, wanted_id=mine["id"], peer=mine["peer"], study_uid=best.study_uid, series_uid=best.series_uid, way=way,
        calling=where.calling_ae, patient=mine["patient"], asked_at=parts.now(),
    )  # fmt: skip
    parts.transfers[row["id"]] = Transfer(mine["peer"], best.study_uid, best.series_uid)
    said = f"{mine['rule']}, input {mine['input']}: C-{way.upper()} of a series {chosen.why}"
    note(tx, parts.now(), "prior_asked", said, destination=mine["peer"])
    ours = parts.settings.node.ae_titles
    move_to = where.calling_ae if where.calling_ae in ours else ours[0]
    return Request(row["id"], where, way, best.study_uid, best.series_uid, row["message_id"], move_to)


# --- how it ends


def sent(
    tx: Connection, parts: Parts, key: int, mine: Mapping[str, Any], objects: tuple[str, ...], error: str
) -> None:
    """The peer says that it has sent all of a series, or why not; `finish_fetch` follows once all is indexed."""
    transfer = parts.transfers.get(key)
    if transfer is None:
        return
    if error:
        _failed(tx, parts, key, mine, error)
    else:
        transfer.objects, transfer.sent = objects, parts.monotonic()


def finish_fetch(tx: Connection, parts: Parts, key: int, mine: Mapping[str, Any]) -> None:
    """All that was sent is indexed: the series is sealed and the rule hears of it, or it is tried again."""
    transfer = parts.transfers[key]
    missing = set(transfer.objects or ()) - transfer.came
    if transfer.wrong:
        _failed(tx, parts, key, mine, f"{transfer.peer} sent what {transfer.wrong}", for_good=True)
    elif missing or transfer.series_id is None:
        count = len(transfer.objects or ())
        why = f"{transfer.peer} says that it sent {counted(count, 'object')}; {len(missing)} did not come"
        _failed(tx, parts, key, mine, why)
    elif not transfer.members:
        _failed(tx, parts, key, mine, "all its objects were rejected", for_good=True)
    else:
        facts, members = gather(transfer.members.values()), tuple(transfer.members)
        reason = f"fetched from {transfer.peer}, {counted(len(members), 'object')}"
        intake.seal_series(
            tx, transfer.series_id, reason, gaps(facts), members=members, facts=facts, now=parts.now()
        )
        note(tx, parts.now(), "series_sealed", reason, series_id=transfer.series_id)
        fetches.finish(tx, key, FetchState.DONE, parts.now())
        del parts.transfers[key]
        _over(tx, parts, mine, WantedState.FETCHED, reason, transfer.series_id)


def _failed(
    tx: Connection, parts: Parts, key: int, mine: Mapping[str, Any], why: str, *, for_good: bool = False
) -> None:
    transfer = parts.transfers.pop(key)
    fetches.finish(tx, key, FetchState.FAILED, parts.now(), why)
    if transfer.series_id is not None:
        close_unused(tx, parts, transfer.series_id, why)
    if for_good:
        _over(tx, parts, mine, WantedState.FAILED, why)
    else:
        _later(tx, parts, mine, why)


def _later(tx: Connection, parts: Parts, mine: Mapping[str, Any], why: str) -> None:
    """It is tried again, a few times."""
    failures = mine["failures"] + 1
    if failures > len(_PAUSES):
        _over(tx, parts, mine, WantedState.FAILED, why, failures=failures)
        return
    due = parts.now() + _PAUSES[failures - 1]
    if (
        fetches.settle(tx, mine, WantedState.WANTED, failures=failures, reason=why, due_at=due)
        and failures == 1
    ):
        said = f"{mine['rule']}, input {mine['input']}: {why}; it is tried again"
        note(tx, parts.now(), "prior_delayed", said, destination=mine["peer"])


def _over(
    tx: Connection, parts: Parts, mine: Mapping[str, Any], to: WantedState, why: str, series_id: int | None = None,
    **values: Any,
) -> None:  # fmt: skip
    """It is decided: the rules of the study that asks are judged again."""
    now = parts.now()
    if fetches.settle(tx, mine, to, reason=why, series_id=series_id, finished_at=now, **values):
        note(
            tx, now, f"prior_{to}", f"{mine['rule']}, input {mine['input']}: {why}", series_id=series_id,
            destination=mine["peer"],
        )  # fmt: skip
        studies.wake(tx, mine["study_uid"], now)


def nobody_asks(tx: Connection, parts: Parts) -> None:
    """At start: what was being asked for is asked for again; what came of it so far is not used."""
    for row in fetches.broken_off(tx):
        close_unused(tx, parts, row["id"], "the node was restarted")
    fetches.give_back(tx, parts.now(), "the node was restarted")
    parts.transfers.clear()


def cells(said: Mapping[str, Any]) -> dict[str, Cell]:
    """What came over the pipe, as facts take it."""
    return {name: tuple(tuple(value) for value in cell) for name, cell in said.items()}
