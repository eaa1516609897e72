"""What a rule's `edit:` makes of a dataset: the same with some attributes set, copied, mapped or removed.

Values are looked at as text, in the character set of the object, and judged by PS3.5 6.2 before they are put in
place: whatever does not fit refuses the whole edit. What is not named stays as it is, byte for byte. A
received object keeps its SOP Instance UID and says what it said before (PS3.3 C.12.1.1.9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydicom import config
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.charset import convertible, to_utf8
from node.derive.inherit import AnyElement, empty, opened, put, text_element
from node.derive.original import Coercion, record, tags_written
from node.derive.standard import roots
from node.errors import Refused
from node.person import part_of, with_part

Edit = Mapping[str, Any]
"""One change as `route.edits` writes it: `op`, `path`, and what it needs."""
Table = Mapping[str, str]

_BRACES = re.compile(r"\{([^{}]*)\}")
_STEP = re.compile(r"([A-Za-z0-9]+)(?:\[([0-9]+)\])?")
_WHOLE_NUMBERS = frozenset({"US", "SS", "UL", "SL", "SV", "UV"})
_FLOATS = frozenset({"FL", "FD"})


@dataclass(frozen=True)
class Edited:
    """What came of it."""

    dataset: Dataset
    changed: frozenset[BaseTag]
    """At the top of the dataset: those that are other than before, added, or gone."""


def edited(
    source: Dataset, edits: Sequence[Edit], tables: Mapping[str, Table], why: Coercion | None
) -> Edited:
    """Apply *edits* in their order; *why* None records nothing (a derived object is ours to word).

    *tables* are those that a `map` names by digest. Raises Refused with the attribute and what does not fit.
    """
    work = _Work(source, tables)
    for edit in edits:
        _OPS[edit["op"]](work, edit)
    work.satisfy(source)
    changed = work.changed(source)
    if changed and why is not None:
        record(work.dataset, {tag: source.get_item(tag) for tag in changed}, why)
        changed |= set(tags_written())
    return _settled(work.dataset, changed)


@dataclass
class _Work:
    """A dataset under change: what is changed in it is a copy."""

    source: Dataset
    tables: Mapping[str, Table]
    dataset: Dataset = field(init=False)
    touched: set[BaseTag] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dataset = Dataset()
        self.dataset._dict = dict(self.source._dict)
        self.encodings = values.encodings_of(self.source)

    def owners(self, path: str) -> list[tuple[Dataset, str]]:
        """The datasets in which the attribute at the end of *path* stands or would stand, and its keyword."""
        *steps, last = path.split(".")
        owners = [self.dataset]
        for number, step in enumerate(steps):
            match = _STEP.fullmatch(step)
            keyword, index = (match[1], match[2]) if match else (step, None)
            tag = Tag(tag_for_keyword(keyword))
            if number == 0 and tag in self.dataset and tag not in self.touched:
                self.dataset._dict[tag] = deepcopy(self.dataset[tag])
            if number == 0:
                self.touched.add(tag)
            found = [list(owner[tag].value or ()) for owner in owners if tag in owner]
            owners = [
                item for items in found for i, item in enumerate(items) if index in (None, str(i))
            ]  # fmt: skip
        if not steps:
            self.touched.add(Tag(tag_for_keyword(last)))
        return [(owner, last) for owner in owners]

    def texts(self, owner: Dataset, keyword: str) -> list[str]:
        """The values of an attribute as text; none where it is absent or empty."""
        tag = Tag(tag_for_keyword(keyword))
        element = owner.get_item(tag)
        if element is None:
            return []
        vr = values.vr_of(element)
        if vr not in values.TEXT_VRS:
            return [] if owner[tag].is_empty else [str(v) for v in _many(owner[tag].value)]
        data = values.octets(element, values.encodings_of(owner, self.encodings))
        text = values.decoded(data, values.encodings_of(owner, self.encodings))
        if text is None:
            raise Refused(f"{keyword} has bytes that are no text in the object's character set")
        if not text.strip():
            return []
        parts = [text] if vr in values.SINGLE_VRS else text.split("\\")
        return [part.strip(" ") for part in parts]

    def said(self, path: str) -> str:
        """The text that a template takes from *path*, a keyword or a part of a name; empty where there is none."""
        keyword, _, part = path.partition(".")
        found = self.texts(self.dataset, keyword)
        return part_of(found[0], part) if found and part else " ".join(found)

    def write(self, owner: Dataset, keyword: str, texts: Sequence[str]) -> None:
        """Put these values in place; none of them: it is empty. Raises Refused where they do not fit."""
        tag = Tag(tag_for_keyword(keyword))
        old = owner.get_item(tag)
        vr = values.vr_of(old) if old is not None else empty(keyword).VR
        if not any(texts):
            put(owner, keyword, empty(keyword))
        elif vr in _WHOLE_NUMBERS | _FLOATS:
            put(owner, keyword, _number_element(tag, vr, texts))
        else:
            put(owner, keyword, _text(tag, vr, "\\".join(texts)))

    def changed(self, source: Dataset) -> set[BaseTag]:
        """Of what was touched, what is not as it was."""
        return {tag for tag in self.touched if not _same(source.get_item(tag), self.dataset.get_item(tag))}

    def satisfy(self, source: Dataset) -> None:
        """Keep what the object's class demands (PS3.3): type 2 is emptied, not removed; type 1 keeps a value."""
        sop_class = "".join(self.texts(source, "SOPClassUID"))
        for tag in sorted(self.touched):
            row = roots(sop_class).get(keyword_for_tag(tag))
            if row is None or not row.required or source.get_item(tag) is None:
                continue
            if row.type == "2" and tag not in self.dataset:
                put(self.dataset, row.keyword, empty(row.keyword))
            elif row.type == "1" and _is_void(self.dataset, tag) and not _is_void(source, tag):
                raise Refused(
                    f"{row.keyword} would be empty, and an object of this kind must have a value there"
                )


def _set(work: _Work, edit: Edit) -> None:
    text = _BRACES.sub(lambda match: work.said(match[1]), edit["value"])
    for owner, keyword in work.owners(edit["path"]):
        _write_part(work, owner, keyword, edit.get("part", ""), text)


def _copy(work: _Work, edit: Edit) -> None:
    """What is not there to be copied leaves the other as it is."""
    sources = work.owners(edit["from"])
    found = [texts for owner, keyword in sources if (texts := work.texts(owner, keyword))]
    if not found:
        return
    texts = [part_of(found[0][0], edit["from_part"])] if edit.get("from_part") else found[0]
    for owner, keyword in work.owners(edit["path"]):
        if edit.get("part"):
            _write_part(work, owner, keyword, edit["part"], " ".join(texts))
        else:
            work.write(owner, keyword, texts)


def _prefix(work: _Work, edit: Edit) -> None:
    """What is empty has nothing to put a prefix before."""
    for owner, keyword in work.owners(edit["path"]):
        texts = work.texts(owner, keyword)
        part = edit.get("part", "")
        if part and texts and part_of(texts[0], part):
            _write_part(work, owner, keyword, part, edit["text"] + part_of(texts[0], part))
        elif texts and not part:
            work.write(owner, keyword, [edit["text"] + text for text in texts])


def _map(work: _Work, edit: Edit) -> None:
    table = work.tables[edit["lookup"]] if "lookup" in edit else edit["table"]
    for owner, keyword in work.owners(edit["path"]):
        texts, part = work.texts(owner, keyword), edit.get("part", "")
        if part:
            texts = [part_of(texts[0], part)] if texts else []
        mapped = [_looked_up(table, text, edit, keyword) for text in texts or [""]]
        if part:
            _write_part(work, owner, keyword, part, mapped[0])
        elif texts or any(mapped):
            work.write(owner, keyword, mapped if any(mapped) else [])


def _looked_up(table: Table, text: str, edit: Edit, keyword: str) -> str:
    if text in table:
        return table[text]
    if edit["else"] == "refuse":
        what = f"the value of {keyword} is" if text else f"{keyword} is empty, and that is"
        raise Refused(f"{what} not in the table {edit['name']}; add it there, or say else: keep or empty")
    return text if edit["else"] == "keep" else ""


def _remove(work: _Work, edit: Edit) -> None:
    for owner, keyword in work.owners(edit["path"]):
        if edit.get("part"):
            _write_part(work, owner, keyword, edit["part"], "")
        else:
            owner._dict.pop(Tag(tag_for_keyword(keyword)), None)


_OPS: Mapping[str, Callable[[_Work, Edit], None]] = {
    "set": _set, "copy": _copy, "prefix": _prefix, "map": _map, "remove": _remove,
}  # fmt: skip


def _write_part(work: _Work, owner: Dataset, keyword: str, part: str, text: str) -> None:
    """Write an attribute, or one *part* of the name in it."""
    if part:
        if set("^=\\") & set(text):
            raise Refused(f"{keyword}.{part} is one part of a name, and the text for it holds several")
        before = work.texts(owner, keyword)
        text = with_part(before[0] if before else "", part, text)
    work.write(owner, keyword, [text] if text else [])


def _text(tag: BaseTag, vr: str, text: str) -> AnyElement:
    """An element of text: bytes where any character set has them, else text for `_settled` to encode."""
    keyword = keyword_for_tag(tag)
    data = text.encode("utf-8")
    if vr not in values.CHARSET_VRS and not text.isascii():
        raise Refused(f"{keyword} would have characters beyond ASCII, which {vr} does not allow")
    if wrong := values.defect(tag, vr, data, ("utf-8",)):
        raise Refused(f"{keyword} {wrong}")
    if text.isascii():
        return text_element(tag, vr, data)
    return DataElement(tag, vr, text, validation_mode=config.IGNORE)


def _number_element(tag: BaseTag, vr: str, texts: Sequence[str]) -> DataElement:
    keyword = keyword_for_tag(tag)
    try:
        found: list[Any] = [int(text) if vr in _WHOLE_NUMBERS else float(text) for text in texts]
        element = DataElement(tag, vr, found if len(found) > 1 else found[0], validation_mode=config.RAISE)
    except (ValueError, OverflowError):
        raise Refused(f"{keyword} would hold what is no number that {vr} allows") from None
    if wrong := values.count_defect(tag, len(found)):
        raise Refused(f"{keyword} {wrong}")
    return element


def _many(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else list(
        value if hasattr(value, "append") else [value]
    )  # fmt: skip


def _same(one: AnyElement | None, two: AnyElement | None) -> bool:
    if one is None or two is None:
        return one is two
    vr = values.vr_of(one)
    if vr in values.TEXT_VRS and values.vr_of(two) == vr:
        return values.octets(one) == values.octets(two)
    return bool(one is two or (one.VR == two.VR and one.value == two.value))


def _is_void(dataset: Dataset, tag: BaseTag) -> bool:
    element = dataset.get_item(tag)
    if element is None:
        return True
    if values.vr_of(element) in values.TEXT_VRS:
        return not values.octets(element).strip()
    return element.value is None or (isinstance(element.value, bytes | list | Items) and not element.value)


def _settled(dataset: Dataset, changed: set[BaseTag]) -> Edited:
    """See that new text can be said in the object's character set; else the whole object becomes UTF-8."""
    opened(dataset, changed)
    encodings = values.encodings_of(dataset)
    ours = [e for e in dataset.elements() if _needs_a_charset(e)]
    nested = [e for tag in changed if (e := dataset.get_item(tag)) is not None and e.VR == "SQ"]
    texts = [str(e.value) for e in (*ours, *(inner for e in nested for inner in _inside(e)))]
    if all(values.encodable(text, encodings) for text in texts):
        return Edited(dataset, frozenset(changed))
    if not convertible(opened(dataset), encodings):
        raise Refused("the new text has characters that the object's character set does not have")
    made = to_utf8(dataset, encodings)
    made.SpecificCharacterSet = "ISO_IR 192"
    text_or_items = {e.tag for e in made.elements() if e.VR in values.CHARSET_VRS or e.VR == "SQ"}
    return Edited(made, frozenset(changed | text_or_items | {Tag("SpecificCharacterSet")}))


def _needs_a_charset(element: AnyElement) -> bool:
    return not element.is_raw and element.VR in values.CHARSET_VRS and bool(element.value)


def _inside(element: AnyElement) -> list[AnyElement]:
    found: list[AnyElement] = []
    for item in element.value or ():
        for inner in item.elements():
            if inner.VR == "SQ":
                found += _inside(inner)
            elif _needs_a_charset(inner):
                found.append(inner)
    return found
