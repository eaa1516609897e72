"""Results of a run → gated DICOM files on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from node.derive.capture import captures
from node.derive.document import documents
from node.derive.gate import Origin, judge
from node.derive.image import images, stacked_images
from node.derive.inherit import writable
from node.derive.issued import rejection_note, source_of
from node.derive.key_images import key_images
from node.derive.making import Making
from node.derive.parametric_map import parametric_map
from node.derive.presentation import presentations
from node.derive.recording import recordings
from node.derive.rendition import rendition
from node.derive.report import reports
from node.derive.segmentation import segmentation
from node.derive.segments import Segment
from node.derive.sources import Sources
from node.derive.tiles import slides
from node.errors import Broken
from node.model import REJECTION, WHOLE, Job, Output, Product, SeriesPart, series_key
from node.operator import (
    Document,
    FractionalMask,
    KeyImages,
    Map,
    Mask,
    Measurement,
    Picture,
    Presentation,
    Recording,
    Report,
    Segments,
    Stack,
    Tiles,
    Volume,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def write(
    results: Mapping[str, object],
    job: Job,
    sources: Sources,
    folder: Path,
    part: SeriesPart = WHOLE,
    before: Sequence[Product] = (),
    descent: Mapping[str, Sources] = MappingProxyType({}),
) -> list[Product]:
    """Write every output of *job*'s plan to `folder/<series>/<index:05d>.dcm` and gate it from disk.

    *results* are the steps' results by name; *before* the products of earlier parts of the series; *descent* names
    the sources of a result where they are others than *sources*, as in a run over several series. Paths in the
    products are relative to *folder*, digests are SHA-256 of the files; what others refer to comes first. Files and
    folders are synced. Raises Broken naming output, attribute and defect; Refused where the sources do not suit.
    """
    if not sources.headers:
        raise Broken("nothing can be derived without a source image")
    written = _Written(folder, _origins(sources, descent), list(before))
    segments: list[Segment] = []
    for writer, output, result in sorted(
        _wanted(results, job), key=lambda w: (_ORDER.index(w[0]), w[1].index)
    ):
        own = descent.get(output.name, sources).behind(result)
        native = Making(job, output, own, part, before=written.so_far(output.name, part, writer.kind))
        made = writer.make(native, result, segments)
        again = list(made) if output.picture else []  # only then: a long series is not held in memory
        written.add(writer.kind, native, again or made)
        if output.picture and writer.kind != "picture":
            drawn = replace(native, form="picture", before=written.so_far(output.name, part, "picture"))
            written.add("picture", drawn, captures(drawn, rendition(native, result, again)))
    _sync_folder(folder)
    return written.products[len(before) :]


def _origins(sources: Sources, descent: Mapping[str, Sources]) -> dict[str, Origin]:
    own = {name: Origin((*one.headers, *one.others)) for name, one in descent.items()}
    return {"": Origin((*sources.headers, *sources.others)), **own}


def write_notes(job: Job, folder: Path) -> list[Product]:
    """Write the rejection notes of a job that withdraws, gated like any result. Raises what `write` raises."""
    sources = source_of(job.files)
    written = _Written(folder, {"": Origin(sources.headers)}, [])
    for output in job.plan.outputs:
        making = Making(job, output, sources)
        written.add(REJECTION, making, rejection_note(making))
    _sync_folder(folder)
    return written.products


@dataclass(frozen=True)
class Writer:
    """How one type of result becomes objects."""

    kind: str
    """`Product.kind`."""
    of: type
    make: Callable[[Making, Any, list[Segment]], Iterable[Dataset]]


def _segmented(making: Making, result: Mask | Segments, segments: list[Segment]) -> Iterable[Dataset]:
    """The segmentation; what it holds is remembered, so that the reports of the run can refer to it."""
    masks = result.masks if isinstance(result, Segments) else (result,)
    dataset = segmentation(making, masks)
    segments += [Segment(mask, dataset, making.output.name, n) for n, mask in enumerate(masks, 1)]
    return [dataset]


_ORDER = (
    Writer("image", Volume, lambda making, volume, _: images(making, volume)),
    Writer("image", Stack, lambda making, stack, _: stacked_images(making, stack)),
    Writer("segmentation", Mask, _segmented),
    Writer("segmentation", Segments, _segmented),
    Writer("segmentation", FractionalMask, lambda making, mask, _: [segmentation(making, (mask,))]),
    Writer("parametric_map", Map, lambda making, quantity, _: [parametric_map(making, quantity)]),
    Writer(
        "report", list, lambda making, numbers, segments: reports(making, Report(tuple(numbers)), segments)
    ),
    Writer("report", Report, reports),
    Writer("recording", Recording, lambda making, recording, _: recordings(making, recording)),
    Writer("tiles", Tiles, lambda making, tiles, _: slides(making, tiles)),
    Writer("picture", Picture, lambda making, picture, _: captures(making, picture)),
    Writer("document", Document, lambda making, document, _: documents(making, document)),
    Writer("presentation", Presentation, lambda making, shown, _: presentations(making, shown)),
    Writer("key_images", KeyImages, lambda making, selection, _: key_images(making, selection)),
)
"""In this order: a report refers to the segmentations of its run."""


def _wanted(results: Mapping[str, object], job: Job) -> Iterator[tuple[Writer, Output, object]]:
    for output in job.plan.outputs:
        if not _NAME.fullmatch(output.name):
            raise Broken(
                f"output {output.name!r}: a name has letters, digits, `_`, `-` and `.` only; rename `as:`"
            )
        if output.name not in results:
            raise Broken(f"output {output.name}: no step made it; the run's results are {', '.join(results)}")
        result = results[output.name]
        yield _writer(output, result), output, result


def _writer(output: Output, result: object) -> Writer:
    whole = not isinstance(result, list) or (result and all(isinstance(m, Measurement) for m in result))
    for writer in _ORDER:
        if isinstance(result, writer.of) and whole:
            return writer
    what = "an empty list" if result == [] else type(result).__name__
    known = ", ".join(writer.of.__name__ for writer in _ORDER if writer.of is not list)
    raise Broken(f"output {output.name}: {what} cannot be written; the operator must return one of {known} "
                 "or a list of Measurement")  # fmt: skip


@dataclass
class _Written:
    """What stands in the run's folder, gated."""

    folder: Path
    origins: Mapping[str, Origin]
    """Output → what the gate compares with; an empty name stands for all that have none of their own."""
    products: list[Product]

    def so_far(self, output: str, part: SeriesPart, kind: str) -> int:
        """How many objects the series has that further ones of this kind go into."""
        same = series_key(output, part.number, "picture" if kind == "picture" else "")
        return sum(product.path.startswith(f"{_place(same)}/") for product in self.products)

    def add(self, kind: str, making: Making, made: Iterable[Dataset]) -> None:
        """Write and gate *made*. Raises Broken for a defect that the sources do not have."""
        name = making.output.name
        place = self.folder / _place(making.key)
        place.mkdir(parents=True, exist_ok=True)
        for index, dataset in enumerate(made, making.before + 1):
            path = place / f"{index:05d}.dcm"
            data = encoded(dataset)
            _write_durably(path, data)
            origin = self.origins.get(name, self.origins[""])
            blocking = [defect for defect in judge(path, origin) if defect.introduced]
            if blocking:
                said = "; ".join(str(defect) for defect in blocking[:5])
                raise Broken(f"output {name}, object {index} is no valid DICOM and was not sent: {said}")
            self.products.append(Product(
                output=name,
                index=1 + sum(product.output == name for product in self.products),
                kind=kind,
                path=f"{place.name}/{path.name}",
                sop_uid=str(dataset.SOPInstanceUID),
                sop_class=str(dataset.SOPClassUID),
                transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
                series_uid=str(dataset.SeriesInstanceUID),
                digest=hashlib.sha256(data).hexdigest(),
                size=len(data),
            ))  # fmt: skip
        _sync_folder(place)


def _place(key: str) -> str:
    """The folder of a series: its key without what a path does not like."""
    return key.replace("#", "-part").replace("/", "-as-")


def encoded(dataset: Dataset) -> bytes:
    """Encode the Part 10 file of *dataset*, which carries its File Meta Information."""
    with BytesIO() as buffer:
        dcmwrite(buffer, writable(dataset), implicit_vr=False, little_endian=True, enforce_file_format=True)
        return buffer.getvalue()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
