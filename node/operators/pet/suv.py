"""Standardized Uptake Values of a PET volume, by the normalisations that DICOM has names for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from node.operator import Code, Refused, Volume
from node.operators.codes import SUVS
from node.operators.pet.body import ideal, lean_james128, lean_janmahasatian, surface

Normalisation = Literal["bw", "lbm_james128", "lbm_janma", "bsa", "ibw"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of SUV: its unit (CID 85) and its code (CID 7180)."""

    unit: Code
    quantity: Code
    name: str


def _kind(note: str, of: str, per: str = "g/ml") -> Kind:
    unit = Code(f"{per}{{{note}}}", "UCUM", f"Standardized Uptake Value {of}")
    return Kind(unit, SUVS[unit.value], note)


KINDS: Mapping[str, Kind] = {
    "bw": _kind("SUVbw", "body weight"),
    "lbm_james128": _kind("SUVlbm(James128)", "lean body mass (James 128 multiplier)"),
    "lbm_janma": _kind("SUVlbm(Janma)", "lean body mass (Janma)"),
    "bsa": _kind("SUVbsa", "body surface area", "cm2/ml"),
    "ibw": _kind("SUVibw", "ideal body weight"),
}


def suv(volume: Volume, *, normalisation: Normalisation = "bw") -> Volume:
    """Turn activity concentration into Standardized Uptake Values, in g/ml (bsa: cm²/ml).

    SUV = activity (Bq/ml) x mass (g) / (dose (Bq) x 2^(-t / half-life)), with t from the injection to the moment that
    the images are decay corrected to, by QIBA's vendor-neutral computation (qibawiki.rsna.org, SUV): see
    `uptake_facts` of the reading room for where each number is found. The mass is PatientWeight (bw), lean body mass
    after James 1976 with the 128 multiplier (lbm_james128) or Janmahasatian 2005 (lbm_janma), ideal body weight
    after Sugawara 1999 (ibw); instead of it bsa takes the body surface after Du Bois 1916, in cm². Counts of Philips
    are scaled by the factor that the images bring. What is an SUV of the wanted kind already is not scaled again.

    Raises Refused where anything the value rests on is absent or not plausible, naming attribute and value; for
    images that are an SUV of another kind; and for what is no PET.
    """
    kind = KINDS[normalisation]
    if volume.unit.value.partition("{")[0] in ("g/ml", "cm2/ml"):
        return _as_it_is(volume, kind)
    factor = _factor(volume, normalisation)
    array = np.multiply(volume.array, np.float32(factor), dtype=np.float32)
    said = f"{kind.name} = {volume.unit.value} x {factor:.9g}"
    facts = {**volume.facts, "quantity": kind.quantity, "suv_scale": factor}
    facts["description"] = "; ".join(filter(None, (said, *made_from(facts))))
    return replace(volume, array=array, unit=kind.unit, facts=facts)


def _as_it_is(volume: Volume, kind: Kind) -> Volume:
    if volume.unit.value == kind.unit.value:
        return volume
    raise Refused(
        f"the images are in {volume.unit.value} already and are not scaled again to {kind.unit.value}; give the series "
        "in Bq/ml, or take its own kind of SUV"
    )


def _factor(volume: Volume, normalisation: Normalisation) -> float:
    """SUV per unit of the volume's values."""
    facts = volume.facts
    missing = facts.get("suv_missing")
    if missing:
        raise Refused(f"no SUV can be computed: {missing}")
    if facts.get("modality") != "PT":
        raise Refused(
            f"SUVs are of PET images (Modality PT); these are {facts.get('modality', 'of unknown modality')}"
        )
    if "suv_factor" in facts:  # what Philips stores is SUVbw per count
        factor = float(facts["suv_factor"])
        return factor if normalisation == "bw" else factor * _mass(facts, normalisation) / _mass(facts, "bw")
    per_count = float(facts["activity_factor"]) if volume.unit.value == "{counts}" else 1.0
    left = _fact(facts, "injected_dose") * 2 ** (-float(facts.get("decay_time", 0.0)) / _half_life(facts))
    return per_count * _mass(facts, normalisation) / left


def _half_life(facts: Mapping[str, Any]) -> float:
    return float(facts["half_life"]) if facts.get("decay_time") else 1.0


def _mass(facts: Mapping[str, Any], normalisation: Normalisation) -> float:
    """Grams that the dose spreads over; cm² for bsa."""
    weight = _fact(facts, "patient_weight")
    if normalisation == "bw":
        return weight * 1000
    size, sex = _fact(facts, "patient_size"), str(facts.get("patient_sex", ""))
    if normalisation == "bsa":
        return surface(weight, size) * 1e4
    mass = {"lbm_james128": lean_james128, "lbm_janma": lean_janmahasatian, "ibw": ideal}[normalisation]
    return mass(weight, size, sex) * 1000


_CALLED = {
    "injected_dose": "RadionuclideTotalDose",
    "patient_weight": "PatientWeight",
    "patient_size": "PatientSize",
}


def _fact(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, int | float) or value <= 0:
        raise Refused(f"no SUV of this kind can be computed: {_CALLED[name]} is absent or not plausible")
    return float(value)


def made_from(facts: Mapping[str, Any]) -> list[str]:
    """What an SUV rests on, in words, as far as the facts say it."""
    if "suv_factor" in facts:
        return ["by the factor that its maker gives for counts"]
    said = []
    if "injected_dose" in facts:
        said.append(f"{facts['injected_dose'] / 1e6:.1f} MBq")
    if facts.get("decay_correction") == "ADMIN":
        said.append("decay corrected to the injection")
    elif "decay_time" in facts:
        said.append(f"given {facts['decay_time'] / 60:.1f} min before the moment of decay correction")
    if "half_life" in facts:
        said.append(f"half-life {facts['half_life']:g} s")
    for name, unit in (("patient_weight", "kg"), ("patient_size", "m")):
        if name in facts:
            said.append(f"{name.replace('_', ' ')} {facts[name]:g} {unit}")
    return said
