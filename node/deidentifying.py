"""De-identification of an object as a file holds it: what the transcoder does where a rule says `deidentify:`.

What is asked comes as JSON: the profile as `Profile.meaning`, what the site says as its settings write it, and
where the key is. Pixels are decoded only where rectangles are to be blacked out in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.derive.deidentify import Made, Pixels, Profile, Secrets, Site, Template, deidentified, plan
from node.derive.inherit import writable
from node.errors import Refused
from node.read import encoding, transcode
from node.read.encoding import EXPLICIT, NATIVE, Element, Tree

_PIXELS = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Copy:
    """A de-identified object as a tree."""

    tree: Tree
    syntax: str
    made: Made


def site_of(said: Mapping[str, Any]) -> Site:
    """What the site says, as a request carries it: what `settings.deidentify` wrote."""
    templates = (
        Template(one["when"], tuple((r[0], r[1], r[2], r[3]) for r in one["rectangles"]))
        for one in said["templates"]
    )
    least, most = said["shift"]
    return Site(said["prefix"], (least, most), frozenset(said["words"]), tuple(templates))


def read_key(path: Path) -> bytes:
    """The secret key of the node. Raises Refused where there is none: without it nobody gets the same name twice."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise Refused(
            f"the key of de-identification ({path.name} in the data folder) cannot be read"
        ) from error
    if len(key) < 32:
        raise Refused(f"the key of de-identification ({path.name} in the data folder) is too short to be one")
    return key


def deidentified_tree(tree: Tree, syntax: str, profile: Profile, key: bytes, site: Site) -> Copy:
    """*tree*, whose pixels are in *syntax*, under *profile*. Raises Refused or Broken: then there is no copy."""
    header = _header(tree)
    if plan(header, profile, site.templates).rectangles and syntax not in NATIVE:
        tree, syntax = transcode.recoded(tree, syntax, EXPLICIT).tree, EXPLICIT
        header = _header(tree)
    found = encoding.find(tree, _PIXELS)
    compressed = found is not None and found.fragments is not None
    pixels = Pixels(
        None if found is None or compressed else found.value,
        (found.fragments or ()) if found and compressed else (),
    )
    made = deidentified(header, pixels, profile, Secrets(key, profile.digest), site)
    put = []
    if found is not None and compressed:
        put.append(found)
    elif found is not None and made.pixels is not None:
        put.append(Element(_PIXELS, found.vr, made.pixels))
    return Copy(encoding.changed(_tree(made.dataset), put), syntax, made)


def _header(tree: Tree) -> Dataset:
    data = b"".join(encoding.chunks((e for e in tree if e.tag != _PIXELS), implicit=False))
    try:
        return dcmread(BytesIO(data), force=True) if data else Dataset()
    except Exception as error:  # whatever a damaged header leads pydicom to, an OSError among it
        raise Refused(f"its header cannot be read ({type(error).__name__})") from error


def _tree(dataset: Dataset) -> Tree:
    with DicomBytesIO() as buffer:
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, writable(dataset))
        return encoding.read_tree(buffer.getvalue(), EXPLICIT)
