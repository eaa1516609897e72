"""What operators for CT ask of a volume before they measure: its unit, its plane, and how it was made."""

from __future__ import annotations

from node.operator import Code, Refused, Remark, Volume

HOUNSFIELD = "[hnsf'U]"
AXIAL_COSINE = 0.9
"""Of the angle between slices and the patient's axis: a tilted gantry (up to 25°) is still axial."""

KERNEL = Code("113961", "DCM", "Reconstruction Algorithm")
KVP = Code("113733", "DCM", "KVP")
THICKNESS = Code("112225", "DCM", "Slice Thickness")
AGENT = Code("123011", "DCM", "Contrast/Bolus Agent")


def refuse_other_units(volume: Volume, what: str) -> None:
    """Refuse what is not in Hounsfield units; *what* is measured."""
    if volume.unit.value != HOUNSFIELD:
        raise Refused(f"{what} needs CT numbers in Hounsfield units; this volume is in {volume.unit.value}")


def is_axial(volume: Volume) -> bool:
    """Whether its slices lie across the patient."""
    return abs(float(volume.axes[2, 0])) >= AXIAL_COSINE


def thickness_of(volume: Volume) -> float | None:
    """Slice Thickness in mm, where all slices state one."""
    return _number(volume, "slice_thickness")


def kvp_of(volume: Volume) -> float | None:
    """Tube voltage in kV, where all slices state one."""
    return _number(volume, "kvp")


def _number(volume: Volume, name: str) -> float | None:
    stated = volume.facts.get(name)
    return float(stated) if isinstance(stated, int | float) else None


def kernel_of(volume: Volume) -> str:
    """Convolution kernel, empty where it is not stated or not one for all slices."""
    return str(volume.facts.get("convolution_kernel", ""))


def contrast_of(volume: Volume) -> str | None:
    """The contrast agent; empty where none was given, None where the images do not say."""
    stated = volume.facts.get("contrast")
    return None if stated is None else str(stated)


def acquired_as(volume: Volume) -> tuple[Remark, ...]:
    """Sentences on how the images were made: numbers of CT are comparable only where these are alike."""
    kernel, kvp, thick = kernel_of(volume), kvp_of(volume), thickness_of(volume)
    step = float(volume.spacing[0])
    said = "Slice thickness is not stated" if thick is None else f"Slice thickness {thick:g} mm"
    return (
        Remark(f"Convolution kernel {kernel}." if kernel else "Convolution kernel is not stated.", KERNEL),
        Remark(f"{said}, one slice every {step:.4g} mm.", THICKNESS),
        Remark("Tube voltage is not stated." if kvp is None else f"Tube voltage {kvp:g} kV.", KVP),
    )
