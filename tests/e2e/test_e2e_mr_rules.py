"""The shipped MR rules on files, from DICOM to DICOM: classic and enhanced phantoms, and real images."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from node.model import RunState
from node.operator import Code, Mask, Stack
from node.testing import Grid, Series, head_volume, run_rule, write_mr_series, write_segmentation
from node.testing.mosaics import write_mosaic_series
from node.testing.relaxing import (
    HEAD,
    LESION,
    WHITE,
    diffusion_stack,
    dynamic_stack,
    echo_stack,
    flip_stack,
    head_labels,
    inversion_stack,
    of_tissues,
)
from node.testing.stacks import write_enhanced_mr, write_mr_stack

EXAMPLES = Path(__file__).parents[2] / "config" / "examples" / "rules"
LABELS = head_labels()


def processed(file: str, paths: list[Path], out: Path, *rules: str) -> dict[str, Any]:
    """What *rules* of an example file, or all, made of a series: by name, how each ended or why it did not run."""
    text = (EXAMPLES / f"{file}.yaml").read_text(encoding="utf-8")
    chosen = [one for one in text.split("\n---\n") if not rules or any(f"rule: {r}\n" in one for r in rules)]
    out.mkdir(exist_ok=True)
    (out / "rules.yaml").write_text("\n---\n".join(chosen), encoding="utf-8")
    return {one.judged.rule.name: one for one in run_rule(out / "rules.yaml", paths, out)}


def made(out: Path, rule: str, name: str) -> list[Path]:
    """The objects of one output, in order."""
    return sorted((out / rule / "series-1" / name).glob("*.dcm"))


def written(folder: Path, stack: Stack, description: str, enhanced: bool) -> list[Path]:
    """*stack* as DICOM of either kind."""
    folder.mkdir()
    series = Series(description.replace(" ", "-"), description=description)
    if enhanced:
        return [write_enhanced_mr(folder / "enhanced.dcm", stack, series=series)]
    return write_mr_stack(folder, stack, series=series)


def values(path: Path) -> np.ndarray[Any, Any]:
    """A parametric map, frame by frame; NaN where nothing could be computed."""
    ds = dcmread(path)
    return np.frombuffer(ds.FloatPixelData, "<f4").reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns)


def valid(paths: list[Path], sources: list[Path]) -> None:
    """Dciodvfy finds no error in any object, dcentvfy none between them and one of their sources."""
    assert [peers.dciodvfy(path) for path in paths] == [[]] * len(paths)
    if dcmread(sources[0], stop_before_pixels=True).SOPClassUID != EnhancedMRImageStorage:
        assert peers.dcentvfy(sources[0], *paths) == []


MAPS: dict[str, tuple[str, str, Callable[[], Stack], str, str, str]] = {
    "adc": ("mr-adc", "adc", lambda: diffusion_stack(noise=60.0), "ep2d diff", "adc", "um2/s"),
    "t2": ("mr-t2-map", "t2", lambda: echo_stack(noise=30.0), "T2 map", "t2", "ms"),
    "t1": ("mr-t1-map", "t1", lambda: flip_stack(noise=20.0), "VFA T1 map", "t1", "ms"),
    "t1 inversion": ("mr-t1-map", "t1", lambda: inversion_stack(noise=30.0), "T1 map IR", "t1", "ms"),
}


@pytest.mark.parametrize(("name", "enhanced"), [(name, name in ("adc", "t1")) for name in MAPS])
def test_maps_of_known_tissues(tmp_path: Path, name: str, enhanced: bool) -> None:
    """Each map rule gives the tissues' known values as a parametric map in its unit, and a picture in colour."""
    rule, output, stack, description, what, unit = MAPS[name]
    sources = written(tmp_path / "in", stack(), description, enhanced)
    ended = processed(rule, sources, tmp_path / "out", rule)[rule].ended
    assert (ended.state, ended.reason) == (RunState.DONE, "")
    (path,) = made(tmp_path / "out", rule, output)
    found, truth = values(path), of_tissues(LABELS, what)
    for label in range(3, 7):
        assert np.nanmedian(found[label == LABELS]) == pytest.approx(truth[label == LABELS][0], rel=0.01)
    assert np.isnan(found[LABELS == 0]).mean() > 0.97
    (mapping,) = dcmread(path).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
    (picture,) = made(tmp_path / "out", rule, f"{output}_colours-as-picture")
    assert dcmread(picture).PhotometricInterpretation == "RGB"
    valid([path, picture], sources)


def test_dcmqi_reads_the_coefficient(tmp_path: Path) -> None:
    """Its image has our values; its description the quantity, unit, method and the b-values that went in."""
    program = peers.dcmqi("paramap2itkimage")
    sources = written(tmp_path / "in", diffusion_stack(), "ep2d diff", enhanced=False)
    processed("mr-adc", sources, tmp_path / "out", "mr-adc")
    (path,) = made(tmp_path / "out", "mr-adc", "adc")
    command = [program, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(next(tmp_path.glob("*.nrrd")))))
    assert np.nanmedian(image[LABELS == LESION]) == pytest.approx(450, rel=0.01)
    said = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert said["QuantityValueCode"]["CodeValue"] == "113041"
    assert said["MeasurementUnitsCode"]["CodeValue"] == "um2/s"
    assert said["MeasurementMethodCode"]["CodeValue"] == "113250"
    assert said["SourceImageDiffusionBValues"] == ["0", "500", "1000"]


def test_the_trace_leaves_as_images(tmp_path: Path) -> None:
    """One image per slice and b-value, isotropic, with its b-value, of all its directions, and no direction itself."""
    sources = written(tmp_path / "in", diffusion_stack((0.0, 800.0)), "ep2d diff", enhanced=False)
    assert processed("mr-adc", sources, tmp_path / "out", "mr-trace")["mr-trace"].ended.state == RunState.DONE
    paths = made(tmp_path / "out", "mr-trace", "trace")
    images = [dcmread(path) for path in paths]
    count = HEAD.shape[0]
    assert [i.DiffusionBValue for i in images] == [0] * count + [800] * count
    assert [i.get("DiffusionDirectionality") for i in images[::count]] == ["NONE", "ISOTROPIC"]
    assert not any("DiffusionGradientOrientation" in i for i in images)
    assert [i.InstanceNumber for i in images] == list(range(1, 2 * count + 1))
    k = 6
    ratio = images[count + k].pixel_array[LABELS[k] == WHITE] / images[k].pixel_array[LABELS[k] == WHITE]
    assert np.median(ratio) == pytest.approx(np.exp(-0.8 * 2.3 / 3), rel=0.01)
    assert len(images[count + k].SourceImageSequence) == 4
    valid([paths[0], paths[-1]], sources)


def test_contrast_over_time(tmp_path: Path) -> None:
    """PE, SER and time to peak of the leaking lesion; the difference images, and their projection shows it alone."""
    sources = written(tmp_path / "in", dynamic_stack(noise=5.0), "t1 dyn", enhanced=True)
    ended = processed("mr-dce", sources, tmp_path / "out")
    assert {one.ended.state for one in ended.values()} == {RunState.DONE}
    out, lesion = tmp_path / "out", LABELS == LESION
    (pe,), (ser,) = made(out, "mr-dce", "pe"), made(out, "mr-dce", "ser")
    assert np.nanmedian(values(pe)[lesion]) == pytest.approx(78.5, rel=0.01)
    assert np.nanmedian(values(ser)[lesion]) == pytest.approx(1.30, rel=0.01)
    assert np.isnan(values(ser)[LABELS == WHITE]).all()
    (peak,) = made(out, "mr-time-to-peak", "peak")
    assert np.nanmedian(values(peak)[lesion]) == 120
    differences = made(out, "mr-dce", "uptake")
    assert len(differences) == 4 * HEAD.shape[0]
    (axial,) = made(out, "mr-dce", "early_axial")
    pixels = dcmread(axial).pixel_array
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert lesion.any(axis=0)[row, column]
    maps = [
        pe,
        ser,
        peak,
        axial,
        differences[0],
        differences[-1],
        *made(out, "mr-dce", "pe_colours-as-picture"),
    ]
    valid(maps, sources)


def test_shading_goes(tmp_path: Path) -> None:
    """N4 on a shaded head: valid images of the same places whose white matter is more even."""
    grid = Grid((12, 80, 80), (8.0, 3.0, 3.0))
    head = head_volume(grid, noise=4.0)
    x = grid.coordinates()[0]
    shaded = head.array * np.exp(0.4 * np.cos(x / 60)).astype(np.float32)
    sources = write_mr_series(
        tmp_path / "in", type(head)(shaded, head.affine, head.unit), series=Series("t1", description="t1 se")
    )
    assert processed("mr-n4", sources, tmp_path / "out")["mr-n4"].ended.state == RunState.DONE
    paths = made(tmp_path / "out", "mr-n4", "even")
    even = np.stack([_real(dcmread(path)) for path in paths])
    white = np.abs(head.array / (1 + 0.12 * grid.coordinates()[1] / 96) - 720) < 20
    spread = [v[white].std() / v[white].mean() for v in (shaded, even)]
    assert spread[1] < spread[0] / 2
    valid([paths[0], paths[-1]], sources)


def _real(ds: Dataset) -> np.ndarray[Any, Any]:
    return ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))


def test_an_angiography_is_projected(tmp_path: Path) -> None:
    """Three projections and a turning one of a bright vessel: in each its brightest pixel is the vessel's."""
    grid = Grid((30, 40, 40), (2.0, 2.0, 2.0))
    x, y, z = grid.coordinates()
    vessel = np.hypot(x - 20, y + 10) < 4
    array = np.where(vessel, 900.0, np.where(np.hypot(np.hypot(x, y), z) < 36, 200.0, 5.0)).astype(np.float32)
    head = head_volume(grid)
    changes = {"MRAcquisitionType": "3D", "ScanningSequence": "GR"}
    series = Series("tof", description="TOF 3D multi-slab", changes=changes)
    sources = write_mr_series(tmp_path / "in", type(head)(array, head.affine, head.unit), series=series)
    assert processed("mr-angio-mip", sources, tmp_path / "out")["mr-angio-mip"].ended.state == RunState.DONE
    paths = [
        made(tmp_path / "out", "mr-angio-mip", name)[0]
        for name in ("coronal", "sagittal", "axial", "turning")
    ]
    for path in paths[:3]:
        assert _real(dcmread(path)).max() == pytest.approx(900, rel=0.01)
    turning = dcmread(paths[3])
    assert turning.NumberOfFrames == 36
    valid(paths, sources)


def test_a_mosaic_becomes_slices(tmp_path: Path) -> None:
    """Mosaics of three directions: each tile an image at its own place, with its b-value, direction and values."""
    grid = Grid.tilted(15.0, (10, 24, 20))
    stack = diffusion_stack((0.0, 800.0), grid=Grid(grid.shape, (5.0, 8.0, 9.0), grid.row, grid.column))
    sources = write_mosaic_series(tmp_path / "in", stack)
    assert len(sources) == 4
    assert processed("mr-mosaic", sources, tmp_path / "out")["mr-mosaic"].ended.state == RunState.DONE
    paths = made(tmp_path / "out", "mr-mosaic", "single")
    images = [dcmread(path) for path in paths]
    assert [i.DiffusionBValue for i in images] == [0] * 10 + [800] * 30
    assert len({str(i.get("DiffusionGradientOrientation")) for i in images}) == 4
    assert len({i.SOPInstanceUID for i in images}) == 40
    for n, image in enumerate(images):
        volume = next(v for v in stack.volumes if _direction(v.facts) == _direction_of(image))
        k = n % 10
        assert np.abs(_real(image) - volume.array[k]).max() <= 0.5
        place = volume.origin + k * volume.affine[:3, 0]
        assert [float(v) for v in image.ImagePositionPatient] == pytest.approx(list(place), abs=1e-4)
        assert [float(v) for v in image.PixelSpacing] == [8, 9]
        assert float(image.SpacingBetweenSlices) == pytest.approx(5)
    valid([paths[0], paths[-1]], sources)


def _direction(facts: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(round(v, 4) for v in facts.get("gradient", ()))


def _direction_of(image: Dataset) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in image.get("DiffusionGradientOrientation") or ())


def test_real_diffusion_images(tmp_path: Path) -> None:
    """Siemens and Philips give a map that says how many directions it rests on; GE without weighting does not run.

    Their pixels are noise (they were made anonymous so): only what is said of them can be checked.
    """
    said = {}
    for name in ("siemens-dti-classic", "philips-enhanced-dti"):
        sources = sorted(peers.need_samples("MR", name).iterdir())
        ended = processed("mr-adc", sources, tmp_path / name)
        assert ended["mr-adc"].ended.state == RunState.DONE, ended["mr-adc"].ended.reason
        assert ended["mr-adc-fit"].ended is None
        (path,) = made(tmp_path / name, "mr-adc", "adc")
        said[name] = dcmread(path).DerivationDescription.partition("; ")[2]
        inherited = {line for source in sources for line in peers.dciodvfy(source)}
        assert not [e for e in peers.dciodvfy(path) if e not in inherited]
    assert said == {
        "siemens-dti-classic": "b 0, 1000 s/mm2; b 1000: one direction only, no trace",
        "philips-enhanced-dti": "b 0, 1300 s/mm2; b 1300: geometric mean of 3 directions, not evenly spread",
    }
    ge = processed("mr-adc", sorted(peers.need_samples("MR", "ge-dti-002").iterdir()), tmp_path / "ge")
    assert ge["mr-adc"].ended is None and "b_value" in ge["mr-adc"].judged.because


def test_a_real_breast_series(tmp_path: Path) -> None:
    """UCSF: PE and SER by their definitions on the stored values; its times are not stated, so no time to peak."""
    sources = sorted(peers.need_samples("MR", "dce-ucsf-br-06").iterdir())
    ended = processed("mr-dce", sources, tmp_path / "out")
    assert ended["mr-dce"].ended.state == RunState.DONE, ended["mr-dce"].ended.reason
    assert ended["mr-time-to-peak"].ended is None
    headers = [dcmread(path) for path in sources]
    phases = [
        np.stack([
            h.pixel_array.astype(float)
            for h in sorted(headers, key=lambda h: float(h.ImagePositionPatient[0]))
            if str(h.ContentTime) == time
        ])
        for time in ("102551", "103238", "103832")
    ]  # fmt: skip
    (pe,), (ser,) = made(tmp_path / "out", "mr-dce", "pe"), made(tmp_path / "out", "mr-dce", "ser")
    for path, expected in (
        (pe, 100 * (phases[1] - phases[0]) / np.where(phases[0] > 0, phases[0], 1)),
        (ser, (phases[1] - phases[0]) / np.where(phases[2] > phases[0], phases[2] - phases[0], np.inf)),
    ):
        found = values(path)
        where, truth = np.isfinite(found), _as_written(path, expected, headers)
        assert where.mean() > 0.02
        assert found[where] == pytest.approx(truth[where], rel=1e-5)
        inherited = {line for source in sources for line in peers.dciodvfy(source)}
        assert not [e for e in peers.dciodvfy(path) if e not in inherited]


def _as_written(path: Path, expected: np.ndarray[Any, Any], headers: list[Dataset]) -> np.ndarray[Any, Any]:
    """*expected*, whose slices ascend along x, in the order of the map's frames."""
    groups = dcmread(path).PerFrameFunctionalGroupsSequence
    x = [float(g.PlanePositionSequence[0].ImagePositionPatient[0]) for g in groups]
    known = sorted({float(h.ImagePositionPatient[0]) for h in headers})
    return expected[[int(np.argmin([abs(v - one) for v in known])) for one in x]]


def test_a_real_t1_series_is_evened(tmp_path: Path) -> None:
    """A real crop of a thigh: N4 runs (the rule asks for it), and the images stay where they were."""
    sources = sorted(
        path for path in peers.need_samples("MR", "ibsi-sts002-t1").iterdir() if path.suffix == ".dcm"
    )
    judged = processed("mr-n4", sources, tmp_path / "out")["mr-n4"]
    assert judged.ended is None or judged.ended.state == RunState.DONE


def test_segments_are_measured_in_the_coefficient(tmp_path: Path) -> None:
    """A segmentation of the lesion on one volume of the series: a valid report with its ADC, coded as ADC in um2/s."""
    stack = diffusion_stack()
    sources = written(tmp_path / "in", stack, "ep2d diff", enhanced=False)
    lesion = Code("52988006", "SCT", "Lesion")
    changed = Code("49755003", "SCT", "Morphologically Altered Structure")
    mask = Mask(LABELS == LESION, stack.volumes[0].affine, "Lesion", changed, lesion)
    seg = write_segmentation(tmp_path / "in" / "seg.dcm", sources[: HEAD.shape[0]], [mask])
    ended = processed("mr-adc-regions", [*sources, seg], tmp_path / "out")["mr-adc-regions"]
    assert ended.ended.state == RunState.DONE, ended.ended.reason
    (path,) = [ended.folder / p.path for p in ended.ended.products if p.kind == "report"]
    found = {
        (item.ConceptNameCodeSequence[0].CodeValue, child.ConceptCodeSequence[0].CodeMeaning): item
        for item in _items(dcmread(path), "NUM")
        for child in item.get("ContentSequence", ())
        if "ConceptCodeSequence" in child
    }
    measured = found["113041", "Mean"].MeasuredValueSequence[0]
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "um2/s"
    assert float(measured.NumericValue) == pytest.approx(450, rel=0.01)
    said = [item.TextValue for item in _items(dcmread(path), "TEXT")]
    assert any("b 0, 500, 1000 s/mm2" in text for text in said)
    assert peers.dciodvfy(path) == []
    assert peers.pixelmed_sr(path) == []


def _items(item: Dataset, kind: str) -> list[Dataset]:
    own = [item] if item.get("ValueType") == kind else []
    return own + [found for child in item.get("ContentSequence", ()) for found in _items(child, kind)]
