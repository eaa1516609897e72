"""A series that holds several things: parts by what a rule names, in order, each loaded at its turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from volume_phantoms import Change, blank, enhanced, item, save, series, texts, turned

from node.errors import Misconfigured, Refused
from node.read.series import parts
from node.read.split import MOST_PARTS
from node.read.volume import load, volumes


def several(folder: Path, change: Change, count: int = 3, slices: int = 2) -> list[Path]:
    """*count* stacks of *slices* MR slices at the same places; *change* gets the number of the stack."""
    paths = []
    for n in range(count):
        for k in range(slices):
            ds = blank(MRImageStorage, np.full((5, 6), 10 * n + k, np.int16))
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * k]
            ds.PixelSpacing, ds.InstanceNumber = [1, 1], 1 + n * slices + k
            change(ds, n)
            paths.append(save(ds, folder / f"{(n * slices + k) * 7 % 97:03}.dcm"))
    return sorted(paths)


def labels(paths: list[Path], *split: str, each_part: str = "run") -> list[str]:
    """The labels of the parts."""
    return [part.label for part in volumes(paths, split, each_part)]


def _private(group: int, creator: str, element: int, vr: str, values: list[Any]) -> Change:
    def change(ds: Dataset, n: int) -> None:
        ds.private_block(group, creator, create=True).add_new(element, vr, values[n])

    return change


B_VALUES: dict[str, Change] = {
    "standard": lambda ds, n: setattr(ds, "DiffusionBValue", float((0, 800, 50)[n])),
    "GE": _private(0x0043, "GEMS_PARM_01", 0x39, "IS", [[0, 8, 0, 0], [1000000800, 8, 0, 0], [50, 8, 0, 0]]),
    "Siemens": _private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", [0, 800, 50]),
    "Philips": _private(0x2001, "Philips Imaging DD 001", 0x03, "FL", [0.0, 800.0, 50.0]),
    "United Imaging": _private(0x0065, "Image Private Header", 0x09, "FD", [0.0, 800.0, 50.0]),
}


@pytest.mark.parametrize("maker", B_VALUES)
def test_b_values_of_every_maker_part_a_series(tmp_path: Path, maker: str) -> None:
    """Wherever a maker puts it, the b-value parts the series, ascending as numbers, and is a fact of each part."""
    paths = several(tmp_path, B_VALUES[maker])
    found = [part.load() for part in volumes(paths, ["b_value"], "run")]
    assert [one.label for one in found] == ["b_value 0", "b_value 50", "b_value 800"]
    assert [one.value.facts["b_value"] for one in found] == [0, 50, 800]
    assert [one.value.array[1, 0, 0] for one in found] == [1, 21, 11]
    with pytest.raises(Refused, match=r"split: \[b_value\]"):
        load(paths)


def test_parts_come_in_the_order_of_the_names(tmp_path: Path) -> None:
    """Two names: the first decides, then the second; a name that does not differ is not in the label."""

    def change(ds: Dataset, n: int) -> None:
        ds.EchoTime, ds.AcquisitionNumber, ds.RepetitionTime = (100, 20, 20)[n], (1, 2, 1)[n], 500

    paths = several(tmp_path, change)
    assert labels(paths, "EchoTime", "AcquisitionNumber", "RepetitionTime") == [
        "EchoTime 20, AcquisitionNumber 1",
        "EchoTime 20, AcquisitionNumber 2",
        "EchoTime 100, AcquisitionNumber 1",
    ]


def test_one_number_written_in_several_ways_is_one_value(tmp_path: Path) -> None:
    """30, 30.0 and 3e1 are one echo time; what has none is a part of its own, the last."""

    def change(ds: Dataset, n: int) -> None:
        if n < 3:
            ds.EchoTime = ("30", "30.0", "3e1")[n]
            ds.ImagePositionPatient = [0, 0, float(ds.ImagePositionPatient[2]) + 4 * n]

    assert labels(several(tmp_path, change, count=4), "EchoTime") == ["EchoTime 30", "EchoTime absent"]


def test_private_elements_paths_and_frames_part_as_well(tmp_path: Path) -> None:
    """A private element by its name, and the frames of one multi-frame object by what their macros say."""
    name = "(0019,xx0C) SIEMENS MR HEADER"
    assert labels(several(tmp_path, B_VALUES["Siemens"]), name) == [f"{name} {b}" for b in (0, 50, 800)]
    ds = enhanced([(0, 0, 2 * (n % 2)) for n in range(4)], np.zeros((4, 5, 6), np.int16))
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.MREchoSequence = [item(EffectiveEchoTime=80.0 - 50 * (n // 2))]
    found = list(volumes([save(ds, tmp_path / "many.dcm")], ["EchoTime"], "together"))
    assert [(part.label, part.load().frames) for part in found] == [
        ("EchoTime 30", (3, 4)),
        ("EchoTime 80", (1, 2)),
    ]


def test_orientation_parts_by_parallel_stacks(tmp_path: Path) -> None:
    """Axial, sagittal and two oblique stacks are four parts; a cosine rounded differently is none."""
    paths = []
    for n, directions in enumerate(
        ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], turned(30)[:, :2].T.ravel(), turned(50)[:, :2].T.ravel())
    ):
        for k in range(2):
            ds = blank(MRImageStorage, np.zeros((5, 6), np.int16))
            ds.ImageOrientationPatient = texts(np.asarray(directions) + 1e-4 * k)
            normal = np.cross(directions[:3], directions[3:])
            ds.ImagePositionPatient, ds.PixelSpacing = texts(normal * 2 * k), [1, 1]
            paths.append(save(ds, tmp_path / f"{n}{k}.dcm"))
    found = ["orientation axial", "orientation oblique 1", "orientation oblique 2", "orientation sagittal"]
    assert labels(paths, "orientation") == found
    assert labels(paths[::-1], "orientation") == found
    with pytest.raises(Refused, match=r"split: \[orientation\]"):
        load(paths)


def _echo(ds: Dataset, n: int) -> None:
    ds.EchoTime = 10 * (n + 1)


def test_a_rule_says_what_becomes_of_several_parts(tmp_path: Path) -> None:
    """Largest takes the part with most slices, the first of equals; refuse names the parts; one part passes."""
    paths = several(tmp_path, _echo)
    assert labels(paths, "EchoTime", each_part="largest") == ["EchoTime 10"]
    with pytest.raises(Refused) as refusal:
        labels(paths, "EchoTime", each_part="refuse")
    assert "gives 3 parts (EchoTime 10 (2 images); EchoTime 20 (2 images)" in str(refusal.value)
    assert labels(paths, "RepetitionTime", each_part="refuse") == [""]
    extra = blank(MRImageStorage, np.zeros((5, 6), np.int16))
    extra.ImageOrientationPatient, extra.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 4]
    extra.PixelSpacing, extra.EchoTime = [1, 1], 20
    assert labels([*paths, save(extra, tmp_path / "x.dcm")], "EchoTime", each_part="largest") == [
        "EchoTime 20"
    ]


def test_a_part_that_is_no_volume_does_not_stop_the_others(tmp_path: Path) -> None:
    """The part with a gap is refused at its turn; those before and after it are read."""

    def change(ds: Dataset, n: int) -> None:
        _echo(ds, n)
        if n == 1 and ds.ImagePositionPatient[2] == 4:
            ds.ImagePositionPatient = [0, 0, 9]

    found: list[str] = []
    for part in parts("Volume", several(tmp_path, change, slices=3), ["EchoTime"], "run"):
        try:
            found.append(str(part.load().value.array.shape))
        except Refused as refusal:
            found.append(str(refusal)[:33])
    assert found == ["(3, 5, 6)", "the slices are not evenly spaced:", "(3, 5, 6)"]


def test_too_many_parts_are_refused(tmp_path: Path) -> None:
    """A split into more than 99 parts names the wrong thing."""
    ds = enhanced([(0, 0, n) for n in range(MOST_PARTS + 1)], np.zeros((MOST_PARTS + 1, 1, 1), np.int16))
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence = [item(TemporalPositionIndex=n + 1)]
    with pytest.raises(Refused, match="gives 100 parts, more than 99"):
        volumes([save(ds, tmp_path / "a.dcm")], ["temporal_position"], "run")


def test_a_name_that_is_none_is_a_mistake_of_the_rule(tmp_path: Path) -> None:
    """`split: [EchoTimes]` is for a person to mend."""
    with pytest.raises(Misconfigured, match="EchoTimes is no DICOM keyword"):
        volumes(series(tmp_path), ["EchoTimes"], "run")


ADVICE: dict[str, tuple[Callable[[Dataset, int], Any], str]] = {
    "echo": (_echo, "`split: [EchoTime]`"),
    "time": (lambda ds, n: setattr(ds, "TemporalPositionIdentifier", n), "`split: [temporal_position]`"),
    "phase": (
        lambda ds, n: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "MPR"[n]]),
        "`split: [ImageType]`",
    ),
    "two": (
        lambda ds, n: (_echo(ds, n // 2), setattr(ds, "FlipAngle", 5 + n % 2)),
        "`split: [EchoTime, FlipAngle]`",
    ),
    "none": (
        lambda ds, n: setattr(ds, "InstanceNumber", 1),
        "no attribute that could tell them apart differs",
    ),
}


@pytest.mark.parametrize("name", ADVICE)
def test_the_refusal_names_the_split_that_helps(tmp_path: Path, name: str) -> None:
    """Several stacks in one place are refused with what really parts them, one name or two, or none."""
    change, words = ADVICE[name]
    with pytest.raises(Refused) as refusal:
        load(several(tmp_path, change, count=4 if name == "two" else 3))
    assert words in str(refusal.value)
