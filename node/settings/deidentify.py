"""`deidentify:` of the site file: profiles by name, what is known of devices' pixels, dates and pseudonyms.

What a profile may ask for stands here, because a rule may say it as well (`deidentify:` in a send entry).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from node.settings.terms import fields, get
from node.shape import Node, Shaper, nearest

BASIC = "basic"
RETAIN = (
    "uids",
    "dates",
    "shifted_dates",
    "device",
    "institution",
    "patient_characteristics",
    "safe_private",
)
"""Options of PS3.15 E.3 that leave more in an object than the Basic Profile does."""
CLEAN = ("descriptors", "graphics", "structured_content", "pixel_data")
"""Options that take identities out of what the Basic Profile removes whole, or of pixels."""
_NOT_OFFERED = {
    "recognizable_visual_features": "nothing here can tell that a face, or a volume that shows one, is gone; "
    "send such images only where a person has made sure of it",
}
PROFILE_KEYS = ("profile", "retain", "clean")
DEIDENTIFY_KEYS = ("profiles", "prefix", "shift_dates", "words", "devices")
_SHIFT = ("at_least", "at_most")
_DEVICE = ("when", "black", "clean")
RECTANGLE = ("left", "top", "width", "height")
NESTED_KEYS = (*_SHIFT, *_DEVICE, *RECTANGLE)
_PREFIX = re.compile(r"[A-Z0-9][A-Z0-9_-]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Meaning = Mapping[str, Any]
"""A profile, normalised: `profile`, and `retain` and `clean` as sorted lists."""


@dataclass(frozen=True)
class Device:
    """What is known of the pixels of one kind of device."""

    when: Mapping[str, str]
    """Keyword, or `SOPClass` → what it must be; `*` and `?` stand for anything."""
    rectangles: tuple[tuple[int, int, int, int], ...] = ()
    """Left, top, width, height of what is blacked out; none: there is no text in them."""


@dataclass(frozen=True)
class Deidentify:
    """What the site says about de-identification."""

    profiles: Mapping[str, Meaning] = field(default_factory=dict)
    prefix: str = "ANON-"
    """Of every pseudonym."""
    shift_days: tuple[int, int] = (30, 3650)
    """By how many days dates go back, at least and at most."""
    words: tuple[str, ...] = ()
    """What may stay in descriptors, beside anatomy and protocols."""
    devices: tuple[Device, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What whoever makes a copy is told."""
        return {
            "prefix": self.prefix,
            "shift": self.shift_days,
            "words": [word.casefold() for word in self.words],
            "templates": [{"when": dict(d.when), "rectangles": d.rectangles} for d in self.devices],
        }


def read_deidentify(shaper: Shaper, node: Node) -> Deidentify:
    """The site file's part about it."""
    given = fields(shaper, node, DEIDENTIFY_KEYS)
    return Deidentify(
        profiles=_profiles(shaper, given["profiles"]) if "profiles" in given else {},
        prefix=get(given, "prefix", lambda item, default: _prefix(shaper, item, default), Deidentify.prefix),
        shift_days=_shift(shaper, given["shift_dates"]) if "shift_dates" in given else Deidentify.shift_days,
        words=shaper.texts(given["words"]) if "words" in given else (),
        devices=tuple(_device(shaper, item) for item in given["devices"].items) if "devices" in given else (),
    )


def read_profile(shaper: Shaper, node: Node, named: Mapping[str, Meaning]) -> Meaning | None:
    """`basic`, one of the site's profiles, or a mapping; None, and a mistake, where it is neither."""
    if not node.is_mapping:
        return _named(shaper, node, named)
    given = fields(shaper, node, PROFILE_KEYS, required=("profile",))
    base = _named(shaper, given["profile"], named) if "profile" in given else None
    retain = _options(shaper, given.get("retain"), "retain", RETAIN)
    clean = _options(shaper, given.get("clean"), "clean", CLEAN)
    if base is None:
        return None
    made = {
        "profile": BASIC,
        "retain": sorted({*base["retain"], *retain}),
        "clean": sorted({*base["clean"], *clean}),
    }
    if {"dates", "shifted_dates"} <= set(made["retain"]):
        shaper.wrong(
            given.get("retain", node),
            "dates stay as they are or are shifted; take one of dates, shifted_dates",
        )
    return made


def _named(shaper: Shaper, node: Node, named: Mapping[str, Meaning]) -> Meaning | None:
    name = shaper.text(node)
    if name == BASIC:
        return {"profile": BASIC, "retain": [], "clean": []}
    if name in named:
        return named[name]
    if name:
        known = ", ".join((BASIC, *sorted(named)))
        shaper.wrong(
            node, f"there is no profile {name}{nearest(name, (BASIC, *named))} (known: {known}; the site file's "
            "deidentify: profiles: defines others)",
        )  # fmt: skip
    return None


def _options(shaper: Shaper, node: Node | None, key: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    other = {"retain": CLEAN, "clean": RETAIN}[key]
    for item in node.items if node else ():
        name = shaper.text(item)
        if name in _NOT_OFFERED:
            shaper.wrong(item, f"{name} is not offered: {_NOT_OFFERED[name]}")
        elif name in other:
            shaper.wrong(
                item, f"{name} stands under {'clean' if key == 'retain' else 'retain'}:, not under {key}:"
            )
        elif name and name not in choices:
            shaper.wrong(item, f"{key}: there is no {name}{nearest(name, choices)} ({', '.join(choices)})")
        elif name in found:
            shaper.wrong(item, f"{key}: {name} is named twice")
        else:
            found.append(name)
    return tuple(name for name in found if name)


def _profiles(shaper: Shaper, node: Node) -> dict[str, Meaning]:
    if not node.is_mapping:
        shaper.wrong(
            node, "expected a mapping from a profile's name to {profile: basic, retain: […], clean: […]}"
        )
        return {}
    found: dict[str, Meaning] = {}
    for name, entry in node.fields.items():
        if name == BASIC or not _NAME.fullmatch(name):
            why = "is the standard's own" if name == BASIC else "may hold letters, digits, - and _ only"
            shaper.wrong(entry, f"profile {name} {why}; give it another name")
        elif not entry.is_mapping:
            shaper.wrong(entry, f"profile {name} is a mapping such as {{profile: basic, retain: [device]}}")
        elif meaning := read_profile(shaper, entry, {}):
            found[name] = meaning
    return found


def _prefix(shaper: Shaper, node: Node, default: str) -> str:
    text = shaper.text(node, default)
    if not _PREFIX.fullmatch(text):
        shaper.wrong(
            node, "a prefix holds 1 to 32 capital letters, digits, - and _, and begins with one of the former"
        )
        return default
    return text


def _shift(shaper: Shaper, node: Node) -> tuple[int, int]:
    given = fields(shaper, node, _SHIFT, required=_SHIFT)
    least, most = (get(given, key, shaper.duration, timedelta(days=1)) for key in _SHIFT)
    if any(span.seconds for span in (least, most)):
        shaper.wrong(node, "dates are shifted by whole days, such as 30 d, so that times of day stay")
    if not 1 <= least.days < most.days <= 36500:
        shaper.wrong(node, "at_least must be a day or more, at_most more than that and not above 36500 d")
        return Deidentify.shift_days
    return least.days, most.days


def _device(shaper: Shaper, node: Node) -> Device:
    given = fields(shaper, node, _DEVICE, required=("when",))
    when = _when(shaper, given["when"]) if "when" in given else {}
    vouched = get(given, "clean", shaper.yes_no, False)
    black = tuple(_rectangle(shaper, item) for item in given["black"].items) if "black" in given else ()
    if node.is_mapping and bool(black) == vouched:
        shaper.wrong(node, "a device says either what is blacked out (black: [{left: …}]) or clean: yes")
    return Device(when, black)


def _when(shaper: Shaper, node: Node) -> dict[str, str]:
    if not node.is_mapping or not node.fields:
        shaper.wrong(node, "expected a mapping such as {Manufacturer: ACME, ManufacturerModelName: Sono*}")
        return {}
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415 - most processes read the file without it

    found = {}
    for key, item in node.fields.items():
        if key != "SOPClass" and tag_for_keyword(key) is None:
            usual = (
                "Manufacturer",
                "ManufacturerModelName",
                "SOPClass",
                "Rows",
                "Columns",
                "Modality",
                "StationName",
            )
            shaper.wrong(item, f"{key} is no DICOM keyword{nearest(key, usual)}")
        else:
            found[key] = shaper.text(item)
    return found


def _rectangle(shaper: Shaper, node: Node) -> tuple[int, int, int, int]:
    given = fields(shaper, node, RECTANGLE, required=RECTANGLE)
    left, top, width, height = (
        shaper.integer(given[key], 1, at_least=at_least) if key in given else 1
        for key, at_least in zip(RECTANGLE, (0, 0, 1, 1), strict=True)
    )
    return left, top, width, height
