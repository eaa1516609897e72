"""One object de-identified: judged, walked through, marked; or refused, and then nothing is left of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.derive import values
from node.derive.deidentify import burned, profile
from node.derive.deidentify.burned import Template
from node.derive.deidentify.elements import ascii_of, text_of
from node.derive.deidentify.known import Known, known
from node.derive.deidentify.pixels import Pixels, bared, blacked, has_hidden_planes
from node.derive.deidentify.profile import BASIC_CODE, CODES, Profile
from node.derive.deidentify.secrets import Secrets
from node.derive.deidentify.table import EDITION
from node.derive.deidentify.walk import Walk
from node.errors import Refused

_LISTS = ("ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence")


@dataclass(frozen=True)
class Site:
    """What the site file says about de-identification."""

    prefix: str = "ANON-"
    """Of every pseudonym."""
    shift: tuple[int, int] = (30, 3650)
    """By how many days dates go back, at least and at most."""
    words: frozenset[str] = frozenset()
    """Words in descriptors that the site vouches for, in lower case."""
    templates: tuple[Template, ...] = ()


@dataclass(frozen=True)
class Made:
    """A de-identified object, and what was done."""

    dataset: Dataset
    """Without pixel data."""
    pixels: bytes | memoryview | None
    """The pixel data of what came uncompressed."""
    done: Mapping[str, int]
    """Action → on how many elements; no value is quoted."""
    patient: tuple[str, str]
    """Patient ID and Issuer of Patient ID of the source: whom the pseudonym stands for."""
    pseudonym: str
    study_uid: str
    """Of the source where it has no Patient ID: the study stands for its patient then; else empty."""
    sop_uid: str


def deidentified(source: Dataset, pixels: Pixels, asked: Profile, secrets: Secrets, site: Site) -> Made:
    """*source* and its *pixels* under the profile *asked*; both are only read.

    Raises Refused, with a sentence that quotes no value, where the result could name somebody.
    """
    try:
        return _made(source, pixels, asked, secrets, site)
    except (Refused, MemoryError):
        raise
    except (
        Exception
    ) as error:  # whatever a damaged object leads to: there is no copy of what was not understood
        raise Refused(f"it could not be read through to its end ({type(error).__name__})") from error


def _made(source: Dataset, pixels: Pixels, asked: Profile, secrets: Secrets, site: Site) -> Made:
    plan = burned.plan(source, asked, site.templates)
    if plan.held:
        raise Refused(plan.held)
    facts, patient = known(source), _patient(source)
    _judge_compressed(source, pixels, plan, facts)
    study = "" if patient[0] else ascii_of(source, "StudyInstanceUID")
    if not patient[0] and not study:
        raise Refused("it has neither Patient ID nor Study Instance UID, so that nobody can tell whose it is")
    subject = patient if patient[0] else (f"study {study}", "")
    days = secrets.days(*subject, *site.shift)
    done: Counter[str] = Counter()
    refers = any(keyword in source for keyword in _LISTS)
    walk = Walk(
        asked, secrets, facts, ascii_of(source, "SOPClassUID"), days, site.words, plan.vouched, refers, done
    )
    made = walk.dataset(source)
    data = pixels.native
    if data is not None:
        data = bared(source, data)
        data = blacked(source, data, plan.rectangles) if plan.rectangles else data
        done["rectangles"] += len(plan.rectangles)
    pseudonym = secrets.pseudonym(site.prefix, *subject)
    _mark(made, asked, pseudonym, plan.vouched)
    return Made(made, data, dict(done), patient, pseudonym, study, ascii_of(made, "SOPInstanceUID"))


def _judge_compressed(source: Dataset, pixels: Pixels, plan: burned.Plan, facts: Known) -> None:
    """What nothing can be taken out of must hold nothing: neither an overlay nor, in a comment, a name."""
    if not pixels.fragments:
        return
    if plan.rectangles:
        raise Refused("its pixels are compressed, and rectangles can be blacked out only in what is not")
    if has_hidden_planes(source):
        raise Refused("overlays stand in the bits of its compressed pixels, where they cannot be cleared")
    if any(part in data for data in map(_lower, pixels.fragments) for part in facts.sure):
        raise Refused("its compressed pixel data holds a text from its header, which cannot be taken out")


def _lower(data: bytes | memoryview) -> bytes:
    return bytes(data).lower()


def _patient(source: Dataset) -> tuple[str, str]:
    encodings = values.encodings_of(source)
    found = [
        text_of(source, Tag(keyword), encodings).strip() if keyword in source else ""
        for keyword in ("PatientID", "IssuerOfPatientID")
    ]
    return found[0], found[1]


def _mark(made: Dataset, asked: Profile, pseudonym: str, vouched: bool) -> None:
    """Say who it is now, that it was de-identified, and how (PS3.3 C.7.1.1, PS3.15 E.1.1)."""
    made.PatientID = made.PatientName = pseudonym
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = [
        f"PACSNode {EDITION}",
        *(CODES[option][1][:64] for option in sorted(asked.options)),
    ]
    made.DeidentificationMethodCodeSequence = [
        _code(*found) for found in (BASIC_CODE, *(CODES[option] for option in sorted(asked.options)))
    ]
    dates = {profile.DATES: "UNMODIFIED", profile.SHIFTED_DATES: "MODIFIED"}
    said = [word for option, word in dates.items() if option in asked.retain]
    made.LongitudinalTemporalInformationModified = said[-1] if said else "REMOVED"
    if vouched and "Rows" in made:
        made.BurnedInAnnotation = "NO"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
