"""What the results of a run say in plain values: its numbers for the database, and why others are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from node.model import WHOLE, Code, SeriesPart
from node.operator import Measurement, Picture, Remark, Report


def measured(results: Mapping[str, Any], part: SeriesPart = WHOLE) -> tuple[dict[str, Any], ...]:
    """Every number the steps made, whether it is sent or not: one plain mapping each."""
    return tuple(
        {
            "output": name,
            "name": _code(m.name),
            "value": float(m.value),
            "unit": _code(m.unit),
            "derivation": _code(m.derivation),
            "method": _code(m.method),
            "region": ", ".join(filter(None, (*_where(m), part.label))),
        }
        for name, result in results.items()
        for m in _numbers_of(result)
    )


def _numbers_of(result: object) -> Sequence[Measurement]:
    """The measurements of one result, none where it is something else."""
    found = result.measurements if isinstance(result, Report) else result if isinstance(result, list) else ()
    return [m for m in found if isinstance(m, Measurement)]


def lacking(results: Mapping[str, Any]) -> list[str]:
    """Why numbers of the reports, and curves of the pictures, are not there."""
    return [remark.text for result in results.values() for remark in _remarks_of(result) if remark.missing]


def _remarks_of(result: object) -> Sequence[Remark]:
    if isinstance(result, Picture):
        return tuple(result.facts.get("remarks", ()))
    return result.remarks if isinstance(result, Report) else ()


def _where(m: Measurement) -> Iterator[str]:
    """What was measured, in words: the region, else laterality and site."""
    if m.region is not None:
        yield m.region.label
    else:
        yield " ".join(code.meaning for code in (m.laterality, m.site) if code is not None)


def _code(code: Code | None) -> str:
    return "" if code is None else f"{code.value}^{code.scheme}^{code.meaning}"
