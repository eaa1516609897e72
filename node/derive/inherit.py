"""What a derived object takes over from its sources: verbatim, cleaned of what a bad scanner wrote.

Text is copied as bytes, never decoded, so that a wrong character set cannot change a name. The rule
for a defective attribute: optional ones are dropped, type 2 emptied, type 1 kept; Patient's Name,
Patient ID and Accession Number are never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.standard import Attribute, Path, attributes, roots
from node.errors import Refused

NEVER_ALTERED = frozenset({"PatientName", "PatientID", "AccessionNumber"})
_MUST_AGREE = ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID")
_NEVER_COPIED = frozenset({
    # Signatures, encrypted copies and histories speak of the source's bytes, not of ours (C.12.1).
    "DigitalSignaturesSequence", "MACParametersSequence", "EncryptedAttributesSequence",
    "OriginalAttributesSequence", "ConversionSourceAttributesSequence", "QueryRetrieveView",
    "PrivateDataElementCharacteristicsSequence", "HL7StructuredDocumentReferenceSequence",
    "SOPInstanceStatus", "SOPAuthorizationDateTime", "SOPAuthorizationComment", "InstanceOriginStatus",
    "AuthorizationEquipmentCertificationNumber", "InstanceCoercionDateTime", "BarcodeValue",
    "RelatedGeneralSOPClassUID", "OriginalSpecializedSOPClassUID",
    # The procedure step that made the source did not make this (design: Performed Procedure Step not).
    "ReferencedPerformedProcedureStepSequence", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime",
    "PerformedProcedureStepID", "PerformedProcedureStepDescription",
    "CommentsOnThePerformedProcedureStep",
})  # fmt: skip

AnyElement: TypeAlias = "DataElement | RawDataElement"


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute over all sources: its distinct cleaned elements and which source has which."""

    variants: tuple[AnyElement | None, ...]
    rows: tuple[int, ...]

    def agreed(self, sources: Iterable[int]) -> AnyElement | None:
        """Return the element if it is the same in all these *sources*, else None."""
        found = {self.rows[i] for i in sources}
        return self.variants[found.pop()] if len(found) == 1 else None


@dataclass(frozen=True)
class Inheritance:
    """The attributes of *sop_class*'s modules that the sources hold, cleaned, by keyword."""

    sop_class: str
    size: int
    columns: Mapping[str, Column]

    def common(self, entities: Collection[str], without: Collection[str] = ()) -> Dataset:
        """Make a dataset with what all sources agree on; required ones they differ in are empty.

        Patient and Study attributes come from the first source (all belong to one study); a type 1
        attribute is never made up.
        """
        result = Dataset()
        for keyword, row in roots(self.sop_class).items():
            if row.entity not in entities or keyword in without or keyword in _NEVER_COPIED:
                continue
            put(result, keyword, self._shared(keyword, row))
        return result

    def _shared(self, keyword: str, row: Attribute) -> AnyElement | None:
        column = self.columns.get(keyword)
        found = None
        if column is not None:
            one = row.entity in ("Patient", "Study")
            found = column.agreed(range(1) if one else range(self.size))
            if found is None and row.type == "2":
                return empty(keyword)
        return empty(keyword) if found is None and row.required and row.type == "2" else found

    def varying(self) -> Mapping[str, Column]:
        """Return the attributes in which the sources differ."""
        return {keyword: column for keyword, column in self.columns.items() if len(column.variants) > 1}


def put(dataset: Dataset, keyword: str, element: AnyElement | None) -> None:
    """Set *element* as it is, without conversion or validation; None leaves the dataset alone."""
    if element is not None:
        dataset._dict[Tag(tag_for_keyword(keyword))] = element


def empty(keyword: str) -> DataElement:
    """Make the attribute with zero length (type 2, PS3.5 7.4.3)."""
    tag = Tag(tag_for_keyword(keyword))
    vr = values.vr_of(RawDataElement(tag, None, 0, b"", 0, False, True))
    return DataElement(tag, vr, [] if vr == "SQ" else None)


def inherit(sources: Sequence[Dataset], sop_class: str) -> Inheritance:
    """Read every attribute *sop_class* may have from *sources*, cleaned by the rule of this module.

    Raises Refused where the sources belong to several patients, orders or studies.
    """
    for keyword in _MUST_AGREE:
        if len({_fingerprint(source, Tag(tag_for_keyword(keyword))) for source in sources}) > 1:
            raise Refused(f"the source images differ in {keyword}; they cannot share one derived object")
    columns = {}
    for keyword in roots(sop_class):
        column = _column(sources, keyword, attributes(sop_class))
        if column is not None:
            columns[keyword] = column
    return Inheritance(sop_class, len(sources), columns)


def _column(sources: Sequence[Dataset], keyword: str, table: Mapping[Path, Attribute]) -> Column | None:
    known: dict[Any, int] = {}
    variants: list[AnyElement | None] = []
    rows = []
    tag = Tag(tag_for_keyword(keyword))  # once: a keyword is looked up in each header otherwise
    for source in sources:
        element = source.get_item(tag)
        mark = None if element is None else _fingerprint(source, tag)
        if mark not in known:
            known[mark] = len(variants)
            variants.append(None if element is None else _cleaned(source, tag, (keyword,), table))
        rows.append(known[mark])
    return Column(tuple(variants), tuple(rows)) if set(known) != {None} else None


def _fingerprint(source: Dataset, tag: BaseTag) -> Any:
    """What tells one value from another, the same whether pydicom has converted it yet or not."""
    element = source.get_item(tag)
    if element is None:
        return b""
    vr = values.vr_of(element)
    if vr in values.TEXT_VRS:
        return values.octets(element)
    if vr == "SQ":
        return tuple(
            tuple((inner, _fingerprint(item, inner)) for inner in sorted(item.keys()))
            for item in source[tag].value
        )
    try:
        value = source[tag].value
    except (ValueError, NotImplementedError, TypeError):  # a length that no number fits
        return values.octets(element)
    return value if isinstance(value, bytes) else str(value)


def _cleaned(
    source: Dataset,
    tag: BaseTag,
    path: Path,
    table: Mapping[Path, Attribute],
    inherited: Sequence[str] = ("iso8859",),
) -> AnyElement | None:
    """Make a copy of one element fit to be written, or None where it has to be dropped."""
    element = source.get_item(tag)
    encodings = values.encodings_of(source, inherited)
    vr = values.vr_of(element)
    row = table.get(path)
    if vr in values.TEXT_VRS:
        data = values.octets(element, encodings)
        if not values.defect(tag, vr, data, encodings) or path[-1] in NEVER_ALTERED:
            return text_element(tag, vr, data)
    elif vr == "SQ":
        items = [_cleaned_item(item, path, table, encodings) for item in source[tag].value]
        return DataElement(tag, "SQ", Items(item for item in items if len(item)))
    else:
        return _binary(source, tag)
    kind = row.type if row else "3"
    if kind in ("1", "1C"):
        return text_element(tag, vr, data)
    return empty(path[-1]) if kind in ("2", "2C") else None


def _cleaned_item(
    item: Dataset, path: Path, table: Mapping[Path, Attribute], encodings: Sequence[str]
) -> Dataset:
    result = Dataset()
    for tag in item.keys():  # noqa: SIM118 - iterating a Dataset converts its values
        keyword = keyword_for_tag(tag)
        if keyword and tag.group % 2 == 0:
            put(result, keyword, _cleaned(item, tag, (*path, keyword), table, encodings))
    return result


def _binary(source: Dataset, tag: BaseTag) -> DataElement | None:
    try:
        element = source[tag]
    except (ValueError, NotImplementedError, TypeError):  # a length that no number fits
        return None
    count = 0 if element.is_empty else element.VM
    return None if count and values.count_defect(tag, count) else element


def text_element(tag: BaseTag, vr: str, data: bytes) -> RawDataElement:
    """Make an element whose bytes go to the file as they are, padded to even length (PS3.5 7.1.1)."""
    padded = data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)
    return RawDataElement(Tag(tag), vr, len(padded), padded, 0, False, True)


def opened(dataset: Dataset, tags: Iterable[BaseTag] | None = None) -> Dataset:
    """Read what pydicom left unread of the sequences in *dataset*, or of those under *tags*, at every depth."""
    for tag in list(dataset.keys()) if tags is None else tags:
        element = dataset.get_item(tag)
        if element is not None and element.VR == "SQ":
            for item in dataset[tag].value or ():
                opened(item)
    return dataset


def writable(dataset: Dataset) -> Dataset:
    """Mark *dataset* and its items as already encoded, so that raw text is written untouched."""
    correct_ambiguous_vr(dataset, True)
    _mark(dataset, "iso8859")
    return dataset


def _mark(dataset: Dataset, parent: str | list[str]) -> None:
    dataset._parent_encoding = parent
    own = dataset._character_set
    dataset.set_original_encoding(False, True, own)
    for element in dataset.elements():
        if element.VR == "SQ":
            for item in element.value:
                _mark(item, own)
