"""Earlier studies: which patient is the same, and which of the series that a PACS offers is the prior. Pure.

The same patient is one with the same Patient ID, Issuer of Patient ID, birth date and sex; where any of them
is empty or differs there is no prior, and a sentence says why. Names do not count: they are spelled in many ways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from node.facts import gather
from node.model import Cell
from node.route.aggregates import Context
from node.route.conditions import Outcome
from node.route.inputs import Input
from node.route.preferring import Ranked, ranked
from node.route.values import squeeze
from node.route.weighing import weigh
from node.route.when import Line, When

_FOUR = {
    "patient_id": ("PatientID", "Patient ID"),
    "issuer": ("IssuerOfPatientID", "Issuer of Patient ID"),
    "birth_date": ("PatientBirthDate", "birth date"),
    "sex": ("PatientSex", "sex"),
}
"""Field → keyword and name of what makes a patient the same."""
STUDY_KEYS = (
    "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ModalitiesInStudy",
)  # fmt: skip
"""What C-FIND is asked for at the level STUDY (PS3.4 C.6.2.1)."""
SERIES_KEYS = (
    "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
    "BodyPartExamined", "NumberOfSeriesRelatedInstances",
)  # fmt: skip
"""And at the level SERIES, beside what the rule asks for (`keys`)."""


@dataclass(frozen=True, slots=True)
class Patient:
    """The four values that a patient is known by across studies."""

    patient_id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""

    def as_json(self) -> str:
        """As the table keeps it; `patient_from_json` gives back an equal value."""
        return json.dumps({keyword: getattr(self, name) for name, (keyword, _) in _FOUR.items()})


def patient_from_json(text: str) -> Patient:
    """The inverse of `Patient.as_json`."""
    said: Mapping[str, str] = json.loads(text)
    return Patient(**{name: said.get(keyword, "") for name, (keyword, _) in _FOUR.items()})


def patient_of(attributes: Mapping[str, Cell]) -> Patient:
    """Whose an object is, or what a C-FIND answer says; a value that is not there is empty."""
    return Patient(**{name: _first(attributes, keyword) for name, (keyword, _) in _FOUR.items()})


def _first(attributes: Mapping[str, Cell], keyword: str) -> str:
    cell = attributes.get(keyword)
    return cell[0][0].strip(" \0") if cell and cell[0] else ""


def no_prior(patient: Patient) -> str:
    """Why no earlier study of this patient can be asked for; empty where all four values are there."""
    missing = [said for name, (_, said) in _FOUR.items() if not getattr(patient, name)]
    if not missing:
        return ""
    are = "is" if len(missing) == 1 else "are"
    return f"the patient's {_listed(missing)} {are} empty, so no earlier study is surely theirs"


def different(one: Patient, other: Patient) -> str:
    """Why *other* is not certainly the patient *one*; empty where all four are there and the same."""
    lacking = [
        said for name, (_, said) in _FOUR.items() if not getattr(one, name) or not getattr(other, name)
    ]
    if lacking:
        return f"{_listed(lacking)} {'is' if len(lacking) == 1 else 'are'} empty"
    unlike = [said for name, (_, said) in _FOUR.items() if not _same(name, one, other)]
    return f"{_listed(unlike)} {'differs' if len(unlike) == 1 else 'differ'}" if unlike else ""


def _same(name: str, one: Patient, other: Patient) -> bool:
    """IDs and issuers as they stand, but for padding; the sex whatever its case."""
    first, second = getattr(one, name).strip(" \0"), getattr(other, name).strip(" \0")
    return squeeze(first) == squeeze(second) if name == "sex" else bool(first == second)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: an earlier study of a patient, as a row of the table says it."""

    study_uid: str
    """The study that wants it."""
    patient: Patient
    study_date: str
    study_time: str
    from_date: str
    tried: tuple[str, ...] = ()
    """Series Instance UIDs that were fetched and did not fit in full."""


def wanted_of(row: Mapping[str, Any]) -> Wanted:
    """A row of `wanted_prior`."""
    return Wanted(
        row["study_uid"], patient_from_json(row["patient"]), row["study_date"], row["study_time"], row["from_date"],
        tuple(json.loads(row["tried"])),
    )  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """One series of a C-FIND answer: what its study and it say, merged."""

    study_uid: str
    series_uid: str
    attributes: Mapping[str, Cell]


@dataclass(frozen=True)
class Chosen:
    """Which series to fetch."""

    order: tuple[Offer, ...]
    """Best first; empty where none is the prior."""
    why: str
    """In words, for `reason`."""


@dataclass(frozen=True)
class _Offered:
    """As `preferring` wants a series."""

    series_uid: str
    number: int | None
    given: None = None


def choose(source: Input, wanted: Wanted, offers: Sequence[Offer]) -> Chosen:
    """The offers that are surely of the same patient, early enough, and may fit; the preferred one first.

    A condition on what the answer does not say decides nothing here: it is judged in full once the series is there.
    Of two that are preferred alike the more recent study comes first.
    """
    against: dict[str, int] = {}
    fitting: list[Offer] = []
    for offer in offers:
        why = _against(source, wanted, offer)
        if why:
            against[why] = against.get(why, 0) + 1
        else:
            fitting.append(offer)
    if not fitting:
        told = "; ".join(f"{count} of {len(offers)}: {why}" for why, count in against.items())
        return Chosen(
            (), f"none of {len(offers)} series offered is a prior ({told})" if told else "nothing was found"
        )
    recent = sorted(fitting, key=_recent, reverse=True)
    context = Context(now=datetime.now(UTC), timezone="UTC")
    alike = [
        Ranked(gather([offer.attributes]), _Offered("", place), offer) for place, offer in enumerate(recent)
    ]
    order = ranked(source.prefer, alike, context)
    dated = _first(order[0].of.attributes, "StudyDate")
    return Chosen(
        tuple(one.of for one in order), f"of {_days(dated)}, {len(fitting)} of {len(offers)} offered fit"
    )


def _recent(offer: Offer) -> tuple[str, str, str, str]:
    said = offer.attributes
    return _first(said, "StudyDate"), _first(said, "StudyTime"), offer.study_uid, offer.series_uid


def _days(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 else text


def _against(source: Input, wanted: Wanted, offer: Offer) -> str:
    """Why an offer is no prior; empty where it may be one."""
    said = offer.attributes
    if offer.study_uid == wanted.study_uid:
        return "it is of the same study"
    if offer.series_uid in wanted.tried:
        return "it was fetched and did not fit"
    if unlike := different(wanted.patient, patient_of(said)):
        return f"not surely the same patient: {unlike}"
    if untimely := _untimely(wanted, _first(said, "StudyDate"), _first(said, "StudyTime")):
        return untimely
    found = weigh(
        (When(), _answered(source.when, said)), gather([said]), Context(datetime.now(UTC), "UTC"), {}
    )
    return found.because if found.outcome is Outcome.NO else ""


def _untimely(wanted: Wanted, day: str, moment: str) -> str:
    """Why a study of this date and time is no earlier one; empty where it is. Of the same day only its time tells."""
    if not day:
        return "its study has no date"
    if day < wanted.from_date:
        return f"older than {_days(wanted.from_date)}"
    earlier = day < wanted.study_date or (day == wanted.study_date and "" < moment < wanted.study_time)
    return "" if earlier else "not earlier than the study that asks"


def _answered(when: When, said: Mapping[str, Cell]) -> When:
    """The lines whose attribute the answer holds."""
    return When(
        tuple(
            line
            for line in when.lines
            if all(
                _first(said, one.name) and not one.attribute.whole_series
                for one in When((line,)).conditions()
            )
        )
    )


def modalities(source: Input) -> tuple[str, ...]:
    """The modalities that an input is bound to, as C-FIND asks for them; none where it takes any."""
    for line in source.when.lines:
        if isinstance(line, Line) and line.name == "Modality":
            tests = [t for t in line.condition.tests if t.op in ("equals", "one_of")]
            return tuple(dict.fromkeys(str(o[0]).upper() for t in tests for o in t.operands if o))
    return ()


def keys(source: Input) -> tuple[str, ...]:
    """Keywords worth asking C-FIND for beside the fixed ones: those of `when` and `prefer`, at the top of a header."""
    asked = {name for name in source.names() if name.isalnum() and name[:1].isupper()}
    return tuple(sorted(asked - set(STUDY_KEYS) - set(SERIES_KEYS)))


def earliest(source: Input, study_date: str) -> str:
    """The first study date (DA) that is not too old for a study of this date."""
    day = date(int(study_date[:4]), int(study_date[4:6]), int(study_date[6:8]))
    return source.prior.earliest(day).strftime("%Y%m%d") if source.prior is not None else study_date
