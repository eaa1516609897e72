"""START READING HERE: the whole road of an object, one function per step.

    keep → take_in → seal → route → run → deliver

`keep` is the receivers' and lives in `store.files.ObjectFolder.keep`: it returns when losing power
can no longer lose the object, and only then is status 0x0000 sent. Everything below runs in the
conductor. Each function claims rows, calls one room, and leaves the rest to the transaction that its
caller opened; what must happen after the commit is returned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, update

from node import __version__, model
from node.assemble.assembly import Assembly
from node.assemble.completeness import Policy, gaps
from node.assemble.resend import OTHER_PIXELS, RECOMPRESSED, Known, judge
from node.derive.identity import identity
from node.errors import Broken
from node.facts import gather
from node.model import (
    Arrival,
    Cell,
    DeliveryState,
    Exit,
    Header,
    InstanceState,
    Job,
    OperatorSpec,
    RunState,
    SeriesState,
)
from node.process.plan import plan_from_json, plan_to_json
from node.route.match import Context, Judgement, holds, judge_immediate
from node.route.match import judge as judge_rules
from node.route.rules import RuleSet, Send, When
from node.send import retry
from node.send.protocol import Destination, Item, Kind, Result
from node.settings import SealPolicy, Settings
from node.store import intake, work
from node.store.arrival import read_arrival
from node.store.database import Database, move, note
from node.store.intake import object_path
from node.store.schema import run, series

NODE_MAJOR = int(__version__.split(".")[0])
SOFTWARE = f"PACSNode {__version__}"
BATCH = 200
"""Objects claimed for one association."""


@dataclass
class Parts:
    """What the steps work with; `app` builds it."""

    database: Database
    settings: Settings
    rules: RuleSet
    seal_lines: Sequence[tuple[When | None, SealPolicy]]
    specs: Mapping[str, OperatorSpec]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    assembly: Assembly = field(default_factory=Assembly)
    hold: str = ""
    """Why series are held and nothing is routed (`restored`); empty in a running node."""

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.node.data

    def context(self, **about: Any) -> Context:
        """The clock and place that rules are judged in."""
        return Context(now=self.now(), timezone=self.settings.node.timezone, **about)


# --- take_in ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What must follow the commit: a duplicate's file to remove, or two files whose pixels to compare."""

    remove: Path | None = None
    compare: tuple[Path, Path] | None = None
    instance: int = 0


def take_in(tx: Connection, parts: Parts, record: tuple[int, int], header: Header) -> Taken:
    """Index one received object, put it into its series, and queue what rules route at once."""
    if intake.has_file(tx, *record):  # catch-up met it twice
        return Taken()
    if not header.readable:
        _unreadable(tx, parts, record, header)
        return Taken()
    row = intake.kept(tx, header.sop_uid) if header.sop_uid else None
    judged = judge(_known(row) if row else None, header)
    if judged.state is InstanceState.DUPLICATE and row:
        intake.add_instance(tx, header, record, judged.state, reason=judged.why, series_id=row["series_id"])
        _send_again(tx, parts, row)
        return Taken(remove=object_path(parts.data, *record))
    if judged.state is InstanceState.CONFLICT and row:
        aside = _keep_aside(tx, parts, record, header, judged.state, judged.why)
        if judged.why != RECOMPRESSED:
            return Taken()
        known = object_path(parts.data, row["receiver_run"], row["sequence"])
        return Taken(compare=(known, object_path(parts.data, *record)), instance=aside)
    _keep(tx, parts, record, header, row["id"] if row and judged.replaces else None)
    return Taken()


def unreadable(tx: Connection, parts: Parts, record: tuple[int, int], why: str) -> None:
    """The reader could not tell anything of this object: it is kept as it came, visible and releasable."""
    if intake.has_file(tx, *record):
        return
    try:
        arrival, _ = read_arrival(object_path(parts.data, *record))
    except (Broken, OSError) as error:  # damaged on the disk: it must not stop what came after it
        why = f"{why}; its file meta cannot be read ({type(error).__name__})"
        arrival = Arrival("", "", "", "", "", "", "", "", "", parts.now())
    header = Header(
        readable=False, why=why, sop_uid=arrival.sop_uid, sop_class=arrival.sop_class,
        transfer_syntax=arrival.transfer_syntax, study_uid="", series_uid="", peer=arrival.peer,
        calling=arrival.calling, called=arrival.called, association=arrival.association,
        received_at=arrival.received_at, size=0, digest="", pixel_digest="", frames=0,
        attributes={
            "from": ((arrival.peer,),), "called": ((arrival.called,),),
            "sop_class": ((arrival.sop_class,),), "transfer_syntax": ((arrival.transfer_syntax,),),
        },
    )  # fmt: skip
    _unreadable(tx, parts, record, header)


def unreadable_now(tx: Connection, parts: Parts, instance_id: int, why: str) -> None:
    """An object of an open series could be read when it came and cannot any more: aside, and said."""
    reason = f"it cannot be read any more: {why}"
    if intake.set_aside(tx, instance_id, InstanceState.UNREADABLE, reason):
        note(tx, parts.now(), "instance_unreadable", reason, instance_id=instance_id)


def _unreadable(tx: Connection, parts: Parts, record: tuple[int, int], header: Header) -> None:
    """Kept aside, and routed by the rules that need no more than how it came (promise 2)."""
    aside = _keep_aside(tx, parts, record, header, InstanceState.UNREADABLE, header.why)
    _route_at_once(tx, parts, aside, header)


def compared(tx: Connection, parts: Parts, instance_id: int, header: Header | None, same: bool) -> None:
    """The pixels of a recompressed copy were compared: the same make it a header revision (design §6)."""
    row = intake.instances_of(tx, [instance_id])[0]
    if row["state"] != InstanceState.CONFLICT:
        return
    if not same or header is None:
        intake.explain_instance(tx, instance_id, OTHER_PIXELS)
        note(tx, parts.now(), "instance_conflict", OTHER_PIXELS, instance_id=instance_id)
        return
    known = intake.kept(tx, row["sop_uid"])
    _adopt(tx, parts, instance_id, header, known["id"] if known else None)


def _send_again(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> None:
    """The sender asked once more: what was delivered long enough ago is delivered again (design §6)."""
    if parts.hold:
        return
    before = {name: parts.now() - peer.redeliver_after for name, peer in parts.settings.peers.items()}
    if again := work.redeliver(tx, row["id"], before, parts.now()):
        note(tx, parts.now(), "redelivery", f"{again} sent again", series_id=row["series_id"])


def _known(row: Mapping[str, Any]) -> Known:
    return Known(
        row["id"], row["study_uid"] or "", row["series_uid"] or "",
        row["transfer_syntax"], row["digest"], row["pixel_digest"],
    )  # fmt: skip


def _keep_aside(
    tx: Connection, parts: Parts, record: tuple[int, int], header: Header, state: InstanceState, why: str
) -> int:
    """Visible and releasable, in no series."""
    found = intake.add_instance(tx, header, record, state, reason=why, series_id=None)
    note(tx, parts.now(), f"instance_{state}", why, instance_id=found)
    return found


def _keep(tx: Connection, parts: Parts, record: tuple[int, int], header: Header, old: int | None) -> None:
    state = InstanceState.KEPT if old is None else InstanceState.CONFLICT  # two cannot be kept under one UID
    new = intake.add_instance(tx, header, record, state, reason=header.why, series_id=None)
    _adopt(tx, parts, new, header, old)


def _adopt(tx: Connection, parts: Parts, new: int, header: Header, old: int | None) -> None:
    """Put an object into its series and route it at once; *old* is the one whose place it takes."""
    series_id = None if header.why else _series_for(tx, parts, header)
    if old is not None:
        work.replaced(tx, old, "a newer header of the same pixels came")
        work.hand_over(tx, old, new)
        note(tx, parts.now(), "header_revision", "newest header wins", series_id=series_id, instance_id=new)
    intake.adopt(tx, new, series_id, header.why)
    if series_id is None:
        note(tx, parts.now(), "instance_ungrouped", header.why, instance_id=new)
    else:
        if old is not None:
            parts.assembly.drop(series_id, old)
        parts.assembly.add(series_id, new, header, parts.monotonic(), late=old is None)
        intake.touched(tx, series_id, parts.now())
    _route_at_once(tx, parts, new, header)


def _series_for(tx: Connection, parts: Parts, header: Header) -> int:
    """The revision that is open for this object's series, opened now where there is none."""
    newest = intake.latest(tx, header.study_uid, header.series_uid)
    if newest and newest["state"] == SeriesState.RECEIVING:
        return int(newest["id"])
    members: dict[int, Mapping[str, Cell]] = {}
    revision = 1
    if newest:
        revision = newest["revision"] + 1
        members = members_of(tx, newest["id"])
    about = _about(tx, parts, header)
    if newest and newest["held"]:  # nobody has released it yet
        about["held"] = newest["held"]
    opened = intake.open_series(tx, header, revision, about, parts.now())
    parts.assembly.begin(opened, header.peer, members)
    note(tx, parts.now(), "series_opened", f"revision {revision}", series_id=opened)
    return opened


def members_of(tx: Connection, series_id: int) -> dict[int, Mapping[str, Cell]]:
    """A sealed revision's members that are still kept, with their attributes."""
    ids, facts = intake.members_and_facts(tx, series_id)
    kept = {row["id"] for row in intake.instances_of(tx, ids) if row["state"] == InstanceState.KEPT}
    return {
        key: {name: cell for name in facts.columns if (cell := facts.cell(name, i)) is not None}
        for i, key in enumerate(ids)
        if key in kept
    }


def _about(tx: Connection, parts: Parts, header: Header) -> dict[str, Any]:
    """The columns of a series that people search by."""

    def first(name: str) -> str:
        cell = header.attributes.get(name)
        return cell[0][0] if cell and cell[0] else ""

    number = first("SeriesNumber")
    return {
        "patient_id": first("PatientID"),
        "issuer": first("IssuerOfPatientID"),
        "accession": first("AccessionNumber"),
        "modality": first("Modality")[:16],
        "series_number": int(number) if re.fullmatch(r"-?[0-9]{1,9}", number) else None,
        "ours": work.is_ours(tx, header.sop_uid) or made_by_a_node(header),
        "held": parts.hold,
    }


def made_by_a_node(header: Header) -> bool:
    """Contributing Equipment (0018,A001) names a node like this one: process nothing twice (design §6)."""
    return any(
        name.startswith("ContributingEquipmentSequence[")
        and name.endswith((".Manufacturer", ".ManufacturerModelName"))
        and any(value == ("PACSNode",) for value in cell)
        for name, cell in header.attributes.items()
    )


# --- route, at once and at seal --------------------------------------------------------------------


def _route_at_once(tx: Connection, parts: Parts, instance_id: int, header: Header) -> None:
    """Queue one object where an immediate rule sends it."""
    if parts.hold:
        return
    for judged in judge_immediate(parts.rules.rules, gather([header.attributes]), parts.context()):
        if judged.routes:
            for send in judged.rule.sends:
                if send.what == "received" and send.immediate:
                    _send_received(tx, parts, [(instance_id, header.peer)], send, judged.rule.name)


def _send_received(
    tx: Connection, parts: Parts, objects: Iterable[tuple[int, str]], send: Send, rule: str
) -> int:
    """Queue received objects; never back to where they came from, nor identified where that is forbidden."""
    queued = 0
    for instance_id, peer in objects:
        for to in send.destinations(peer):
            if parts.settings.peers[to].only == "deidentified":
                note(tx, parts.now(), "delivery_refused", f"{rule}: {to} takes only de-identified data",
                     instance_id=instance_id, destination=to)  # fmt: skip
            else:
                queued += work.deliver_instance(tx, instance_id, to, rule, parts.now())
    return queued


def seal_policy(parts: Parts, series_id: int) -> Policy:
    """The peer's own policy, else the first line of `seal` that fits the series' first object."""
    found = parts.assembly.series[series_id]
    if found.policy is not None:
        return found.policy
    peer = parts.settings.peers.get(found.peer)
    chosen = peer.seal if peer else None
    if chosen is None:
        facts, context = gather(list(found.members.values())[:1]), parts.context()
        fits = (policy for when, policy in parts.seal_lines if when is None or holds(when, facts, context))
        chosen = next(fits, SealPolicy())
    found.policy = Policy(chosen.quiet_for, chosen.on_release, chosen.settle, chosen.attention_after)
    return found.policy


def attention_at(parts: Parts, series_id: int) -> float:
    """Monotonic seconds from which an open series is shown."""
    opened = parts.assembly.series[series_id].opened
    return opened + seal_policy(parts, series_id).attention_after.total_seconds()


def seal(tx: Connection, parts: Parts, series_id: int, reason: str) -> None:
    """Receiving → sealed: from here on this revision never changes."""
    found = parts.assembly.close(series_id)
    facts = found.facts()
    incomplete = gaps(facts)
    members = tuple(found.members)
    if intake.seal_series(tx, series_id, reason, incomplete, members=members, facts=facts, now=parts.now()):
        detail = f"{len(members)} objects: {reason}" + (f"; {incomplete}" if incomplete else "")
        note(tx, parts.now(), "series_sealed", detail, series_id=series_id)


def judgements(
    tx: Connection, parts: Parts, row: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[Judgement, ...]]:
    """What every rule says of a sealed revision: member ids and the judgements over them."""
    members, facts = intake.members_and_facts(tx, row["id"])
    context = parts.context(
        revision=row["revision"],
        incomplete=row["incomplete"],
        ours="made by a PACSNode" if row["ours"] else "",
    )
    return members, judge_rules(parts.rules.rules, facts, context)


def route(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> None:
    """Sealed → routed | unrouted | discarded: a run per matching rule, and received objects where rules send them."""
    members, judged = judgements(tx, parts, row)
    again = "a later revision replaces it"
    for cancelled in work.cancel_older_runs(tx, row["study_uid"], row["series_uid"], row["revision"], again):
        note(tx, parts.now(), "run_cancelled", again, series_id=row["id"], run_id=cancelled)
    peers = {found["id"]: found["peer"] for found in intake.instances_of(tx, members)}
    for j in judged:
        used = [members[i] for i in j.used]
        if j.runs and j.rule.steps:
            _open_run(tx, parts, row["id"], j, used)
        for send in j.rule.sends if j.routes else ():
            if send.what == "received" and not send.immediate:
                _send_received(tx, parts, [(i, peers[i]) for i in used], send, j.rule.name)
    state, reason = _outcome(judged, _sent_at_once(tx, judged, members), row["reason"])
    move(tx, series, row["id"], state, expected=(SeriesState.SEALED,), reason=reason)
    decisions = [{"rule": j.rule.name, "runs": j.runs, "because": j.because} for j in judged]
    note(tx, parts.now(), f"series_{state}", json.dumps(decisions, ensure_ascii=False), series_id=row["id"])


def _sent_at_once(tx: Connection, judged: Sequence[Judgement], members: Sequence[int]) -> list[str]:
    """Rules that do not hold for the whole series but sent some of its objects as they came, with how many."""
    asked = [j for j in judged if not (j.runs or j.routes) and any(send.immediate for send in j.rule.sends)]
    counts = work.sent_by_rule(tx, members) if asked else {}
    names = [j.rule.name for j in asked if j.rule.name in counts]
    return [f"{name} ({counts[name]} of {len(members)} objects, as they came)" for name in names]


def _outcome(judged: Sequence[Judgement], at_once: Sequence[str], sealed: str) -> tuple[SeriesState, str]:
    chosen = [j for j in judged if j.runs or j.routes]
    if any(j.rule.discard for j in chosen):
        names = ", ".join(j.rule.name for j in chosen if j.rule.discard)
        return SeriesState.DISCARDED, f"{sealed}; discarded by {names}"
    if chosen or at_once:
        return SeriesState.ROUTED, f"{sealed}; {', '.join((*(j.rule.name for j in chosen), *at_once))}"
    if not judged:
        return SeriesState.UNROUTED, f"{sealed}; there are no rules"
    return SeriesState.UNROUTED, f"{sealed}; no rule: " + "; ".join(
        f"{j.rule.name}: {j.because}" for j in judged
    )


def _open_run(tx: Connection, parts: Parts, series_id: int, judged: Judgement, used: Sequence[int]) -> None:
    plan = judged.rule.plan()
    if plan is None:
        return
    sends: dict[str, list[str]] = {}
    for send in judged.rule.sends:
        if send.what != "received":
            sends.setdefault(send.what, []).extend(to for to in send.to if to not in sends.get(send.what, ()))
    run_id = work.add_run(
        tx, series_id=series_id, rule=judged.rule.name, plan=json.dumps(plan_to_json(plan)),
        sends=json.dumps(sends), shadow=judged.rule.shadow, files=json.dumps(list(used)),
        retries=judged.rule.retry, due_at=parts.now(), created_at=parts.now(),
    )  # fmt: skip
    if run_id is not None:
        note(tx, parts.now(), "run_opened", judged.because, series_id=series_id, run_id=run_id)


# --- run -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """One attempt of a run, ready for a worker."""

    run: int
    attempt: int
    folder: Path
    job: Job


def start_run(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> Started | None:
    """Waiting → running: everything the worker needs, in one value; None when another was quicker."""
    attempt = work.claim_run(tx, row, parts.now())
    if attempt is None:
        return None
    plan = plan_from_json(json.loads(row["plan"]))
    used = intake.instances_of(tx, json.loads(row["files"]))
    job = Job(
        run=row["id"],
        plan=plan,
        provenance=_provenance(tx, parts, row, plan, [str(i["digest"]) for i in used]),
        files=tuple(str(object_path(parts.data, i["receiver_run"], i["sequence"])) for i in used),
        inherited_timezone=parts.settings.node.timezone,
    )
    return Started(row["id"], attempt, parts.data / "runs" / str(row["id"]) / str(attempt), job)


def _provenance(
    tx: Connection, parts: Parts, row: Mapping[str, Any], plan: model.Plan, digests: Sequence[str]
) -> model.Provenance:
    versions = {s.operator: parts.specs[s.operator].version for s in plan.steps if s.operator in parts.specs}
    key = identity(digests, plan.meaning, versions, NODE_MAJOR, 0)
    known = work.identity_of(tx, key)
    if known is None:
        work.remember_identity(tx, key, parts.now(), _series_numbers(tx, row["series_id"], plan))
        known = work.identity_of(tx, key)
    assert known is not None  # noqa: S101 - inserted in this transaction
    tx.execute(update(run).where(run.c.id == row["id"]).values(identity=key))
    return model.Provenance(
        identity=identity(digests, plan.meaning, versions, NODE_MAJOR, known["generation"]),
        first_run_at=known["first_run_at"],
        software=SOFTWARE,
        device=parts.settings.node.ae_titles[0],
        series_numbers=json.loads(known["series_numbers"]),
        operators=versions,
    )


def _series_numbers(tx: Connection, series_id: int, plan: model.Plan) -> dict[str, int]:
    """Source × 100 + output index, 9000 + index without one; the next that is free in the study (design §8)."""
    source, taken = work.numbers_in_study(tx, series_id)
    numbers: dict[str, int] = {}
    for output in plan.outputs:
        number = first_number(source) + output.index
        while number in taken:
            number += 1
        taken.add(number)
        numbers[output.name] = number
    return numbers


def first_number(source: int | None) -> int:
    """What output indices are added to; a Series Number is an IS, at most 2³¹ − 1 (PS3.5 6.2)."""
    return source * 100 if source is not None and 0 < source < 2**31 // 100 - 100 else 9000


def finish_run(tx: Connection, parts: Parts, started: Started, ended: Exit) -> None:
    """Running → done with its products queued, or refused, quarantined, or waiting to be tried again."""
    row = work.run_row(tx, started.run)
    if row is None or row["state"] != RunState.RUNNING or row["attempt"] != started.attempt:
        return  # we were replaced; the successor's result counts
    if ended.state is RunState.DONE and not work.settle_identity(tx, row["identity"], ended.products):
        ended = replace(
            ended, state=RunState.WAITING, reason="made other bytes than before: done again with new UIDs"
        )
    elif ended.state in (RunState.WAITING, RunState.QUARANTINED) and row["retries"] <= 0:
        ended = replace(ended, state=RunState.QUARANTINED)
    elif ended.state in (RunState.WAITING, RunState.QUARANTINED):
        ended = replace(ended, state=RunState.WAITING)
        tx.execute(update(run).where(run.c.id == started.run).values(retries=row["retries"] - 1))
    due = parts.now() + retry_wait(started.attempt) if ended.state is RunState.WAITING else row["due_at"]
    move(
        tx, run, started.run, ended.state, expected=(RunState.RUNNING,), attempt=started.attempt,
        reason=ended.reason, finished_at=parts.now(), due_at=due,
    )  # fmt: skip
    queued = 0
    if ended.state is RunState.DONE:
        queued = _queue_products(tx, parts, row, started, ended)
    detail = ended.reason or f"{len(ended.products)} objects made, {queued} deliveries queued"
    note(tx, parts.now(), f"run_{ended.state}", detail, series_id=row["series_id"], run_id=started.run)


def retry_wait(attempt: int) -> timedelta:
    """How long a failed run waits: 5 s, doubled each time, at most 10 minutes."""
    return timedelta(seconds=min(5 * 2 ** (attempt - 1), 600))


def _queue_products(
    tx: Connection, parts: Parts, row: Mapping[str, Any], started: Started, ended: Exit
) -> int:
    folder = str(started.folder.relative_to(parts.data))
    sends: Mapping[str, Sequence[str]] = json.loads(row["sends"])
    queued = 0
    for product_id, made in work.add_products(tx, started.run, folder, ended):
        for to in () if row["shadow"] else sends.get(made.output, ()):
            if to not in parts.settings.peers:
                note(tx, parts.now(), "delivery_refused", f"{to} is not among the peers any more",
                     run_id=started.run, destination=to)  # fmt: skip
            elif parts.settings.peers[to].only == "deidentified":
                note(tx, parts.now(), "delivery_refused", f"{to} takes only de-identified data",
                     run_id=started.run, destination=to)  # fmt: skip
            else:
                queued += work.deliver_product(tx, product_id, made, to, row["rule"], parts.now())
    return queued


# --- deliver ---------------------------------------------------------------------------------------


def deliver(
    tx: Connection, parts: Parts, to: str, open_batches: int
) -> tuple[Destination, tuple[Item, ...]] | None:
    """Waiting → sending: the next objects for a destination, one alone while it is down; None if nothing is due."""
    peer = parts.settings.peers.get(to)
    known = work.destinations(tx).get(to)
    down = bool(known and known["down"])
    if peer is None or peer.host is None or peer.port is None or peer.ae_title is None:
        if not down:
            _mark_down(
                tx, parts, to, f"{to} is no peer with an address any more; see `peers` in the site file"
            )
        return None
    if known and down and (open_batches or (known["next_at"] and known["next_at"] > parts.now())):
        return None
    if open_batches >= peer.associations:
        return None
    found = work.claim_deliveries(tx, work.due_deliveries(tx, to, parts.now(), 1 if down else BATCH))
    if not found:
        return None
    where = Destination(
        name=to, host=peer.host, port=peer.port, ae_title=peer.ae_title,
        calling_ae=peer.call_as or parts.settings.node.ae_titles[0], max_associations=peer.associations,
    )  # fmt: skip
    return where, tuple(_item(parts, row) for row in found)


def _item(parts: Parts, row: Mapping[str, Any]) -> Item:
    path = (
        parts.data / row["path"]
        if row["path"]
        else object_path(parts.data, row["receiver_run"], row["sequence"])
    )
    return Item(
        delivery=row["id"], attempt=row["attempt"], path=str(path), sop_class=row["sop_class"],
        sop_uid=row["sop_uid"] or "", transfer_syntax=row["transfer_syntax"],
    )  # fmt: skip


def delivered(tx: Connection, parts: Parts, to: str, results: Sequence[Result]) -> None:
    """Sending → stored | waiting | parked, by what the destination answered for each object."""
    now = parts.now()
    for result in results:
        if result.kind is Kind.NOT_TRIED:
            work.finish_delivery(tx, result.delivery, result.attempt, DeliveryState.WAITING)
            continue
        failures = work.failures_of(tx, result.delivery)
        decided = retry.decide(
            result.kind, result.status, failures + 1, now, retry.Policy(),
            seed=result.delivery, claims=result.attempt,
        )  # fmt: skip
        why = decided.why if isinstance(decided, retry.Stored) else f"{result.what}; {decided.why}"
        if isinstance(decided, retry.Stored):
            work.finish_delivery(
                tx, result.delivery, result.attempt, DeliveryState.STORED,
                status=result.status, reason=why, finished_at=now,
            )  # fmt: skip
            continue
        again = isinstance(decided, retry.Again)
        ours = work.finish_delivery(
            tx, result.delivery, result.attempt, DeliveryState.WAITING if again else DeliveryState.PARKED,
            status=result.status, reason=why, failures=failures + 1,
            due_at=decided.at if isinstance(decided, retry.Again) else now, finished_at=now,
        )  # fmt: skip
        if ours:
            name = "delivery_failed" if again else "delivery_parked"
            note(tx, now, name, why, **work.object_of(tx, result.delivery), destination=to)


def batch_over(tx: Connection, parts: Parts, to: str, error: str | None, claimed: Iterable[int]) -> None:
    """A batch is over: the destination is down with its reason, or up. Objects wait; nothing is parked."""
    known = work.destinations(tx).get(to)
    work.unclaim_deliveries(tx, claimed)
    if error is None:
        if known and known["down"]:
            work.set_destination(tx, to, down=False, reason="", since=None, failures=0, next_at=None)
            note(tx, parts.now(), "destination_up", destination=to)
        return
    _mark_down(tx, parts, to, error)


def _mark_down(tx: Connection, parts: Parts, to: str, error: str) -> None:
    """The destination is down: why, since when, and when it is tried next; an event when that is news."""
    known = work.destinations(tx).get(to)
    failures = (known["failures"] if known else 0) + 1
    since = known["since"] if known and known["down"] else parts.now()
    if not (known and known["down"] and known["reason"] == error):
        note(tx, parts.now(), "destination_down", error, destination=to)
    due = retry.next_probe(failures, parts.now())
    work.set_destination(tx, to, down=True, reason=error, since=since, failures=failures, next_at=due)
