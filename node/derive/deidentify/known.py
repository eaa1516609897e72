"""The names and numbers that must not come back in a text that stays: what the header itself says of people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from node.derive import values

_NUMBERS = frozenset(
    int(Tag(keyword))
    for keyword in (
        "PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "StudyID", "MedicalRecordLocator",
        "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "CountryOfResidence", "IssuerOfPatientID",
        "RegionOfResidence", "FillerOrderNumberImagingServiceRequest", "PlacerOrderNumberImagingServiceRequest",
        "RequestedProcedureID", "ScheduledProcedureStepID", "ServiceEpisodeID", "ClinicalTrialSubjectID",
    )
)  # fmt: skip
_SEPARATORS = re.compile(r"[\^=\\\s,;._-]+")
_SHORTEST_NAME, _SHORTEST_NUMBER = 2, 3
_SURE = 5
"""Characters from which on a value is looked for inside words and raw bytes: shorter ones occur by chance."""


@dataclass(frozen=True)
class Known:
    """What identifies the people of one object, in lower case."""

    parts: frozenset[str]

    @property
    def sure(self) -> tuple[bytes, ...]:
        """The longer ones as bytes, in lower case, to be looked for where nothing can be parsed."""
        return tuple(part.encode() for part in sorted(self.parts) if len(part) >= _SURE)

    def within(self, text: str) -> bool:
        """Whether *text* says one of them: as a word of its own or, where it is long, anywhere."""
        small = text.casefold()
        if not small.strip():
            return False
        words = {small.strip(), *re.split(r"[^\w]+", small), *_SEPARATORS.split(small)}
        return bool(words & self.parts) or any(part in small for part in self.parts if len(part) >= _SURE)


def known(dataset: Dataset) -> Known:
    """Every name of a person, and every number given to one, at any depth of *dataset*."""
    return Known(frozenset(_parts(dataset, ("iso8859",))))


def _parts(dataset: Dataset, inherited: Sequence[str]) -> Iterator[str]:
    encodings = values.encodings_of(dataset, inherited)
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset converts its values
        if tag.group % 2:
            continue
        vr = values.vr_of(dataset.get_item(tag))
        if vr == "SQ":
            value = dataset[tag].value
            for item in value if isinstance(value, Items) else ():
                yield from _parts(item, encodings)
        elif vr == "PN" or int(tag) in _NUMBERS:
            data = values.octets(dataset.get_item(tag), encodings)
            text = values.decoded(data, encodings) or data.decode("latin-1")
            yield from _of(text.casefold(), vr == "PN")


def _of(text: str, name: bool) -> Iterator[str]:
    if name:
        yield from (part for part in _SEPARATORS.split(text) if len(part) >= _SHORTEST_NAME)
        return
    for value in text.split("\\"):
        if len(value.strip()) >= _SHORTEST_NUMBER:
            yield value.strip()
