"""Every real image at hand, read as a volume or refused in words; each volume checked by two other readers.

`pytest tests/read/test_read_volume_table.py` prints one line for each.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.errors import Refused
from node.operator import Volume
from node.read.loaded import Loaded
from node.read.volume import load, volumes

SAMPLES = Path(os.environ.get("PACSNODE_SAMPLES", Path(__file__).parents[3] / "shared" / "samples"))
OURS = Path(pydicom.data.__file__).parent

SPLITS = {
    "MR/siemens-dti-classic": "b_value",
    "MR/dce-ucsf-br-06": "ContentTime",
    "MR/philips-enhanced-dti": "DiffusionGradientOrientation",
}
"""What the refusal itself advises; the parts are then checked like any volume."""
DIFFERENT = {
    "rtdose_expb.dcm": "GDCM swaps 16-bit words only where a big endian pixel has 32 bits (PS3.5 7.3); ours are "
    "the values of the little endian original, rtdose.dcm",
}
"""Where another reader has other values or places, and why we are right."""


def groups() -> Iterator[tuple[str, list[Path]]]:
    """Name and files of every series: those of the samples, then pydicom's files one by one."""
    if SAMPLES.is_dir():
        for folder in sorted(SAMPLES.glob("*/*")):
            of_series: dict[str, list[Path]] = {}
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                header = _header(path)
                if header is not None and "Rows" in header:
                    of_series.setdefault(header.SeriesInstanceUID, []).append(path)
            for n, paths in enumerate(of_series.values(), 1):
                name = folder.relative_to(SAMPLES).as_posix()
                yield name if len(of_series) == 1 else f"{name} series {n}", paths
    places = [OURS / "test_files"]
    extra = importlib.util.find_spec("data_store")
    if extra is not None and extra.submodule_search_locations:
        places.append(Path(extra.submodule_search_locations[0]) / "data")
    for place in places:
        for path in sorted(p for p in place.rglob("*") if p.is_file()):
            header = _header(path)
            if header is not None and "Rows" in header:
                yield path.relative_to(place).as_posix(), [path]


def absent() -> list[str]:
    """Pydicom's test files that would have to be downloaded."""
    known = set(json.loads((OURS / "urls.json").read_text()))
    extra = importlib.util.find_spec("data_store")
    places = [OURS / "test_files"]
    if extra is not None and extra.submodule_search_locations:
        places.append(Path(extra.submodule_search_locations[0]))
    return sorted(known - {p.name for place in places for p in place.rglob("*")})


def _header(path: Path) -> Dataset | None:
    try:
        return dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    except Exception:  # noqa: BLE001 - pydicom's files break every rule there is
        return None


def lattice(shape: tuple[int, ...]) -> np.ndarray:
    """Voxel indices spread over a volume, its corners among them."""
    steps = [np.unique(np.linspace(0, n - 1, min(n, 5)).astype(int)) for n in shape]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)


def compared(volume: Volume, at: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any]]) -> str:
    """`same` where another reader has our values at our places, else by how much it has not.

    *at* takes our index and its place in mm, and gives the other's continuous index there and its value.
    """
    points = lattice(volume.array.shape)
    off, wrong = 0.0, 0
    for index in points:
        if volume.valid is not None and not volume.valid[tuple(index)] and "gantry_tilt" in volume.facts:
            continue  # nothing was measured there
        other, value = at(index, (volume.affine @ [*index, 1])[:3])
        off = max(off, float(np.abs(other - np.round(other)).max()))
        wrong += not np.isclose(value, volume.array[tuple(index)], rtol=1e-5, atol=1e-4)
    if off > 0.03:
        return f"{off:.3g} of a voxel elsewhere"
    return f"{wrong} of {len(points)} values differ" if wrong else "same"


def by_itk(loaded: Loaded[Volume], paths: list[Path]) -> str:
    """What SimpleITK (GDCM) says: the slices of a series each by itself, a multi-frame object as a whole."""
    if len(paths) > 1 or not loaded.frames[0]:
        return by_itk_slices(loaded)
    try:
        image = sitk.ReadImage(str(paths[0]))
    except RuntimeError as error:
        return "cannot read it: " + " ".join(str(error).split())[-60:]
    array = sitk.GetArrayFromImage(image)
    # GDCM applies no Dose Grid Scaling (PS3.3 C.8.8.3): we do.
    scaling = float(loaded.headers[0].get("DoseGridScaling", 1))

    def at(index: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, Any]:
        theirs = np.array(image.TransformPhysicalPointToContinuousIndex(place.tolist()))
        value = array[loaded.frames[index[0]] - 1][tuple(index[1:])] * scaling
        # Where one object holds several stacks GDCM has one spacing for all of them, so its z is no truth.
        return theirs[:2] if loaded.label else theirs, value

    return compared(loaded.value, at)


def by_itk_slices(loaded: Loaded[Volume]) -> str:
    """Each slice as GDCM places it; where we shifted it in its plane, ITK's linear interpolation is asked."""
    images = [sitk.ReadImage(str(header.filename)) for header in loaded.headers]
    tilted = "gantry_tilt" in loaded.value.facts

    def at(index: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, Any]:
        image = images[index[0]]
        theirs = np.array(image.TransformPhysicalPointToContinuousIndex(place.tolist()))
        if tilted:
            value = image.EvaluateAtPhysicalPoint(place.tolist(), sitk.sitkLinear)
            return theirs[[0, 2]], value
        return theirs, image[np.round(theirs).astype(int).tolist()]

    return compared(loaded.value, at)


def by_highdicom(loaded: Loaded[Volume], paths: list[Path]) -> str:
    """What highdicom says, with its own modality and real world value transforms."""
    datasets = [_with_frame_of_reference(dcmread(path)) for path in paths]
    try:
        if loaded.frames[0]:
            theirs = hd.Image.from_dataset(_only(datasets[0], loaded.frames)).get_volume()
        else:
            ours = {header.SOPInstanceUID for header in loaded.headers}
            theirs = hd.get_volume_from_series([ds for ds in datasets if ds.SOPInstanceUID in ours])
    except Exception as error:  # noqa: BLE001 - whatever it cannot read, it says why
        return "cannot read it: " + " ".join(str(error).split())[:60]
    inverse = np.linalg.inv(theirs.affine)

    def at(index: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, Any]:
        found = (inverse @ [*place, 1])[:3]
        rounded = np.round(found).astype(int)
        inside = ((rounded >= 0) & (rounded < theirs.array.shape)).all()
        return found, theirs.array[tuple(rounded)] if inside else np.nan

    return compared(loaded.value, at)


def _with_frame_of_reference(dataset: Dataset) -> Dataset:
    """Old images have none, and highdicom refuses them, which is not what is compared here."""
    dataset.setdefault("FrameOfReferenceUID", "1.2.3")
    return dataset


def _only(dataset: Dataset, frames: tuple[int, ...]) -> Dataset:
    """The object with these frames alone, as highdicom takes it where several stacks are in one object."""
    if len(frames) == int(dataset.NumberOfFrames) or "PerFrameFunctionalGroupsSequence" not in dataset:
        return dataset
    size = len(dataset.PixelData) // int(dataset.NumberOfFrames)
    groups, pixels = dataset.PerFrameFunctionalGroupsSequence, dataset.PixelData
    dataset.PerFrameFunctionalGroupsSequence = [groups[n - 1] for n in frames]
    dataset.PixelData = b"".join(pixels[(n - 1) * size : n * size] for n in frames)
    dataset.NumberOfFrames = len(frames)
    return dataset


def row(name: str, loaded: Loaded[Volume], said: dict[str, str]) -> str:
    """One row of the table."""
    value = loaded.value
    shape = " x ".join(map(str, value.array.shape))
    spacing = " x ".join(f"{s:.4g}" for s in value.spacing)
    tilt = f", tilt {value.facts['gantry_tilt']:.1f}°" if "gantry_tilt" in value.facts else ""
    label = f" [{loaded.label}]" if loaded.label else ""
    found = f"{shape}, {spacing} mm, {value.unit.value}{tilt}"
    others = " | ".join(f"{reader}: {words}" for reader, words in said.items())
    why = f" | {DIFFERENT[name]}" if name in DIFFERENT else ""
    return f"{name}{label} | {loaded.headers[0].SOPClassUID.name} | {found} | {others}{why}"


def parts_of(name: str, paths: list[Path]) -> tuple[str, list[Loaded[Volume]]]:
    """The words of the refusal, if any, and the volumes: one, none, or the parts that the refusal advises."""
    try:
        return "", [load(paths)]
    except Refused as refusal:
        words = str(refusal)
    if name not in SPLITS:
        return words, []
    assert f"split: [{SPLITS[name]}]" in words
    return words, [part.load() for part in volumes(paths, [SPLITS[name]], "run")]


@pytest.fixture
def quietly() -> Iterator[None]:
    """Without what pydicom and highdicom say about pydicom's broken files."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_every_real_image_is_a_true_volume_or_refused_in_words(
    table: Callable[[str, list[str]], None], quietly: None
) -> None:
    """Each file or series has the places and values of SimpleITK or highdicom and of all that read it, or a reason."""
    rows: list[str] = []
    unexplained: list[str] = []
    for name, paths in groups():
        words, found = parts_of(name, paths)
        if words:
            kind = dcmread(paths[0], stop_before_pixels=True).get("SOPClassUID")
            rows.append(f"{name} | {getattr(kind, 'name', kind)} | refused: {words}")
        for loaded in found:
            said = {"ITK": by_itk(loaded, paths), "highdicom": by_highdicom(loaded, paths)}
            rows.append(row(name, loaded, said))
            readers = [words for words in said.values() if not words.startswith("cannot read")]
            if name not in DIFFERENT and (not readers or set(readers) != {"same"}):
                unexplained.append(rows[-1])
    table(
        "every real image, as a volume or refused",
        [*rows, f"absent here, to be downloaded: {', '.join(absent())}"],
    )
    assert not unexplained, "\n".join(unexplained)


def test_a_big_endian_dose_is_that_of_its_little_endian_original() -> None:
    """32-bit big endian doses, which GDCM reads otherwise, are those of the file they were made from."""
    big, little = (OURS / "test_files" / name for name in ("rtdose_expb.dcm", "rtdose.dcm"))
    assert np.array_equal(load([big]).value.array, load([little]).value.array)
