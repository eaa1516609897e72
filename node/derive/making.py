"""What every derived object of a run shares: sources, clock, text and the trail it leaves (PS3.3 C.12.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.derive import geometry, values
from node.derive.classic import single_frame, single_frame_class
from node.derive.identity import CREATOR, IMPLEMENTATION, uid
from node.derive.inherit import AnyElement, Inheritance, inherit, put, text_element
from node.errors import Broken
from node.model import WHOLE, Code, Job, Output, SeriesPart, series_key

MANUFACTURER = "PACSNode"
DESCRIPTION = "{{SeriesDescription}} {name}"
"""What a result is called where the rule does not say."""
_TEMPLATE = re.compile(r"\{(\w+)\}")
_FREE_TEXT = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "UT": 10**6, "CS": 16, "UC": 10**6}
_NOT_BY_TEMPLATE = frozenset(
    {"PatientID", "PatientName", "AccessionNumber", "Modality", "SpecificCharacterSet"}
)
"""What says whose the object is and what it is; a template may not change it."""


@dataclass(frozen=True)
class Sources:
    """The used source images, in slice order, with what is read of them more than once."""

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...] = ()
    """Per header: its frame number (from 1) in a multi-frame object, 0 for a single-frame one; () is all 0."""
    value: object = None
    """What the operators got: the Volume, Picture … of these headers; renditions are drawn over it."""
    others: tuple[Dataset, ...] = ()
    """Headers of further parts that went into the results, where parts come together."""
    stack: tuple[Sources, ...] = ()
    """Of a stack of volumes: the same for each of them, the others of the stack among its *others*."""

    def behind(self, result: object) -> Sources:
        """These sources as *result* sees them: those of the one volume of a stack that its fact `part` names."""
        part = getattr(result, "facts", {}).get("part") if self.stack else None
        return self.stack[part] if isinstance(part, int) and 0 <= part < len(self.stack) else self

    @property
    def first(self) -> Dataset:
        """The header that stands for the study and the series."""
        return self.headers[0]

    @cached_property
    def sop_class(self) -> str:
        """SOP Class UID of the sources."""
        return self.text("SOPClassUID")

    @cached_property
    def image_class(self) -> str:
        """SOP Class UID of images derived from them: the classic one where the sources are enhanced."""
        return single_frame_class(self.sop_class)

    def frame(self, index: int) -> int:
        """Frame number of one source in its object, 0 for a single-frame object."""
        return self.frames[index] if self.frames else 0

    @cached_property
    def together(self) -> Sources:
        """These headers with those of further parts behind them, which stand for their objects as a whole."""
        if not self.others:
            return self
        frames = tuple(self.frame(i) for i in range(len(self.headers)))
        return Sources((*self.headers, *self.others), frames + (0,) * len(self.others))

    @cached_property
    def other_stacks(self) -> list[list[int]]:
        """Indices in `together` of the further parts, by series and orientation: only so neighbours have a distance."""
        stacks: dict[tuple[bytes, ...], list[int]] = {}
        for i, header in enumerate(self.others, len(self.headers)):
            key = tuple(_octets(header, name) for name in ("SeriesInstanceUID", "ImageOrientationPatient"))
            stacks.setdefault(key, []).append(i)
        return list(stacks.values())

    def in_place(self, index: int) -> bool:
        """Whether one of `together` lies in the frame of reference of these sources, or states none."""
        stated = _octets(self.together.headers[index], "FrameOfReferenceUID").rstrip(b"\0 ")
        own = _octets(self.first, "FrameOfReferenceUID").rstrip(b"\0 ")
        return not stated or not own or stated == own

    @cached_property
    def planes(self) -> list[geometry.Plane | None]:
        """One plane per source, None where it states none."""
        return [geometry.plane_of(header) for header in self.headers]

    @cached_property
    def gap(self) -> float:
        """Distance between neighbouring source slices, mm."""
        return geometry.gap_of(self.planes)

    @cached_property
    def encodings(self) -> Sequence[str]:
        """Python codecs of the sources' character set."""
        return values.encodings_of(self.first)

    @cached_property
    def _numbers(self) -> dict[str, float | None]:
        return {}

    @cached_property
    def _inherited(self) -> dict[str, Inheritance]:
        return {}

    def inherit(self, sop_class: str) -> Inheritance:
        """Read what an object of *sop_class* takes over; read once per class."""
        if sop_class not in self._inherited:
            headers = self.headers
            if sop_class == self.image_class != self.sop_class:
                headers = tuple(single_frame(header, sop_class) for header in headers)
            self._inherited[sop_class] = inherit(headers, sop_class)
        return self._inherited[sop_class]

    def text(self, keyword: str, index: int = 0) -> str:
        """Read one attribute of one source as text, values joined by backslashes; empty where absent."""
        element = self.headers[index].get_item(keyword)
        if element is None:
            return ""
        data = values.octets(element, self.encodings)
        vr = values.vr_of(element)
        found = values.decoded(data, self.encodings if vr in values.CHARSET_VRS else ("ascii",))
        return data.decode("ascii", "replace") if found is None else found

    def number(self, keyword: str) -> float | None:
        """Read a decimal on which all sources agree, else None; asked of the headers once."""
        if keyword not in self._numbers:
            try:
                found = {float(self.text(keyword, i)) for i in range(len(self.headers))}
            except ValueError:
                found = set()
            self._numbers[keyword] = found.pop() if len(found) == 1 else None
        return self._numbers[keyword]


def _octets(header: Dataset, keyword: str) -> bytes:
    element = header.get_item(keyword)
    return b"" if element is None else values.octets(element)


@dataclass(frozen=True)
class Making:
    """One output in the making: its job, place among the outputs, and sources."""

    job: Job
    output: Output
    sources: Sources
    part: SeriesPart = WHOLE
    form: str = ""
    """`picture` where the output is made a second time, for destinations that do not show what it is."""
    before: int = 0
    """Objects that earlier parts put into the same series."""

    @property
    def key(self) -> str:
        """How this series is called among all of the run."""
        return series_key(self.output.name, self.part.number, self.form)

    def uid(self, role: str, index: int = 0) -> str:
        """Make a UID of this output; *index* counts within this part of it."""
        return uid(self.job.provenance.identity, self.key, role, index + self.before if index else 0)

    @property
    def frame_of_reference(self) -> str:
        """The sources' Frame of Reference UID, or one for the whole run where a bad header has none."""
        stated = self.sources.text("FrameOfReferenceUID")
        return stated or uid(self.job.provenance.identity, "", "frame-of-reference", 0)

    @cached_property
    def now(self) -> datetime:
        """When this identity was first run, in the sources' offset, else in the site's zone (C.12.1)."""
        stated = re.fullmatch(r"([+-])(\d{2})(\d{2})", self.sources.text("TimezoneOffsetFromUTC"))
        moment = self.job.provenance.first_run_at
        if stated:
            minutes = int(stated[2]) * 60 + int(stated[3])
            return moment.astimezone(timezone(timedelta(minutes=minutes if stated[1] == "+" else -minutes)))
        if not self.job.inherited_timezone:
            return moment
        try:
            return moment.astimezone(ZoneInfo(self.job.inherited_timezone))
        except (ZoneInfoNotFoundError, ValueError):
            raise Broken(f"unknown time zone {self.job.inherited_timezone} in the job") from None

    @property
    def date(self) -> str:
        """Our date as DA."""
        return self.now.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        """Our time as TM."""
        return self.now.strftime("%H%M%S.%f")

    def stamp(self, dataset: Dataset, sop_class: str, index: int) -> None:
        """Set what makes *dataset* our own instance number *index*: UIDs, numbers, dates, equipment."""
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = self.uid("instance", index)
        dataset.SeriesInstanceUID = self.uid("series")
        dataset.SeriesNumber = self._series_number()
        dataset.InstanceNumber = index + self.before
        dataset.InstanceCreatorUID = CREATOR
        dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = self.date
        dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = self.time
        dataset.ContributingEquipmentSequence = [*self._earlier_equipment(sop_class), self._equipment()]

    def _series_number(self) -> int:
        numbers = self.job.provenance.series_numbers
        # More parts than the facts let expect: they share a number, which identifies nothing (C.7.3.1).
        whole = series_key(self.output.name, form=self.form)
        if whole not in numbers:
            raise Broken(f"output {self.key}: the job gives no Series Number for it")
        return numbers.get(self.key, numbers[whole])

    def _earlier_equipment(self, sop_class: str) -> Iterable[Dataset]:
        column = self.sources.inherit(sop_class).columns.get("ContributingEquipmentSequence")
        element = column.variants[column.rows[0]] if column else None
        return element.value if element is not None else ()

    def _equipment(self) -> Dataset:
        item = Dataset()
        item.Manufacturer = MANUFACTURER
        item.StationName = self.job.provenance.device[:16]
        item.SoftwareVersions = self.job.provenance.software[:64]
        item.ContributionDateTime = self.now.strftime("%Y%m%d%H%M%S.%f%z")
        item.PurposeOfReferenceCodeSequence = [code_item(Code("109102", "DCM", "Processing Equipment"))]
        return item

    def describe(self, dataset: Dataset) -> None:
        """Fill the templates of the rule's `send` entries; Series Description has one of its own."""
        wanted: Mapping[str, str] = {**self.output.attributes, "SeriesDescription": self._description()}
        for keyword, template in wanted.items():
            tag = tag_for_keyword(keyword)
            vr = dictionary_VR(tag) if tag is not None else ""
            if vr not in _FREE_TEXT or keyword in _NOT_BY_TEMPLATE:
                raise Broken(
                    f"output {self.output.name}: a template cannot set {keyword}; remove it from `send`"
                )
            text = filled(template, self.sources, _FREE_TEXT[vr])
            # The gate judges the value; pydicom's own warning would quote it in the log.
            dataset.add(DataElement(tag, vr, text, validation_mode=config.IGNORE))

    def _description(self) -> str:
        """The template of Series Description, with the part it is of, its form, and last the revision."""
        template = self.output.attributes.get("SeriesDescription", DESCRIPTION.format(name=self.output.name))
        if self.part.label:
            template = f"{template} {self.part.label}"
        if self.form:
            template = f"{template} ({self.form})"
        revision = self.job.revision
        return f"{template} (rev {revision})" if revision > 1 else template


def filled(template: str, sources: Sources, limit: int) -> str:
    """*template* with each `{Keyword}` replaced by the source's text, at most *limit* characters.

    What is too long is cut from the last source part backwards, never from what the rule says.
    """
    literals = [_plain(part) for part in _TEMPLATE.split(template)[::2]]
    parts = [_plain(sources.text(keyword)) for keyword in _TEMPLATE.findall(template)]
    excess = sum(map(len, literals)) + sum(map(len, parts)) - limit
    for i in reversed(range(len(parts))):
        cut = min(max(excess, 0), len(parts[i]))
        parts[i] = parts[i][: len(parts[i]) - cut]
        excess -= cut
    text = literals[0] + "".join(part + after for part, after in zip(parts, literals[1:], strict=True))
    return text.strip()[:limit].strip()


def _plain(text: str) -> str:
    return re.sub(r"[\x00-\x1f]", " ", text.replace("\\", "/"))


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


def code_item(code: Code) -> Dataset:
    """Make a Code Sequence item (PS3.3 8.8); values over 16 characters go into Long Code Value."""
    item = Dataset()
    setattr(item, "CodeValue" if len(code.value) <= 16 else "LongCodeValue", code.value)
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning[:64]
    return item


def with_file_meta(dataset: Dataset, software: str) -> Dataset:
    """Add the File Meta Information (PS3.10 7.1) for Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(str(dataset.SOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = re.sub(r"[^A-Z0-9_ ]", "_", software.upper())[:16]
    dataset.file_meta = meta
    return dataset
