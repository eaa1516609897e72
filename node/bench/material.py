"""What is sent: analytic CT and MR phantoms of the sizes of real slices, made anew for each run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from node.operator import Volume
from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

_PERIOD = 10
"""Slices that are made; longer series repeat them, each with its own UID and position."""


def write_ct(folder: Path, slices: int, name: str = "ct") -> list[Path]:
    """Write CT slices of 512 × 512 × 16 bit, about 525 kB each."""
    made = body_volume(Grid((_PERIOD, 512, 512), (2.5, 0.625, 0.625)))
    return write_ct_series(folder, _repeated(made, slices), series=Series(name, "bench"))


def write_mr(folder: Path, slices: int, name: str = "mr") -> list[Path]:
    """Write MR slices of 128 × 128 × 16 bit, about 34 kB each."""
    made = head_volume(Grid((_PERIOD, 128, 128), (3.0, 1.875, 1.875)))
    return write_mr_series(folder, _repeated(made, slices), series=Series(name, "bench"))


def write_examination(folder: Path, number: int) -> list[Path]:
    """Write a T1-weighted head of 20 slices of 256 × 256; each *number* is a study of its own."""
    made = head_volume(Grid((20, 256, 256), (5.0, 0.94, 0.94)))
    return write_mr_series(folder, made, series=Series("mr", f"bench-{number}"))


def _repeated(made: Volume, slices: int) -> Volume:
    return dataclasses.replace(made, array=np.resize(made.array, (slices, *made.array.shape[1:])))
