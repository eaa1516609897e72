"""Claims about rules over a study on files: `process` makes of them what the node would send."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from node import drystudy
from node.desk.explaining import process_files
from node.dryrun import Place
from node.model import RunState
from node.process.supervise import Limits
from node.testing import Grid, Series, head_volume, write_mr_series

RULES = Path(__file__).parents[1] / "config" / "examples" / "rules"


def test_two_diffusion_series_become_one_fused(tmp_path: Path) -> None:
    """Of three b-values in three series the example takes the weakest and the strongest, and refers to both."""
    folder, grid = tmp_path / "in", Grid((6, 32, 32), (5.0, 7.0, 7.0))
    uids = {}
    for number, b_value in enumerate((0, 500, 1000), 1):
        changes = {"DiffusionBValue": float(b_value), "BodyPartExamined": "BRAIN"}
        one = Series(f"b{b_value}", study="s", number=number, changes=changes)
        paths = write_mr_series(folder / str(b_value), head_volume(grid), series=one)
        uids[b_value] = {str(dcmread(path).SOPInstanceUID) for path in paths}
    place = Place(tmp_path / "out", Limits(), "UTC")
    (made,) = process_files(None, RULES / "mr-diffusion-two-series.yaml", [folder], place, "")
    assert isinstance(made, drystudy.ProcessedStudy)
    assert made.ended is not None
    assert made.ended.state is RunState.DONE, made.ended.reason
    (product,) = made.ended.products
    picture = dcmread(made.folder / product.path)
    assert picture.NumberOfFrames == 6
    named = {str(item.ReferencedSOPInstanceUID) for item in picture.SourceImageSequence}
    assert named == uids[0] | uids[1000]
