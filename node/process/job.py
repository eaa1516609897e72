"""What crosses the border of the worker process, as JSON: Job in, Exit and operator specs out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from node.model import Exit, Issued, Job, OperatorSpec, Parameter, Product, Provenance, RunState
from node.process.plan import plan_from_json

JOB_FILE = "job.json"
"""Written by the conductor into the attempt's folder."""
EXIT_FILE = "products.json"
"""Written by the worker when it has ended in an orderly way; complete or absent."""
PROGRESS_FILE = "progress.txt"
"""What the worker is doing now, in words; read after a crash."""
ERROR_FILE = "error.txt"
"""The traceback of an operator that failed."""
LOG_FILE = "worker.log"
"""What operators printed, and the stack of a crash."""


def job_to_json(job: Job) -> dict[str, Any]:
    """Plain values; `job_from_json` gives back an equal Job."""
    data = asdict(job)
    data["provenance"]["first_run_at"] = job.provenance.first_run_at.isoformat()
    return data


def job_from_json(data: Mapping[str, Any]) -> Job:
    """The inverse of `job_to_json`. Raises KeyError or TypeError for anything else."""
    provenance = dict(data["provenance"])
    provenance["first_run_at"] = datetime.fromisoformat(provenance["first_run_at"])
    return Job(
        run=data["run"],
        plan=plan_from_json(data["plan"]),
        provenance=Provenance(**provenance),
        files=tuple(data["files"]),
        inherited_timezone=data["inherited_timezone"],
        revision=data["revision"],
        predecessors=tuple(Issued(**issued) for issued in data["predecessors"]),
        withdraws=tuple(Issued(**issued) for issued in data["withdraws"]),
        why=data["why"],
        inputs=dict(data["inputs"]),
    )


def exit_to_json(ended: Exit) -> dict[str, Any]:
    """Plain values; `exit_from_json` gives back an equal Exit."""
    return {
        "state": ended.state.value,
        "reason": ended.reason,
        "products": [asdict(product) for product in ended.products],
        "measurements": [dict(measurement) for measurement in ended.measurements],
    }


def exit_from_json(data: Mapping[str, Any]) -> Exit:
    """The inverse of `exit_to_json`. Raises KeyError, TypeError or ValueError for anything else."""
    return Exit(
        state=RunState(data["state"]),
        reason=data["reason"],
        products=tuple(Product(**product) for product in data["products"]),
        measurements=tuple(dict(measurement) for measurement in data["measurements"]),
    )


def spec_to_json(spec: OperatorSpec) -> dict[str, Any]:
    """Plain values; `spec_from_json` gives back an equal OperatorSpec."""
    return asdict(spec)


def spec_from_json(data: Mapping[str, Any]) -> OperatorSpec:
    """The inverse of `spec_to_json`. Raises KeyError or TypeError for anything else."""
    plain = {field.name: data[field.name] for field in fields(OperatorSpec)}
    for kind in ("inputs", "options"):
        plain[kind] = tuple(_parameter(p) for p in plain[kind])
    return OperatorSpec(**plain)


def _parameter(data: Mapping[str, Any]) -> Parameter:
    return Parameter(**{**data, "choices": tuple(data["choices"])})
