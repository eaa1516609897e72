"""What a destination would take, asked before the first series: `check --connect`.

For each peer with an address: C-ECHO, then an association that proposes every kind of object the rules would send
there, each in every transfer syntax of interest. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.uid import (
    UID,
    AmbulatoryECGWaveformStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    ParametricMapStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    TwelveLeadECGWaveformStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    VLPhotographicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayAngiographicImageStorage,
)

from node import talk
from node.model import KIND_OF, RECEIVED, OperatorSpec
from node.route.cautions import modalities
from node.route.rules import Rule
from node.send import scu
from node.send.negotiation import Pair
from node.settings import Peer, Settings

_OF_MODALITY: Mapping[str, tuple[str, ...]] = {
    "CT": (CTImageStorage, EnhancedCTImageStorage),
    "MR": (MRImageStorage, EnhancedMRImageStorage),
    "PT": (PositronEmissionTomographyImageStorage, EnhancedPETImageStorage),
    "NM": (NuclearMedicineImageStorage,),
    "CR": (ComputedRadiographyImageStorage,),
    "DX": (DigitalXRayImageStorageForPresentation,),
    "MG": (DigitalMammographyXRayImageStorageForPresentation,),
    "XA": (XRayAngiographicImageStorage,),
    "US": (UltrasoundImageStorage, UltrasoundMultiFrameImageStorage),
    "ES": (VLEndoscopicImageStorage,),
    "XC": (VLPhotographicImageStorage,),
    "SM": (VLWholeSlideMicroscopyImageStorage,),
    "ECG": (TwelveLeadECGWaveformStorage, AmbulatoryECGWaveformStorage),
    "OT": (SecondaryCaptureImageStorage,),
    "SEG": (SegmentationStorage,),
    "SR": (ComprehensiveSRStorage, Comprehensive3DSRStorage),
    "PR": (GrayscaleSoftcopyPresentationStateStorage,),
    "KO": (KeyObjectSelectionDocumentStorage,),
    "DOC": (EncapsulatedPDFStorage,),
}
"""Modality → the classes that its objects usually have (PS3.4 B.5)."""
_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "picture": (SecondaryCaptureImageStorage,),
    "segmentation": (SegmentationStorage,),
    "parametric_map": (ParametricMapStorage,),
    "report": (Comprehensive3DSRStorage,),
    "document": (EncapsulatedPDFStorage,),
    "key_images": (KeyObjectSelectionDocumentStorage,),
    "presentation": (GrayscaleSoftcopyPresentationStateStorage,),
    "tiles": (VLWholeSlideMicroscopyImageStorage,),
    "recording": _OF_MODALITY["ECG"],
}
"""Kind of a result → the classes it leaves as; an image has the class of its source."""
_VOLUMES = ("CT", "MR", "PT", "NM")
_RECEIVED_AS = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless,
    JPEGBaseline8Bit,
)  # fmt: skip
"""What scanners send; received objects go on as they came where that is taken."""
_MADE_AS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@dataclass
class Need:
    """One SOP class that the rules would send to a peer."""

    made_by: set[str] = field(default_factory=set)
    """Rules whose results have this class."""
    sent_by: set[str] = field(default_factory=set)
    """Rules that pass received objects of this class on, or may."""

    @property
    def syntaxes(self) -> tuple[str, ...]:
        """What to propose."""
        return _RECEIVED_AS if self.sent_by else _MADE_AS


@dataclass(frozen=True)
class Row:
    """What one peer says to one SOP class."""

    peer: str
    sop_class: str
    needed_for: str
    accepts: tuple[str, ...]
    """UIDs of transfer syntaxes."""
    problem: str
    """What follows where that is not enough; empty where it is."""


def needs(rules: Iterable[Rule], specs: Mapping[str, OperatorSpec]) -> dict[str, dict[str, Need]]:
    """Peer → SOP class → which rules need it."""
    found: dict[str, dict[str, Need]] = {}
    for rule in rules:
        blocks = [one.when for one in rule.study.inputs] if rule.study else [rule.when]
        bound = sorted({m.upper() for block in blocks for m in modalities(block)})
        made = {step.name: KIND_OF.get(specs[step.operator].returns, "") for step in rule.steps}
        for send in rule.sends:
            classes = (
                _received(bound)
                if send.what == RECEIVED
                else _results(send.forms or (made[send.what],), bound)
            )
            for to in send.to:
                for sop_class in classes:
                    need = found.setdefault(to, {}).setdefault(sop_class, Need())
                    (need.sent_by if send.what == RECEIVED else need.made_by).add(rule.name)
    return found


def _received(bound: Sequence[str]) -> list[str]:
    known = [m for m in bound if m in _OF_MODALITY] or list(_OF_MODALITY)
    return [sop_class for modality in known for sop_class in _OF_MODALITY[modality]]


def _results(kinds: Sequence[str], bound: Sequence[str]) -> list[str]:
    sources = [m for m in bound if m in _VOLUMES] or _VOLUMES
    images = [_OF_MODALITY[m][0] for m in sources]
    return [c for kind in kinds for c in (images if kind == "image" else _OF_KIND.get(kind, ()))]


def probe(settings: Settings, rules: Sequence[Rule], specs: Mapping[str, OperatorSpec]) -> list[Row]:
    """Ask every peer that rules send to. One that cannot be reached has no rows: its C-ECHO says why."""
    rows: list[Row] = []
    for name, classes in sorted(needs(rules, specs).items()):
        peer = settings.peers.get(name)
        if peer is not None and peer.receives:
            rows += _ask(settings, peer, classes)
    return rows


def _ask(settings: Settings, peer: Peer, classes: Mapping[str, Need]) -> list[Row]:
    pairs = [
        (sop_class, syntax)
        for sop_class, need in sorted(classes.items())
        for syntax in dict.fromkeys((*need.syntaxes, *(peer.transfer_syntaxes if need.sent_by else ())))
    ]
    answers, lost = scu.probe(talk.destination(settings, peer.name), pairs)
    if lost is not None:
        return []
    return [_row(peer, sop_class, need, answers) for sop_class, need in sorted(classes.items())]


def _row(peer: Peer, sop_class: str, need: Need, answers: Mapping[Pair, str]) -> Row:
    accepts = tuple(syntax for (asked, syntax), why in answers.items() if asked == sop_class and not why)
    why = next((why for (asked, _), why in answers.items() if asked == sop_class and why), "")
    problem = ""
    if not set(accepts) & set(_MADE_AS) and need.made_by:
        problem = f"results of {', '.join(sorted(need.made_by))} are not taken: {why}"
    elif not accepts:
        problem = f"not taken: {why}"
    rules = ", ".join(sorted(need.made_by | need.sent_by))
    return Row(peer.name, UID(sop_class).name, rules, accepts, problem)


def is_failure(row: Row) -> bool:
    """A result of ours could not be stored there; that a PACS takes no ECG is its own affair."""
    return row.problem.startswith("results of ")


def shown(row: Row) -> dict[str, str]:
    """A row for people."""
    names = ", ".join(_SHORT.get(syntax, UID(syntax).name) for syntax in row.accepts)
    said = "; ".join(part for part in (names, row.problem) if part)
    return {"peer": row.peer, "sop_class": row.sop_class, "rules": row.needed_for, "accepts": said}


_SHORT: Mapping[str, str] = {
    ExplicitVRLittleEndian: "explicit", ImplicitVRLittleEndian: "implicit", JPEGLosslessSV1: "JPEG lossless",
    JPEG2000Lossless: "JPEG 2000 lossless", JPEGLSLossless: "JPEG-LS", RLELossless: "RLE", JPEGBaseline8Bit: "JPEG",
}  # fmt: skip
