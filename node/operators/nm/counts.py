"""Counts: how many the camera has seen, how fast, and whether the image holds what its header promises."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Measurement, Picture, Remark, Report
from node.operators.codes import (
    ALL_FRAMES,
    COUNT_RATE,
    COUNTS,
    EMPTY_LINES,
    MAXIMUM,
    MEAN,
    PROJECTION,
    TOTAL,
    private_code,
)
from node.operators.nm.codes import LINES, PER_SECOND
from node.operators.nm.views import counted, frame_words

MOST_FRAMES = 8
"""Up to so many are reported one by one: the views and windows of a planar scan, not the frames of a dynamic one."""
_NAMED = 12
"""Rows or columns without counts that are named one by one."""


def count_qa(picture: Picture) -> Report:
    """Report total counts, count rate, the highest pixel, and rows or columns without counts.

    Each frame by itself where there are no more than 8, and all together. The count rate is counts by frame duration,
    and is left out, with a sentence, where the image does not state the duration. Rows and columns without counts
    count where they lie between others that have some. The sum of all pixels is compared with the Counts Accumulated
    (0018,0070) that the image states, and the highest pixel with the largest value its bits can hold.

    Raises Refused where the image does not hold counts.
    """
    picture = counted(picture)
    durations = picture.facts.get("frame_durations")
    remarks = [Remark(picture.facts["counts_told_by"])] if "counts_told_by" in picture.facts else []
    if not durations:
        remarks.append(
            Remark("No count rate: the image does not state how long its frames were acquired.", missing=True)
        )
    measurements: list[Measurement] = []
    if len(picture.array) <= MOST_FRAMES:
        for number, frame in enumerate(picture.array, 1):
            site = _frame_site(picture, number)
            measurements += _of(frame, site, durations[number - 1] if durations else None)
            remarks += _lines_said(frame, site.meaning)
    if len(picture.array) != 1:
        measurements += _of_all(picture, durations)
        remarks.append(Remark(f"{ALL_FRAMES.meaning}: {len(picture.array)}."))
    remarks += _doubts(picture)
    return Report(tuple(measurements), tuple(remarks))


def _frame_site(picture: Picture, number: int) -> Code:
    words = frame_words(picture, number - 1)
    return private_code(f"FRAME{number}", f"Frame {number}{f': {words}' if words else ''}")


def _of(frame: NDArray[Any], site: Code, duration: float | None) -> list[Measurement]:
    total = float(frame.sum(dtype=np.float64))
    found = [Measurement(PROJECTION, total, COUNTS, TOTAL, site=site)]
    if duration:
        found.append(Measurement(COUNT_RATE, total / (duration / 1000), PER_SECOND, site=site))
    found.append(Measurement(PROJECTION, float(frame.max()), COUNTS, MAXIMUM, site=site))
    rows, columns = empty_lines(frame)
    found.append(Measurement(EMPTY_LINES, float(len(rows) + len(columns)), LINES, site=site))
    return found


def _of_all(picture: Picture, durations: tuple[float, ...] | None) -> list[Measurement]:
    sums = picture.array.sum(axis=(1, 2), dtype=np.float64)
    found = [
        Measurement(PROJECTION, float(sums.sum()), COUNTS, TOTAL, site=ALL_FRAMES),
        Measurement(PROJECTION, float(picture.array.max()), COUNTS, MAXIMUM, site=ALL_FRAMES),
    ]
    if durations:
        rates = sums / (np.array(durations) / 1000)
        found.append(Measurement(COUNT_RATE, float(rates.max()), PER_SECOND, MAXIMUM, site=ALL_FRAMES))
        found.append(Measurement(COUNT_RATE, float(rates.mean()), PER_SECOND, MEAN, site=ALL_FRAMES))
    return found


def empty_lines(frame: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Rows and columns, counted from 1, without counts between others that have some."""
    found = []
    for axis in (1, 0):
        filled = np.asarray((frame > 0).any(axis=axis))
        where = np.flatnonzero(filled)
        inner = range(where[0], where[-1] + 1) if len(where) else range(0)
        found.append([n + 1 for n in inner if not filled[n]])
    return found[0], found[1]


def _lines_said(frame: NDArray[Any], where: str) -> list[Remark]:
    said = []
    for name, lines in zip(("row", "column"), empty_lines(frame), strict=True):
        if lines:
            shown = ", ".join(map(str, lines[:_NAMED])) + (" …" if len(lines) > _NAMED else "")
            several = "s" if len(lines) > 1 else ""
            said.append(
                Remark(f"{where}: {name}{several} {shown} held no counts, between others that have some.")
            )
    return said


def _doubts(picture: Picture) -> list[Remark]:
    """Where pixels and header disagree, or a pixel may have run over."""
    said = []
    total = float(picture.array.sum(dtype=np.float64))
    stated = picture.facts.get("counts_accumulated")
    if not stated:
        said.append(Remark("The image does not state its Counts Accumulated, so its sum is not checked."))
    elif stated != total:
        said.append(
            Remark(f"The pixels add up to {total:.0f}; the image states {stated:.0f} Counts Accumulated.")
        )
    bits = picture.facts.get("bits_stored")
    if bits and float(picture.array.max()) >= 2**bits - 1:
        said.append(Remark(f"A pixel holds {picture.array.max():.0f}, the largest value of {bits:.0f} bits."))
    return said
