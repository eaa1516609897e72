"""Volumes, masks, maps and selections as frames that a reader can leaf through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.derive.drawing import PALETTE, Pixels, coloured, directions, grey, shown_range, tinted, unit_text
from node.derive.making import Making
from node.derive.references import frame_of
from node.derive.slices import MOST, Look, Mark, chosen, frames
from node.errors import Refused
from node.operator import (
    FractionalMask,
    KeyImages,
    Map,
    Mask,
    Picture,
    Presentation,
    Segments,
    Stack,
    Volume,
)


def facts_of(making: Making) -> dict[str, Any]:
    """The facts that every rendition has."""
    return {"modality": making.sources.text("Modality")}


def title_of(making: Making, what: str) -> str:
    """*what* is shown, of which part and series: drawn, and said in the header of the capture."""
    series = making.sources.text("SeriesDescription")
    return " - ".join(filter(None, (what, making.part.label, series)))  # plain: it goes into a header, too


def _label(kind: str, total: int, shown: Sequence[int], of: int) -> Callable[[int], str]:
    """What stands below the title: which slice it is, and whether some were left out."""
    thinned = f" · {len(shown)} of {of} {kind}s shown" if len(shown) < of else ""
    return lambda i: f"{kind} {i + 1} of {total}{thinned}"


def _numbered(making: Making, label: Callable[[int], str]) -> Callable[[int], str]:
    """*label* with the number by which a viewer finds the image: frame, else Instance Number."""

    def numbered(i: int) -> str:
        frame = frame_of(making.sources, i)
        instance = making.sources.text("InstanceNumber", i) if i < len(making.sources.headers) else ""
        found = f"frame {frame}" if frame else f"instance number {instance.strip()}"
        return f"{label(i)} · {found}" if frame or instance else label(i)

    return numbered


def _volume_look(title: str, grid: Volume | Mask | FractionalMask | Map, **more: Any) -> Look:
    axes, spacing = grid.axes, grid.spacing
    return Look(
        title,
        (float(spacing[1]), float(spacing[2])),
        calibrated=True,
        left=directions(-axes[:, 2]),
        top=directions(-axes[:, 1]),
        **more,
    )


def _picture_look(title: str, picture: Picture, **more: Any) -> Look:
    spacing = picture.spacing or (1.0, 1.0)
    return Look(title, spacing, calibrated=bool(picture.spacing) and picture.plane == "patient", **more)


def _window(making: Making, value: Volume | Picture) -> tuple[float, float]:
    """Lowest and highest value shown: by the facts, the CT header, or the robust range."""
    stated = value.facts.get("window")
    if not stated and value.unit.value == "[hnsf'U]":
        pair = [making.sources.text(k).split("\\")[0] for k in ("WindowCenter", "WindowWidth")]
        try:
            stated = tuple(float(text) for text in pair)
        except ValueError:
            stated = None
    if stated and float(stated[1]) > 0:
        centre, width = float(stated[0]), float(stated[1])
        return centre - width / 2, centre + width / 2
    if isinstance(value, Picture) and value.array.dtype == np.uint8:
        return 0.0, 255.0
    return shown_range(value.array, value.valid)


def _greys(making: Making, value: Volume | Picture) -> Callable[[int], Pixels]:
    """How slice or frame *i* looks, (rows, columns, 3)."""
    if isinstance(value, Picture) and value.colour:
        return lambda i: value.array[i].astype(np.uint8)
    low, high = _window(making, value)
    inverted = isinstance(value, Picture) and value.inverted
    return lambda i: grey(value.array[i], low, high, inverted=inverted)


def drawn_volume(making: Making, volume: Volume) -> Picture:
    """Slices in grey, at most as many as a rendition has."""
    title = title_of(making, making.output.name)
    total = len(volume.array)
    shown = chosen(range(total))
    look = _volume_look(title, volume)
    made = frames(look, shown, _greys(making, volume), _label("slice", total, shown, total))
    return Picture(made[..., 1], title=title, facts=facts_of(making))  # all its colours are greys


def drawn_stack(making: Making, stack: Stack) -> Picture:
    """The volumes of a stack one after the other, each as it would be shown alone."""
    most = max(1, MOST // len(stack.volumes))
    drawn = []
    for number, volume in enumerate(stack.volumes, 1):
        look = _volume_look(
            title_of(making, f"{making.output.name} {number} of {len(stack.volumes)}"), volume
        )
        total = len(volume.array)
        shown = chosen(range(total), most)
        greys = _greys(replace(making, sources=making.sources.behind(volume)), volume)
        drawn.append(frames(look, shown, greys, _label("slice", total, shown, total))[..., 1])
    title = title_of(making, making.output.name)
    return Picture(np.concatenate(drawn), title=title, facts=facts_of(making))


def drawn_mask(making: Making, mask: Mask | FractionalMask) -> Picture:
    """The slices that hold the mask, its tint and outline over what it was found in."""
    return _drawn_masks(making, (mask,), mask.label)


def drawn_segments(making: Making, segments: Segments) -> Picture:
    """The same of several, each in a colour of its own."""
    return _drawn_masks(making, segments.masks, making.output.name)


def _drawn_masks(making: Making, masks: Sequence[Mask | FractionalMask], name: str) -> Picture:
    ground = _ground(making, masks[0])
    shares = [_share(mask, ground) for mask in masks]
    filled = np.flatnonzero(np.any([(share > 0).any(axis=(1, 2)) for share in shares], axis=0))
    shown = chosen(filled.tolist()) or [len(shares[0]) // 2]
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(masks))]
    entries = tuple(
        (colour, _entry(mask, share)) for colour, mask, share in zip(colours, masks, shares, strict=True)
    )
    title = title_of(making, name)
    if isinstance(ground, Picture):
        look = _picture_look(title, ground, legend=entries)
    else:
        look = _volume_look(title, ground or masks[0], legend=entries)
    under = _greys(making, ground) if ground is not None else _nothing(shares[0].shape[1:])

    def draw(i: int) -> Pixels:
        pixels = under(i)
        for colour, mask, share in zip(colours, masks, shares, strict=True):
            pixels = tinted(pixels, share[i], colour, 0.6 if isinstance(mask, FractionalMask) else 0.3)
        return pixels

    made = frames(look, shown, draw, _label("slice", len(shares[0]), shown, max(len(filled), 1)))
    return Picture(made, title=title, facts=facts_of(making))


def _entry(mask: Mask | FractionalMask, share: NDArray[Any]) -> str:
    """What the legend says of one mask."""
    what = f"{mask.label} ({mask.kind.casefold()})" if isinstance(mask, FractionalMask) else mask.label
    return what if share.any() else f"{what}: nothing was found"


def _nothing(shape: tuple[int, ...]) -> Callable[[int], Pixels]:
    return lambda _: np.zeros((*shape, 3), np.uint8)


def _ground(making: Making, mask: Mask | FractionalMask) -> Volume | Picture | None:
    """What the mask is drawn on."""
    ground = making.sources.value
    if isinstance(ground, Volume) or (
        isinstance(ground, Picture) and ground.array.shape[:3] == mask.array.shape
    ):
        return ground
    return None


def _share(mask: Mask | FractionalMask, ground: Volume | Picture | None) -> NDArray[Any]:
    """The mask on the ground's own voxels."""
    if not isinstance(ground, Volume) or ground.same_grid(mask):
        return mask.array
    share = mask.array.astype(np.float32)
    into = np.linalg.inv(mask.affine) @ ground.affine
    order = 0 if isinstance(mask, Mask) else 1
    moved: NDArray[np.float32] = ndimage.affine_transform(
        share, into[:3, :3], into[:3, 3], output_shape=ground.array.shape, order=order
    )
    return moved


def drawn_map(making: Making, quantity: Map) -> Picture:
    """Slices in viridis, voxels as they are, beside a bar with quantity and unit."""
    valid = np.isfinite(quantity.array) if quantity.valid is None else quantity.valid
    stated = quantity.facts.get("window")
    low, high = shown_range(quantity.array, valid)
    if stated:
        low, high = float(stated[0]) - float(stated[1]) / 2, float(stated[0]) + float(stated[1]) / 2
    filled = np.flatnonzero(valid.any(axis=(1, 2)))
    shown = chosen(filled.tolist()) or [len(valid) // 2]
    unit = unit_text(quantity.unit)
    bar = ((low, high), f"{quantity.quantity.meaning}{f', {unit}' if unit else ''}")
    title = title_of(making, quantity.label)
    look = _volume_look(title, quantity, bar=bar, smooth=False)
    label, how = (
        _label("slice", len(valid), shown, max(len(filled), 1)),
        quantity.facts.get("description", ""),
    )
    made = frames(
        look,
        shown,
        lambda i: coloured(quantity.array[i], low, high, valid[i]),
        lambda i: " · ".join(filter(None, (label(i), how))),
    )
    return Picture(made, title=title, facts=facts_of(making))


def _received(making: Making) -> tuple[Volume | Picture, Look]:
    """What the operators got, to be shown again. Raises Refused where that has no images."""
    value = making.sources.value
    title = title_of(making, making.output.name)
    if isinstance(value, Volume):
        return value, _volume_look(title, value)
    if isinstance(value, Picture):
        return value, _picture_look(title, value)
    raise Refused(f"output {making.output.name}: what was received has no images that could be drawn")


def drawn_key_images(making: Making, selection: KeyImages) -> Picture:
    """The selected images, with the reason. Raises Refused where none was selected."""
    value, look = _received(making)
    total = len(value.array)
    images = list(dict.fromkeys(i for i in selection.images if 0 <= i < total))
    if not images:
        raise Refused(f"output {making.output.name}: no image was selected")
    shown = chosen(images)
    label = _numbered(making, _label("image", total, shown, len(images)))
    said = ": ".join(filter(None, (selection.title.meaning, selection.text)))
    made = frames(look, shown, _greys(making, value), lambda i: f"{label(i)} · {said}")
    return Picture(made, title=f"{look.title}: {said}", facts=facts_of(making))


def drawn_presentation(making: Making, presentation: Presentation) -> Picture:
    """The marked images, else all, in the window asked for, with the marks."""
    value, look = _received(making)
    total = len(value.array)
    marked = sorted({graphic.image for graphic in presentation.graphics if 0 <= graphic.image < total})
    images = marked or list(range(total))
    shown = chosen(images)
    marks = {
        i: [Mark(g.kind, g.points, g.text) for g in presentation.graphics if g.image == i] for i in shown
    }
    draw = _greys(making, value)
    if not (isinstance(value, Picture) and value.colour):
        low, high = _window(making, value)
        if presentation.window is not None:
            centre, width = presentation.window
            low, high = centre - width / 2, centre + width / 2
        turned = (isinstance(value, Picture) and value.inverted) != presentation.inverted
        array = value.array
        draw = lambda i: grey(array[i], low, high, inverted=turned)  # noqa: E731
    label = _numbered(making, _label("image", total, shown, len(images)))
    said = presentation.description or presentation.label
    made = frames(look, shown, draw, lambda i: f"{label(i)} · {said}", marks.__getitem__)
    return Picture(made, title=f"{look.title}: {said}", facts=facts_of(making))
