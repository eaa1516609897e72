"""One object de-identified: judged, walked through, marked; or refused, and then nothing is left of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.derive import values
from node.derive.deidentify import burned, pixels, profile
from node.derive.deidentify.burned import Template
from node.derive.deidentify.elements import ascii_of, text_of
from node.derive.deidentify.known import Known, known
from node.derive.deidentify.profile import BASIC_CODE, CODES, Profile
from node.derive.deidentify.secrets import Secrets
from node.derive.deidentify.table import EDITION
from node.derive.deidentify.walk import Walk
from node.errors import Refused


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
    done: Mapping[str, int]
    """Action → on how many elements; no value is quoted."""
    patient: tuple[str, str]
    """Patient ID and Issuer of Patient ID of the source: whom the pseudonym stands for."""
    pseudonym: str
    sop_uid: str


def deidentified(
    source: Dataset, asked: Profile, secrets: Secrets, site: Site, *, compressed: bool = False
) -> Made:
    """*source* under the profile *asked*; it is only read. *compressed*: its pixel data is encapsulated.

    Raises Refused, with a sentence that quotes no value, where the result could name somebody.
    """
    try:
        return _made(source, asked, secrets, site, compressed)
    except (Refused, MemoryError):
        raise
    except (
        Exception
    ) as error:  # whatever a damaged object leads to: there is no copy of what was not understood
        raise Refused(f"it could not be read through to its end ({type(error).__name__})") from error


def _made(source: Dataset, asked: Profile, secrets: Secrets, site: Site, compressed: bool) -> Made:
    plan = burned.plan(source, asked, site.templates)
    if plan.held:
        raise Refused(plan.held)
    _judge_pixels(source, plan, compressed)
    patient = _patient(source)
    subject = patient if patient[0] else ("study " + ascii_of(source, "StudyInstanceUID"), "")
    facts, days = known(source), secrets.days(*subject, *site.shift)
    done: Counter[str] = Counter()
    walk = Walk(asked, secrets, facts, ascii_of(source, "SOPClassUID"), days, site.words, done)
    made = walk.dataset(source)
    if not compressed:
        pixels.bared(source, made)
        if plan.rectangles:
            pixels.blacked(made, plan.rectangles)
            done["rectangles"] += len(plan.rectangles)
    pseudonym = secrets.pseudonym(site.prefix, *subject)
    _mark(made, asked, pseudonym, plan.vouched)
    _search(made, facts, compressed)
    return Made(made, dict(done), patient, pseudonym, ascii_of(made, "SOPInstanceUID"))


def _judge_pixels(source: Dataset, plan: burned.Plan, compressed: bool) -> None:
    if compressed and plan.rectangles:
        raise Refused("its pixels are compressed, and rectangles can be blacked out only in what is not")
    if compressed and pixels.has_hidden_planes(source):
        raise Refused("overlays stand in the bits of its compressed pixels, where they cannot be cleared")


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


def _search(made: Dataset, facts: Known, compressed: bool) -> None:
    """The last look: no name or number of the source in what no rule can clean, the bytes of an encoder."""
    if not compressed:
        return
    for data in _opaque(made):
        if any(part in data for part in facts.sure):
            raise Refused("its compressed pixel data holds a text from its header, which cannot be taken out")


def _opaque(made: Dataset) -> Iterator[bytes]:
    element = made.get_item("PixelData")
    if element is not None and isinstance(element.value, bytes):
        yield element.value
