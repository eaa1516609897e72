"""Claims about words and numbers for people."""

from __future__ import annotations

import pytest

from node.words import counted, first_few, legible, unit_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.63727807998657, "6.63728"), (39585.6129987076, "39585.6"), (1276202824136.44, "1276202824136"),
        (2317505.0, "2317505"), (-0.000123456789, "-0.000123457"), (51870.0, "51870"), (0.0, "0"),
        (1.23456789e-123, "1.23457e-123"), (-9.87654321e300, "-9.87654321e+300"), (0.1 + 0.2, "0.3"),
    ],
)  # fmt: skip
def test_a_number_reads_well_and_loses_nothing(value: float, text: str) -> None:
    """Six digits, all before the point, at most sixteen characters; what was rounded is within six digits of it."""
    assert legible(value) == text
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=5.1e-6)


def test_of_many_the_first_are_said_and_the_rest_counted() -> None:
    """Three and how many more; a lone fourth is said."""
    assert first_few(["a", "b", "c", "d"], "rules") == "a; b; c; d"
    assert first_few(["a", "b", "c", "d", "e"], "rules") == "a; b; c; and 2 more rules"


def test_hounsfield_units_are_called_as_people_call_them() -> None:
    """Alone and within another unit."""
    assert (unit_words("[hnsf'U]"), unit_words("mg/(ml.[hnsf'U])"), unit_words("mm3")) == (
        "HU",
        "mg/(ml.HU)",
        "mm3",
    )


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [
        (1, "object", "1 object"), (0, "object", "0 objects"), (2, "run", "2 runs"),
        (1, "delivery", "1 delivery"), (3, "delivery", "3 deliveries"), (2, "series", "2 series"),
    ],
)  # fmt: skip
def test_one_is_one(count: int, thing: str, said: str) -> None:
    """One of a thing is singular, none and several are plural, whatever its plural looks like."""
    assert counted(count, thing) == said
