"""Tables on pages of A4 proportions, as grey pictures: what a report looks like where no report is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from node.derive.drawing import FAINT, GROUND, INK, RULE, Pixels, fitted, font, width_of, wrapped

WIDTH, HEIGHT = 1240, 1754
"""A4 upright at 150 pixels per inch."""
_MARGIN, _FOOT = 80, 70
_TEXT, _LINE = 22, 30
_TITLE = 36
_PAD = 12
"""Between the text of two columns."""
_MOST_LINES = 4
"""Of one cell; what is longer is cut, so that a row always fits a page."""
_MOST_OF_A_REMARK = 12


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    share: int
    """Of the width, relative to the other columns."""
    right: bool = False
    """Numbers are aligned at their right."""


@dataclass(frozen=True)
class Table:
    """What a page or several show."""

    title: str
    about: tuple[tuple[str, str], ...]
    """Lines above the table: what, and its value."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    """One text per column; a first column equal to that of the row above is drawn once."""
    footer: str
    remarks: tuple[tuple[str, str], ...] = ()
    """Sentences below the rows: what they are about, and the text, over all columns but the first."""


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[tuple[str, ...], ...]
    """Lines of each cell; of a remark there are two, the second as wide as all other columns."""
    group: str

    def height(self, *, first: bool) -> int:
        """Pixels of the row; *first* of its group it also shows what the group is called."""
        return max(map(len, self.cells if first else self.cells[1:])) * _LINE + 14


def pages(table: Table) -> list[Pixels]:
    """Draw *table* as (rows, columns) of grey, as many pages as it takes, all of one size."""
    edges = _edges(table.columns)
    rows = [_laid_out(row, table.columns, edges) for row in table.rows]
    rows += [_remark(what, text, edges) for what, text in table.remarks]
    sheets = list(_divided(rows, HEIGHT - _FOOT - _head_height(table) - _LINE - 24))
    return [_page(table, edges, sheet, f"page {n} of {len(sheets)}") for n, sheet in enumerate(sheets, 1)]


def _edges(columns: Sequence[Column]) -> list[int]:
    shares = np.cumsum([0, *(column.share for column in columns)])
    return [_MARGIN + round((WIDTH - 2 * _MARGIN) * float(s) / float(shares[-1])) for s in shares]


def _laid_out(row: Sequence[str], columns: Sequence[Column], edges: Sequence[int]) -> _Row:
    cells = [
        tuple(wrapped(text, _TEXT, edges[i + 1] - edges[i] - _PAD, lines=_MOST_LINES))
        for i, (text, _) in enumerate(zip(row, columns, strict=True))
    ]
    return _Row(tuple(cells), row[0])


def _remark(what: str, text: str, edges: Sequence[int]) -> _Row:
    side = tuple(wrapped(what, _TEXT, edges[1] - edges[0] - _PAD, lines=_MOST_LINES))
    lines = tuple(wrapped(text, _TEXT, edges[-1] - edges[1] - _PAD, lines=_MOST_OF_A_REMARK))
    return _Row((side, lines), f"{what}:")  # no region is called so


def _divided(rows: Sequence[_Row], room: int) -> Iterator[list[_Row]]:
    """Rows page by page; there is always one page."""
    sheet: list[_Row] = []
    used = 0
    for row in rows:
        first = not sheet or sheet[-1].group != row.group
        if sheet and used + row.height(first=first) > room:
            yield sheet
            sheet, used, first = [], 0, True
        sheet.append(row)
        used += row.height(first=first)
    yield sheet


def _about(table: Table) -> list[tuple[str, list[str]]]:
    side = max((width_of(what, _TEXT) for what, _ in table.about), default=0) + 24
    room = WIDTH - 2 * _MARGIN - side
    return [(what, wrapped(text, _TEXT, room, lines=3)) for what, text in table.about]


def _title(table: Table) -> list[str]:
    return wrapped(table.title, _TITLE, WIDTH - 2 * _MARGIN, bold=True, lines=2)


def _head_height(table: Table) -> int:
    lines = sum(len(text) for _, text in _about(table))
    return _MARGIN + len(_title(table)) * 46 + 18 + lines * _LINE + 30


def _page(table: Table, edges: Sequence[int], rows: Sequence[_Row], number: str) -> Pixels:
    image = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    y = _draw_head(image, table)
    y = _draw_titles(image, table, edges, y)
    draw = ImageDraw.Draw(image)
    group = None
    for row in rows:
        if group is not None and row.group != group:
            draw.line([(_MARGIN, y), (WIDTH - _MARGIN, y)], RULE, 1)
        first = row.group != group
        _draw_row(draw, table, edges, row, y, first=first)
        group = row.group
        y += row.height(first=first)
    _draw_foot(draw, table.footer, number)
    return np.asarray(image.convert("L"))


def _draw_head(image: Image.Image, table: Table) -> int:
    draw, y = ImageDraw.Draw(image), _MARGIN
    for line in _title(table):
        draw.text((_MARGIN, y), line, INK, font(_TITLE, bold=True))
        y += 46
    y += 18
    side = max((width_of(what, _TEXT) for what, _ in table.about), default=0) + 24
    for what, lines in _about(table):
        draw.text((_MARGIN, y), what, FAINT, font(_TEXT))
        for line in lines:
            draw.text((_MARGIN + side, y), line, INK, font(_TEXT))
            y += _LINE
    return y + 30


def _draw_titles(image: Image.Image, table: Table, edges: Sequence[int], y: int) -> int:
    draw = ImageDraw.Draw(image)
    for i, column in enumerate(table.columns):
        text = fitted(column.title, _TEXT, edges[i + 1] - edges[i] - _PAD, bold=True)
        x, anchor = (edges[i + 1] - _PAD, "ra") if column.right else (edges[i], "la")
        draw.text((x, y), text, FAINT, font(_TEXT, bold=True), anchor=anchor)
    draw.line([(_MARGIN, y + _LINE + 4), (WIDTH - _MARGIN, y + _LINE + 4)], FAINT, 2)
    return y + _LINE + 12


def _draw_row(
    draw: ImageDraw.ImageDraw, table: Table, edges: Sequence[int], row: _Row, y: int, *, first: bool
) -> None:
    for i, (column, lines) in enumerate(zip(table.columns, row.cells, strict=False)):
        if i == 0 and not first:
            continue
        right = column.right and len(row.cells) == len(table.columns)
        x, anchor = (edges[i + 1] - _PAD, "ra") if right else (edges[i], "la")
        for k, line in enumerate(lines):
            draw.text((x, y + 7 + k * _LINE), line, INK, font(_TEXT), anchor=anchor)


def _draw_foot(draw: ImageDraw.ImageDraw, footer: str, number: str) -> None:
    y, size = HEIGHT - _FOOT + 12, 18
    draw.line([(_MARGIN, y - 12), (WIDTH - _MARGIN, y - 12)], RULE, 1)
    side = width_of(number, size) + 24
    draw.text((_MARGIN, y), fitted(footer, size, WIDTH - 2 * _MARGIN - side), FAINT, font(size))
    draw.text((WIDTH - _MARGIN, y), number, FAINT, font(size), anchor="ra")
