"""Several segments in one object: numbered in one array or stacked, the object is the same to the byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from derive_material import affine, complaints, ct_headers, job, mask
from pydicom import dcmread

from node.derive import segmentation
from node.derive.sources import Sources
from node.derive.write import write
from node.operator import Mask, Segments

SHAPE = (5, 8, 7)
PLACE = affine((2.0, 0.7, 0.5))


def block(number: int, first: int, last: int, place: np.ndarray = PLACE) -> Mask:
    """Columns *first* to *last* of the inner slices."""
    inside = np.zeros(SHAPE, bool)
    inside[1:4, 2:6, first:last] = True
    return replace(mask(SHAPE, place), array=inside, label=f"Part {number}")


def written(folder: Path, masks: tuple[Mask, ...]) -> bytes:
    """The object as it leaves, valid."""
    sources = Sources(tuple(ct_headers(5, 8, 7, PLACE)))
    (product,) = write({"body": Segments(masks)}, job("body"), sources, folder)
    assert complaints(folder / product.path) == set()
    return (folder / product.path).read_bytes()


@pytest.mark.parametrize("moved", [False, True], ids=["the source's grid", "a grid of its own"])
@pytest.mark.parametrize("empty", [False, True], ids=["all filled", "one empty"])
def test_both_ways_make_the_same_object(
    moved: bool, empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments that do not overlap are told by number; stacked one by one they would make the same bytes."""
    place = affine((3.0, 0.7, 0.5)) if moved else PLACE
    masks = (block(1, 0, 3, place), block(2, 3, 3 if empty else 5, place), block(3, 5, 7, place))
    assert segmentation._numbered(masks) is not None
    quick = written(tmp_path / "numbered", masks)
    monkeypatch.setattr(segmentation, "_numbered", lambda _: None)
    assert written(tmp_path / "stacked", masks) == quick


def test_overlapping_segments_stay_whole(tmp_path: Path) -> None:
    """A voxel may be in two segments: both keep it."""
    masks = (block(1, 0, 4), block(2, 2, 6))
    assert segmentation._numbered(masks) is None
    written(tmp_path, masks)
    (path,) = tmp_path.rglob("*.dcm")
    made = dcmread(path)
    frames = made.pixel_array
    numbers = [
        int(f.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for f in made.PerFrameFunctionalGroupsSequence
    ]
    for number, one in enumerate(masks, 1):
        assert sum(int(frames[n].sum()) for n, k in enumerate(numbers) if k == number) == one.array.sum()
