"""What stored values of a derived image mean, as Real World Value Mapping (PS3.3 C.7.6.16.2.11).

The General Image Module lets every image say it (C.7.6.1). It repeats what rescale and Units say, with the unit and
the quantity coded, so that a reader needs neither the IOD nor our conventions to know them.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.derive.making import code_item
from node.derive.pixels import Scale
from node.operator import NO_UNITS, Code, Volume

_QUANTITY = Code("246205007", "SCT", "Quantity")
_LABEL, _EXPLANATION = 16, 64
"""Characters of SH and LO."""


def set_mapping(dataset: Dataset, volume: Volume, scale: Scale) -> None:
    """Say what the stored values of *volume* mean, unless they are of no unit."""
    if volume.unit.value != NO_UNITS.value:
        quantity = volume.facts.get("quantity")
        named = quantity if isinstance(quantity, Code) else None
        dataset.RealWorldValueMappingSequence = [mapping_item(scale, volume.unit, named)]


def mapping_item(scale: Scale, unit: Code, quantity: Code | None = None) -> Dataset:
    """One item of Real World Value Mapping Sequence for 16-bit values stored by *scale*; padding is left out."""
    low, high = (-32768, 32767) if scale.signed else (0, 65535)
    if scale.padding == high:
        high -= 1
    elif scale.padding is not None:
        low = scale.padding + 1  # it lies below everything that was measured
    item = Dataset()
    item.LUTExplanation = (quantity.meaning if quantity else unit.meaning)[:_EXPLANATION]
    item.LUTLabel = _label(unit)[:_LABEL]
    item.MeasurementUnitsCodeSequence = [code_item(unit)]
    vr = "SS" if scale.signed else "US"
    item.add_new("RealWorldValueFirstValueMapped", vr, low)
    item.add_new("RealWorldValueLastValueMapped", vr, high)
    item.RealWorldValueSlope, item.RealWorldValueIntercept = float(scale.slope), float(scale.intercept)
    if quantity is not None:
        named = Dataset()
        named.ValueType = "CODE"
        named.ConceptNameCodeSequence = [code_item(_QUANTITY)]
        named.ConceptCodeSequence = [code_item(quantity)]
        item.QuantityDefinitionSequence = [named]
    return item


def _label(unit: Code) -> str:
    """What people call it: the annotation of an SUV (SUVbw), else the unit."""
    note = unit.value.partition("{")[2].partition("}")
    return unit.value if note[2] or not note[0] else note[0]
