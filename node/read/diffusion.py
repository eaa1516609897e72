"""In which direction a frame was diffusion-weighted: the standard attribute, then what the makers write.

PS3.3 C.8.13.5.9 gives the direction in the patient's coordinates. Siemens (0019,100E), the same vector in its CSA
header, and Philips (2005,10B0) to (2005,10B2) do so too (NAMIC, "DTI: DICOM for DWI and DTI"). GE (0019,10BB) to
(0019,10BD) counts along frequency, phase and slice, United Imaging (0065,1037) along the image's rows, columns
and normal (dcm2niix, GE/README and UIH/README). What no source documents is not turned into a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused
from node.read.csa import csa
from node.read.geometry import directions_of
from node.read.private import private_element

Direction = tuple[float, float, float]
Vector = NDArray[np.float64]

_SIEMENS, _UNITED = "SIEMENS MR HEADER", "Image Private Header"
_PHILIPS = "Philips MR Imaging DD 001"
_GE_ACQUISITION, _GE_PARAMETERS = "GEMS_ACQU_01", "GEMS_PARM_01"
_GE_T2, _GE_COMBINED, _GE_TENSOR = 14, 15, 16
"""GE's "Vas collapse flag" (0043,1030) of diffusion images: unweighted, combined from all directions, tensor."""
_UNIT_LENGTH = (0.97, 1.03)
"""Lengths that are 1 but for rounding."""
_AXIAL = 0.8
"""Cosine between the slices' normal and the patient's long axis above which GE's convention is documented."""
_COMPUTED = (
    "ADC",
    "EADC",
    "TENSOR",
    "CALC_BVALUE",
    "COLFA",
    "DIFFUSION_ANISO",
    "RELATIVE_ANISO",
    "VOLUME_RATIO",
)
_COMPUTED_SHORT = ("FA", "RA", "VR", "EXP")
"""How values of Image Type begin, or what they are, that name what was computed from diffusion images."""
_TRACES = ("TRACEW", "TRACE", "ISOTROPIC")


def gradient_of(header: Dataset) -> Direction | None:
    """The unit vector of the diffusion gradient in patient coordinates; None where none is stated or there is none.

    GE's is given only where its convention is documented: axial slices, head first, phase along columns.
    """
    stated = _numbers(header.get("DiffusionGradientOrientation"))
    if stated is not None:
        return _unit(stated)
    for read in (_of_siemens, _of_philips, _of_united_imaging, _of_ge):
        found = read(header)
        if found is not None:
            return _unit(found)
    return None


def told_apart_by(header: Dataset) -> tuple[str, ...]:
    """What tells this direction from others: the vector, or the maker's own numbers where it is no direction."""
    found = gradient_of(header)
    if found is None:
        raw = _ge_vector(header)
        if raw is None or not np.any(raw):
            return ()
        found = _unit(raw)
    return tuple(format(v, "g") for v in found or ())


def directionality_of(header: Dataset) -> str:
    """DIRECTIONAL, BMATRIX, ISOTROPIC or NONE (PS3.3 C.8.13.5.9.1); empty where nothing says it.

    ISOTROPIC is the scanner's own trace, whose directions it has averaged.
    """
    stated = _text(header.get("DiffusionDirectionality")) or _text(
        private_element(header, 0x0019, _SIEMENS, 0x0D)
    )
    stated = stated or _csa_text(header, "DiffusionDirectionality")
    flavours = [_text(value) for value in header.get("ImageType") or ()][2:]
    if stated in ("DIRECTIONAL", "BMATRIX", "ISOTROPIC", "NONE"):
        return "ISOTROPIC" if stated == "DIRECTIONAL" and _is_trace(flavours) else stated
    if _is_trace(flavours):
        return "ISOTROPIC"
    flag = _ge_flag(header)
    if flag == _GE_COMBINED:
        return "ISOTROPIC"
    if flag == _GE_T2 or _siemens_b_value(header) == 0:
        return "NONE"
    return "DIRECTIONAL" if told_apart_by(header) else ""


def is_computed(header: Dataset) -> bool:
    """Whether Image Type names what was computed from diffusion images: ADC, FA, a calculated b-value."""
    flavours = [_text(value) for value in header.get("ImageType") or ()][2:]
    return any(flavour.startswith(_COMPUTED) or flavour in _COMPUTED_SHORT for flavour in flavours)


def b_share(header: Dataset) -> float | None:
    """By what GE's stored b-value must be multiplied: the square of the length of its gradient vector.

    In one table GE stores the largest b-value for all directions and weaker ones as shorter vectors (dcm2niix
    issues 245 and 777). None where that is unknown: a tensor image without a vector may be an unweighted one, which
    releases before 30 label so, or one whose header lost it.
    """
    vector = _ge_vector(header)
    if vector is None:
        return 1.0
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        return None if _ge_flag(header) == _GE_TENSOR else 1.0
    return 1.0 if _UNIT_LENGTH[0] <= length <= _UNIT_LENGTH[1] else length**2


def _of_siemens(header: Dataset) -> Vector | None:
    vector = _numbers(private_element(header, 0x0019, _SIEMENS, 0x0E, "d"))
    return vector if vector is not None else _numbers(_csa(header).get("DiffusionGradientDirection"))


def _siemens_b_value(header: Dataset) -> float | None:
    """Which only Siemens' diffusion images have: 0 is then an unweighted one."""
    stated = private_element(header, 0x0019, _SIEMENS, 0x0C)
    if stated is None:
        stated = (*_csa(header).get("B_value", ()), None)[0]
    try:
        return float(str(stated))
    except ValueError:
        return None


def _of_philips(header: Dataset) -> Vector | None:
    found = [private_element(header, 0x2005, _PHILIPS, element, "f") for element in (0xB0, 0xB1, 0xB2)]
    return None if None in found else _numbers(found)


def _of_united_imaging(header: Dataset) -> Vector | None:
    vector, turn = _numbers(private_element(header, 0x0065, _UNITED, 0x37, "d")), _image_axes(header)
    return None if vector is None or turn is None else vector @ turn


def _of_ge(header: Dataset) -> Vector | None:
    """GE's (frequency, phase, slice) as a direction in the patient: x along rows, y along columns, z reversed."""
    vector, turn = _ge_vector(header), _image_axes(header)
    if vector is None or turn is None or abs(turn[2, 2]) < _AXIAL:
        return None
    if _text(header.get("PatientPosition")) != "HFS":
        return None
    if _text(header.get("InPlanePhaseEncodingDirection")) not in ("COL", "COLUMN"):
        return None
    return np.asarray((vector * (1, 1, -1)) @ turn)


def _ge_vector(header: Dataset) -> Vector | None:
    if not _text(header.get("Manufacturer")).startswith("GE"):
        return None
    found = [private_element(header, 0x0019, _GE_ACQUISITION, element) for element in (0xBB, 0xBC, 0xBD)]
    return None if None in found else _numbers(found)


def _ge_flag(header: Dataset) -> int:
    if not _text(header.get("Manufacturer")).startswith("GE"):
        return 0
    try:
        return int(str(private_element(header, 0x0043, _GE_PARAMETERS, 0x30, "h")))
    except ValueError:
        return 0


def _image_axes(header: Dataset) -> Vector | None:
    """Directions of rows, columns and their normal as the rows of a matrix."""
    numbers = _numbers(header.get("ImageOrientationPatient"), 6)
    if numbers is None:
        return None
    try:
        return directions_of(numbers)
    except Refused:
        return None


def _is_trace(flavours: Sequence[str]) -> bool:
    return any(flavour in _TRACES for flavour in flavours)


def _csa(header: Dataset) -> dict[str, tuple[str, ...]]:
    try:
        return csa(header.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value)
    except (KeyError, TypeError, ValueError):
        return {}


def _csa_text(header: Dataset, name: str) -> str:
    return _text((*_csa(header).get(name, ()), "")[0])


def _text(value: Any) -> str:
    return str(value or "").strip().upper()


def _numbers(values: Any, count: int = 3) -> Vector | None:
    """*count* finite numbers; None where *values* are none."""
    try:
        vector = np.array([float(v) for v in values], float)
    except (TypeError, ValueError):
        return None
    return vector if vector.shape == (count,) and np.isfinite(vector).all() else None


def _unit(vector: Vector) -> Direction | None:
    """*vector* with length 1; None where it has none."""
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-6:
        return None
    x, y, z = (round(float(v), 6) + 0.0 for v in vector / length)
    return x, y, z
