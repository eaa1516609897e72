"""Siemens MOSAIC: all slices of a volume as tiles of one image, unpacked to frames.

Number of tiles and direction of stacking stand in the private CSA header; the position in the header
is that of the whole mosaic, centred on the first slice (nibabel, "DICOM Tags in the Nibabel code and
mosaic": `dicom_mosaic`).
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused
from node.read.csa import csa, protocol
from node.read.frames import Frame, Source, copied
from node.read.geometry import directions_of, orientation_of, position_of, spacing_of
from node.read.lift import say

_PARALLEL = 0.999
"""Cosine between the stated slice normal and row × column: 2.5° are rounding, more is another thing."""
_GRID = (0x0065, "Image Private Header", 0x50)
"""How United Imaging says how many slices one image holds."""


def is_mosaic(source: Source) -> bool:
    """Whether the image holds several slices as tiles. Raises Refused for a maker's tiles nobody documents."""
    dataset = source.dataset
    if _whole(_private(dataset, *_GRID)) > 1:
        raise Refused(
            f"{source.name} holds several slices in one image (United Imaging's grid), which cannot be unpacked "
            "here; let the scanner export classic or enhanced images"
        )
    maker = str(dataset.get("Manufacturer") or "").upper()
    return "MOSAIC" in (dataset.get("ImageType") or ()) and maker.startswith("SIEMENS")


def mosaic(source: Source) -> tuple[Frame, ...]:
    """The slices of one mosaic, in the order of its tiles. Raises Refused where its header does not say how."""
    header = source.dataset
    count, normal = _count(source), _normal(source)
    across = ceil(sqrt(count))
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if not rows or not columns or rows % across or columns % across:
        raise Refused(f"{source.name} has {rows} x {columns} pixels, which {count} tiles do not divide")
    size = rows // across, columns // across
    directions = directions_of(orientation_of(header, source.name))
    if abs(directions[2] @ normal) < _PARALLEL:
        raise Refused(f"the slices of {source.name} are not stacked along their normal; that is no volume")
    spacing = spacing_of((header,), (source.name,))
    # The position is that of a slice as large as the mosaic, with the middle of the first slice as its own.
    corner = position_of(header, source.name)
    corner = corner + directions[1] * spacing[0] * (rows - size[0]) / 2
    corner = corner + directions[0] * spacing[1] * (columns - size[1]) / 2
    step = _step(source) * np.sign(directions[2] @ normal) * directions[2]
    return tuple(
        Frame(
            _tile_header(header, corner + k * step, size),
            0,
            source,
            (k // across * size[0], k % across * size[1]),
        )
        for k in range(count)
    )


def _tile_header(header: Dataset, corner: NDArray[np.float64], size: tuple[int, int]) -> Dataset:
    tile = copied(header, lambda tag: tag.group != 0x7FE0)
    say(tile, "ImagePositionPatient", [format(float(v), ".10g") for v in corner])
    say(tile, "Rows", size[0])
    say(tile, "Columns", size[1])
    return tile


def _count(source: Source) -> int:
    """How many tiles are slices: the private attribute, the CSA header, else the protocol in it."""
    places = (
        lambda: _private(source.dataset, 0x0019, "SIEMENS MR HEADER", 0x0A),
        lambda: (*_of_csa(source).get("NumberOfImagesInMosaic", ()), "")[0],
        lambda: _protocol(source).get("sSliceArray.lSize"),
    )
    for place in places:
        if (count := _whole(place())) > 0:
            return count
    raise Refused(
        f"{source.name} is a Siemens mosaic, but its private header, which says how many slices it holds, is "
        "missing or cannot be read; was it removed by an anonymiser?"
    )


def _whole(value: object) -> int:
    """A whole number in whatever form a private element has it, 0 where it is none."""
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError):
        return 0


def _normal(source: Source) -> NDArray[np.float64]:
    """In which direction the tiles follow each other."""
    stated = _of_csa(source).get("SliceNormalVector", ())[:3]
    if len(stated) < 3:
        found = _protocol(source)
        axes = ("dSag", "dCor", "dTra")  # an axis the protocol does not write is 0
        stated = tuple(found.get(f"sSliceArray.asSlice[0].sNormal.{axis}", "0") for axis in axes)
    try:
        normal = np.array([float(text) for text in stated])
    except ValueError:
        normal = np.zeros(3)
    if not 0.9 < np.linalg.norm(normal) < 1.1:
        raise Refused(
            f"{source.name} is a Siemens mosaic, but the direction in which its slices follow each other "
            "(SliceNormalVector in the private CSA header) is missing or cannot be read"
        )
    return normal / np.linalg.norm(normal)


def _step(source: Source) -> float:
    """Distance between slices; slice thickness would leave out the gaps."""
    try:
        step = float(source.dataset.get("SpacingBetweenSlices"))
    except (TypeError, ValueError):
        step = 0.0
    if not (np.isfinite(step) and step > 0):
        raise Refused(f"{source.name} has no usable SpacingBetweenSlices, so where its slices lie is unknown")
    return step


def _of_csa(source: Source, element: int = 0x10) -> dict[str, tuple[str, ...]]:
    data = _private(source.dataset, 0x0029, "SIEMENS CSA HEADER", element)
    try:
        return csa(data) if isinstance(data, bytes) else {}
    except ValueError:
        return {}


def _protocol(source: Source) -> dict[str, str]:
    series = _of_csa(source, 0x20)
    for name in ("MrPhoenixProtocol", "MrProtocol"):
        for text in series.get(name, ()):
            return protocol(text)
    return {}


def _private(dataset: Dataset, group: int, creator: str, element: int) -> object:
    """A private element's value, None where it is absent."""
    try:
        value: object = dataset.private_block(group, creator)[element].value
    except KeyError:
        return None
    if isinstance(value, bytes) and group != 0x0029:  # written as UN
        return value.decode("ascii", "replace").strip("\0 ")
    return value
