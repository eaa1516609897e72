"""What follows from the node's secret key: UIDs, pseudonyms and the shift of dates; the same for ever.

Everything is HMAC-SHA256 of the key and what it stands for, so that nobody without the key can check a guess,
and nothing has to be looked up to be consistent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field

_LETTERS = str.maketrans("ILOU", "8019")
"""What is misread when a pseudonym is read out, replaced; base32 has no 0, 1, 8 and 9."""
WELL_KNOWN = "1.2.840.10008."
"""Root of the UIDs that DICOM itself registered (PS3.6): they identify nobody."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The key, and the profile that UIDs are made under.

    *label* keeps what is made under two profiles apart: two different copies never share a SOP Instance UID.
    """

    key: bytes = field(repr=False)
    label: str = ""

    def _digest(self, *said: str) -> bytes:
        text = "\0".join(said).encode("utf-8", "surrogateescape")
        return hmac.new(self.key, text, hashlib.sha256).digest()

    def uid(self, original: str) -> str:
        """The UID that stands for *original* (PS3.5 B.2); those of the standard are left alone."""
        if not original or original.startswith(WELL_KNOWN):
            return original
        made = uuid.UUID(bytes=self._digest("uid", self.label, original)[:16], version=5)
        return f"2.25.{made.int}"

    def pseudonym(self, prefix: str, patient_id: str, issuer: str) -> str:
        """The name and ID that stand for a patient, under every profile."""
        return prefix + self.token("patient", patient_id, issuer)

    def token(self, *said: str) -> str:
        """Twelve letters and digits that stand for a value."""
        text = base64.b32encode(self._digest(*said)).decode("ascii")
        return text[:12].translate(_LETTERS)

    def days(self, patient_id: str, issuer: str, least: int, most: int) -> int:
        """By how many days the dates of a patient go back: always the same, between *least* and *most*."""
        number = int.from_bytes(self._digest("shift", patient_id, issuer)[:8], "big")
        return least + number % (most - least + 1)
