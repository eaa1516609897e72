"""Tables and Real World Value Mappings (PS3.3 C.11.1.1, C.7.6.16.2.11): how one frame's values are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused
from node.model import Code

_QUANTITY = {("246205007", "SCT"), ("G-C1C6", "SRT"), ("G-C1C6", "SNM3")}
"""Quantity, as the concept name of a Quantity Definition (TID 15301 and before)."""
_SMALL = 1 << 23
"""A 16-bit value can be added to smaller whole intercepts in float32 without rounding."""


@dataclass(frozen=True, eq=False)
class Scale:
    """From stored to real-world values, for one frame: linear, or by a table."""

    slope: float = 1.0
    intercept: float = 0.0
    table: NDArray[np.float64] | None = None
    """Values of the stored values from *first* on; slope and intercept are then unused."""
    first: int = 0
    bounds: tuple[float, float] | None = None
    """Lowest and highest stored value that means something; None where all do."""

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Real-world values; beyond the ends of a table its last entries count (PS3.3 C.11.1.1)."""
        if self.table is not None:
            return self.table[np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)]
        if self.slope == 1 and self.intercept == 0:
            return stored
        whole = self.intercept == round(self.intercept) and abs(self.intercept) < _SMALL
        if self.slope == 1 and stored.dtype.itemsize <= 2 and whole:
            return stored.astype(np.float32) + np.float32(self.intercept)  # whole numbers: nothing is rounded
        return stored.astype(np.float64) * self.slope + self.intercept

    def undefined(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Where a stored value means nothing; None when all mean something."""
        if self.bounds is None:
            return None
        outside = (stored < self.bounds[0]) | (stored > self.bounds[1])
        return outside if outside.any() else None


@dataclass(frozen=True, eq=False)
class RealWorld:
    """One Real World Value Mapping."""

    unit: Code
    quantity: Code | None
    scale: Scale


def table_of(item: Dataset, header: Dataset) -> Scale:
    """The Modality LUT in *item* of a Modality LUT Sequence. Raises Refused where it is not one."""
    try:
        count, first, bits = (int(v) for v in item.LUTDescriptor)
    except (AttributeError, TypeError, ValueError):
        raise Refused("the ModalityLUTSequence has no usable LUTDescriptor: values are unknown") from None
    count = count or 1 << 16  # PS3.3 C.11.1.1.1
    data = item.get("LUTData")
    if isinstance(data, bytes):
        word = ">u2" if header.original_encoding[1] is False else "<u2"
        kind = np.dtype(word if len(data) >= 2 * count else "u1")
        data = np.frombuffer(data, kind)
    table = np.atleast_1d(np.asarray(data if data is not None else (), np.float64))[:count]
    if len(table) != count:
        raise Refused(f"the ModalityLUTSequence holds {len(table)} of its {count} entries ({bits} bits)")
    return Scale(table=table, first=_as_stored(first, header))


def mappings_of(header: Dataset) -> tuple[RealWorld, ...]:
    """The mappings that one frame offers, those in other than UCUM units or without values left out."""
    found = (_mapping(item, header) for item in header.get("RealWorldValueMappingSequence") or ())
    return tuple(mapping for mapping in found if mapping is not None)


def _mapping(item: Dataset, header: Dataset) -> RealWorld | None:
    unit = _code(item.get("MeasurementUnitsCodeSequence"))
    bounds = _bounds(item, header)
    if unit is None or unit.scheme != "UCUM" or bounds is None:
        return None
    data = item.get("RealWorldValueLUTData")
    if data is not None:
        table = np.atleast_1d(np.asarray(data, np.float64))
        if len(table) != bounds[1] - bounds[0] + 1:
            return None
        return RealWorld(unit, _quantity(item), Scale(table=table, first=int(bounds[0]), bounds=bounds))
    slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
    if slope is None or intercept is None or not slope or not np.isfinite([slope, intercept]).all():
        return None
    return RealWorld(unit, _quantity(item), Scale(float(slope), float(intercept), bounds=bounds))


def _bounds(item: Dataset, header: Dataset) -> tuple[float, float] | None:
    ends = [item.get(f"DoubleFloatRealWorldValue{end}ValueMapped") for end in ("First", "Last")]
    if None not in ends:
        return float(ends[0]), float(ends[1])
    ends = [item.get(f"RealWorldValue{end}ValueMapped") for end in ("First", "Last")]
    if not all(isinstance(end, int) for end in ends):
        return None
    low, high = (_as_stored(end, header) for end in ends)
    return float(min(low, high)), float(max(low, high))


def _as_stored(value: int, header: Dataset) -> int:
    """A US or SS value as the pixels hold it: headers often write it in the other signedness."""
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header or "BitsStored" not in header:
        return value
    signed = bool(header.get("PixelRepresentation", 0))
    value %= 1 << 16
    return value - (1 << 16) if signed and value >= 1 << 15 else value


def _quantity(item: Dataset) -> Code | None:
    for content in item.get("QuantityDefinitionSequence") or ():
        name = _code(content.get("ConceptNameCodeSequence"))
        if name is not None and (name.value, name.scheme) in _QUANTITY:
            return _code(content.get("ConceptCodeSequence"))
    return None


def _code(items: Any) -> Code | None:
    if not items:
        return None
    value = items[0].get("CodeValue") or items[0].get("LongCodeValue") or items[0].get("URNCodeValue")
    scheme = items[0].get("CodingSchemeDesignator")
    return Code(str(value), str(scheme or ""), str(items[0].get("CodeMeaning") or "")) if value else None
