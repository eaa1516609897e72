"""Recordings on paper: the 12-lead page of 25 mm/s and 10 mm/mV, and stacked channels for everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.derive.drawing import Colour, Pixels, drawable, fitted, font, number, unit_text
from node.model import Code
from node.operator import Channel, Waveform

WIDTH, HEIGHT = 1360, 860
_FINE = 2
"""Drawn so many times finer, then averaged: smooth lines."""
_PX = 5
"""Pixels per mm of paper."""
_SPEED = 25 * _PX
"""Pixels per second at 25 mm/s."""
_LEFT, _TOP, _BOTTOM = 70, 84, 36
_SECONDS = 10
_STACK = 24
"""Channels of one page."""
_PAPER: Colour = (255, 251, 247)
_THIN: Colour = (246, 208, 201)
_THICK: Colour = (230, 156, 147)
_TRACE: Colour = (10, 10, 20)
_SOFT: Colour = (90, 80, 80)
_LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
"""Three rows of four leads, 2.5 s each (AHA/ACCF/HRS 2007, Part I); lead II runs below."""
_MILLIVOLTS = {"uV": 1e-3, "mV": 1.0, "V": 1e3, "nV": 1e-6}
_GAINS = (10.0, 5.0, 2.5)
"""mm/mV: the usual one, and what is taken where complexes would run into each other."""


def sheets(groups: Sequence[Waveform], title: str, most: int) -> list[Pixels]:
    """Draw at most *most* pages, (rows, columns, 3) each, the groups one after the other."""
    made: list[Pixels] = []
    for group in groups:
        for page in _pages(group, title):
            if len(made) == most:
                return made
            made.append(page)
    return made


def _pages(group: Waveform, title: str) -> Iterator[Pixels]:
    leads = _twelve(group)
    seconds = group.array.shape[1] / group.frequency
    if leads is not None and seconds >= 0.99 * _SECONDS:
        yield _twelve_lead_page(group, leads, title)
        return
    span = min(float(_SECONDS), seconds)
    scales = _scales(group)
    for start in np.arange(0, max(seconds - 0.01, 0.01), span):
        for first in range(0, len(group.channels), _STACK):
            chosen = range(first, min(first + _STACK, len(group.channels)))
            yield _stacked_page(group, chosen, (float(start), span), scales, title)


def _lead(channel: Channel) -> str:
    """The lead a channel records: `Lead aVR (Einthoven)` and `AVR` are aVR."""
    words = (channel.label or (channel.source.meaning if channel.source else "")).split()
    name = next((word for word in words if word.casefold() not in ("lead", "ecg")), "")
    known = {lead.casefold(): lead for row in _LAYOUT for lead in row}
    return known.get(name.casefold(), "")


def _twelve(group: Waveform) -> dict[str, int] | None:
    """Channel numbers of the twelve leads, None where the group has not all of them in a voltage."""
    leads: dict[str, int] = {}
    for i, channel in enumerate(group.channels):
        if channel.unit.value in _MILLIVOLTS:
            leads.setdefault(_lead(channel), i)
    return leads if all(lead in leads for row in _LAYOUT for lead in row) else None


@dataclass(frozen=True)
class _Paper:
    """An image *_FINE* times larger than it leaves; everything is drawn in final pixels."""

    image: Image.Image

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def line(self, points: Any, colour: Colour, width: float = 1.0) -> None:
        scaled = [(float(x) * _FINE, float(y) * _FINE) for x, y in points]
        self.draw.line(scaled, colour, max(1, round(width * _FINE)), joint="curve")

    def text(self, at: tuple[float, float], text: str, size: int, colour: Colour = _TRACE, anchor: str = "la",
             *, bold: bool = False) -> None:  # fmt: skip
        self.draw.text(
            (at[0] * _FINE, at[1] * _FINE),
            drawable(text),
            colour,
            font(size * _FINE, bold=bold),
            anchor=anchor,
        )

    def trace(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Draw y over x; where y is not a number there is a gap."""
        finite = np.isfinite(y)
        edges = np.flatnonzero(np.diff(np.r_[False, finite, False].astype(int)))
        for start, end in edges.reshape(-1, 2):
            if end - start > 1:
                self.line(np.c_[x[start:end], y[start:end]], _TRACE, 1.2)

    def pixels(self) -> Pixels:
        return np.asarray(self.image.reduce(_FINE))


def _paper(title: str, said: str) -> _Paper:
    paper = _Paper(Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE), _PAPER))
    paper.text((24, 14), fitted(title, 22, WIDTH - 48, bold=True), 22, bold=True)
    paper.text((24, 46), fitted(said, 16, WIDTH - 48), 16, _SOFT)
    return paper


def _grid(paper: _Paper, box: tuple[int, int, int, int]) -> None:
    """Draw millimetre paper into *box* (x, y, right, bottom): a firmer line every fifth."""
    x, y, right, bottom = box
    for firm, colour in ((False, _THIN), (True, _THICK)):
        for k, at in enumerate(range(x, right + 1, _PX)):
            if (k % 5 == 0) == firm:
                paper.line([(at, y), (at, bottom)], colour, 0.5)
        for k, at in enumerate(range(y, bottom + 1, _PX)):
            if (k % 5 == 0) == firm:
                paper.line([(x, at), (right, at)], colour, 0.5)


def _twelve_lead_page(group: Waveform, leads: dict[str, int], title: str) -> Pixels:
    millivolts = {lead: _millivolts(group, i) for lead, i in leads.items() if lead}
    shown = round(_SECONDS * group.frequency)
    band = (HEIGHT - _TOP - _BOTTOM) // 4
    gain = _gain([values[:shown] for values in millivolts.values()], band / _PX)
    said = "  ·  ".join(filter(None, ("25 mm/s", f"{gain:g} mm/mV", _band(group.channels[leads["II"]]))))
    paper = _paper(title, said)
    right = _LEFT + _SECONDS * _SPEED
    _grid(paper, (_LEFT - 8 * _PX, _TOP, right, _TOP + 4 * band - (4 * band) % _PX))
    quarter = shown // 4
    for row, names in enumerate((*_LAYOUT, ("II",))):
        middle = _TOP + band * row + band // 2
        _pulse(paper, middle, gain)
        span = quarter if len(names) == 4 else shown
        for column, name in enumerate(names):
            start = column * span
            values = millivolts[name][start : start + span]
            x = _LEFT + (start + np.arange(len(values))) / group.frequency * _SPEED
            paper.trace(x, middle - (values - _baseline(values)) * gain * _PX)
            at = _LEFT + start / group.frequency * _SPEED
            if column:
                paper.line([(at, middle - 12), (at, middle + 12)], _SOFT, 1)
            paper.text((at + 6, middle - band // 2 + 8), name, 18, bold=True)
    return paper.pixels()


def _pulse(paper: _Paper, middle: float, gain: float) -> None:
    """The calibration pulse: 1 mV for 200 ms."""
    x, top = _LEFT - 7 * _PX, middle - gain * _PX
    points = [(x, middle), (x + _PX, middle), (x + _PX, top), (x + 6 * _PX, top), (x + 6 * _PX, middle),
              (x + 7 * _PX, middle)]  # fmt: skip
    paper.line(points, _TRACE, 1.2)


def _millivolts(group: Waveform, channel: int) -> NDArray[np.float64]:
    return group.array[channel] * _MILLIVOLTS[group.channels[channel].unit.value]


def _baseline(values: NDArray[np.float64]) -> float:
    return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0


def _gain(leads: Sequence[NDArray[np.float64]], room: float) -> float:
    """The largest gain at which no lead leaves 1.2 times its band of *room* mm."""
    reach = 0.0
    for values in leads:
        finite = values[np.isfinite(values)]
        if finite.size:
            reach = max(reach, float(np.abs(finite - np.median(finite)).max()))
    return next((gain for gain in _GAINS if reach * gain <= 0.6 * room), _GAINS[-1])


def _band(channel: Channel) -> str:
    low, high = channel.band
    ends = [f"from {low:g} Hz" if low is not None else "", f"to {high:g} Hz" if high is not None else ""]
    return " ".join(["filter", *filter(None, ends)]) if any(ends) else ""


def _scales(group: Waveform) -> dict[Code, float]:
    """Per unit the deviation that reaches the edge of a row: a peak may go a little into the next one."""
    reach: dict[Code, float] = {}
    for channel, values in zip(group.channels, group.array, strict=True):
        finite = values[np.isfinite(values)]
        if finite.size:
            far = float(np.percentile(np.abs(finite - np.median(finite)), 99.5))
            reach[channel.unit] = max(reach.get(channel.unit, 0.0), far)
    return {unit: _round_up(far / 1.4) for unit, far in reach.items()}


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))


def _stacked_page(
    group: Waveform,
    chosen: Sequence[int],
    window: tuple[float, float],
    scales: dict[Code, float],
    title: str,
) -> Pixels:
    start, span = window
    left, right, bottom = 150, WIDTH - 24, HEIGHT - _BOTTOM
    row = (bottom - _TOP) / len(chosen)
    said = [f"each row ± {number(half)} {unit_text(unit)}" for unit, half in scales.items()]
    paper = _paper(title, "  ·  ".join(filter(None, (group.label, *said, "positive up"))))
    _time_axis(paper, (left, _TOP, right, bottom), start, span)
    first = round(start * group.frequency)
    samples = group.array[:, first : first + round(span * group.frequency)]
    for k, i in enumerate(chosen):
        channel, values = group.channels[i], samples[i]
        middle = _TOP + row * (k + 0.5)
        half = scales.get(channel.unit, 1.0)
        y = middle - ((values - _baseline(group.array[i])) / half).clip(-1.5, 1.5) * row / 2
        x = left + np.arange(len(values)) / group.frequency / span * (right - left)
        paper.trace(x, y)
        size = int(np.clip(row * 0.6, 9, 17))
        name = _lead(channel) or channel.label or f"channel {i + 1}"
        paper.text((24, middle), fitted(name, size, left - 36), size, anchor="lm")
    return paper.pixels()


def _time_axis(paper: _Paper, box: tuple[int, int, int, int], start: float, span: float) -> None:
    """A line and a number at round times: seconds, or tenths where the page is shorter than two."""
    x, y, right, bottom = box
    step = _round_up(span / 10)
    paper.line([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], _THICK, 1)
    for k in range(int(span / step + 1e-6) + 1):
        at = x + k * step / span * (right - x)
        paper.line([(at, y), (at, bottom)], _THICK, 0.5)
        paper.text((at, bottom + 6), f"{start + k * step:g}", 14, _SOFT, "ma")
    paper.text((24, bottom + 6), "seconds", 14, _SOFT)
