"""The ready rules of nuclear medicine, from files to gated results, on phantoms and on real scans; second opinions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pydicom
import pytest
from crash.crash_house import ROUTE_ALL, Pacs, house
from pydicom.dataset import Dataset

from node.model import RunState
from node.operator import Volume
from node.testing import (
    Grid,
    Series,
    ball_mask,
    flood_frames,
    kidney_frames,
    lung_frames,
    run_rule,
    sphere_volume,
    write_nm_image,
    write_nm_tomo,
    write_pet_series,
    write_segmentation,
)
from node.testing.nuclear import ATTENUATION, KIDNEYS, RENOGRAM, ellipse, gamma_counts

EXAMPLES = Path(__file__).parents[2] / "config" / "examples" / "rules"
BOTH = ("anterior", "posterior")
GRID = Grid((40, 48, 48), (4.0, 4.0, 4.0))
LUTETIUM = ("447553000", "SCT", "^177^Lutetium")


@dataclass(frozen=True)
class Ended:
    """What a rule made of one series."""

    state: RunState
    reason: str
    files: Mapping[str, list[Path]]
    """Output → its objects."""

    def one(self, output: str) -> Dataset:
        """The first object of an output."""
        return pydicom.dcmread(self.files[output][0])


def ended(rule: Path | str, paths: Sequence[Path], folder: Path) -> Ended:
    """Run a rule, by its name or file, on one series."""
    file = rule if isinstance(rule, Path) else EXAMPLES / f"{rule}.yaml"
    (processed,) = run_rule(file, paths, folder / "out")
    assert processed.ended is not None, processed.judged
    files: dict[str, list[Path]] = {}
    for product in processed.ended.products:
        files.setdefault(product.output, []).append(processed.folder / product.path)  # type: ignore[union-attr]
    return Ended(processed.ended.state, processed.ended.reason, files)


def named(name: str, description: str, **changes: Any) -> Series:
    """A series with a description by which rules know it."""
    return Series(name, description=description, changes=changes)


def numbers(report: Dataset) -> list[tuple[str, str, str, float]]:
    """Laterality and site, quantity, method and value of each number, in order."""
    found = []
    for item in report.iterall():
        if item.keyword != "ContentSequence":
            continue
        group = [i for i in item.value if i.get("ValueType") == "NUM"]
        sites = [i for i in item.value if i.get("ValueType") == "CODE" and meaning(i) == "Finding Site"]
        for number in group:
            below = list(number.get("ContentSequence", ()))
            method = [said(i) for i in below if meaning(i) == "Measurement Method"]
            where = [said(i) for site in sites for i in (*site.get("ContentSequence", ()), site)]
            value = float(number.MeasuredValueSequence[0].NumericValue)
            found.append((" ".join(where), meaning(number), "".join(method), value))
    return found


def meaning(item: Dataset) -> str:
    """The concept name of a content item."""
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def said(item: Dataset) -> str:
    """What a coded content item says."""
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def sentences(report: Dataset) -> str:
    """All text of a report."""
    return " ".join(str(e.value) for e in report.iterall() if e.keyword == "TextValue")


def value(report: Dataset, where: str, quantity: str, method: str = "") -> float:
    """The one number of a site."""
    (found,) = [n[3] for n in numbers(report) if (n[0], n[1]) == (where, quantity) and method in n[2]]
    return found


def assert_valid(made: Ended, sources: Sequence[Path], pixelmed: str = "") -> None:
    """Objects are right by dciodvfy, agree with their sources by dcentvfy; the report *pixelmed* by PixelMed, too."""
    assert made.state is RunState.DONE, made.reason
    files = [path for paths in made.files.values() for path in paths]
    assert [peers.dciodvfy(paths[0]) for paths in made.files.values()] == [[]] * len(made.files)
    if pixelmed:  # some ten seconds a report: once for each operator that makes one
        assert peers.pixelmed_sr(made.files[pixelmed][0]) == []
    assert peers.dcentvfy(sources[0], *files) == []


def values(ds: Dataset) -> np.ndarray[Any, Any]:
    """What its pixels mean."""
    return ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))


def test_lung_perfusion(tmp_path: Path) -> None:
    """The geometric mean leaves as a calibrated capture in counts, the split as a report: 50 %, not 46.7."""
    paths = write_nm_image(tmp_path, lung_frames(), BOTH, series=named("lungs", "LUNG PERFUSION"))
    made = ended("nm-geometric-mean", paths, tmp_path)
    assert_valid(made, paths, pixelmed="split")
    picture, report = made.one("mean"), made.one("split")
    wanted = np.sqrt(lung_frames()[0] * lung_frames()[1][:, ::-1])
    assert np.abs(values(picture) - wanted).max() < 0.02
    assert [float(v) for v in picture.PixelSpacing] == [4.8, 4.8]
    assert list(picture.PatientOrientation) == ["L", "F"]
    assert picture.BitsStored == 16
    (mapping,) = picture.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{counts}"
    half, share = "Left half of the image", "Share of counts of both sides"
    assert value(report, half, share, "Geometric mean") == pytest.approx(50, abs=0.05)
    assert value(report, half, share, "alone") == pytest.approx(46.7, abs=0.05)


def test_views_in_two_objects(tmp_path: Path) -> None:
    """Anterior and posterior as two objects of a series: one mean of both, which names both as its sources."""
    frames = lung_frames(left=0.4)
    paths = []
    for number, view in enumerate(BOTH, 1):
        series = named(
            "apart", "LUNG PERFUSION", InstanceNumber=str(number), SOPInstanceUID=f"2.25.7{number}"
        )
        paths += write_nm_image(tmp_path / view, frames[number - 1 : number], (view,), series=series)
    made = ended("nm-views-apart", paths, tmp_path)
    assert_valid(made, paths)
    sources = {item.ReferencedSOPInstanceUID for item in made.one("mean").SourceImageSequence}
    assert sources == {"2.25.71", "2.25.72"}
    share = value(
        made.one("shares"), "Left half of the image", "Share of counts of both sides", "Geometric mean"
    )
    assert share == pytest.approx(40, abs=0.05)


def test_scans_without_views_are_refused_in_words(tmp_path: Path) -> None:
    """A camera that states no views gets no geometric mean, and is told how the rule can name its frames."""
    paths = write_nm_image(tmp_path, lung_frames(), ("", ""), series=named("bare", "LUNG PERFUSION ANT POST"))
    made = ended("nm-geometric-mean", paths, tmp_path)
    assert made.state is RunState.REFUSED
    assert "states no views" in made.reason
    assert "anterior: 1, posterior: 2" in made.reason
    text = (EXAMPLES / "nm-geometric-mean.yaml").read_text(encoding="utf-8")
    rule = tmp_path / "frames-named.yaml"
    rule.write_text(
        text.replace("geometric_mean: {}", "geometric_mean: {anterior: 1, posterior: 2}").replace(
            "left_right: {}", "left_right: {anterior: 1, posterior: 2}"
        ),
        encoding="utf-8",
    )
    made = ended(rule, paths, tmp_path / "named")
    assert_valid(made, paths)
    assert list(made.one("mean").get("PatientOrientation") or []) == []


def test_renogram(tmp_path: Path) -> None:
    """Curves as a colour capture; peak, times and the relative function of each kidney as the formulas have it."""
    frames = kidney_frames(scale=0.2, seed=1)
    paths = write_nm_image(
        tmp_path, frames, ("posterior",), phases=RENOGRAM, series=named("kidneys", "RENOGRAM MAG3")
    )
    made = ended("nm-kidneys-dynamic", paths, tmp_path)
    assert_valid(made, paths, pixelmed="numbers")
    graph, report, where = made.one("curves"), made.one("numbers"), made.one("where")
    assert (where.Rows, where.Columns, where.PhotometricInterpretation) == (512, 512, "RGB")
    assert [float(v) for v in where.PixelSpacing] == [1.2, 1.2]
    assert (graph.Rows, graph.Columns, graph.PhotometricInterpretation) == (768, 1024, "RGB")
    assert graph.BurnedInAnnotation == "NO"
    areas = {
        side: float(gamma_counts(60, 120, peak, at)) * np.count_nonzero(ellipse((128, 128), box))
        for side, (box, peak, at) in KIDNEYS.items()
    }
    share = 100 * areas["left"] / sum(areas.values())
    assert value(report, "Left Kidney", "Share of counts of both sides") == pytest.approx(share, abs=1)
    to_peak = "Time from the first frame to the highest count rate"
    assert abs(value(report, "Left Kidney", to_peak) - 180) <= 30  # flat top, with noise
    assert "Region left kidney: ellipse from 211, 125" in sentences(report)
    assert "Not corrected for decay" in sentences(report)


def test_a_series_without_phases_has_no_curves(tmp_path: Path) -> None:
    """Where the phases are missing there is no time axis, and nothing is drawn."""
    series = named("undated", "RENOGRAM", PhaseInformationSequence=None)
    paths = write_nm_image(tmp_path, kidney_frames(), ("posterior",), phases=RENOGRAM, series=series)
    made = ended("nm-kidneys-dynamic", paths, tmp_path)
    assert made.state is RunState.REFUSED
    assert "does not state when its frames began" in made.reason


def test_flood(tmp_path: Path) -> None:
    """A flood with a dent of 5 % has some 3 % uniformity, and its counts; the report names pixel size and field."""
    frames = flood_frames(dent=0.05)
    paths = write_nm_image(
        tmp_path, frames, spacing=6.4, series=named("flood", "FLOOD Tc99m", BodyPartExamined=None)
    )
    made = ended("nm-flood-qa", paths, tmp_path)
    assert_valid(made, paths, pixelmed="uniformity")
    report, counts = made.one("uniformity"), made.one("counts")
    assert 2 < value(report, "Central field of view", "Integral uniformity", "NEMA NU 1-2007") < 4
    assert "Pixels of 6.4 mm, 1 x 1" in sentences(report)
    activity = "Nuclear Medicine Projection Activity"
    assert frames.sum() in [n[3] for n in numbers(counts) if n[1] == activity]


def test_sacroiliac_joints(tmp_path: Path) -> None:
    """Means of 60, 45 and 30 counts in the regions of the template give ratios of 2 and 1.5 to the sacrum."""
    back = np.full((128, 128), 5.0)
    for left, counts in ((43, 60.0), (56, 30.0), (74, 45.0)):
        back[50:72, left : left + 15] = counts
    frames = np.stack([back[:, ::-1], back])
    paths = write_nm_image(tmp_path, frames, BOTH, series=named("joints", "SI JOINTS"))
    made = ended("nm-sacroiliac-ratio", paths, tmp_path)
    assert_valid(made, paths, pixelmed="ratios")
    ratio = "Relative uptake, mean counts per pixel"
    report = made.one("ratios")
    assert value(report, "Left sacroiliac joint", ratio) == pytest.approx(2, rel=0.02)
    assert value(report, "Right sacroiliac joint", ratio) == pytest.approx(1.5, rel=0.02)


def test_counts_of_every_kind_of_planar_scan(tmp_path: Path) -> None:
    """Whole body and gated scans are counted; the whole body one has a rate, the gated one says why it has none."""
    for kind, frames, views in (
        ("WHOLE BODY", lung_frames(), BOTH),
        ("GATED", np.concatenate([lung_frames()[:1]] * 4), ("anterior",)),
    ):
        folder = tmp_path / kind.split(maxsplit=1)[0]
        paths = write_nm_image(folder, frames, views, kind=kind, series=named(kind.lower()[:5], kind))
        made = ended("nm-counts", paths, folder)
        assert_valid(made, paths, pixelmed="counts" if kind == "GATED" else "")
        report = made.one("counts")
        assert ("No count rate" in sentences(report)) == (kind == "GATED")
        assert frames.sum() in [n[3] for n in numbers(report)]


def spect() -> Volume:
    """A ball with a hot spot to the left, the front and the head."""
    ball = sphere_volume(GRID, radius=60, inside=300, outside=5)
    spot = sphere_volume(GRID, radius=20, centre=(28.0, -20.0, 24.0), inside=600, outside=0)
    return Volume(ball.array + spot.array, ball.affine, ball.unit)


def assert_rotating(made: Ended, unit: str) -> None:
    """The rotating view is dark on white, and the hot spot lies where it is in the patient."""
    rotating = made.one("rotating")
    assert (rotating.NumberOfFrames, rotating.BitsStored) == (36, 8)
    assert max(rotating.Rows, rotating.Columns) >= 512
    assert unit in rotating.ImageComments
    front = rotating.pixel_array[0, 30:-30, : rotating.Columns - 100].astype(float)  # without letters and bar
    rows, columns = np.nonzero(front < 30)
    assert rows.mean() < front.shape[0] / 2  # to the head
    assert columns.mean() > front.shape[1] / 2  # seen from the front, the patient's left is at the right


def test_spect_in_three_planes(tmp_path: Path) -> None:
    """A tomogram leaves as NM images in three planes and a rotating capture, in counts."""
    paths = write_nm_tomo(tmp_path, spect(), series=named("spect", "SPECT BONE"))
    made = ended("nm-tomo", paths, tmp_path)
    assert_valid(made, paths)
    assert_rotating(made, "counts")
    directions = {
        "axial": [1, 0, 0, 0, 1, 0],
        "coronal": [1, 0, 0, 0, 0, -1],
        "sagittal": [0, 1, 0, 0, 0, -1],
    }
    for output, cosines in directions.items():
        ds = made.one(output)
        assert ds.SOPClassUID.name == "Nuclear Medicine Image Storage"
        (head,) = ds.DetectorInformationSequence
        assert [round(float(v)) for v in head.ImageOrientationPatient] == cosines
        assert values(ds).max() == pytest.approx(900, rel=0.1)  # a slab of 10 mm through the spot


def lutetium(folder: Path, code: tuple[str, str, str] = LUTETIUM) -> list[Path]:
    """The same as quantitative SPECT, sent as PT with its nuclide."""
    source = spect()
    volume = Volume(source.array * 100, source.affine, source.unit)
    paths = write_pet_series(folder, volume, series=Series("lu", description="Lu-177 SPECT"))
    for path in paths:
        ds = pydicom.dcmread(path)
        nuclide = ds.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence[0]
        nuclide.CodeValue, nuclide.CodingSchemeDesignator, nuclide.CodeMeaning = code
        ds.save_as(path)
    return paths


def test_spect_sent_as_pet(tmp_path: Path) -> None:
    """SPECT with Modality PT keeps its unit through reformats and projection: becquerels, and never an uptake value."""
    paths = lutetium(tmp_path / "in")
    made = ended("nm-tomo", paths, tmp_path)
    assert_valid(made, paths)
    assert_rotating(made, "Bq/ml")
    ds = made.one("axial")
    assert (ds.Units, ds.SOPClassUID.name) == ("BQML", "Positron Emission Tomography Image Storage")
    assert "SUVType" not in ds
    (processed,) = run_rule(
        EXAMPLES / "nm-tomo.yaml",
        lutetium(tmp_path / "fdg", ("77004003", "SCT", "^18^Fluorine")),
        tmp_path / "other",
    )
    assert processed.ended is None


def test_regions_of_a_spect(tmp_path: Path) -> None:
    """A segmentation of the study: 90000 Bq/ml against 30000 are a ratio of 3, in a valid report that points at it."""
    paths = lutetium(tmp_path / "in")
    volume = spect()
    masks = [
        ball_mask(volume, 12, (28.0, -20.0, 24.0), label="Spot"),
        ball_mask(volume, 12, (-30.0, 20.0, -20.0), label="Reference"),
    ]
    seg = write_segmentation(tmp_path / "in" / "seg.dcm", paths, masks)
    (processed,) = run_rule(EXAMPLES / "nm-region-ratios.yaml", [*paths, seg], tmp_path / "out")
    assert processed.ended is not None, processed
    assert processed.ended.state is RunState.DONE, processed.ended.reason
    reports = [processed.folder / p.path for p in processed.ended.products if p.kind == "report"]  # type: ignore[union-attr]
    assert [peers.dciodvfy(path) for path in reports] == [[]] * len(reports)
    assert peers.pixelmed_sr(reports[0]) == []
    found = [n for path in reports for n in numbers(pydicom.dcmread(path))]
    (ratio,) = [n[3] for n in found if n[1] == "Relative uptake, mean of voxels"]
    assert ratio == pytest.approx(3, rel=1e-3)


def test_the_heart_sample_states_no_orientation_and_is_refused(tmp_path: Path) -> None:
    """The real 13-slice tomogram says nowhere how it lies in the patient: no plane is made up; the words say why."""
    path = peers.need_samples("NM", "spect-heart", "NM-MONO2-16-13x-heart")
    made = ended("nm-tomo", [path], tmp_path)
    assert made.state is RunState.REFUSED
    assert "no usable ImageOrientationPatient" in made.reason


def test_the_bone_scan_is_counted(tmp_path: Path) -> None:
    """The real capture states no unit; its pixels add up to its Counts Accumulated: 3 596 452 in 1210.434 s."""
    path = peers.need_samples("NM", "bone-scan-wg04", "NM1_J2KR")
    made = ended("nm-counts", [path], tmp_path)
    assert_valid(made, [path])
    report = made.one("counts")
    assert value(report, "Frame 1", "Count rate") == pytest.approx(3596452 / 1210.434, rel=1e-6)
    assert "add up to its Counts Accumulated (3596452)" in sentences(report)


KNEES = """
rule: knees
purpose: The share of counts of both knees of a view from the front.
owner: tests@hospital.example
when: {Modality: NM}
do:
  - left_right: {regions: "left knee: 590,145,650,190; right knee: 590,60,650,105", single_view: yes}
    as: knees
send: [{what: knees, to: PACS}]
"""
MEAN = """
rule: mean
purpose: A geometric mean of whatever comes.
owner: tests@hospital.example
when: {Modality: NM}
do: [geometric_mean: {}]
send: [{what: geometric_mean, to: PACS}]
"""


def test_the_bone_scan_has_no_second_view(tmp_path: Path) -> None:
    """No geometric mean is made of the real scan, in words; regions named by a rule are shared, with a caution."""
    path = peers.need_samples("NM", "bone-scan-wg04", "NM1_J2KR")
    rules = {name: tmp_path / f"{name}.yaml" for name in ("knees", "mean")}
    rules["knees"].write_text(KNEES)
    rules["mean"].write_text(MEAN)
    made = ended(rules["mean"], [path], tmp_path / "mean")
    assert made.state is RunState.REFUSED
    assert "states no views" in made.reason
    made = ended(rules["knees"], [path], tmp_path / "knees")
    assert_valid(made, [path])
    report = made.one("knees")
    pixels = pydicom.dcmread(path).pixel_array.astype(float)
    left, right = pixels[590:650, 145:190].sum(), pixels[590:650, 60:105].sum()
    assert value(report, "Left knee", "Share of counts of both sides") == pytest.approx(
        100 * left / (left + right)
    )
    assert "no geometric mean" in sentences(report)


def test_attenuation_is_what_separates_the_views() -> None:
    """The phantom's two depths explain the whole difference: exp(-μ · 11 mm) is 46.7 / 53.3."""
    assert np.exp(-ATTENUATION * 11) == pytest.approx(46.7 / 53.3, rel=1e-3)


def test_what_is_refused_is_routed_all_the_same(tmp_path: Path) -> None:
    """Lungs without views, and the real heart, go through a node to the PACS; their runs say why nothing was made."""
    text = {name: (EXAMPLES / f"{name}.yaml").read_text("utf-8") for name in ("nm-geometric-mean", "nm-tomo")}
    sent = write_nm_image(tmp_path / "in", lung_frames(), ("", ""), series=named("bare", "LUNG PERFUSION"))
    wanted = {"nm-geometric-mean": "states no views"}
    with contextlib.suppress(pytest.skip.Exception):
        sent.append(peers.need_samples("NM", "spect-heart", "NM-MONO2-16-13x-heart"))
        wanted["nm-tomo"] = "no usable ImageOrientationPatient"
    with house(tmp_path / "site", {**text, "all": ROUTE_ALL}) as node, Pacs(node.pacs_port).open() as pacs:
        node.start()
        for path in sent:
            peers.storescu(node.port, path, calling="CT01")
        node.wait_for(lambda: len(node.table("run")) == len(sent), "the runs")
        node.wait_idle()
        runs = {row["rule"]: row for row in node.table("run")}
        node.stop()
    assert set(pacs.held) == {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in sent}
    assert {rule: row["state"] for rule, row in runs.items()} == dict.fromkeys(wanted, "refused")
    for rule, words in wanted.items():
        assert words in runs[rule]["reason"]
