"""Presentation → Grayscale Softcopy Presentation State (PS3.3 A.33.1): how received images are to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset

from node.derive.composite import begun, ended
from node.derive.geometry import decimal
from node.derive.inherit import put
from node.derive.making import Making
from node.derive.references import by_series, items
from node.errors import Broken, Refused
from node.operator import Graphic, Presentation

GRAYSCALE_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
_LAYER = "MARKS"
_POINTS = {"POINT": (1, 1), "POLYLINE": (2, 10_000), "CIRCLE": (2, 2), "ELLIPSE": (4, 4)}
"""Fewest and most points of a kind of graphic (C.10.5); an ellipse has the ends of both its axes."""
_LABEL = re.compile(r"[A-Z0-9_ ]{1,16}")


def presentations(making: Making, presentation: Presentation) -> Iterator[Dataset]:
    """Make the one presentation state of *presentation*, ready to be written.

    It covers all received images where it says how they are shown, else those that carry a mark. Raises
    Refused where these are no grey images or cannot share one state, Broken where a mark cannot be drawn.
    """
    indices = _covered(making, presentation)
    _check_images(making, indices)
    dataset = begun(making, GRAYSCALE_STATE, "PR")
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = None  # type 2C (C.7.3.1): it may be one of a pair, and nobody says which
    dataset.ContentLabel = presentation.label
    dataset.ContentDescription = presentation.description[:64]
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = making.date, making.time
    dataset.ContentCreatorName = making.job.provenance.device  # the node: nobody looked at it
    dataset.ReferencedSeriesSequence = by_series(making.sources, indices, "ReferencedImageSequence")
    _set_area(dataset, making, indices)
    _set_greys(dataset, making, presentation, indices)
    if presentation.graphics:
        dataset.GraphicAnnotationSequence = list(_annotations(making, presentation.graphics))
        layer = Dataset()
        layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
        dataset.GraphicLayerSequence = [layer]
    yield ended(making, dataset)


def _covered(making: Making, presentation: Presentation) -> list[int]:
    """Which images the state is of."""
    name, count = making.output.name, len(making.sources.headers)
    if not _LABEL.fullmatch(presentation.label):
        raise Broken(f"output {name}: the label {presentation.label!r} must be 1 to 16 capital letters, "
                     "digits, blanks or underscores")  # fmt: skip
    for graphic in presentation.graphics:
        _check_graphic(name, graphic, count)
    if presentation.window is not None and not presentation.window[1] > 0:
        raise Broken(f"output {name}: the width of the window is {presentation.window[1]:g}, not above 0")
    if presentation.window is not None or presentation.inverted or not presentation.graphics:
        return list(range(count))
    return sorted({graphic.image for graphic in presentation.graphics})


def _check_graphic(name: str, graphic: Graphic, count: int) -> None:
    if not 0 <= graphic.image < count:
        raise Broken(f"output {name}: a mark is on image {graphic.image}, the operator got {count} (from 0)")
    if graphic.kind not in _POINTS:
        raise Broken(f"output {name}: a mark is a {graphic.kind}; known are {', '.join(_POINTS)}")
    fewest, most = _POINTS[graphic.kind]
    if not fewest <= len(graphic.points) <= most:
        raise Broken(f"output {name}: a {graphic.kind} has {len(graphic.points)} points; "
                     f"{fewest if fewest == most else f'at least {fewest}'} are needed")  # fmt: skip
    if not np.isfinite(graphic.points).all():
        raise Broken(f"output {name}: a mark has a coordinate that is not a number")


def _check_images(making: Making, indices: Sequence[int]) -> None:
    """Whether one grayscale state can be of these images."""
    name, sources = making.output.name, making.sources
    kinds = {sources.text("PhotometricInterpretation", i) for i in indices}
    if not kinds <= {"MONOCHROME1", "MONOCHROME2"}:
        said = ", ".join(sorted(kind or "no pixels" for kind in kinds))
        raise Refused(f"output {name}: a grayscale presentation state is of grey images, these are {said}; "
                      "return a picture instead")  # fmt: skip
    if len(kinds) > 1:
        raise Refused(f"output {name}: MONOCHROME1 and MONOCHROME2 images cannot share a presentation state")
    for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"):
        if len({str(sources.headers[i].get(keyword)) for i in indices}) > 1:
            raise Refused(f"output {name}: the images differ in {keyword}, and one presentation state has "
                          "one for all (C.11.1); return a picture instead")  # fmt: skip


def _set_area(dataset: Dataset, making: Making, indices: Sequence[int]) -> None:
    """All of each image, fitted to the display, pixels in their true proportions (C.10.4)."""
    groups: dict[tuple[int, int, str, str], list[int]] = {}
    for i in indices:
        header = making.sources.headers[i]
        spacing = making.sources.text("PixelSpacing", i) or making.sources.text("ImagerPixelSpacing", i)
        aspect = making.sources.text("PixelAspectRatio", i)
        groups.setdefault((int(header.Rows), int(header.Columns), spacing, aspect), []).append(i)
    areas = []
    for (rows, columns, spacing, aspect), members in groups.items():
        item = Dataset()
        if len(groups) > 1:
            item.ReferencedImageSequence = items(making.sources, members)
        item.DisplayedAreaTopLeftHandCorner = [1, 1]
        item.DisplayedAreaBottomRightHandCorner = [columns, rows]
        item.PresentationSizeMode = "SCALE TO FIT"
        if spacing:
            item.PresentationPixelSpacing = spacing.split("\\")
        else:
            item.PresentationPixelAspectRatio = aspect.split("\\") if aspect else [1, 1]
        areas.append(item)
    dataset.DisplayedAreaSelectionSequence = areas


def _set_greys(dataset: Dataset, making: Making, presentation: Presentation, indices: Sequence[int]) -> None:
    """The whole chain from stored value to grey: a state replaces all of the images' own (C.11.1 to C.11.6)."""
    sources = making.sources
    columns = sources.inherit(sources.sop_class).columns
    slope, intercept = (sources.text(k, indices[0]) for k in ("RescaleSlope", "RescaleIntercept"))
    if "ModalityLUTSequence" in sources.headers[indices[0]]:
        column = columns.get("ModalityLUTSequence")
        put(dataset, "ModalityLUTSequence", column.agreed(indices) if column else None)
    elif slope and intercept:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.RescaleType = sources.text("RescaleType", indices[0]) or (
            "HU" if sources.text("Modality") == "CT" else "US"
        )
    windows = _windows(making, presentation, indices)
    if windows:
        dataset.SoftcopyVOILUTSequence = windows
    negative = sources.text("PhotometricInterpretation", indices[0]) == "MONOCHROME1"
    # MONOCHROME1 says what INVERSE says, and counts no more once there is a state (C.11.6.1.2).
    dataset.PresentationLUTShape = "INVERSE" if negative != presentation.inverted else "IDENTITY"


def _windows(making: Making, presentation: Presentation, indices: Sequence[int]) -> list[Dataset]:
    """The window asked for, else the images' own first one, so that a state of marks changes nothing else."""
    if presentation.window is not None:
        item = Dataset()
        item.WindowCenter, item.WindowWidth = (decimal(number) for number in presentation.window)
        slope = making.sources.number("RescaleSlope") or 1.0
        # LINEAR shows a width of 2 as 1 (C.11.2.1.2): nothing for HU, all for an SUV.
        if presentation.window[1] < 1 or not slope.is_integer():
            item.VOILUTFunction = "LINEAR_EXACT"
        return [item]
    groups: dict[tuple[str, str], list[int]] = {}
    for i in indices:
        pair = tuple(making.sources.text(k, i).split("\\")[0] for k in ("WindowCenter", "WindowWidth"))
        groups.setdefault((pair[0], pair[1]), []).append(i)
    made = []
    for (centre, width), members in groups.items():
        if not centre or not width:
            continue
        item = Dataset()
        if len(groups) > 1:
            item.ReferencedImageSequence = items(making.sources, members)
        item.WindowCenter, item.WindowWidth = centre, width
        made.append(item)
    return made


def _annotations(making: Making, graphics: Sequence[Graphic]) -> Iterator[Dataset]:
    """One item per marked image, with its marks and their texts."""
    images: dict[int, list[Graphic]] = {}
    for graphic in graphics:
        images.setdefault(graphic.image, []).append(graphic)
    for image, marks in images.items():
        item = Dataset()
        item.ReferencedImageSequence = items(making.sources, [image])
        item.GraphicLayer = _LAYER
        texts = [_text(mark) for mark in marks if mark.text]
        if texts:
            item.TextObjectSequence = texts
        item.GraphicObjectSequence = [_graphic(mark) for mark in marks]
        yield item


def _pixel(point: tuple[float, float]) -> list[float]:
    r"""(row, column) from the centre of the first pixel → column\row from its upper left corner (C.10.5.1.2)."""
    return [float(point[1]) + 0.5, float(point[0]) + 0.5]


def _graphic(mark: Graphic) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(mark.points)
    item.GraphicData = [number for point in mark.points for number in _pixel(point)]
    item.GraphicType = mark.kind
    closed = mark.kind in ("CIRCLE", "ELLIPSE") or (
        mark.kind == "POLYLINE" and mark.points[0] == mark.points[-1]
    )
    if closed:
        item.GraphicFilled = "N"
    return item


def _text(mark: Graphic) -> Dataset:
    """The text stands at the mark's rightmost point, without a line to it."""
    item = Dataset()
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = mark.text[:1024]
    item.AnchorPoint = _pixel(max(mark.points, key=lambda point: point[1]))
    item.AnchorPointVisibility = "N"
    return item
