"""Which objects are slices of a volume, and how each kind of object gives its frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom import uid

from node.errors import Refused
from node.read.frames import Frame, Source, enhanced, is_enhanced, single
from node.read.mosaic import is_mosaic, mosaic
from node.read.stacked import dose, nuclear

_KINDS = {
    uid.CTImageStorage: "CT",
    uid.EnhancedCTImageStorage: "CT",
    uid.LegacyConvertedEnhancedCTImageStorage: "CT",
    uid.MRImageStorage: "MR",
    uid.EnhancedMRImageStorage: "MR",
    uid.LegacyConvertedEnhancedMRImageStorage: "MR",
    uid.PositronEmissionTomographyImageStorage: "PT",
    uid.EnhancedPETImageStorage: "PT",
    uid.LegacyConvertedEnhancedPETImageStorage: "PT",
    uid.NuclearMedicineImageStorage: "NM",
    uid.XRay3DAngiographicImageStorage: "XA",
    uid.XRay3DCraniofacialImageStorage: "DX",
    uid.BreastTomosynthesisImageStorage: "MG",
    uid.OphthalmicTomographyImageStorage: "OPT",
    uid.ParametricMapStorage: "PM",
    uid.RTDoseStorage: "RTDOSE",
}
"""SOP class → what decides the unit of its values; kinds never mix in one volume."""
_CLASSIC = frozenset((uid.CTImageStorage, uid.MRImageStorage, uid.PositronEmissionTomographyImageStorage))
_ELSEWHERE = {
    uid.SegmentationStorage: "a segmentation is a mask of other images, not an image",
    uid.EnhancedUSVolumeStorage: "its frames lie in the transducer's space, not in the patient",
    uid.SecondaryCaptureImageStorage: "a secondary capture has no place in the patient; "
    "use a step that takes a Picture",
}
"""Why others are none, where there is more to say than that."""


def kind_of(sources: Sequence[Source]) -> str:
    """CT, MR, PT, NM, XA, DX, MG, OPT, PM or RTDOSE. Raises Refused where *sources* are of none or of several."""
    for source in sources:
        _check_class(source.dataset.get("SOPClassUID"), source)
    kinds = {_KINDS[source.dataset.SOPClassUID] for source in sources}
    if len(kinds) > 1:
        names = ", ".join(sorted({source.kind for source in sources}))
        raise Refused(f"the images are of different kinds ({names}); narrow the rule with `use`")
    for source in sources:
        _check_grey(source)
    return kinds.pop()


def _check_class(sop_class: Any, source: Source) -> None:
    if sop_class in _KINDS:
        return
    if str(sop_class).startswith(f"{uid.SecondaryCaptureImageStorage}."):
        sop_class = uid.SecondaryCaptureImageStorage  # the multi-frame ones say no more
    why = _ELSEWHERE.get(
        sop_class, "use a step that takes a Picture, or narrow the rule to CT, MR, PET, SPECT, tomosynthesis, "
        "parametric maps or dose"
    )  # fmt: skip
    raise Refused(f"{source.kind} is no stack of slices: {why}")


def _check_grey(source: Source) -> None:
    dataset = source.dataset
    colour = str(dataset.get("PhotometricInterpretation") or "absent")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(
            f"{source.name} is not grey (PhotometricInterpretation {colour}): colours are no measured values; "
            "use a step that takes a Picture"
        )


def frames_of(sources: Sequence[Source]) -> tuple[Frame, ...]:
    """Every frame of *sources*, in their order. Raises Refused where a frame has no place."""
    frames = tuple(frame for source in sources for frame in _reader(source)(source))
    for frame in frames:
        if str(frame.header.get("VolumetricProperties") or "").upper() == "DISTORTED":
            raise Refused(  # PS3.3 C.8.16.2.1.2
                f"{frame.name} is spatially distorted (VolumetricProperties DISTORTED), so it cannot be "
                "measured in; use a step that takes a Picture"
            )
    return frames


def _reader(source: Source) -> Callable[[Source], tuple[Frame, ...]]:
    sop_class = source.dataset.SOPClassUID
    if sop_class == uid.NuclearMedicineImageStorage:
        return nuclear
    if sop_class == uid.RTDoseStorage:
        return dose
    if is_enhanced(source):
        return enhanced
    if source.frames > 1 or sop_class not in _CLASSIC:
        raise Refused(
            f"{source.name} is a multi-frame object ({source.kind}, {source.frames} frames) without "
            "PerFrameFunctionalGroupsSequence, so where its frames lie is unknown"
        )
    return mosaic if sop_class == uid.MRImageStorage and is_mosaic(source) else single
