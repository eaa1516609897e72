"""Segmentation objects read as masks, and as independent readers (highdicom, dcmqi) read them."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import peers
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.model import Code
from node.operator import Mask, Refused, Segments, Volume
from node.read.series import parts
from node.testing import Grid, ball_mask, sphere_volume, write_ct_series, write_segmentation

LEFT = Code("7771000", "SCT", "Left")
LUNG = Code("39607008", "SCT", "Lung")
TURNED = replace(Grid.tilted(20, (9, 7, 5)), spacing=(3.0, 1.5, 2.0))


def read(path: Path) -> Segments:
    """The one object there."""
    (part,) = parts("Segments", [path], (), "refuse")
    found = part.load().value
    assert isinstance(found, Segments)
    return found


def phantom() -> tuple[Volume, list[Mask]]:
    """An oblique volume of odd size; a liver, a lung on other slices with one of them empty, and an empty segment."""
    volume = sphere_volume(TURNED)
    liver = ball_mask(volume, 6.0)
    lung = np.zeros(volume.array.shape, bool)
    lung[1, 2:5, 1:], lung[6, :2], lung[8, 6, 4] = True, True, True
    nothing = replace(liver, array=np.zeros_like(lung), label="Nothing", type=LUNG)
    return volume, [liver, replace(liver, array=lung, label="Lung 1", type=LUNG, laterality=LEFT), nothing]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The phantom as a SEG."""
    volume, masks = phantom()
    return write_segmentation(tmp_path / "seg.dcm", write_ct_series(tmp_path / "ct", volume), masks)


def changed(path: Path, change: Callable[[Dataset], Any]) -> Path:
    """*path* after *change*."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def test_masks_come_back_as_they_were_drawn(written: Path) -> None:
    """Voxels, place, label, codes and side of every segment; slices without any frame in between are empty."""
    volume, masks = phantom()
    found = read(written)
    assert found.facts["frame_of_reference"] == str(pydicom.dcmread(written).FrameOfReferenceUID)
    assert [m.label for m in found.masks] == ["Ball", "Lung 1", "Nothing"]
    low = 1  # the first slice with a voxel of any segment
    for mask, drawn in zip(found.masks, masks, strict=True):
        assert np.array_equal(mask.array, drawn.array[low:])
        assert np.allclose(mask.affine[:3, :3], volume.affine[:3, :3])
        assert np.allclose(mask.origin, volume.origin + low * volume.affine[:3, 0])
        assert (mask.type, mask.category, mask.laterality) == (drawn.type, drawn.category, drawn.laterality)


def test_the_order_of_frames_means_nothing(written: Path) -> None:
    """Frames in any order give the same masks, in the order of their segments."""
    before = [mask.array.copy() for mask in read(written).masks]

    def shuffle(ds: Dataset) -> None:
        pixels = _frames(ds)
        order = list(range(len(pixels)))
        random.Random(1).shuffle(order)
        assert order != sorted(order)
        ds.PerFrameFunctionalGroupsSequence = Sequence(
            [ds.PerFrameFunctionalGroupsSequence[i] for i in order]
        )
        ds.PixelData = _packed(pixels[order])

    after = [mask.array for mask in read(changed(written, shuffle)).masks]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def _frames(ds: Dataset) -> np.ndarray[Any, Any]:
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    shape = (int(ds.NumberOfFrames), ds.Rows, ds.Columns)
    return bits[: np.prod(shape)].reshape(shape)


def _packed(pixels: np.ndarray[Any, Any]) -> bytes:
    """Bits, the first of a frame right after the last of the one before (PS3.5 8.1.1)."""
    data = np.packbits(pixels.ravel().astype(np.uint8), bitorder="little").tobytes()
    return data + b"\0" * (len(data) % 2)


def test_a_share_of_half_belongs_to_the_mask(written: Path) -> None:
    """FRACTIONAL: 0.5 of the Maximum Fractional Value and more is inside."""

    def fractional(ds: Dataset) -> None:
        shares = np.where(_frames(ds) > 0, 100, 99).astype(np.uint8)
        ds.SegmentationType, ds.SegmentationFractionalType, ds.MaximumFractionalValue = (
            "FRACTIONAL",
            "OCCUPANCY",
            200,
        )
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        data = shares.tobytes()
        ds.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))

    before = [mask.array.copy() for mask in read(written).masks]
    after = [mask.array for mask in read(changed(written, fractional)).masks]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    (part,) = parts("Segments", [written], (), "refuse")
    assert part.load().remarks == (
        "The segmentation PHANTOM is FRACTIONAL (OCCUPANCY): it holds shares of each voxel, and voxels of at least 0.5 "
        "were taken to belong to a segment.",
    )
    (part,) = parts("Segments", [changed(written, _probable)], (), "refuse")
    assert "is FRACTIONAL (PROBABILITY): it holds probabilities, and" in part.load().remarks[0]
    with pytest.raises(Refused, match="does not say which value is a whole voxel"):
        read(changed(written, _without_scale))


def _probable(ds: Dataset) -> None:
    ds.SegmentationFractionalType = "PROBABILITY"


def _without_scale(ds: Dataset) -> None:
    del ds.MaximumFractionalValue


def test_of_a_binary_segmentation_nothing_is_remarked(written: Path) -> None:
    """Its voxels are as its source drew them."""
    (part,) = parts("Segments", [written], (), "refuse")
    assert part.load().remarks == ()


def test_a_label_map_is_read_segment_by_segment(tmp_path: Path) -> None:
    """Highdicom's Label Map Segmentation: each number is a segment, what is not described is background."""
    volume, masks = phantom()
    images = sorted(write_ct_series(tmp_path / "ct", volume))
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[masks[0].array], labels[masks[1].array] = 1, 2
    described = [
        hd.seg.SegmentDescription(n, mask.label, pydicom.sr.coding.Code(*_three(mask.category)),
                                  pydicom.sr.coding.Code(*_three(mask.type)), "MANUAL")
        for n, mask in enumerate(masks[:2], 1)
    ]  # fmt: skip
    made = hd.seg.Segmentation(
        [pydicom.dcmread(p) for p in images],
        labels,
        "LABELMAP",
        described,
        "1.2.3",
        1,
        "1.2.4",
        1,
        "M",
        "M",
        "1",
        "1",
    )
    made.save_as(tmp_path / "map.dcm")
    first, second = read(tmp_path / "map.dcm").masks
    low = int(np.flatnonzero(labels.any(axis=(1, 2)))[0])
    high = low + first.array.shape[0]
    assert np.array_equal(first.array, (labels == 1)[low:high])
    assert np.array_equal(second.array, (labels == 2)[low:high])
    assert labels.any(axis=(1, 2)).nonzero()[0].max() < high


def _three(code: Code) -> tuple[str, str, str]:
    return code.value, code.scheme, code.meaning


def test_old_snomed_is_read_as_todays(written: Path) -> None:
    """T-62000 of SRT is 10200004 of SCT, the modifier G-A101 the left side; an unknown code stays as it is."""

    def old(ds: Dataset) -> None:
        first, second, _ = ds.SegmentSequence
        code = first.SegmentedPropertyTypeCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = "T-62000", "SRT"
        code = second.SegmentedPropertyTypeCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = "T-XXXXX", "SRT"
        side = code.SegmentedPropertyTypeModifierCodeSequence[0]
        side.CodeValue, side.CodingSchemeDesignator = "G-A101", "SRT"

    first, second, _ = read(changed(written, old)).masks
    assert (first.type.value, first.type.scheme) == ("10200004", "SCT")
    assert (second.type.value, second.type.scheme) == ("T-XXXXX", "SRT")
    assert second.laterality is not None
    assert second.laterality.value == LEFT.value


def test_masks_are_unpacked_when_asked_for_and_may_be_changed_as_values(written: Path) -> None:
    """Asking for one mask's voxels forgets those of another; each time they are the same, and nobody can write them."""
    first, second, _ = read(written).masks
    kept = first.array
    assert kept is first.array
    assert second.array.sum() != kept.sum()
    assert first.array is not kept
    assert np.array_equal(first.array, kept)
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0, 0] = True
    named = replace(first, label="Other")
    assert (named.label, named.type) == ("Other", first.type)
    assert np.array_equal(named.array, kept)


def test_spacing_is_what_positions_say(written: Path) -> None:
    """A stated spacing that no position fits to, or none at all, gives way to the smallest distance there is."""
    before = read(written).masks[0].affine
    for stated in (None, 7.3):

        def restate(ds: Dataset, stated: float | None = stated) -> None:
            measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            measures.SpacingBetweenSlices = stated

        assert np.allclose(read(changed(written, restate)).masks[0].affine, before)


def _uneven(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0]
        x, y, z = (float(v) for v in place.ImagePositionPatient)
        place.ImagePositionPatient = [x, y, z + (0.9 if z > 5 else 0)]


def _sideways(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0]
        x, y, z = (float(v) for v in place.ImagePositionPatient)
        place.ImagePositionPatient = [x + 0.3 * z, y, z]


def _twice(ds: Dataset) -> None:
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    groups[1].SegmentIdentificationSequence = groups[0].SegmentIdentificationSequence


def _nowhere(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence


def _of_nobody(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def _fewer(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence = Sequence(ds.PerFrameFunctionalGroupsSequence[1:])


def _nameless(ds: Dataset) -> None:
    del ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence


def _other_kind(ds: Dataset) -> None:
    ds.SegmentationType = "SURFACE"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_uneven, "planes of the segmentation are not evenly spaced"),
        (_sideways, "step sideways"),
        (_twice, "several frames at one place; a segmentation over time is not read"),
        (_nowhere, "has no PlanePositionSequence"),
        (_of_nobody, "frame 3 of the segmentation belongs to no segment"),
        (_fewer, "and describes"),
        (_nameless, "does not say what it is"),
        (_other_kind, "is of type SURFACE; BINARY, FRACTIONAL and LABELMAP are read"),
    ],
)
def test_what_is_no_regular_grid_is_refused(
    tmp_path: Path, change: Callable[[Dataset], Any], words: str
) -> None:
    """In words that say what is wrong with it."""
    volume = sphere_volume(Grid((9, 7, 5), (3.0, 1.5, 2.0)))
    images = write_ct_series(tmp_path / "ct", volume)
    path = write_segmentation(tmp_path / "seg.dcm", images, [ball_mask(volume, 8.0), ball_mask(volume, 3.0)])
    with pytest.raises(Refused, match=words):
        read(changed(path, change))


def test_an_image_is_no_segmentation(tmp_path: Path) -> None:
    """A CT slice taken as Segments is refused."""
    (path, *_) = write_ct_series(tmp_path, sphere_volume(TURNED))
    with pytest.raises(Refused, match="CT Image Storage is no segmentation"):
        read(path)


REAL = (("OBJECTS/tid1500-seg-rwvm", "seg.dcm"), ("PET/qin-headneck-0139", "mask.dcm"))


@pytest.mark.parametrize("sample", REAL, ids=["one segment", "eleven segments"])
def test_real_segmentations_as_highdicom_reads_them(sample: tuple[str, str]) -> None:
    """QIN-HEADNECK (doi:10.7937/K9/TCIA.2015.K0F5CGLI): every segment voxel for voxel where highdicom puts it."""
    path = peers.need_samples(*sample)
    independent = hd.seg.segread(path)
    found = read(path)
    assert len(found.masks) == independent.number_of_segments
    for number, mask in enumerate(found.masks, 1):
        theirs = independent.get_volume(segment_numbers=[number], combine_segments=True)
        back = np.linalg.solve(theirs.affine, mask.affine)  # highdicom stacks the other way round
        places = back[:3] @ np.vstack([np.array(np.nonzero(mask.array)), np.ones(int(mask.array.sum()))])
        assert np.abs(places - np.rint(places)).max() < 1e-3
        there = np.zeros(theirs.shape, bool)
        there[tuple(np.rint(places).astype(int))] = True
        assert np.array_equal(there, theirs.array > 0)


@pytest.mark.parametrize("sample", REAL, ids=["one segment", "eleven segments"])
def test_real_segmentations_as_dcmqi_reads_them(sample: tuple[str, str], tmp_path: Path) -> None:
    """As many voxels of the same size in every segment as segimage2itkimage writes."""
    path = peers.need_samples(*sample)
    command = [
        peers.dcmqi("segimage2itkimage"),
        "--inputDICOM",
        str(path),
        "--outputDirectory",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    for number, mask in enumerate(read(path).masks, 1):
        image = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        assert int((sitk.GetArrayFromImage(image) > 0).sum()) == int(mask.array.sum())
        assert np.allclose(image.GetSpacing()[::-1], mask.spacing, rtol=1e-5)


def test_thin_planes_far_apart_are_no_thick_ones(written: Path) -> None:
    """Without Spacing Between Slices, planes of 3 mm in every other slice are 3 mm deep, with empty ones between."""

    def sparse(ds: Dataset) -> None:
        del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
        frames = list(ds.PerFrameFunctionalGroupsSequence)
        number = [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in frames]
        place = [np.array(f.PlanePositionSequence[0].ImagePositionPatient, float) for f in frames]
        apart = [round(float(np.linalg.norm(p - place[0])) / 3.0) for p in place]
        kept = [i for i in range(len(frames)) if number[i] == 1 and apart[i] % 2 == 0]
        pixels = ds.pixel_array[kept]
        ds.PerFrameFunctionalGroupsSequence = Sequence([frames[i] for i in kept])
        ds.NumberOfFrames = len(kept)
        ds.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        left.append(int(pixels.sum()))

    left: list[int] = []
    (found, *_) = read(changed(written, sparse)).masks
    assert found.spacing[0] == pytest.approx(3.0, rel=1e-3)
    assert int(found.array.sum()) == left[0] > 0
    filled = np.flatnonzero(found.array.any(axis=(1, 2)))
    assert (np.diff(filled) == 2).all()
