"""route: what every rule says, the runs it opens, and the received objects it sends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from node.flow.manners import Subject, subject_of, subject_of_object, ways
from node.flow.opening import sends_of
from node.flow.parts import Parts
from node.flow.queueing import queue_received
from node.flow.remaining import left
from node.flow.studying import Told, tell_study
from node.flow.withdrawing import supersede
from node.model import Header, SeriesState
from node.process.plan import plan_to_json
from node.route.conditions import Outcome
from node.route.match import Judgement, judge, judge_immediate
from node.route.rules import Rule, Send
from node.route.weighing import barred
from node.store import deliveries, intake, issued, work
from node.store.database import move, note
from node.store.ranks import rank_of
from node.store.schema import series
from node.words import first_few, is_few


def route_at_once(tx: Connection, parts: Parts, instance_id: int, header: Header) -> None:
    """Queue one object where an immediate rule sends it."""
    if parts.hold:
        return
    for rule in parts.at_once.rules_for(header.attributes, parts.context()):
        for send in rule.sends:
            if send.what == "received" and send.immediate:
                _send_received(tx, parts, [(instance_id, header.peer)], send, rule, subject_of_object(header))


def _send_received(
    tx: Connection, parts: Parts, objects: Iterable[tuple[int, str]], send: Send, rule: Rule, subject: Subject,
    *, anew: bool = False,
) -> int:  # fmt: skip
    """Queue received objects; never back to where they came from, nor identified where that is forbidden."""
    queued = 0
    for instance_id, peer in objects:
        for to, how in ways(tx, parts, rule, send, subject, peer).items():
            queued += queue_received(tx, parts, instance_id, to, rule.name, how, anew=anew)
    return queued


def judgements(
    tx: Connection, parts: Parts, row: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[Judgement, ...]]:
    """What every rule says of a sealed revision: member ids and the judgements over them."""
    members, facts, incomplete = left(tx, row)
    context = parts.context(
        revision=row["revision"],
        incomplete=incomplete,
        ours="made by a PACSNode" if row["ours"] else "",
        barred=barred(parts.never, facts, parts.context()),
    )
    return members, judge(parts.rules.rules, facts, context)


def route(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> None:
    """Sealed → routed | unrouted | discarded: a run per matching rule, and received objects where rules send them."""
    current = intake.to_route(tx, row["id"])
    if current is None:  # since the row was read a person holds it
        return
    row = current
    if row["prior"]:
        why = f"a prior, fetched from {row['prior']}: an input only"
        move(tx, series, row["id"], SeriesState.UNROUTED, expected=(SeriesState.SEALED,), reason=why)
        note(tx, parts.now(), "series_prior", why, series_id=row["id"])
        return
    members, judged = judgements(tx, parts, row)
    _cancel_older(tx, parts, row)
    chosen = [j for j in judged if row["replay_rule"] in ("", j.rule.name)]
    peers = {found["id"]: found["peer"] for found in intake.instances_of(tx, members)}
    if row["replay"] or row["held"] == intake.RELEASED:
        _route_each(tx, parts, row, peers)
    for j in chosen:
        used = [members[i] for i in j.used]
        if j.runs and j.rule.steps:
            _open_run(tx, parts, row, j, used)
        for send in j.rule.sends if j.routes else ():
            if send.what == "received" and not send.immediate:
                received = [(i, peers[i]) for i in used]
                _send_received(tx, parts, received, send, j.rule, subject_of(row), anew=bool(row["replay"]))
    _outdate(tx, parts, row, judged)
    discarded = any(j.rule.discard for j in chosen if j.runs)
    of_study = [] if discarded else tell_study(tx, parts, row)
    state, reason = _outcome(judged, _sent_at_once(tx, judged, members), row["reason"], of_study)
    if row["replay_rule"]:
        reason = f"{row['reason']}; {_of_one_rule(chosen, of_study)}"
    move(tx, series, row["id"], state, expected=(SeriesState.SEALED,), reason=reason)
    ordered = chosen if is_few(chosen) else sorted(chosen, key=_distance)
    decisions = [{"rule": j.rule.name, "runs": j.runs, "because": j.because} for j in ordered]
    decisions += [{"rule": t.rule, "runs": t.runs, "because": t.because} for t in of_study]
    told = json.dumps(decisions, ensure_ascii=False) if decisions else reason
    note(tx, parts.now(), f"series_{state}", told, series_id=row["id"])


def _outdate(tx: Connection, parts: Parts, row: Mapping[str, Any], judged: Sequence[Judgement]) -> None:
    """Results made from objects that were corrected since, by rules that make nothing newer of this revision."""
    if row["replay_rule"]:
        return
    newer = {j.rule.name for j in judged if j.runs and j.rule.steps and not j.rule.shadow}
    said = {j.rule.name: j.because for j in judged}
    for older in issued.outdated(tx, row["id"]):
        if older["rule"] not in newer:
            because = said.get(older["rule"]) or "the rule is gone"
            why = f"objects they were made from were corrected since, and nothing newer is made: {because}"
            supersede(tx, parts, older, why)


def _cancel_older(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> None:
    """What waits of earlier revisions of the series, and of earlier judgements of this one, is not run any more."""
    later, again = "a later revision replaces it", "a replay replaces it"
    gone = dict.fromkeys(
        work.cancel_older_runs(tx, row["study_uid"], row["series_uid"], row["revision"], later), later
    )
    if row["replay"]:
        gone |= dict.fromkeys(work.cancel_earlier_replays(tx, row, again), again)
    for cancelled, why in gone.items():
        note(tx, parts.now(), "run_cancelled", why, series_id=row["id"], run_id=cancelled)


def _route_each(tx: Connection, parts: Parts, row: Mapping[str, Any], peers: Mapping[int, str]) -> None:
    """Immediate rules of a series that was held or is judged again: object by object, as when they came."""
    members, facts, _ = left(tx, row)
    anew = bool(row["replay"])
    for place, key in enumerate(members):
        judgements = judge_immediate(parts.rules.rules, facts.one(place), parts.context())
        asked = [j.rule for j in judgements if j.routes and row["replay_rule"] in ("", j.rule.name)]
        for rule in asked:
            for send in rule.sends:
                if send.what == "received" and send.immediate:
                    _send_received(tx, parts, [(key, peers[key])], send, rule, subject_of(row), anew=anew)


def _of_one_rule(chosen: Sequence[Judgement], of_study: Sequence[Told]) -> str:
    """What became of a series that one rule was asked about."""
    if of_study and not chosen:
        return of_study[0].words
    if not chosen:
        return "that rule is not among those in use: `pacsnode check` the rules"
    (j,) = chosen
    return j.rule.name if j.runs or j.routes else f"{j.rule.name}: {j.because}"


def _sent_at_once(tx: Connection, judged: Sequence[Judgement], members: Sequence[int]) -> list[str]:
    """Rules that do not hold for the whole series but sent some of its objects as they came, with how many."""
    asked = [j for j in judged if not (j.runs or j.routes) and any(send.immediate for send in j.rule.sends)]
    counts = deliveries.sent_by_rule(tx, members) if asked else {}
    names = [j.rule.name for j in asked if j.rule.name in counts]
    return [f"{name} ({counts[name]} of {len(members)} objects, as they came)" for name in names]


def _outcome(
    judged: Sequence[Judgement], at_once: Sequence[str], sealed: str, of_study: Sequence[Told]
) -> tuple[SeriesState, str]:
    chosen = [j for j in judged if j.runs or j.routes]
    taken = [t.words for t in of_study if t.taken]
    if any(j.rule.discard for j in chosen):
        names = ", ".join(j.rule.name for j in chosen if j.rule.discard)
        return SeriesState.DISCARDED, f"{sealed}; discarded by {names}"
    if chosen or at_once or taken:
        kept_off = "".join(
            f"; {j.rule.name} is not run: {j.because}" for j in judged if j.decided_by == "incomplete"
        )
        names = ", ".join((*(j.rule.name for j in chosen), *at_once, *taken))
        return SeriesState.ROUTED, f"{sealed}; {names}{kept_off}"
    if not judged and not of_study:
        return SeriesState.UNROUTED, f"{sealed}; there are no rules"
    nearest = judged if is_few(judged) else sorted(judged, key=_distance)
    said = [*(f"{j.rule.name}: {j.because}" for j in nearest), *(f"{t.rule}: {t.because}" for t in of_study)]
    return SeriesState.UNROUTED, f"{sealed}; no rule: {first_few(said, 'rules; `explain` tells of all')}"


def _distance(judged: Judgement) -> float:
    """How far a rule is from taking the series: the share of its lines that do not hold. People ask about the near."""
    wrong = sum(clause.outcome is not Outcome.YES for clause in judged.clauses)
    return wrong / len(judged.clauses) if judged.clauses else 0.0


def _open_run(
    tx: Connection, parts: Parts, row: Mapping[str, Any], judged: Judgement, used: Sequence[int]
) -> None:
    plan = judged.rule.plan()
    if plan is None:
        return
    run_id = work.add_run(
        tx, series_id=row["id"], replay=row["replay"], fresh=row["replay_fresh"], rule=judged.rule.name,
        plan=json.dumps(plan_to_json(plan)), sends=sends_of(tx, parts, judged.rule, subject_of(row)),
        shadow=judged.rule.shadow,
        files=json.dumps(list(used)), retries=judged.rule.retry, due_at=parts.now(), created_at=parts.now(),
        rank=rank_of(judged.rule.priority, parts.now()),
    )  # fmt: skip
    if run_id is not None:
        note(tx, parts.now(), "run_opened", judged.because, series_id=row["id"], run_id=run_id)
