"""Images that are no slices of a volume → Pictures: radiographs, ultrasound, cines, photographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from node.errors import Broken, Refused
from node.model import Code
from node.operator import NO_UNITS, Picture
from node.read.calibration import calibrated, regions_of
from node.read.frames import PIXELS, Source, enhanced, is_enhanced, sources
from node.read.loaded import Loaded, Part
from node.read.objects import (
    DECODER_FAILURES,
    frames_of,
    in_order,
    kind_of,
    loaded,
    number,
    refused_pixels,
    text,
)
from node.read.palette import palette
from node.read.picture_facts import facts_of, times_of
from node.read.scale import measured, padded

_OTHER_KINDS = {
    VLWholeSlideMicroscopyImageStorage: "a whole slide; its operators take Tiles",
    SegmentationStorage: "a segmentation, not an image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation, not an image",  # Label Map
    ParametricMapStorage: "a parametric map, not an image",
    RTDoseStorage: "a dose distribution, not an image",
}
_GREY = ("MONOCHROME1", "MONOCHROME2")
_ONE_SAMPLE = (*_GREY, "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_CAPTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
_VIDEO = ("MPEG", "HEVC", "SMPTE")


def pictures(paths: Sequence[Path]) -> Iterator[Loaded[Picture]]:
    """One Picture per image object, single frame or cine, by Instance Number.

    Raises Refused for an object that is none, when its turn comes; the next one can still be read.
    """
    return map(loaded, parts(paths))


def parts(paths: Sequence[Path]) -> list[Part[Picture]]:
    """The same, each still to be loaded. Raises Refused where there is none, Broken where a file is gone."""
    return [Part("", partial(_picture, path)) for path in in_order(paths)]


@dataclass(frozen=True, eq=False)
class _Decoded:
    """The values of all frames, which of them were measured, and what they are."""

    array: NDArray[Any]
    valid: NDArray[np.bool_] | None
    unit: Code
    facts: Mapping[str, Any]


def _picture(path: Path) -> Loaded[Picture]:
    source = sources((path,))[0]
    header = source.dataset
    _check(header)
    count = frames_of(header)
    headers = _headers(source, count)
    decoded = (
        _grey(source, headers) if text(header, "PhotometricInterpretation") in _GREY else _colour(source)
    )
    source.release()
    regions = regions_of(header)
    spacing, plane, scale_facts = calibrated(headers, regions)
    times, time_facts = times_of(header, count)
    picture = Picture(
        array=decoded.array,
        unit=decoded.unit,
        spacing=spacing,
        plane=plane,
        valid=decoded.valid,
        times=times,
        regions=regions,
        inverted=text(header, "PhotometricInterpretation") == "MONOCHROME1",
        facts={**facts_of(header, headers), **scale_facts, **time_facts, **decoded.facts},
    )
    return Loaded(picture, headers, (0,) if count == 1 else tuple(range(1, count + 1)))


def _headers(source: Source, count: int) -> tuple[Dataset, ...]:
    """One per frame: by the functional groups where there are some, else the object's own again and again."""
    if is_enhanced(source):
        return tuple(frame.header for frame in enhanced(source))
    return (source.dataset,) * count


def _check(header: Dataset) -> None:
    """Refuses what is no picture, or none that can be decoded."""
    other = _OTHER_KINDS.get(header.get("SOPClassUID"))
    if other:
        raise Refused(f"{kind_of(header)} is {other}")
    syntax = str(getattr(header.file_meta.get("TransferSyntaxUID"), "name", ""))
    if any(name in syntax for name in _VIDEO):
        raise Refused(
            f"the object is a video ({syntax}); it is stored and routed, its frames are not decoded"
        )
    if not (header.get("Rows") and header.get("Columns")):
        raise Refused(f"{kind_of(header)} holds no image")
    colour = text(header, "PhotometricInterpretation")
    samples = int(number(header, "SamplesPerPixel") or 1)
    if colour not in (_COLOUR if samples == 3 else _ONE_SAMPLE if samples == 1 else ()):
        raise Refused(f"colours are given as {colour or 'nothing'} in {samples} samples, which is not read")


def _decoded(source: Source) -> Iterator[NDArray[Any]]:
    """The frames, one after the other; colours as RGB. Raises what `refused_pixels` makes of a failure."""
    header, count = source.dataset, frames_of(source.dataset)
    shape = (int(header.Rows), int(header.Columns))
    found = 0
    try:
        for frame in islice(iter_pixels(_encoded(source)), count):
            found += 1
            yield _whole(frame, shape, found)
    except (Refused, Broken, MemoryError):
        raise
    except (OSError, *DECODER_FAILURES) as error:
        raise refused_pixels(source.path, header, error) from error
    if found < count:
        raise Refused(f"the object holds {found} of the {count} frames that its header promises")


def _encoded(source: Source) -> Any:
    """Where the encoded frames are: in the dataset, or still in the file, from which one comes at a time."""
    if any(tag in source.dataset for tag in PIXELS):
        return source.dataset
    deflated = source.dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return dcmread(source.path) if deflated else source.path


def _whole(frame: NDArray[Any], shape: tuple[int, int], place: int) -> NDArray[Any]:
    if frame.shape[:2] != shape:
        raise Refused(f"frame {place} is {frame.shape[:2]} pixels large, the header says {shape}")
    return frame


def _grey(source: Source, headers: Sequence[Dataset]) -> _Decoded:
    """Real-world values: float32, exact for up to 24 stored bits, float64 for longer ones."""
    first = headers[0]
    captured = first.get("SOPClassUID") in _CAPTURES  # of anything: what its modality stores says nothing
    meant = measured(headers, "OT" if captured else text(first, "Modality"))
    shape = (len(headers), int(first.Rows), int(first.Columns))
    array = np.empty(shape, np.float64 if int(number(first, "BitsStored") or 16) > 24 else np.float32)
    valid: NDArray[np.bool_] | None = None
    for k, stored in enumerate(_decoded(source)):
        array[k] = meant.scales[k](stored)
        for void in (padded(stored, headers[k]), meant.scales[k].undefined(stored)):
            if void is not None:
                valid = np.ones(shape, bool) if valid is None else valid
                valid[k] &= ~void
    facts = {"quantity": meant.quantity} if meant.quantity else {}
    return _Decoded(array, valid, meant.unit, facts)


def _colour(source: Source) -> _Decoded:
    """RGB, 8 bits; longer samples lose their low bits, as on every screen."""
    header = source.dataset
    shape = (frames_of(header), int(header.Rows), int(header.Columns), 3)
    array = np.empty(shape, np.uint8)
    table = palette(header) if text(header, "PhotometricInterpretation") == "PALETTE COLOR" else None
    beyond = max(int(number(header, "BitsStored") or 8) - 8, 0)
    for k, frame in enumerate(_decoded(source)):
        if table is not None:
            array[k] = table.of(frame)
        else:
            array[k] = frame if frame.dtype == np.uint8 else frame >> beyond
    return _Decoded(array, None, NO_UNITS, {})
