"""Regions as text: which pixels they hold, what their names mean, and what is no region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.operator import Refused
from node.operators.codes import LEFT, OURS, RIGHT, private_value
from node.operators.nm.codes import site_of
from node.operators.nm.ratio import roi_ratio
from node.operators.nm.regions import background_of, is_background, rois_of
from node.testing import nuclear_picture, run_operator

PICTURE = nuclear_picture(np.ones((1, 20, 30)), ("anterior",), spacing=2.0)
EDGE = st.floats(0, 20, allow_nan=False)


def test_a_rectangle_holds_the_pixels_between_its_edges() -> None:
    """`2,3,5,7` are rows 2 to 4 and columns 3 to 6: 12 pixels; in mm, with pixels of 2 mm, the same is 4,6,10,14."""
    (one,) = rois_of("a: 2,3,5,7", PICTURE, "pixel")
    (same,) = rois_of("a: rectangle 4, 6, 10, 14", PICTURE, "mm")
    wanted = np.zeros((20, 30), bool)
    wanted[2:5, 3:7] = True
    assert np.array_equal(one.inside, wanted)
    assert np.array_equal(same.inside, wanted)
    assert one.pixels == 12


@given(st.tuples(EDGE, EDGE, EDGE, EDGE))
def test_a_region_holds_what_its_edges_enclose(edges: tuple[float, float, float, float]) -> None:
    """Whatever the edges are, exactly the pixel centres between them belong; an ellipse never holds more."""
    top, bottom = sorted(edges[:2])
    left, right = sorted(edges[2:])
    text = f"a: {top:.4f},{left:.4f},{bottom:.4f},{right:.4f}"
    try:
        (found,) = rois_of(text, PICTURE, "pixel")
    except Refused as refused:
        assert "holds the centre of no pixel" in str(refused) or "does not lie" in str(refused)
        return
    rows, columns = np.nonzero(found.inside)
    assert top - 1e-3 <= rows.min() + 0.5 and rows.max() + 0.5 <= bottom + 1e-3
    assert left - 1e-3 <= columns.min() + 0.5 and columns.max() + 0.5 <= right + 1e-3
    assert abs(found.pixels - (bottom - top) * (right - left)) <= (bottom - top) + (right - left) + 1


def test_an_ellipse_has_the_area_of_one() -> None:
    """π · a · b of its half axes, to the pixels of its edge."""
    big = nuclear_picture(np.ones((1, 200, 200)))
    (found,) = rois_of("a: ellipse 20,30,180,130", big, "pixel")
    assert abs(found.pixels / (np.pi * 80 * 50) - 1) < 0.005


def test_names_say_organ_and_side() -> None:
    """`left kidney` is Kidney (64033007, SCT), left; a name that is no organ we know keeps its words."""
    left, right, other = rois_of(
        "left kidney: 1,1,3,3; Right Kidney: 1,5,3,8; sacrum: 5,5,9,9", PICTURE, "pixel"
    )
    assert (left.site.value, left.laterality) == ("64033007", LEFT)
    assert (right.site.value, right.laterality) == ("64033007", RIGHT)
    assert (other.site.scheme, other.site.meaning, other.laterality) == ("99PACSNODE", "sacrum", None)


def test_each_name_has_a_code_of_its_own() -> None:
    """Long names that begin alike, and names in other scripts, get different values of at most 16 characters."""
    names = (
        "sacrum", "left lower quadrant of the belly", "left lower quadrant of the chest", "左腎", "右腎", "knee joint",
        "kneejoint", "knee-joint", "halftime", "ufov",
    )  # fmt: skip
    found = [private_value(name) for name in names]
    assert found[0] == "SACRUM"
    assert len(set(found)) == len(names)
    assert all(1 <= len(value) <= 16 and value.isascii() for value in found)
    assert private_value("Sacrum") == private_value("sacrum")
    assert not {*found} & {*OURS}  # a region called like a number of ours is not that number
    assert site_of("LEFT") == site_of("left")


def test_backgrounds_belong_to_their_regions() -> None:
    """A background of one's own comes before the common one."""
    rois = rois_of("a: 1,1,3,3; b: 1,5,3,8; a background: 5,5,9,9; background: 9,9,12,12", PICTURE, "pixel")
    assert [is_background(roi) for roi in rois] == [False, False, True, True]
    assert background_of(rois[0], rois) is rois[2]
    assert background_of(rois[1], rois) is rois[3]
    assert background_of(rois[1], rois[:3]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no region is given"),
        ("a 1,2,3,4", "is no region"),
        ("a: 1,2,3", "is no region"),
        ("a: 1,2,3,x", "is no region"),
        ("a: 1,2,--3,4", "is no region"),
        ("a: 3,2,1,4", "does not lie in the image, which is 20 x 30 pixel"),
        ("a: 0,0,21,4", "does not lie in the image"),
        ("a: 1.6,2.6,1.8,2.8", "holds the centre of no pixel"),
        ("a: 1,2,3,4; A : 3,4,5,6", "cannot be told apart"),
    ],
)
def test_what_is_no_region_is_refused(text: str, words: str) -> None:
    """Each mistake is named, with the region it is in."""
    with pytest.raises(Refused, match=words):
        rois_of(text, PICTURE, "pixel")


def test_millimetres_need_a_spacing() -> None:
    """An image that states no pixel spacing has no millimetres."""
    with pytest.raises(Refused, match="states no pixel spacing"):
        rois_of("a: 1,2,3,4", replace(PICTURE, spacing=None), "mm")


def uptake() -> np.ndarray:
    """Background 10, a joint of 60 at the left, one of 35 at the right, a sacrum of 30."""
    frame = np.full((1, 20, 30), 10.0)
    frame[0, 5:9, 3:7], frame[0, 5:9, 20:24], frame[0, 5:9, 12:16] = 60, 35, 30
    return frame


REGIONS = "left joint: 5,3,9,7; right joint: 5,20,9,24; sacrum: 5,12,9,16; background: 14,3,18,7"


@pytest.mark.parametrize(("subtract", "ratios"), [(False, (2.0, 35 / 30)), (True, (2.5, 1.25))])
def test_ratios_are_of_mean_counts(subtract: bool, ratios: tuple[float, float]) -> None:
    """60 / 30 and 35 / 30; less the background of 10, 50 / 20 and 25 / 20."""
    picture = nuclear_picture(uptake(), ("posterior",))
    report = run_operator(
        roi_ratio, picture, regions=REGIONS, reference="Sacrum", subtract_background=subtract
    )
    found = {m.laterality.meaning: m.value for m in report.measurements if m.unit.value == "{ratio}"}  # type: ignore[union-attr]
    assert np.allclose([found["Left"], found["Right"]], ratios)
    said = [remark.text for remark in report.remarks]
    assert any("against sacrum" in text for text in said)
    assert "View: Posterior projection." in said


def test_ratios_of_the_geometric_mean() -> None:
    """√(4 · 9) of both views: the ratio is that of the mean, with its method."""
    frame = uptake()
    picture = nuclear_picture(np.concatenate([4 * frame, 9 * frame[:, :, ::-1]]), ("anterior", "posterior"))
    report = roi_ratio(picture, regions=REGIONS, reference="sacrum", use="geometric_mean")
    (left,) = [m for m in report.measurements if m.unit.value == "{ratio}" and m.laterality == LEFT]
    assert np.isclose(left.value, 2.0)
    assert left.method is not None
    assert "Geometric mean" in left.method.meaning


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "liver"}, "is none of the regions: left joint, right joint"),
        ({"reference": "background", "subtract_background": True}, "0 counts per pixel above background"),
        (
            {"regions": "a: 1,1,3,3; b: 4,4,5,5", "reference": "a", "subtract_background": True},
            "no region called",
        ),
        ({"regions": "a: 1,1,3,3", "reference": "a"}, "no region beside the reference"),
        ({"use": "posterior"}, "states only Anterior projection"),
    ],
)
def test_ratios_without_sense_are_refused(options: dict[str, object], words: str) -> None:
    """A reference that is none, or empty, and a view that is not there, are refused."""
    asked = {"regions": REGIONS, "reference": "sacrum", **options}
    with pytest.raises(Refused, match=words):
        run_operator(roi_ratio, nuclear_picture(uptake(), ("anterior",)), **asked)


def test_two_heads_need_a_view() -> None:
    """With two heads in the image the rule says which it means."""
    picture = nuclear_picture(np.concatenate([uptake()] * 2), ("anterior", "posterior"))
    with pytest.raises(Refused, match="frames of 2 heads; say with `use`"):
        roi_ratio(picture, regions=REGIONS, reference="sacrum")
