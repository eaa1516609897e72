"""The example rules for CT on phantoms and real images: results are judged by peers, refusals by their words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from scipy import ndimage

from node.model import Code, Exit, RunState
from node.operator import Volume
from node.testing import (
    Chest,
    Grid,
    Series,
    ball_mask,
    chest_volume,
    run_rule,
    write_ct_series,
    write_segmentation,
)

EXAMPLES = Path(__file__).parents[2] / "config" / "examples" / "rules"
THIN = Grid(shape=(122, 70, 86), spacing=(1.5, 4.0, 4.0))
CHEST = Chest(lung=(48.0, 70.0, 85.0), diseased=(0.3, 0.6), field=168.0)
NATIVE: Mapping[str, Any] = {"ContrastBolusAgent": None, "SeriesDescription": "Chest native"}
HEART = Code("80891009", "SCT", "Heart")


def example(name: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """An example rule, with some of its words replaced."""
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.yaml"
    path.write_text(text.partition("\ntry:")[0], encoding="utf-8")  # its cases are the business of `check`
    return path


def ended(rule: Path, paths: list[Path], out: Path) -> Exit:
    """How the one run of the rule ended."""
    done = run_rule(rule, paths, out)
    (one,) = [d for d in done if d.ended is not None] or done
    assert one.ended is not None, one.judged.because
    return one.ended


def files(out: Path, name: str) -> list[Path]:
    """The objects of one result, in order."""
    return sorted(out.rglob(f"{name}/*.dcm"))


def found(run: Exit) -> dict[tuple[str, str], float]:
    """(region, quantity) → value, as the run tells them; a derivation such as Mean is named with its quantity."""

    def name(m: Mapping[str, Any]) -> str:
        coded = [str(m["name"]), str(m.get("derivation") or "")]
        return " ".join(text.split("^")[-1] for text in coded if text)

    return {(str(m["region"]), name(m)): float(m["value"]) for m in run.measurements}


def scout_and_dose_page(folder: Path, like: Path) -> list[Path]:
    """A localizer and a screenshot of the dose page, in the series of *like*."""
    scout = pydicom.dcmread(like)
    scout.SOPInstanceUID = generate_uid(entropy_srcs=["scout"])
    scout.file_meta.MediaStorageSOPInstanceUID = scout.SOPInstanceUID
    scout.ImageType, scout.InstanceNumber = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "998"
    scout.ImageOrientationPatient, scout.SliceThickness = [1, 0, 0, 0, 0, -1], "500"
    scout.FrameOfReferenceUID = generate_uid(entropy_srcs=["scout's frame"])
    page = pydicom.dcmread(like)
    page.SOPClassUID = page.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    page.SOPInstanceUID = generate_uid(entropy_srcs=["page"])
    page.file_meta.MediaStorageSOPInstanceUID = page.SOPInstanceUID
    page.ImageType, page.InstanceNumber = ["DERIVED", "SECONDARY", "SCREEN SAVE"], "999"
    page.ConversionType = "WSD"
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"):
        delattr(page, keyword)
    paths = [folder / "scout.dcm", folder / "page.dcm"]
    for ds, path in zip((scout, page), paths, strict=True):
        ds.save_as(path)
    return paths


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, list[Path]]:
    """A thin native chest with padding outside the field of view, a scout and a dose page in its series."""
    folder = tmp_path_factory.mktemp("chest")
    volume = chest_volume(THIN, CHEST, noise=10)
    images = write_ct_series(folder, volume, series=Series("chest", "ct-study", number=4, changes=NATIVE))
    return volume, [*images, *scout_and_dose_page(folder, images[0])]


def sources(ds: Dataset) -> set[str]:
    """What it says it was made from."""
    return {str(item.ReferencedSOPInstanceUID) for item in ds.SourceImageSequence}


def test_slabs_in_three_planes(chest: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    """One rule, three series: means over 5 mm; scout and dose page are named by none, and counted in the event.

    The middle coronal slab is the mean of the phantom's rows there; sizes and directions are those asked for.
    """
    volume, paths = chest
    run = ended(example("ct-mpr", tmp_path), paths, tmp_path / "out")
    assert run.state is RunState.DONE, run.reason
    others = {str(pydicom.dcmread(p).SOPInstanceUID) for p in paths if not p.stem.isdigit()}
    shown = {
        "axial": [1, 0, 0, 0, 1, 0],
        "coronal": [1, 0, 0, 0, 0, -1],
        "sagittal": [0, 1, 0, 0, 0, -1],
    }
    for plane, directions in shown.items():
        made = [pydicom.dcmread(p) for p in files(tmp_path / "out", plane)]
        assert [float(v) for v in made[0].ImageOrientationPatient] == directions
        assert {float(ds.SliceThickness) for ds in made} == {5.0}
        assert {tuple(ds.ImageType) for ds in made} == {("DERIVED", "SECONDARY", "AXIAL", "MPR")}
        assert not any(sources(ds) & others for ds in made)
        assert peers.dciodvfy(files(tmp_path / "out", plane)[len(made) // 2]) == []
    axial = [pydicom.dcmread(p) for p in files(tmp_path / "out", "axial")]
    k = len(axial) // 2
    place = float(axial[k].ImagePositionPatient[2])
    edges = volume.origin[2] + (np.arange(123) - 0.5) * 1.5
    weights = np.clip(np.minimum(edges[1:], place + 2.5) - np.maximum(edges[:-1], place - 2.5), 0, None)
    wanted = np.einsum("kji,k->ji", volume.array, weights / weights.sum())
    stored = axial[k].pixel_array * float(axial[k].RescaleSlope) + float(axial[k].RescaleIntercept)
    inside = np.ones(wanted.shape, bool) if volume.valid is None else volume.valid.all(axis=0)
    assert np.abs(stored - wanted)[inside].max() <= 0.5 + 1e-3


def _middle_of_the_spine(frame: np.ndarray) -> float:
    """Pixels to the right of the frame's middle, in rows without letters; nothing is as bright as the spine."""
    rows = frame[frame.shape[0] // 4 : frame.shape[0] // 3].astype(float).mean(axis=0)
    return float(np.flatnonzero(rows >= 0.9 * rows.max()).mean()) - (frame.shape[1] - 1) / 2


def test_a_rotating_projection(chest: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    """36 frames around the patient: the spine, 85 mm behind, stands in the middle of frames 1 and 19.

    In frame 10, seen from the patient's left, the back lies to the right, in frame 28 to the left.
    """
    _, paths = chest
    rule = example("ct-rotating-mip", tmp_path, ("*CTA*", "*native*"), ("spacing: 1 mm", "spacing: 4 mm"))
    run = ended(rule, paths, tmp_path / "out")
    assert run.state is RunState.DONE, run.reason
    (path,) = files(tmp_path / "out", "rotating")
    ds = pydicom.dcmread(path)
    assert ds.NumberOfFrames == 36
    assert peers.dciodvfy(path) == []
    frames = ds.pixel_array
    assert max(frames.shape[1:]) >= 512
    pixel = float(ds.PixelSpacing[1])
    places = [_middle_of_the_spine(frame) * pixel for frame in frames]
    assert [places[n] for n in (0, 18)] == pytest.approx([0, 0], abs=4)
    assert places[9] == pytest.approx(85, abs=6)
    assert places[27] == pytest.approx(-85, abs=6)
    assert len(sources(ds)) == 122


CHILD = Chest(
    body=(90.0, 65.0),
    lung=(26.0, 34.0, 27.0),
    apart=32,
    trachea=4,
    vessel=2,
    diseased=(0.3, 0.6),
    field=100.0,
)
"""So small that the report names few images."""
CHILD_GRID = Grid(shape=(44, 90, 90), spacing=(1.5, 2.5, 2.5))


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exit, Path, list[Path]]:
    """The rule ct-lungs on a small child, run once: how it ended, what came of it, and the images."""
    folder = tmp_path_factory.mktemp("lungs")
    volume = chest_volume(CHILD_GRID, CHILD, noise=10)
    paths = write_ct_series(folder / "in", volume, series=Series("child", changes=NATIVE))
    small = (
        ("slices: {at_least: 120}", "slices: {at_least: 40}"),
        ("segment_lungs: {}", "segment_lungs: {at_least: 50 ml}"),
    )
    return ended(example("ct-lungs", folder, *small), paths, folder / "out"), folder / "out", paths


def test_emphysema_of_the_phantom(lungs: tuple[Exit, Path, list[Path]]) -> None:
    """LAA-950 of each lung is its cap's share, volumes are 4/3·π·abc, of both together and of each."""
    run, _, _ = lungs
    assert run.state is RunState.DONE, run.reason
    numbers = found(run)
    laa = {where: v for (where, name), v in numbers.items() if "LAA-950" in name}
    assert laa["Left lung"] == pytest.approx(100 * CHILD.emphysema_share(0), abs=2.0)
    assert laa["Right lung"] == pytest.approx(100 * CHILD.emphysema_share(1), abs=2.0)
    assert len(laa) == 3
    volume = {where: v for (where, name), v in numbers.items() if name == "Volume"}
    assert volume["Left lung"] == pytest.approx(CHILD.lung_millilitres, rel=0.03)


def test_what_leaves_is_valid(lungs: tuple[Exit, Path, list[Path]]) -> None:
    """One SEG of two segments with their sides, reports that PixelMed and dciodvfy accept, a table and a graph."""
    _, out, used = lungs
    (seg,) = files(out, "lungs")
    described = pydicom.dcmread(seg).SegmentSequence
    kinds = [s.SegmentedPropertyTypeCodeSequence[0] for s in described]
    sides = [kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning for kind in kinds]
    assert [str(s.SegmentLabel) for s in described] == ["Left lung", "Right lung"]
    assert sides == ["Left", "Right"]
    reports = files(out, "emphysema")
    drawn = ("lungs-as-picture", "emphysema-as-picture", "histogram")
    pictures = [path for name in drawn for path in files(out, name)]
    assert len(pictures) == 3
    for path in (seg, *reports, *pictures):
        assert peers.dciodvfy(path) == []
    for path in reports:
        assert peers.pixelmed_sr(path) == []
        (scheme,) = pydicom.dcmread(path).CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == "99PACSNODE"
    before = set(peers.dcentvfy(*used))
    assert [line for line in peers.dcentvfy(*used, seg, *reports) if line not in before] == []


def test_other_readers_see_two_lungs(lungs: tuple[Exit, Path, list[Path]], tmp_path: Path) -> None:
    """dcmqi, on which 3D Slicer builds, reads two segments of the same size as ours, and the numbers of the report."""
    run, out, _ = lungs
    (seg,) = files(out, "lungs")
    _dcmqi("segimage2itkimage", "--inputDICOM", seg, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    volumes = {where: v for (where, name), v in found(run).items() if name == "Volume"}
    for number, side in ((1, "Left lung"), (2, "Right lung")):
        image = SimpleITK.ReadImage(str(tmp_path / f"{number}.nrrd"))
        voxels = np.count_nonzero(SimpleITK.GetArrayFromImage(image))
        assert voxels * np.prod(image.GetSpacing()) / 1000 == pytest.approx(volumes[side], rel=1e-6)
    of_regions = next(
        p for p in files(out, "emphysema") if "Referenced Segment Number" in str(pydicom.dcmread(p))
    )
    told = tmp_path / "numbers.json"
    _dcmqi("tid1500reader", "--inputDICOM", of_regions, "--outputMetadata", told)
    groups = json.loads(told.read_text(encoding="utf-8"))["Measurements"]
    read = {
        item["quantity"]["CodeMeaning"]: float(item["value"])
        for group in groups
        if group["TrackingIdentifier"] == "Left lung"
        for item in group["measurementItems"]
    }
    ours = {name: v for (where, name), v in found(run).items() if where == "Left lung"}
    assert read["Volume"] == pytest.approx(ours["Volume"], rel=1e-6)
    (laa,) = [v for name, v in ours.items() if "LAA-950" in name]
    assert [v for name, v in read.items() if "LAA-950" in name] == [pytest.approx(laa, rel=1e-5)]


def _dcmqi(program: str, *arguments: object) -> None:
    done = subprocess.run(
        [peers.dcmqi(program), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_how_it_was_made_stands_in_every_report(lungs: tuple[Exit, Path, list[Path]]) -> None:
    """Kernel, slice thickness, voltage, no contrast: as text of the report."""
    _, out, _ = lungs
    for path in files(out, "emphysema"):
        said = " ".join(_texts(pydicom.dcmread(path)))
        for words in ("kernel STANDARD", "Slice thickness 1.5 mm", "120 kV", "No contrast agent"):
            assert words in said


def _texts(item: Dataset) -> list[str]:
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence", ()) for text in _texts(child)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ConvolutionKernel": "B30f", "ContrastBolusAgent": ""}, "whether contrast was given is unknown"),
        ({"SliceThickness": "1.0"}, "slices of 1 mm every 1.5 mm leave gaps"),
        ({"ConvolutionKernel": "SOFTEN"}, ""),
    ],
    ids=["contrast unknown", "gaps", "smooth"],
)
def test_what_the_rule_lets_pass_the_operator_judges(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Refusals of real runs say what is missing; without words the run is done."""
    coarse = Grid(shape=(140, 56, 72), spacing=(1.5, 5.0, 5.0))
    small = Chest(lung=(48, 70, 90))
    paths = write_ct_series(
        tmp_path / "in", chest_volume(coarse, small), series=Series("x", changes={**NATIVE, **changed})
    )
    rule = example(
        "ct-lungs", tmp_path,
        ("  any_of: [{ContrastBolusAgent: absent}, {ContrastBolusAgent: {one_of: [NONE, \"NO\"]}}]\n", ""),
    )  # fmt: skip
    run = ended(rule, paths, tmp_path / "out")
    assert run.state is (RunState.REFUSED if words else RunState.DONE), run.reason
    assert words in run.reason


def test_calcium_in_the_outlined_heart(tmp_path: Path) -> None:
    """A SEG called Heart and four known balls of 4 x 4 x 6 mm: the score is the one worked out by hand.

    16 mm² in 2 slices with weights 1, 2, 3 and 4 are 320; what lies outside the heart does not count.
    """
    grid = Grid(shape=(24, 60, 60), spacing=(3.0, 2.0, 2.0))
    array = np.full(grid.shape, 40.0, np.float32)
    for number, peak in enumerate((150, 250, 350, 450)):
        array[10:12, 29:31, 22 + 4 * number : 24 + 4 * number] = peak
    array[4:8, 4:10, 4:10] = 900  # a rib
    volume = Volume(array, grid.affine, Code("[hnsf'U]", "UCUM", "Hounsfield unit"))
    changes = {**NATIVE, "SliceThickness": "3"}
    ct = write_ct_series(tmp_path / "ct", volume, series=Series("ca", "heart", number=2, changes=changes))
    heart = ball_mask(volume, 30.0, (0.0, 0.0, 0.0), label="Heart", type=HEART)
    seg = write_segmentation(tmp_path / "seg" / "1.dcm", ct, [heart], series=Series("seg", "heart", number=9))
    run = ended(example("ct-calcium", tmp_path), [*ct, seg], tmp_path / "out")
    assert run.state is RunState.DONE, run.reason
    assert found(run) == pytest.approx(
        {("Heart", "Calcium score"): 320, ("Heart", "Calcium Volume"): 4 * 16 * 6}
    )
    (report,) = files(tmp_path / "out", "calcium")
    assert peers.dciodvfy(report) == []
    assert peers.pixelmed_sr(report) == []
    said = " ".join(_texts(pydicom.dcmread(report)))
    assert "Candidate calcium in Heart" in said
    assert "No mass" in said


def test_named_regions_of_a_segmentation(tmp_path: Path) -> None:
    """Mean CT number of each region under its name, and one graph; both valid."""
    grid = Grid(shape=(30, 60, 60), spacing=(4.0, 5.0, 5.0))
    volume = chest_volume(grid, Chest(lung=(40, 60, 50)))
    ct = write_ct_series(tmp_path / "ct", volume, series=Series("ct", "regions", number=2, changes=NATIVE))
    masks = [
        ball_mask(volume, 20.0, (62.0, 0.0, 0.0), label="In the lung", type=Code("39607008", "SCT", "Lung")),
        ball_mask(
            volume, 12.0, (0.0, -70.0, 0.0), label="In the wall", type=Code("78904004", "SCT", "Chest wall")
        ),
    ]
    seg = write_segmentation(tmp_path / "seg" / "1.dcm", ct, masks, series=Series("seg", "regions", number=9))
    run = ended(example("ct-regions", tmp_path), [*ct, seg], tmp_path / "out")
    assert run.state is RunState.DONE, run.reason
    numbers = found(run)
    for mask in masks:
        values = volume.array[mask.array]
        mean = next(v for (where, name), v in numbers.items() if where == mask.label and "Mean" in name)
        assert mean == pytest.approx(float(values.mean()), abs=1e-3)
    for path in (*files(tmp_path / "out", "regions"), *files(tmp_path / "out", "histogram")):
        assert peers.dciodvfy(path) == []
        if pydicom.dcmread(path).Modality == "SR":
            assert peers.pixelmed_sr(path) == []


RULES = ("ct-mpr", "ct-rotating-mip", "ct-lungs")


def thin(folder: Path, sample: str, **changes: Any) -> list[Path]:
    """A real series under the header of a thin native chest, so that a rule takes it; its geometry is its own."""
    folder.mkdir()
    paths = []
    for number, path in enumerate(sorted(peers.need_samples("CT", sample).glob("*"))):
        ds = pydicom.dcmread(path)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.BodyPartExamined, ds.ConvolutionKernel = "CHEST", "B31f"
        ds.SeriesDescription = "CTA"
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        paths.append(folder / f"{number}.dcm")
        ds.save_as(paths[-1])
    return paths


def short(name: str, folder: Path) -> Path:
    """The rule for four slices."""
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8").partition("\ntry:")[0]
    lines = [line for line in text.splitlines() if "slices:" not in line and "SliceThickness:" not in line]
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", RULES)
def test_a_gap_in_a_real_stack_is_refused(name: str, tmp_path: Path) -> None:
    """A missing slice: no rule makes images or numbers of it, and the reason says where the gap is.

    Such a series counts as incomplete. A rule that takes incomplete ones is refused by the geometry.
    """
    paths = thin(tmp_path / "in", "slice-increment-error", SliceThickness="1.5")
    (barred,) = run_rule(short(name, tmp_path), paths, tmp_path / "out")
    assert barred.ended is None
    assert "1 gap of up to 10 mm where slices lie 5 mm apart" in barred.judged.because
    rule = short(name, tmp_path)
    rule.write_text(rule.read_text(encoding="utf-8") + "\nincomplete: ok\n", encoding="utf-8")
    run = ended(rule, paths, tmp_path / "out")
    assert run.state is RunState.REFUSED
    assert "10 mm between slices 3 and 4 of 4" in run.reason
    assert "missing" in run.reason


def at_true_positions(paths: list[Path], made: Dataset, *, tilted: bool) -> tuple[np.ndarray, np.ndarray]:
    """What an axial slab should show by the sources' own headers, along z through the slab; and where it is known.

    Trilinear in the sheared grid of the tilted stack itself, or, with *tilted* off, as if it were not.
    """
    slices = sorted(map(pydicom.dcmread, paths), key=lambda ds: float(ds.ImagePositionPatient[2]))
    first = slices[0]
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    step = np.array(slices[1].ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)
    normal = np.cross(row, column)
    step = step if tilted else normal * (step @ normal)
    matrix = np.column_stack([step, column * first.PixelSpacing[0], row * first.PixelSpacing[1]])
    array = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
    rows, columns = np.indices((made.Rows, made.Columns))
    spacing, total, known = float(made.PixelSpacing[0]), 0.0, True
    for up in np.linspace(-2.25, 2.25, 10):
        place = np.array(made.ImagePositionPatient, float)[:, None] + np.array(
            [columns.ravel() * spacing, rows.ravel() * spacing, np.full(rows.size, up)]
        )
        index = np.linalg.solve(matrix, place - np.array(first.ImagePositionPatient, float)[:, None])
        known = known & ((index >= 0) & (index <= np.array(array.shape)[:, None] - 1)).all(axis=0)
        total = total + ndimage.map_coordinates(array, index, order=1, mode="nearest")
    return (total / 10).reshape(rows.shape), np.reshape(known, rows.shape)


def test_a_tilted_gantry_is_straightened(tmp_path: Path) -> None:
    """Slabs of the real tilted stack lie at true positions: within noise they show what the sheared sources hold there.

    If the 14° were ignored they would differ three times as much. Lungs are not found in four slices of a head.
    """
    paths = thin(tmp_path / "in", "siemens-gantry-tilt", SliceThickness="5")
    run = ended(short("ct-mpr", tmp_path), paths, tmp_path / "out")
    assert run.state is RunState.DONE, run.reason
    assert files(tmp_path / "out", "coronal")
    assert files(tmp_path / "out", "sagittal")
    axial = files(tmp_path / "out", "axial")
    made = pydicom.dcmread(axial[len(axial) // 2])
    stored = made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)
    apart = {}
    for tilted in (True, False):
        wanted, known = at_true_positions(paths, made, tilted=tilted)
        assert known.mean() > 0.1
        smooth = ndimage.gaussian_filter(np.where(known, stored - wanted, 0), 3)  # over the noise of a pixel
        apart[tilted] = float(np.abs(smooth[ndimage.binary_erosion(known, iterations=6)]).mean())
    assert apart[True] < 2.0
    assert apart[True] < apart[False] / 3
    lungs_ = ended(short("ct-lungs", tmp_path), paths, tmp_path / "lungs")
    assert lungs_.state is RunState.REFUSED
    assert "lungs" in lungs_.reason
