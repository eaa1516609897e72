"""One character set for all text of an object: what was copied and what is ours (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from node.derive import values
from node.derive.inherit import AnyElement, put, text_element
from node.derive.sources import Sources


def settle_charset(dataset: Dataset, sources: Sources) -> Dataset:
    """Put *dataset* into the character set that can say all of it.

    The sources' own where it can; else the whole object becomes UTF-8, copied text properly converted.
    Where a copied text cannot even be decoded it stays as it is, and our own text gives way with `?`.
    """
    stated = sources.first.get_item("SpecificCharacterSet")
    if stated is not None:
        data = values.octets(stated)
        if data and not values.defect(stated.tag, "CS", data, ("ascii",)):
            put(dataset, "SpecificCharacterSet", text_element(stated.tag, "CS", data))
    ours = list(_own_text(dataset))
    if all(values.encodable(str(item), sources.encodings) for _, _, item in ours):
        return dataset
    if convertible(dataset, sources.encodings):
        converted = to_utf8(dataset, sources.encodings)
        converted.SpecificCharacterSet = "ISO_IR 192"
        return converted
    for owner, keyword, item in ours:
        setattr(owner, keyword, str(item).encode("ascii", "replace").decode("ascii"))
    return dataset


def _own_text(dataset: Dataset) -> Iterable[tuple[Dataset, str, str]]:
    for element in dataset.elements():
        if element.VR == "SQ":
            for item in element.value:
                yield from _own_text(item)
        elif not element.is_raw and element.VR in values.CHARSET_VRS and element.value:
            yield dataset, element.keyword, element.value


def convertible(dataset: Dataset, encodings: Sequence[str]) -> bool:
    """Whether all copied text can be read by the character set that *dataset* says it is in."""
    for element in dataset.elements():
        if element.VR == "SQ":
            if not all(convertible(item, values.encodings_of(item, encodings)) for item in element.value):
                return False
        elif _is_copied(element) and _declared_text(element, encodings) is None:
            return False
    return True


def _declared_text(element: AnyElement, encodings: Sequence[str]) -> str | None:
    """Read text by the declared character set only: a guess must not become someone's name."""
    return values.decoded(values.octets(element), values.declared(encodings))


def _is_copied(element: AnyElement) -> bool:
    """Tell text in the sources' bytes from our own."""
    return bool(element.is_raw and element.VR in values.CHARSET_VRS)


def to_utf8(dataset: Dataset, encodings: Sequence[str]) -> Dataset:
    """*dataset* with its copied text in UTF-8; its Specific Character Set is not touched."""
    result = Dataset()
    for element in dataset.elements():
        new: AnyElement = element
        if element.VR == "SQ":
            items = [to_utf8(item, values.encodings_of(item, encodings)) for item in element.value]
            for item in items:
                item.pop("SpecificCharacterSet", None)
            new = DataElement(element.tag, "SQ", Items(items))
        elif _is_copied(element):
            text = _declared_text(element, encodings) or ""
            new = text_element(element.tag, element.VR, text.encode("utf-8"))
        result._dict[element.tag] = new
    return result
