"""What the numbers of derived images mean: Image Type, rescale, units, and the window they are shown in."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.derive import pixels
from node.derive.inherit import put
from node.derive.series import Series
from node.derive.standard import CT, MR, NM, PT
from node.errors import Broken

_CT_UNITS = {"[hnsf'U]": "HU", "mg/ml": "MGML", "%": "PCT"}
"""UCUM → Rescale Type (C.11.1.1.2); anything else is US, unspecified."""
_PET_UNITS = {
    "Bq/ml": "BQML", "{counts}": "CNTS", "{counts}/s": "CPS", "{propcounts}": "PROPCNTS",
    "{propcounts}/s": "PROPCPS", "%": "PCNT", "g/ml": "GML", "cm2/ml": "CM2ML", "1": "NONE",
}  # fmt: skip
"""UCUM without annotation → Units (0054,1001)."""
_SUV_TYPES = {
    "SUVbw": "BW", "SUVibw": "IBW", "SUVlbm": "LBM", "SUVlbm(James128)": "LBMJAMES128",
    "SUVlbm(Janma)": "LBMJANMA", "SUVbsa": "BSA",
}  # fmt: skip
"""UCUM annotation → SUV Type (0054,1006)."""
_MR_FLAVOURS = {"MPR": "MPR", "MIP": "PROJECTION IMAGE", "MINIP": "PROJECTION IMAGE", "OTHER": "OTHER"}


def set_display(dataset: Dataset, series: Series) -> None:
    """Keep the source's window where it still means the same numbers, else show 1 % to 99 %."""
    columns = series.inherited.columns
    same = series.sop_class == CT and series.volume.unit.value == "[hnsf'U]"
    kept = [
        columns[k].agreed(range(series.inherited.size))
        for k in ("WindowCenter", "WindowWidth")
        if k in columns
    ]
    if same and len(kept) == 2 and all(element is not None and element.value for element in kept):
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"):
            column = columns.get(keyword)
            put(dataset, keyword, column.agreed(range(series.inherited.size)) if column else None)
        return
    volume = series.volume
    if volume.valid is None or bool(volume.valid.any()):
        counts = series.sop_class in (PT, NM)
        dataset.WindowCenter, dataset.WindowWidth = pixels.display_window(
            volume.array, volume.valid, from_zero=counts
        )
        if float(dataset.WindowWidth) < 1:  # which the default function cannot have (C.11.2.1.2.1)
            dataset.VOILUTFunction = "LINEAR_EXACT"


def set_quantity(dataset: Dataset, series: Series) -> None:
    """Image Type and what the numbers mean."""
    flavour = series.derivation.flavour
    unit = series.volume.unit.value
    if series.sop_class == CT:
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", flavour]
        # Rescale Type is needed once the values are no Hounsfield units (C.8.2.1).
        dataset.RescaleType = _CT_UNITS.get(unit, "US")
    elif series.sop_class == MR:
        dataset.ImageType = ["DERIVED", "SECONDARY", _MR_FLAVOURS[flavour]]
    elif series.sop_class == NM:
        # Value 3 says how the frames are ordered, value 4 what was counted (C.8.4.9.1.1).
        values = series.making.sources.text("ImageType").split("\\")
        counted = values[3] if len(values) > 3 and values[3] in ("EMISSION", "TRANSMISSION") else "EMISSION"
        dataset.ImageType = ["DERIVED", "PRIMARY", "RECON TOMO", counted]
    else:
        dataset.ImageType = ["DERIVED", "PRIMARY", flavour]  # value 2 is enumerated (C.8.9.4.1.1)
        _set_pet_units(dataset, series, unit)
    scale = series.scale
    bare = series.sop_class in (MR, NM)  # classes without rescale: a needed one is a Standard Extension
    if not bare or (scale.slope, scale.intercept) != ("1", "0"):
        dataset.RescaleSlope, dataset.RescaleIntercept = scale.slope, scale.intercept
        if bare:
            dataset.RescaleType = "US"


def _set_pet_units(dataset: Dataset, series: Series, unit: str) -> None:
    """Units and SUV Type; where they are the source's, exactly as the source says them."""
    sources = series.making.sources
    base, _, note = unit.rstrip("}").partition("{")
    units = _PET_UNITS.get(unit) or _PET_UNITS.get(base, "")
    suv = _SUV_TYPES.get(note, "BW" if units == "GML" else "")
    theirs = sources.text("Units")
    if not units:
        raise Broken(f"output {series.making.output.name}: PET images cannot say the unit {unit}; "
                     "return the source's unit or an SUV")  # fmt: skip
    said = sources.text("SUVType")
    same = units == theirs and suv == (said or ("BW" if theirs == "GML" else ""))
    dataset.Units = units
    if suv and not (same and not said):
        dataset.SUVType = suv
