"""Rules over studies, over files on disk, without a node: the same decisions, and the same job for a worker."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.derive.identity import identity
from node.dryrun import Found, Never, Place, context_of, number_of, title
from node.engine import write_job
from node.errors import Misconfigured
from node.flow import NODE_MAJOR, SOFTWARE, Started, number_series
from node.model import Exit, Job, OperatorSpec, Provenance
from node.process.supervise import Spares, supervise
from node.route.aggregates import Context
from node.route.rules import Rule
from node.route.study import Asked, Candidate, Combination, Moment, Ready, StudyJudgement, decide
from node.words import counted


@dataclass(frozen=True)
class ProcessedStudy:
    """What a rule over a study made of one; of several combinations, one each."""

    title: str
    judged: StudyJudgement
    ended: Exit | None
    """None where the rule does not run on it."""
    folder: Path = Path()
    """Where its results are."""


def candidates(found: Found, never: Never = ()) -> dict[str, list[Candidate]]:
    """Study Instance UID → its series as rules over studies judge them; all of them count as complete."""
    studies: dict[str, list[Candidate]] = {}
    for key, one in enumerate(found.series):
        context = context_of(one, "UTC", datetime.now(UTC), never)
        patient = (one.say("PatientID"), one.say("IssuerOfPatientID"))
        candidate = Candidate(
            key, title(one), one.series_uid, number_of(one), one.facts(), True, context.ours, context.incomplete, "",
            patient, barred=context.barred,
        )  # fmt: skip
        studies.setdefault(one.study_uid, []).append(candidate)
    return studies


def explain_studies(
    rules: Sequence[Rule], found: Found, timezone: str, now: datetime, never: Never = ()
) -> list[tuple[str, int, tuple[StudyJudgement, ...]]]:
    """What the rules over studies say of each study among the files, when nothing more comes of it: title, objects."""
    of_studies = [rule for rule in rules if rule.study is not None]
    return [
        (
            study_title(series),
            sum(one.facts.size for one in series),
            tuple(_decided(rule, series, timezone, now) for rule in of_studies),
        )
        for series in candidates(found, never).values()
        if of_studies
    ]


def _decided(rule: Rule, series: Sequence[Candidate], timezone: str, now: datetime) -> StudyJudgement:
    inputs = rule.study.inputs if rule.study is not None else ()
    unasked = Asked("none", "a dry run asks for no earlier studies")
    priors = {one.name: unasked for one in inputs if one.prior is not None}
    return decide(rule, series, Moment(Context(now, timezone), None, priors))


def process_study(
    rule: Rule, specs: Mapping[str, OperatorSpec], found: Found, place: Place
) -> list[ProcessedStudy]:
    """Run a rule over a study on each study it matches; results to `<out>/<rule>/study-<n>[-<m>]/`."""
    studies = candidates(found)
    spares = Spares(place.limits, size=1 if len(studies) > 1 else 0)
    now = datetime.now(UTC)
    done = []
    try:
        for number, series in enumerate(studies.values(), 1):
            judged = _decided(rule, series, place.timezone, now)
            head = study_title(series)
            combinations = judged.verdict.combinations if isinstance(judged.verdict, Ready) else ()
            for again, combination in enumerate(combinations, 1):
                name = f"study-{number}" + (f"-{again}" if len(combinations) > 1 else "")
                folder = (place.out / rule.name / name).resolve()
                if folder.exists():
                    shutil.rmtree(folder)
                job = _job_over(rule, specs, found, combination, place)
                write_job(Started(number, 1, folder, job))
                done.append(ProcessedStudy(head, judged, supervise(folder, spares), folder))
            if not combinations:
                done.append(ProcessedStudy(head, judged, None))
    finally:
        spares.close()
    return done


def study_title(series: Sequence[Candidate]) -> str:
    """A study in a line, without its patient."""
    return f"study of {counted(len(series), 'series')}"


def _job_over(
    rule: Rule, specs: Mapping[str, OperatorSpec], found: Found, combination: Combination, place: Place
) -> Job:
    """As the node would make it, of several series."""
    taken = dict(combination.parts)
    plan = rule.plan_without([name for name in rule.input_names if name not in taken], specs)
    if plan is None:
        raise Misconfigured(f"rule {rule.name}: nothing that is sent is left without what is missing")
    main = found.series[taken[plan.inputs[0]].candidate.key]
    used = [(name, found.series[taken[name].candidate.key], taken[name].used) for name in plan.inputs]
    digests = [
        f"{place_of}:{one.headers[i].digest}" for place_of, (_, one, picks) in enumerate(used) for i in picks
    ]
    versions = {step.operator: specs[step.operator].version for step in plan.steps}
    provenance = Provenance(
        identity=identity(digests, plan.meaning, versions, NODE_MAJOR, 0), first_run_at=datetime.now(UTC),
        software=SOFTWARE, device="PACSNODE",
        series_numbers=number_series(plan, number_of(main), (), main.facts()), operators=versions,
        notice=place.notice,
    )  # fmt: skip
    files = tuple(str(one.paths[i].resolve()) for _, one, picks in used for i in picks)
    counts = {name: len(picks) for name, _, picks in used}
    return Job(1, plan, provenance, files, place.timezone, inputs=counts)
