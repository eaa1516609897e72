"""What numbers of PET are called: quantities, units and methods in codes (PS3.16 CID 7180, 7464, 7466)."""

from __future__ import annotations

from collections.abc import Sequence

from node.operator import Code, Mask, Refused, Remark, Volume
from node.operators.codes import SUVS, TOMOGRAPHIC
from node.operators.pet.suv import made_from
from node.operators.region import refuse_other_grid

METABOLIC_VOLUME = Code("126032", "DCM", "Metabolic Volume")
GLYCOLYSIS = Code("126033", "DCM", "Total Lesion Glycolysis")

_METHODS = {  # Measurement Method of an SUV
    "g/ml{SUVbw}": Code("126410", "DCM", "SUV body weight calculation method"),
    "g/ml{SUVlbm}": Code("126411", "DCM", "SUV lean body mass calculation method"),
    "g/ml{SUVlbm(James128)}": Code(
        "126415", "DCM", "SUV lean body mass calculation method using 128 multiplier"
    ),
    "g/ml{SUVlbm(Janma)}": Code("126414", "DCM", "SUV lean body mass calculation Janmahasatian method"),
    "cm2/ml{SUVbsa}": Code("126412", "DCM", "SUV body surface area calculation method"),
    "g/ml{SUVibw}": Code("126413", "DCM", "SUV ideal body weight calculation method"),
}


def quantity_of(volume: Volume) -> Code:
    """Which SUV, or activity. Raises Refused for what is neither."""
    if volume.unit.value in SUVS:
        return SUVS[volume.unit.value]
    if volume.unit.value == "Bq/ml":
        return TOMOGRAPHIC
    raise Refused(
        f"uptake is measured in SUV or Bq/ml, and the volume is in {volume.unit.value or 'no unit'}; put the step "
        "suv before this one"
    )


def method_of(volume: Volume) -> Code | None:
    """How the SUV was computed."""
    return _METHODS.get(volume.unit.value)


def total_unit(volume: Volume) -> Code | None:
    """The unit of SUV times volume; None for activities, whose sum is no glycolysis."""
    base = volume.unit.value.partition("{")[0]
    return {"g/ml": Code("g", "UCUM", "gram"), "cm2/ml": Code("cm2", "UCUM", "square centimeter")}.get(base)


def refuse_elsewhere(volume: Volume, mask: Mask) -> None:
    """Raise Refused where *mask* is on another grid, or empty."""
    refuse_other_grid(volume, mask)
    if not mask.array.any():
        raise Refused(f"the region {mask.label} is empty")


def origin_of(volume: Volume) -> Sequence[Remark]:
    """What the SUVs rest on, as far as the facts say it."""
    if "suv_scale" not in volume.facts or "injected_dose" not in volume.facts:
        return ()
    return (Remark(f"{quantity_of(volume).meaning} from {', '.join(made_from(volume.facts))}."),)
