"""What the readers of this room give: a value for operators, and the headers that results descend from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydicom import Dataset

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[T_co]):
    """One part of a series as an operator sees it."""

    value: T_co
    headers: tuple[Dataset, ...]
    """One per slice, frame or object, in the order of *value*, without pixel data, each with its file meta.

    The header of a frame is that of its object with what its functional groups say lifted to the top, as
    a single-frame image would say it; its SOP Class UID stays that of the object."""
    frames: tuple[int, ...] = ()
    """Per header: the frame number (from 1) in its object, 0 for a single-frame object."""
    label: str = ""
    """What tells this part from the others, e.g. `b_value 800`; empty where the series is not split."""
    sizes: tuple[int, ...] = ()
    """How many headers each volume of a Stack has, in their order."""
    remarks: tuple[str, ...] = ()
    """What reading had to decide, in sentences: reports on *value* and the run's event say them."""


@dataclass(frozen=True, eq=False)
class Part(Generic[T_co]):
    """One part of a series before its pixels are read: what cannot be read refuses itself, not the others."""

    label: str
    """As `Loaded.label`."""
    load: Callable[[], Loaded[T_co]]
    """Read it. Raises Refused where this part does not suit, Broken where a file cannot be read."""
