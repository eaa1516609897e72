"""What every derived object of a run shares: UIDs, clock, text and the trail it leaves (PS3.3 C.12.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.derive.identity import CREATOR, IMPLEMENTATION, uid
from node.derive.sources import Sources
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
