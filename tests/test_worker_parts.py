"""Series that hold several things: each part is processed by itself, or all together, as the rule says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.dryrun import Processed
from node.model import RunState
from node.testing import Grid, Series, run_rule, sphere_volume, write_mr_series

GRID = Grid((8, 32, 32), (3.0, 3.0, 3.0))
ECHOES = {"10": 400.0, "30": 300.0, "80": 100.0}
"""Echo time in ms → what the ball shines with."""
RULE = """
rule: parts
purpose: Every echo by itself.
owner: tests@hospital.example
when: {{Modality: MR}}
incomplete: ok
split: [EchoTime]
each_part: {each_part}
do:
{do}
send:
  - {{what: made, to: PACS, SeriesDescription: "{{SeriesDescription}} soft"}}
"""
SMOOTH = "  - smooth: {width: 4 mm}\n    as: made"
SUBTRACT = "  - subtract: {volume: part_1, other: part_3}\n    as: made"


@pytest.fixture
def echoes(tmp_path: Path) -> list[Path]:
    """Write one series of three echoes, eight slices each."""
    ball = Series("echoes", description="T2", changes={})
    files = []
    for number, (echo, inside) in enumerate(ECHOES.items()):
        volume = sphere_volume(GRID, radius=10, inside=inside, outside=20.0)
        uids = {"EchoTime": echo, "SeriesInstanceUID": ball.uid("series"), "SeriesNumber": "4"}
        part = Series(f"echo-{number}", "echoes", number=4, description="T2", changes=uids)
        files += write_mr_series(tmp_path / echo, volume, series=part)
    return files


def processed(tmp_path: Path, files: list[Path], each_part: str, do: str = SMOOTH) -> Processed:
    """What the rule makes of the series."""
    rule = tmp_path / "parts.yaml"
    rule.write_text(RULE.format(each_part=each_part, do=do))
    (made,) = run_rule(rule, files, tmp_path / "out")
    return made


def objects(made: Processed) -> dict[str, list[pydicom.Dataset]]:
    """Series Instance UID → the derived objects of it, in order."""
    assert made.ended is not None, made.judged.because
    found: dict[str, list[pydicom.Dataset]] = {}
    for product in made.ended.products:
        found.setdefault(product.series_uid, []).append(pydicom.dcmread(made.folder / product.path))
    return found


def values(ds: pydicom.Dataset) -> np.ndarray:
    """What the stored values of a derived image stand for."""
    return ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))


def test_each_part_becomes_a_series_of_its_own(tmp_path: Path, echoes: list[Path]) -> None:
    """Three echoes give three series in ascending order, each with its number, description and values."""
    made = processed(tmp_path, echoes, "run")
    assert made.ended is not None
    assert (made.ended.state, made.ended.reason) == (RunState.DONE, "")
    series = list(objects(made).values())
    assert [len(one) for one in series] == [8, 8, 8]
    assert [one[0].SeriesNumber for one in series] == [401, 402, 403]
    assert [one[0].SeriesDescription for one in series] == [f"T2 soft EchoTime {echo}" for echo in ECHOES]
    assert [str(one[0].EchoTime) for one in series] == list(ECHOES)
    middles = [float(values(one[4]).max()) for one in series]
    assert middles == pytest.approx(list(ECHOES.values()), rel=0.05)
    uids = [str(ds.SOPInstanceUID) for one in series for ds in one]
    assert len(set(uids)) == 24
    indices = [product.index for product in made.ended.products]
    assert indices == list(range(1, 25))


def test_a_part_that_does_not_suit_refuses_itself_only(tmp_path: Path, echoes: list[Path]) -> None:
    """With a slice of the second echo missing the other two are made, and the run says which was not and why."""
    made = processed(tmp_path, echoes[:10] + echoes[11:], "run")
    assert made.ended is not None
    assert made.ended.state is RunState.DONE
    assert [one[0].SeriesDescription for one in objects(made).values()] == [
        "T2 soft EchoTime 10", "T2 soft EchoTime 80",
    ]  # fmt: skip
    assert "EchoTime 30: the slices are not evenly spaced" in made.ended.reason


def test_only_the_largest_part_is_made_where_the_rule_says_so(tmp_path: Path, echoes: list[Path]) -> None:
    """Of an echo with eight slices and two with seven the full one is processed, as the only series."""
    made = processed(tmp_path, [*echoes[1:15], *echoes[16:]], "largest")
    ((one),) = objects(made).values()
    assert len(one) == 8
    assert str(one[0].EchoTime) == "80"


def test_more_than_one_part_is_refused_where_the_rule_says_so(tmp_path: Path, echoes: list[Path]) -> None:
    """`each_part: refuse` names the parts it found."""
    made = processed(tmp_path, echoes, "refuse")
    assert made.ended is not None
    assert made.ended.state is RunState.REFUSED
    assert "EchoTime" in made.ended.reason


def test_parts_come_together_by_name(tmp_path: Path, echoes: list[Path]) -> None:
    """The first echo minus the third is what arithmetic says, and names the images of all parts as sources."""
    made = processed(tmp_path, echoes, "together", SUBTRACT)
    ((one),) = objects(made).values()
    assert len(one) == 8
    assert np.unique(values(one[4])).tolist() == [0.0, 300.0]
    named = {item.ReferencedSOPInstanceUID for ds in one for item in ds.SourceImageSequence}
    assert named == {pydicom.dcmread(path).SOPInstanceUID for path in echoes}


def test_a_part_that_is_not_there_is_a_mistake_in_words(tmp_path: Path, echoes: list[Path]) -> None:
    """A rule that asks for part_9 of three parts ends with the reason, not with a traceback."""
    made = processed(tmp_path, echoes, "together", SUBTRACT.replace("part_3", "part_9"))
    assert made.ended is not None
    assert made.ended.state is RunState.QUARANTINED
    assert "part_9, which the series does not have" in made.ended.reason


PARTING = {
    "orientation": lambda ds, n: setattr(
        ds, "ImageOrientationPatient", ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1])[n]
    ),
    "AcquisitionNumber": lambda ds, n: setattr(ds, "AcquisitionNumber", n + 1),
    "EchoTime": lambda ds, n: setattr(ds, "EchoTime", 10 * (n + 1)),
    "b_value": lambda ds, n: setattr(ds, "DiffusionBValue", 800.0 * n),
    "temporal_position": lambda ds, n: setattr(ds, "TemporalPositionIdentifier", n + 1),
}
"""Each name that design and rules promise → what makes two parts of a series by it."""


@pytest.mark.parametrize("name", PARTING)
def test_every_name_parts_a_series_as_a_whole_rule(tmp_path: Path, name: str) -> None:
    """Two stacks in one series, told apart by nothing else, give two series of results that say which they are."""
    files = []
    for n in range(2):
        series = Series("two", description="DWI", number=4)
        files += write_mr_series(
            tmp_path / str(n), sphere_volume(GRID, radius=10, inside=100.0, outside=20.0), series=series
        )
    for place, path in enumerate(files):
        ds, n = pydicom.dcmread(path), place // 8
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.99.{place + 1}"
        ds.InstanceNumber = place + 1
        PARTING[name](ds, n)
        if name == "orientation" and n:
            ds.ImagePositionPatient = [3.0 * (place % 8), 0, 0]
        ds.save_as(path)
    rule = tmp_path / "parts.yaml"
    rule.write_text(RULE.format(each_part="run", do=SMOOTH).replace("[EchoTime]", f"[{name}]"))
    (made,) = run_rule(rule, files, tmp_path / "out")
    assert made.ended is not None and (made.ended.state, made.ended.reason) == (RunState.DONE, "")
    found = [(len(one), str(one[0].SeriesDescription)) for one in objects(made).values()]
    assert [count for count, _ in found] == [8, 8]
    assert all(name in told for _, told in found) and found[0][1] != found[1][1]
