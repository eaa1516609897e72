"""Results of a run → gated DICOM files on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from node.derive.gate import Origin, judge
from node.derive.image import images
from node.derive.inherit import writable
from node.derive.making import Making, Sources
from node.derive.report import Segment, reports
from node.derive.segmentation import segmentation
from node.errors import Broken
from node.model import Job, Output, Product
from node.operator import Mask, Measurement, Volume

_KINDS = ("image", "segmentation", "report")
"""In this order: a report refers to the segmentations of its run."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def write(results: Mapping[str, object], job: Job, headers: Sequence[Dataset], folder: Path) -> list[Product]:
    """Write every output of *job*'s plan to `folder/<output>/<index:05d>.dcm` and gate it from disk.

    *results* are the steps' results by name (Volume, Mask or list of Measurement); *headers* the used
    source images in slice order, without pixel data. Paths in the products are relative to *folder*,
    digests are SHA-256 of the files; images come first, reports last. Files and folders are synced.
    Raises Broken naming output, attribute and defect; Refused where the sources do not suit.
    """
    sources = Sources(tuple(headers))
    if not headers:
        raise Broken("nothing can be derived without a source image")
    origin = Origin(sources.headers)
    segments: list[Segment] = []
    products: list[Product] = []
    for kind, output, result in sorted(_wanted(results, job), key=lambda w: (_KINDS.index(w[0]), w[1].index)):
        making = Making(job, output, sources)
        made = _made(kind, making, result, segments)
        products.extend(_kept(kind, output, made, origin, folder))
    _sync_folder(folder)
    return products


def _wanted(results: Mapping[str, object], job: Job) -> Iterator[tuple[str, Output, object]]:
    for output in job.plan.outputs:
        if not _NAME.fullmatch(output.name):
            raise Broken(
                f"output {output.name!r}: a name has letters, digits, `_`, `-` and `.` only; rename `as:`"
            )
        if output.name not in results:
            raise Broken(f"output {output.name}: no step made it; the run's results are {', '.join(results)}")
        result = results[output.name]
        yield _kind(output, result), output, result


def _kind(output: Output, result: object) -> str:
    if isinstance(result, Volume):
        return "image"
    if isinstance(result, Mask):
        return "segmentation"
    if isinstance(result, list) and result and all(isinstance(item, Measurement) for item in result):
        return "report"
    what = "an empty list" if result == [] else type(result).__name__
    raise Broken(f"output {output.name}: {what} cannot be written; the operator must return a Volume, a Mask "
                 "or a list of Measurement")  # fmt: skip


def _made(kind: str, making: Making, result: object, segments: list[Segment]) -> Iterable[Dataset]:
    if isinstance(result, Volume):
        return images(making, result)
    if isinstance(result, Mask):
        dataset = segmentation(making, result)
        segments.append(Segment(result, dataset, making.output.name))
        return [dataset]
    assert isinstance(result, list), kind  # noqa: S101 - _kind has seen to it
    return reports(making, result, segments)


def _kept(
    kind: str, output: Output, made: Iterable[Dataset], origin: Origin, folder: Path
) -> Iterator[Product]:
    place = folder / output.name
    place.mkdir(parents=True, exist_ok=True)
    for index, dataset in enumerate(made, 1):
        path = place / f"{index:05d}.dcm"
        data = encoded(dataset)
        _write_durably(path, data)
        blocking = [defect for defect in judge(path, origin) if defect.introduced]
        if blocking:
            said = "; ".join(str(defect) for defect in blocking[:5])
            raise Broken(f"output {output.name}, object {index} is no valid DICOM and was not sent: {said}")
        yield Product(
            output=output.name,
            index=index,
            kind=kind,
            path=f"{output.name}/{path.name}",
            sop_uid=str(dataset.SOPInstanceUID),
            sop_class=str(dataset.SOPClassUID),
            transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
            series_uid=str(dataset.SeriesInstanceUID),
            digest=hashlib.sha256(data).hexdigest(),
        )
    _sync_folder(place)


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
