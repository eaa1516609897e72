"""Map → Parametric Map (PS3.3 A.75): 32-bit real numbers in their unit, with the quantity they are of."""

from __future__ import annotations

import re

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from node.derive import pixels
from node.derive.anatomy import frame_anatomy
from node.derive.derivation import derivation
from node.derive.inherit import put
from node.derive.making import Making, code_item
from node.derive.multiframe import coded, finished, framed, named, settled
from node.derive.references import set_lossy
from node.operator import Code, Map

_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def parametric_map(making: Making, quantity: Map) -> Dataset:
    """The object of one map; what is not valid is NaN, which needs no padding value to be told from numbers.

    Raises Refused where the sources state no planes, Broken where valid voxels are not finite.
    """
    place = framed(making, quantity, "a parametric map")
    low, high = pixels.valid_range(quantity.array, quantity.valid)
    array = np.array(quantity.array, np.float32)
    if quantity.valid is not None:
        array[~quantity.valid] = np.nan
    shown = quantity.facts.get("window") or pixels.display_window(quantity.array, quantity.valid)
    center, width = (float(v) for v in shown)
    # Exact, since real numbers of a small range have a width below 1 (C.11.2.1.3.2).
    window = hd.VOILUTTransformation(center, width, voi_lut_function="LINEAR_EXACT")
    plan, operators = making.job.plan, making.job.provenance.operators
    made_so = derivation(plan, making.output.name, operators, reshaped=not place.aligned)
    said = made_so.told(str(quantity.facts.get("description", ""))).description
    made = hd.pm.ParametricMap(
        source_images=place.stand_ins(),
        pixel_array=place.pixels(array),
        **named(making),
        # Type 1: where the sources do not deny it, a head may show a face to whoever renders it.
        contains_recognizable_visual_features=making.sources.text("RecognizableVisualFeatures") != "NO",
        real_world_value_mappings=[_mapping(quantity, low, high)],
        voi_lut_transformations=[window],
        content_label=_code_string(quantity.label),
        content_description=quantity.quantity.meaning[:64],
        content_qualification=hd.ContentQualificationValues.RESEARCH,
    )
    made.ContentCreatorName = None  # type 2: no person made it
    place_in_body = frame_anatomy(making.sources)
    if place_in_body is not None:
        made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [place_in_body]
    elif making.sources.text("Laterality") in ("L", "R"):
        made.Laterality = making.sources.text("Laterality")
    elif not making.sources.text("BodyPartExamined"):
        made.Laterality = None  # type 2C (C.7.3.1): it may be one of a pair, and nobody says which
    if said:
        made.DerivationDescription = said
    _set_lossy(made, making)
    return finished(making, settled(_in_order(made), place), 1)


def _in_order(made: Dataset) -> Dataset:
    """Put frames in order along their normal: dcmqi, and so 3D Slicer, counts them and reads no positions."""
    shared, items = made.SharedFunctionalGroupsSequence[0], list(made.PerFrameFunctionalGroupsSequence)
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    places = np.array([item.PlanePositionSequence[0].ImagePositionPatient for item in items], float)
    order = np.argsort(places @ np.cross(*axes), kind="stable")
    frames = np.frombuffer(made.FloatPixelData, "<f4").reshape(len(items), -1)
    made.FloatPixelData = frames[order].tobytes()
    made.PerFrameFunctionalGroupsSequence = [items[i] for i in order]
    for number, item in enumerate(made.PerFrameFunctionalGroupsSequence, 1):
        item.FrameContentSequence[0].DimensionIndexValues = number
    return made


def _mapping(quantity: Map, low: float, high: float) -> hd.pm.RealWorldValueMapping:
    """Stored value = real value, over the range that occurs (C.7.6.16.2.11)."""
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=quantity.label[:16],
        lut_explanation=quantity.quantity.meaning[:64],
        unit=coded(quantity.unit),
        value_range=(float(low), float(high)),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(quantity.quantity),
    )
    mapping.QuantityDefinitionSequence = [*mapping.QuantityDefinitionSequence, *definition(quantity)]
    return mapping


def definition(quantity: Map) -> list[Dataset]:
    """What the operator adds to the quantity: method, model fit, b-values … (CID 9000), by its fact `definition`.

    Items of the Content Item Macro (PS3.3 10.2), whose numbers lie in the item itself.
    """
    items: list[Dataset] = []
    for name, value in quantity.facts.get("definition", ()):
        item = Dataset()
        item.ConceptNameCodeSequence = [code_item(name)]
        if isinstance(value, Code):
            item.ValueType, item.ConceptCodeSequence = "CODE", [code_item(value)]
        else:
            number, unit = value
            item.ValueType, item.MeasurementUnitsCodeSequence = "NUMERIC", [code_item(unit)]
            item.NumericValue = format(number, ".10g")
        items.append(item)
    return items


def _set_lossy(made: Dataset, making: Making) -> None:
    """Once lossy, always lossy (C.7.6.1.1.5); with ratio and method, where the sources agree on them."""
    set_lossy(made, making.sources)
    columns = making.sources.inherit(making.sources.sop_class).columns
    for keyword in _LOSSY if made.LossyImageCompression == "01" else ():
        column = columns.get(keyword)
        put(made, keyword, column.agreed(range(len(making.sources.headers))) if column else None)


def _code_string(label: str) -> str:
    """A label as CS (PS3.5 6.2): at most 16 capital letters, digits, blanks and underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", label.upper())[:16].strip() or "MAP"
