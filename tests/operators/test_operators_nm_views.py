"""Geometric mean and left-right split: depth falls out of the product of two views, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.operator import NO_UNITS, Code, Picture, Refused, Report
from node.operators.nm.frames import joined
from node.operators.nm.geometric import geometric_mean
from node.operators.nm.sides import left_right
from node.testing import Phase, kidney_frames, lung_frames, nuclear_picture, run_operator
from node.testing.nuclear import ATTENUATION

BOTH = ("anterior", "posterior")
LUNGS = "left lung: ellipse 30,70,98,106; right lung: ellipse 30,22,98,58"


def lungs(**options: Any) -> Picture:
    """Lungs from the front and from behind."""
    return nuclear_picture(lung_frames(**options), BOTH)


def unstated(picture: Picture) -> Picture:
    """The same without views."""
    facts = {k: v for k, v in picture.facts.items() if k not in ("views", "view_codes")}
    return replace(picture, facts=facts)


def share(report: Report, side: str, method: str) -> float:
    """Percent of one side by one method."""
    (found,) = [
        m.value
        for m in report.measurements
        if m.unit.value == "%" and m.laterality.meaning == side and method in m.method.meaning  # type: ignore[union-attr]
    ]
    return found


@pytest.mark.parametrize("depths", [(101.0, 90.0), (60.0, 150.0)])
def test_the_geometric_mean_does_not_depend_on_depth(depths: tuple[float, float]) -> None:
    """Each lung has A · exp(-μD/2) per pixel, however deep it lies in the body of D = 200 mm."""
    made = run_operator(geometric_mean, lungs(depths=depths))
    expected = 4000.0 * np.exp(-ATTENUATION * 100)
    assert made.array.shape == (1, 128, 128)
    for column in (40, 88):
        assert abs(made.array[0, 64, column] - expected) < 1.0  # counts are whole numbers
    assert made.unit.value == "{counts}"
    assert (made.spacing, made.plane) == ((4.8, 4.8), "patient")


def test_the_anterior_view_alone_is_wrong_and_the_geometric_mean_is_right() -> None:
    """Lungs of equal activity, one 11 mm deeper: 46.7 / 53.3 % from the front, 50 / 50 % by the geometric mean."""
    report = run_operator(left_right, lungs(), regions=LUNGS)
    assert abs(share(report, "Left", "alone") - 46.7) < 0.05
    assert abs(share(report, "Right", "alone") - 53.3) < 0.05
    assert abs(share(report, "Left", "Geometric") - 50) < 0.05
    assert {m.site.meaning for m in report.measurements if m.site} == {"Lung"}
    assert "left lung: ellipse from 30, 70 to 98, 106 px" in report.remarks[0].text


@given(st.floats(0.05, 0.95))
def test_the_share_is_that_of_the_activity(left: float) -> None:
    """Whatever the left lung's share is, the split by halves finds it."""
    report = left_right(lungs(left=left))
    assert abs(share(report, "Left", "Geometric") - 100 * left) < 0.1
    assert np.isclose(share(report, "Left", "Geometric") + share(report, "Right", "Geometric"), 100)


def test_halves_and_regions_agree_and_the_midline_moves() -> None:
    """Halves beside the middle are the lungs; a midline right of both leaves nothing on the left."""
    halves, regions = left_right(lungs()), left_right(lungs(), regions=LUNGS)
    assert np.isclose(share(halves, "Left", "Geometric"), share(regions, "Left", "Geometric"))
    in_mm = left_right(lungs(), midline=64 * 4.8, measure="mm")
    assert np.isclose(share(in_mm, "Left", "Geometric"), share(halves, "Left", "Geometric"))
    with pytest.raises(Refused, match="the left side has 0 counts"):
        left_right(lungs(), midline=110)


def test_the_image_says_on_which_side_left_is() -> None:
    """A posterior view first, or rows that run to the right of the patient, are seen from the front all the same."""
    frames = lung_frames(left=0.3)
    turned = nuclear_picture(frames[::-1], BOTH[::-1])
    assert np.isclose(
        share(left_right(turned), "Left", "Geometric"),
        share(left_right(lungs(left=0.3)), "Left", "Geometric"),
    )
    flipped = nuclear_picture(frames[:, :, ::-1], BOTH)
    flipped = replace(flipped, facts={**flipped.facts, "row_directions": ((-1.0, 0, 0), (1.0, 0, 0))})
    assert abs(share(left_right(flipped), "Left", "Geometric") - 30) < 0.1


FOOT = (0.0, 0.0, -1.0)
TO_LEFT, TO_RIGHT = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)


def directed(frames: Any, rows: Any, columns: Any = (FOOT, FOOT)) -> Picture:
    """Both views with the directions that the image states for their heads."""
    made = nuclear_picture(frames, BOTH)
    return replace(made, facts={**made.facts, "row_directions": rows, "column_directions": columns})


@pytest.mark.parametrize("stored", ["mirrored", "as_seen"])
def test_the_same_directions_for_both_views_are_not_believed_alone(stored: Any) -> None:
    """A camera that mirrors posterior views, and one that states the same for all heads: the rule says which it is."""
    frames = lung_frames(left=0.3)
    if stored == "mirrored":
        frames[1] = frames[1, :, ::-1]
    picture = directed(frames, (TO_LEFT, TO_LEFT))
    for operator in (geometric_mean, left_right):
        with pytest.raises(Refused, match=r"same directions .* say posterior_stored: mirrored .* as_seen"):
            run_operator(operator, picture)
    report = run_operator(left_right, picture, posterior_stored=stored)
    assert abs(share(report, "Left", "Geometric") - 30) < 0.1
    assert any("as the rule says" in remark.text for remark in report.remarks)
    made = run_operator(geometric_mean, picture, posterior_stored=stored)
    assert np.allclose(made.array, geometric_mean(lungs(left=0.3)).array)
    other = "as_seen" if stored == "mirrored" else "mirrored"
    wrong = left_right(picture, posterior_stored=other)  # type: ignore[arg-type]
    assert abs(share(wrong, "Left", "Geometric") - 30) > 10  # what a guess would have cost


def test_directions_turn_a_posterior_view_as_they_say() -> None:
    """Seen from behind, lying on its side or upside down: each comes to lie as the anterior view does."""
    frames = lung_frames(left=0.3)
    frames[:, :60] *= 2  # head and foot differ, too
    wanted = geometric_mean(nuclear_picture(frames, BOTH)).array
    assert np.array_equal(geometric_mean(directed(frames, (TO_LEFT, TO_RIGHT))).array, wanted)
    on_its_side = np.ascontiguousarray(frames.transpose(0, 2, 1))
    picture = directed(on_its_side, (FOOT, FOOT), (TO_LEFT, TO_RIGHT))
    assert np.array_equal(geometric_mean(picture).array, wanted.transpose(0, 2, 1))
    head = tuple(-v for v in FOOT)
    upside_down = np.stack([frames[0], frames[1, ::-1, ::-1]])
    picture = directed(upside_down, (TO_LEFT, TO_LEFT), (FOOT, head))
    assert np.array_equal(geometric_mean(picture).array, wanted)
    assert "stored upside down" in " ".join(remark.text for remark in left_right(picture).remarks)
    with pytest.raises(Refused, match="neither the same way nor opposite ways"):
        geometric_mean(directed(frames, (TO_LEFT, FOOT), (FOOT, TO_LEFT)))


def test_directions_of_no_frontal_view_letter_nothing() -> None:
    """An axial orientation, as some cameras state it for every head, is none of a view from the front."""
    axial = ((0.0, 1.0, 0.0),) * 2
    picture = directed(lung_frames(), (TO_LEFT, TO_LEFT), axial)
    assert "shown_orientation" not in geometric_mean(picture, posterior_stored="as_seen").facts


def test_a_geometric_mean_is_not_split_again() -> None:
    """The split is made of the counts of both views; of their mean image it is refused, naming what to give."""
    with pytest.raises(Refused, match="give left_right the received series"):
        left_right(geometric_mean(lungs()), regions=LUNGS, single_view=True)


def test_views_are_named_by_the_rule_where_the_image_states_none() -> None:
    """Without views nothing is made, in words that name the way out; with frames named it is the same result."""
    bare = unstated(lungs())
    for operator in (geometric_mean, left_right):
        with pytest.raises(Refused, match=r"it states no views .*anterior: 1, posterior: 2"):
            run_operator(operator, bare)
    made = run_operator(geometric_mean, bare, anterior=1, posterior=2)
    assert np.array_equal(made.array, geometric_mean(lungs()).array)
    report = left_right(bare, anterior=1, posterior=2)
    assert abs(share(report, "Left", "Geometric") - 50) < 0.05


def test_two_objects_of_one_view_each_are_one_acquisition() -> None:
    """Anterior and posterior as two images give what they give as two frames of one."""
    frames = lung_frames(left=0.4)
    front, back = (nuclear_picture(frames[i : i + 1], (BOTH[i],)) for i in (0, 1))
    made = run_operator(geometric_mean, front, back)
    assert np.array_equal(made.array, geometric_mean(lungs(left=0.4)).array)
    assert abs(share(left_right(back, front), "Left", "Geometric") - 40) < 0.1
    assert (
        abs(share(left_right(unstated(front), unstated(back), anterior=1, posterior=2), "Left", "Geo") - 40)
        < 0.1
    )
    with pytest.raises(Refused, match="other units or pixel spacings"):
        left_right(front, replace(back, spacing=(2.4, 2.4)))
    with pytest.raises(Refused, match="other rows or columns"):
        geometric_mean(front, replace(back, array=back.array[:, :64]))


def test_two_objects_keep_what_they_state_of_their_frames() -> None:
    """Directions, windows, collimators … of both are joined; what one does not state is dropped; padding stays."""
    frames = lung_frames(left=0.4)
    facts = (
        {"column_directions": ((0.0, 0, -1),), "row_directions": ((1.0, 0, 0),), "collimators": ("PARA",)},
        {"column_directions": ((0.0, 0, -1),), "row_directions": ((-1.0, 0, 0),), "rotations": (1,)},
    )
    front, back = (nuclear_picture(frames[i : i + 1], (BOTH[i],)) for i in (0, 1))
    front = replace(front, facts={**front.facts, **facts[0]}, valid=np.ones(front.array.shape, bool))
    back = replace(back, facts={**back.facts, **facts[1]})
    front.valid[:, 0] = False  # type: ignore[index]
    for pair in ((front, back), (back, front)):  # the order of Instance Numbers says nothing of views
        made = run_operator(geometric_mean, *pair)
        assert np.array_equal(made.array, geometric_mean(lungs(left=0.4)).array)
        assert made.facts["shown_orientation"] == ("L", "F")
        window = run_operator(geometric_mean, *pair, energy_window=1)
        assert np.array_equal(window.array, made.array)
        assert abs(share(left_right(*pair, energy_window=1), "Left", "Geometric") - 40) < 0.1
        both = joined(*pair)
        assert len(both.facts["column_directions"]) == 2
        assert not {"collimators", "rotations"} & both.facts.keys()
        assert both.valid is not None
        assert np.count_nonzero(~both.valid) == 128
        assert not both.valid[pair.index(front), 0].any()


def test_background_is_taken_from_each_view_first() -> None:
    """A constant added to both views falls out with a background region, and only with it."""
    picture = nuclear_picture(lung_frames(left=0.3) + 50, BOTH)
    plain = left_right(picture, regions=LUNGS)
    less = left_right(picture, regions=f"{LUNGS}; background: 100,60,120,68")
    assert abs(share(plain, "Left", "Geometric") - 30) > 0.5
    assert abs(share(less, "Left", "Geometric") - 30) < 0.05
    assert "less what as many pixels" in less.remarks[-1].text
    with pytest.raises(Refused, match="only left lung has a background"):
        left_right(picture, regions=f"{LUNGS}; left lung background: 100,60,120,68")


def test_one_view_is_shared_alone_and_said_so() -> None:
    """With single_view a posterior image alone is split, its left at the left, and no geometric mean is claimed."""
    picture = nuclear_picture(lung_frames(left=0.3)[1:], ("posterior",))
    report = run_operator(left_right, picture, single_view=True)
    assert abs(share(report, "Left", "one view") - 100 * 0.3 / (0.3 + 0.7 * np.exp(-ATTENUATION * 11))) < 0.1
    assert not [m for m in report.measurements if "Geometric" in m.method.meaning]  # type: ignore[union-attr]
    assert any("no geometric mean" in remark.text for remark in report.remarks)
    with pytest.raises(Refused, match="single_view is for images of one frame"):
        left_right(lungs(), single_view=True)
    with pytest.raises(Refused, match="which side of the image is the patient's left is unknown"):
        left_right(unstated(picture), single_view=True)


def test_a_capture_whose_pixels_are_its_counts_is_measured_and_others_are_not() -> None:
    """Grey values without unit are counts where they add up to the Counts Accumulated, and nothing otherwise."""
    bare = replace(lungs(), unit=NO_UNITS)
    for unit in (NO_UNITS, Code("1", "UCUM", "Unity")):
        report = left_right(replace(bare, unit=unit))
        assert any("add up to its Counts Accumulated" in remark.text for remark in report.remarks)
    wrong = replace(bare, facts={**bare.facts, "counts_accumulated": 5.0})
    for picture in (wrong, replace(bare, facts={"modality": "NM"})):
        with pytest.raises(Refused, match="does not say that it holds counts"):
            left_right(picture)
    with pytest.raises(Refused, match="in colour"):
        left_right(Picture(np.zeros((1, 4, 4, 3), np.uint8)))


def test_geometric_mean_of_a_dynamic_study_keeps_its_times() -> None:
    """Moment by moment: frames of both heads pair up by time slice."""
    phases = (Phase(3, 1000.0), Phase(2, 5000.0))
    frames = kidney_frames(phases)
    picture = nuclear_picture(np.concatenate([4 * frames, 9 * frames[:, :, ::-1]]), BOTH, phases=phases)
    made = geometric_mean(picture)
    assert np.allclose(made.array, 6 * frames, rtol=1e-5)
    assert made.times is not None
    assert made.times.tolist() == [0, 1000, 2000, 3000, 8000]
    assert made.facts["frame_durations"] == (1000, 1000, 1000, 5000, 5000)
    with pytest.raises(Refused, match="5 anterior frames"):
        left_right(picture)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"energy_windows": (1, 2)}, "different energy windows"),
        ({"time_slots": (1, 2)}, "different time slots"),
        ({"frame_durations": (300000.0, 200000.0)}, "acquired for 300 and 200 s"),
        ({"view_codes": ("399321004", "399321004"), "views": ("Anterior",) * 2}, "states only Anterior"),
    ],
)
def test_views_that_do_not_belong_together_are_refused(facts: dict[str, Any], words: str) -> None:
    """Two windows, two moments, two durations, twice the same view: no product is made of them."""
    picture = lungs()
    with pytest.raises(Refused, match=words):
        geometric_mean(replace(picture, facts={**picture.facts, **facts}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anterior": 1}, "belong together"),
        ({"anterior": 1, "posterior": 3}, "the image has 2, counted from 1"),
        ({"anterior": 2, "posterior": 2}, "they are two views"),
        ({"regions": "lung: 0,0,9,9"}, "one region must be called left"),
        (
            {"regions": "left lung: 30,22,98,58; right lung: 30,70,98,106"},
            "where the image says the patient's right",
        ),
        ({"regions": LUNGS, "midline": 64}, "not both"),
        ({"midline": 200}, "outside the image"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], words: str) -> None:
    """Frames, regions and midlines that make no sense, or contradict the image, are refused in words."""
    with pytest.raises(Refused, match=words):
        left_right(lungs(), **options)


def test_unequal_numbers_of_views_are_refused() -> None:
    """Two anterior frames and one posterior are no pairs."""
    frames = lung_frames()
    picture = nuclear_picture(np.concatenate([frames[:1], frames]), ("anterior", "anterior", "posterior"))
    with pytest.raises(Refused, match="2 anterior and 1 posterior frames"):
        geometric_mean(picture)


def test_the_split_is_the_same_to_the_bit() -> None:
    """Twice the same numbers, exactly."""
    first, second = left_right(lungs(), regions=LUNGS), left_right(lungs(), regions=LUNGS)
    assert [m.value for m in first.measurements] == [m.value for m in second.measurements]


def test_the_sides_of_the_patient_are_told_where_the_image_states_them() -> None:
    """Columns to the left and rows to the foot become letters; oblique or unstated directions become none."""
    picture = lungs()
    assert "shown_orientation" not in geometric_mean(picture).facts
    down = ((0.0, 0.0, -1.0),) * 2
    for row, letters in (((1.0, 0.0, 0.0), ("L", "F")), ((0.7, 0.7, 0.0), None)):
        facts = {"row_directions": (row, tuple(-v for v in row)), "column_directions": down}
        made = geometric_mean(replace(picture, facts={**picture.facts, **facts}))
        assert made.facts.get("shown_orientation") == letters
