"""A series' files → its parts, read as what the operators of a rule take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from node.read import document, picture, recording, segmentation, tiles
from node.read.loaded import Part
from node.read.stack import stacks
from node.read.volume import volumes

_ONE_BY_ONE: dict[str, Callable[[Sequence[Path]], Sequence[Part[Any]]]] = {
    "Picture": picture.parts,
    "Recording": recording.parts,
    "Tiles": tiles.parts,
    "Document": document.parts,
    "Segments": segmentation.parts,
}


def parts(kind: str, paths: Sequence[Path], split: Sequence[str], each_part: str) -> Iterator[Part[Any]]:
    """The parts of the objects at *paths* as *kind* (Volume, Stack, Picture, Recording …), to be loaded.

    Volumes and stacks are divided by what *split* names; everything else is one object, or one slide, each. Raises
    Refused, in words, where the objects are none of that kind; Broken where a file cannot be read.
    """
    if kind == "Volume":
        return volumes(paths, split, each_part)
    if kind == "Stack":
        return stacks(paths, split, each_part)
    return iter(_ONE_BY_ONE[kind](paths))
