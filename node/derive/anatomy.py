"""Where in the body a result is of: the Frame Anatomy macro (PS3.3 C.7.6.16.2.8), as far as the sources say."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.derive.inherit import put
from node.derive.making import code_item
from node.derive.sources import Sources
from node.model import Code

_SIDES = ("R", "L", "U", "B")
_UNPAIRED = {
    "ABDOMEN": ("818981001", "Abdomen"), "BLADDER": ("89837001", "Bladder"), "BRAIN": ("12738006", "Brain"),
    "CHEST": ("51185008", "Chest"), "CSPINE": ("122494005", "Cervical spine"), "HEAD": ("69536005", "Head"),
    "HEART": ("80891009", "Heart"), "LIVER": ("10200004", "Liver"), "LSPINE": ("122496007", "Lumbar spine"),
    "NECK": ("45048000", "Neck"), "PANCREAS": ("15776009", "Pancreas"), "PELVIS": ("816092008", "Pelvis"),
    "PROSTATE": ("41216001", "Prostate"), "TSPINE": ("122495006", "Thoracic spine"),
    "WHOLEBODY": ("38266002", "Entire body"),
}  # fmt: skip
"""Body Part Examined → its code, of those that are no pair (PS3.16 Annex L)."""


def frame_anatomy(sources: Sources) -> Dataset | None:
    """One item for all frames; None where the sources name no region, or the region but not the side."""
    region = sources.inherit(sources.image_class).columns.get("AnatomicRegionSequence")
    stated = region.agreed(range(len(sources.headers))) if region else None
    part = _UNPAIRED.get(sources.text("BodyPartExamined"))
    found = Dataset()
    if stated is not None and stated.value:
        put(found, "AnatomicRegionSequence", stated)
        found.FrameLaterality = _side(sources) or ("U" if part else "")
    elif part is not None:
        found.AnatomicRegionSequence = [code_item(Code(part[0], "SCT", part[1]))]
        found.FrameLaterality = "U"
    return found if found.get("FrameLaterality") else None


def _side(sources: Sources) -> str:
    said = (sources.text(keyword) for keyword in ("FrameLaterality", "ImageLaterality", "Laterality"))
    return next((side for side in said if side in _SIDES), "")
