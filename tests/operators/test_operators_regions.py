"""Statistics and histograms of the named regions of a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from node.measured import lacking
from node.operator import Code, Mask, Refused, Report, Segments, StoredSegment, Volume, affine_of
from node.operators import graphs
from node.operators.codes import ANATOMY
from node.operators.components import connected_component
from node.operators.ct.calcium import calcium_score
from node.operators.first_order import first_order, first_order_segments
from node.operators.histogram import histogram
from node.operators.nm.regional import uptake_ratios
from node.operators.pet.reference import reference_uptake
from node.operators.pet.uptake import uptake, uptake_segments
from node.operators.region import region
from node.operators.regions import region_statistics
from node.operators.statistics import statistics
from node.testing import HOUNSFIELD, run_operator

AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
FACTS = {"modality": "CT", "frame_of_reference": "1.2.3"}
AFFINE = affine_of(np.zeros(3), AXIAL, np.array([2.0, 1.0, 1.0]))


def volume() -> Volume:
    """Columns 0 to 9 hold 0, 10 … 90 HU."""
    array = np.broadcast_to(np.arange(10) * 10.0, (3, 4, 10)).astype(np.float32)
    return Volume(array, AFFINE, HOUNSFIELD, facts=FACTS)


def column(number: int, label: str, wide: int = 1) -> Mask:
    """All voxels of some columns."""
    inside = np.zeros((3, 4, 10), bool)
    inside[:, :, number : number + wide] = True
    return Mask(inside, AFFINE, label, ANATOMY, Code("10200004", "SCT", "Liver"))


def segments(*masks: Mask) -> Segments:
    """A segmentation in the volume's frame of reference."""
    return Segments(masks, {"frame_of_reference": "1.2.3"})


def test_every_region_is_measured_under_its_name() -> None:
    """Mean, spread, median and volume of each; the masks are those of the segmentation, so a report points at them."""
    made = segments(column(2, "Liver"), column(5, "Spleen", 3))
    report = run_operator(region_statistics, volume(), made)
    assert isinstance(report, Report)
    found = {
        (m.region.label, (m.derivation or m.name).meaning): m.value for m in report.measurements if m.region
    }
    assert found["Liver", "Mean"] == found["Liver", "Median"] == 20
    assert found["Liver", "Volume"] == 24
    assert (found["Spleen", "Mean"], found["Spleen", "Minimum"], found["Spleen", "Maximum"]) == (60, 50, 70)
    assert found["Spleen", "Standard Deviation"] == pytest.approx(np.sqrt(200 / 3))
    direct = region_statistics(volume(), made)
    assert {id(m.region) for m in direct.measurements} == {id(mask) for mask in made.masks}
    assert report.remarks == ()


@pytest.mark.parametrize("operator", [region_statistics, first_order_segments])
def test_segments_of_one_label_are_told_apart_by_number(
    operator: Callable[[Volume, Segments], Report],
) -> None:
    """Two nodes and a liver: Node 1, Liver and Node 3, in numbers and in sentences."""
    nodes = column(2, "Node"), replace(column(7, "Node"), array=np.zeros((3, 4, 10), bool))
    report = run_operator(operator, volume(), segments(nodes[0], column(4, "Liver"), nodes[1]))
    assert list(dict.fromkeys(m.region.label for m in report.measurements)) == ["Node 1", "Liver"]
    assert any("Node 3" in remark.text and remark.missing for remark in report.remarks)


def test_an_empty_region_is_told() -> None:
    """It has no numbers, and a sentence says so; if all are empty there is no report."""
    empty = replace(column(0, "Kidney"), array=np.zeros((3, 4, 10), bool))
    report = run_operator(region_statistics, volume(), segments(empty, column(1, "Liver")))
    assert [remark.text for remark in report.remarks] == [
        "Nothing was measured in Kidney: the region Kidney is empty."
    ]
    assert {m.region.label for m in report.measurements if m.region} == {"Liver"}
    with pytest.raises(Refused, match=r"could be measured\. Nothing was measured in Kidney"):
        run_operator(region_statistics, volume(), segments(empty))
    with pytest.raises(Refused, match="holds no segment"):
        run_operator(region_statistics, volume(), segments())


def test_a_segmentation_of_half_the_stack_is_brought_onto_it() -> None:
    """Masks of the last two slices only are measured where they lie."""
    mask = column(4, "Liver")
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, 0]
    part = replace(mask, array=mask.array[1:], affine=affine)
    report = run_operator(region_statistics, volume(), segments(part))
    assert [m.value for m in report.measurements][:2] == [16.0, 40.0]
    (kept,) = {m.region for m in report.measurements}
    assert kept is not None
    assert kept.array.shape == (2, 4, 1)  # no larger than it must be: a segmentation may have a hundred
    assert (kept.affine @ [0, 0, 0, 1])[:3].tolist() == (AFFINE @ [1, 0, 4, 1])[:3].tolist()


COUNTS = Code("{counts}", "UCUM", "Counts")
BECQUEREL = Code("Bq/ml", "UCUM", "Becquerels/milliliter")
MEASURED = [
    (region_statistics, HOUNSFIELD),
    (first_order_segments, HOUNSFIELD),
    (uptake_segments, BECQUEREL),
    (partial(uptake_ratios, reference="Pool"), COUNTS),
]


@pytest.mark.parametrize(("operator", "unit"), MEASURED)
def test_what_is_brought_onto_the_grid_is_kept_no_larger_than_it_is(
    operator: Callable[[Volume, Segments], Report], unit: Code
) -> None:
    """A hundred small segments on another grid are not a hundred whole volumes until the report is written."""
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, 0]
    masks = [column(4, "Liver"), column(7, "Pool")]
    made = segments(*(replace(mask, array=mask.array[1:], affine=affine) for mask in masks))
    report = operator(replace(volume(), unit=unit), made)
    regions = [m.region for m in report.measurements if m.region]
    assert {one.label for one in regions} == {"Liver", "Pool"}
    assert {one.array.shape for one in regions} == {(2, 4, 1)}
    for one in regions:
        first = [1, 0, 4 if one.label == "Liver" else 7, 1]
        assert (one.affine @ [0, 0, 0, 1]).tolist() == (AFFINE @ first).tolist()


@pytest.mark.parametrize(("operator", "unit"), MEASURED)
def test_a_segment_partly_outside_is_not_reported_as_whole(
    operator: Callable[[Volume, Segments], Report], unit: Code
) -> None:
    """Its numbers are of the part inside, which is not the received segment; a sentence says how much is missing."""
    affine = AFFINE.copy()
    affine[:3, 3] += 2 * affine[:3, 0]
    half = replace(column(4, "Liver"), affine=affine, stored=StoredSegment("1.2", 1))
    half.array[2] = False  # two slices: the last of the image, and the one beyond it
    whole = replace(column(7, "Pool"), stored=StoredSegment("1.2", 2))
    affine_of_part = AFFINE.copy()
    affine_of_part[:3, 3] += affine_of_part[:3, 0]
    part = replace(whole, array=whole.array[1:], affine=affine_of_part, label="Part")
    report = operator(replace(volume(), unit=unit), segments(half, whole, part))
    said = [remark for remark in report.remarks if "outside the image" in remark.text]
    assert [(remark.text, remark.missing) for remark in said] == [
        ("Liver: 50 % of it lie outside the image and were not measured.", True)
    ]
    stored = {m.region.label: m.region.stored for m in report.measurements if m.region}
    assert stored == {"Liver": None, "Pool": whole.stored, "Part": whole.stored}


@pytest.mark.parametrize(
    ("operator", "unit"),
    [
        (statistics, HOUNSFIELD), (first_order, HOUNSFIELD), (calcium_score, HOUNSFIELD), (uptake, BECQUEREL),
        (reference_uptake, BECQUEREL),
    ],
)  # fmt: skip
def test_a_region_partly_outside_is_not_reported_as_whole(
    operator: Callable[[Volume, Mask], Report], unit: Code
) -> None:
    """What `region` cut off is said by what measures in it, too; of a whole region nothing is."""
    affine = AFFINE.copy()
    affine[:3, 3] += 2 * affine[:3, 0]
    image = replace(volume(), unit=unit)
    found = region(image, segments(replace(column(4, "Liver"), affine=affine)), name="Liver")
    text = "Liver: 67 % of it lie outside the image and were not measured."
    assert [r.missing for r in operator(image, found).remarks if r.text == text] == [True]
    assert not [r for r in operator(image, column(4, "Liver")).remarks if "outside the image" in r.text]
    whole = connected_component(found)  # another step in between
    assert [r.missing for r in operator(image, whole).remarks if r.text == text] == [True]


def test_a_curve_says_how_much_of_its_region_lies_outside(drawn: list[graphs.Line]) -> None:
    """Of segments and of a mask; the run says it too, with the segments that could not be drawn at all."""
    affine, beside = AFFINE.copy(), AFFINE.copy()
    affine[:3, 3] += 2 * affine[:3, 0]
    beside[:3, 3] += 9 * beside[:3, 0]
    made = segments(
        replace(column(4, "Liver"), affine=affine),
        column(7, "Pool"),
        replace(column(1, "Far"), affine=beside),
    )
    picture = run_operator(histogram, volume(), made)
    outside = "67 % of it lie outside the image"
    assert [line.label for line in drawn] == [f"Liver: {outside}", "Pool"]
    said = [
        f"Liver: {outside} and were not measured.",
        "Far: not drawn, since nothing of the segment Far lies in the image.",
    ]
    assert lacking({"curves": picture}) == said
    drawn.clear()
    picture = histogram(volume(), None, region(volume(), segments(made.masks[0]), name="Liver"))
    assert [line.label for line in drawn] == [f"Liver: {outside}"]
    assert lacking({"curves": picture}) == said[:1]
    with pytest.raises(Refused, match="nothing of the segment Far lies in the image"):
        histogram(volume(), segments(made.masks[2]))


def test_another_frame_of_reference_is_refused() -> None:
    """A segmentation of other images is measured nowhere."""
    other = replace(segments(column(1, "Liver")), facts={"frame_of_reference": "9.9"})
    with pytest.raises(Refused, match="different frames of reference"):
        run_operator(region_statistics, volume(), other)
    with pytest.raises(Refused, match="different frames of reference"):
        run_operator(histogram, volume(), other)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[graphs.Line]:
    """The lines that reach the graph, which is drawn nevertheless."""
    seen: list[graphs.Line] = []
    plot = graphs.histogram

    def watched(title: str, across: str, up: str, lines: list[graphs.Line], marks: object = ()) -> object:
        seen.extend(lines)
        return plot(title, across, up, lines, marks)  # type: ignore[arg-type]

    monkeypatch.setattr(graphs, "histogram", watched)
    return seen


def test_a_histogram_counts_percent_of_each_region(drawn: list[graphs.Line]) -> None:
    """Columns of 50, 60 and 70 HU in steps of 10: a third each; other regions count for themselves."""
    made = run_operator(
        histogram, volume(), segments(column(5, "A", 3), column(1, "B")), low=0.0, high=100.0, bin_width=10.0
    )
    assert made.array.shape == (1, graphs.HEIGHT, graphs.WIDTH, 3)
    a, b = drawn
    assert a.y[5:8] == pytest.approx([100 / 3] * 3)
    assert a.y.sum() == pytest.approx(100)
    assert (a.label, b.label) == ("A", "B")
    assert b.y.tolist() == [0, 100, 0, 0, 0, 0, 0, 0, 0, 0]


def test_what_lies_outside_the_axis_still_counts(drawn: list[graphs.Line]) -> None:
    """Shares are of the whole region: cutting the axis does not lift the rest."""
    run_operator(
        histogram, volume(), segments(column(5, "A", 3)), low=0.0, high=60.0, bin_width=10.0, mark=55.0
    )
    assert drawn[0].y.sum() == pytest.approx(200 / 3)  # numpy's last bin holds its upper edge


def test_the_whole_volume_without_padding(drawn: list[graphs.Line]) -> None:
    """Without a region all measured voxels are drawn; the axis covers them in round steps."""
    valid = np.ones((3, 4, 10), bool)
    valid[:, :, :5] = False
    run_operator(histogram, replace(volume(), valid=valid))
    (line,) = drawn
    assert line.y.sum() == pytest.approx(100)
    assert (line.x[0], line.x[-1]) == (50, 90.5)


def test_a_mask_is_a_region_too(drawn: list[graphs.Line]) -> None:
    """What an earlier step of the rule made is drawn under its own name."""
    histogram(volume(), None, column(3, "Body"), low=0.0, high=100.0)
    assert [line.label for line in drawn] == ["Body"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 50.0, "high": 50.0}, "must be less than"),
        ({"bin_width": -1.0}, "greater than 0"),
        ({"bin_width": 1e-4}, "4096 steps at most"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    """With the limits told."""
    with pytest.raises(Refused, match=words):
        run_operator(histogram, volume(), **options)


def test_of_many_regions_the_largest_are_drawn(drawn: list[graphs.Line]) -> None:
    """Nine curves cannot be told apart by colour: the smallest is left out, and the title says so."""
    made = segments(*(column(n, f"R{n}", 1 if n == 4 else 2) for n in range(9)))
    picture = run_operator(histogram, volume(), made)
    assert [line.label for line in drawn] == [f"R{n}" for n in range(9) if n != 4]
    assert picture.title == "Histogram of CT number, the 8 largest of 9 regions"


def test_a_histogram_of_nothing_is_refused() -> None:
    """A volume of padding alone has no histogram, without a region as well; one of a single large value has."""
    given = volume()
    empty = replace(given, valid=np.zeros(given.array.shape, bool))
    with pytest.raises(Refused, match="no voxel of what is to be drawn was measured"):
        run_operator(histogram, empty)
    same = replace(given, array=np.full(given.array.shape, 1e6, np.float32))
    assert run_operator(histogram, same).colour
