"""want: which earlier studies the rules of a study ask for, and what becomes of what was fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from node.facts import Facts
from node.flow.parts import Parts
from node.route.priors import earliest, no_prior, patient_of
from node.route.rules import Rule
from node.route.study import Asked, Candidate, StudyJudgement, View
from node.store import studies
from node.store.database import note

_MOST_TRIED = 3
"""Series that are fetched for one input; where none of them fits, there is no prior."""


def asked_of(tx: Connection, study_uid: str, rule: Rule) -> dict[str, Asked]:
    """Input → how far its prior is."""
    if rule.study is None or all(one.prior is None for one in rule.study.inputs):
        return {}
    rows = studies.priors_of(tx, study_uid, rule.name)
    return {row["input"]: Asked(row["state"], row["reason"]) for row in rows}


def ask_for_priors(tx: Connection, parts: Parts, judged: StudyJudgement, study_uid: str) -> bool:
    """Write down what is to be asked for; whether something was."""
    main = next((w.candidate for v in judged.views if v.input.prior is None for w in v.chosen), None)
    if main is None:
        return False
    wanted = [view for view in judged.views if view.input.name in judged.asks]
    for view in wanted:
        _want(tx, parts, judged.rule, view, (study_uid, main))
    return bool(wanted)


def _want(tx: Connection, parts: Parts, rule: Rule, view: View, of: tuple[str, Candidate]) -> None:
    study_uid, main = of
    said = _said(main.facts)
    patient, prior = patient_of(said), view.input.prior
    if prior is None:
        return
    day = _first(said, "StudyDate")
    if not re.fullmatch(r"[0-9]{8}", day) or not "0101" <= day[4:] <= "1231":
        day = parts.now().astimezone(ZoneInfo(parts.settings.node.timezone)).strftime("%Y%m%d")
    why = no_prior(patient)
    values: dict[str, Any] = {"finished_at": parts.now()} if why else {}
    studies.want_prior(
        tx, study_uid=study_uid, rule=rule.name, input=view.input.name, peer=prior.at,
        state="none" if why else "wanted", reason=why, patient=patient.as_json(), study_date=day,
        study_time=_first(said, "StudyTime")[:16], from_date=_from(view, day), due_at=parts.now(),
        created_at=parts.now(), **values,
    )  # fmt: skip
    name, words = (
        ("prior_none", why) if why else ("prior_wanted", f"{prior.at} is asked for an earlier study")
    )
    detail = f"{rule.name}, input {view.input.name}: {words}"
    note(tx, parts.now(), name, detail, series_id=main.key, destination=prior.at)


def _from(view: View, day: str) -> str:
    try:
        return earliest(view.input, day)
    except ValueError:  # a date that the calendar does not have
        return earliest(view.input, f"{day[:6]}01")


def _said(facts: Facts) -> dict[str, Any]:
    return {name: cell for name in facts.columns if facts.size and (cell := facts.cell(name, 0)) is not None}


def _first(said: Mapping[str, Any], keyword: str) -> str:
    cell = said.get(keyword)
    return str(cell[0][0]).strip(" \0") if cell and cell[0] else ""


def try_another(tx: Connection, parts: Parts, judged: StudyJudgement) -> bool:
    """What was fetched does not fit in full: the next one is asked for; whether there was such a one."""
    changed = False
    for view in judged.views:
        unfit = next((w for w in view.looked_at if w.candidate.prior_of == view.input.name), None)
        if view.input.prior is None or view.chosen or unfit is None:
            continue
        for row in studies.priors_of(tx, _study_of(tx, judged), judged.rule.name):
            if row["input"] == view.input.name and row["series_id"] == unfit.candidate.key:
                _not_this(tx, parts, row, unfit.candidate, unfit.because)
                changed = True
    return changed


def _study_of(tx: Connection, judged: StudyJudgement) -> str:
    own = next(w.candidate.key for v in judged.views if v.input.prior is None for w in v.looked_at)
    (row,) = studies.revisions(tx, [own])
    return str(row["study_uid"])


def _not_this(tx: Connection, parts: Parts, row: Mapping[str, Any], unfit: Candidate, because: str) -> None:
    tried = [*json.loads(row["tried"]), unfit.series_uid]
    over = len(tried) >= _MOST_TRIED
    why = (
        f"{len(tried)} fetched, and none fits: {because}"
        if over
        else f"{unfit.title} does not fit: {because}"
    )
    studies.set_prior(
        tx, row["id"], state="none" if over else "wanted", reason=why, tried=json.dumps(tried), series_id=None,
        due_at=parts.now(), finished_at=parts.now() if over else None,
    )  # fmt: skip
    note(
        tx, parts.now(), "prior_unfit", f"{row['rule']}, input {row['input']}: {why}", series_id=unfit.key,
        destination=row["peer"],
    )  # fmt: skip
