"""Functional group macros (PS3.3 C.7.6.16.2, C.8) → the attributes of a single-frame image."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

from node.read.philips import lift_scaling

_STAY = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "ReferencedImageSequence",
        "DerivationImageSequence",
        "ConversionSourceAttributesSequence",
        "RealWorldValueMappingSequence",
        "ContrastBolusUsageSequence",
        "RadiopharmaceuticalUsageSequence",
        "PixelIntensityRelationshipLUTSequence",
        "PatientPhysiologicalStateSequence",
        "SegmentIdentificationSequence",
        "SpecimenReferenceSequence",
    )
)
"""What may have several items, or is a sequence in single-frame images as well."""
_DEEPER = frozenset(
    tag_for_keyword(keyword) for keyword in ("DiffusionGradientDirectionSequence", "DiffusionBMatrixSequence")
)
"""Sequences inside a macro that are lifted with it."""
_CLASSIC = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "FrameComments": "ImageComments",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "TransmitterFrequency": "ImagingFrequency",
    "ReconstructionAlgorithm": "ReconstructionMethod",
    "FrameLaterality": "ImageLaterality",
}
"""What single-frame images call by another name; both are there, so that a rule may use either."""


def lifted(header: Dataset, group: Dataset) -> Dataset:
    """A copy of *header* with what the macros of a functional *group* say at its top.

    A vendor's private macros repeat standard attributes in their own sense: they are left out, but for Philips'
    scaling.
    """
    copy = Dataset()
    copy._dict.update(header._dict)
    copy.set_original_encoding(*header.original_encoding, header.original_character_set)
    copy.file_meta = header.file_meta
    for macro in group:
        if macro.VR == "SQ" and not macro.tag.is_private:
            _lift(copy, macro)
    lift_scaling(copy, group)
    _name_classically(copy)
    return copy


def _lift(header: Dataset, macro: Any) -> None:
    items = macro.value
    if macro.tag in _STAY or len(items) != 1:
        header._dict[macro.tag] = macro
        return
    for tag in items[0].keys():  # noqa: SIM118 - iterating a Dataset converts every element
        if tag in _DEEPER:
            _lift(header, items[0][tag])
        elif tag != 0x00080005:  # a character set of the item is not that of the object
            header._dict[BaseTag(tag)] = items[0].get_item(tag)


def _name_classically(header: Dataset) -> None:
    for ours, classic in _CLASSIC.items():
        value = header.get(ours)
        if value not in (None, "") and not (ours == "InversionTimes" and not isinstance(value, float)):
            # FD → DS: a decimal string has 16 characters at most (PS3.5 6.2).
            say(header, classic, format(value, ".10g") if isinstance(value, float) else value)
    moment = str(header.get("FrameAcquisitionDateTime") or "")
    if len(moment) >= 14 and moment[:14].isdigit():  # without its offset: TM has none (PS3.5 6.2)
        fraction = moment[14:].partition("+")[0].partition("-")[0]
        say(header, "AcquisitionDate", moment[:8])
        say(header, "AcquisitionTime", moment[8:14] + fraction)


def say(header: Dataset, keyword: str, value: Any) -> None:
    """Give *header* an element of its own: pydicom would change the one it shares with other frames."""
    header._dict.pop(BaseTag(tag_for_keyword(keyword) or 0), None)
    setattr(header, keyword, value)
