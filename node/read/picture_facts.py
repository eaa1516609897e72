"""What a picture's header says that operators ask for by name, and when its frames were taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.read.nuclear_facts import dynamic_times, nuclear_facts
from node.read.objects import code_of, number, numbers, text

_TEXTS = {
    "modality": "Modality",
    "sop_class": "SOPClassUID",
    "body_part": "BodyPartExamined",
    "view": "ViewPosition",
    "presentation_intent": "PresentationIntentType",
    "pixel_intensity_relationship": "PixelIntensityRelationship",
    "photometric": "PhotometricInterpretation",
    "burned_in": "BurnedInAnnotation",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "station": "StationName",
    "detector": "DetectorID",
    "protocol": "ProtocolName",
    "acquired": "AcquisitionDateTime",
}
_LISTS = {"image_type": "ImageType", "patient_orientation": "PatientOrientation"}
_NUMBERS = {
    "exposure_index": "ExposureIndex",
    "target_exposure_index": "TargetExposureIndex",
    "deviation_index": "DeviationIndex",
    "sensitivity": "Sensitivity",
    "relative_x_ray_exposure": "RelativeXRayExposure",
    "kvp": "KVP",
    "exposure": "Exposure",
    "bits_stored": "BitsStored",
    "distance_source_to_detector": "DistanceSourceToDetector",
    "distance_source_to_patient": "DistanceSourceToPatient",
    "frame_duration": "ActualFrameDuration",
}


def facts_of(header: Dataset, headers: Sequence[Dataset]) -> dict[str, Any]:
    """`modality`, `body_part`, `view`, `laterality`, `window`, `lossy`, `exposure_index` … as far as stated.

    *headers* are those of the frames. Numbers are in the unit of their attribute (mAs, kV, mm, ms).
    """
    facts: dict[str, Any] = {name: text(header, keyword) for name, keyword in _TEXTS.items()}
    facts |= {name: _texts(header, keyword) for name, keyword in _LISTS.items()}
    facts |= {name: number(header, keyword) for name, keyword in _NUMBERS.items()}
    for name, keyword in (("body_part", "AnatomicRegionSequence"), ("view", "ViewCodeSequence")):
        code = code_of(header, keyword)
        if code and not facts[name]:
            facts[name] = code.meaning
    facts["laterality"] = text(header, "ImageLaterality") or text(header, "Laterality")
    facts["lossy"] = text(header, "LossyImageCompression") == "01"
    facts["window"] = _window(headers[0])
    facts |= nuclear_facts(header, len(headers))
    return {name: value for name, value in facts.items() if value not in (None, "", ())}


def _texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    value = header.get(keyword)
    return (str(value),) if isinstance(value, str) else tuple(str(v) for v in value or ())


def _window(header: Dataset) -> tuple[float, float] | None:
    centre, width = number(header, "WindowCenter"), number(header, "WindowWidth")
    return (centre, width) if centre is not None and width is not None and width > 0 else None


def times_of(header: Dataset, count: int) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """Milliseconds of each frame from the first, and `times_from`; None where nothing says it.

    The phases of a dynamic scintigram (C.8.4.14), Frame Time Vector, Frame Time (PS3.3 C.7.6.5.1), then the rates
    a viewer is told to play at.
    """
    if count == 1:
        return None, {}
    phased = dynamic_times(header, count)
    if phased is not None:
        return phased, {"times_from": "PhaseInformationSequence"}
    vector = numbers(header, "FrameTimeVector")
    if len(vector) == count:
        moments = np.cumsum(np.array(vector, np.float64))
        return moments - moments[0], {"times_from": "FrameTimeVector"}
    step = number(header, "FrameTime")
    if step and step > 0:
        return np.arange(count, dtype=np.float64) * step, {"times_from": "FrameTime"}
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = number(header, keyword)
        if rate and rate > 0:
            return np.arange(count, dtype=np.float64) * (1000.0 / rate), {"times_from": keyword}
    return None, {}
