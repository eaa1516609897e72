"""Which received objects a derived one refers to, by frame where they have several (PS3.3 10.3, C.12.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage

from node.derive.inherit import AnyElement, put, text_element
from node.derive.making import code_item
from node.derive.sources import Sources
from node.derive.values import octets
from node.model import Code

PROCESSED = Code("121322", "DCM", "Source image for image processing operation")
"""Purpose of Reference (CID 7202)."""
_MOST_FRAMES = 4000
"""Frame numbers that fit the 65534 bytes of an explicit IS element with room to spare (PS3.5 7.1.2)."""


def items(sources: Sources, indices: Iterable[int], purpose: Code | None = None) -> list[Dataset]:
    """Make one Referenced SOP item per object among the sources *indices*, in their order.

    Frame numbers are named where the object has several and not all of them are meant.
    """
    frames: dict[str, list[int]] = {}
    first: dict[str, int] = {}
    for index in indices:
        uid = sources.text("SOPInstanceUID", index)
        first.setdefault(uid, index)
        frames.setdefault(uid, []).append(frame_of(sources, index))
    return [_item(sources, first[uid], sorted({*numbers}), purpose) for uid, numbers in frames.items()]


def is_image(sources: Sources, index: int) -> bool:
    """Whether an IMAGE content item may refer to one source: it has pixels, and is no dose grid.

    RT Dose has records of its own beside images in a DICOMDIR, and DCMTK does not read a report in which an
    IMAGE item refers to it.
    """
    has_pixels = "Rows" in sources.headers[index]
    return has_pixels and sources.text("SOPClassUID", index) != RTDoseStorage


def frame_of(sources: Sources, index: int) -> int:
    """Give the frame number (from 1) of one source in its object, 0 for a single-frame object."""
    return sources.frames[index] if index < len(sources.frames) else 0


def _item(sources: Sources, index: int, frames: list[int], purpose: Code | None) -> Dataset:
    item = Dataset()
    header = sources.headers[index]
    put(item, "ReferencedSOPClassUID", _uid(header, "SOPClassUID", "ReferencedSOPClassUID"))
    put(item, "ReferencedSOPInstanceUID", _uid(header, "SOPInstanceUID", "ReferencedSOPInstanceUID"))
    whole = sources.text("NumberOfFrames", index).strip() == str(len(frames))
    if frames[0] > 0 and not whole and len(frames) <= _MOST_FRAMES:
        item.ReferencedFrameNumber = frames if len(frames) > 1 else frames[0]
    if purpose is not None:
        item.PurposeOfReferenceCodeSequence = [code_item(purpose)]
    return item


def _uid(header: Dataset, keyword: str, into: str = "") -> AnyElement:
    """Copy a UID's bytes, legal or not: a reference has to say what the source says."""
    return text_element(tag_for_keyword(into or keyword), "UI", octets(header.get_item(keyword)))


def by_series(sources: Sources, indices: Sequence[int], keyword: str) -> list[Dataset]:
    """Make one item per source series, its objects under *keyword* (Referenced Image or SOP Sequence)."""
    series: dict[str, list[int]] = {}
    for index in indices:
        series.setdefault(sources.text("SeriesInstanceUID", index), []).append(index)
    made = []
    for members in series.values():
        item = Dataset()
        put(item, "SeriesInstanceUID", _uid(sources.headers[members[0]], "SeriesInstanceUID"))
        setattr(item, keyword, items(sources, members))
        made.append(item)
    return made


def set_sources(dataset: Dataset, sources: Sources) -> None:
    """Say what *dataset* was made from: images in Source Image, anything else in Source Instance Sequence."""
    images: list[Dataset] = []
    others: list[Dataset] = []
    for part in (sources, Sources(sources.others)):  # parts that came together
        with_pixels = ["Rows" in header for header in part.headers]
        images += items(part, [i for i, has in enumerate(with_pixels) if has], PROCESSED)
        others += items(part, [i for i, has in enumerate(with_pixels) if not has], PROCESSED)
    if images:
        dataset.SourceImageSequence = images
    if others:
        dataset.SourceInstanceSequence = others


def set_lossy(dataset: Dataset, sources: Sources) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5); what the sources do not state is not claimed."""
    stated = {sources.text("LossyImageCompression", i) for i in range(len(sources.headers))}
    if "01" in stated:
        dataset.LossyImageCompression = "01"
    elif stated == {"00"}:
        dataset.LossyImageCompression = "00"
