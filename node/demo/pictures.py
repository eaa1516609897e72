"""PNG previews of what lies at the PACS: results beside their sources, and a sheet of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from node.demo import canvas, findings
from node.demo.canvas import Panel, Pixels
from node.demo.findings import Returned
from node.errors import NodeError
from node.operator import Volume
from node.read.volume import load
from node.words import legible

_CT_WINDOW = (-160.0, 240.0)  # level 40 HU, width 400 HU: soft tissue
_CT_OUTLINE = (-450.0, 350.0)  # shows the skin, and the table that does not belong to the body
_ASIDE = 0.42  # of the way: a sagittal image beside the midline shows more
_TILE, _LARGE = (230, 190), (430, 360)
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    OSError,
    NodeError,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures, and what could not be drawn."""

    files: tuple[Path, ...]
    problems: tuple[str, ...]


def draw(series: Sequence[Returned], folder: Path) -> Drawn:
    """Write `all-series.png`, and one picture per derived image series and segmentation, below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = {one.series_uid: one for one in series if not one.derived}
    files, problems = [], []
    if series:
        panels = [_tile(one) for one in series]
        title = "Everything at the PACS: what was sent, then what the node made of it"
        files.append(
            canvas.save(canvas.sheet(panels, title, columns=6, size=_TILE), folder / "all-series.png")
        )
    for number, one in enumerate((s for s in series if s.derived and s.modality != "SR"), 1):
        source = originals.get(one.source_uid)
        drawing: Callable[[Returned, Returned], Iterator[Panel]] = (
            _outline if one.modality == "SEG" else _comparison
        )
        try:
            panels = list(drawing(source, one)) if source else []
        except _UNREADABLE as error:
            problems.append(f"{one.description} of {one.title}: no picture: {error}")
            continue
        if panels:
            name = f"{number:02d}-{_slug(one.description)}.png"
            image = canvas.sheet(panels, f"{one.description}: {one.title}", columns=2, size=_LARGE)
            files.append(canvas.save(image, folder / name))
    return Drawn(tuple(files), tuple(problems))


def _slug(text: str) -> str:
    """Letters, digits and dashes only: a description is a peer's text, and never a path."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:40] or "result"


# --- volumes: upright, in the patient's directions


@dataclass(frozen=True, eq=False)
class Upright:
    """A volume turned to the nearest patient axes: (to the head, to the back, to the left)."""

    array: NDArray[Any]
    spacing: tuple[float, float, float]
    slices: int
    """Which of the three axes its slices were stacked along."""

    def cut(self, axis: int, window: tuple[float, float], mask: NDArray[np.bool_] | None = None) -> Pixels:
        """A plane near the middle of *axis*, as radiologists look at it: head or front up, right or front left."""
        middle = int(self.array.shape[axis] * (_ASIDE if axis == 2 else 0.5))
        pixels = canvas.grey(self.array.take(middle, axis), *window)
        if mask is not None:
            pixels = canvas.overlaid(pixels, np.take(mask, middle, axis))
        return pixels if axis == 0 else pixels[::-1]

    def panel(
        self, axis: int, label: str, window: tuple[float, float], mask: NDArray[np.bool_] | None = None
    ) -> Panel:
        """The same with its proportions and a mark for the side."""
        rows, columns = (s for n, s in enumerate(self.spacing) if n != axis)
        side = "A" if axis == 2 else "R"
        return Panel(self.cut(axis, window, mask), label, (rows, columns), side)


_PLANES = ("axial", "coronal", "sagittal")


def _upright(volume: Volume, array: NDArray[Any] | None = None) -> Upright:
    """Turn a volume, or another *array* on its grid, by whole quarter turns."""
    given = volume.array if array is None else array
    order = _nearest_axes(volume)
    turned = np.transpose(given, order)
    for position, axis in enumerate(order):
        if volume.axes[2 - position, axis] < 0:
            turned = np.flip(turned, position)
    spacing = tuple(float(volume.spacing[axis]) for axis in order)
    return Upright(turned, (spacing[0], spacing[1], spacing[2]), order.index(0))


def _nearest_axes(volume: Volume) -> list[int]:
    """The array axes that run most nearly along z, y and x."""
    left, order = {0, 1, 2}, []
    for direction in (2, 1, 0):
        best = max(left, key=lambda axis: abs(volume.axes[direction, axis]))
        left.discard(best)
        order.append(best)
    return order


def _window(volume: Volume) -> tuple[float, float]:
    if volume.facts.get("modality") == "CT":
        return _CT_WINDOW
    low, high = np.percentile(volume.array, [2, 99.5])
    return float(low), float(high)


def _comparison(source: Returned, made: Returned) -> Iterator[Panel]:
    """Source and result, each as acquired and in one more plane."""
    before, after = load(source.files).value, load(made.files).value
    window = _window(before)
    pair = [(_upright(before), "sent", len(source.files)), (_upright(after), "result", len(made.files))]
    for upright, what, count in pair:
        thick = upright.spacing[upright.slices]
        plane = _PLANES[upright.slices]
        label = f"{what}: {count} {plane} slices, every {thick:.3g} mm"
        yield upright.panel(upright.slices, label, window)
    other = 1 if pair[1][0].slices == 0 else 0
    for upright, what, _ in pair:
        yield upright.panel(other, f"{what}: {_PLANES[other]} cut", window)


def _outline(source: Returned, made: Returned) -> Iterator[Panel]:
    """The segment's outline on its source; a single slice has one plane only."""
    volume = load(source.files).value
    mask = _mask(dcmread(made.files[0]), volume)
    window = _CT_OUTLINE if source.modality == "CT" else _window(volume)
    upright, outline = _upright(volume), _upright(volume, mask).array
    label = f"{_PLANES[upright.slices]}, with {_segment_label(made)}"
    yield upright.panel(upright.slices, f"{_PLANES[upright.slices]}, as sent", window)
    yield upright.panel(
        upright.slices, f"{label} ({mask.sum() * volume.voxel_volume / 1000:.4g} ml in all)", window, outline
    )
    if len(volume.array) > 1:
        for axis in (a for a in (1, 2, 0) if a != upright.slices):
            yield upright.panel(axis, f"{_PLANES[axis]} cut", window, outline)


def _segment_label(made: Returned) -> str:
    header = dcmread(made.files[0], stop_before_pixels=True)
    return str(header.SegmentSequence[0].SegmentLabel)


def _mask(segmentation: Dataset, volume: Volume) -> NDArray[np.bool_]:
    """The first segment's frames, each at the slice that its position names (PS3.3 C.7.6.16)."""
    frames = np.atleast_3d(segmentation.pixel_array)
    frames = frames if segmentation.get("NumberOfFrames", 1) > 1 else segmentation.pixel_array[None]
    mask = np.zeros(volume.array.shape, bool)
    inverse = np.linalg.inv(volume.affine)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        mask[round(float((inverse @ [*place, 1.0])[0]))] |= frame > 0
    return mask


# --- the sheet of everything


def _tile(one: Returned) -> Panel:
    """The middle image of a series, its curves, or its numbers."""
    count = f"{len(one.files)} object{'s' * (len(one.files) > 1)}"
    label = (
        f"{one.modality} {one.description}\nfrom {one.title}" if one.derived else f"{one.title}\n{count} sent"
    )
    try:
        return _drawn(one, label)
    except _UNREADABLE:
        return canvas.text_panel(["no preview"], label, _TILE)


def _drawn(one: Returned, label: str) -> Panel:
    if one.modality == "SR":
        lines = [
            f"{n.name.rpartition(', ')[2]}: {legible(float(n.value))} {n.unit}"
            for n in findings.numbers([one])
        ]
        return canvas.text_panel(lines or ["no numbers"], label, _TILE)
    dataset = dcmread(sorted(one.files)[int(len(one.files) * _ASIDE)])
    if "WaveformSequence" in dataset:
        return canvas.curves_panel(dataset.waveform_array(0)[:2500].T, label, _TILE)
    pixels = dataset.pixel_array
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        pixels = pixels[len(pixels) // 2]
    if pixels.ndim == 3:
        return Panel(pixels.astype(np.uint8), label)
    low, high = _window_of(dataset, pixels)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        low, high, pixels = -high, -low, -pixels.astype(np.float32)
    spacing = [float(v) for v in dataset.get("PixelSpacing", None) or (1, 1)]
    return Panel(canvas.grey(pixels, low, high), label, (spacing[0] or 1.0, spacing[1] or 1.0))


def _window_of(dataset: Dataset, pixels: NDArray[Any]) -> tuple[float, float]:
    """Stored values for black and white: soft tissue for CT, else what most pixels hold."""
    if dataset.get("Modality") == "CT":
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        return (_CT_WINDOW[0] - intercept) / slope, (_CT_WINDOW[1] - intercept) / slope
    low, high = np.percentile(pixels, [1, 99.5])
    return float(low), float(high)
