"""Descriptors cleaned by what is known to be safe (PS3.15 E.3.5 note): words of a vocabulary stay, all else goes.

The vocabulary is the lower-case words of the anatomy, procedure, view and contrast terms that PS3.16 defines as
context groups: a proper name begins with a capital wherever it stands, so that none of an eponym gets in.
`words.txt` adds how scanners and radiographers write protocols.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files

from pydicom.sr.codedict import codes

_GROUPS = (
    2, 4, 12, 29, 33, 91, 92, 100, 101, 212, 244, 501, 502, 1001, 3108, 3820, 3827, 3850, 4005, 4009, 4010, 4011,
    4013, 4014, 4015, 4028, 4030, 4031, 4040, 4042, 4111, 6109, 6110, 6115, 6116, 6117, 6149, 6300, 6312, 7140,
    7192, 7197, 7602, 8134, 10013, 10014, 12103, 12105, 12125,
)  # fmt: skip
"""Context groups of anatomy, laterality, modality, imaging procedure, view, contrast and reconstruction."""
_NUMBER = re.compile(r"[-+]?\d{1,3}([.,]\d{1,2})?(mm|cm|ms|s|sec|kv|kvp|ma|mas|hu|deg|t|%|x)?", re.IGNORECASE)
_BARE = re.compile(r"[-+]?\d+([.,]\d+)?")
_LETTERS = re.compile(r"[^\W_]+")
_TERM = re.compile(r"[a-z]{2,}")


@cache
def vocabulary() -> frozenset[str]:
    """Every word that is known to name no person, in lower case."""
    found = set(files(__package__).joinpath("words.txt").read_text(encoding="utf-8").split())
    for meaning in _meanings():
        words = meaning.replace("-", " ").split()
        alone = words[0].lower() if len(words) == 1 else ""
        found.update(word for word in (alone, *words[1:]) if _TERM.fullmatch(word))
    return frozenset(found)


def _meanings() -> Iterator[str]:
    for group in _GROUPS:
        terms = getattr(codes, f"cid{group}")
        for name in terms.dir():
            with contextlib.suppress(RuntimeError):  # a name that two coding schemes share
                yield getattr(terms, name).meaning


def cleaned(text: str, site: Collection[str] = ()) -> str:
    """What of *text* is known to be safe, words in their order; *site*: words the site vouches for, lower case.

    Numbers stay where they stand alone and are short, as in 5 mm or b 800: two side by side may be a date.
    """
    parts = text.split()
    kept: list[str] = []
    for index, part in enumerate(parts):
        if _BARE.fullmatch(part):
            around = parts[max(0, index - 1) : index] + parts[index + 1 : index + 2]
            lonely = not any(character.isdigit() for other in around for character in other)
            kept += [part] if lonely and _NUMBER.fullmatch(part) else []
        elif _NUMBER.fullmatch(part):
            kept.append(part)
        else:
            kept += [word for word in _LETTERS.findall(part) if _known(word, site)]
    return " ".join(kept)


def _known(word: str, site: Collection[str]) -> bool:
    small = word.casefold()
    return not small.isdigit() and (small in vocabulary() or small in site)
