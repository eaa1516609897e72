"""Whole slide images → Tiles: the levels of a slide, each tile decoded when it is asked for (PS3.3 A.32.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from node.errors import Broken, Refused
from node.operator import Level, Tiles
from node.read.loaded import Loaded, Part
from node.read.objects import (
    code_of,
    frames_of,
    identity,
    in_order,
    items,
    kind_of,
    loaded,
    number,
    numbers,
    text,
)
from node.read.slide_frames import FrameFile, open_frames

_SET_ASIDE = ("LABEL", "OVERVIEW", "THUMBNAIL")
"""Image Type value 3 of what shows the slide but is no level of it (C.8.12.4.1.1)."""
_GLASS = 255
"""What a tile that was never scanned is filled with: white, as clear glass is."""


def tiles(paths: Sequence[Path]) -> Iterator[Loaded[Tiles]]:
    """One Tiles per slide of the series, by container and frame of reference; its headers, finest level first.

    Raises Refused for a slide that cannot be read, when its turn comes; the next one can still be read.
    """
    return map(loaded, parts(paths))


def parts(paths: Sequence[Path]) -> list[Part[Tiles]]:
    """The same, each still to be loaded. Raises Refused where there is none, Broken where a file is gone."""
    slides: dict[tuple[str, str], list[Path]] = {}
    for path in in_order(paths):
        said = identity(path, "ContainerIdentifier", "FrameOfReferenceUID", "SeriesInstanceUID")
        container = text(said, "ContainerIdentifier") or text(said, "FrameOfReferenceUID")
        slides.setdefault((container, text(said, "SeriesInstanceUID")), []).append(path)
    return [Part("", partial(_slide, slide)) for slide in slides.values()]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where the tiles of one level are among the frames of its object."""

    across: int
    """Tiles per row."""
    down: int
    frames: Mapping[tuple[int, int], int] | None
    """(tile row, tile column) → frame from 0; None where they are in reading order."""

    def frame(self, row: int, column: int) -> int | None:
        """The frame of a tile, None where it was not scanned."""
        return row * self.across + column if self.frames is None else self.frames.get((row, column))


def _slide(paths: Sequence[Path]) -> Loaded[Tiles]:
    files = [_opened(path) for path in paths]
    volumes = [file for file in files if _flavour(file.header) not in _SET_ASIDE]
    aside = [file.header for file in files if _flavour(file.header) in _SET_ASIDE]
    if not volumes:
        raise Refused("the slide has only " + ", ".join(sorted({_flavour(h) for h in aside})).lower())
    volumes.sort(key=lambda file: -_matrix(file.header)[0] * _matrix(file.header)[1])
    levels = tuple(_level(file) for file in volumes)
    sizes = [(level.rows, level.columns) for level in levels]
    if len(set(sizes)) < len(sizes):
        raise Refused("the slide has several images of one size (focal planes, stains or concatenated parts)")
    first = volumes[0].header
    headers = tuple(file.header for file in volumes)
    value = Tiles(levels, _origin(first), _orientation(first), _facts(first, aside))
    return Loaded(value, headers, (0,) * len(headers))


def _opened(path: Path) -> FrameFile:
    said = identity(path, "SOPClassUID")
    if said.get("SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
        raise Refused(f"{kind_of(said)} is no whole slide image")
    return open_frames(path)


def _flavour(header: Dataset) -> str:
    kinds = header.get("ImageType")
    return str(kinds[2]) if kinds is not None and not isinstance(kinds, str) and len(kinds) > 2 else "VOLUME"


def _matrix(header: Dataset) -> tuple[int, int]:
    rows, columns = number(header, "TotalPixelMatrixRows"), number(header, "TotalPixelMatrixColumns")
    if not rows or not columns:
        raise Refused("an image of the slide does not say how large its total pixel matrix is")
    return int(rows), int(columns)


def _level(file: FrameFile) -> Level:
    header = file.header
    _check(header)
    rows, columns = _matrix(header)
    tile = int(header.Rows), int(header.Columns)
    down, across = -(-rows // tile[0]), -(-columns // tile[1])
    return Level(
        rows, columns, _spacing(header, rows, columns), tile, _reader(file, _plan(header, down, across))
    )


def _check(header: Dataset) -> None:
    if header.get("ConcatenationUID"):
        raise Refused("a level of the slide comes in several objects (a concatenation), which are not joined")
    for sequence, keyword, what in (
        ("OpticalPathSequence", "NumberOfOpticalPaths", "optical paths"),
        ("", "TotalPixelMatrixFocalPlanes", "focal planes"),
    ):
        count = max(len(items(header, sequence)) if sequence else 0, int(number(header, keyword) or 1))
        if count > 1:
            raise Refused(f"the slide was scanned in {count} {what}; operators take slides of one")
    samples, bits = number(header, "SamplesPerPixel"), number(header, "BitsAllocated")
    colour = text(header, "PhotometricInterpretation")
    if bits != 8 or (samples == 1 and colour != "MONOCHROME2") or samples not in (1, 3):
        raise Refused(f"the slide holds {colour} in {samples or 0:.0f} samples of {bits or 0:.0f} bits; "
                      "RGB and grey of 8 bits are read")  # fmt: skip


def _plan(header: Dataset, down: int, across: int) -> _Plan:
    """Raises Refused where the frames do not cover the matrix, or lie beside the raster of tiles."""
    frames = frames_of(header)
    described = items(header, "PerFrameFunctionalGroupsSequence")
    placed = [item for group in described for item in items(group, "PlanePositionSlideSequence")]
    if text(header, "DimensionOrganizationType") == "TILED_FULL" or (not placed and frames == down * across):
        if frames != down * across:
            raise Refused(f"the slide has {frames} tiles, its total pixel matrix asks for {down * across}")
        return _Plan(across, down, None)
    if len(placed) != frames:
        raise Refused(f"the slide has {frames} tiles and tells the place of {len(placed)}")
    return _Plan(across, down, _sparse(placed, int(header.Rows), int(header.Columns)))


def _sparse(placed: Sequence[Dataset], rows: int, columns: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for frame, item in enumerate(placed):
        top = number(item, "RowPositionInTotalImagePixelMatrix")
        left = number(item, "ColumnPositionInTotalImagePixelMatrix")
        if top is None or left is None or (top - 1) % rows or (left - 1) % columns:
            raise Refused("the tiles of the slide overlap or lie beside their raster, which is not read")
        place = int(top - 1) // rows, int(left - 1) // columns
        if place in found:
            raise Refused("several tiles of the slide lie in one place (focal planes or optical paths)")
        found[place] = frame
    return found


def _reader(file: FrameFile, plan: _Plan) -> Callable[[int, int], NDArray[np.uint8]]:
    size = (int(file.header.Rows), int(file.header.Columns))
    shape = (*size, 3) if int(file.header.SamplesPerPixel) == 3 else size

    def read(row: int, column: int) -> NDArray[np.uint8]:
        if not (0 <= row < plan.down and 0 <= column < plan.across):
            raise Broken(f"tile ({row}, {column}) is outside the level's {plan.down} x {plan.across} tiles")
        frame = plan.frame(row, column)
        if frame is None:
            return np.full(shape, _GLASS, np.uint8)
        found = file.read(frame)
        if found.shape != shape:
            raise Broken(f"frame {frame + 1} of {file.path.name} is {found.shape}, its header says {shape}")
        return found

    return read


def _spacing(header: Dataset, rows: int, columns: int) -> tuple[float, float]:
    """Pixel Measures, else the imaged volume's extent over its pixels (C.8.12.4.1.2); height goes with rows."""
    groups = (
        *items(header, "SharedFunctionalGroupsSequence"),
        *items(header, "PerFrameFunctionalGroupsSequence")[:1],
    )
    for measures in (item for group in groups for item in items(group, "PixelMeasuresSequence")):
        stated = numbers(measures, "PixelSpacing")
        if len(stated) == 2 and min(stated) > 0:
            return stated[0], stated[1]
    height, width = number(header, "ImagedVolumeHeight"), number(header, "ImagedVolumeWidth")
    if not height or not width or min(height, width) <= 0:
        raise Refused("the slide has neither PixelSpacing nor ImagedVolumeWidth, so its sizes are unknown")
    return height / rows, width / columns


def _origin(header: Dataset) -> tuple[float, float]:
    for item in items(header, "TotalPixelMatrixOriginSequence"):
        x, y = (number(item, f"{axis}OffsetInSlideCoordinateSystem") for axis in "XY")
        if x is not None and y is not None:
            return x, y
    raise Refused("the slide does not say where its image begins (TotalPixelMatrixOriginSequence)")


def _orientation(header: Dataset) -> tuple[float, float, float, float, float, float]:
    stated = numbers(header, "ImageOrientationSlide")
    if len(stated) != 6:
        raise Refused("the slide does not say how its image lies on the glass (ImageOrientationSlide)")
    a, b, c, d, e, f = stated
    return a, b, c, d, e, f


def _facts(header: Dataset, aside: Sequence[Dataset]) -> dict[str, Any]:
    """`modality`, `container`, `stain`, `magnification`, `lossy`, `set_aside` …; what is unknown is absent."""
    facts: dict[str, Any] = {
        "modality": text(header, "Modality"),
        "manufacturer": text(header, "Manufacturer"),
        "model": text(header, "ManufacturerModelName"),
        "acquired": text(header, "AcquisitionDateTime"),
        "lossy": text(header, "LossyImageCompression") == "01",
        "set_aside": tuple((_flavour(other), text(other, "SOPInstanceUID")) for other in aside),
    }
    for path in items(header, "OpticalPathSequence"):
        facts["magnification"] = number(path, "ObjectiveLensPower")
        illumination = code_of(path, "IlluminationTypeCodeSequence")
        facts["illumination"] = illumination.meaning if illumination else ""
    absent = numbers(header, "RecommendedAbsentPixelCIELabValue")
    facts["absent_pixel_cielab"] = absent
    return {name: value for name, value in facts.items() if value not in (None, "", ())}
