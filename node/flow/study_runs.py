"""The runs that rules over a study open: which objects each takes, and what becomes of earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection

from node.flow.opening import sends_of
from node.flow.parts import Parts
from node.flow.study_series import Known
from node.model import RunState
from node.process.plan import plan_to_json
from node.route.rules import Rule
from node.route.study import Combination, Looked, StudyJudgement
from node.store import studies, work
from node.store.database import move, note
from node.store.schema import run

Rows = Sequence[Mapping[str, Any]]


def next_turn(runs: Rows) -> int:
    """The number of what a rule makes of a study next."""
    return 1 + max((row["turn"] for row in runs), default=0)


def lacks_inputs(row: Mapping[str, Any]) -> bool:
    """Whether a run over a study cannot begin: it was opened for a person, because a required input was missing."""
    if not row["inputs"] or row["withdraws"]:
        return False
    there = {name for name, _, _ in json.loads(row["inputs"])}
    return not there.issuperset(json.loads(row["plan"]).get("inputs", ()))


@dataclass(frozen=True)
class Opening:
    """One combination of inputs on its way to a run."""

    tx: Connection
    parts: Parts
    known: Known
    judged: StudyJudgement
    combination: Combination

    @property
    def _rule(self) -> Rule:
        return self.judged.rule

    @cached_property
    def _taken(self) -> dict[str, Looked]:
        """Input → what is taken of it, in the order of the plan: first the one that stands for the study."""
        taken = dict(self.combination.parts)
        order = self._rule.study.order if self._rule.study else ()
        return {name: taken[name] for name in order if name in taken}

    @cached_property
    def key(self) -> str:
        """The inputs as a run keeps them: name, revision and number of objects, in the order of its files."""
        return json.dumps([[name, one.candidate.key, len(one.used)] for name, one in self._taken.items()])

    @cached_property
    def files(self) -> list[int]:
        """The used objects of each input."""
        return [self.known.members[one.candidate.key][i] for one in self._taken.values() for i in one.used]

    @property
    def series_id(self) -> int:
        """The series that the run is listed under."""
        return next(iter(self._taken.values())).candidate.key

    def open(self, turn: int, *, fresh: bool = False) -> int | None:
        """A waiting run; None where nothing that is sent is left without the inputs that are missing."""
        rule, now = self._rule, self.parts.now()
        missing = [name for name in rule.input_names if name not in self._taken]
        required = any(v.input.name in missing and not v.input.optional for v in self.judged.views)
        plan = rule.plan() if required else rule.plan_without(missing, self.parts.specs)
        if plan is None:
            return None
        run_id = work.add_run(
            self.tx, series_id=self.series_id, rule=rule.name, plan=json.dumps(plan_to_json(plan)),
            sends=sends_of(self.tx, self.parts, rule), shadow=rule.shadow, files=json.dumps(self.files),
            retries=rule.retry, due_at=now, created_at=now, inputs=self.key,
            slot=self.combination.slot, turn=turn, fresh=fresh,
        )  # fmt: skip
        if run_id is not None:
            studies.add_inputs(self.tx, run_id, [one.candidate.key for one in self._taken.values()])
            self._note("run_opened", self.judged.because, run_id)
        return run_id

    def cancel(self, runs: Rows) -> None:
        """What waits of earlier turns is not run any more, nor what waited for a person because of missing inputs."""
        why = "a run over better inputs replaces it"
        for older in runs:
            lacked = older["state"] == RunState.QUARANTINED and lacks_inputs(older)
            waits = older["state"] == RunState.WAITING and older["slot"] == self.combination.slot
            if not (waits or lacked):
                continue
            states = (RunState.WAITING, RunState.QUARANTINED)
            if move(self.tx, run, older["id"], RunState.CANCELLED, expected=states, reason=why):
                note(
                    self.tx, self.parts.now(), "run_cancelled", why, series_id=older["series_id"], run_id=older["id"]
                )  # fmt: skip

    def quarantine(self, turn: int) -> None:
        """A run that waits for a person: with what is there, and without what is missing."""
        run_id = self.open(turn)
        if run_id is not None:
            why = self.judged.because
            move(
                self.tx, run, run_id, RunState.QUARANTINED, expected=(RunState.WAITING,), reason=why,
                finished_at=self.parts.now(),
            )  # fmt: skip
            self._note("run_quarantined", why, run_id)

    def _note(self, name: str, words: str, run_id: int) -> None:
        note(self.tx, self.parts.now(), name, words, series_id=self.series_id, run_id=run_id)


def quarantine(tx: Connection, parts: Parts, known: Known, judged: StudyJudgement, runs: Rows) -> None:
    """Show a person what is missing; where such a run stands already it says so anew."""
    standing = next((r for r in runs if r["state"] == RunState.QUARANTINED and lacks_inputs(r)), None)
    if standing is not None:
        same = (RunState.QUARANTINED,)
        move(tx, run, standing["id"], RunState.QUARANTINED, expected=same, reason=judged.because)
        return
    combination = Combination(tuple((v.input.name, v.chosen[0]) for v in judged.views if v.chosen))
    Opening(tx, parts, known, judged, combination).quarantine(next_turn(runs))
