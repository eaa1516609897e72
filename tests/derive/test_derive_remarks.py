"""Reports with sentences, several segments in one object, stacks as one series; second opinions on all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from derive_material import HU, LUNG, affine, complaints, ct_headers, job, mask, numbers, volume
from peers import pixelmed_sr
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken
from node.model import Code
from node.operator import Mask, Measurement, Remark, Report, Segments, Stack

PLACE = affine((2.0, 0.7, 0.5))
SHAPE = (4, 8, 7)
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
KERNEL = Remark("Reconstructed with STANDARD in slices of 1.25 mm.", Code("113956", "DCM", "Reconstruction"))


def sources() -> Sources:
    """Four CT slices and the volume they hold."""
    return Sources(tuple(ct_headers(*SHAPE, PLACE)), value=volume(SHAPE, PLACE))


def texts(dataset: Dataset) -> dict[str, str]:
    """The text items below the qualitative evaluations of a report: concept → text."""
    found = [i for i in dataset.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.TextValue
        for container in found
        for item in container.ContentSequence
    }


def test_sentences_stand_in_the_report_with_the_notice_of_the_site(tmp_path: Path) -> None:
    """Remarks and the notice are TEXT items of the Qualitative Evaluations; dciodvfy and PixelMed agree."""
    result = Report(tuple(numbers(None)), (KERNEL,))
    given = job("stats", notice="For research use. Not for primary diagnosis.")
    (product,) = write({"stats": result}, given, sources(), tmp_path)
    made = dcmread(tmp_path / product.path)
    assert texts(made) == {
        "Reconstruction": KERNEL.text,
        "Comment": "For research use. Not for primary diagnosis.",
    }
    assert complaints(tmp_path / product.path) == set()
    assert pixelmed_sr(tmp_path / product.path) == []


def test_a_report_without_a_number_says_why(tmp_path: Path) -> None:
    """Where nothing could be measured the report has its reasons, its sources and no measurement."""
    result = Report((), (Remark("Patient Weight is absent, so no SUV was computed."),))
    (product,) = write({"stats": result}, job("stats"), sources(), tmp_path)
    made = hd.sr.srread(tmp_path / product.path)
    assert texts(made) == {"Comment": "Patient Weight is absent, so no SUV was computed."}
    concepts = [item.ConceptNameCodeSequence[0].CodeValue for item in made.ContentSequence]
    assert "126010" not in concepts
    assert concepts.index("111028") < concepts.index("C0034375")
    assert len(made.get_evidence()) == SHAPE[0]
    assert complaints(tmp_path / product.path) == set()
    assert pixelmed_sr(tmp_path / product.path) == []


def both() -> tuple[Mask, Mask]:
    """Two lungs that overlap in one voxel."""
    left = replace(mask(SHAPE, PLACE, "Left lung"), laterality=LEFT)
    other = np.zeros(SHAPE, bool)
    other[1:3, 4:7, 2:6] = True
    return left, Mask(other, PLACE, "Right lung", *LUNG, laterality=RIGHT)


def test_several_segments_leave_as_one_object(tmp_path: Path) -> None:
    """Two masks are two segments with label, laterality and voxels, also where they overlap; reports point at each."""
    left, right = both()
    results = {"body": Segments((left, right)), "stats": Report((*numbers(left), *numbers(right)))}
    products = write(results, job("body", "stats"), sources(), tmp_path)
    seg = hd.seg.segread(tmp_path / products[0].path)
    assert list(seg.segment_numbers) == [1, 2]
    described = [seg.get_segment_description(n) for n in (1, 2)]
    assert [d.segment_label for d in described] == ["Left lung", "Right lung"]
    sides = [
        d.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue
        for d in described
    ]
    assert sides == [LEFT.value, RIGHT.value]
    for number, one in ((1, left), (2, right)):
        uids = [header.SOPInstanceUID for header in sources().headers]
        found = seg.get_pixels_by_source_instance(
            uids, segment_numbers=[number], assert_missing_frames_are_empty=True
        )
        assert np.array_equal(found[..., 0].astype(bool), one.array)
    report = hd.sr.srread(tmp_path / products[1].path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    named = [group.referenced_segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber for group in groups]
    assert named == [1, 2]
    lateral = [group.finding_sites[0].laterality.value for group in groups]
    assert lateral == [LEFT.value, RIGHT.value]
    for product in products:
        assert complaints(tmp_path / product.path) == set()
    assert pixelmed_sr(tmp_path / products[1].path) == []


def test_segments_off_the_sources_grid_keep_their_own(tmp_path: Path) -> None:
    """Two masks on a coarser grid than the images are stored with its geometry, each with its voxels."""
    place = affine((4.0, 1.4, 1.0))
    shape = (2, 4, 3)
    masks = []
    for n, label in enumerate(("a", "b")):
        array = np.zeros(shape, bool)
        array[n, 1:3, n : n + 2] = True
        masks.append(Mask(array, place, label, *LUNG))
    (product,) = write({"body": Segments(tuple(masks))}, job("body"), sources(), tmp_path)
    seg = hd.seg.segread(tmp_path / product.path)
    for number, one in enumerate(masks, 1):
        found = seg.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        assert int((found.array > 0).sum()) == int(one.array.sum())
    assert complaints(tmp_path / product.path) == set()


def test_a_side_without_a_region_is_a_finding_site(tmp_path: Path) -> None:
    """Numbers of the left and of the right that have no region are two groups with site and laterality."""
    kidney = Code("64033007", "SCT", "Kidney")
    counts = Code("{counts}", "UCUM", "Counts")
    name = Code("COUNTS", "99PACSNODE", "Counts")
    result = [
        Measurement(name, value, counts, site=kidney, laterality=side)
        for side, value in ((LEFT, 47.0), (RIGHT, 53.0))
    ]
    (product,) = write({"stats": result}, job("stats"), sources(), tmp_path)
    groups = hd.sr.srread(tmp_path / product.path).content.get_image_measurement_groups()
    assert [g.finding_sites[0].laterality.value for g in groups] == [LEFT.value, RIGHT.value]
    assert [g.tracking_identifier for g in groups] == ["Left Kidney", "Right Kidney"]
    assert pixelmed_sr(tmp_path / product.path) == []


def stack_sources() -> Sources:
    """Two phases of four slices."""
    headers = [
        ct_headers(*SHAPE, PLACE, AcquisitionNumber=n, InstanceNumber=None, AcquisitionTime=f"10130{n}")
        for n in (1, 2)
    ]
    for n, phase in enumerate(headers, 1):
        for k, header in enumerate(phase, 1):
            header.SOPInstanceUID = f"1.2.3.4.{n}.{k}"
    first, second = (tuple(phase) for phase in headers)
    value = volume(SHAPE, PLACE)
    parts = (Sources(first, value=value, others=second), Sources(second, value=value, others=first))
    return Sources(first, value=value, others=second, stack=parts)


def test_a_stack_leaves_as_one_series_each_volume_of_its_own_sources(tmp_path: Path) -> None:
    """Instance numbers run on, and each image keeps the acquisition of its own volume and names its slice."""
    volumes = [replace(volume(SHAPE, PLACE), facts={"part": n}) for n in (0, 1)]
    products = write({"thick": Stack(tuple(volumes))}, job("thick"), stack_sources(), tmp_path)
    made = [dcmread(tmp_path / product.path) for product in products]
    assert [int(ds.InstanceNumber) for ds in made] == list(range(1, 9))
    assert [int(ds.AcquisitionNumber) for ds in made] == [1] * 4 + [2] * 4
    assert len({ds.SOPInstanceUID for ds in made}) == 8
    assert len({ds.SeriesInstanceUID for ds in made}) == 1
    assert made[5].SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.2.2"
    assert all(complaints(tmp_path / product.path) == set() for product in products)


def test_a_volume_of_a_stack_is_like_its_own_sources(tmp_path: Path) -> None:
    """A result that its fact `part` calls the second volume has the second phase's acquisition."""
    result = replace(volume(SHAPE, PLACE), facts={"part": 1}, unit=HU)
    (first, *_) = write({"thick": result}, job("thick"), stack_sources(), tmp_path)
    assert int(dcmread(tmp_path / first.path).AcquisitionNumber) == 2


def test_segments_on_different_grids_are_a_defect_of_the_operator(tmp_path: Path) -> None:
    """One object has one grid: named, and nothing is written."""
    left, right = both()
    moved = replace(right, affine=affine((2.0, 0.7, 0.6)))
    with pytest.raises(Broken, match="its segments lie on different grids"):
        write({"body": Segments((left, moved))}, job("body"), sources(), tmp_path)


def test_sentences_stand_once_behind_the_numbers(tmp_path: Path) -> None:
    """On a page of several, each remark is drawn once, after the rows, and does not take room from every page."""
    from node.derive.page import Column, Table, pages

    columns = (Column("Region", 2), Column("Quantity", 3), Column("Value", 1, right=True))
    rows = tuple((f"Region {n}", "Mean", f"{n}") for n in range(60))
    bare = pages(Table("Measurements", (("Study", "s"),), columns, rows, "foot"))
    said = tuple(("Comment", f"Sentence number {n} about what was left out of the region.") for n in range(8))
    told = pages(Table("Measurements", (("Study", "s"),), columns, rows, "foot", said))
    assert len(told) <= len(bare) + 1
    assert [np.array_equal(a[:1600], b[:1600]) for a, b in zip(bare[:-1], told, strict=False)] == [True] * (
        len(bare) - 1
    )
    assert (told[-1] > 100).sum() > (pages(Table("M", (), columns, (), "foot"))[0] > 100).sum()


def test_regions_of_two_reports_are_tracked_apart(tmp_path: Path) -> None:
    """The report on a segment of its own tracking and the one on the whole images share no tracking UID."""
    left, _ = both()
    whole = numbers(None)
    results = {"body": left, "stats": Report((*numbers(left), *whole))}
    products = write(results, job("body", "stats"), sources(), tmp_path)
    uids = [
        group.tracking_uid
        for product in products[1:]
        for content in [hd.sr.srread(tmp_path / product.path).content]
        for group in (
            *content.get_volumetric_roi_measurement_groups(),
            *content.get_image_measurement_groups(),
        )
    ]
    assert len(uids) == len(set(uids)) == 2
