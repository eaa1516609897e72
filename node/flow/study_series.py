"""The series of a study as rules over studies judge them: what is sealed, what is arriving, what was fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from node.facts import Facts, gather
from node.flow.parts import Parts
from node.flow.remaining import without
from node.model import SeriesState
from node.route.aggregates import columns_of, narrowed
from node.route.rules import Rule
from node.route.study import Candidate, StudyJudgement
from node.route.weighing import barred
from node.store import intake, studies
from node.words import counted

_ALWAYS = frozenset(
    {
        "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "Modality",
    }
)  # fmt: skip
_MOST = 64
"""Series whose facts are remembered: those of a sealed revision never change."""
_GEOMETRY = frozenset({"slices", "has_tilt"})

Remembered = tuple[tuple[int, ...], Facts]


@dataclass
class Known:
    """One study."""

    study_uid: str
    own: tuple[Candidate, ...]
    members: dict[int, tuple[int, ...]]
    """`series.id` → the objects behind its facts, in their order."""
    gone: dict[int, str]
    """Objects that were replaced or rejected: id → state."""
    makers: Mapping[str, set[str]]
    """Series Instance UID of a result of ours → the rules that made it."""
    arriving: frozenset[str] = frozenset()
    """Series Instance UIDs of which a revision is open."""

    def candidates_for(self, tx: Connection, parts: Parts, rule: Rule) -> list[Candidate]:
        """What *rule* may take: not what it made itself, and the priors that were fetched for it."""
        own = [one for one in self.own if rule.name not in self.makers.get(one.series_uid, ())]
        if rule.study is None or all(one.prior is None for one in rule.study.inputs):
            return own
        wanted = {
            int(row["series_id"]): str(row["input"])
            for row in studies.priors_of(tx, self.study_uid, rule.name)
            if row["state"] == "fetched" and row["series_id"] is not None
        }
        if not wanted:
            return own
        found = studies.revisions(tx, list(wanted))
        for uid in {row["study_uid"] for row in found}:
            self.gone |= studies.not_valid(tx, uid)
        return own + [self.sealed(tx, parts, row, wanted[int(row["id"])]) for row in found]

    def sealed(self, tx: Connection, parts: Parts, row: Mapping[str, Any], prior_of: str = "") -> Candidate:
        """A sealed revision, without what was rejected since."""
        key = int(row["id"])
        members, facts = _remembered(tx, parts, key)
        gone = {i for i in members if i in self.gone}
        corrected = row["series_uid"] in self.arriving and any(self.gone[i] == "replaced" for i in gone)
        incomplete = row["incomplete"]
        if gone and not corrected:
            members, facts, incomplete = without(*intake.members_and_facts(tx, key), gone, incomplete)
        self.members[key] = members
        # A held one waits for a person; one with corrected objects for the revision that has the newer ones.
        held = row["held"] not in ("", intake.RELEASED)
        return Candidate(
            key, _title(row), row["series_uid"], row["series_number"], facts,
            bool(prior_of) or not (held or corrected), "made by a PACSNode" if row["ours"] else "", incomplete,
            prior_of, _patient(row), held=held, revision=row["revision"],
            barred=barred(parts.never, facts, parts.context()),
        )  # fmt: skip

    def newest(self, judged: StudyJudgement) -> int | None:
        """The series that stands for a study in an event: the first that is an input, or may be."""
        chosen = [w.candidate.key for v in judged.views if v.input.prior is None for w in v.chosen]
        return chosen[0] if chosen else next((c.key for c in self.own), None)


def known_study(tx: Connection, parts: Parts, study_uid: str) -> Known:
    """All that is known of a study."""
    rows = studies.series_of(tx, study_uid)
    made = studies.made_by(tx, study_uid) if any(row["ours"] for row in rows) else {}
    opened = frozenset(row["series_uid"] for row in rows if row["state"] == SeriesState.RECEIVING)
    known = Known(study_uid, (), {}, studies.not_valid(tx, study_uid), made, opened)
    newest: dict[str, Mapping[str, Any]] = {}
    arriving: list[Candidate] = []
    for row in rows:
        if row["state"] == SeriesState.RECEIVING:
            arriving.append(_arriving(parts, row))
        elif row["removed_at"] is None:
            newest[row["series_uid"]] = row
    known.own = (*(known.sealed(tx, parts, row) for row in newest.values()), *arriving)
    return known


def _arriving(parts: Parts, row: Mapping[str, Any]) -> Candidate:
    """An open revision, by what has come of it."""
    found = parts.assembly.series.get(int(row["id"]))
    facts = _gathered(found.members.values(), _names(parts)) if found else Facts(0)
    return Candidate(
        int(row["id"]), _title(row), row["series_uid"], row["series_number"], facts, False,
        "made by a PACSNode" if row["ours"] else "", "", "", _patient(row), revision=row["revision"],
    )  # fmt: skip


def _names(parts: Parts) -> frozenset[str]:
    """Every attribute that some rule over a study, or the site's `never_process`, asks for."""
    asked = (rule.attributes for rule in parts.rules.of_studies)
    return _ALWAYS.union(*asked, *(when.names() for when, _ in parts.never))


def _remembered(tx: Connection, parts: Parts, key: int) -> Remembered:
    """Members of a sealed revision, and what rules over studies ask of its facts."""
    names = _names(parts)
    known = parts.study_facts
    if (key, names) not in known:
        if len(known) >= _MOST:
            known.pop(next(iter(known)))
        members, facts = intake.members_and_facts(tx, key)
        known[key, names] = members, narrowed(facts, names)
    return known[key, names]


def _gathered(each: Iterable[Mapping[str, Any]], names: frozenset[str]) -> Facts:
    """Facts over what rules ask for only: an open series may hold thousands of images."""
    wanted = columns_of(names)
    inside = tuple(f"{name}[" for name in wanted if name.endswith("Sequence"))
    kept: Sequence[Mapping[str, Any]] = [
        {name: one[name] for name in wanted if name in one}
        | ({name: cell for name, cell in one.items() if name.startswith(inside)} if inside else {})
        for one in each
    ]
    return gather(kept)


def _title(row: Mapping[str, Any]) -> str:
    number = "" if row["series_number"] is None else f" {row['series_number']}"
    return f"series {row['id']} ({row['modality'] or '?'}{number}, {counted(row['instances'], 'object')})"


def _patient(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["patient_id"], row["issuer"]
