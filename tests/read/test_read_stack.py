"""A series in which slices were taken several times: what tells its volumes apart, their order and their times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import need_samples
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from volume_phantoms import blank, enhanced, item, save

from node.errors import Refused
from node.operator import Stack
from node.read.loaded import Loaded
from node.read.moments import moments_of
from node.read.series import parts


def images(
    folder: Path, told: list[dict[str, object]], slices: int = 3, interleaved: bool = False
) -> list[Path]:
    """One stack of MR slices per entry of *told*, whose attributes are set; pixels hold 10 × volume + slice."""
    folder.mkdir(exist_ok=True)
    paths = []
    for n, attributes in enumerate(told):
        for k in range(slices):
            ds = blank(MRImageStorage, np.full((5, 6), 10 * n + k, np.int16))
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * k]
            ds.PixelSpacing, ds.Modality = [1, 1], "MR"
            ds.InstanceNumber = 1 + (k * len(told) + n if interleaved else n * slices + k)
            for keyword, value in attributes.items():
                setattr(ds, keyword, value[k] if isinstance(value, tuple) else value)
            paths.append(save(ds, folder / f"{(n * slices + k) * 7 % 97:03}.dcm"))
    return sorted(paths)


def load(paths: list[Path]) -> Loaded[Stack]:
    """The one stack of a series."""
    (part,) = parts("Stack", paths, (), "refuse")
    return part.load()


def order(stack: Stack) -> list[int]:
    """Which volume of the phantom each volume of the stack is."""
    return [int(volume.array[0, 0, 0]) // 10 for volume in stack.volumes]


def test_b_values_and_directions_come_in_order(tmp_path: Path) -> None:
    """Two directions at each of two b-values and one image without are five volumes, ascending, each with its facts."""
    x, y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    told = [
        {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": x},
        {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": y},
        {"DiffusionBValue": 400.0, "DiffusionGradientOrientation": x},
        {"DiffusionBValue": 400.0, "DiffusionGradientOrientation": y},
        {"DiffusionBValue": 0.0},
    ]
    loaded = load(images(tmp_path, told))
    stack = loaded.value
    assert stack.by[:2] == ("b_value", "gradient")
    assert [volume.facts["b_value"] for volume in stack.volumes] == [0, 400, 400, 800, 800]
    assert [volume.facts.get("gradient") for volume in stack.volumes[1:3]] == [(0, 1, 0), (1, 0, 0)]
    assert [volume.facts["part"] for volume in stack.volumes] == [0, 1, 2, 3, 4]
    assert order(stack) == [4, 3, 2, 1, 0]
    assert loaded.sizes == (3,) * 5
    assert [int(h.DiffusionBValue) for h in loaded.headers[::3]] == [0, 400, 400, 800, 800]


@pytest.mark.parametrize(("keyword", "fact"), [("EchoTime", "echo_time"), ("FlipAngle", "flip_angle"),
                                               ("InversionTime", "inversion_time")])  # fmt: skip
def test_what_was_varied_tells_volumes_apart(tmp_path: Path, keyword: str, fact: str) -> None:
    """Echoes, flip angles and inversion times each make volumes, in ascending order as numbers."""
    stack = load(images(tmp_path, [{keyword: "30"}, {keyword: "5"}, {keyword: "100"}])).value
    assert stack.by == (fact,)
    assert [float(volume.facts[fact]) for volume in stack.volumes] == [5, 30, 100]
    assert order(stack) == [1, 0, 2]
    assert fact not in stack.facts


def test_what_differs_from_slice_to_slice_only_was_not_varied(tmp_path: Path) -> None:
    """Acquisition times and trigger times per slice do not make volumes of single slices."""
    told = [
        {"AcquisitionNumber": n, "TriggerTime": ("10", "20", "30"), "RepetitionTime": ("500", "501", "502")}
        for n in (2, 1)
    ]
    stack = load(images(tmp_path, told)).value
    assert stack.by == ("acquisition_number",)
    assert order(stack) == [1, 0]


@pytest.mark.parametrize("interleaved", [False, True])
def test_repetitions_are_told_apart_by_their_order(tmp_path: Path, interleaved: bool) -> None:
    """Where nothing but the instance number differs, the n-th image of each place makes the n-th volume."""
    stack = load(images(tmp_path, [{}, {}, {}], interleaved=interleaved)).value
    assert stack.by == ("order",)
    assert order(stack) == [0, 1, 2]


def test_an_order_that_would_mix_volumes_is_refused(tmp_path: Path) -> None:
    """Instance numbers that follow neither slices nor volumes are no order: refused, saying what is missing."""
    paths = images(tmp_path, [{}, {}])
    numbers = {0: 1, 10: 4, 1: 2, 11: 3, 2: 5, 12: 6}
    for path in paths:
        ds = dcmread(path)
        ds.InstanceNumber = numbers[int(ds.pixel_array[0, 0])]
        save(ds, path)
    with pytest.raises(
        Refused, match="2 images lie in one place and nothing tells which of them belong together"
    ):
        load(paths)


X, Y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
JITTER: dict[str, tuple[list[dict[str, object]], str, dict[str, list[float]]]] = {
    "echo times": (
        [{"EchoTime": ("20", "20.004", "20")}, {"EchoTime": ("40.002", "40", "40.004")}],
        "echo_time",
        {"echo_time": [20.0013, 40.002]},
    ),
    "b-values": (
        [{"DiffusionBValue": (0.0, 0.4, 0.0)}, {"DiffusionBValue": (799.6, 800.0, 800.4)}],
        "b_value",
        {"b_value": [0.1333, 800.0]},
    ),
    "gradients": (
        [
            {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": X},
            {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": ([0.00002, 1.0, 0.0], Y, Y)},
        ],
        "gradient",
        {"b_value": [800.0, 800.0]},
    ),
    "gated repetition times": (
        [{"TemporalPositionIdentifier": n + 1, "RepetitionTime": times} for n, times in
         enumerate((("900", "950", "903"), ("909", "901", "970"), ("904", "990", "905")))],
        "temporal_position",
        {},
    ),
    "gated repetition times over time": (
        [{"ContentTime": f"1000{n}0", "RepetitionTime": times} for n, times in
         enumerate((("900", "950", "903"), ("909", "901", "970"), ("904", "990", "905")))],
        "content_time",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JITTER)
def test_what_floats_a_little_makes_no_volumes(tmp_path: Path, name: str) -> None:
    """Values that a scanner reached rather than was told are one value, their mean, or tell nothing apart."""
    told, by, facts = JITTER[name]
    stack = load(images(tmp_path, told)).value
    assert stack.by == (by,)
    assert len(stack.volumes) == len(told)
    for fact, values in facts.items():
        assert [volume.facts[fact] for volume in stack.volumes] == pytest.approx(values, abs=1e-3)
    if by == "gradient":
        assert all(len(volume.facts["gradient"]) == 3 for volume in stack.volumes)
    else:
        assert order(stack) == list(range(len(told)))


def test_what_floats_less_than_it_was_varied_tells_apart(tmp_path: Path) -> None:
    """Echoes nearer than the tolerance are still told apart where they fill whole volumes."""
    stack = load(images(tmp_path, [{"EchoTime": "0.03"}, {"EchoTime": "0.06"}])).value
    assert stack.by == ("echo_time",)
    assert [volume.facts["echo_time"] for volume in stack.volumes] == [0.03, 0.06]


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    """A volume with fewer slices than the others is refused with its name and both numbers."""
    paths = images(tmp_path, [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 800.0}])
    gone = next(p for p in paths if dcmread(p).get("DiffusionBValue") == 800.0)
    with pytest.raises(Refused, match="b_value 800 has 2 of the 3 slice positions"):
        load([path for path in paths if path != gone])


def test_times_are_those_of_the_acquisition(tmp_path: Path) -> None:
    """Seconds count from the first volume by its earliest slice; Content Time gives an order and no time."""
    told = [
        {
            "AcquisitionDate": "20240101",
            "AcquisitionTime": times,
            "AcquisitionNumber": n,
            "ContentTime": "120000",
        }
        for n, times in ((1, ("235950", "235955.5", "235952")), (2, ("235959", "235958", "235957.25")))
    ]
    told.append(
        {**told[0], "AcquisitionDate": "20240102", "AcquisitionNumber": 3, "AcquisitionTime": "000010"}
    )
    stack = load(images(tmp_path / "stated", told)).value
    assert [volume.facts["time"] for volume in stack.volumes] == [0.0, 7.25, 20.0]
    assert {volume.facts["time_from"] for volume in stack.volumes} == {"AcquisitionTime"}
    unstated = load(
        images(tmp_path / "unstated", [{"ContentTime": "101010"}, {"ContentTime": "101500"}])
    ).value
    assert unstated.by == ("content_time",)
    assert all("time" not in volume.facts for volume in unstated.volumes)


def test_the_time_that_tells_all_apart_is_taken(tmp_path: Path) -> None:
    """An Acquisition Time shared by all phases but the first yields to Trigger Time; alone it is kept, ties and all."""
    told = [
        {"AcquisitionDate": "20240101", "AcquisitionTime": f"1000{n and 30:02}", "AcquisitionNumber": n + 1}
        for n in range(4)
    ]
    alone = load(images(tmp_path / "alone", told)).value
    assert [volume.facts["time"] for volume in alone.volumes] == [0, 30, 30, 30]
    triggered = [{**one, "TriggerTime": str(20000 * n)} for n, one in enumerate(told)]
    both = load(images(tmp_path / "both", triggered)).value
    assert [volume.facts["time"] for volume in both.volumes] == [0, 20, 40, 60]
    assert {volume.facts["time_from"] for volume in both.volumes} == {"TriggerTime"}


@pytest.mark.parametrize("event", ["Acquisition", "Content"])
@pytest.mark.parametrize("shared", [True, False])
def test_volumes_keep_their_order_across_midnight(tmp_path: Path, event: str, shared: bool) -> None:
    """What was taken after midnight comes last, whether volumes share a time or each slice has its own."""
    told: list[dict[str, object]] = []
    for day, clock in (
        ("01", "235800"),
        ("01", "235900"),
        ("02", "000000"),
        ("02", "000200"),
        ("02", "000500"),
    ):
        times = clock if shared else tuple(f"{clock}.{k}" for k in range(3))
        told.append({f"{event}Date": f"202401{day}", f"{event}Time": times, "InstanceNumber": 1})
    stack = load(images(tmp_path, told)).value
    assert order(stack) == [0, 1, 2, 3, 4]
    if event == "Acquisition":
        assert [volume.facts["time"] for volume in stack.volumes] == [0, 60, 120, 240, 420]


def test_frames_of_an_enhanced_object_make_a_stack(tmp_path: Path) -> None:
    """The frames of one multi-frame object are parted as single images are, with their frame numbers."""
    stored = np.stack([np.full((5, 6), 10 * n + k, np.int16) for k in range(2) for n in range(3)])
    ds = enhanced([[0, 0, 2 * k] for k in range(2) for _ in range(3)], stored)
    for frame, b in zip(ds.PerFrameFunctionalGroupsSequence, (1000.0, 0.0, 500.0) * 2, strict=True):
        frame.MRDiffusionSequence = [
            item(DiffusionBValue=b, DiffusionDirectionality="ISOTROPIC" if b else "NONE")
        ]
    loaded = load([save(ds, tmp_path / "1.dcm")])
    assert [volume.facts["b_value"] for volume in loaded.value.volumes] == [0, 500, 1000]
    assert [volume.facts["directionality"] for volume in loaded.value.volumes] == [
        "NONE",
        "ISOTROPIC",
        "ISOTROPIC",
    ]
    assert order(loaded.value) == [1, 2, 0]
    assert loaded.frames == (2, 5, 3, 6, 1, 4)


def test_one_volume_is_a_stack_of_one(tmp_path: Path) -> None:
    """A series in which nothing was varied is a stack of one volume that names nothing."""
    stack = load(images(tmp_path, [{}])).value
    assert stack.by == ()
    assert len(stack.volumes) == 1


@given(st.lists(st.floats(0, 80000), min_size=2, max_size=6))
def test_moments_count_from_the_earliest(offsets: list[float]) -> None:
    """Whatever the order, the earliest volume is at 0 and none before it; equal moments say nothing."""
    volumes = []
    for offset in offsets:
        header = Dataset()
        header.FrameReferenceTime = format(offset * 1000, ".10g")
        volumes.append([header])
    times, source = moments_of(volumes)
    if len({float(v[0].FrameReferenceTime) for v in volumes}) == 1:
        assert (times, source) == ((), "")
    else:
        assert min(times) == 0
        assert np.allclose(times, np.array(offsets) - min(offsets), atol=1e-3)


@pytest.mark.parametrize(
    ("folder", "by", "count"),
    [("dce-ucsf-br-06", ("content_time",), 3), ("siemens-dti-classic", ("b_value",), 2),
     ("philips-enhanced-dti", ("b_value", "gradient"), 4), ("ge-dti-002", ("order",), 4)],
)  # fmt: skip
def test_real_series_are_parted(folder: str, by: tuple[str, ...], count: int) -> None:
    """Series of three makers, classic and enhanced, are told apart by what their headers say."""
    stack = load(sorted(need_samples("MR", folder).iterdir())).value
    assert stack.by[: len(by)] == by
    assert len(stack.volumes) == count
