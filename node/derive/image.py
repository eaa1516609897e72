"""Volume → derived CT, MR or PET images, one file per slice, in the source's own or the classic class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from node.derive import geometry, pixels
from node.derive.charset import settle_charset
from node.derive.inherit import AnyElement, Column, put
from node.derive.making import Making, with_file_meta
from node.derive.nm_image import nm_image
from node.derive.quantity import set_display, set_quantity
from node.derive.realworld import set_mapping
from node.derive.series import Series
from node.derive.standard import CT, MR, NM, PT, roots
from node.derive.values import octets
from node.errors import Refused
from node.operator import Stack, Volume

_STARTED = ("SeriesDate", "SeriesTime")


def images(making: Making, volume: Volume) -> Iterator[Dataset]:
    """Make the derived series ready to be written: a file per slice, or one NM object.

    Enhanced and legacy converted sources give images of the classic class. Raises Refused where the sources
    are no CT, MR, PET or NM images, Broken where the volume cannot be stored.
    """
    sop_class = making.sources.image_class
    if sop_class not in (CT, MR, PT, NM):
        raise Refused(
            f"output {making.output.name}: derived images are made of CT, MR, PET and NM only, the source's "
            f"SOP class is {sop_class}; send a mask, a picture or measurements instead"
        )
    series = Series(making, volume, sop_class)
    if sop_class == NM:
        yield nm_image(series)
        return
    for k in range(volume.array.shape[0]):
        yield _slice(series, k)


def stacked_images(making: Making, stack: Stack) -> Iterator[Dataset]:
    """Make one derived series of all volumes, one after the other, each with the sources of its own.

    Raises what `images` raises; Refused for SPECT, whose volumes are one object each.
    """
    if making.sources.image_class == NM:
        raise Refused(
            f"output {making.output.name}: a stack of SPECT volumes cannot be written; split the series"
        )
    before = making.before
    for volume in stack.volumes:
        yield from images(replace(making, sources=making.sources.behind(volume), before=before), volume)
        before += len(volume.array)


def _slice(series: Series, k: int) -> Dataset:
    making, plane = series.making, series.planes[k]
    sources = series.contributors(k)
    dataset = series.base()
    set_quantity(dataset, series)
    set_display(dataset, series)
    _set_varying(dataset, series, sources)
    _set_acquisition(dataset, series, sources)
    started = [dataset.pop(keyword, None) for keyword in _STARTED] if series.sop_class == PT else []
    making.stamp(dataset, series.sop_class, k + 1)
    for keyword, element in zip(_STARTED, started, strict=False):
        put(dataset, keyword, element)
    making.describe(dataset)
    dataset.ImagePositionPatient = geometry.decimals(plane.position)
    dataset.SliceLocation = geometry.decimal(plane.position @ plane.normal)
    dataset.SourceImageSequence = series.references(k)
    if series.sop_class == PT:
        dataset.NumberOfSlices = len(series.planes)
        dataset.ImageIndex = k + 1
    _set_pixels(dataset, series, k)
    return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)


def _set_varying(dataset: Dataset, series: Series, sources: Sequence[int]) -> None:
    """Per-slice attributes: kept where all contributors agree; types 1 and 1C from the one in the middle.

    A slab of PET slices so has the Frame Reference Time and the Decay Factor of its middle (C.8.9.4).
    """
    rows = roots(series.sop_class)
    for keyword, column in series.varying.items():
        element = column.agreed(sources)
        if element is None and rows[keyword].type in ("1", "1C"):
            element = column.variants[column.rows[sources[len(sources) // 2]]]
        put(dataset, keyword, element)


def _set_acquisition(dataset: Dataset, series: Series, sources: Sequence[int]) -> None:
    """When the data that resulted in this image began to be acquired (C.7.6.1): the earliest contributor."""
    for keywords in (("AcquisitionDate", "AcquisitionTime"), ("AcquisitionDateTime",)):
        columns = [series.inherited.columns.get(keyword) for keyword in keywords]
        stated = [_stated(columns, i) for i in sources]
        if all(stated):
            earliest = min(stated, key=lambda elements: [octets(element) for element in elements])
            for keyword, element in zip(keywords, earliest, strict=True):
                put(dataset, keyword, element)
        elif series.sop_class == PT and len(keywords) == 2:
            dataset.AcquisitionDate = dataset.AcquisitionTime = None


def _stated(columns: Sequence[Column | None], source: int) -> list[AnyElement]:
    """One source's elements, none where it lacks one of them."""
    found = [column.variants[column.rows[source]] for column in columns if column]
    filled = [element for element in found if element is not None and element.value]
    return filled if len(filled) == len(columns) else []


def _set_pixels(dataset: Dataset, series: Series, k: int) -> None:
    volume = series.volume
    valid = None if volume.valid is None else volume.valid[k]
    scale = series.scale
    if series.sop_class == PT:
        # A slope per slice: quiet slices keep their resolution beside a full bladder.
        low, high = pixels.valid_range(volume.array[k], valid)
        scale = pixels.scale(PT, low, high, wholes=False, padded=series.padded)
        dataset.RescaleSlope, dataset.RescaleIntercept = scale.slope, scale.intercept
    set_mapping(dataset, volume, scale)
    dataset.PixelRepresentation = int(scale.signed)
    if scale.padding is not None:
        dataset.add_new("PixelPaddingValue", "SS" if scale.signed else "US", scale.padding)
    dataset.add_new("PixelData", "OW", scale.store(volume.array[k], valid).tobytes())
