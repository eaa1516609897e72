"""Graphs as pictures: curves over a common axis and histograms, dark like the images they stand beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1024, 768
"""Pixels."""
_DPI = 100
_GROUND, _INK, _FAINT = "#101014", "#ebebeb", "#5a5a62"
COLOURS = ("#4fb3d9", "#f2a541", "#8fd16f", "#e0637c", "#b58be0", "#f0e36a", "#6fd6c4", "#d9d9d9")
"""Told apart also without red and green; used again from the first where there are more lines."""


@dataclass(frozen=True, eq=False)
class Line:
    """One curve: its name, and where it goes."""

    label: str
    x: NDArray[Any]
    y: NDArray[Any]
    marked: bool = True
    """A dot at each point: it was measured there."""


def curves(title: str, across: str, up: str, lines: Sequence[Line]) -> Picture:
    """Draw *lines* over one axis; *across* and *up* name the axes with their units."""
    figure, axes = _empty(title, across, up)
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        marker = "o" if line.marked else None
        axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4, linewidth=1.8, label=line.label)
    if any(line.label for line in lines):
        _legend(axes)
    return _picture(figure, title)


def histogram(
    title: str, across: str, up: str, lines: Sequence[Line], marks: Sequence[tuple[float, str]] = ()
) -> Picture:
    """Draw each line as steps (its *x* are the edges, one more than *y*), and *marks* as upright lines."""
    figure, axes = _empty(title, across, up)
    for number, line in enumerate(lines):
        axes.stairs(line.y, line.x, color=COLOURS[number % len(COLOURS)], linewidth=1.8, label=line.label)
    for at, text in marks:
        axes.axvline(at, color=_INK, linestyle="--", linewidth=1)
        axes.annotate(
            text, (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -14), textcoords="offset points",
            color=_INK, fontsize=11,
        )  # fmt: skip
    if any(line.label for line in lines):
        _legend(axes)
    return _picture(figure, title)


def _empty(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 (half a second that few runs need)

    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=_GROUND, layout="constrained")
    axes = figure.add_subplot(facecolor=_GROUND)
    axes.set_title(title, color=_INK, fontsize=15)
    axes.set_xlabel(across, color=_INK, fontsize=12)
    axes.set_ylabel(up, color=_INK, fontsize=12)
    axes.tick_params(colors=_INK, labelsize=11)
    axes.grid(color=_FAINT, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(facecolor=_GROUND, edgecolor=_FAINT, labelcolor=_INK, fontsize=11)


def _picture(figure: Figure, title: str) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (as above)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return Picture(pixels[None], title=title, facts={"burned_in": False})
