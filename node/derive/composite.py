"""What documents, key objects and presentation states begin and end with: patient, study, a series of ours."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.derive.charset import settle_charset
from node.derive.inherit import put
from node.derive.making import MANUFACTURER, Making, with_file_meta

_FROM_SERIES = ("RequestAttributesSequence", "BodyPartExamined", "Laterality", "TimezoneOffsetFromUTC")


def begun(making: Making, sop_class: str, modality: str, index: int = 1) -> Dataset:
    """Make a dataset with the sources' patient and study, our series, numbers, dates and equipment."""
    sources = making.sources
    inherited = sources.inherit(sop_class)
    dataset = inherited.common(("Patient", "Study"), without=("SpecificCharacterSet",))
    for keyword in _FROM_SERIES:
        column = inherited.columns.get(keyword)
        put(dataset, keyword, column.agreed(range(len(sources.headers))) if column else None)
    dataset.Modality = modality
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = making.job.provenance.software[:64]
    making.stamp(dataset, sop_class, index)
    making.describe(dataset)
    return dataset


def ended(making: Making, dataset: Dataset) -> Dataset:
    """Settle the character set and add the file meta information: *dataset* is ready to be written."""
    return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)
