"""A picture's values as pixels of a secondary capture, with what gives them back and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.derive.geometry import decimal
from node.derive.pixels import window
from node.errors import Broken
from node.operator import NO_UNITS, Picture

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
GREY_BYTE = "1.2.840.10008.5.1.4.1.1.7.2"
GREY_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
TRUE_COLOUR = "1.2.840.10008.5.1.4.1.1.7.4"


@dataclass(frozen=True)
class Stored:
    """How a picture's values became pixels."""

    pixels: NDArray[Any]
    slope: str = "1"
    intercept: str = "0"
    window: tuple[str, str] | None = None
    photometric: str = "MONOCHROME2"
    said: str = ""
    """What was done to the values, for Derivation Description."""

    inverted: bool = False
    """The pixels are what is shown, the rescale does not give the values back."""

    @property
    def sop_class(self) -> str:
        """The object class of this many frames of this kind (PS3.3 A.8)."""
        if len(self.pixels) == 1:
            return SECONDARY_CAPTURE
        if self.photometric == "RGB":
            return TRUE_COLOUR
        return GREY_BYTE if self.pixels.dtype == np.uint8 else GREY_WORD


def stored_as(picture: Picture) -> Stored:
    """Find how *picture* is stored. Raises Broken where it holds NaN or infinite pixels."""
    return _coloured(picture) if picture.colour else _grey(picture)


def _coloured(picture: Picture) -> Stored:
    pixels = picture.array
    if picture.valid is not None:
        pixels = np.where(picture.valid[..., None], pixels, 0)
    return Stored(pixels.astype(np.uint8, copy=False), photometric="RGB")


def _grey(picture: Picture) -> Stored:
    """Grey values as unsigned integers that keep them, and how they are shown."""
    values = picture.array.astype(np.uint8) * 255 if picture.array.dtype == np.bool_ else picture.array
    shown = _shown(picture, values)
    if picture.inverted and len(values) > 1:
        return _negative(picture, values, shown)
    photometric = "MONOCHROME1" if picture.inverted else "MONOCHROME2"
    if values.dtype == np.uint8:
        stated = picture.facts.get("window")
        kept = values if picture.valid is None else np.where(picture.valid, values, 0)
        return Stored(kept, window=window(*shown) if stated else ("128", "256"), photometric=photometric)
    low, high = _range(values, picture.valid)
    whole = _whole(values, picture.valid)
    if whole and low >= 0 and high <= 255:
        kept = values if picture.valid is None else np.where(picture.valid, values, 0)
        return Stored(kept.astype(np.uint8), window=window(*shown), photometric=photometric)
    slope, intercept = _scale(low, high, whole=whole)
    stored = np.rint((values.astype(np.float64) - float(intercept)) / float(slope)).clip(0, 65535)
    if picture.valid is not None:
        stored[~picture.valid] = 0
    unit = "" if picture.unit.value == NO_UNITS.value else f" {picture.unit.value}"
    said = f"stored as value * {slope} + {intercept}{unit}, shown from {shown[0]:.6g} to {shown[1]:.6g}{unit}"
    return Stored(stored.astype(np.uint16), slope, intercept, window(*shown), photometric, said)


def _negative(picture: Picture, values: NDArray[Any], shown: tuple[float, float]) -> Stored:
    """Multi-frame captures must be MONOCHROME2 (A.8.3.4): what is shown bright is stored bright."""
    low, high = shown
    share = (high - values.astype(np.float64)) / max(high - low, 1e-12)
    stored = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    if picture.valid is not None:
        stored[~picture.valid] = 0
    return Stored(
        stored,
        window=("128", "256"),
        inverted=True,
        said=f"inverted: {low:.6g} to {high:.6g} shown bright to dark",
    )


def _shown(picture: Picture, values: NDArray[Any]) -> tuple[float, float]:
    """Lowest and highest value shown: the window of the facts, else bytes as they are, else 1 % to 99 %."""
    stated = picture.facts.get("window")
    if stated:
        centre, width = (float(number) for number in stated)
        return centre - width / 2, centre + width / 2
    if values.dtype == np.uint8:
        return 0.0, 255.0
    measured = values.reshape(-1) if picture.valid is None else values[picture.valid]
    if not measured.size:
        return 0.0, 1.0
    low, high = np.percentile(measured[:: max(1, measured.size // 1_000_000)], [1, 99])
    return (float(low), float(high)) if high > low else _range(values, picture.valid)


def _range(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[float, float]:
    measured = values if valid is None else values[valid]
    if not measured.size:
        return 0.0, 0.0
    low, high = float(measured.min()), float(measured.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Broken("the picture holds NaN or infinite pixels; mark them as not valid in the operator")
    return low, high


def _whole(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> bool:
    if values.dtype.kind in "iu":
        return True
    measured = values if valid is None else values[valid]
    return bool((measured == np.rint(measured)).all())


def _scale(low: float, high: float, *, whole: bool) -> tuple[str, str]:
    """Slope and intercept of 16 unsigned bits from *low* to *high*: exact for whole numbers that fit."""
    if whole and low >= 0 and high <= 65535:
        return "1", "0"
    if whole and high - low <= 65535 and abs(low) < 1e15:
        return "1", decimal(low)
    intercept = decimal(low)
    if high <= low:
        return "1", intercept
    return decimal((high - float(intercept)) / 65535 * (1 + 1e-9)), intercept
