"""The rule that registers before it subtracts, end to end on a head that moved between the two series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pydicom
import pytest

from node.drystudy import ProcessedStudy
from node.model import RunState
from node.operator import Volume
from node.testing import Series, ball_mask, head_volume, run_rule, write_mr_series
from node.testing.phantoms import Grid

RULES = Path(__file__).parents[2] / "config" / "examples" / "rules"
GRID = Grid((36, 88, 88), (5.0, 2.6, 2.6))
LESION = (-34.0, 26.0, 24.0)
"""Where `head_volume` has a bright ball of 9 mm."""
SHIFT = np.array([4.0, -3.0, 5.0])
"""mm that the head moved by, after it was turned by 4°."""


def native() -> Volume:
    """Before contrast: the lesion is as bright as white matter."""
    made = head_volume(GRID, seed=1)
    array = np.where(ball_mask(made, 11.0, LESION).array, np.minimum(made.array, 720.0), made.array)
    return replace(made, array=array)


def moved() -> Volume:
    """After it: the lesion is bright, and the head turned about the axis to the feet, and shifted."""
    cosine, sine = np.cos(np.radians(4.0)), np.sin(np.radians(4.0))
    turned = replace(GRID, row=(float(cosine), float(sine), 0.0), column=(float(-sine), float(cosine), 0.0))
    made = head_volume(turned, seed=2)
    affine = GRID.affine
    affine[:3, 3] += SHIFT
    return replace(made, array=made.array, affine=affine)


def lesion_there() -> np.ndarray[Any, Any]:
    """The lesion's centre after the motion."""
    cosine, sine = np.cos(np.radians(4.0)), np.sin(np.radians(4.0))
    back = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(back @ np.array(LESION) + SHIFT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both series."""
    folder = tmp_path_factory.mktemp("study")
    before = Series("native", "reg", number=2, changes={"SeriesTime": "101500"})
    after = Series(
        "gad", "reg", number=3, changes={"ContrastBolusAgent": "Gadobutrol", "SeriesTime": "102500"}
    )
    return [
        *write_mr_series(folder / "native", native(), series=before),
        *write_mr_series(folder / "gad", moved(), series=after),
    ]


def uptake(rule: str, study: list[Path], out: Path) -> tuple[list[Path], np.ndarray[Any, Any]]:
    """What the rule made: files in slice order, and their values."""
    (done,) = run_rule(RULES / f"{rule}.yaml", study, out)
    assert isinstance(done, ProcessedStudy)
    assert done.ended is not None
    assert done.ended.state is RunState.DONE, done.ended.reason
    files = [done.folder / product.path for product in done.ended.products]
    images = sorted((pydicom.dcmread(f) for f in files), key=lambda ds: float(ds.ImagePositionPatient[2]))
    scales = [(float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))) for ds in images]
    return files, np.array([ds.pixel_array * s + i for ds, (s, i) in zip(images, scales, strict=True)])


def test_motion_is_not_taken_for_uptake(study: list[Path], tmp_path: Path) -> None:
    """The lesion stands out as much as it brightened; elsewhere less than half of what plain subtraction leaves."""
    _, plain = uptake("mr-contrast-subtraction", study, tmp_path / "plain")
    files, registered = uptake("mr-register-subtract", study, tmp_path / "registered")
    after = moved()
    lesion = ball_mask(after, 6.0, tuple(lesion_there())).array
    around = ~ball_mask(after, 16.0, tuple(lesion_there())).array & ball_mask(after, 75.0, tuple(SHIFT)).array
    assert registered[lesion].mean() == pytest.approx(1100 - 720, rel=0.15)
    assert np.percentile(plain[around], 99) > 300
    assert np.percentile(registered[around], 99) < np.percentile(plain[around], 99) / 2
    assert [peers.dciodvfy(path) for path in files] == [[] for _ in files]
    assert peers.dcentvfy(*study, *files) == []
    sources = {
        str(i.ReferencedSOPInstanceUID) for i in pydicom.dcmread(files[len(files) // 2]).SourceImageSequence
    }
    series = {
        str(pydicom.dcmread(p).SeriesInstanceUID)
        for p in study
        if pydicom.dcmread(p).SOPInstanceUID in sources
    }
    assert len(series) == 2


def test_too_far_is_refused(study: list[Path], tmp_path: Path) -> None:
    """A rule that allows 2 mm refuses this motion of 7 mm, in words."""
    text = (
        (RULES / "mr-register-subtract.yaml")
        .read_text(encoding="utf-8")
        .replace("farthest: 30 mm", "farthest: 2 mm")
    )
    rule = tmp_path / "rule.yaml"
    rule.write_text(text, encoding="utf-8")
    (done,) = run_rule(rule, study, tmp_path / "out")
    assert done.ended is not None
    assert done.ended.state is RunState.REFUSED
    assert "beyond the 2 mm and 15° allowed" in done.ended.reason
