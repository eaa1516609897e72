"""Rules that measure in the segments of a study: CT and PET with the segmentation that came with them, or is ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import peers
import pydicom
import pytest

from node.dryrun import Processed
from node.drystudy import ProcessedStudy
from node.model import Code, RunState
from node.testing import Series, ball_mask, body_volume, run_rule, write_ct_series, write_segmentation
from node.testing.phantoms import Grid

SPLEEN = Code("78961009", "SCT", "Spleen")
GRID = Grid((24, 40, 40), (4.0, 8.0, 8.0))

IN_A_REGION = """
rule: in-a-region
purpose: What the image measures in one segment of the study.
owner: radiology-it@hospital.example
scope: study
when: {}
inputs:
  image: {when: {Modality: {one_of: [CT, PT]}}}
  segments: {when: {Modality: SEG}%s}
do:
  - region: {volume: image, segments: segments, name: "%s"}
    as: part
  - statistics: {volume: image, mask: part}
    as: numbers
send:
  - {what: part, to: PACS}
  - {what: numbers, to: PACS}
"""
BODY = """
rule: body
purpose: The body as a segment.
owner: radiology-it@hospital.example
when: {Modality: CT}
do:
  - segment_body: {}
    as: body
send: [{what: body, to: PACS}]
"""


def rule(folder: Path, text: str) -> Path:
    """The text as a file."""
    path = folder / "rule.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def made(done: list[Processed | ProcessedStudy]) -> list[Path]:
    """The files of the one run, which went well."""
    (one,) = [d for d in done if d.ended is not None]
    assert one.ended is not None
    assert one.ended.state is RunState.DONE, one.ended.reason
    return [one.folder / product.path for product in one.ended.products]


def number(path: Path, meaning: str) -> float:
    """The mean that a report gives of what is called so."""
    items = [i for i in _leaves(pydicom.dcmread(path)) if i.ConceptNameCodeSequence[0].CodeMeaning == meaning]
    means = [item for item in items if "Mean" in _codes(item)]
    return float((means or items)[0].MeasuredValueSequence[0].NumericValue)


def _codes(item: pydicom.Dataset) -> list[str]:
    coded = [child for child in item.get("ContentSequence", ()) if "ConceptCodeSequence" in child]
    return [str(child.ConceptCodeSequence[0].CodeMeaning) for child in coded]


def _leaves(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    own = [item] if item.get("ValueType") == "NUM" else []
    return own + [leaf for child in item.get("ContentSequence", ()) for leaf in _leaves(child)]


def valid(paths: list[Path]) -> None:
    """In the eyes of dciodvfy and, where it is a report, PixelMed."""
    for path in paths:
        assert peers.dciodvfy(path) == []
        if pydicom.dcmread(path).Modality == "SR":
            assert peers.pixelmed_sr(path) == []


def ct_with(folder: Path) -> tuple[list[Path], Path, float]:
    """A chest, a SEG of two balls in it, and the mean in the liver's."""
    volume = body_volume(GRID)
    images = write_ct_series(folder / "ct", volume, series=Series("ct", study="s"))
    liver = ball_mask(volume, 30.0, (-50.0, -8.0, -30.0), label="Liver")
    other = ball_mask(volume, 20.0, (62.0, 0.0, 20.0), label="Ball 2", type=SPLEEN)
    seg = write_segmentation(
        folder / "seg" / "1.dcm", images, [other, liver], series=Series("seg", "s", number=9)
    )
    return images, seg, float(volume.array[liver.array].mean())


def test_a_segment_that_came_with_the_ct(tmp_path: Path) -> None:
    """The SEG is an input of a rule over the study; mean and volume are those of its voxels; all results are valid."""
    images, seg, mean = ct_with(tmp_path)
    written = rule(tmp_path, IN_A_REGION % ("", "Liver"))
    paths = made(run_rule(written, [*images, seg], tmp_path / "out"))
    kinds = {str(pydicom.dcmread(p).Modality): p for p in paths}
    assert set(kinds) == {"SEG", "SR"}
    assert number(kinds["SR"], "Attenuation Coefficient") == pytest.approx(mean, abs=1e-3)
    valid(paths)
    told = pydicom.dcmread(kinds["SEG"])
    named = {
        str(i.ReferencedSOPInstanceUID)
        for s in told.ReferencedSeriesSequence
        for i in s.ReferencedInstanceSequence
    }
    assert str(pydicom.dcmread(seg).SOPInstanceUID) in named
    assert peers.dcentvfy(*images, seg, *paths) == []


def shares(seg: Path) -> None:
    """Make probabilities of a binary SEG of whole bytes: 60 % where a voxel is in, 40 % elsewhere."""
    ds = pydicom.dcmread(seg)
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    values = np.where(bits[: int(ds.NumberOfFrames) * ds.Rows * ds.Columns] > 0, 60, 40).astype(np.uint8)
    ds.SegmentationType, ds.SegmentationFractionalType, ds.MaximumFractionalValue = (
        "FRACTIONAL",
        "PROBABILITY",
        100,
    )
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.add_new("PixelData", "OB", values.tobytes() + b"\0" * (values.size % 2))
    ds.save_as(seg)


def test_a_fractional_segmentation_is_said_to_be_one(tmp_path: Path) -> None:
    """Its voxels of at least 0.5 are measured; threshold and kind stand in the report and the event."""
    images, seg, mean = ct_with(tmp_path)
    shares(seg)
    text = IN_A_REGION % ("", "Liver")
    done = run_rule(rule(tmp_path, text), [*images, seg], tmp_path / "out")
    paths = made(done)
    said = (
        "The segmentation PHANTOM is FRACTIONAL (PROBABILITY): it holds probabilities, and voxels of at least 0.5 were "
        "taken to belong to a segment."
    )
    (ended,) = [one.ended for one in done if one.ended is not None]
    assert ended.reason == f"segments: {said}"
    (report,) = [p for p in paths if pydicom.dcmread(p).Modality == "SR"]
    assert number(report, "Attenuation Coefficient") == pytest.approx(mean, abs=1e-3)
    assert said in pydicom.dcmread(report).to_json()
    valid(paths)


def test_our_own_segments_are_inputs_where_the_rule_says_so(tmp_path: Path) -> None:
    """`ours: ok` takes the SEG that an earlier rule made; without it, it is no input, and the reason says why."""
    images, _, _ = ct_with(tmp_path)
    (body,) = made(run_rule(rule(tmp_path, BODY), images, tmp_path / "body"))
    written = rule(tmp_path, IN_A_REGION % (", ours: ok", "Body"))
    paths = made(run_rule(written, [*images, body], tmp_path / "out"))
    assert len(paths) == 2
    valid(paths)
    ours, theirs = (
        np.unpackbits(np.frombuffer(pydicom.dcmread(p).PixelData, np.uint8)).sum() for p in (paths[0], body)
    )
    assert ours == theirs > 0
    (refused,) = run_rule(rule(tmp_path, IN_A_REGION % ("", "Body")), [*images, body], tmp_path / "no")
    assert refused.ended is None
    assert isinstance(refused, ProcessedStudy)
    assert "ours: ok" in refused.judged.because


def test_several_segmentations_in_one_series_say_what_to_do(tmp_path: Path) -> None:
    """Which one is meant nobody guesses: the run is refused and names `use`; with it, the run goes well."""
    images, seg, mean = ct_with(tmp_path)
    second = pydicom.dcmread(seg)
    second.SOPInstanceUID += ".2"
    second.file_meta.MediaStorageSOPInstanceUID += ".2"
    second.InstanceNumber, second.ContentLabel = 2, "OTHER"
    second.save_as(tmp_path / "seg" / "2.dcm")
    files = [*images, seg, tmp_path / "seg" / "2.dcm"]
    (done,) = run_rule(rule(tmp_path, IN_A_REGION % ("", "Liver")), files, tmp_path / "out")
    assert done.ended is not None
    assert done.ended.state is RunState.REFUSED
    assert (
        "segments: it holds 2 objects, and one Segments is needed; narrow it with use:" in done.ended.reason
    )
    narrowed = IN_A_REGION % (", use: {ContentLabel: PHANTOM}", "Liver")
    paths = made(run_rule(rule(tmp_path, narrowed), files, tmp_path / "again"))
    assert number(paths[-1], "Attenuation Coefficient") == pytest.approx(mean, abs=1e-3)


def test_a_real_pet_and_its_segmentation(tmp_path: Path) -> None:
    """QIN-HEADNECK: the mean activity in the primary tumour as numpy has it of highdicom's mask."""
    files = sorted(peers.need_samples("PET", "qin-headneck-0139").glob("*.dcm"))
    paths = made(run_rule(rule(tmp_path, IN_A_REGION % ("", "Neoplasm, Primary")), files, tmp_path / "out"))
    (report,) = [p for p in paths if pydicom.dcmread(p).Modality == "SR"]
    assert peers.pixelmed_sr(report) == []
    assert number(report, "Nuclear Medicine Tomographic Activity") == pytest.approx(
        _independent(files), rel=1e-5
    )
    assert number(report, "Volume") == pytest.approx(1697 * 3.394026683**2 * 2.0249, rel=1e-4)


def _independent(files: list[Path]) -> float:
    """Mean in the first segment: highdicom's mask, pixels by pydicom, matched by position."""
    import highdicom as hd

    images = {}
    for path in files:
        ds = pydicom.dcmread(path)
        if ds.Modality == "PT":
            values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
            images[round(float(ds.ImagePositionPatient[2]), 1)] = values
    segment = hd.seg.segread(next(p for p in files if p.name == "mask.dcm")).get_volume(
        segment_numbers=[1], combine_segments=True
    )
    values = []
    for k in range(segment.shape[0]):
        inside = segment.array[k] > 0
        if inside.any():
            z = (segment.affine @ [k, 0, 0, 1])[2]
            values.append(images[min(images, key=lambda at: abs(at - z))][inside])
    return float(np.concatenate(values).mean())


EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "rules" / "first-order.yaml"


def test_first_order_of_every_segment(tmp_path: Path) -> None:
    """The shipped rule on the phantom: one report that points at the received segments, valid, with their means."""
    images, seg, mean = ct_with(tmp_path)
    (report,) = made(run_rule(EXAMPLE, [*images, seg], tmp_path / "out"))
    valid([report])
    assert peers.dcentvfy(*images, seg, report) == []
    told = pydicom.dcmread(report)
    groups = [item for item in _items(told) if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    pointed = [
        (
            str(part.ReferencedSOPSequence[0].ReferencedSOPInstanceUID),
            part.ReferencedSOPSequence[0].ReferencedSegmentNumber,
        )
        for group in groups
        for part in group.ContentSequence
        if part.ConceptNameCodeSequence[0].CodeValue == "121191"
    ]
    uid = str(pydicom.dcmread(seg).SOPInstanceUID)
    assert pointed == [(uid, 1), (uid, 2)]
    means = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in _leaves(told)
        if item.ConceptNameCodeSequence[0].CodeValue == "Q4LE"
    ]
    assert len(means) == 2
    assert means[1] == pytest.approx(mean, abs=1e-3)


def _items(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    found = list(item.get("ContentSequence", ()))
    return found + [deeper for child in found for deeper in _items(child)]


def test_first_order_of_a_real_pet(tmp_path: Path) -> None:
    """QIN-HEADNECK: 11 segments, 18 features each; the mean of the first as numpy has it of highdicom's mask."""
    files = sorted(peers.need_samples("PET", "qin-headneck-0139").glob("*.dcm"))
    (report,) = made(run_rule(EXAMPLE, files, tmp_path / "out"))
    assert set(peers.dciodvfy(report)) <= set(peers.dciodvfy(files[0]))
    numbers = [
        i
        for i in _leaves(pydicom.dcmread(report))
        if i.ConceptNameCodeSequence[0].CodingSchemeDesignator == "IBSI"
    ]
    assert len(numbers) == 11 * 18
    assert float(numbers[0].MeasuredValueSequence[0].NumericValue) == pytest.approx(
        _independent(files), rel=1e-5
    )


def test_dcmqi_reads_the_report(tmp_path: Path) -> None:
    """tid1500reader lists both groups with the segment numbers of the received object."""
    images, seg, _ = ct_with(tmp_path)
    (report,) = made(run_rule(EXAMPLE, [*images, seg], tmp_path / "out"))
    out = tmp_path / "report.json"
    command = [peers.dcmqi("tid1500reader"), "--inputDICOM", str(report), "--outputMetadata", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    groups = json.loads(out.read_text())["Measurements"]
    assert [group["ReferencedSegment"] for group in groups] == [1, 2]
    assert {group["segmentationSOPInstanceUID"] for group in groups} == {
        str(pydicom.dcmread(seg).SOPInstanceUID)
    }
    assert all(len(group["measurementItems"]) == 19 for group in groups)
