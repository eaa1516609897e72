"""One segment by its name on the grid of another image, and every way in which it is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.operator import Code, Mask, Refused, Segments, Volume
from node.operators.region import region
from node.testing import Grid, ball_mask, run_operator, sphere_volume

FRAME = {"frame_of_reference": "1.2"}
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
LUNG = Code("39607008", "SCT", "Lung")
GRID = Grid((12, 20, 16), (4.0, 2.0, 2.5))


def image(grid: Grid = GRID) -> Volume:
    """What is to be measured."""
    return replace(sphere_volume(grid), facts=FRAME)


def segmentation(*masks: Mask) -> Segments:
    """*masks* in the frame of reference of the image."""
    return Segments(masks, FRAME)


def three() -> Segments:
    """A liver and both lungs."""
    volume = image()
    liver = ball_mask(volume, 12.0, label="Segment_1")
    left = ball_mask(volume, 8.0, (10, 0, 0), label="lung_l", type=LUNG, laterality=LEFT)
    right = ball_mask(volume, 6.0, (-10, 0, 0), label="lung_r", type=LUNG, laterality=RIGHT)
    return segmentation(liver, left, right)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("Liver", 0), ("  liver ", 0), ("10200004", 0), ("segment 1", 0), ("Segment_1", 0),
        ("Left lung", 1), ("lung left", 1), ("LUNG_L", 1), ("right  Lung", 2), ("39607008 right", 2),
    ],
)  # fmt: skip
def test_a_segment_is_found_by_any_of_its_names(name: str, which: int) -> None:
    """Its label, what it is, the code of that, with its side; case, blanks and underscores do not count."""
    segments = three()
    found = run_operator(region, image(), segments, name=name)
    wanted = segments.masks[which]
    assert np.array_equal(found.array, wanted.array)
    assert (found.label, found.type, found.category, found.laterality) == (
        wanted.label, wanted.type, wanted.category, wanted.laterality,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "Spleen",
            "no segment is called Spleen; the segmentation has Segment_1 = Liver, lung_l = Left Lung, lung_r",
        ),
        ("Lung", "no segment is called Lung"),
    ],
)
def test_what_is_not_there_is_refused(name: str, words: str) -> None:
    """With the names there are; a pair of organs has no name without its side."""
    with pytest.raises(Refused, match=words):
        region(image(), three(), name=name)


def test_two_of_one_name_are_refused() -> None:
    """Which one is meant is nobody's guess."""
    masks = three().masks
    with pytest.raises(
        Refused, match=r"2 segments are called Liver; the segmentation has Segment_1 = Liver, Liver$"
    ):
        region(image(), segmentation(masks[0], replace(masks[0], label="Liver")), name="Liver")


def test_the_places_of_two_frames_of_reference_are_not_compared() -> None:
    """Nor is what states none."""
    with pytest.raises(Refused, match="the volume and the segmentation have different frames of reference"):
        region(image(), replace(three(), facts={"frame_of_reference": "1.3"}), name="Liver")
    with pytest.raises(Refused, match="has no frame of reference"):
        region(image(), replace(three(), facts={}), name="Liver")


def test_a_part_of_the_stack_is_taken_as_it_is() -> None:
    """A segmentation on some slices, and one on more than the image has: voxel for voxel, exactly."""
    volume, whole = image(), three().masks[0]
    part = replace(whole, array=whole.array[3:9], affine=_from(whole.affine, (3, 0, 0)))
    found = region(volume, segmentation(part), name="Liver").array
    assert np.array_equal(found[3:9], whole.array[3:9])
    assert not found[:3].any()
    assert not found[9:].any()
    some = replace(volume, array=volume.array[4:7, 2:], affine=_from(volume.affine, (4, 2, 0)))
    found = region(some, segmentation(whole), name="Liver").array
    assert np.array_equal(found, whole.array[4:7, 2:])


def _from(affine: np.ndarray[Any, Any], first: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """The grid that begins with the voxel *first*."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array(first)
    return moved


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations((0, 1, 2)),
    flips=st.tuples(*[st.booleans()] * 3),
    moved=st.tuples(*[st.integers(-3, 3)] * 3),
)
def test_any_turn_of_the_same_voxels_is_the_same_region(
    order: list[int], flips: tuple[bool, bool, bool], moved: tuple[int, int, int]
) -> None:
    """Axes exchanged, reversed and shifted by whole voxels: each voxel lands where it lies in the patient."""
    volume = image()
    rng = np.random.default_rng(0)
    array = rng.random(volume.array.shape) > 0.5
    affine = _from(volume.affine, moved)
    turned, place = array.transpose(order), affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            place[:3, 3] += place[:3, axis] * (turned.shape[axis] - 1)
            place[:3, axis] *= -1
    mask = replace(three().masks[0], array=turned, affine=place)
    found = region(volume, segmentation(mask), name="Liver").array
    wanted = np.zeros_like(array)
    into = tuple(slice(max(m, 0), n + min(m, 0)) for m, n in zip(moved, array.shape, strict=True))
    out_of = tuple(slice(max(-m, 0), n + min(-m, 0)) for m, n in zip(moved, array.shape, strict=True))
    wanted[into] = array[out_of]
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "other", [Grid((20, 33, 29), (2.3, 1.4, 1.1)), replace(Grid.tilted(25, (30, 40, 40)), spacing=(1.5,) * 3)]
)
def test_on_another_grid_each_voxel_asks_the_nearest(other: Grid) -> None:
    """A voxel is inside where its centre lies in a voxel of the segment: here by the indices, worked out in numpy."""
    volume = image()
    mask = ball_mask(image(other), 11.0, (2.0, -1.0, 3.0))
    found = region(volume, segmentation(mask), name="Liver").array
    back = np.linalg.inv(mask.affine) @ volume.affine
    places = np.tensordot(back[:3, :3], np.indices(volume.array.shape, dtype=float), 1) + back[:3, 3].reshape(
        3, 1, 1, 1
    )
    near = np.floor(places + 0.5).astype(int)
    inside = np.all([(n >= 0) & (n < size) for n, size in zip(near, mask.array.shape, strict=True)], axis=0)
    wanted = np.zeros(volume.array.shape, bool)
    wanted[inside] = mask.array[tuple(n[inside] for n in near)]
    between = (
        np.abs(places + 0.5 - np.rint(places + 0.5)).min(axis=0) < 1e-6
    )  # a centre on a border: either side
    assert np.array_equal(found[~between], wanted[~between])
    assert abs(found.sum() * volume.voxel_volume / (4 / 3 * np.pi * 11.0**3) - 1) < 0.05


def test_what_lies_outside_is_said() -> None:
    """Half of a ball beyond the last slice: the description gives the share; one wholly beyond is refused."""
    volume = image()
    top = float(volume.origin[2] + 11 * 4.0)
    higher = replace(volume, affine=_from(volume.affine, (6, 0, 0)))
    mask = ball_mask(higher, 9.0, (0.0, 0.0, top + 2.0))
    found = region(volume, segmentation(mask), name="Liver")
    assert found.array.any()
    assert found.description == "50 % of it lie outside the image"
    finer = image(Grid((24, 20, 16), (4.0, 2.1, 2.6)))
    mask = ball_mask(finer, 9.0, (0.0, 0.0, top + 2.0))
    assert region(volume, segmentation(mask), name="Liver").description == "50 % of it lie outside the image"
    mask = ball_mask(finer, 9.0, (0.0, 0.0, top + 12.0))
    with pytest.raises(Refused, match="nothing of the segment Ball lies in the image"):
        region(volume, segmentation(mask), name="Liver")


def test_an_empty_segment_is_refused() -> None:
    """It has a name, and no voxel."""
    mask = ball_mask(image(), 0.01)
    with pytest.raises(Refused, match="the segment Ball is empty"):
        region(image(), segmentation(mask), name="Liver")
