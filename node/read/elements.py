"""A dataset → every attribute under the name a rule may use, each with its distinct values.

Names are keywords (`Modality`), paths (`RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose`)
and private elements (`(0019,xx0C) SIEMENS MR HEADER`). Attributes in the functional groups of a
multi-frame object stand under their plain keyword, a value per frame (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, private_dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.model import Cell, Value
from node.read.values import LONGEST, encodings_of, values_of

SHARED, PER_FRAME = 0x52009229, 0x52009230
NO_VALUE = frozenset(("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN"))
"""Value representations of which not even emptiness is a fact."""
_CHARACTER_SET = 0x00080005
_DEEPEST = 4
_MOST_ITEMS = 16
"""Of a sequence, so many items become paths; the rest stays in the file."""


def attributes_of(dataset: Dataset) -> dict[str, Cell]:
    """Every attribute of *dataset* by name; functional groups resolved, bulk data left out."""
    little = dataset.original_encoding[1] is not False
    encodings = encodings_of(_plain(dataset, _CHARACTER_SET, ("latin-1",), little) or ())
    found: dict[str, Cell] = {name: (value,) for name, value in _flat(dataset, "", encodings, little, 0)}
    for name, values in _functional_groups(dataset, encodings, little).items():
        found.setdefault(name, tuple(values))
    return found


def pairs_of(dataset: Dataset, encodings: tuple[str, ...]) -> Iterator[tuple[str, Value]]:
    """Name and value of each attribute of a Little Endian *dataset*, functional groups left out."""
    return _flat(dataset, "", encodings, True, 0)


def _plain(dataset: Dataset, tag: int, encodings: tuple[str, ...], little: bool) -> Value | None:
    try:
        element = dataset.get_item(tag)
    except KeyError:
        return None
    return _value(element, dataset, encodings, little) if element is not None else None


def _flat(
    dataset: Dataset, prefix: str, encodings: tuple[str, ...], little: bool, depth: int
) -> Iterator[tuple[str, Value]]:
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset converts every element
        if tag in (SHARED, PER_FRAME) or tag.element == 0:
            continue
        element = dataset.get_item(tag)
        name = _name(tag, dataset)
        if not name:
            continue
        items = _items(element, dataset)
        if items is None:
            value = _value(element, dataset, encodings, little)
            if value is not None:
                yield prefix + name, value
            continue
        if depth < _DEEPEST:
            for i, item in enumerate(items[:_MOST_ITEMS]):
                yield from _flat(item, f"{prefix}{name}[{i}].", encodings, little, depth + 1)


def _functional_groups(
    dataset: Dataset, encodings: tuple[str, ...], little: bool
) -> dict[str, dict[Value, None]]:
    """Keyword → its distinct values over the frames, in frame order."""
    found: dict[str, dict[Value, None]] = {}
    for tag in (SHARED, PER_FRAME):
        if tag not in dataset:
            continue
        for frame in _items(dataset.get_item(tag), dataset) or ():
            for macro in frame.keys():  # noqa: SIM118
                for item in _items(frame.get_item(macro), frame) or ():
                    for name, value in _flat(item, "", encodings, little, _DEEPEST - 2):
                        # A vendor's private macro repeats standard attributes in its own sense: they do not count.
                        if name.startswith("(") or not macro.is_private:
                            found.setdefault(name, {})[value] = None
    return found


def _name(tag: BaseTag, dataset: Dataset) -> str:
    return name_of(tag, _creator(tag, dataset) if tag.is_private else "")


def name_of(number: int, creator: str) -> str:
    """What a rule calls an element, empty where it cannot; *creator*: whose it is, if it is private."""
    tag = BaseTag(number)
    if not tag.is_private:
        return keyword_for_tag(tag)
    if tag.element < 0x1000:
        return ""
    if not creator:  # unowned: of use to nobody but `vendor`, who knows whose it was
        return f"({tag.group:04X},{tag.element:04X})"
    return f"({tag.group:04X},xx{tag.element & 0xFF:02X}) {creator}"


def _creator(tag: BaseTag, dataset: Dataset) -> str:
    if tag.element < 0x1000:  # a creator, or the length of its group: nobody's, and never its own
        return ""
    value = _plain(dataset, (tag.group << 16) + (tag.element >> 8), ("latin-1",), True)
    return value[0] if value else ""


def _vr(element: RawDataElement | DataElement, dataset: Dataset) -> str:
    tag, vr = BaseTag(element.tag), element.VR
    if vr and vr != "UN":
        return vr
    return vr_of(tag, vr or "", _creator(tag, dataset) if tag.is_private else "")


def vr_of(number: int, stated: str, creator: str) -> str:
    """The VR by which a value is read: the *stated* one, else what the dictionaries say."""
    if stated and stated != "UN":
        return stated
    tag, vr = BaseTag(number), stated
    try:
        if not tag.is_private:
            return dictionary_VR(tag).split(" ")[0]
        return private_dictionary_VR(tag, creator).split(" ")[0]
    except KeyError:
        return vr or ("LO" if tag.is_private and 0x10 <= tag.element <= 0xFF else "UN")


def _items(element: Any, dataset: Dataset) -> list[Dataset] | None:
    """A sequence's items, None for anything else; an unreadable sequence has none."""
    if isinstance(element, DataElement):
        return list(element.value) if element.VR == "SQ" else None
    if element is None or _vr(element, dataset) != "SQ":
        return None
    try:
        return list(convert_raw_data_element(element._replace(VR="SQ"), ds=dataset).value)
    except Exception:  # noqa: BLE001 - whatever a peer put there, the object itself stays readable
        return []


def _value(element: Any, dataset: Dataset, encodings: tuple[str, ...], little: bool) -> Value | None:
    if isinstance(element, DataElement):
        return _converted(element)
    raw = element.value
    if raw is None:
        return ()
    if not isinstance(raw, bytes) or len(raw) > LONGEST:
        return None
    return values_of(_vr(element, dataset), raw, encodings, little)


def _converted(element: DataElement) -> Value | None:
    if element.VR in NO_VALUE:
        return None
    if element.is_empty:
        return ()
    value = element.value
    return tuple(str(v) for v in value) if element.VM > 1 else (str(value),)


def items_of(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of one sequence, all of them; none where it is absent, unreadable or no sequence."""
    if tag not in dataset:
        return []
    return _items(dataset.get_item(tag), dataset) or []


def text_of(dataset: Dataset, tag: int) -> str:
    """The first value of one element in the default repertoire, a UID for example; empty where it is absent."""
    value = _plain(dataset, tag, ("latin-1",), True)
    return value[0] if value else ""


def first(attributes: Mapping[str, Cell], name: str) -> str:
    """The first value of *name*, empty where it is absent or empty."""
    cell = attributes.get(name)
    return cell[0][0] if cell and cell[0] else ""
