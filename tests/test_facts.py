"""Claims about facts: columns over instances keep exactly what each instance said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from math import cos, radians, sin, tan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.facts import Facts, Gathering, Seen, gather, stacks
from node.model import Cell

names = st.sampled_from(["Modality", "ImageType", "b_value", "(0019,xx0C) X"])
values = st.lists(st.text(max_size=3), max_size=3).map(tuple)
cells = st.lists(values, min_size=1, max_size=3).map(tuple)
instances = st.lists(st.dictionaries(names, cells), max_size=8)


@given(instances)
def test_each_instance_gets_back_what_it_said(said: list[Mapping[str, Cell]]) -> None:
    """Gathering loses nothing: cell by cell, and None where an instance lacks the attribute."""
    facts = gather(said)
    assert facts.size == len(said)
    for i, attributes in enumerate(said):
        for name in ("Modality", "ImageType", "b_value", "(0019,xx0C) X"):
            assert facts.cell(name, i) == attributes.get(name)


@given(instances)
def test_facts_survive_json(said: list[Mapping[str, Cell]]) -> None:
    """To JSON text and back gives an equal value."""
    facts = gather(said)
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@given(instances)
def test_facts_of_before_can_be_read(said: list[Mapping[str, Cell]]) -> None:
    """Series sealed by an earlier version hold a list of rows for every column: it means the same."""
    facts = gather(said)
    older = {"size": facts.size, "columns": {n: [c.cells, c.rows] for n, c in facts.columns.items()}}
    assert Facts.from_json(json.loads(json.dumps(older))) == facts


@given(instances, instances)
def test_facts_that_grow_are_those_gathered_at_once(
    first: list[Mapping[str, Cell]], more: list[Mapping[str, Cell]]
) -> None:
    """Asked for in between or not, instance by instance or all together: the same facts, and the older ones stay."""
    growing = Gathering(first)
    before = growing.facts()
    for attributes in more:
        growing.add(attributes)
    assert growing.facts() == gather([*first, *more])
    assert before == gather(first)


@given(instances)
def test_what_is_remembered_is_not_handed_on(said: list[Mapping[str, Cell]]) -> None:
    """A selection answers for itself, however often the whole was asked; a pickled copy begins afresh and is equal."""
    facts = gather(said * 5)
    facts.seen("Modality")
    chosen = tuple(range(0, facts.size, 2))
    for _ in range(2):
        assert facts.only(chosen).seen("Modality") == gather((said * 5)[::2]).seen("Modality")
    copy = pickle.loads(pickle.dumps(facts))  # noqa: S301 - our own bytes
    assert copy == facts
    assert all(column.memo == {} for column in copy.columns.values())


@given(instances, st.data())
def test_narrowing_keeps_the_chosen_in_the_order_chosen(
    said: list[Mapping[str, Cell]], data: st.DataObject
) -> None:
    """`only` is the facts of those instances, as if no other had ever come."""
    chosen = data.draw(st.lists(st.sampled_from(range(len(said))), unique=True)) if said else []
    narrowed, alone = gather(said).only(chosen), gather([said[i] for i in chosen])
    assert narrowed.size == alone.size
    for name in ("Modality", "ImageType", "b_value", "(0019,xx0C) X"):
        assert narrowed.seen(name) == alone.seen(name)
    for i in chosen:
        assert gather(said).one(i).seen("Modality") == gather([said[i]]).seen("Modality")


@given(instances)
def test_counts_add_up(said: list[Mapping[str, Cell]]) -> None:
    """Every distinct value is seen once, with the number of instances that hold it; absence comes last."""
    facts = gather(said)
    seen = facts.seen("ImageType")
    assert len({s.value for s in seen}) == len(seen)
    for one in seen:
        holders = [a for a in said if (a.get("ImageType") is None if one.value is None else
                                       one.value in a.get("ImageType", ()))]  # fmt: skip
        if one.value is None or len(set(map(len, holders))) <= 1:
            assert one.count >= len(holders)
    absent = [s for s in seen if s.value is None]
    assert not absent or seen[-1] == absent[0] == Seen(None, sum("ImageType" not in a for a in said))


def test_an_attribute_nobody_has_is_absent_everywhere() -> None:
    """It is seen as absence in every instance, and as nothing at all where there is no instance."""
    assert gather([{}, {}]).seen("Modality") == (Seen(None, 2),)
    assert gather([]).seen("Modality") == ()


def test_a_present_but_empty_value_is_not_absence() -> None:
    """Type 2 attributes may be empty (PS3.5 7.4.3): that is a value of its own."""
    assert gather([{"PatientAge": ((),)}, {}]).seen("PatientAge") == (Seen((), 1), Seen(None, 1))


def test_each_frame_counts_once_per_instance() -> None:
    """Two values over the frames of one instance are each seen in one instance."""
    facts = gather([{"b_value": (("0",), ("1000",))}, {"b_value": (("0",),)}])
    assert facts.seen("b_value") == (Seen(("0",), 2), Seen(("1000",), 1))


# --- stacks


def slices(places: list[tuple[float, float, float]], orientation: tuple[float, ...]) -> Facts:
    """Slices with one orientation at these places."""
    return gather(
        {
            "ImageOrientationPatient": (tuple(map(str, orientation)),),
            "ImagePositionPatient": (tuple(map(str, place)),),
        }
        for place in places
    )


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def test_offsets_lie_along_the_normal_whatever_the_order() -> None:
    """Axial slices in any order give their sorted z, and no shear."""
    (stack,) = stacks(slices([(0, 0, 10), (0, 0, -5), (0, 0, 2.5)], AXIAL))
    assert stack.offsets == (-5.0, 2.5, 10.0)
    assert stack.shear == 0


@given(st.floats(-80, 80), st.lists(st.integers(-200, 200), min_size=2, max_size=12, unique=True))
def test_an_oblique_stack_has_its_own_distances(degrees: float, steps: list[int]) -> None:
    """Slices along the normal of a turned plane keep their distances, without shear."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    normal = (0.0, -s, c)
    (stack,) = stacks(slices([tuple(n * k for n in normal) for k in steps], (1, 0, 0, 0, c, s)))  # type: ignore[misc]
    assert stack.offsets == pytest.approx(sorted(steps), abs=4e-1)  # direction cosines are rounded to 1e-3
    assert stack.shear <= 2e-3 * 400


def test_a_tilted_gantry_shows_as_shear() -> None:
    """A table that moves along z under a gantry tilted by 20° shifts each slice sideways by tan 20° of its step."""
    c, s = cos(radians(20)), sin(radians(20))
    (stack,) = stacks(slices([(0, 0, 5.0 * k) for k in range(6)], (1, 0, 0, 0, c, s)))
    step = stack.offsets[1] - stack.offsets[0]
    assert step == pytest.approx(5 * c, abs=0.01)
    assert stack.shear == pytest.approx(step * tan(radians(20)), abs=0.02)


def test_two_images_at_one_place_are_one_slice() -> None:
    """Echoes or phases at one place, and places a hundredth of a millimetre apart, count once."""
    (stack,) = stacks(slices([(0, 0, 0), (0, 0, 0), (0, 0, 0.004), (0, 0, 5)], AXIAL))
    assert len(stack.offsets) == 2


def test_stacks_come_largest_first_and_others_are_left_out() -> None:
    """A scout is a stack of its own; images without geometry, or with nonsense, are in none."""
    scout = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    facts = slices([(0, 0, 0), (0, 0, 5)], AXIAL)
    more = [*(dict(zip(("ImageOrientationPatient", "ImagePositionPatient"),
                       (facts.cell("ImageOrientationPatient", i), facts.cell("ImagePositionPatient", i)),
                       strict=True)) for i in range(2)),
            {"ImageOrientationPatient": (tuple(map(str, scout)),), "ImagePositionPatient": (("0", "9", "0"),)},
            {"Modality": (("US",),)},
            {"ImageOrientationPatient": (("1", "0"),), "ImagePositionPatient": (("0", "0", "0"),)},
            {"ImageOrientationPatient": (("a",) * 6,), "ImagePositionPatient": (("0", "0", "0"),)},
            ]  # fmt: skip
    found = stacks(gather(more))  # type: ignore[arg-type]
    assert [len(stack.offsets) for stack in found] == [2, 1]
    assert found[1].orientation == scout


def test_the_frames_of_a_multi_frame_object_are_slices() -> None:
    """One enhanced object whose frames share an orientation is a whole stack."""
    places = tuple(("0", "0", str(z)) for z in (0, 4, 8, 12))
    facts = gather([{"ImageOrientationPatient": (tuple(map(str, AXIAL)),), "ImagePositionPatient": places}])
    assert stacks(facts)[0].offsets == (0.0, 4.0, 8.0, 12.0)


def test_a_jitter_in_the_orientation_splits_no_stack() -> None:
    """Direction cosines that a scanner rounds differently from slice to slice are one stack."""
    instances = [
        {
            "ImageOrientationPatient": (("1", "0", "0", "0", f"{0.7005 + jitter:.6f}", "0.713654"),),
            "ImagePositionPatient": (("0", "0", str(3 * k)),),
        }
        for k, jitter in enumerate((0.00001, -0.00001, 0.00001, -0.00001))
    ]
    (stack,) = stacks(gather(instances))
    assert len(stack.offsets) == 4
