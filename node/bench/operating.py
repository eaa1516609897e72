"""What operators take over a large CT and a large PET: beside the bare library calls, in time and in memory.

Each round of each case is a process of its own, ours and the bare one in turn, with as many threads: ours is the
worker's own road over real files, reading and writing included, of which the steps are timed one by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node import app
from node.bench import bare
from node.bench.bare_regions import LEVEL
from node.bench.operated import MODALITIES, write
from node.bench.peers import clean
from node.bench.tell import Answered, Say, Verdict
from node.derive.identity import identity
from node.engine import write_job
from node.errors import Broken
from node.flow import NODE_MAJOR, SOFTWARE, Started
from node.model import Job, OperatorSpec, Provenance
from node.route.rules import parse_rules

RATIO, MEMORY = 1.3, 3.0
"""The budget: times the bare calls, and times the volume's bytes."""
HOW = (
    "each round of each case is a worker's run over files on disk, beside pydicom, numpy, SciPy and SimpleITK alone "
    "in a process of their own; as many threads as cores; ratios are of processor time, memory is what a run adds to "
    "a waiting worker"
)
_WITHIN = 1200.0
_RULE = """\
rule: bench-{name}
purpose: It is measured.
owner: bench@localhost
when: {{Modality: {modality}}}
do:
{steps}
send:
  - {{what: {last}, to: PACS}}
"""


@dataclass(frozen=True)
class Case:
    """Steps over one series, each with its bare calls under the same name."""

    name: str
    series: str
    """ct, chest, pet or mr."""
    steps: Mapping[str, str] = field(default_factory=dict)
    """Operator → its options as a rule writes them, in order."""
    told_elsewhere: Sequence[str] = ()
    """Steps that others need, whose figures stand with another case, or are those of any first step: a comparison takes
    ten milliseconds, the first look at a matrix in a process as long again."""

    @property
    def rule(self) -> str:
        """As a rule file."""
        lines = [f"  - {operator}: {options}\n    as: {operator}" for operator, options in self.steps.items()]
        return _RULE.format(
            name=self.name.replace("_", "-"), modality=MODALITIES[self.series],
            steps="\n".join(lines), last=list(self.steps)[-1],
        )  # fmt: skip


_BODY = {"segment_body": "{}"}
_LEVEL = f"{{at_least: {LEVEL}}}"
_HOT = f"{{mask: segment_threshold, threshold: {LEVEL}}}"
CASES = (
    Case("reformat", "ct", {"reformat": "{plane: coronal, thickness: 5 mm, every: 5 mm, combine: mean}"}),
    Case("mip", "ct", {"mip": "{plane: coronal}"}),
    Case("mip_rotating", "ct", {"mip_rotating": "{views: 12, spacing: 2 mm}"}),
    Case("statistics", "ct", {**_BODY, "statistics": "{mask: segment_body}"}),
    Case("first_order", "ct", {**_BODY, "first_order": "{mask: segment_body}"}, ("segment_body",)),
    Case("histogram", "ct", {**_BODY, "histogram": "{mask: segment_body}"}, ("segment_body",)),
    Case("lungs", "chest", {"segment_lungs": "{}", "emphysema": "{segments: segment_lungs}"}),
    Case("smooth", "ct", {"smooth": "{width: 6 mm}"}),
    Case("suv", "pet", {"suv": "{}"}),
    Case("uptake", "pet", {"segment_threshold": _LEVEL, "uptake": _HOT}, ("segment_threshold",)),
    Case("mip_rotating_pet", "pet", {"mip_rotating": "{views: 12, spacing: 2 mm}"}),
    Case("n4", "mr", {"n4": "{}"}),
)


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    rounds: int
    ct: int
    pet: int
    mr: int
    """Slices; 0 leaves the series out."""
    only: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """What is said of it."""

    answered: list[Answered]
    verdicts: list[Verdict]


def measure(folder: Path, asked: Asked, say: Say) -> Found:
    """Every case in turn, *asked.rounds* times; series and results below *folder*."""
    specs = app.operator_specs()
    written: dict[str, tuple[list[Path], int]] = {}
    answered: list[Answered] = []
    verdicts: list[Verdict] = []
    read: set[str] = set()
    for case in CASES:
        slices = {"ct": asked.ct, "chest": asked.ct, "pet": asked.pet, "mr": asked.mr}[case.series]
        if not slices or (asked.only and case.name not in asked.only):
            continue
        if case.series not in written:
            say(f"writing {slices} slices of a {case.series.upper()}")
            written[case.series] = write(folder / case.series, case.series, slices)
        files, voxels = written[case.series]
        ours: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for number in range(1, asked.rounds + 1):
            say(f"{case.name} over {slices} slices, round {number} of {asked.rounds}")
            theirs.append(_bare(case, files))
            ours.append(_ours(folder / f"{case.name}-{number}", case, files, specs))
        told = _told(case, slices, voxels * 4, ours, theirs, reading=case.series not in read)
        read.add(case.series)
        answered += told.answered
        verdicts += told.verdicts
    return Found(answered, verdicts)


def _ours(
    folder: Path, case: Case, files: Sequence[Path], specs: Mapping[str, OperatorSpec]
) -> dict[str, Any]:
    (rule,) = parse_rules({"bench.yaml": case.rule}, specs, {"PACS": True}).rules
    plan = rule.plan()
    assert plan is not None  # noqa: S101 - it has steps
    made_by = Provenance(
        identity(["bench"], plan.meaning, {}, NODE_MAJOR, 0), datetime.now(UTC), SOFTWARE, "PACSNODE",
        {output.name: 9000 + output.index for output in plan.outputs},
    )  # fmt: skip
    write_job(Started(1, 1, folder, Job(1, plan, made_by, tuple(map(str, files)), "UTC")))
    found: dict[str, Any] = _child("node.bench.working", str(folder))
    return found


def _bare(case: Case, files: Sequence[Path]) -> dict[str, Any]:
    found: dict[str, Any] = _child("node.bench.bare", ",".join(case.steps), given=list(map(str, files)))
    return found


def _child(module: str, *words: str, given: Any = None) -> Any:
    """Run *module* with one process's threads = cores; its line of JSON. Raises Broken with the end of what it said."""
    count = str(os.cpu_count() or 1)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    done = subprocess.run(
        [sys.executable, "-m", module, *words], input=json.dumps(given), capture_output=True, text=True,
        timeout=_WITHIN, check=False, env=clean(os.environ, **dict.fromkeys(names, count)),
    )  # fmt: skip
    if done.returncode:
        raise Broken(f"{module} {words[0]} ended with {done.returncode}: {done.stderr[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _told(
    case: Case,
    slices: int,
    size: int,
    ours: Sequence[Mapping[str, Any]],
    theirs: Sequence[Mapping[str, Any]],
    *,
    reading: bool,
) -> Found:
    """The figures of one case.

    The ratios are of processor time, and the best of the rounds counts: what others do on this machine is not to.
    """
    what = f"{slices} slices of a {case.series.upper()}"
    told = [
        *(["reading"] if reading else []),
        *(step for step in case.steps if step not in case.told_elsewhere),
    ]
    answered, verdicts = [], []
    for name in told:
        for whose, rounds in (("", ours), (": the bare calls", theirs)):
            answered.append(Answered(f"{name}, {what}{whose}", [one["seconds"][name] for one in rounds]))
        mine, bares = (min(one["cpu"][name] for one in rounds) for rounds in (ours, theirs))
        verdicts.append(Verdict(f"{name}, {what}, × the bare calls (CPU)", mine / bares, most=RATIO))
    highest = min(ours, key=lambda one: one["peak"])
    where = max(highest["peaks"], key=lambda name: highest["peaks"][name])
    peak = (highest["peak"] - highest["idle"]) / size
    verdicts.append(Verdict(f"{case.name}, {what}, most memory × the volume ({where})", peak, most=MEMORY))
    opened = max(one["opened"] for one in ours)
    verdicts.append(Verdict(f"{case.name}, {what}, times each file is opened", float(opened), most=1.0))
    return Found(answered, verdicts)


NAMES = tuple(case.name for case in CASES)
assert all(step in bare.CASES for case in CASES for step in case.steps)  # noqa: S101
