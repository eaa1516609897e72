"""Body weight, lean body mass, ideal weight and surface: by what an uptake is normalised (SUV Type, PS3.3 C.8.9.1).

All take kilograms and metres. What a formula cannot be asked for is Refused: sexes it has no constants for, and
bodies for which James' parabola falls again, so that a heavier patient would have less lean mass.
"""

from __future__ import annotations

from collections.abc import Callable

from node.operator import Refused


def lean_james128(weight: float, size: float, sex: str) -> float:
    """kg, as James 1976 (Research on Obesity, HMSO) gives it, with 128 for men.

    Men 1.10 W - 128 (W / H)², women 1.07 W - 148 (W / H)², H in centimetres. Many programs have 120 for men; DICOM
    tells the two apart by SUV Type (LBMJAMES128, and LBM).
    """
    linear, square = _of_sex(sex, (1.10, 128.0), (1.07, 148.0))
    most = linear / (2 * square) * (size * 100) ** 2
    if weight > most:
        raise Refused(
            f"James' lean body mass falls again above {most:.0f} kg at {size:g} m, and PatientWeight is {weight:g} kg; "
            "ask for lbm_janma"
        )
    return linear * weight - square * (weight / (size * 100)) ** 2


def lean_janmahasatian(weight: float, size: float, sex: str) -> float:
    """kg: 9270 W / (6680 + 216 BMI) for men, 9270 W / (8780 + 244 BMI) for women.

    Janmahasatian et al. 2005, Clin Pharmacokinet 44:1051, doi:10.2165/00003088-200544100-00004.
    """
    base, slope = _of_sex(sex, (6680.0, 216.0), (8780.0, 244.0))
    return 9270 * weight / (base + slope * weight / size**2)


def ideal(weight: float, size: float, sex: str) -> float:
    """kg: 48.0 + 1.06 (H - 152) for men, 45.5 + 0.91 (H - 152) for women, H in centimetres.

    Sugawara et al. 1999, Radiology 213:521, doi:10.1148/radiology.213.2.r99nv37521. The weight does not count.
    """
    del weight
    base, slope = _of_sex(sex, (48.0, 1.06), (45.5, 0.91))
    kilograms = base + slope * (size * 100 - 152)
    if kilograms <= 0:
        raise Refused(f"an ideal body weight is not known for a PatientSize of {size:g} m")
    return kilograms


def surface(weight: float, size: float) -> float:
    """m²: 0.007184 W^0.425 H^0.725, H in centimetres (Du Bois and Du Bois 1916, Arch Intern Med 17:863)."""
    return float(0.007184 * weight**0.425 * (size * 100) ** 0.725)


Mass = Callable[[float, float, str], float]


def _of_sex(sex: str, male: tuple[float, float], female: tuple[float, float]) -> tuple[float, float]:
    if sex not in ("M", "F"):
        raise Refused(f"PatientSex is {sex or 'absent'}; this normalisation has constants for M and F only")
    return male if sex == "M" else female
