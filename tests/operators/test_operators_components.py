"""Connected components against counted voxels and SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from node.operator import Code, Mask, Refused
from node.operators.components import connected_component, largest_piece
from node.testing import Grid, run_operator


def mask(array: Any, spacing: tuple[float, float, float] = (1, 1, 1)) -> Mask:
    """*array* as a mask."""
    array = np.asarray(array, bool)
    code = Code("85756007", "SCT", "Tissue")
    return Mask(array, Grid(array.shape, spacing).affine, "Bone", code, code, "Threshold")


def blocks() -> Any:
    """Blocks of 2, 27 and 8 voxels; the last two touch at a corner."""
    array = np.zeros((10, 10, 10), bool)
    array[0, 0, 0:2] = array[3:6, 3:6, 3:6] = array[6:8, 6:8, 6:8] = True
    return array


@pytest.mark.parametrize(("connectivity", "voxels"), [("faces", 27), ("corners", 35)])
def test_the_largest_piece_is_kept(connectivity: Any, voxels: int) -> None:
    """Blocks that touch at a corner are two pieces over faces, one over corners."""
    made = run_operator(connected_component, mask(blocks()), connectivity=connectivity)
    assert made.array.sum() == voxels
    assert made.label == "Bone"
    assert made.description == f"Threshold; largest piece connected over {connectivity}"


@pytest.mark.parametrize(("at_least", "voxels"), [(0.01, 37), (0.1, 35), (0.1601, 27)])
def test_pieces_are_kept_by_their_volume(at_least: float, voxels: int) -> None:
    """With voxels of 20 mm³ the blocks have 0.04, 0.54 and 0.16 ml."""
    made = connected_component(mask(blocks(), (5, 2, 2)), keep="all_above", at_least=at_least)
    assert made.array.sum() == voxels


@pytest.mark.parametrize("connectivity", ["faces", "corners"])
def test_pieces_are_those_of_simpleitk(connectivity: Any) -> None:
    """In random noise the largest piece and all of 20 voxels or more are those SimpleITK finds."""
    array = np.random.default_rng(1).random((20, 24, 22)) < (0.3 if connectivity == "faces" else 0.09)
    pieces = sitk.ConnectedComponent(
        sitk.GetImageFromArray(array.astype(np.uint8)), connectivity == "corners"
    )
    ordered = sitk.GetArrayFromImage(sitk.RelabelComponent(pieces, sortByObjectSize=True))
    assert np.array_equal(connected_component(mask(array), connectivity=connectivity).array, ordered == 1)
    kept = np.isin(ordered, [n for n in range(1, ordered.max() + 1) if (ordered == n).sum() >= 20])
    made = connected_component(mask(array), keep="all_above", at_least=0.02, connectivity=connectivity)
    assert np.array_equal(made.array, kept)


def test_of_two_equal_pieces_the_first_is_kept() -> None:
    """The choice is always the same one."""
    array = np.zeros((1, 1, 5), bool)
    array[0, 0, [1, 3]] = True
    assert connected_component(mask(array)).array.ravel().tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (np.zeros((2, 2, 2)), {}, "Bone is empty"),
        (blocks(), {"keep": "all_above"}, "needs at_least"),
        (blocks(), {"keep": "all_above", "at_least": 1.0}, "largest of 3 pieces of Bone has 0.027 ml"),
        (blocks(), {"at_least": 1.0}, "less than 1 ml"),
    ],
)
def test_nothing_to_keep_is_refused(array: Any, options: dict[str, Any], words: str) -> None:
    """An empty mask, a missing limit, or no piece as large: refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(connected_component, mask(array), **options)


@given(st.binary(min_size=60, max_size=60), st.integers(1, 4))
def test_the_largest_piece_is_that_of_another_library(data: bytes, sparse: int) -> None:
    """As SciPy's labels count it; of several as large the first in the volume, and none in an empty mask."""
    array = np.frombuffer(data, np.uint8).reshape(3, 4, 5) % (sparse + 1) == 0
    labels, count = ndimage.label(array)
    found = largest_piece(array)
    if not count:
        assert found is None
        return
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    assert found is not None
    assert np.array_equal(found, labels == sizes.argmax())
    empty = np.zeros((3, 4, 5), bool)
    assert largest_piece(empty) is None
