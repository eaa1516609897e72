"""Codes that the shipped operators report by: one meaning each, and one code for each meaning of ours."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from operator_cases import CASES

from node import operators
from node.operator import Code, Picture
from node.operators.codes import OURS, PRIVATE, private_code
from node.operators.nm.codes import site_of
from node.operators.nm.counts import count_qa
from node.operators.nm.sides import left_right
from node.operators.nm.uniformity import uniformity
from node.operators.pet.suv import KINDS
from node.operators.pet.uptake import at_least, of_maximum
from node.process import registry
from node.testing import flood_frames, lung_frames, nuclear_picture, run_operator

BECQUEREL = Code("Bq/ml", "UCUM", "Becquerels/milliliter")


def codes_in(value: Any, depth: int = 0) -> Iterator[Code]:
    """Every code that a value holds."""
    if isinstance(value, Code):
        yield value
    elif isinstance(value, Mapping):
        yield from codes_in([*value.keys(), *value.values()], depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from codes_in(one, depth + 1)
    elif is_dataclass(value) and not isinstance(value, type) and depth < 8:
        for field in fields(value):
            yield from codes_in(getattr(value, field.name), depth + 1)


def constants() -> Iterator[Code]:
    """Those that the operators' modules name."""
    for found in pkgutil.walk_packages(operators.__path__, f"{operators.__name__}."):
        yield from codes_in(list(vars(importlib.import_module(found.name)).values()))


def viewed(frames: Any, *views: str, called: str = "") -> Picture:
    """A scintigram whose views the camera calls as it likes."""
    made = nuclear_picture(frames, views)
    if not called:
        return made
    return Picture(
        made.array, made.unit, made.spacing, facts={**made.facts, "views": (called, "x")[: len(frames)]}
    )


def made_of_numbers_and_names() -> Iterator[Code]:
    """Those that depend on an option, on a region's name or on what the image says of its frames."""
    units = [kind.unit for kind in KINDS.values()] + [BECQUEREL, Code("g/ml{SUVlbm}", "UCUM", "SUVlbm")]
    for unit in units:
        yield from (at_least(limit, unit) for limit in (4.0, 2.5, 0.25, 41.0, 2500.0, 1234567.0, 12345670.0))
    yield from (of_maximum(share) for share in (41.0, 42.0, 50.0, 41.5, 41.1234, 1.23456e-5, 1.23457e-5))
    for name in (
        "sacrum",
        "knee joint",
        "kneejoint",
        "half time",
        "halftime",
        "ufov",
        "frame 1",
        "all frames",
        "left",
    ):
        yield site_of(name)[0]
    fronts = (
        viewed(lung_frames(), "anterior", "posterior"),
        viewed(lung_frames(), "anterior", "posterior", called="Von vorn"),
    )
    for picture in fronts:
        yield from codes_in(count_qa(picture))
        yield from codes_in(left_right(picture))
    floods = flood_frames()
    for frames, views in ((floods, ("",)), (np.repeat(floods, 2, axis=0), ("anterior", "posterior"))):
        yield from codes_in(uniformity(nuclear_picture(frames, views)))


def reported() -> Iterator[Code]:
    """Those in what every shipped operator makes that reports, or maps, or marks."""
    for name, (inputs, options) in CASES.items():
        if registry.specs()[name].returns not in ("Report", "Measurements", "Map", "Segments", "Mask"):
            continue
        given = inputs()
        given = given if isinstance(given, tuple) else (given,)
        yield from codes_in(run_operator(registry.load(name), *given, **options))


@pytest.fixture(scope="module")
def every() -> list[Code]:
    """All of them."""
    return [*constants(), *made_of_numbers_and_names(), *reported()]


def test_no_code_has_two_meanings(every: list[Code]) -> None:
    """Of whatever scheme: one value is one thing, spelt one way."""
    meanings = defaultdict(set)
    for code in every:
        meanings[code.value, code.scheme].add(code.meaning)
    assert {key: said for key, said in meanings.items() if len(said) > 1} == {}
    assert len(meanings) > 100


def test_no_meaning_of_ours_has_two_codes(every: list[Code]) -> None:
    """Nor does a private code repeat in words what a standard one says."""
    values = defaultdict(set)
    for code in every:
        values[code.meaning.casefold()].add((code.value, code.scheme))
    ours = {meaning for meaning, codes in values.items() if any(scheme == PRIVATE for _, scheme in codes)}
    assert {meaning: values[meaning] for meaning in ours if len(values[meaning]) > 1} == {}
    assert len(ours) > 40


def test_private_codes_stand_in_one_table(every: list[Code]) -> None:
    """What a module names as a constant is in the table that keeps them apart; lengths are what DICOM allows."""
    private = {code for code in constants() if code.scheme == PRIVATE}
    assert private == set(OURS.values())
    assert all(0 < len(code.meaning) <= 64 for code in every)
    assert all(len(code.value) <= 16 for code in every if code.scheme == PRIVATE and code.value not in OURS)


def test_a_code_made_of_its_meaning_changes_with_it() -> None:
    """Two meanings under one stem are two values, the same one always the same, and none looks like a fixed one."""
    one, other = private_code("FRAME1", "Frame 1: anterior"), private_code("FRAME1", "Frame 1: posterior")
    assert one.value != other.value
    assert one == private_code("FRAME1", "Frame 1: anterior")
    assert "-" in one.value and not any("-" in value for value in OURS)
