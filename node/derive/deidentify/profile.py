"""What a rule asks of de-identification: the Basic Profile of PS3.15 E.2 and options of E.3, as a frozen value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.settings.deidentify import BASIC, CLEAN, RETAIN

__all__ = ["BASIC", "CLEAN", "RETAIN", "Profile"]

UIDS, DATES, SHIFTED_DATES = "uids", "dates", "shifted_dates"
DEVICE, INSTITUTION = "device", "institution"
PATIENT_CHARACTERISTICS, SAFE_PRIVATE = "patient_characteristics", "safe_private"
DESCRIPTORS, GRAPHICS = "descriptors", "graphics"
STRUCTURED_CONTENT, PIXEL_DATA = "structured_content", "pixel_data"


BASIC_CODE = ("113100", "Basic Application Confidentiality Profile")
CODES: Mapping[str, tuple[str, str]] = {
    PIXEL_DATA: ("113101", "Clean Pixel Data Option"),
    GRAPHICS: ("113103", "Clean Graphics Option"),
    STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
    DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    SHIFTED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    PATIENT_CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
    DEVICE: ("113109", "Retain Device Identity Option"),
    UIDS: ("113110", "Retain UIDs Option"),
    SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    INSTITUTION: ("113112", "Retain Institution Identity Option"),
}
"""Option → its code and meaning (PS3.16 CID 7050, scheme DCM). Clean Recognizable Visual Features (113102) is
not offered: nothing here can tell that a face, or a reconstruction that shows one, is gone."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The Basic Profile with options."""

    retain: frozenset[str] = frozenset()
    clean: frozenset[str] = frozenset()

    @property
    def options(self) -> frozenset[str]:
        """All options, by their names in a rule."""
        return self.retain | self.clean

    @property
    def meaning(self) -> Mapping[str, Any]:
        """The same profile in the same words, whoever wrote it in whatever order; JSON can hold it."""
        return {"profile": BASIC, "retain": sorted(self.retain), "clean": sorted(self.clean)}

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the meaning: part of every UID that is made under it."""
        return hashlib.sha256(json.dumps(self.meaning, separators=(",", ":")).encode()).hexdigest()

    @staticmethod
    def of(meaning: Mapping[str, Any]) -> Profile:
        """The profile that *meaning* stands for."""
        return Profile(frozenset(meaning["retain"]), frozenset(meaning["clean"]))
