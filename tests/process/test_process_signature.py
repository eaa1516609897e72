"""The signature is the contract: what it says becomes a spec, what it lacks a sentence."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from node.errors import Misconfigured
from node.model import Exit, Job, Output, Parameter, Plan, Product, Provenance, RunState, Step
from node.operator import HU, Mask, Measurement, Mm, Number, Unit, Volume
from node.process import registry
from node.process.job import (
    exit_from_json,
    exit_to_json,
    job_from_json,
    job_to_json,
    spec_from_json,
    spec_to_json,
)
from node.process.signature import spec_of


def good(
    volume: Volume,
    mask: Mask | None = None,
    *,
    below: HU = -950,
    size: Mm | None = None,
    dose: Annotated[float, Unit("mGy")] = 1.5,
    level: Number,
    times: int = 3,
    mode: Literal["a", "b"] = "a",
    name: str = "x",
    fast: bool = False,
) -> list[Measurement]:
    """Share of voxels.

    More words.
    """
    return []


def test_every_kind_of_parameter_is_read() -> None:
    """Inputs, units, choices, defaults, optional and required ones come out as written, and survive JSON."""
    spec = spec_of("acme.good", good, "acme", "1.0")
    assert spec.summary == "Share of voxels."
    assert spec.returns == "Measurements"
    assert spec.inputs == (Parameter("volume", "Volume"), Parameter("mask", "Mask", required=False))
    assert spec.options == (
        Parameter("below", "number", "[hnsf'U]", -950, False),
        Parameter("size", "number", "mm", None, False),
        Parameter("dose", "number", "mGy", 1.5, False),
        Parameter("level", "number", "", None, True),
        Parameter("times", "integer", "", 3, False),
        Parameter("mode", "text", "", "a", False, ("a", "b")),
        Parameter("name", "text", "", "x", False),
        Parameter("fast", "yes/no", "", False, False),
    )
    assert spec_from_json(spec_to_json(spec)) == spec


def _no_input(a) -> Mask: ...  # type: ignore[no-untyped-def,empty-body]
def _no_return(v: Volume): ...  # type: ignore[no-untyped-def]
def _odd_return(v: Volume) -> dict[str, int]: ...  # type: ignore[empty-body]
def _bare(v: Volume, *, level=3) -> Mask: ...  # type: ignore[no-untyped-def,empty-body]
def _odd_option(v: Volume, *, level: list[int]) -> Mask: ...  # type: ignore[empty-body]
def _option_as_input(v: Volume, level: float) -> Mask: ...  # type: ignore[empty-body]
def _stars(*volumes: Volume, **options: float) -> Mask: ...  # type: ignore[empty-body]
def _wrong_default(v: Volume, *, level: Mm = "thick") -> Mask: ...  # type: ignore[empty-body,assignment]
def _none_default(v: Volume, *, level: Mm = None) -> Mask: ...  # type: ignore[empty-body,assignment]
def _odd_choice(v: Volume, *, mode: Literal["a"] = "b") -> Mask: ...  # type: ignore[empty-body,assignment]
def _nothing() -> Mask: ...  # type: ignore[empty-body]
def _unknown(v: Nowhere) -> Mask: ...  # type: ignore[name-defined,empty-body]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_no_input, "annotation of a is missing"),
        (_no_return, "return annotation is missing"),
        (_odd_return, "returns dict[str, int]; known are Volume, Stack, Mask, FractionalMask, Segments, "),
        (_bare, "annotation of level is missing"),
        (_odd_option, "option level is list[int]; known are HU, Mm"),
        (_option_as_input, "Recording, Tiles, Document; options come after `*`"),
        (_stars, "it takes *volumes"),
        (_wrong_default, "default 'thick' of option level is no number"),
        (_none_default, "default None of option level is no number"),
        (_odd_choice, "default 'b' of option mode"),
        (_nothing, "takes no input"),
        (_unknown, "annotations cannot be read: name 'Nowhere'"),
        (7, "7 is not a function"),
    ],
)
def test_each_mistake_has_a_sentence_naming_the_operator(function: Any, words: str) -> None:
    """Whatever a signature lacks is said at load, with the operator's name."""
    with pytest.raises(Misconfigured) as error:
        spec_of("acme.x", function)
    assert words in str(error.value)
    assert all(m.startswith("operator acme.x: ") for m in error.value.mistakes)


def test_all_mistakes_are_named_at_once() -> None:
    """Two mistakes give two sentences."""

    def bad(v, *, level): ...  # type: ignore[no-untyped-def]

    with pytest.raises(Misconfigured) as error:
        spec_of("acme.x", bad)
    assert len(error.value.mistakes) == 3


class _Point(EntryPoint):
    """An entry point of a distribution that is not installed."""

    @property
    def dist(self) -> Any:
        """What `importlib.metadata` would find."""
        return type("Dist", (), {"name": vars(self)["owner"], "version": "2.0"})()


def point(name: str, value: str, owner: str) -> EntryPoint:
    """An entry point *name* of *owner*."""
    made = _Point(name, value, registry.GROUP)
    vars(made)["owner"] = owner
    return made


def test_a_broken_plugin_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that exits, a lost function, a dotless name, a name twice: sentences; the rest works."""
    (tmp_path / "acme_exits.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry.discover(
        [
            point("reformat", "node.operators.reformat:reformat", "pacsnode"),
            point("acme.exits", "acme_exits:f", "acme"),
            point("acme.lost", "node.operators.reformat:gone", "acme"),
            point("bare", "node.operators.reformat:reformat", "acme-tools"),
            point("acme.twice", "node.operators.reformat:reformat", "acme"),
            point("acme.twice", "node.operators.segment:segment_body", "other"),
            point("acme.same", "node.operators.segment:segment_body", "acme"),
            point("acme.same", "node.operators.segment:segment_body", "acme"),
        ]
    )
    assert sorted(found.specs) == ["acme.same", "reformat"]
    said = "\n".join(found.mistakes)
    assert "operator acme.exits (acme_exits:f) cannot be imported: SystemExit: 1" in said
    assert "operator acme.lost (node.operators.reformat:gone) cannot be imported: AttributeError" in said
    assert "register it as acme_tools.bare" in said
    assert "operator acme.twice is registered 2 times, by acme, other" in said
    assert len(found.mistakes) == 4


def test_the_shipped_operators_are_found_without_mistakes() -> None:
    """The four operators of this package are installed, and `load` gives the function itself."""
    from node.operators.statistics import statistics

    assert {"reformat", "segment_threshold", "segment_body", "statistics"} <= set(registry.specs())
    assert registry.load("statistics") is statistics
    with pytest.raises(Misconfigured, match="did you mean statistics"):
        registry.load("statistic")


def test_job_and_exit_survive_json() -> None:
    """What crosses the process border comes back equal."""
    import json
    from datetime import UTC, datetime

    step = Step(
        "reformat", {"volume": "received"}, {"thickness": 5.0, "plane": "axial", "fast": True}, "thick"
    )
    plan = Plan("ct", "ab", (step,), (Output("thick", 1, {"SeriesDescription": "{SeriesDescription} 5mm"}),))
    made = Provenance(
        "ff", datetime(2026, 1, 2, tzinfo=UTC), "PACSNode 1", "PACSNODE", {"thick": 301}, {"r": "1"}
    )
    job = Job(7, plan, made, ("/a.dcm", "/b.dcm"), "Europe/Berlin")
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job
    product = Product("thick", 1, "image", "thick/1.dcm", "1.2", "1.3", "1.4", "1.5", "dd")
    ended = Exit(RunState.DONE, "", (product,), ({"name": "a^b^c", "value": 1.5},))
    assert exit_from_json(json.loads(json.dumps(exit_to_json(ended)))) == ended
