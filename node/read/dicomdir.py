"""The files that a DICOMDIR names (PS3.3 F, PS3.10 8): what a CD or a stick of patients' images holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import MediaStorageDirectoryStorage

from node.errors import Refused

_MOST_BYTES = 200 << 20
"""A directory of 100 000 images has about 60 MB."""
_PREAMBLE = 132


@dataclass(frozen=True, slots=True)
class Named:
    """One file that a record names."""

    name: str
    """As the record has it, with / between its parts."""
    path: Path | None
    """None where it is not there, or where the name leads out of the medium."""


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the directory of a medium, by its file meta information. Never raises."""
    try:
        with path.open("rb") as file:
            if file.read(_PREAMBLE)[128:] != b"DICM":
                return False
        meta = dcmread(path, stop_before_pixels=True, specific_tags=["MediaStorageSOPClassUID"]).file_meta
        named = path.name.upper() == "DICOMDIR"  # PS3.10 8.6
        return named or bool(meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)
    except Exception:  # noqa: BLE001 - any bytes may be here; they are some other file then
        return path.name.upper() == "DICOMDIR"


def files_of(path: Path) -> Iterator[Named]:
    """Each file that the DICOMDIR at *path* names, once. Raises Refused where it cannot be read as one."""
    root = path.parent.resolve()
    seen: set[str] = set()
    for parts in _references(path):
        name = "/".join(parts)
        if name not in seen:
            seen.add(name)
            yield Named(name, _find(root, parts))


def _references(path: Path) -> list[tuple[str, ...]]:
    if path.stat().st_size > _MOST_BYTES:
        raise Refused(f"{path}: a DICOMDIR of {path.stat().st_size / 1e6:.0f} MB is not read")
    try:
        dataset: Any = dcmread(path)
        records = dataset.DirectoryRecordSequence
        found = [record.get("ReferencedFileID") for record in records]
        return [tuple([str(p) for p in ([f] if isinstance(f, str) else f)]) for f in found if f]
    except Exception as error:  # noqa: BLE001 - any bytes may be here
        raise Refused(
            f"{path}: it cannot be read as a DICOMDIR ({type(error).__name__}); name the folder, and every file "
            "in it is looked at"
        ) from None


def _find(root: Path, parts: tuple[str, ...]) -> Path | None:
    """The file below *root*; media are written in capitals (PS3.10 8.2) and read on systems that changed that."""
    here = root
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part:
            return None
        there = here / part
        if not there.exists():
            there = next(
                (p for p in _children(here) if p.name.upper() in (part.upper(), f"{part.upper()};1")), there
            )
        here = there
    inside = here.resolve()
    return inside if inside.is_file() and inside.is_relative_to(root) else None


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
