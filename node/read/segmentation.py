"""Segmentation objects → Segments: every segment as a mask on one regular grid.

Frames come in any order, and planes without a voxel of a segment are usually left out (PS3.3 A.51.1): the grid is
what the positions of the frames say, from the first plane to the last, and a mask is false where no frame is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import snomed_mapping
from pydicom.uid import SegmentationStorage

from node.errors import Refused
from node.model import Code
from node.operator import Mask, Segments, StoredSegment
from node.read.frames import Source, copied, sources, without_frames
from node.read.lift import lifted
from node.read.loaded import Loaded, Part
from node.read.objects import code_of, in_order, items, number, text
from node.read.segment_grid import SegmentGrid, segment_grid

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage: pixels hold the number of the segment they belong to (PS3.3 C.8.20.2)."""
_CLASSES = (SegmentationStorage, LABEL_MAP)
_OLD_SNOMED = ("SRT", "SNM3", "99SDM")
SHARE = 0.5
"""Of a fractional segmentation: a voxel of at least this share, or probability, belongs to the segment."""
_LATERALITY = frozenset(("7771000", "24028007", "51440002", "66459002"))
"""CID 244: Left, Right, Right and left, Unilateral."""

Bits = NDArray[np.uint8]


def parts(paths: Sequence[Path]) -> list[Part[Segments]]:
    """One Segments per SEG object, by Instance Number, each still to be loaded.

    Raises Refused where there is none, Broken where a file is gone. An object that is none refuses itself.
    """
    return [Part("", partial(_segments, path)) for path in in_order(paths)]


def _segments(path: Path) -> Loaded[Segments]:
    (source,) = sources([path])
    header = source.dataset
    if header.get("SOPClassUID") not in _CLASSES:
        raise Refused(f"{source.kind} is no segmentation; narrow the rule to Modality SEG")
    described = _described(header)
    if not described:
        raise Refused("the segmentation describes no segment (SegmentSequence)")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != source.frames:
        raise Refused(
            f"the segmentation says {source.frames} frames and describes {len(groups)}; which is which is unknown"
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    place = segment_grid(header, shared, groups)
    planes = _planes(source, shared, groups, place, frozenset(described))
    kept, sop_uid = _Latest(), text(header, "SOPInstanceUID")
    masks = tuple(_mask(described[n], planes[n], place, sop_uid, kept) for n in sorted(described))
    facts = {"frame_of_reference": text(header, "FrameOfReferenceUID"), "label": text(header, "ContentLabel")}
    source.release()
    headers = _headers(header, shared, groups, place)
    value = Segments(masks, {k: v for k, v in facts.items() if v})
    return Loaded(value, headers, (0,) * len(headers), remarks=_said(header))


def _said(header: Dataset) -> tuple[str, ...]:
    """That shares became yes and no, where they did: another threshold gives other regions, and other numbers."""
    if text(header, "SegmentationType").upper() != "FRACTIONAL":
        return ()
    kind = text(header, "SegmentationFractionalType").upper()
    shares = {"PROBABILITY": "probabilities", "OCCUPANCY": "shares of each voxel"}.get(kind, "shares")
    label = text(header, "ContentLabel")
    return (
        f"The segmentation{f' {label}' if label else ''} is FRACTIONAL{f' ({kind})' if kind else ''}: it holds "
        f"{shares}, and voxels of at least {SHARE:g} were taken to belong to a segment.",
    )


def _described(header: Dataset) -> dict[int, Dataset]:
    """Segment number → its item; without the background that a label map may describe (PS3.3 C.8.20.2.3.3)."""
    found = {int(item.SegmentNumber): item for item in items(header, "SegmentSequence")}
    if header.SOPClassUID == LABEL_MAP:
        found.pop(int(number(header, "PixelPaddingValue") or 0), None)
    return found


def _headers(
    header: Dataset, shared: Dataset, groups: Sequence[Dataset], place: SegmentGrid
) -> tuple[Dataset, ...]:
    """One per plane that has a frame, as a single-frame image of it would have it."""
    first = {k: frame for frame, k in reversed(list(enumerate(place.slices)))}
    base = lifted(without_frames(header), shared)
    return tuple(lifted(copied(base), groups[first[k]]) for k in sorted(first))


def _planes(
    source: Source,
    shared: Dataset,
    groups: Sequence[Dataset],
    place: SegmentGrid,
    known: frozenset[int],
) -> dict[int, dict[int, Bits]]:
    """Segment number → slice of the grid → the plane's voxels, eight to a byte."""
    found: dict[int, dict[int, Bits]] = {n: {} for n in known}
    of_frame = _reader(source.dataset, shared, groups, known)
    for frame, stored in enumerate(_stored(source, place.shape)):
        if stored.shape != place.shape[1:]:
            raise Refused(
                f"frame {frame + 1} of the segmentation is {stored.shape}, its header says otherwise"
            )
        for segment, inside in of_frame(frame, stored):
            if place.slices[frame] in found[segment]:
                raise Refused(
                    f"segment {segment} has several frames at one place; a segmentation over time is not read"
                )
            found[segment][place.slices[frame]] = np.packbits(inside)
    return found


def _stored(source: Source, shape: tuple[int, int, int]) -> Iterator[NDArray[Any]]:
    """Every frame in turn, as it is stored."""
    _, rows, columns = shape
    header = source.dataset
    syntax = header.file_meta.get("TransferSyntaxUID")
    if (
        number(header, "BitsAllocated") != 1
        or rows * columns % 8 == 0
        or getattr(syntax, "is_compressed", True)
    ):
        yield from source.stored(range(1, source.frames + 1))
        return
    # A frame that does not begin with a byte (PS3.5 8.1.1), which pydicom does not find.
    data = np.frombuffer(source.bulk(), np.uint8)
    size = rows * columns
    if len(data) * 8 < size * source.frames:
        raise Refused("the pixels of the segmentation are shorter than its header says")
    for first in range(0, size * source.frames, size):
        begin = first // 8
        bits = np.unpackbits(data[begin : (first + size + 7) // 8], bitorder="little")
        yield bits[first - 8 * begin :][:size].reshape(rows, columns)


_OfFrame = Callable[[int, NDArray[Any]], Iterator[tuple[int, NDArray[np.bool_]]]]


def _reader(header: Dataset, shared: Dataset, groups: Sequence[Dataset], known: frozenset[int]) -> _OfFrame:
    """What gives the segments of a frame and which of its pixels are theirs (PS3.3 C.8.20.2.3)."""
    kind = text(header, "SegmentationType").upper()
    if kind == "LABELMAP" or header.SOPClassUID == LABEL_MAP:
        return lambda _, stored: _labelled(stored, known)
    if kind not in ("BINARY", "FRACTIONAL"):
        raise Refused(
            f"the segmentation is of type {kind or 'unknown'}; BINARY, FRACTIONAL and LABELMAP are read"
        )
    full = 1.0 if kind == "BINARY" else number(header, "MaximumFractionalValue")
    if not full:
        raise Refused("the segmentation is FRACTIONAL and does not say which value is a whole voxel "
                      "(MaximumFractionalValue); its source must")  # fmt: skip
    least = SHARE * full
    numbers = [_segment_of(group, shared, frame, known) for frame, group in enumerate(groups, 1)]

    def of_frame(frame: int, stored: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        yield numbers[frame], stored >= least

    return of_frame


def _labelled(stored: NDArray[Any], known: frozenset[int]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for segment in np.unique(stored).tolist():
        if segment in known:  # what is not described, 0 as a rule, is background
            yield segment, stored == segment


def _segment_of(group: Dataset, shared: Dataset, frame: int, known: frozenset[int]) -> int:
    for item in (
        *items(group, "SegmentIdentificationSequence"),
        *items(shared, "SegmentIdentificationSequence"),
    ):
        found = number(item, "ReferencedSegmentNumber")
        if found in known:
            return int(found)
    raise Refused(f"frame {frame} of the segmentation belongs to no segment that it describes")


class _Latest:
    """The voxels that were unpacked last: of a hundred segments one is in memory, not all."""

    def __init__(self) -> None:
        self.of: object = None
        self.array: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class _Packed:
    """The voxels of one segment, eight to a byte, and only of planes that have a frame."""

    planes: Mapping[int, Bits]
    shape: tuple[int, int, int]
    latest: _Latest

    def unpacked(self) -> NDArray[np.bool_]:
        if self.latest.of is not self or self.latest.array is None:
            array = np.zeros(self.shape, bool)
            count = self.shape[1] * self.shape[2]
            for k, packed in self.planes.items():
                array[k] = np.unpackbits(packed, count=count).reshape(self.shape[1:]).view(bool)
            array.flags.writeable = False
            self.latest.of, self.latest.array = self, array
        return self.latest.array


class StoredMask(Mask):
    """A mask as it was stored: its voxels are unpacked each time they are asked for, so ask once."""

    voxels: _Packed | NDArray[np.bool_]

    def __init__(
        self, array: _Packed | NDArray[np.bool_], affine: NDArray[np.float64], label: str, category: Code,
        type: Code, description: str = "", laterality: Code | None = None,
        stored: StoredSegment | None = None,
    ) -> None:  # fmt: skip
        fields = {
            "voxels": array, "affine": affine, "label": label, "category": category, "type": type,
            "description": description, "laterality": laterality, "stored": stored,
        }  # fmt: skip
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def array(self) -> NDArray[np.bool_]:  # type: ignore[override]
        """(slices, rows, columns)."""
        return self.voxels.unpacked() if isinstance(self.voxels, _Packed) else self.voxels


def _mask(
    described: Dataset, planes: Mapping[int, Bits], place: SegmentGrid, sop_uid: str, latest: _Latest
) -> Mask:
    segment = int(described.SegmentNumber)
    category = _code(described, "SegmentedPropertyCategoryCodeSequence")
    kind = _code(described, "SegmentedPropertyTypeCodeSequence")
    if category is None or kind is None:
        raise Refused(
            f"segment {segment} does not say what it is (Segmented Property Category and Type); its source must"
        )
    (typed, *_) = items(described, "SegmentedPropertyTypeCodeSequence")
    modifiers = items(typed, "SegmentedPropertyTypeModifierCodeSequence")
    sides = [_current(code) for item in modifiers if (code := _of_item(item)) is not None]
    return StoredMask(
        _Packed(planes, place.shape, latest), place.affine, text(described, "SegmentLabel"), category, kind,
        text(described, "SegmentAlgorithmName") or text(described, "SegmentDescription"),
        next((side for side in sides if side.value in _LATERALITY), None), StoredSegment(sop_uid, segment),
    )  # fmt: skip


def _code(header: Dataset, keyword: str) -> Code | None:
    found = code_of(header, keyword)
    return None if found is None else _current(found)


def _of_item(item: Dataset) -> Code | None:
    holder = Dataset()
    holder.ConceptCodeSequence = [item]
    return code_of(holder, "ConceptCodeSequence")


def _current(code: Code) -> Code:
    """A concept of SNOMED's old style (T-62000, SRT) by its present code, as PS3.16 has it since 2019."""
    if code.scheme not in _OLD_SNOMED:
        return code
    value = snomed_mapping["SRT"].get(code.value)
    return code if value is None else Code(value, "SCT", code.meaning)
