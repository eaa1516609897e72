"""What a destination gets that does not show a result: the same as a picture (design, `as: picture`).

Patient Name, Patient ID and birth date are never drawn: they stand in the header of the capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from node.derive.derivation import step_of
from node.derive.drawing import number, unit_text
from node.derive.making import Making
from node.derive.page import Column, Table, pages
from node.derive.remarks import remarks_of
from node.derive.shown import (
    drawn_key_images,
    drawn_map,
    drawn_mask,
    drawn_presentation,
    drawn_segments,
    drawn_stack,
    drawn_volume,
    facts_of,
    title_of,
)
from node.derive.slices import MOST
from node.derive.strip import sheets
from node.errors import Refused
from node.operator import (
    Document,
    FractionalMask,
    KeyImages,
    Map,
    Mask,
    Measurement,
    Picture,
    Presentation,
    Recording,
    Report,
    Segments,
    Stack,
    Tiles,
    Volume,
)

_COLUMNS = (
    Column("Region", 22), Column("Quantity", 32), Column("Value", 13, right=True), Column("Unit", 11),
    Column("Method", 30),
)  # fmt: skip
_MOST_SIDE = 4096
"""Rows or columns of a slide's level that is shown whole."""


def rendition(making: Making, result: object, made: Sequence[Dataset]) -> Picture:  # noqa: ARG001
    """Draw *result* as a picture; *made* are the objects that say the same.

    Raises Refused, in words, where there is nothing that could be drawn.
    """
    for kind, draw in _DRAWN.items():
        if isinstance(result, kind):
            return draw(making, result)
    raise Refused(
        f"output {making.output.name}: a {type(result).__name__} cannot be drawn as a picture; "
        "leave `picture` out of its `as:`"
    )


def _measurements(making: Making, measurements: list[Measurement]) -> Picture:
    return _report(making, Report(tuple(measurements)))


def _report(making: Making, report: Report) -> Picture:
    sources, measurements = making.sources, report.measurements
    width = len(_COLUMNS) if any(m.method for m in measurements) else len(_COLUMNS) - 1
    table = Table(
        title=f"Measurements: {making.output.name}",
        about=tuple((what, text) for what, text in (
            ("Study", ", ".join(filter(None, (sources.text("StudyDescription"), _iso(sources.text("StudyDate")))))),
            ("Modality", sources.text("Modality")),
            ("Source", _source(making)),
            ("Part", making.part.label),
            ("Algorithm", _algorithm(making)),
            ("Notice", making.job.provenance.notice),
        ) if text),
        columns=_COLUMNS[:width],
        rows=tuple(_row(m)[:width] for m in sorted(measurements, key=_region_order(measurements))),
        remarks=tuple((remark.name.meaning, remark.text) for remark in remarks_of(making, report)),
        footer=f"Made by {making.job.provenance.software} on {making.now:%Y-%m-%d %H:%M %z}".rstrip(),
    )  # fmt: skip
    return Picture(np.stack(pages(table)), title=table.title, facts={**facts_of(making), "burned_in": False})


def _region_order(measurements: Sequence[Measurement]) -> Callable[[Measurement], int]:
    """Regions in the order in which they first appear, so that each stands together."""
    first = {_region(m): i for i, m in reversed(list(enumerate(measurements)))}
    return lambda measurement: first[_region(measurement)]


def _region(measurement: Measurement) -> str:
    if measurement.region is not None:
        return measurement.region.label
    place = " ".join(code.meaning for code in (measurement.laterality, measurement.site) if code)
    return place or "whole image"


def _row(m: Measurement) -> tuple[str, ...]:
    quantity = ", ".join([m.name.meaning, *([m.derivation.meaning] if m.derivation else [])])
    method = m.method.meaning if m.method else ""
    return _region(m), quantity, number(float(m.value)), unit_text(m.unit), method


def _source(making: Making) -> str:
    sources = making.sources
    count = len(sources.headers)
    series = f"series {sources.text('SeriesNumber')}".strip()
    images = "1 image" if count == 1 else f"{count} images"
    return ", ".join(filter(None, (series, sources.text("SeriesDescription"), images)))


def _algorithm(making: Making) -> str:
    step = step_of(making.job.plan, making.output.name)
    if step is None:
        return making.job.provenance.software
    return f"{step.operator} {making.job.provenance.operators.get(step.operator, '')}".strip()


def _iso(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 and date.isdigit() else date


def _recording(making: Making, recording: Recording) -> Picture:
    date = _iso(making.sources.text("StudyDate"))
    title = " - ".join(filter(None, (making.output.name, making.sources.text("SeriesDescription"), date)))
    made = np.stack(sheets(recording.groups, title, MOST))
    return Picture(made, title=title, facts={**facts_of(making), "burned_in": False})


def _tiles(making: Making, slide: Tiles) -> Picture:
    """The coarsest level, whole."""
    level = slide.levels[-1]
    if max(level.rows, level.columns) > _MOST_SIDE:
        raise Refused(f"output {making.output.name}: the coarsest level of the slide has {level.rows} x "
                      f"{level.columns} pixels; a picture shows {_MOST_SIDE} at most")  # fmt: skip
    whole = np.zeros((level.rows, level.columns, 3), np.uint8)
    rows, columns = level.tile
    for r in range(-(-level.rows // rows)):
        for c in range(-(-level.columns // columns)):
            tile = level.read(r, c)
            tile = tile if tile.ndim == 3 else np.repeat(tile[..., None], 3, axis=-1)
            part = whole[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            part[:] = tile[: part.shape[0], : part.shape[1]]
    title = title_of(making, making.output.name)
    return Picture(whole[None], spacing=level.spacing, plane="patient", title=title, facts=facts_of(making))


def _document(making: Making, document: Document) -> Picture:
    raise Refused(
        f"output {making.output.name}: the PDF {document.title!r} cannot be sent as a picture, the node draws "
        "no PDF pages; send it to a destination that shows PDF"
    )


_DRAWN: dict[type, Callable[[Making, Any], Picture]] = {
    list: _measurements,
    Report: _report,
    Volume: drawn_volume,
    Stack: drawn_stack,
    Mask: drawn_mask,
    Segments: drawn_segments,
    FractionalMask: drawn_mask,
    Map: drawn_map,
    KeyImages: drawn_key_images,
    Presentation: drawn_presentation,
    Recording: _recording,
    Tiles: _tiles,
    Document: _document,
    Picture: lambda _, picture: picture,
}
