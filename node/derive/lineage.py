"""What a slice, a segment or a map came from: source images by place, and the parts that came together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.derive import geometry
from node.derive.inherit import put, text_element
from node.derive.references import PROCESSED, items
from node.derive.sources import Sources
from node.derive.values import octets
from node.model import Code


def source_items(
    sources: Sources,
    indices: Sequence[int],
    slab: tuple[geometry.Plane, float],
    purpose: Code = PROCESSED,
) -> list[Dataset]:
    """Items of a Source Image Sequence for what was made of the sources *indices*, each object once.

    Of the parts and inputs that came together, those slices are named that meet the *slab*: a plane and its
    thickness, mm; of those in another frame of reference all.
    """
    plane, thickness = slab
    whole = sources.together
    used = list(indices)
    for stack in sources.other_stacks:
        if not sources.in_place(stack[0]):  # places of another frame of reference say nothing here
            used += stack
            continue
        planes = [whole.planes[i] for i in stack]
        near = geometry.contributors(plane, thickness, planes, geometry.gap_of(planes))
        used += [stack[i] for i in near]
    return items(whole, used, purpose)


def series_items(headers: Iterable[Dataset]) -> list[Dataset]:
    """Items of a Referenced Series Sequence that names each object of *headers* once (C.12.2)."""
    series: dict[bytes, dict[bytes, Dataset]] = {}
    for header in headers:
        series.setdefault(_bytes(header, "SeriesInstanceUID"), {})[_bytes(header, "SOPInstanceUID")] = header
    made = []
    for uid, instances in series.items():
        item = Dataset()
        put(item, "SeriesInstanceUID", text_element(tag_for_keyword("SeriesInstanceUID"), "UI", uid))
        item.ReferencedInstanceSequence = [_instance(header) for header in instances.values()]
        made.append(item)
    return made


def _instance(header: Dataset) -> Dataset:
    """SOP Instance Reference Macro, in the source's own bytes: an illegal UID is quoted as it is."""
    item = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        into = f"Referenced{keyword}"
        put(item, into, text_element(tag_for_keyword(into), "UI", _bytes(header, keyword)))
    return item


def _bytes(header: Dataset, keyword: str) -> bytes:
    element = header.get_item(keyword)
    return b"" if element is None else octets(element)
