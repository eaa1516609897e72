"""study: what rules of `scope: study` make of a study, whenever one of its series is sealed and when a wait ends.

All in the transaction that routes the series, or that ends the wait: a kill leaves both done or neither. A
rule that ran runs again where its decision has come to other inputs (`again: better_input`), where images it
used were corrected or rejected since, and at a person's word; each time its runs take the next *turn*, and the
results of a later turn supersede those of an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.flow.study_runs import Opening, lacks_inputs, next_turn, quarantine
from node.flow.study_series import Known, known_study
from node.flow.wanting import ask_for_priors, asked_of, try_another
from node.flow.withdrawing import supersede
from node.model import InstanceState, RunState
from node.route.conditions import Outcome
from node.route.rules import Rule
from node.route.study import Apart, Moment, Over, Ready, StudyJudgement, Waiting, decide
from node.store import studies
from node.store.database import move, note
from node.store.schema import run

_FINAL = ("skipped", "quarantined")


@dataclass(frozen=True, slots=True)
class Told:
    """What one rule over a study says of one of its series."""

    rule: str
    taken: bool
    """It is an input, or may become one."""
    runs: bool
    """The rule runs now."""
    words: str
    because: str


def tell_study(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> list[Told]:
    """Judge the study of a series that was just sealed, or that a person has judged again."""
    rules = [rule for rule in parts.rules.of_studies if row["replay_rule"] in ("", rule.name)]
    if not rules:
        return []
    again = ("fresh" if row["replay_fresh"] else "again") if row["replay"] else ""
    known = known_study(tx, parts, row["study_uid"])
    found = []
    for rule in rules:
        judged = _judge(tx, parts, known, rule, (int(row["id"]), again))
        found.append(_told(judged, int(row["id"])))
    return found


def judge_study(tx: Connection, parts: Parts, study_uid: str) -> None:
    """Judge a study again: a wait ended, or what it waited for happened."""
    known = known_study(tx, parts, study_uid)
    studies.asleep(tx, study_uid, [rule.name for rule in parts.rules.of_studies])
    for rule in parts.rules.of_studies:
        if studies.rule_row(tx, study_uid, rule.name) is not None:
            _judge(tx, parts, known, rule)


def study_judgements(tx: Connection, parts: Parts, study_uid: str) -> list[StudyJudgement]:
    """What the rules say of a study now; nothing is written."""
    known = known_study(tx, parts, study_uid)
    return [
        _decided(tx, parts, known, rule, _since(parts, studies.rule_row(tx, study_uid, rule.name)))
        for rule in parts.rules.of_studies
    ]


def judge_again(tx: Connection, parts: Parts, row: Mapping[str, Any], study_uid: str) -> None:
    """A person wants a run tried again that lacked an input: it is judged by what is there now."""
    rule = next((rule for rule in parts.rules.of_studies if rule.name == row["rule"]), None)
    why = f"rule {row['rule']} is not in use any more"
    if rule is not None:
        judged = _judge(tx, parts, known_study(tx, parts, study_uid), rule, by_hand=True)
        why = judged.because
        if judged.runs:
            reason = "its inputs are there: a later run takes them"
            move(tx, run, row["id"], RunState.CANCELLED, expected=(RunState.WAITING,), reason=reason)
            note(tx, parts.now(), "run_cancelled", reason, series_id=row["series_id"], run_id=row["id"])
            return
    move(tx, run, row["id"], RunState.QUARANTINED, expected=(RunState.WAITING,), reason=why)
    note(tx, parts.now(), "run_quarantined", why, series_id=row["series_id"], run_id=row["id"])


def _told(judged: StudyJudgement, key: int) -> Told:
    name = judged.rule.name
    fits = [v.input.name for v in judged.views for w in v.looked_at if w.candidate.key == key and _yes(w)]
    if fits and not isinstance(judged.verdict, Apart):
        return Told(name, True, judged.runs, f"{name} (as {fits[0]})", judged.because)
    against = [
        f"{v.input.name}: {w.because}" for v in judged.views for w in v.looked_at if w.candidate.key == key
    ]
    because = judged.because if fits else "no input; " + "; ".join(against)
    return Told(name, False, False, f"{name}: {because}", because)


def _yes(looked: Any) -> bool:
    return bool(looked.outcome is Outcome.YES)


# --- judging


def _decided(
    tx: Connection, parts: Parts, known: Known, rule: Rule, since: datetime | None
) -> StudyJudgement:
    asked = asked_of(tx, known.study_uid, rule)
    return decide(
        rule, known.candidates_for(tx, parts, rule), Moment(parts.context(), since, asked, parts.study_memo)
    )


def _since(parts: Parts, row: Mapping[str, Any] | None) -> datetime | None:
    """Since when a rule waits; None where it begins to. A clock that was set back must not lengthen the wait."""
    if row is None or row["until"] is None:
        return None
    return min(row["since"], parts.now())


def _judge(
    tx: Connection,
    parts: Parts,
    known: Known,
    rule: Rule,
    replayed: tuple[int, str] = (0, ""),
    *,
    by_hand: bool = False,
) -> StudyJudgement:
    """Judge one rule and do what it says. *replayed*: the series that a person has judged again, and how."""
    row = studies.rule_row(tx, known.study_uid, rule.name)
    since = None if by_hand else _since(parts, row)
    judged = _decided(tx, parts, known, rule, since)
    if try_another(tx, parts, judged):
        judged = _decided(tx, parts, known, rule, since)
    if judged.asks and ask_for_priors(tx, parts, judged, known.study_uid):
        judged = _decided(tx, parts, known, rule, since)
    now = _Now(tx, parts, known, rule, row, since or parts.now())
    again = replayed[1] if _chose(judged, replayed[0]) else ""
    if now.is_over() and not again and not by_hand:
        studies.set_rule(tx, known.study_uid, rule.name, due_at=None)
    elif isinstance(judged.verdict, Ready):
        now.ready(judged, judged.verdict, again)
    elif isinstance(judged.verdict, Waiting):
        now.waiting(judged, judged.verdict)
    else:
        now.done_with(judged)
    return judged


def _chose(judged: StudyJudgement, key: int) -> bool:
    return any(w.candidate.key == key for view in judged.views for w in view.chosen)


@dataclass
class _Now:
    """One rule, one study, and what is to be done about them."""

    tx: Connection
    parts: Parts
    known: Known
    rule: Rule
    row: Mapping[str, Any] | None
    since: datetime
    """Since when it waits, where it does."""

    @property
    def again(self) -> str:
        """Whether better inputs count."""
        return self.rule.study.again if self.rule.study else "never"

    def is_over(self) -> bool:
        """The rule gave up for good: without `again: better_input` what comes later changes nothing."""
        return self.row is not None and self.row["state"] in _FINAL and self.again == "never"

    def _set(self, state: str, judged: StudyJudgement, **values: Any) -> bool:
        """Write down the state; whether that says something new."""
        row = self.row
        keeps = {"until": row["until"]} if row else {}
        values = {"since": self.since, **keeps, "due_at": None, **values}
        studies.set_rule(
            self.tx, self.known.study_uid, self.rule.name, state=state, reason=judged.because, **values
        )
        return row is None or (row["state"], row["reason"]) != (state, judged.because)

    def _say(self, name: str, words: str, judged: StudyJudgement) -> None:
        main = self.known.newest(judged)
        note(self.tx, self.parts.now(), name, f"{self.rule.name}: {words}", series_id=main)

    def waiting(self, judged: StudyJudgement, verdict: Waiting) -> None:
        """It waits, and the conductor looks again when the wait ends."""
        values = {"since": self.since, "until": verdict.until, "due_at": verdict.until}
        new = self._set(studies.WAITING, judged, **values)
        if new:
            self._say(
                "study_waiting", f"{judged.because}, until {verdict.until:%Y-%m-%d %H:%M:%S} UTC", judged
            )

    def done_with(self, judged: StudyJudgement) -> None:
        """It does not run: not its study, or given up. Results that rest on corrected images go, too."""
        if self.row is None and not isinstance(judged.verdict, Over):
            return  # never its study
        runs = self._runs()
        for older in runs:
            if older["state"] == RunState.DONE and not older["shadow"] and self._spoilt(older):
                why = f"images they were made from were corrected since, and nothing newer is made: {judged.because}"
                supersede(self.tx, self.parts, older, why)
        if not isinstance(judged.verdict, Over):
            self._set(studies.IDLE, judged, until=None)
            return
        what = judged.verdict.what
        if not self._set(what, judged):
            return
        if what == "quarantined":
            quarantine(self.tx, self.parts, self.known, judged, runs)
        self._say(f"study_{what}", judged.because, judged)

    def ready(self, judged: StudyJudgement, verdict: Ready, again: str) -> None:
        """Open a run for each combination that the rule has not run on."""
        runs = self._runs()
        turn = next_turn(runs)
        for combination in verdict.combinations:
            opening = Opening(self.tx, self.parts, self.known, judged, combination)
            last = next((r for r in runs if r["slot"] == combination.slot and not lacks_inputs(r)), None)
            if not again and last is not None and not self._is_due(last, opening):
                continue
            opening.open(turn, fresh=again == "fresh")
            opening.cancel(runs)
        self._set(studies.RAN, judged, until=None)

    def _runs(self) -> list[Mapping[str, Any]]:
        return studies.runs_of(self.tx, self.known.study_uid, self.rule.name)

    def _is_due(self, last: Mapping[str, Any], opening: Opening) -> bool:
        """Whether a combination is to be run though the rule ran before."""
        if last["inputs"] == opening.key and json.loads(last["files"]) == opening.files:
            return False
        if self._spoilt(last):
            return True
        return self.again == "better_input" and not studies.inputs_gone(self.tx, last["id"])

    def _spoilt(self, older: Mapping[str, Any]) -> bool:
        """Images that a run used were replaced by corrected ones, or rejected."""
        gone = (InstanceState.REPLACED, InstanceState.REJECTED)
        return any(self.known.gone.get(key) in gone for key in json.loads(older["files"]))
