"""What a PET series says for Standardized Uptake Values, and in words why none may be computed of it.

The values are facts of the whole series, not of one image: the scan's start is the earliest of all bed positions.
Classic images say them in PET Series, PET Isotope and PET Image (PS3.3 C.8.9), enhanced and legacy converted ones
in Enhanced PET Isotope, Acquisition and Corrections (C.8.22); `frames` has lifted the latter's groups. Nothing is
put in place of what is absent, and no number is taken to be in another unit than the one the standard fixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from node.errors import Refused
from node.model import Code
from node.read.decay import Scan, corrected_to, given_at
from node.read.private import private_element

T = TypeVar("T")

LEAST_DOSE = 1e4
"""Bq: below lies no dose that images are made with, but any in MBq, the unit of NM images (C.8.4.10)."""
_HEAVIEST = 1000.0
"""kg: above lie weights in grams."""
_PHILIPS = (0x7053, "Philips PET Private Group")
_SUV_PER_COUNT, _ACTIVITY_PER_COUNT = 0x00, 0x09
_CORRECTIONS = {"ATTN": "AttenuationCorrected", "DECY": "DecayCorrected"}
"""Corrected Image (0028,0051) of classic images → the attribute of enhanced ones."""


def uptake_facts(headers: Sequence[Dataset], series: Scan | Sequence[Dataset], unit: Code) -> dict[str, Any]:
    """Facts for an operator that makes SUVs, of images in *unit* with *headers*; *series* are all of its series.

    `injected_dose` (Bq at the time it was given), `half_life` (s), `decay_time` (s from the dose to the moment
    that the images are decay corrected to; 0 for ADMIN), `given_at` and `corrected_to` (datetime), `patient_weight`
    (kg), `patient_size` (m), `patient_sex` (M, F, O), `tracer` and `nuclide` (Code), `units` (Units),
    `corrected_image` (tuple of terms), `decay_correction` (START, ADMIN, NONE); of counts `suv_factor` (g/ml per
    count) or `activity_factor` (Bq/ml per count). `suv_missing` names what keeps an SUV from being computed.
    """
    gathered = _Gathered()
    gathered.take("units", lambda: _word(headers, "Units"), needed=False)
    made = unit.value.partition("{")[0] in ("g/ml", "cm2/ml")  # SUVs already
    if not made:
        _take_unit(gathered, headers, unit)
    corrected = gathered.take("corrected_image", lambda: _corrected(headers), needed=not made)
    if not made and corrected is not None:
        gathered.take("", lambda: _refuse_uncorrected(corrected))
    needed = not made and "suv_factor" not in gathered.found
    gathered.take("patient_weight", lambda: _weight(headers), needed=needed)
    gathered.take("patient_size", lambda: _size(headers), needed=False)
    gathered.take("patient_sex", lambda: _word(headers, "PatientSex"), needed=False)
    scan = series if isinstance(series, Scan) else Scan(series)
    _take_dose(gathered, headers, scan, needed=needed)
    if gathered.reasons:
        gathered.found["suv_missing"] = "; ".join(gathered.reasons)
    return gathered.found


class _Gathered:
    """Facts, and the reasons why others are not among them."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.reasons: list[str] = []

    def take(self, name: str, read: Callable[[], T | None], *, needed: bool = True) -> T | None:
        """What *read* returns, kept as *name*; where it refuses, None, and the reason is kept if *needed*."""
        try:
            value = read()
        except Refused as reason:
            if needed:
                self.reasons.append(str(reason))
            return None
        if name and value is not None:
            self.found[name] = value
        return value


def _take_unit(gathered: _Gathered, headers: Sequence[Dataset], unit: Code) -> None:
    """Counts need a factor of their maker; what is no activity concentration is named."""
    if unit.value == "{counts}":
        gathered.take("suv_factor", lambda: _factor(headers, _SUV_PER_COUNT))
        gathered.take("activity_factor", lambda: _factor(headers, _ACTIVITY_PER_COUNT))
        if not {"suv_factor", "activity_factor"} & gathered.found.keys():
            gathered.reasons.append(
                "the values are counts (Units CNTS) without a factor to make activity of them, (7053,xx00) or "
                f"(7053,xx09) of Philips PET Private Group{_orphaned(headers[0])}"
            )
    elif unit.value != "Bq/ml":
        stated = gathered.found.get("units")
        said = f" (Units {stated})" if stated else ""
        gathered.reasons.append(f"the values are in {unit.value}{said}, no activity concentration")


def _take_dose(gathered: _Gathered, headers: Sequence[Dataset], scan: Scan, *, needed: bool) -> None:
    correction = gathered.take("decay_correction", lambda: _decay_correction(headers), needed=needed)
    dose = gathered.take("", lambda: _dose_item(headers), needed=needed)
    if dose is None:
        return
    gathered.take("tracer", lambda: _code(dose, "RadiopharmaceuticalCodeSequence"), needed=False)
    gathered.take("nuclide", lambda: _code(dose, "RadionuclideCodeSequence"), needed=False)
    gathered.take("injected_dose", lambda: _total_dose(dose), needed=needed)
    half_life = gathered.take("half_life", lambda: _half_life(dose), needed=needed)
    if correction == "ADMIN":
        gathered.found["decay_time"] = 0.0
    if correction != "START" or half_life is None:
        return
    until = gathered.take("corrected_to", lambda: _corrected_to(headers, scan, half_life), needed=needed)
    if until is None:
        return
    given = gathered.take("given_at", lambda: given_at(dose, headers[0], until, half_life), needed=needed)
    if given is not None:
        gathered.found["decay_time"] = (until - given).total_seconds()


def _agreed(headers: Sequence[Dataset], keyword: str) -> Any:
    """The one value of *keyword*, None where it is absent. Raises Refused where the images differ in it."""
    tag = tag_for_keyword(keyword) or 0
    kept = headers[0].get_item(tag) if tag in headers[0] else None
    for header in headers[1:]:
        other = header.get_item(tag) if tag in header else None
        same = other is kept or (
            other is not None
            and kept is not None
            and (other.value == kept.value or header.get(keyword) == headers[0].get(keyword))
        )
        if not same:
            said = sorted({str(h.get(keyword, "absent"))[:40] for h in headers})
            raise Refused(f"{keyword} is not one in all images ({', '.join(said[:4])})")
    return headers[0].get(keyword)


def _word(headers: Sequence[Dataset], keyword: str) -> str | None:
    return str(_agreed(headers, keyword) or "").strip().upper() or None


def _number(value: Any, keyword: str) -> float:
    """A number above 0. Raises Refused naming attribute and value."""
    if value is None or str(value).strip() == "":
        raise Refused(f"{keyword} is absent")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Refused(f"{keyword} is {str(value)[:40]}, no number") from None
    if not math.isfinite(number) or number <= 0:
        raise Refused(f"{keyword} is {number:g}")
    return number


def _weight(headers: Sequence[Dataset]) -> float:
    kilograms = _number(_agreed(headers, "PatientWeight"), "PatientWeight")
    if kilograms >= _HEAVIEST:
        raise Refused(f"PatientWeight is {kilograms:g} kg, which no patient weighs")
    return kilograms


def _size(headers: Sequence[Dataset]) -> float:
    metres = _number(_agreed(headers, "PatientSize"), "PatientSize")
    if not 0.2 < metres < 3:
        raise Refused(f"PatientSize is {metres:g} m, which no patient measures")
    return metres


def _corrected(headers: Sequence[Dataset]) -> tuple[str, ...]:
    stated = _agreed(headers, "CorrectedImage")
    words = [stated] if isinstance(stated, str) else list(stated or ())
    flags = [term for term, k in _CORRECTIONS.items() if _word(headers, k) == "YES"]
    found = [*dict.fromkeys([*(str(w).strip().upper() for w in words), *flags])]
    return tuple(word for word in found if word)


def _refuse_uncorrected(corrected: tuple[str, ...]) -> None:
    absent = [term for term in _CORRECTIONS if term not in corrected]
    if not absent:
        return
    said = ", ".join(corrected) or "absent"
    lacking = " and ".join(absent)
    raise Refused(f"CorrectedImage is {said}: without {lacking}, attenuation or decay is not corrected for")


def _decay_correction(headers: Sequence[Dataset]) -> str:
    """START, ADMIN or NONE; an enhanced object that names the moment counts as START."""
    word = _word(headers, "DecayCorrection")
    if word is None and _word(headers, "DecayCorrected") == "YES" and corrected_to(headers[0]) is not None:
        return "START"
    word = word or {"NO": "NONE"}.get(_word(headers, "DecayCorrected") or "")
    if word == "NONE":
        raise Refused("DecayCorrection is NONE: the images are not decay corrected")
    if word not in ("START", "ADMIN"):
        raise Refused(
            f"DecayCorrection is {word or 'absent'}, so to which moment the images are corrected is unknown"
        )
    return word


def _corrected_to(headers: Sequence[Dataset], scan: Scan, half_life: float) -> datetime:
    """The moment that the images are corrected to: of an enhanced object its own, else the start of the scan."""
    stated = corrected_to(headers[0])
    if stated is None:
        return scan.start(half_life)
    if any(corrected_to(header) != stated for header in headers):
        raise Refused("DecayCorrectionDateTime is not one in all images")
    return stated


def _dose_item(headers: Sequence[Dataset]) -> Dataset:
    items = _agreed(headers, "RadiopharmaceuticalInformationSequence")
    if not items:
        raise Refused("RadiopharmaceuticalInformationSequence is absent, so the dose is unknown")
    if len(items) > 1:
        raise Refused(f"RadiopharmaceuticalInformationSequence names {len(items)} radiopharmaceuticals")
    dose: Dataset = items[0]
    return dose


def _total_dose(dose: Dataset) -> float:
    becquerels = _number(dose.get("RadionuclideTotalDose"), "RadionuclideTotalDose")
    if becquerels < LEAST_DOSE:
        raise Refused(f"RadionuclideTotalDose is {becquerels:g} Bq, which is no dose; is it in MBq?")
    return becquerels


def _half_life(dose: Dataset) -> float:
    return _number(dose.get("RadionuclideHalfLife"), "RadionuclideHalfLife")


def _code(dose: Dataset, keyword: str) -> Code | None:
    items = dose.get(keyword)
    if not items or not items[0].get("CodeValue"):
        return None
    item = items[0]
    meaning = str(item.get("CodeMeaning") or "")
    return Code(str(item.CodeValue), str(item.get("CodingSchemeDesignator") or ""), meaning)


def _factor(headers: Sequence[Dataset], element: int) -> float | None:
    """One of Philips' private factors, None where it is absent, 0 or not one for all images."""
    values = {_private(header, element) for header in headers}
    value = values.pop() if len(values) == 1 else None
    return value if value and value > 0 else None


def _private(header: Dataset, element: int) -> float | None:
    try:
        return float(private_element(header, *_PHILIPS, element))
    except (TypeError, ValueError):
        return None


def _orphaned(header: Dataset) -> str:
    """Words for elements that an anonymiser left where it took their creator: they may be anybody's."""
    group = _PHILIPS[0]
    left = [e for e in (_SUV_PER_COUNT, _ACTIVITY_PER_COUNT) if (group, 0x1000 + e) in header]
    if not left or (group, 0x10) in header:
        return ""
    named = " and ".join(f"({group:04X},{0x1000 + e:04X})" for e in left)
    return f"; {named} may be one, but without the private creator (7053,0010) that is unknown"
