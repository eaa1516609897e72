"""A series in which the same slices were taken several times → a Stack: diffusion, contrast, echoes.

What was varied tells the volumes apart: every attribute of the acquisition that has more than one value at
one place. Where that is not enough (repetitions, phases of contrast) the next attribute that tells all of them
apart is taken, and last the order in which the images were acquired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from node.errors import Refused
from node.operator import Stack, Volume
from node.read.alike import TOLERANCES, same_gradient, stated
from node.read.apart import VARIED, label_of, volumes_of
from node.read.decay import Scan
from node.read.diffusion import directionality_of, gradient_of
from node.read.frames import Frame, sources
from node.read.kinds import frames_of, kind_of
from node.read.loaded import Loaded, Part
from node.read.moments import moments_of
from node.read.philips import comparable
from node.read.split import choose, part_frames
from node.read.volume import volume_of


def stacks(paths: Sequence[Path], split: Sequence[str], each_part: str) -> Iterator[Part[Stack]]:
    """The parts of a series, each a stack; one where *split* names nothing. Raises what `volumes` does."""
    opened = sources(paths)
    kind = kind_of(opened)
    frames = frames_of(opened)
    parts = [("", frames)]
    if split:
        parts = choose(part_frames(frames, split), each_part, f"`split: [{', '.join(split)}]`")
    return iter([Part(label, partial(_stack, of_part, kind, label)) for label, of_part in parts])


def _stack(frames: Sequence[Frame], kind: str, label: str) -> Loaded[Stack]:
    """Read *frames* as volumes on one grid. Raises Refused where they cannot be told apart or do not match."""
    by, groups = volumes_of(frames)
    scan = Scan([frame.header for frame in frames])
    read = [volume_of(group, kind, label_of(by, key), scan) for key, group in groups]
    _refuse_other_grids([one.value for one in read], [one.label for one in read])
    times, source = moments_of([one.headers for one in read])
    volumes = comparable([(one.value, one.headers) for one in read])
    for number, (volume, (_, group)) in enumerate(zip(volumes, groups, strict=True)):
        facts: dict[str, Any] = {
            **_floating(group, volume),
            **volume.facts,
            **_directions(group),
            "part": number,
        }
        if times:
            facts |= {"time": times[number], "time_from": source}
        volumes[number] = replace(volume, facts=facts)
    stack = Stack(tuple(volumes), by, _common([volume.facts for volume in volumes]))
    headers = tuple(header for one in read for header in one.headers)
    numbers = tuple(number for one in read for number in one.frames)
    return Loaded(stack, headers, numbers, label, sizes=tuple(len(one.headers) for one in read))


def _common(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all volumes say alike."""
    first, *others = facts
    return {k: v for k, v in first.items() if k != "part" and all(other.get(k) == v for other in others)}


def _floating(group: Sequence[Frame], volume: Volume) -> dict[str, Any]:
    """What the slices of one volume mean as one value and write as several."""
    silent = [name for name in TOLERANCES if VARIED[name] not in volume.facts and name != "gradient"]
    found = {VARIED[name]: stated([frame.header for frame in group], name) for name in silent}
    return {name: value for name, value in found.items() if value is not None}


def _directions(group: Sequence[Frame]) -> dict[str, Any]:
    """Gradient and directionality of one volume, where its slices agree."""
    gradients = [gradient_of(frame.header) for frame in group]
    alike = all(same_gradient(gradient, gradients[0]) for gradient in gradients)
    kinds = {directionality_of(frame.header) for frame in group}
    found: dict[str, Any] = {"gradient": gradients[0]} if alike else {}
    if len(kinds) == 1:
        found["directionality"] = next(iter(kinds))
    return {name: value for name, value in found.items() if value}


def _refuse_other_grids(volumes: Sequence[Volume], labels: Sequence[str]) -> None:
    for volume, label in zip(volumes[1:], labels[1:], strict=True):
        if volume.unit != volumes[0].unit:
            raise Refused(
                f"the volume with {label} is in {volume.unit.value}, the first in {volumes[0].unit.value}"
            )
        if not volume.same_grid(volumes[0]):
            raise Refused(
                f"the volume with {label} lies on another grid than the first; they cannot be compared"
            )
